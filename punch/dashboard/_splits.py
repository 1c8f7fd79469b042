"""Keeps what the page shows of splits: who holds which layers, and how far loading is. No I/O.

One row for each split of this process, bounded; what happened to it is told as events beside it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import attrs

from ..events import (
    CoordinatorStarted,
    Event,
    HeldLayers,
    LeaseEnded,
    LeaseTaken,
    PlanChanged,
    SplitFailed,
    SplitLoading,
    SplitReady,
    WorkerConnected,
    WorkerLost,
)
from ..wire import short_word
from ._rows import Row

# Splits that are shown; a machine has memory for the heads of a few.
MAX_SPLITS = 16

# Parts of one plan, and workers outside of it, that are shown.
MAX_PARTS = 32

# Characters of a reason in somebody's words.
MAX_WHY = 300

SPLIT_EVENTS: tuple[type[Event], ...] = (
    CoordinatorStarted,
    PlanChanged,
    SplitLoading,
    SplitReady,
    SplitFailed,
    WorkerConnected,
    WorkerLost,
    LeaseTaken,
    LeaseEnded,
)
"""The events that the rows are made of."""

SplitEvent = (
    CoordinatorStarted
    | PlanChanged
    | SplitLoading
    | SplitReady
    | SplitFailed
    | WorkerConnected
    | WorkerLost
    | LeaseTaken
    | LeaseEnded
)


@attrs.define(kw_only=True, eq=False)
class _Split:
    """One split, as far as its events have told."""

    id: str
    model: str | None = None
    state: str = "planning"
    progress: float | None = None
    plan: PlanChanged | None = None
    seconds: float | None = None
    starts: int = 0
    # A worker to what is the matter with it: lent, holds, lost.
    workers: dict[str, str] = attrs.field(factory=dict)

    def row(self) -> Row:
        plan = self.plan
        parts = () if plan is None else plan.layers
        return {
            "id": self.id,
            "model": short_word(self.model),
            "state": self.state,
            "progress": None if self.progress is None else round(self.progress, 3),
            "seconds": None if self.seconds is None else round(self.seconds, 2),
            "starts": self.starts,
            "decode": None if plan is None else _rounded(plan.decode_rate),
            "first": None if plan is None else _rounded(plan.first_token),
            "output_on_head": plan is not None and plan.output_on_head,
            "parts": [self._part(part) for part in parts[:MAX_PARTS]],
            "more_parts": max(0, len(parts) - MAX_PARTS),
            "left_out": []
            if plan is None
            else [why[:MAX_WHY] for why in plan.left_out[:MAX_PARTS]],
        }

    def _part(self, part: HeldLayers) -> Row:
        return {
            "worker": short_word(part.worker) if part.worker else None,
            "device": short_word(part.device),
            "first": part.first,
            "layers": part.layers,
            "bytes": part.bytes,
            "token_bytes": part.token_bytes,
            "state": self.workers.get(part.worker) if part.worker else None,
        }


class ShownSplits:
    """The splits of this process, newest last.

    Args:
      bump: Called for each change; returns the version that it makes.

    """

    def __init__(self, bump: Callable[[], int]) -> None:
        self._bump = bump
        self._splits: OrderedDict[str, _Split] = OrderedDict()
        self._version = 0

    def hear(self, event: SplitEvent) -> Row | None:
        """Bring a row up to date; the event as something that happened, if it is one."""
        split = self._splits.get(event.split)
        if split is None:
            split = self._splits[event.split] = _Split(id=event.split)
            while len(self._splits) > MAX_SPLITS:
                self._splits.popitem(last=False)
        self._version = self._bump()
        told: Row = {"kind": "split", "split": event.split, "model": short_word(split.model)}
        match event:
            case CoordinatorStarted():
                split.model, split.state = event.model, "planning"
                split.progress = None
                return told | {"what": "begun", "model": short_word(event.model)}
            case PlanChanged():
                is_first, split.model = split.plan is None, event.model
                split.plan, split.state, split.progress = event, "planning", None
                holders = {part.worker for part in event.layers if part.worker}
                split.workers = dict.fromkeys(holders, "lent")
                return told | {
                    "what": "planned" if is_first else "replanned",
                    "model": short_word(event.model),
                    "parts": len(event.layers),
                    "workers": len(holders),
                    "decode": _rounded(event.decode_rate),
                }
            case SplitLoading():
                split.model, split.state, split.progress = event.model, "loading", event.progress
                return None
            case SplitReady():
                split.model, split.state, split.progress = event.model, "ready", None
                split.seconds, split.starts = event.seconds, event.starts
                return told | {
                    "what": "ready",
                    "model": short_word(event.model),
                    "seconds": round(event.seconds, 2),
                }
            case SplitFailed():
                split.model, split.state, split.progress = event.model, "failed", None
                split.starts = event.starts
                return told | {
                    "what": "failed",
                    "model": short_word(event.model),
                    "why": event.why[:MAX_WHY],
                    "starts": event.starts,
                }
            case WorkerConnected():
                split.workers[event.worker] = "holds"
                return told | {"what": "connected", "worker": event.worker, "bytes": event.bytes}
            case WorkerLost():
                split.workers[event.worker], split.state = "lost", "lost"
                return told | {"what": "lost", "worker": event.worker, "why": event.why[:MAX_WHY]}
            case LeaseTaken():
                split.workers.setdefault(event.worker, "lent")
                return told | {"what": "lent", "worker": event.worker, "bytes": event.bytes}
            case LeaseEnded():
                return told | self._ended(split, event)

    def _ended(self, split: _Split, event: LeaseEnded) -> Row:
        if split.workers.get(event.worker) != "lost":
            split.workers.pop(event.worker, None)
        if split.state == "ready" and not split.workers:
            # All of them were given back: its head has ended.
            split.state, split.plan = "over", None
        return {"what": "returned", "worker": event.worker, "why": event.why[:MAX_WHY]}

    def since(self, version: int) -> list[Row]:
        """All rows, if any has changed after *version*."""
        if self._version <= version:
            return []
        return [split.row() for split in self._splits.values()]


def _rounded(value: Any) -> float | None:
    return None if value is None else round(value, 3)
