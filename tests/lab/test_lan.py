"""Machines of one LAN that find each other by mDNS, and machines that cannot."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from integration.programs import limit
from lab.machines import BOOTSTRAP_PORT, Lab

# In an open namespace nobody is believed unless that is said.
LAN = "--lan"
ASK = ("--ask", "hello", "--no-stream", "--json", "--timeout", "20", LAN)
NOBODY = f"/ip4/10.77.0.250/tcp/{BOOTSTRAP_PORT}"


def until(ready: Callable[[], Any], what: str, seconds: float = 30.0) -> float:
    """Wait until *ready*; the seconds that it took."""
    began = time.monotonic()
    while not ready():
        assert time.monotonic() - began < seconds, what
        time.sleep(0.1)
    return time.monotonic() - began


@limit(60)
def test_two_machines_find_each_other_by_mdns_alone(lab: Lab) -> None:
    """Their bootstrap is nowhere; a stranger's namespace on the same wire hears nothing of it."""
    desk, shed, other = lab.machine("desk"), lab.machine("shed"), lab.machine("other")
    lab.meeting = NOBODY
    listener = desk.start("listener", LAN)
    stranger = other.start("listener", LAN, "--namespace", "another")
    second = desk.start("listener", LAN)
    began = time.monotonic()
    answer = shed.dial(*ASK).json()
    assert time.monotonic() - began < 15
    shed.start_punch("peers", "--json", LAN)
    for each in (listener, second):
        desk.ready(each)  # Somebody of the namespace has found it, so it is in it.
    ids = {listener.peer_id, second.peer_id}
    assert answer["executor"] in ids
    # Two processes on one machine.
    assert desk.dial(*ASK).json()["executor"] in ids
    shown = shed.punch("peers", "--once", LAN).out
    assert "found by LAN: 2 listeners" in shown, shown
    assert not stranger.events("listening")


@pytest.mark.long
@limit(100)
def test_with_mdns_blocked_all_else_works_and_says_so(lab: Lab) -> None:
    """By the wire, and by one machine's own firewall: requests are answered, and each says why."""
    boot, deaf, well = (lab.machine(name) for name in ("boot", "deaf", "well"))
    boot.wire.block_multicast()
    deaf.mute()
    boot.bootstrap("--listen", f"/ip4/{boot.ip4}/tcp/{BOOTSTRAP_PORT}")
    muted, listener = deaf.start("listener", LAN), well.start("listener", LAN)
    for machine, program in ((deaf, muted), (well, listener)):
        machine.ready(program)
    answer = boot.dial(*ASK).json()
    assert answer["executor"] in {muted.peer_id, listener.peer_id}
    watch = boot.start_punch("peers", LAN)
    said = muted.wait_for("mDNS does not work here; all else does")
    assert "does not come back to it: its firewall drops it" in said["why"]
    until(lambda: "found by LAN: 2 members are on this LAN" in watch.out, "punch peers says so")
    assert "and none is heard by mDNS" in watch.out
    # Alone in hearing itself, and no dialer: it has nothing to say of it.
    assert not listener.events("mDNS does not work here; all else does")


@limit(60)
def test_machines_with_link_local_addresses_alone_find_each_other(lab: Lab) -> None:
    """A cable between two machines, and nobody who gives addresses: IPv6 has one for each link."""
    desk, shed = lab.machine("desk"), lab.machine("shed")
    lab.meeting = NOBODY
    for machine in (desk, shed):
        machine.go_link_local()
    listener = desk.start("listener", LAN)
    # A dialer waits for some seconds only, and the listener may still be starting.
    until(lambda: shed.dial(*ASK).code == 0, "the listener is found")
    answer = shed.dial(*ASK).json()
    assert answer["executor"] == desk.ready(listener).peer_id
    # What one link has is said on it alone, and is in no registration.
    assert listener.addresses == ()


