"""The long cables of the laboratory: what they do to packets, by what programs measure."""

from __future__ import annotations

import statistics
import sys

import pytest
from integration.programs import limit
from lab.cables import Quality, long_cable
from lab.machines import CommandFailedError, Lab, Machine
from lab.routers import router

# Sends back each datagram, and to whoever connects as many bytes as fit into two seconds.
SERVE = """
import socket, threading, time
def pour():
    server = socket.create_server(("0.0.0.0", 8000))
    while True:
        caller, _ = server.accept()
        end = time.monotonic() + 2
        while time.monotonic() < end:
            caller.sendall(bytes(8192))
        caller.close()
threading.Thread(target=pour, daemon=True).start()
echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
echo.bind(("0.0.0.0", 8001))
print("Serving", flush=True)
while True:
    echo.sendto(*echo.recvfrom(2000))
"""

# Prints the seconds that each datagram took there and back, of those that came back.
ECHO = """
import socket, struct, sys, time
asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asker.settimeout(float(sys.argv[3]))
count = int(sys.argv[2])
for _ in range(count):
    asker.sendto(struct.pack("d", time.monotonic()) + bytes(92), (sys.argv[1], 8001))
    time.sleep(0.002)
try:
    for _ in range(count):
        (sent,) = struct.unpack("d", asker.recv(200)[:8])
        print(time.monotonic() - sent)
except TimeoutError:
    pass
"""

# Prints the bytes a second that arrive.
TAKE = """
import socket, sys, time
asker = socket.create_connection((sys.argv[1], 8000), 5)
began, count = time.monotonic(), 0
while data := asker.recv(65536):
    count += len(data)
print(count / (time.monotonic() - began))
"""


def served(machine: Machine) -> Machine:
    """The machine, with what the others ask."""
    machine.start_script(SERVE).wait_out("Serving")
    return machine


def trips(asker: Machine, server: Machine, count: int, patience: float = 1.0) -> list[float]:
    """Seconds there and back of those of *count* datagrams that came back."""
    words = (server.ip4, str(count), str(patience))
    return [float(line) for line in asker.shell(sys.executable, "-c", ECHO, *words).split()]


@limit(60)
def test_a_long_cable_delays_loses_and_slows_as_it_says(lab: Lab) -> None:
    """In both ways, for datagrams and TCP; what it is may change while it is in use."""
    server, asker = served(lab.machine("server")), lab.machine("asker")
    assert max(trips(asker, server, 20)) < 0.1
    with long_cable(asker, "eth0", Quality(delay=0.15)) as cable:
        # The first waits for the answer of "who has this address?", too.
        (first,) = trips(asker, server, 1, 2)
        assert 0.6 <= first < 0.7
        came = trips(asker, server, 100)
        assert len(came) == 100
        assert 0.3 <= statistics.median(came) < 0.4
        cable.change(Quality(loss=0.1))
        # 10 % each way leave 81 %: this is within four standard deviations of that.
        assert 0.7 < len(trips(asker, server, 200)) / 200 < 0.92
        cable.change(Quality(rate=500_000))
        took = float(asker.shell(sys.executable, "-c", TAKE, server.ip4))
        assert 300_000 < took < 500_000
        cable.change(Quality(loss=1.0))
        assert trips(asker, server, 5, 0.3) == []
        cable.change(Quality())
        assert len(trips(asker, server, 20)) == 20


@limit(60)
def test_a_home_behind_a_long_cable_is_the_home_that_it_was(lab: Lab) -> None:
    """Addresses, the way out and the router's rules are those of before."""
    server = served(lab.machine("server"))
    home = router(lab, "home", "restricted")
    shed = home.machine("shed")
    ways = (("wan", home), ("eth0", shed))
    for interface, machine in ways:
        with long_cable(machine, interface, Quality(delay=0.05)):
            assert statistics.median(trips(shed, server, 20)) >= 0.1
        # The end of the block is the end of the cable.
        with pytest.raises(CommandFailedError):
            machine.ip("link", "show", interface)
        machine.plug(machine.wire, interface)
        if machine is shed:
            shed.ip("route", "add", "default", "via", home.way_out)
