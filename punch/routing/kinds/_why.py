"""Says why a candidate of one kind was taken, and not one of another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol, TypeVar

from ._kind import KINDS, TO_START, Kind, brief


class Weighed(Protocol):
    """A candidate as a decision found it."""

    @property
    def kind(self) -> Kind | None:
        """Its kind; `None` if it offers nothing that was asked for."""
        ...

    @property
    def removed_by(self) -> str | None:
        """Name of the filter that removed it, or `None` if it could be asked."""
        ...

    @property
    def score(self) -> float | None:
        """Its score; `None` if it was removed."""
        ...

    @property
    def hot(self) -> bool:
        """It has a longer queue than most, and gave way."""
        ...


W = TypeVar("W", bound=Weighed)


def best_of_kinds(weighed: Iterable[W]) -> Mapping[str, W]:
    """The best candidate of each kind that is there, in the order of `KINDS`.

    Args:
      weighed: The candidates of a decision: the chosen one first, then those that could be asked,
        the best first, then those that were removed.

    """
    found: dict[str, W] = {}
    for one in weighed:
        if one.kind is not None:
            found.setdefault(one.kind.word, one)
    return {word: found[word] for word in KINDS if word in found}


def why_taken(
    chosen: W,
    ways: Mapping[str, W],
    *,
    unit: str,
    lowest_is_best: bool = True,
    explored: bool = False,
    is_forced: bool = False,
) -> str:
    """Why *chosen* was taken rather than the best of the other kinds, in a few words.

    Args:
      chosen: The candidate that is asked first.
      ways: What `best_of_kinds` found of the same decision.
      unit: The unit of the scores.
      lowest_is_best: How scores compare.
      explored: It was taken to learn its speed.
      is_forced: It is started whatever else there is.

    """
    others = [one for one in ways.values() if one is not chosen and one.removed_by is None]
    scores = [one.score for one in others if one.score is not None]
    if explored:
        return "to measure it"
    if not scores or chosen.score is None:
        return "no other kind can be asked"
    best = min(scores) if lowest_is_best else max(scores)
    ahead = best - chosen.score if lowest_is_best else chosen.score - best
    if ahead >= 0:
        if unit != "s":
            return "the best score"
        return f"done first, by {brief(ahead)}"
    if is_forced:
        return "its start is forced"
    better = next(one for one in others if one.score == best)
    if better.hot:
        return "the other has a long queue"
    if better.kind is not None and better.kind.word == TO_START:
        return "a start must gain more than that"
    return "as good as the best, or the best has no room to be measured"
