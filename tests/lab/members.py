"""Closed namespaces in the laboratory, made and joined by the commands that people type."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from integration.programs import Program
from lab.machines import BOOTSTRAP_PORT, Lab, Machine

# The usual setting of somebody who has set nothing: no machine is told of another.
NOBODY_ELSE = f"/ip4/127.0.0.1/tcp/{BOOTSTRAP_PORT}"

# Machines that start or join at a time, on two cores.
SIDE_BY_SIDE = 3


def closed_namespace(lab: Lab, first: Machine) -> None:
    """Make a namespace on the *first* machine; from now on programs know of no bootstrap."""
    lab.meeting = NOBODY_ELSE
    done(first, "namespace", "create", "home", "--called", first.name)


def let_in(by: Machine, machines: Iterable[Machine], *options: str) -> None:
    """Have *machines* join by one invite of *by*, where a program serves."""
    newcomers = list(machines)
    code = by.folder / "code"
    code.unlink(missing_ok=True)
    done(by, "invite", "--uses", str(len(newcomers)), "--file", str(code), *options)

    def join(machine: Machine) -> None:
        done(machine, "join", "--file", str(code), "--called", machine.name)

    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        list(pool.map(join, newcomers))


def done(machine: Machine, command: str, *arguments: str) -> str:
    """What a command prints, which must end well."""
    found = machine.punch(command, *arguments)
    assert found.code == 0, f"{machine.name}: punch {command} {arguments}: {found.err}"
    return found.out


def serving(machines: Iterable[Machine], *options: str) -> dict[str, Program]:
    """``punch serve --listen-too`` on each machine, by its name; each is joined."""

    def serve(machine: Machine) -> tuple[str, Program]:
        program = machine.gateway("--listen-too", *options)
        return machine.name, machine.ready(program)

    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        return dict(pool.map(serve, machines))
