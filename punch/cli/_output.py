"""Prints what programs have to say: answers, decisions as tables, responses as JSON.

What stands in a decision was computed when it was made; nothing is computed here.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import attrs

from ..routing import Assessment, Decision, FailedAttempt
from ..routing.kinds import best_of_kinds, why_taken
from ..wire import CommandResponse, Provenance
from ._columns import padded, width_of


def print_json(response: CommandResponse) -> None:
    """Print the whole response as one JSON object on one line."""
    value = attrs.asdict(response, value_serializer=_plain)
    print(json.dumps(value, ensure_ascii=False), flush=True)


def _plain(_: Any, __: Any, value: Any) -> Any:
    if isinstance(value, frozenset):
        # Sorted, so that equal responses print alike.
        return sorted(value)
    if isinstance(value, float) and not math.isfinite(value):
        # JSON has neither infinity nor NaN (RFC 8259, section 6).
        return str(value)
    return dict(value) if isinstance(value, Mapping) else value


def print_text(text: str) -> None:
    """Print a part of an answer at once."""
    print(plain(text) if sys.stdout.isatty() else text, end="", flush=True)


def plain(text: str) -> str:
    """*text* without what a terminal would obey, since it may come from any peer."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


def day_of(seconds: float, form: str = "%Y-%m-%d") -> str:
    """A day of UTC, which may come from any peer: after the year 9999 there is no calendar."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime(form)
    except (ValueError, OverflowError, OSError):
        return "after 9999"


def warn_of_simulation(provenance: Provenance | None) -> None:
    """Say on standard error that an answer was made up, if it was."""
    if provenance is not None and provenance.kind == "simulated":
        print(
            f"warning: this answer is simulated (backend {plain(provenance.backend)}): no model "
            "has made it; --strict takes real inference only",
            file=sys.stderr,
            flush=True,
        )


def explain(decisions: Sequence[Decision], attempts: Sequence[FailedAttempt]) -> str:
    """Every decision that was made for an answer, and the error of each choice that failed."""
    lines = []
    failed = list(attempts)
    for decision in decisions:
        lines.append(_table(decision))
        attempt = next((a for a in failed if a.peer_id == decision.chosen_peer), None)
        if attempt is not None:
            failed.remove(attempt)
            lines.append(
                f"  {attempt.peer_id} failed after {attempt.seconds:.3f} s: {attempt.error}"
            )
    return plain("\n".join(lines))


def _table(decision: Decision) -> str:
    best = "lowest" if decision.lowest_is_best else "highest"
    lines = [f"decision: {decision.policy}, {best} {decision.unit} is best"]
    candidates = decision.candidates()
    ways = best_of_kinds(candidates)
    names: list[tuple[str, ...]] = [("peer", "lane", "kind", "backend")]
    names += [
        (c.peer_id, plain(c.lane or "-"), c.kind.word if c.kind else "-", plain(c.backend))
        for c in candidates
    ]
    if not any(candidate.lane for candidate in candidates):
        names = [(cells[0], *cells[2:]) for cells in names]
    widths = [max(map(width_of, cells)) for cells in zip(*names, strict=True)]
    # Where the score begins in most tables.
    widths[-1] = max(widths[-1], 16)
    heads = [" ".join(map(padded, cells, widths)) for cells in names]
    titles = [f"{name:>10}" for name in ("score", *map(plain, decision.term_names))]
    lines.append("  " + " ".join((heads[0], *titles)))
    for number, (head, candidate) in enumerate(zip(heads[1:], candidates, strict=True)):
        cells = [head]
        if candidate.removed_by is not None:
            cells.append(f"{'-':>10} {candidate.removed_by}: {candidate.reason}")
        else:
            numbers = map(_number, (candidate.score, *candidate.terms.values()))
            cells += [f"{n:>{len(title)}}" for n, title in zip(numbers, titles, strict=True)]
            if candidate.hot:
                cells.append("  hot")
            if number == 0:
                cells.append("  to measure it  <- chosen" if decision.explored else "  <- chosen")
        lines.append("  " + " ".join(cells))
    chosen = decision.chosen and candidates[0]
    if chosen and chosen.kind is not None:
        lines.append(f"  taken: {chosen.kind}{_rather(decision, chosen, ways)}")
    return "\n".join(lines)


def _rather(decision: Decision, chosen: Assessment, ways: Mapping[str, Assessment]) -> str:
    if len(ways) < 2:
        return ""
    return ": " + why_taken(
        chosen,
        ways,
        unit=decision.unit,
        lowest_is_best=decision.lowest_is_best,
        explored=decision.explored,
        is_forced=chosen.start is not None and chosen.start.offer.is_forced,
    )


def _number(value: float | None) -> str:
    return f"{'-':>10}" if value is None else f"{value:10.4f}"
