"""Networks that stand still in the middle of an answer: it ends, and all are back soon after."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from integration.programs import Program, Result, limit
from lab.cables import Cable, Quality, long_cable
from lab.machines import BOOTSTRAP_PORT, Lab, Machine, command
from lab.test_addresses import FOLLOWED_SECONDS, Watch

# An answer of ten seconds.
TOKENS = 100
RATE = {"PUNCH_MOCK_DECODE_RATE": "10"}
ASK = ("--ask", "Say a lot.", "--max-tokens", str(TOKENS), "--timeout", "60")

# As between two homes of one town, and as with the plug pulled at the far side of the street.
USUAL = Quality(delay=0.02)
CUT = Quality(loss=1.0)

# Silence that a session bears, with a second to spare.
BORNE_SECONDS = 4.0


class Town:
    """A listener behind a long cable, a bootstrap and a dialer that has begun to hear an answer."""

    def __init__(self, lab: Lab) -> None:
        self.boot, self.shed, self.desk = (lab.machine(name) for name in ("boot", "shed", "desk"))
        self.boot.bootstrap("--listen", f"/ip4/{self.boot.ip4}/tcp/{BOOTSTRAP_PORT}")
        self.listener = self.shed.listener(**RATE)
        self.watch = Watch(self.desk)
        self.watch.wait_for(self.listener.peer_id, what="found")

    def asking(self) -> Program:
        """A dialer that hears an answer."""
        program = self.desk.start("dialer", *ASK)
        program.wait_out(" ")
        return program

    def is_back(self) -> None:
        """The listener is heard again as soon as it should be."""
        taken = self.watch.wait_for(self.listener.peer_id, what="back")
        assert taken < FOLLOWED_SECONDS


@contextmanager
def town(lab: Lab) -> Iterator[tuple[Town, Cable]]:
    """The town, and the cable of its listener."""
    lab.machine("boot")  # The first machine is where the others meet.
    with long_cable(lab.machine("shed"), "eth0", USUAL) as cable:
        yield Town(lab), cable


def is_whole(ended: Result) -> bool:
    """Whether an answer is; if not, one line says why it ended."""
    words = len(ended.out.split())
    if ended.code == 0:
        assert words == TOKENS
        return True
    (error,) = [line for line in ended.err.splitlines() if line.startswith("punch: ")]
    assert f"failed after {words} tokens" in error
    return False


@limit(500)
@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(3, marks=pytest.mark.long),
        12,
        pytest.param(30, marks=pytest.mark.long),
        pytest.param(300, marks=pytest.mark.long),
    ],
)
def test_a_network_that_stands_still_ends_no_answer_without_a_word(
    lab: Lab, seconds: float
) -> None:
    """For as long as a session bears silence the answer is whole; then one line says what was."""
    with town(lab) as (there, cable):
        asking = there.asking()
        cable.change(CUT)
        time.sleep(seconds)
        cable.change(USUAL)
        there.is_back()
        assert is_whole(asking.wait(30)) or seconds > BORNE_SECONDS
        assert is_whole(there.asking().wait(30))


@limit(500)
def test_an_uplink_that_changes_in_mid_answer_ends_it_with_a_word(lab: Lab) -> None:
    """Another lease, as from another provider: the listener is there under its new address."""
    with town(lab) as (there, _):
        asking = there.asking()
        there.shed.readdress()
        there.is_back()
        is_whole(asking.wait(30))
        assert is_whole(there.asking().wait(30))


def _signal_all(machine: Machine, number: int) -> None:
    for pid in command("ip", "netns", "pids", machine.namespace).split():
        os.kill(int(pid), number)


@limit(300)
@pytest.mark.parametrize(
    ("which", "seconds"),
    [
        ("shed", 12),
        *(
            pytest.param(which, seconds, marks=pytest.mark.long)
            for which in ("shed", "desk", "boot")
            for seconds in (12, 120)
            if (which, seconds) != ("shed", 12)
        ),
    ],
)
def test_a_machine_that_sleeps_is_back_when_it_wakes(lab: Lab, which: str, seconds: float) -> None:
    """The listener's, the dialer's, the bootstrap's: the answer that was running ends."""
    with town(lab) as (there, _):
        asking = there.asking()
        sleeper: Machine = getattr(there, which)
        _signal_all(sleeper, signal.SIGSTOP)
        time.sleep(seconds)
        _signal_all(sleeper, signal.SIGCONT)
        there.is_back()
        is_whole(asking.wait(60))
        assert is_whole(there.asking().wait(30))
