"""The models on offer, each beside the places where it could run: seconds, and what hinders.

What a request would do is the policy's own decision for a usual one; nothing is judged here a
second time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from random import Random
from types import MappingProxyType

import attrs

from ...capability import ModelOffer, PeerId
from ...peers import PeerRecord
from .._policy import Policy
from .._request import RouteRequest
from ..kinds import HERE, KINDS, PEER, SPLIT, TO_START, Kind, kind_of, why_taken
from ..starts import Startable

# Models of one look, and candidates of all of them together: each model is a decision among all
# peers, of which a thousand take some thousandths of a second.
MAX_MODELS = 64
MAX_LOOKED_AT = 16_384

# The usual request, as the planner of splits takes it to be.
USUAL_PROMPT_TOKENS = 512
USUAL_ANSWER_TOKENS = 128

_NOBODY = MappingProxyType(
    {
        HERE: "this machine does not have it",
        PEER: "no other machine has it whole",
        SPLIT: "no split of it runs",
        TO_START: "nothing is set up to start it",
    }
)


@attrs.frozen(kw_only=True)
class Cell:
    """One model at the best place of one kind."""

    kind: Kind | None = None
    """The kind in full; `None` if there is no such place."""

    peer_id: PeerId | None = None
    """The peer there."""

    seconds: float | None = None
    """Seconds to the whole answer of a usual request; `None` if it could not be asked, or the
    policy counts none."""

    why_not: str | None = None
    """Why it could not be asked, in a sentence; `None` if it could."""


@attrs.frozen(kw_only=True)
class SizeRow:
    """One model beside every kind of place."""

    model: str
    """Its name."""

    size_bytes: int | None = None
    """Size of its weights, in bytes, where somebody says."""

    cells: Mapping[str, Cell]
    """By the word of the kind, every one of `KINDS`."""

    taken: str | None = None
    """The kind that a usual request would take now; `None` if none could be."""

    why: str | None = None
    """Why that one, in a few words."""


def size_rows(
    policy: Policy,
    peers: Sequence[PeerRecord],
    startable: Sequence[Startable] = (),
    *,
    now: float,
    strict: bool = False,
    most: int = MAX_MODELS,
) -> tuple[tuple[SizeRow, ...], int]:
    """The models that are or could be on offer, by name, and how many more there are.

    Args:
      policy: How it would be chosen; its lots are left out.
      peers: A snapshot of the peer table.
      startable: What could be started, and what could not be as things are.
      now: The time of the router's clock, in seconds.
      strict: Real inference only.
      most: Models at most; of very many peers, fewer.

    """
    still = attrs.evolve(policy, near=0.0, explore=0.0)
    sizes: dict[str, int | None] = {}
    for offer in _offers(peers, startable):
        sizes[offer.name] = sizes.get(offer.name) or offer.size_bytes
    most = max(1, min(most, MAX_LOOKED_AT // max(1, len(peers))))
    rows = tuple(
        _row(still, name, sizes[name], peers, startable, now, strict)
        for name in sorted(sizes)[:most]
    )
    return rows, max(0, len(sizes) - len(rows))


def _offers(peers: Sequence[PeerRecord], startable: Sequence[Startable]) -> Iterable[ModelOffer]:
    for peer in peers:
        yield from peer.capability.models
    for start in startable:
        yield start.offer.offer


def _row(
    policy: Policy,
    model: str,
    size: int | None,
    peers: Sequence[PeerRecord],
    startable: Sequence[Startable],
    now: float,
    strict: bool,
) -> SizeRow:
    request = RouteRequest(
        model=model,
        prompt_tokens=USUAL_PROMPT_TOKENS,
        output_tokens=USUAL_ANSWER_TOKENS,
        strict=strict,
    )
    decision = policy.decide(request, peers, now=now, rng=Random(0), startable=startable)
    ways = decision.best_of_kinds()
    cells = {}
    for word in KINDS:
        best = ways.get(word)
        if best is None:
            cells[word] = Cell(why_not=_NOBODY[word])
            continue
        cells[word] = Cell(
            kind=best.kind,
            peer_id=best.peer_id,
            seconds=best.score if decision.unit == "s" else None,
            why_not=best.reason,
        )
    first = decision.chosen
    kind = None if first is None else kind_of(first, decision.start_of(first))
    if kind is None:
        return SizeRow(model=model, size_bytes=size, cells=cells)
    chosen = ways[kind.word]
    return SizeRow(
        model=model,
        size_bytes=size,
        cells=cells,
        taken=kind.word,
        why=why_taken(
            chosen,
            ways,
            unit=decision.unit,
            lowest_is_best=decision.lowest_is_best,
            is_forced=chosen.start is not None and chosen.start.offer.is_forced,
        ),
    )
