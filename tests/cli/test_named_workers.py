"""What people call a worker is what a coordinator plans with, or without."""

from __future__ import annotations

import pytest
from layouts import SMOL

from punch.cli.splits._lenders import _Planner
from punch.cli.splits._naming import ids_of, is_meant
from punch.placement import HEAD, HEAD_CPU, Device, Lessons, Link, Plan, Wants

GB = 10**9
LINK = Link(rtt=1e-4, rate=1e8)
ATTIC = "12D3KooWPnzyP1m2hUFpy1DAJwCrU5d1VFobf1Mp6KdeJ97uimh3"
DESK = "12D3KooWBazP4e7iLWthLB98LBFfhgESUfh8uRZ9fkqrevc94JrK"


def device(name: str, holder: str) -> Device:
    """A device of *holder*."""
    link = None if holder == HEAD else LINK
    return Device(id=name, holder=holder, memory=8 * GB, bandwidth=1e9, compute=1e10, link=link)


DEVICES = (
    device(HEAD_CPU, HEAD),
    device(ATTIC, ATTIC),
    device(f"{DESK}/CUDA0", DESK),
    device(f"{DESK}/CUDA1", DESK),
)


@pytest.mark.parametrize(
    ("name", "is_attic"),
    [
        (ATTIC, True),
        ("97uimh3", True),
        ("..97uimh3", True),
        ("uimh3", False),
        ("", False),
        ("......", False),
        ("attic", False),
    ],
)
def test_a_worker_is_meant_by_its_identity_or_a_long_enough_end_of_it(
    name: str, is_attic: bool
) -> None:
    """With the dots that tables put before an end, or without them."""
    assert is_meant(name, ATTIC) is is_attic


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("CPU", {HEAD_CPU}),
        ("97uimh3", {ATTIC}),
        ("..c94JrK", {DESK}),
        ("c94JrK/CUDA1", {f"{DESK}/CUDA1"}),
        ("c94JrK/CUDA7", set()),
        ("CUDA1", set()),
        ("attic", set()),
    ],
)
def test_a_name_stands_for_what_a_plan_calls_so(name: str, ids: set[str]) -> None:
    """A device of a worker is named with it; what means nothing is told."""
    assert ids_of([name], DEVICES) == (frozenset(ids), [] if ids else [name])


def workers_of(wants: Wants) -> set[str]:
    """The workers that hold layers with *wants*, of which each would hold some."""
    found = _Planner(SMOL, wants, Lessons(SMOL, wants))(DEVICES)
    assert isinstance(found, Plan)
    return set(found.workers)


def test_an_excluded_worker_holds_nothing_however_it_was_named() -> None:
    """It would read the prompts."""
    assert workers_of(Wants(exclude=frozenset({"CPU", "..97uimh3"}))) == {DESK}
    assert workers_of(Wants(exclude=frozenset({"CPU", "c94JrK"}))) == {ATTIC}


def test_the_named_devices_alone_hold_layers() -> None:
    """A worker by the end of its identity is one of them."""
    assert workers_of(Wants(device=frozenset({"97uimh3"}))) == {ATTIC}


def test_a_name_that_means_nothing_is_warned_of_once(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each plan asks again; whoever types a machine's name hears that it does not count."""
    wants = Wants(exclude=frozenset({"attic"}))
    planner = _Planner(SMOL, wants, Lessons(SMOL, wants))
    planner(DEVICES)
    planner(DEVICES)
    heard = caplog.text + capsys.readouterr().out + capsys.readouterr().err
    assert heard.count("names what is not there") == 1
