"""`punch up` on three machines with empty homes, as docs/first-minutes.md shows it."""

from __future__ import annotations

import json
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from integration.programs import ROOT, Program, limit
from lab.machines import Lab, Machine
from lab.members import NOBODY_ELSE, done
from lab.terminals import Player

from punch.cli.up._engine_choice import PULL

PAGE = ROOT / "docs" / "first-minutes.md"

# What the machines have had for a while: Ollama on one, llama-server on another.
OLLAMA = """
import sys, time
sys.path.insert(0, sys.argv[1])
from model_servers import Ollama
with Ollama("llama3.2:1b").serve(11434):
    print("serving", flush=True)
    time.sleep(3600)
"""
# From the first command to the last answer; what the document promises.
MOST_SECONDS = 120.0

LLAMA_SERVER = "import os, sys; os.execv(sys.argv[1], sys.argv[1:])"


def run_ollama(machine: Machine) -> None:
    """Have a server with Ollama's protocol at its usual port."""
    machine.start_script(OLLAMA, str(ROOT / "tests")).wait_out("serving")


def run_llama_server(machine: Machine, program: Path, model: Path) -> Program:
    """Have llama.cpp's own server at its usual port, as its user has started it."""
    server = machine.start_script(
        LLAMA_SERVER, str(program), "--model", str(model), "--alias", "smollm2",
        "--ctx-size", "2048", "--threads", "1", "--jinja",
    )  # fmt: skip
    server.wait_until(lambda: "listening" in server.out + server.err, "a server", 60)
    return server


def wait_for_models(machine: Machine, *names: str) -> None:
    """Wait until a program on *machine* is offered all of these."""
    deadline = time.monotonic() + 30
    while True:
        listed = json.loads(machine.get("http://localhost:11435/v1/models"))
        found = {each["id"] for each in listed["data"]}
        if found >= set(names):
            return
        assert time.monotonic() < deadline, found
        time.sleep(0.2)


def answered_by(machine: Machine) -> set[str]:
    """The peers that have answered the programs of *machine*."""
    path = machine.folder / ".local/share/punch/decisions.jsonl"
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {line["executor"] for line in lines if "executor" in line}


@limit(180)
def test_three_machines_become_one_address(
    lab: Lab, tmp_path: Path, model_path: Path, llama_cpp_folder: Path
) -> None:
    """A program that knows `localhost` gets answers from all of them, in under two minutes."""
    machines = {
        f"192.168.1.{10 + number}": lab.machine(name)
        for number, name in enumerate(("nas", "desk", "laptop"))
    }
    run_ollama(lab.machine("nas"))
    server = run_llama_server(lab.machine("desk"), llama_cpp_folder / "llama-server", model_path)
    with closing(Player(tmp_path, machines, PAGE)) as page:
        began = time.monotonic()
        page.play("Three machines, what each already has, and one code")
        laptop = lab.machine("laptop")
        wait_for_models(laptop, "llama3.2:1b", "smollm2")
        page.play("A program that knows `localhost` and nothing else")
        took = time.monotonic() - began
        print(f"three machines, from the first command to the last answer: {took:.1f} s")
        assert took < MOST_SECONDS
        assert len(answered_by(laptop)) == 2
        (terminal,) = page.running["laptop"]
        terminal.wait_for(f"waits for a model to answer with here, too: `{PULL}`")
    # The user's own, and still there. It may wait for its connections when it is told to end.
    assert server.process.poll() is None
    server.kill()


def status_of(machine: Machine) -> dict[str, Any]:
    """What `punch status` says on *machine*."""
    return dict(json.loads(done(machine, "status", "--json")))


@pytest.mark.long
@limit(120)
def test_joining_moves_what_runs_and_drops_what_nobody_else_is_in(lab: Lab) -> None:
    """Both began alone, each in a namespace of its own; what moved stays there when it ends."""
    desk, laptop = lab.machine("desk"), lab.machine("laptop")
    lab.meeting = NOBODY_ELSE

    def up(machine: Machine) -> Program:
        engine = {"PUNCH_INFERENCE_BACKEND": "mock", "PUNCH_MOCK_MODEL": f"model-{machine.name}"}
        program = machine.start_punch("up", **engine)
        program.wait_out("dashboard")
        return program

    _, moved = up(desk), up(laptop)
    before, wanted = status_of(laptop)["namespace"], status_of(desk)["namespace"]
    assert before != wanted
    code = desk.folder / "code"
    done(desk, "invite", "--file", str(code))
    done(laptop, "join", "--file", str(code))
    assert status_of(laptop)["namespace"] == wanted
    assert [each.name for each in (laptop.data / "namespaces").glob("*@*")] == [wanted]
    assert f"{before} was dropped" in moved.out
    wait_for_models(laptop, "model-desk", "model-laptop")
    assert moved.stop().code == 0
    up(laptop)
    assert status_of(laptop)["namespace"] == wanted
