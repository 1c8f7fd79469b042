"""Ports that other programs have: what is served all the same, and what is said."""

from __future__ import annotations

from integration.programs import limit
from lab.machines import BOOTSTRAP_PORT, Lab, Machine
from lab.members import NOBODY_ELSE

HOLDS = """
import socket, sys, time
kind = socket.SOCK_DGRAM if sys.argv[1] == "udp" else socket.SOCK_STREAM
held = socket.socket(socket.AF_INET, kind)
held.bind(("0.0.0.0", int(sys.argv[2])))
if sys.argv[1] == "tcp":
    held.listen()
print("holds", flush=True)
time.sleep(600)
"""


@limit(100)
def test_a_bootstrap_serves_what_it_can_and_listeners_take_the_next_port(lab: Lab) -> None:
    """WireGuard has UDP 51820; where TCP's is taken too, the bootstrap says by which program."""
    desk, shed = lab.machine("desk"), lab.machine("shed")
    for machine, kind in ((desk, "udp"), (shed, "udp"), (shed, "tcp")):
        machine.start_script(HOLDS, kind, str(BOOTSTRAP_PORT)).wait_out("holds")
    holder = shed.start_script(HOLDS, "tcp", "21820")
    holder.wait_out("holds")
    everywhere = ("--listen", f"/ip4/0.0.0.0/tcp/{BOOTSTRAP_PORT}")
    refused = shed.start("bootstrap", *everywhere)

    server = desk.bootstrap(*everywhere)
    assert f"/ip4/{desk.ip4}/tcp/{BOOTSTRAP_PORT}" in server.addresses[0]
    assert not [place for place in server.addresses if "/udp/" in place]
    said = server.wait_for("no QUIC here: its UDP port is taken; TCP is served")
    assert "/udp/51820/quic-v1" in said["address"]

    ended = refused.wait()
    assert ended.code == 7
    assert "the port is taken by process" in ended.err

    listeners = [shed.listener(), shed.listener()]
    ports = [int(one.addresses[0].split("/")[4]) for one in listeners]
    assert ports == [21821, 21822]
    assert listeners[0].events("the usual port is taken: listening on the next free one")


def beyond_loopback(machine: Machine) -> set[tuple[str, str, int]]:
    """Protocol, address and port of all that another machine could send to."""
    found = set()
    for line in machine.shell("ss", "--no-header", "-tuln").splitlines():
        kind, _, _, _, local, *_ = line.split()
        address, _, port = local.rpartition(":")
        address = address.partition("%")[0].strip("[]")
        if not address.startswith("127.") and address != "::1":
            found.add((kind, address, int(port)))
    return found


@limit(100)
def test_punch_up_opens_one_port_to_the_lan_and_that_for_members_alone(lab: Lab) -> None:
    """The node's, and mDNS, once the namespace is made. Programs and commands ask on loopback."""
    desk = lab.machine("desk")
    lab.meeting = NOBODY_ELSE
    open_one = desk.up("--namespace", "N")
    assert beyond_loopback(desk) == set()
    assert open_one.stop().code == 0
    desk.up().wait_out("for the next machine")
    found = beyond_loopback(desk)
    assert {(kind, port) for kind, _, port in found} == {("tcp", 21820), ("udp", 5353)}
    hosts = {host for kind, host, _ in found if kind == "tcp"}
    assert {host for host in hosts if not host.startswith("fe80:")} == {desk.ip4, desk.ip6}
