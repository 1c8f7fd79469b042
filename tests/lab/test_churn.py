"""A closed namespace whose machines come and go for minutes: nobody is missing, or a ghost."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import threading
import time
from pathlib import Path

import attrs
import psutil
import pytest
from integration.programs import Program, limit
from lab.machines import Lab, Machine
from lab.members import closed_namespace, let_in

# What the issue asks of ten minutes; somebody in a hurry gives less of each.
LISTENERS = int(os.environ.get("PUNCH_TEST_CHURN_LISTENERS", "30"))
DIALERS = int(os.environ.get("PUNCH_TEST_CHURN_DIALERS", "10"))
SECONDS = float(os.environ.get("PUNCH_TEST_CHURN_SECONDS", "600"))

# How long somebody may be missing who is there, or be shown who is not.
MOST_SECONDS = 10.0

# Between two changes. Half of the listeners that go are killed, and say no goodbye. Each newcomer
# shakes hands with everybody, and here two cores do what forty machines would.
PAUSE_SECONDS = 15.0

# Members that share a process: forty of these are more than two cores can start again and again.
LISTENERS_TOGETHER = 3
DIALERS_TOGETHER = 5

CROWD = Path(__file__).with_name("crowd.py")


@attrs.define(eq=False)
class Seen:
    """What a dialer has shown of the listeners, and when."""

    name: str
    heard: dict[str, float] = attrs.field(factory=dict)
    """When each was heard of last, as it was shown."""


@attrs.define(eq=False)
class Dialers:
    """Several dialers of one process."""

    program: Program
    seen: list[Seen]
    lines: int = 0

    def look(self) -> None:
        """Take what they have shown since the last look."""
        lines = self.program.out.splitlines()
        new, self.lines = lines[self.lines : -1], max(self.lines, len(lines) - 1)
        now = time.monotonic()
        for line in new:
            for seen, heard in zip(self.seen, json.loads(line), strict=True):
                seen.heard |= dict.fromkeys(heard, now)


@attrs.define(eq=False)
class Roll:
    """Who is there, since when, and who is not any more."""

    up: dict[str, float] = attrs.field(factory=dict)
    down: dict[str, float] = attrs.field(factory=dict)
    faults: list[str] = attrs.field(factory=list)
    worst: float = 0.0
    """The longest that anybody was missing, or a ghost, in seconds."""

    def call(self, dialers: list[Dialers]) -> None:
        """Compare what each dialer shows with who is there."""
        for each in dialers:
            each.look()
        now = time.monotonic()
        for seen in itertools.chain.from_iterable(each.seen for each in dialers):
            for peer, since in list(self.up.items()):
                self._note("missing", seen, peer, now - max(since, seen.heard.get(peer, 0.0)))
            for peer, since in list(self.down.items()):
                self._note("a ghost", seen, peer, seen.heard.get(peer, 0.0) - since)

    def _note(self, what: str, seen: Seen, peer: str, seconds: float) -> None:
        self.worst = max(self.worst, seconds)
        if seconds > MOST_SECONDS:
            self.faults.append(f"{peer} was {what} for {seconds:.1f} s at {seen.name}")


def held(programs: list[Program]) -> tuple[float, int]:
    """Megabytes and descriptors of the programs, all together."""
    processes = [psutil.Process(program.process.pid) for program in programs]
    return (
        sum(each.memory_info().rss for each in processes) / 1e6,
        sum(each.num_fds() for each in processes),
    )


@pytest.mark.long
@limit(1500)
def test_nobody_is_missing_or_a_ghost_while_listeners_come_and_go(lab: Lab) -> None:
    """Thirty listeners and ten dialers for ten minutes; memory and descriptors stay as they were.

    Three listeners are ended or killed every quarter of a minute, and others come elsewhere. Each
    dialer shows every second whom it could ask. All are members on machines that have joined by an
    invite, and know of no bootstrap: they meet at each other. One listener, of the machine that
    made the namespace, stays.
    """
    rng = random.Random(7)
    first = lab.machine("first")
    closed_namespace(lab, first)
    stayer = first.listener()
    crowds = -(-LISTENERS // LISTENERS_TOGETHER)
    hosts = [lab.machine(f"l{number}") for number in range(crowds)]
    places = [lab.machine(f"d{number}") for number in range(-(-DIALERS // DIALERS_TOGETHER))]
    let_in(first, [*hosts, *places])
    roll, running = Roll(), list[tuple[Machine, Program, list[str]]]()

    def start(host: Machine) -> None:
        program = host.start_script(CROWD, "listeners", str(LISTENERS_TOGETHER))
        program.wait_out("\n")
        peers: list[str] = json.loads(program.out)
        running.append((host, program, peers))
        now = time.monotonic()
        for peer in peers:
            # A listener that starts on the machine of one that ended has its identity.
            roll.down.pop(peer, None)
            roll.up[peer] = now

    for host in hosts:
        start(host)
    dialers = [
        Dialers(
            place.start_script(CROWD, "dialers", str(DIALERS_TOGETHER)),
            [Seen(f"dialer {number} of {place.name}") for number in range(DIALERS_TOGETHER)],
        )
        for place in places
    ]
    deadline = time.monotonic() + 60 + 3 * LISTENERS
    while not all(set(roll.up) <= set(seen.heard) for each in dialers for seen in each.seen):
        assert time.monotonic() < deadline, "the dialers never knew all listeners"
        for each in dialers:
            each.look()
        time.sleep(0.2)
    for peer in roll.up:
        roll.up[peer] = time.monotonic()
    stays = [stayer, *(each.program for each in dialers)]
    began, before = time.monotonic(), held(stays)
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.5):
            roll.call(dialers)
            for place, program, _ in list(running):
                if program.process.poll() is not None:
                    roll.faults.append(f"{place.name} ended by itself: {program.err[-3000:]}")

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    changes = 0
    while time.monotonic() - began < SECONDS:
        host, program, peers = running.pop(rng.randrange(len(running)))
        assert program.process.poll() is None, f"{host.name} ended by itself: {program.err[-3000:]}"
        for peer in peers:
            del roll.up[peer]
        program.process.send_signal(rng.choice([signal.SIGTERM, signal.SIGKILL]))
        program.process.wait(30)
        roll.down |= dict.fromkeys(peers, time.monotonic())
        # Elsewhere, with other identities: nobody is to be asked under those that are gone.
        start(rng.choice([each for each in hosts if each is not host]))
        changes += 1
        if changes == 10:
            before = held(stays)  # Once everything that is made once has been made.
        time.sleep(PAUSE_SECONDS)
    time.sleep(MOST_SECONDS)
    over.set()
    watcher.join()
    after = held(stays)
    print(
        f"{changes} times three of {len(roll.up)} listeners went and others came, under {DIALERS} "
        f"dialers, in {SECONDS:.0f} s: at most {roll.worst:.1f} s missing or a ghost; "
        f"{before[0]:.0f} MB and {before[1]} descriptors of a listener and the dialers before, "
        f"{after[0]:.0f} and {after[1]} after"
    )
    assert not roll.faults, roll.faults[:10]
    assert after[0] < 1.25 * before[0]
    assert after[1] <= before[1] + DIALERS * 4
