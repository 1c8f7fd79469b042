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
