"""A machine is removed from a closed namespace of ten: each of its sessions ends, and soon."""

from __future__ import annotations

import json
import shutil
import time
from datetime import datetime
from functools import partial

import pytest
from integration.programs import Program, limit
from lab.machines import Lab, Machine
from lab.members import closed_namespace, done, let_in, serving

MEMBERS = 10
MOST_SECONDS = 2.0


def asked_by(machine: Machine, program: Program) -> set[str]:
    """The listeners that the gateway of *machine* has a session with."""
    snapshot = json.loads(machine.get(f"{program.url}/api/dashboard/snapshot"))
    return {row["id"] for row in snapshot["peers"]}


def ends_seen(program: Program, peer: str) -> list[float]:
    """When *program* has ended its sessions with *peer* as with a member no longer, in UTC."""
    return [
        datetime.fromisoformat(line["timestamp"]).timestamp()
        for line in program.events("peers are members no longer")
        if peer in line["peers"]
    ]


def is_turned_away(program: Program) -> bool:
    """Whether *program* has heard that its machine was removed."""
    return "its machine was removed" in program.err


@pytest.mark.long
@limit(400)
def test_a_removed_machine_is_out_on_all_nine_others_within_two_seconds(lab: Lab) -> None:
    """Each asks each. The removed one has a copy of its folder, which brings it in nowhere."""
    machines = [lab.machine(f"m{number}") for number in range(MEMBERS)]
    first, out = machines[0], machines[4]
    closed_namespace(lab, first)
    programs = serving([first])
    let_in(first, machines[1:])
    programs |= serving(machines[1:])
    everybody = {program.peer_id for program in programs.values()}
    deadline = time.monotonic() + 60
    for machine in machines:
        while asked_by(machine, programs[machine.name]) != everybody:
            assert time.monotonic() < deadline, f"{machine.name} does not know all"
            time.sleep(0.2)
    homes = out.data / "namespaces"
    shutil.copytree(homes, out.folder / "copy")
    gone = programs.pop(out.name)

    done(first, "members", "remove", out.name)
    (removals,) = (first.data / "namespaces").glob("*/revocations")
    removed_at = removals.stat().st_mtime
    time.sleep(MOST_SECONDS + 1.0)
    # Of each machine the sessions in which it asks, and those in which it is asked.
    ends = {name: ends_seen(program, gone.peer_id) for name, program in programs.items()}
    took = {name: [round(end - removed_at, 2) for end in each] for name, each in ends.items()}
    print(f"seconds until the sessions of the removed one had ended, by machine: {took}")
    assert all(len(each) == 2 for each in took.values()), took
    assert max(second for each in took.values() for second in each) < MOST_SECONDS
    assert asked_by(out, gone) <= {gone.peer_id}

    # What it holds: its key and grant of before, with and without the word of its removal.
    gone.stop()
    shutil.rmtree(homes)
    (out.folder / "copy").rename(homes)
    thief = lab.machine("thief")
    shutil.copytree(out.data, thief.data)
    again = {place.name: place.gateway("--listen-too") for place in (out, thief)}
    for program in again.values():
        # To itself it is a member until another one says what has happened.
        program.wait_until(partial(is_turned_away, program), "a refusal")
    time.sleep(4.0)
    for place in (out, thief):
        assert asked_by(place, again[place.name]) <= {gone.peer_id}
    for machine in machines:
        if machine is not out:
            assert asked_by(machine, programs[machine.name]) == everybody - {gone.peer_id}
