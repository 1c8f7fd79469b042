"""The home routers of the laboratory: what each kind lets through, and what it makes of a port."""

from __future__ import annotations

import sys

import pytest
from integration.programs import limit
from lab.machines import CommandFailedError, Lab, Machine
from lab.routers import KINDS, Kind, router

# Answers each caller with the address and port that it seems to come from.
SERVE = """
import socket
server = socket.create_server(("0.0.0.0", PORT), reuse_port=True)
print("Serving", flush=True)
while True:
    caller, (host, port) = server.accept()
    caller.sendall(f"{host} {port}".encode())
    caller.close()
"""

# What `SERVE` says to a caller from a port of its own.
ASK = """
import socket, sys
to, port, own = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
asker = socket.socket()
asker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
asker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
asker.settimeout(1)
asker.bind(("0.0.0.0", own))
asker.connect((to, port))
print(asker.recv(100).decode())
"""


def serving(machine: Machine, port: int) -> None:
    """Serve at *port*, with the options by which others may use it too."""
    machine.start_script(SERVE.replace("PORT", str(port))).wait_out("Serving")


def seen(machine: Machine, server: Machine, own: int = 7000) -> list[str]:
    """The address and port that *machine* has in the eyes of *server*, from its port *own*."""
    return machine.shell(sys.executable, "-c", ASK, server.ip4, "8000", str(own)).split()


@limit(60)
@pytest.mark.parametrize("kind", KINDS)
def test_a_home_router_hides_its_machines_as_its_kind_does(lab: Lab, kind: Kind) -> None:
    """Out as the router, with its own port or another; in where the kind lets anybody in."""
    asked, other = lab.machine("asked"), lab.machine("other")
    home = router(lab, "home", kind)
    shed = home.machine("shed")
    serving(asked, 8000)
    serving(other, 8000)
    serving(shed, 7000)
    with pytest.raises(CommandFailedError):
        other.shell(sys.executable, "-c", ASK, home.ip4, "7000", "9000")
    ports = []
    for server in (asked, other) if kind == "symmetric" else (asked,):
        host, port = seen(shed, server)
        assert host == home.ip4
        ports.append(port)
    assert ("7000" in ports) == (kind != "symmetric")
    assert len(set(ports)) == len(ports)
    if kind == "cone":
        assert other.shell(sys.executable, "-c", ASK, home.ip4, "7000", "9000")
    else:
        with pytest.raises(CommandFailedError):
            other.shell(sys.executable, "-c", ASK, home.ip4, "7000", "9000")


@limit(60)
def test_a_router_behind_a_router_leads_out_twice_hidden(lab: Lab) -> None:
    """Double NAT: the internet sees the outer router, and nobody there knows the inner home."""
    asked = lab.machine("asked")
    outer = router(lab, "outer", "restricted")
    inner = router(lab, "inner", "symmetric", behind=outer)
    shed, porch = inner.machine("shed"), outer.machine("porch")
    serving(asked, 8000)
    serving(porch, 8000)
    assert seen(shed, asked)[0] == outer.ip4
    assert seen(shed, porch)[0] == inner.ip4
    with pytest.raises(CommandFailedError):
        asked.shell(sys.executable, "-c", ASK, shed.ip4, "7000", "9000")
