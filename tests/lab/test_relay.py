"""Listeners at home, behind routers that let nobody in: they answer over a relay."""

from __future__ import annotations

import json
from typing import Literal

import pytest
from integration.programs import Program, limit
from lab.machines import BOOTSTRAP_PORT, Lab, Machine
from lab.members import closed_namespace, let_in, serving
from lab.routers import KINDS, Kind, router

Home = Kind | Literal["none"]
HOMES: tuple[Home, ...] = ("none", *KINDS)

PROMPT = "the heron of Ravensbourne eats at seven"

# Writes every frame of its machine's wire to a file.
CAPTURE = """
import socket
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(3))
print("Capturing", flush=True)
with open("frames", "wb", buffering=0) as file:
    while True:
        file.write(wire.recv(65536))
"""


def relayed(peers: str) -> list[str]:
    """The path to each listener that ``punch peers --json`` knows."""
    return [json.loads(line)["path"] for line in peers.splitlines()]


def at_home(lab: Lab, *options: str) -> tuple[Machine, Machine, Program]:
    """A meeting point, an asker behind one router, and a listener behind another, started."""
    boot = lab.machine("boot")
    lab.meeting = f"/ip4/{boot.ip4}/tcp/{BOOTSTRAP_PORT}"
    boot.bootstrap("--listen", lab.meeting, *options)
    asker = router(lab, "flat", "restricted").machine("asker")
    shed = router(lab, "home", "symmetric").machine("shed")
    return boot, asker, shed.start("listener", "--log-level", "info")


@limit(100)
def test_a_listener_at_home_is_asked_over_a_relay_that_reads_nothing(lab: Lab) -> None:
    """Both sides behind routers; all that the meeting point's wire carried has no word of it."""
    boot, asker, listener = at_home(lab)
    capture = boot.start_script(CAPTURE)
    capture.wait_out("Capturing")
    listener.wait_for("this machine is reached through a relay")
    asked = asker.dial("--ask", PROMPT, "--timeout", "20")
    assert asked.code == 0, asked
    assert asked.out.strip()
    assert PROMPT.encode() not in (frames := (boot.folder / "frames").read_bytes())
    assert len(frames) > 10_000
    assert relayed(asker.punch("peers", "--once", "--json").out) == ["relay"]


@limit(100)
def test_a_meeting_point_that_does_not_relay_leads_nobody_home(lab: Lab) -> None:
    """It says so to the listener, and the asker is told that nobody can be reached."""
    _, asker, listener = at_home(lab, "--no-relay")
    listener.wait_for("no relay there")
    asked = asker.dial("--ask", PROMPT, "--timeout", "15")
    assert asked.code == 3, asked


@limit(150)
def test_members_at_two_homes_ask_each_other_through_the_one_that_can_be_reached(lab: Lab) -> None:
    """In a closed namespace its first machine relays, with nothing set anywhere."""
    attic = lab.machine("attic")
    asker = router(lab, "flat", "restricted").machine("asker")
    shed = router(lab, "home", "symmetric").machine("shed")
    closed_namespace(lab, attic)
    held = serving([attic])["attic"]
    let_in(attic, [asker, shed])
    listener = serving([shed])["shed"]
    listener.wait_for("this machine is reached through a relay")
    asked = asker.dial("--ask", PROMPT, "--only", listener.peer_id, "--timeout", "20")
    assert asked.code == 0, asked
    paths = relayed(asker.punch("peers", "--once", "--json").out)
    assert sorted(paths) == ["network", "relay"]
    assert held.process.poll() is None


@pytest.mark.long
@limit(200)
@pytest.mark.parametrize("kind", HOMES)
def test_every_pair_of_homes_is_answered_and_directly_where_the_listener_is_open(
    lab: Lab, kind: Home
) -> None:
    """A column of the matrix: a listener in one kind of home, an asker in each."""
    boot = lab.machine("boot")
    lab.meeting = f"/ip4/{boot.ip4}/tcp/{BOOTSTRAP_PORT}"
    boot.bootstrap("--listen", lab.meeting)
    listener = housed(lab, "shed", kind).listener("--log-level", "info")
    if kind != "none":
        listener.wait_for("this machine is reached through a relay")
    found = {}
    for theirs in HOMES:
        asker = housed(lab, f"a{theirs[:4]}", theirs)
        asked = asker.dial("--ask", PROMPT, "--timeout", "20")
        assert asked.code == 0, (theirs, asked)
        (found[theirs],) = relayed(asker.punch("peers", "--once", "--json").out)
        print(f"{theirs} asks {kind}: {found[theirs]}, {asked.seconds:.1f} s")
    way = "network" if kind == "none" else "relay"
    assert found == dict.fromkeys(HOMES, way)


def housed(lab: Lab, name: str, kind: Home) -> Machine:
    """A machine in a home of this *kind*, or without a router."""
    if kind == "none":
        return lab.machine(name)
    return router(lab, f"{name}r", kind).machine(name)