@pytest.mark.long
@limit(120)
def test_a_link_local_peer_is_dialled_over_the_interface_on_which_it_was_heard(lab: Lab) -> None:
    """Its machine has three, and the two machines two wires in common; a closed namespace too."""
    desk, shed = lab.machine("desk"), lab.machine("shed")
    lab.meeting = NOBODY
    full = desk.punch("namespace", "create", "home").out.strip()
    first = desk.ready(desk.start("listener"))
    code = lab.folder / "code"
    assert desk.punch("invite", "--file", str(code)).code == 0
    joined = shed.punch("join", "--file", str(code))
    assert joined.out.strip() == full, joined
    first.stop()
    for machine in (desk, shed):
        machine.plug(lab.wire(1))
        machine.plug(lab.wire(2 if machine is desk else 3))
        for interface in ("eth0", "eth1", "eth2"):
            machine.ip("addr", "flush", "dev", interface, "scope", "global")
    # The first wire does not lead to the other machine any more.
    shed.ip("link", "set", "eth0", "down")
    listener = desk.ready(desk.start("listener"))
    # It can listen on a new link a second after that has an address, and says so later still.
    until(lambda: shed.dial(*ASK[:-1]).code == 0, "the listener is found")
    asked = shed.dial(*ASK[:-1]).json()
    assert asked["executor"] == listener.peer_id


@pytest.mark.long
@limit(90)
def test_a_peer_on_two_lans_is_one_and_stays_when_one_is_lost(lab: Lab) -> None:
    """Heard on both, listed once, and asked over the other cable when one is pulled."""
    desk, shed = lab.machine("desk"), lab.machine("shed")
    lab.meeting = NOBODY
    for machine in (desk, shed):
        machine.plug(lab.wire(1))
    listener = desk.start("listener", LAN, "--listen", "/ip4/0.0.0.0/tcp/21820")
    assert shed.dial(*ASK).json()["executor"] == desk.ready(listener).peer_id
    assert "found by LAN: 1 listener" in shed.punch("peers", "--once", LAN).out
    desk.link("eth0", "down")
    assert shed.dial(*ASK).json()["executor"] == listener.peer_id


@pytest.mark.long
@limit(120)
def test_a_vpn_is_left_alone_unless_it_is_named(lab: Lab) -> None:
    """Two machines that have nothing but a VPN in common."""
    desk, shed = lab.machine("desk"), lab.machine("shed")
    lab.meeting = NOBODY
    for machine in (desk, shed):
        machine.plug(lab.wire(1), "wg0")
    shed.ip("link", "set", "eth0", "down")
    vpn = ("--lan-interfaces", "wg0")
    anywhere = ("--listen", "/ip4/0.0.0.0/tcp/0")
    silent = desk.start("listener", LAN, *anywhere)
    heard = desk.start("listener", LAN, *vpn, *anywhere)
    answer = shed.dial(*ASK, *vpn).json()
    assert answer["executor"] == desk.ready(heard).peer_id
    assert not silent.events("listening")
    shown = shed.punch("peers", "--once", LAN)
    assert shown.code != 0
    assert "no interface of this machine has a LAN behind it" in shown.err


@pytest.mark.long
@limit(60)
def test_a_program_of_an_open_namespace_is_warned_of_the_closed_one_nearby(lab: Lab) -> None:
    """Without being told to look on the LAN; and told not to, it hears nothing."""
    desk, shed = lab.machine("desk"), lab.machine("shed")
    lab.meeting = NOBODY
    desk.punch("namespace", "create", "home")
    desk.ready(desk.start("listener"))
    warned = shed.start("listener", "--namespace", "home")
    deaf = shed.start("listener", "--namespace", "home", "--no-lan")
    said = warned.wait_for("a closed namespace of this name is nearby")
    assert (said["namespace"], said["level"]) == ("home", "warning")
    time.sleep(1)
    assert not deaf.events("a closed namespace")


@pytest.mark.long
@limit(60)
def test_mdns_is_off_in_an_open_namespace_unless_asked_for(lab: Lab) -> None:
    """A listener that says nothing is not found, while one beside it is."""
    desk, shed = lab.machine("desk"), lab.machine("shed")
    lab.meeting = NOBODY
    silent = desk.start("listener")
    heard = desk.start("listener", LAN)
    assert shed.dial(*ASK).json()["executor"] == desk.ready(heard).peer_id
    assert not silent.events("listening")
    shown = shed.punch("peers", "--once").out
    assert "found by LAN" not in shown
