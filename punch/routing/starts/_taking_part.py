"""How what could be started takes part in a decision: as a candidate, by its seconds.

It stands beside the filters and the scorer, and not in them: where nothing could be started, a
decision costs what it cost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import attrs

from ...capability import Capability, Lane, Load
from ...peers import ENOUGH_SAMPLES, STARTING, Candidate, PeerRecord, Rates, candidate_id
from .._filters import Filter
from .._request import RouteRequest
from ._offer import Startable, StartableOffer

NO_STARTS: Mapping[str, Startable] = MappingProxyType({})
"""Nothing could be started."""

START = "start"
"""The term of a score that has the seconds until something runs, and the lane that is not there
yet."""

PREDICTED = "s"
"""The unit of the scores that seconds can be added to."""

# Places of candidates, best first.
_Order = Sequence[int]
_Terms = Sequence[tuple[float, ...]]

# These come after all others: they choose among what could be asked.
_WISHES = frozenset({"avoid", "prefer"})


def records_of(
    startable: Sequence[Startable], *, now: float
) -> tuple[list[PeerRecord], Mapping[str, Startable]]:
    """Each as the peer that it would be, and by the id of its candidate."""
    starts = {candidate_id(each.offer.peer_id, each.offer.id): each for each in startable}
    return [_record(each, now) for each in starts.values()], starts


def _predicted_rates(offer: StartableOffer) -> Rates:
    """What its plan predicts, which counts as measured: it was worked out here, and is no claim."""
    prefill, decode = offer.offer.prefill_rate, offer.offer.decode_rate
    return Rates(
        prefill=prefill,
        decode=decode,
        prefill_samples=ENOUGH_SAMPLES if prefill else 0,
        decode_samples=ENOUGH_SAMPLES if decode else 0,
    )


def _record(startable: Startable, now: float) -> PeerRecord:
    one = startable.offer
    offer = one.offer
    if offer.id != one.id or offer.lane != START or offer.load_seconds:
        # Its seconds are a term of their own, and its id is that of the start.
        offer = attrs.evolve(offer, id=one.id, lane=START, load_seconds=0.0)
    load = Load(slots=one.slots, queue_limit=one.queue_limit)
    lane = Lane(id=START, backend=one.backend, simulated=one.simulated, load=load, state=STARTING)
    return PeerRecord(
        peer_id=one.peer_id,
        capability=Capability(lanes=(lane,), models=(offer,)),
        incarnation=0,
        sequence=0,
        seen_at=now,
        rtt=startable.rtt,
        rates={offer.key: _predicted_rates(one)},
        in_flight=startable.waiting,
        sent_since_report=startable.waiting,
        prompt_tokens_since_report=startable.prompt_tokens,
        output_tokens_since_report=startable.output_tokens,
    )


def with_start_filters(
    filters: Sequence[Filter], starts: Mapping[str, Startable], *, policy: str, unit: str
) -> tuple[Filter, ...]:
    """*filters*, and those which say of a candidate that it is not started."""
    place = next(
        (place for place, each in enumerate(filters) if each.name in _WISHES), len(filters)
    )
    added = (*filters[:place], _may_start(starts), *filters[place:])
    if any(start.offer.why_not is not None for start in starts.values()):
        # Before all others: what cannot run is no reason against a candidate that does.
        added = (_can_start(starts), *added)
    return added if unit == PREDICTED else (*added, _runs_already(starts, policy))


def _can_start(starts: Mapping[str, Startable]) -> Filter:
    """Removes what cannot be started as things are, where it would have been meant."""

    def is_hindered(candidate: Candidate) -> bool:
        start = starts.get(candidate.id)
        return start is not None and start.offer.why_not is not None

    return Filter(
        name=START,
        keep=lambda request, candidates, now: [
            candidate for candidate in candidates if not is_hindered(candidate)
        ],
        why=lambda request, candidate, now: starts[candidate.id].why_not or "cannot be started",
    )


def _may_start(starts: Mapping[str, Startable]) -> Filter:
    def keep(
        request: RouteRequest, candidates: Sequence[Candidate], now: float
    ) -> Sequence[Candidate]:
        return [
            candidate
            for candidate in candidates
            if (start := starts.get(candidate.id)) is None or start.why_not is None
        ]

    return Filter(
        name=START,
        keep=keep,
        why=lambda request, candidate, now: starts[candidate.id].why_not or "is not started",
    )


def _runs_already(starts: Mapping[str, Startable], policy: str) -> Filter:
    """For a policy that counts no seconds: it cannot say what a start is worth."""

    def is_asked(candidate: Candidate) -> bool:
        start = starts.get(candidate.id)
        return start is None or start.offer.is_forced

    def keep(
        request: RouteRequest, candidates: Sequence[Candidate], now: float
    ) -> Sequence[Candidate]:
        running = [one for one in candidates if is_asked(one)]
        return running or candidates

    return Filter(
        name="running",
        keep=keep,
        why=lambda request, candidate, now: (
            f"would have to be started; {policy} counts no seconds, and another can be asked"
        ),
    )


def with_start_terms(
    names: tuple[str, ...],
    terms: _Terms,
    candidates: Sequence[Candidate],
    starts: Mapping[str, Startable],
) -> tuple[tuple[str, ...], _Terms]:
    """The terms of scores in seconds, and behind them those of a start: 0 for what runs."""
    return (*names, START), [
        (*each, starts[one.id].seconds if one.id in starts else 0.0)
        for each, one in zip(terms, candidates, strict=True)
    ]


def apart(
    order: _Order, candidates: Sequence[Candidate], starts: Mapping[str, Startable]
) -> tuple[list[int], list[int]]:
    """The places of *order* of what runs, and of what would have to be started; best first."""
    running = [place for place in order if candidates[place].id not in starts]
    return running, [place for place in order if candidates[place].id in starts]


def together(
    running: _Order,
    to_start: _Order,
    *,
    seconds: Sequence[float],
    starts: Mapping[int, Startable],
    is_full: bool,
    reach: Callable[[float], float],
    order: _Order,
) -> list[int]:
    """One order of what runs, its first already chosen, and of what would have to be started.

    Of the latter, one comes first only if it is forced, if nothing that runs can be asked, or if it
    is done before all that runs, its start included, by more than what is near. So no start is
    drawn by lot, or made to measure something, or because a peer only has a queue for now. Where
    it is under way, nothing is started for this request: it need only be done before the chosen.

    Args:
      running: Places of candidates that run, the chosen one first.
      to_start: Places of the others, best first.
      seconds: By place, its whole score.
      starts: By place, those that would have to be started.
      is_full: The best of what runs has as many requests as it is trusted with: it is not chosen,
        and what was is what a start must do better than.
      reach: Of a score, how far from it others are as good.
      order: All of these places, best first.

    """
    if not running:
        return list(to_start)
    best, chosen = min([seconds[place] for place in running]), seconds[running[0]]
    first = []
    for place in to_start:
        rival = chosen if is_full or starts[place].is_under_way else best
        if starts[place].offer.is_forced or seconds[place] < rival - reach(rival):
            first.append(place)
    ahead = {running[0], *first}
    return [*first, running[0], *(place for place in order if place not in ahead)]
