"""Closed namespaces as docs/network.md shows them, on machines with empty homes."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from integration.programs import Program, limit
from lab.machines import Lab, Machine
from lab.members import closed_namespace, done, let_in, serving
from lab.terminals import Player

# Seconds of processor time, of all three machines together.
MOST_SECONDS = 30.0

# A machine that is told of mDNS that does not work: it waits for its own echo, and then a while.
SAID_SECONDS = 60.0


@contextmanager
def player(lab: Lab, folder: Path, *names: str) -> Iterator[Player]:
    """Machines of these names, at the addresses that the page gives them, with empty homes."""
    places = {f"192.168.1.{10 + number}": lab.machine(name) for number, name in enumerate(names)}
    with closing(Player(folder, places)) as opened:
        yield opened


def executors(machine: Machine) -> list[str]:
    """The names of those that have answered the dialers of *machine*."""
    path = machine.folder / ".local/share/punch/decisions.jsonl"
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [line["executor"] for line in lines if "executor" in line]


@limit(200)
def test_three_machines_join_and_outlive_the_first(lab: Lab, tmp_path: Path) -> None:
    """As on the page; six questions are answered by those that they are for, in 30 s."""
    with player(lab, tmp_path, "attic", "desk", "laptop", "shed") as page:
        began, before = time.monotonic(), page.spent()
        page.play("From nothing to three machines")
        spent, took = page.spent() - before, time.monotonic() - began
        print(f"three machines: {spent:.1f} s of processor time, {took:.1f} s in all")
        asked = {name: executors(page.machines[name]) for name in ("attic", "desk", "laptop")}
        assert all(len(set(each)) == 2 for each in asked.values()), asked
        assert len({peer for each in asked.values() for peer in each}) == 3
        assert spent < MOST_SECONDS
        page.destroy("attic")
        page.play("When the first machine is gone for good")
        print(f"with the first one gone: {page.spent() - before - spent:.1f} s more")


@limit(120)
def test_machines_nearby_are_let_in_without_a_code(lab: Lab, tmp_path: Path) -> None:
    """As on the page: one finds the member by mDNS, and one is told where it is."""
    with player(lab, tmp_path, "attic", "desk", "laptop") as page:
        page.play("Without a code, on one LAN")


def ask_nearby(machine: Machine, *options: str) -> Program:
    """Have a machine without a terminal ask to be let in."""
    options = ("--nearby", "--yes", "--called", machine.name, *options)
    return machine.start_punch("join", *options)


def ask_each_other(machines: Sequence[Machine]) -> None:
    """Each of *machines* asks each other one."""
    for machine, other in itertools.permutations(machines, 2):
        asked = machine.dial("--ask", "hello", "--only", other.name)
        assert asked.code == 0, f"{machine.name} asks {other.name}: {asked.err}"


@limit(90)
def test_machines_on_a_cable_alone_join_and_reach_each_other(lab: Lab) -> None:
    """Nobody gives them addresses; the member dials back over the link that the newcomer is on."""
    desk, shed = lab.machine("desk"), lab.machine("shed")
    closed_namespace(lab, desk)
    for machine in (desk, shed):
        machine.go_link_local()
    serving([desk])
    asking = ask_nearby(shed)
    asking.wait_until(lambda: "approve" in asking.err, "the digits")
    digits = re.search(r"members approve ([0-9]{3}-[0-9]{3})", asking.err)
    assert digits is not None
    done(desk, "members", "approve", digits[1])
    joined = asking.wait()
    assert joined.code == 0, joined.err
    assert re.search("that member reaches this machine at /ip6zone/[a-z0-9]+/ip6/fe80:", joined.err)


@pytest.mark.long
@limit(300)
def test_with_mdns_blocked_machines_join_in_every_other_way(lab: Lab) -> None:
    """By a code, a short code and by asking, all told where; each program says what is amiss.

    Without the first machine, and without mDNS, those that start find the others where they were.
    """
    attic, desk, laptop, shed = map(lab.machine, ("attic", "desk", "laptop", "shed"))
    attic.wire.block_multicast()
    closed_namespace(lab, attic)
    programs = serving([attic])

    lost = ask_nearby(desk).wait()
    assert lost.code != 0
    assert "no member is found on the LAN" in lost.err
    assert "--at HOST[:PORT], which works where mDNS does not" in lost.err
    asking = ask_nearby(desk, "--at", attic.ip4)
    asking.wait_until(lambda: "approve" in asking.err, "the digits")
    digits = re.search(r"members approve ([0-9]{3}-[0-9]{3})", asking.err)
    assert digits is not None
    done(attic, "members", "approve", digits[1], "--scope", "dial,listen,admin")
    assert asking.wait().code == 0

    let_in(attic, [laptop])
    code = attic.folder / "short"
    done(attic, "invite", "--short", "--file", str(code))
    by_code = ("--file", str(code), "--called", shed.name)
    assert shed.punch("join", *by_code).code != 0
    done(shed, "join", *by_code, "--at", attic.ip4)

    programs |= serving([desk, laptop, shed])
    ask_each_other([attic, desk, laptop, shed])
    for program in programs.values():
        said = program.wait_for("mDNS does not work here; all else does", SAID_SECONDS)
        assert "on this LAN, and none is heard by mDNS" in said["why"]

    attic.destroy()
    ask_each_other([desk, laptop])
    programs["laptop"].kill()
    programs |= serving([laptop])
    ask_each_other([laptop, shed])
    late = lab.machine("late")
    let_in(desk, [late])
    programs |= serving([late])
    ask_each_other([late, laptop])
