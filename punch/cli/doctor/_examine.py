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
    found: list[Sequence[Finding] | PunchError] = [()] * len(examinations)

    async def one(number: int) -> None:
        found[number] = await _examined(examinations[number])

    async with trio.open_nursery() as nursery:
        for number in range(len(examinations)):
            nursery.start_soon(one, number)
    findings: list[Finding] = []
    # One cause may be in the way of several checks, and is told once.
    told: dict[str, str] = {}
    for examination, outcome in zip(examinations, found, strict=True):
        if isinstance(outcome, PunchError):
            outcome = cannot_be_had(outcome, examination.checks, told)
        findings += outcome
    return findings


def cannot_be_had(
    error: PunchError, checks: Sequence[str], told: dict[str, str] | None = None
) -> list[Finding]:
    """What *error* means, which is in the way of *checks*: the first has it, others are not known.

    Args:
      error: Why their facts cannot be had.
      checks: What cannot be told.
      told: The errors that were told of already, each with its check; this one is added.

    """
    told = {} if told is None else told
    first, *others = checks
    cause = told.setdefault(str(error), first)
    findings = [unknown(each, text(f"not known without the {cause}")) for each in others]
    if cause != first:
        return [unknown(first, text(f"not known without the {cause}")), *findings]
    # The word is ours, and says to strangers what the sentence says here.
    said = text(f"({error.code}) {{}}", Private("words", str(error)))
    return [wrong(first, said, text("do what it says, and ask again")), *findings]


async def _examined(examination: Examination) -> Sequence[Finding] | PunchError:
    try:
        with trio.move_on_after(examination.seconds):
            return await examination.run()
    except PunchError as error:
        return error
    late = text(f"not known within {examination.seconds:.0f} s")
    return [unknown(each, late) for each in examination.checks]
