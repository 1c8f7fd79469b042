"""Runs checks side by side, each within its time, so that one that hangs holds up no other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import attrs
import trio

from ...doctor import Finding, Private, text, unknown, wrong
from ...exceptions import PunchError


@attrs.frozen(kw_only=True)
class Examination:
    """Gathers the facts for some checks, and has them judged."""

    checks: tuple[str, ...]
    """What is told of: names of `punch.doctor.CHECKS`."""

    seconds: float
    """How long it may take."""

    run: Callable[[], Awaitable[Sequence[Finding]]]
    """What it has found."""


async def examine(examinations: Sequence[Examination]) -> list[Finding]:
    """The findings of all *examinations*, in their order.

    One that takes too long, or whose facts cannot be had, says so in the place of its findings.
    """
    found: list[Sequence[Finding]] = [()] * len(examinations)

    async def one(number: int) -> None:
        found[number] = await _examined(examinations[number])

    async with trio.open_nursery() as nursery:
        for number in range(len(examinations)):
            nursery.start_soon(one, number)
    return [finding for findings in found for finding in findings]


async def _examined(examination: Examination) -> Sequence[Finding]:
    try:
        with trio.move_on_after(examination.seconds):
            return await examination.run()
    except PunchError as error:
        said = text("{}", Private("words", str(error)))
        # The first of them is what could not be had; of the others nothing can be known.
        first, *others = examination.checks
        remedy = text("do what it says, and ask again")
        unasked = [unknown(each, text(f"not known without {first}")) for each in others]
        return [wrong(first, said, remedy), *unasked]
    late = text(f"not known within {examination.seconds:.0f} s")
    return [unknown(each, late) for each in examination.checks]
