"""What the rooms of the gateway know of each other."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

import punch.gateway

ROOT = Path(punch.gateway.__file__).parent
DIALECTS = ("openai", "ollama", "anthropic")


def imported(path: Path) -> set[str]:
    """What a module of the gateway imports of the gateway: rooms, and modules of the spine."""
    found = set()
    depth = len(path.relative_to(ROOT).parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            found.add((node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_dialect_knows_no_other(dialect: Any) -> None:
    """What they share stands in the spine: a change of one breaks none of the others."""
    others = set(DIALECTS) - {dialect}
    for path in (ROOT / dialect).glob("*.py"):
        assert imported(path) & others == set(), path.name


def test_the_server_knows_no_word_of_the_gateway() -> None:
    """It speaks HTTP/1.1; what is said in it is its application's."""
    for path in (ROOT / "server").glob("*.py"):
        assert imported(path) == set(), path.name


def test_the_spine_imports_dialects_only_where_it_is_put_together() -> None:
    """A new dialect is a line there, and in the tables of the fields of all of them."""
    for path in ROOT.glob("_[a-z]*.py"):
        if path.name not in ("_gateway.py", "_openapi.py", "_fields.py"):
            assert imported(path) & set(DIALECTS) == set(), path.name
