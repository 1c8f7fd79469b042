"""Two machines in a closed namespace, in real processes: invited, joined, asked, and removed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from integration.programs import Program, Programs, free_port, limit
from integration.tunnel_targets import echoed, open_echo, port_of

from punch.cli import ExitCode


class Machine:
    """A machine: a data folder, and a bootstrap that no other machine is at."""

    def __init__(self, programs: Programs, name: str) -> None:
        self.name = name
        self.programs = programs
        self.variables = {
            "XDG_DATA_HOME": str(programs.folder / name),
            "PUNCH_BOOTSTRAP": f"/ip4/127.0.0.1/tcp/{free_port()}",
            "PUNCH_LISTEN": "/ip4/127.0.0.1/tcp/0",
            "PUNCH_MOCK_MODEL": f"model-{name}",
            "PUNCH_LAN": "0",
        }

    def punch(self, *arguments: str, code: int = 0) -> str:
        """What a command prints."""
        found = self.programs.start_punch(*arguments, **self.variables).wait()
        assert found.code == code, found
        return found.out.strip()

    def listener(self, **variables: str) -> Program:
        return self.programs.listener(**self.variables, **variables)

    def asks(self, other: Machine) -> int:
        """The exit code of a dialer that asks for the model of *other*."""
        return self.programs.dial(
            *("--ask", "hi", "--model", f"model-{other.name}", "--max-tokens", "3"),
            *("--timeout", "10"),
            variables=self.variables,
        ).code


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What is opened in a test and closed after it."""
    with ExitStack() as opened:
        yield opened


@limit(120)
def test_two_machines_meet_by_an_invite_alone_and_part_by_a_removal(
    programs: Programs, stack: ExitStack
) -> None:
    """Neither knows the other's bootstrap, and no program is told of the namespace.

    A port that one lets members reach is reached by the other, until it is none.
    """
    attic, laptop = Machine(programs, "attic"), Machine(programs, "laptop")
    full = attic.punch("namespace", "create", "home", "--called", "attic")
    port = stack.enter_context(open_echo())
    attic.listener(PUNCH_TUNNEL_PORTS=f"echo={port}")
    code = Path(programs.folder / "code")
    attic.punch("invite", "--file", str(code), "--name", "laptop")
    assert laptop.punch("join", "--file", str(code)) == full
    laptop.punch("join", "--file", str(code), code=2)
    second = laptop.listener()
    assert (attic.asks(laptop), laptop.asks(attic)) == (0, 0)
    assert "laptop" in attic.punch("members")
    tunnel = programs.start_punch("tunnel", "--to", "attic", "--port", "echo", **laptop.variables)
    at = port_of(tunnel)
    assert echoed(at) == b"hello"

    attic.punch("members", "remove", "laptop")
    tunnel.wait_for("the tunnel is lost", 10)
    assert echoed(at) == b""
    assert laptop.asks(attic) != 0
    assert attic.asks(laptop) != 0
    assert second.process.poll() is None
    assert code.read_text().strip() not in second.err


def machine_of(machine: Machine) -> str:
    """The key of a machine in its namespace."""
    (info,) = (machine.programs.folder / machine.name).rglob("namespace.json")
    return str(json.loads(info.read_bytes())["machine"])


@limit(240)
def test_a_machine_changes_its_key_and_leaves_while_its_programs_run(programs: Programs) -> None:
    """They take the new key without a break; when it leaves they end, and the others know it."""
    attic, laptop = Machine(programs, "attic"), Machine(programs, "laptop")
    attic.punch("namespace", "create", "home", "--called", "attic")
    attic.listener()
    code = programs.folder / "code"
    attic.punch("invite", "--file", str(code), "--name", "laptop")
    laptop.punch("join", "--file", str(code))
    ran = [laptop.listener(), programs.gateway("--open-to-all", **laptop.variables)]

    before = machine_of(laptop)
    laptop.punch("members", "rotate")
    assert machine_of(laptop) != before
    assert attic.asks(laptop) == 0

    left = programs.start_punch("leave", **laptop.variables).wait()
    assert left.code == 0
    assert "told attic" in left.err
    assert "reached" not in left.err
    for program in ran:
        ended = program.wait()
        assert ended.code == ExitCode.NETWORK
        assert "this machine has left home@" in ended.err
    assert attic.punch("members").count("left") == 2
    assert not list((programs.folder / "laptop").rglob("machine*.key"))
