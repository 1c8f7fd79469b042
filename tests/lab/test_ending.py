"""Every program ends within its drain time, whatever the network does, before joining and after."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from integration.programs import Program, limit
from lab.machines import BOOTSTRAP_PORT, Lab, Machine

# A drain takes at most 10 s and closing a node 3 s; the rest is for five programs that end at once.
DRAIN_SECONDS = 15.0

# What may become of the bootstrap that they meet at, or would.
DEAD, REFUSED, FROZEN, SLOW, NAMELESS = "dead", "refused", "frozen", "slow", "nameless"
BEFORE = (DEAD, REFUSED, FROZEN, SLOW, NAMELESS)
AFTER = (DEAD, REFUSED, FROZEN, SLOW)

# Takes connections, and answers with a byte each second.
SLOWLY = """
import socket, threading, time
def drip(peer):
    while True:
        peer.sendall(b"x")
        time.sleep(1)
server = socket.create_server(("0.0.0.0", 51820))
print("up", flush=True)
while True:
    threading.Thread(target=drip, args=server.accept()[:1], daemon=True).start()
"""


def catches(program: Program) -> bool:
    """Whether a program has installed its handler of SIGTERM."""
    for line in Path(f"/proc/{program.pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


def started(machine: Machine) -> list[Program]:
    """All the kinds of programs, on one machine."""
    return [
        machine.start("listener"),
        machine.start("dialer", "--ask", "hello", "--timeout", "300"),
        machine.start("gateway", "--port", "0"),
        machine.start("gateway", "--port", "0", "--listen-too"),
        machine.start("bootstrap", "--listen", f"/ip4/{machine.ip4}/tcp/0"),
    ]


def spoil(lab: Lab, boot: Machine, server: Program | None, how: str) -> None:
    """Have the bootstrap become what *how* says."""
    if how == NAMELESS:
        lab.meeting = f"/dns4/nowhere.test/tcp/{BOOTSTRAP_PORT}"
        for machine in lab.machines.values():
            # A name server that never answers.
            (machine.etc / "resolv.conf").write_text(f"nameserver {boot.ip4}\n")
        boot.silence()
    elif how == DEAD:
        boot.silence()
    elif how == REFUSED and server is not None:
        server.kill()
    elif how == FROZEN:
        (server or boot.bootstrap("--listen", f"/ip4/0.0.0.0/tcp/{BOOTSTRAP_PORT}")).send(
            signal.SIGSTOP
        )
    elif how == SLOW and server is None:
        boot.start_script(SLOWLY).wait_out("up")
    elif how == SLOW:
        boot.shell("nft", "add table inet lab")
        boot.shell("nft", "add chain inet lab input { type filter hook input priority 0; }")
        boot.shell("nft", "add rule inet lab input limit rate over 5/second drop")


def ends(programs: list[Program], number: signal.Signals) -> None:
    """Each of *programs* that still runs ends in its time once it gets the signal."""
    began = time.monotonic()
    running = [program for program in programs if program.process.poll() is None]
    for program in running:
        program.send(number)
    for program in running:
        left = DRAIN_SECONDS - (time.monotonic() - began)
        ended = program.wait(max(left, 0.1))
        print(f"{program.name}: {time.monotonic() - began:.1f} s, {ended.code}")
        assert ended.code in {0, 3, 7, 128 + number}, (program.name, ended)


def _matrix(kinds: tuple[str, ...], in_ci: str) -> list[object]:
    """The kinds with all three signals; all but one are for the long run."""
    return [
        pytest.param(how, number, marks=[pytest.mark.long] if (how, number) != chosen else [])
        for chosen in [(in_ci, signal.SIGTERM)]
        for how in kinds
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    ]


@limit(150)
@pytest.mark.parametrize(("how", "number"), _matrix(BEFORE, FROZEN))
def test_programs_that_never_joined_end(lab: Lab, how: str, number: signal.Signals) -> None:
    """The bootstrap is out of reach from the beginning, in one way or another."""
    boot, here = lab.machine("boot"), lab.machine("here")
    spoil(lab, boot, None, how)
    programs = started(here)
    deadline = time.monotonic() + 60
    while not all(program.process.poll() is not None or catches(program) for program in programs):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(1.5)
    ends(programs, number)


@limit(150)
@pytest.mark.parametrize(("how", "number"), _matrix(AFTER, DEAD))
def test_programs_that_have_joined_end(lab: Lab, how: str, number: signal.Signals) -> None:
    """The bootstrap goes while they are members; the dialer is in the middle of an answer."""
    boot, here = lab.machine("boot"), lab.machine("here")
    server = boot.bootstrap("--listen", f"/ip4/{boot.ip4}/tcp/{BOOTSTRAP_PORT}")
    lab.meeting = f"/ip4/{boot.ip4}/tcp/{BOOTSTRAP_PORT}"
    slow = {"PUNCH_MOCK_DECODE_RATE": "0.2"}
    listener = here.ready(here.start("listener", variables=slow))
    programs = [listener, *started(here)[1:]]
    programs[1].wait_out(seconds=60)
    for gateway in programs[2:4]:
        gateway.wait_for("serving")
    spoil(lab, boot, server, how)
    time.sleep(1.5)
    ends(programs, number)
