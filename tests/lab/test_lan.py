"""Machines of one LAN that find each other by mDNS, and machines that cannot."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from integration.programs import limit
from lab.machines import BOOTSTRAP_PORT, Lab

ASK = ("--ask", "hello", "--no-stream", "--json", "--timeout", "20")
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
    listener = desk.start("listener")
    stranger = other.start("listener", "--namespace", "another")
    second = desk.start("listener")
    began = time.monotonic()
    answer = shed.dial(*ASK).json()
    assert time.monotonic() - began < 15
    shed.start_punch("peers", "--json")
    for each in (listener, second):
        desk.ready(each)  # Somebody of the namespace has found it, so it is in it.
    ids = {listener.peer_id, second.peer_id}
    assert answer["executor"] in ids
    # Two processes on one machine.
    assert desk.dial(*ASK).json()["executor"] in ids
    shown = shed.punch("peers", "--once").out
    assert "found by LAN: 2 listeners" in shown, shown
    assert not stranger.events("listening")
