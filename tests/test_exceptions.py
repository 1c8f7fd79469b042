"""The tree of errors: what is drawn is what is there."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

import punch
from punch import exceptions
from punch.exceptions import NoPeerAvailable, PunchError

ROOT = Path(punch.__file__).parent

CLASSES = [
    value
    for value in vars(exceptions).values()
    if inspect.isclass(value) and issubclass(value, PunchError)
]

each_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)


def drawn() -> dict[str, str]:
    """Each class in the picture at the top of the module, with its parent there."""
    found: dict[str, str] = {}
    above = ["Exception"]
    for line in (exceptions.__doc__ or "").splitlines():
        match = re.match(r"( *)[*x+] (\w+)", line)
        if match:
            depth = len(match[1]) // 2 + 1
            del above[depth:]
            found[match[2]] = above[-1]
            above.append(match[2])
    return found


def test_the_tree_in_the_docstring_is_the_tree_of_the_code() -> None:
    """Whoever adds a class decides whose fault it is, and draws it there."""
    assert drawn() == {cls.__name__: cls.__bases__[0].__name__ for cls in CLASSES}


def test_every_error_of_punch_is_in_the_tree() -> None:
    """No room has an error of its own, which a table of errors would then forget."""
    known = {cls.__name__ for cls in CLASSES}
    outside = {}
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
                if bases & known and node.name not in known:
                    outside[node.name] = path.relative_to(ROOT).as_posix()
    assert outside == {}


def test_every_class_has_a_code_of_its_own() -> None:
    """A code on the wire or in a log names one class."""
    codes = [vars(cls).get("code") for cls in CLASSES]
    assert None not in codes
    assert len(set(codes)) == len(CLASSES)


@each_class
def test_a_code_is_one_lower_case_word(cls: type[PunchError]) -> None:
    """It fits a log line and a JSON field without quoting."""
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", cls.code)


@each_class
def test_every_class_says_when_it_is_raised(cls: type[PunchError]) -> None:
    """The docstring is its own, not its parent's."""
    assert vars(cls)["__doc__"]


@each_class
def test_every_error_is_made_from_a_sentence(cls: type[PunchError]) -> None:
    """Code that maps or wraps errors needs no special case."""
    error = cls("what happened")
    assert (str(error), error.retry_after) == ("what happened", None)


def test_nobody_available_says_why_for_every_peer() -> None:
    """The text alone is enough to act on."""
    error = NoPeerAvailable("nobody answered", {"a": "is full", "b": "was silent"})
    assert str(error) == "nobody answered\n  a: is full\n  b: was silent"


def test_the_reasons_are_a_copy() -> None:
    """An error does not change after it was raised."""
    reasons = {"a": "is full"}
    error = NoPeerAvailable("nobody answered", reasons)
    reasons["b"] = "was silent"
    assert error.reasons == {"a": "is full"}


def test_a_moment_to_ask_again_belongs_to_one_error() -> None:
    """Setting it on one error says nothing about the next."""
    error = NoPeerAvailable("nobody answered")
    error.retry_after = 2.0
    assert NoPeerAvailable("nobody answered").retry_after is None
