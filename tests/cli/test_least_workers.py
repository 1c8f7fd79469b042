"""How many workers a coordinator wants: all that were asked for, and later those that are left."""

from __future__ import annotations

from layouts import SMOL

from punch.cli.splits._lenders import _Planner
from punch.placement import HEAD, HEAD_CPU, Device, Lessons, Link, Plan, Wants

GB = 10**9
LINK = Link(rtt=1e-4, rate=1e8)
WANTS = Wants(is_forced=True, min_workers=2)


def head(memory: int = 64 * GB) -> Device:
    """The head's own processor, which could do it all and is the fastest."""
    return Device(id=HEAD_CPU, holder=HEAD, memory=memory, bandwidth=100e9, compute=1e12)


def worker(name: str) -> Device:
    """A worker that is slower."""
    return Device(id=name, holder=name, memory=8 * GB, bandwidth=1e9, compute=1e10, link=LINK)


def workers_of(found: object) -> int:
    """How many workers hold layers in a plan."""
    assert isinstance(found, Plan)
    return len(set(found.workers))


def test_each_plan_has_as_many_workers_as_were_asked_for() -> None:
    """The first as the second, which is made once the links were measured."""
    planner = _Planner(SMOL, WANTS, Lessons(SMOL, WANTS))
    for _ in range(2):
        assert workers_of(planner([head(), worker("a"), worker("b")])) == 2


def test_there_is_no_plan_before_enough_workers_are_there() -> None:
    """The head alone would be faster, and was not what was asked for."""
    planner = _Planner(SMOL, WANTS, Lessons(SMOL, WANTS))
    assert not isinstance(planner([head(), worker("a")]), Plan)


def test_after_the_first_plan_a_lost_worker_is_done_without() -> None:
    """And taken again once it is back."""
    planner = _Planner(SMOL, WANTS, Lessons(SMOL, WANTS))
    both = [head(), worker("a"), worker("b")]
    assert workers_of(planner(both)) == 2
    assert workers_of(planner(both[:2])) == 1
    assert workers_of(planner(both)) == 2
