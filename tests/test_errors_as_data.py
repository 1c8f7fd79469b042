"""Errors carry data, and no rule of punch looks into what an error says.

A sentence is for people: somebody improves its words, a library translates them, a peer writes
what it likes into them. A program that decides by them breaks, or obeys a stranger.
"""

from __future__ import annotations

import ast
import copy
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

import punch
from punch import exceptions
from punch.exceptions import (
    AnswerInterrupted,
    InvalidRequest,
    NoPeerAvailable,
    PeerError,
    PeerTimeout,
    PunchError,
    RequestError,
)

ROOT = Path(punch.__file__).parent

CLASSES = [
    value
    for value in vars(exceptions).values()
    if isinstance(value, type) and issubclass(value, PunchError)
]

each_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)


# ---- what is in an error ----


def data_of(cls: type[PunchError]) -> dict[str, Any]:
    """A value for everything that errors of this class carry."""
    found: dict[str, Any] = {"retry_after": 2.5}
    if issubclass(cls, RequestError):
        found["param"] = "messages[0].content"
    if issubclass(cls, PeerError):
        found["peer_id"] = "12D3KooWpeer"
    if issubclass(cls, NoPeerAvailable):
        found["reasons"] = {"a": "is full"}
    if issubclass(cls, AnswerInterrupted):
        found |= {"tokens": 7, "characters": 31}
    return found


@each_class
def test_an_error_keeps_its_data_when_it_is_copied_or_pickled(cls: type[PunchError]) -> None:
    """It may be kept, or cross a process."""
    data = data_of(cls)
    error = cls("what happened", **data)
    for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(other) is cls
        assert (other.message, str(other)) == ("what happened", str(error))
        assert {name: getattr(other, name) for name in data} == data


def test_the_name_of_a_peer_is_beside_what_happened() -> None:
    """A table has a column for it, and a log a field."""
    error = PeerTimeout("silent for 10 s", peer_id="peer-a")
    assert (error.message, error.peer_id) == ("silent for 10 s", "peer-a")
    assert str(error) == "peer-a: silent for 10 s"


def test_a_peers_words_are_its_words_even_with_its_name_in_front() -> None:
    """What begins like a name of ours is not cut off."""
    error = PeerTimeout("peer-a: peer-a: hello", peer_id="peer-a")
    assert error.message == "peer-a: peer-a: hello"


def test_a_bad_field_is_named_once_and_is_data() -> None:
    """Whoever calls the field something else says the rule behind a name of its own."""
    error = InvalidRequest.about("top_k", "is -1; it must be from 0 to 9")
    assert str(error) == "top_k is -1; it must be from 0 to 9"
    assert (error.param, error.rule) == ("top_k", "is -1; it must be from 0 to 9")
    copied = pickle.loads(pickle.dumps(error))
    assert (copied.param, copied.rule) == (error.param, error.rule)


def test_the_words_of_others_have_no_rule_of_ours() -> None:
    """So that nobody takes them to begin with the name of a field."""
    assert InvalidRequest("top_k is -1", param="top_k").rule is None


# ---- what nobody does with it ----

# Methods of a text that find something in it.
LOOKING = frozenset(
    {"startswith", "endswith", "removeprefix", "removesuffix", "find", "rfind", "index", "rindex"}
    | {"count", "partition", "rpartition", "split", "rsplit", "splitlines", "replace", "strip"}
)

# Functions of `re`, and methods of its patterns, that do.
MATCHING = frozenset({"match", "fullmatch", "search", "findall", "finditer", "sub", "split"})


