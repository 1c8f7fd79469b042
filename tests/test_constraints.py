"""`constraints.txt` is complete: `bins/setup` installs what it names and resolves nothing."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = ("engine", "gpu", "otel", "dev")

# bins/setup says which one it takes on which machine.
CHOSEN_BY_SETUP = {"fastecdsa"}

NAME = re.compile(r"[A-Za-z0-9._-]+")
EXTRA = re.compile(r"""extra\s*==\s*["']([^"']+)["']""")


def normal(name: str) -> str:
    """As package indexes compare names (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def wanted(requirements: list[str], extras: frozenset[str] = frozenset()) -> Iterator[str]:
    """Names in *requirements* that are installed here; those of other machines are not."""
    for requirement in requirements:
        spec, _, marker = requirement.partition(";")
        needs = set(EXTRA.findall(marker))
        if needs and not needs & extras:
            continue
        match = NAME.match(spec.strip())
        assert match is not None, requirement
        yield match[0]


@functools.cache
def closure() -> dict[str, str]:
    """Every package that punch, its extras and what they need bring, with its version here."""
    found: dict[str, str] = {}
    waiting = [*PROJECT["dependencies"]]
    for extra in EXTRAS:
        waiting += PROJECT["optional-dependencies"][extra]
    names = list(wanted(waiting))
    while names:
        name = names.pop()
        if normal(name) in found:
            continue
        try:
            package = distribution(name)
        except PackageNotFoundError:
            continue
        found[normal(name)] = package.version
        names += wanted(package.requires or [])
    return found


@functools.cache
def pins() -> dict[str, str]:
    """What is written down."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {normal(name): version.partition(";")[0].strip() for name, version in pairs}


@pytest.mark.parametrize("name", sorted(closure().keys() - CHOSEN_BY_SETUP))
def test_every_package_that_is_needed_is_pinned(name: str) -> None:
    """With the version it was tested with."""
    assert pins().get(name) == closure()[name]


def test_every_direct_dependency_is_there() -> None:
    """A name that is not installed would not be missed above."""
    for requirement in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]):
        (name,) = wanted([requirement])
        assert normal(name) in pins(), requirement
