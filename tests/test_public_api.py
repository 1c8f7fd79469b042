"""`import punch` is whole: one name for each thing, and every type that a user meets has one."""

from __future__ import annotations

import ast
import inspect
import tomllib
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

import punch

ROOT = Path(punch.__file__).parent

# Types that a user hands on and never looks into, each with where it comes from.
OPAQUE = {
    "BootstrapStatistics": "numbers, of `BootstrapServer.statistics`",
    "BusStatistics": "numbers, of `Bus.statistics`",
    "DecisionLogStatistics": "numbers, of `DecisionLog.statistics`",
    "FarEnds": "of tests, in `punch.cluster.worker`",
    "Folder": "the files of a `Home`",
    "Introduction": "what a door of one's own is shown, in `punch.access`",
    "Invite": "the right that an approved `NearbyRequest` has",
    "Key": "of a `Home`, which signs with it",
    "KeyStore": "made by `punch.gateway`",
    "LaneStatistics": "numbers, of `RunningLane.statistics`",
    "LeasedServer": "of a `RpcLender`, in `punch.cluster.worker`",
    "Lender": "a `RpcLender` is one",
    "Limits": "of a gateway, in `punch.gateway`",
    "ListenerStatistics": "numbers, of `Listener.statistics`",
    "LocalListener": "a `Listener` is one",
    "Lock": "of a membership, in `punch.access`",
    "Looked": "numbers, of `Lease.look`",
    "Machine": "of tests, in `punch.machine`",
    "Measured": "numbers, of `Lease.measure`",
    "Member": "of a `Lock`",
    "Membership": "made by `punch.membership`",
    "ModelNames": "made by a router",
    "Outcome": "what a `Joined` was told",
    "Presence": "only compared",
    "Quotas": "made by `punch.gateway`",
    "Recording": "made by a lane",
    "Refusal": "what a door of one's own says, in `punch.access`",
    "Registration": "what a membership is told",
    "RpcVersion": "three numbers, in `punch.llama_cpp`",
    "Shared": "of a gateway of several processes, in `punch.gateway`",
    "SignedGrant": "one of a `Home.chain`, in `punch.access`",
    "Stream": "between a listener and a router of one process",
    "Surveyed": "what borrowers are told, of `Worker.survey`",
    "Tenancy": "a lease as its worker has it, in `punch.cluster.leases`",
    "TunnelStatistics": "numbers, of `Lease.statistics`",
    "WorkerStatistics": "numbers, of `Worker.statistics`",
}


def public() -> dict[str, Any]:
    """Every public name and its value."""
    return {name: getattr(punch, name) for name in punch.__all__}


def test_each_name_is_exported_once() -> None:
    """And nothing under two names."""
    assert len(set(punch.__all__)) == len(punch.__all__)
    values = [value for value in public().values() if isinstance(value, type)]
    assert len({id(value) for value in values}) == len(values)


def test_every_type_of_a_public_signature_is_exported() -> None:
    """What is taken, what is returned, and what is inside of either."""
    exported = {value for value in public().values() if isinstance(value, type)}
    missing = {
        f"{found.__name__} ({where})"
        for name, value in public().items()
        for where, found in reachable(name, value)
        if found not in exported and found.__name__ not in OPAQUE
    }
    assert missing == set()


def test_every_error_that_a_caller_can_meet_is_exported() -> None:
    """Those below the public ones as well: a program may want to tell them apart."""
    bases = (punch.PeerError, punch.RequestError, punch.NoPeerAvailable)
    found = {error for base in bases for error in base.__subclasses__()}
    assert {error.__name__ for error in found} <= set(punch.__all__)


def test_the_types_are_there_for_type_checkers() -> None:
    """`py.typed` is in the package, and the package is what the wheel is made of."""
    assert (ROOT / "py.typed").is_file()
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())
    assert "build-backend" in project["build-system"]


def test_names_that_are_imported_late_are_those_for_type_checkers() -> None:
    """A name that only one of the two knows is there for nobody, or for nobody's editor."""
    tree = ast.parse((ROOT / "__init__.py").read_text())
    (block,) = (
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    typed = {
        alias.name
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == set(punch._ROOMS)


def reachable(name: str, value: Any) -> Iterator[tuple[str, type]]:
    """The types of punch in the signature of *value*, and in those of its public members."""
    if isinstance(value, type):
        if attrs.has(value):
            attrs.resolve_types(value)
            for field in attrs.fields(value):
                if not field.name.startswith("_"):
                    yield from of_punch(f"{name}.{field.name}", field.type)
        if issubclass(value, BaseException):
            return
        for member, found in vars(value).items():
            if member.startswith("_"):
                continue
            if isinstance(found, property):
                yield from in_signature(f"{name}.{member}", found.fget)
            elif isinstance(found, classmethod | staticmethod):
                yield from in_signature(f"{name}.{member}", found.__func__)
            elif inspect.isfunction(found):
                yield from in_signature(f"{name}.{member}", found)
    elif inspect.isfunction(value):
        yield from in_signature(name, value)


def in_signature(where: str, function: Any) -> Iterator[tuple[str, type]]:
    """The types of punch that a function takes and returns."""
    hints = typing.get_type_hints(inspect.unwrap(function))
    for hint in hints.values():
        yield from of_punch(where, hint)


def of_punch(where: str, hint: Any) -> Iterator[tuple[str, type]]:
    """The classes of punch in a type, however deep."""
    if isinstance(hint, type) and typing.get_origin(hint) is None:
        if hint.__module__.startswith("punch."):
            yield where, hint
        return
    for argument in typing.get_args(hint):
        if isinstance(argument, list):
            for each in argument:
                yield from of_punch(where, each)
        else:
            yield from of_punch(where, argument)
