"""Fixes the order in which trio runs ready tasks: the one place that touches trio's private names.

Trio shuffles the tasks that are ready, so that no program relies on an order; two runs of a
simulation would differ. It has two switches for Hypothesis that make the order a drawn but
repeatable one, and no public way to turn them (looked for in 0.30 to 0.35). A trio without them
fails loudly at the import.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

from trio._core import _run as scheduler


@contextmanager
def fixed_order(seed: int) -> Iterator[None]:
    """Let trio draw the order of ready tasks from *seed*, for runs that begin in the block."""
    before = scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r
    scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]  # Final, to mypy
    scheduler._r = Random(seed)
    try:
        yield
    finally:
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r = before  # type: ignore[misc]  # as above