@attrs.define
class Looker(ast.NodeVisitor):
    """Finds where a module looks into the words of an exception.

    An expression is taken for such words if it is `str()`, `repr()` or an f-string of a name
    that an `except` binds or that is annotated with, or called, an error; `.args` and `.message`
    of it; the `.message` of anything else; or a name that was given one of these.
    """

    found: list[int] = attrs.Factory(list)
    errors: set[str] = attrs.Factory(set)
    words: set[str] = attrs.Factory(set)

    def is_error(self, node: ast.expr) -> bool:
        match node:
            case ast.Name(id=name):
                return name in self.errors or name == "error"
            case ast.Attribute(attr=name):
                return name in {"error", "__cause__", "__context__"}
        return False

    def is_words(self, node: ast.expr | None) -> bool:
        match node:
            case ast.Call(func=ast.Name(id="str" | "repr"), args=[value]):
                return self.is_error(value)
            case ast.Attribute(attr="message"):
                # Whatever it is called: what others have written for people has this name.
                return True
            case ast.Attribute(value=value, attr="args"):
                return self.is_error(value)
            case ast.Subscript(value=value):
                return self.is_words(value)
            case ast.Call(func=ast.Attribute(value=value, attr="lower" | "casefold" | "upper")):
                return self.is_words(value)
            case ast.JoinedStr(values=values):
                return any(
                    isinstance(value, ast.FormattedValue) and self.is_error(value.value)
                    for value in values
                )
            case ast.BoolOp(values=values):
                return any(map(self.is_words, values))
            case ast.Name(id=name):
                return name in self.words
        return False

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        """Names are a function's own."""
        inner = Looker(found=self.found, errors=set(self.errors), words=set(self.words))
        arguments = node.args
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            kind = ast.unparse(argument.annotation) if argument.annotation else ""
            if kind.endswith(("Error", "Exception")) or kind in KNOWN:
                inner.errors.add(argument.arg)
        for child in node.body:
            inner.visit(child)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815 - ast's own spelling

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        """What is caught has a name."""
        if node.name is not None:
            self.errors.add(node.name)
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        """Words may be given a name first."""
        if self.is_words(node.value):
            self.words |= {each.id for each in node.targets if isinstance(each, ast.Name)}
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        """`in`, `==` and their like."""
        if any(map(self.is_words, [node.left, *node.comparators])):
            self.found.append(node.lineno)
        self.generic_visit(node)

    def visit_Match(self, node: ast.Match) -> None:
        """A `match` is a comparison."""
        if self.is_words(node.subject):
            self.found.append(node.lineno)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        """Methods of texts and of patterns."""
        if isinstance(node.func, ast.Attribute):
            looks = node.func.attr in LOOKING and self.is_words(node.func.value)
            matches = node.func.attr in MATCHING and any(map(self.is_words, node.args))
            if looks or matches:
                self.found.append(node.lineno)
        self.generic_visit(node)


KNOWN = {cls.__name__ for cls in CLASSES}


def lookers(source: str) -> list[int]:
    """Lines of *source* that look into the words of an exception."""
    looker = Looker()
    looker.visit(ast.parse(source))
    return looker.found


def modules() -> Iterator[tuple[str, str]]:
    """Every module of punch, with its text."""
    for path in sorted(ROOT.rglob("*.py")):
        yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")


def test_no_rule_looks_into_the_text_of_an_exception() -> None:
    """Not with `in`, nor a pattern, nor a comparison; see DESIGN.md, *Failure rules*."""
    found = {name: lines for name, source in modules() if (lines := lookers(source))}
    assert found == {}


@pytest.mark.parametrize(
    "line",
    [
        'if "refused" in str(error): pass',
        'if str(error) == "x": pass',
        'if str(error).startswith("x"): pass',
        'reason = str(error).removeprefix(f"{peer}: ")',
        'if re.search("x+", str(error)): pass',
        "if PATTERN.match(str(error)): pass",
        "if error.args[0] == 3: pass",
        'if "x" in error.args: pass',
        'if "x" in error.message: pass',
        "if PATTERN.search(said.message): pass",
        'if "x" in str(error).lower(): pass',
        'why = str(error)\n    if "x" in why: pass',
        'if "x" in f"{error}": pass',
        'if "x" in (str(error) or "y"): pass',
        'match str(error):\n        case "x": pass',
        'if "x" in str(error.__cause__): pass',
    ],
)
def test_a_planted_look_into_the_text_is_found(line: str) -> None:
    """The test above would see it, whatever the error is called."""
    for name in ("error", "bad"):
        planted = line.replace("error", name)
        caught = f"try: pass\nexcept ValueError as {name}:\n    {planted}\n"
        assert lookers(caught)
        passed = f"def f({name}: PeerError):\n    {planted}\n"
        assert lookers(passed)


@pytest.mark.parametrize(
    "line",
    [
        "raise X(str(error)) from error",
        "why = str(error) or type(error).__name__",
        'if error.code == "x": pass',
        "if error.retry_after > 3: pass",
        "if error.errno in (1, 2): pass",
        'log.info("x", why=str(error)[:200])',
        "if isinstance(error, PeerError): pass",
    ],
)
def test_telling_somebody_what_an_error_says_is_no_look_into_it(line: str) -> None:
    """The words are for that."""
    assert lookers(f"try: pass\nexcept ValueError as error:\n    {line}\n") == []
