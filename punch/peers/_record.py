"""One peer, one lane of it, and one offer of it, as the dialer sees them. Values only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import attrs

from ..capability import Capability, Lane, Load, ModelOffer, PeerId
from ._belief import Belief
from ._breaker import CLOSED, Breaker
from ._rates import NO_RATES, Rates

_NO_MODELS: Mapping[str, Rates] = MappingProxyType({})
_NO_BREAKERS: Mapping[str | None, Breaker] = MappingProxyType({})

# Requests whose candidates a record remembers: all requests of a moment ask for a few models.
MAX_CACHED = 16

NO_OFFER = ModelOffer(name="", features=frozenset())
"""Stands for the offer of a peer that offers nothing that was asked for."""

# Stands for the lane of a peer that says nothing of any.
_NO_LANE = Lane(backend="", simulated=False, load=Load(draining=True))

READY = "ready"

STARTING = "starting"

ANSWERING = frozenset({READY, STARTING})
"""States of a lane that takes requests: one that starts says how long that takes, as a term of its
score. Which others there are may grow."""

RESTS = "resting"
"""State of a lane that failed a moment ago, and may be well again."""

IN_PROCESS = "process"
"""The path to a listener in our own process."""

ON_MACHINE = "machine"
"""The path to another process of this machine."""

OVER_NETWORK = "network"
"""The path to another machine."""

OVER_RELAY = "relay"
"""The path to another machine through a relay, which carries what it cannot read."""

_Wanted = tuple[str | None, str | None, str | None, str | None]


@attrs.frozen(kw_only=True)
class LaneRecord:
    """What we know ourselves of one lane of a peer that has several."""

    in_flight: int = 0
    """Requests of ours that it is working on."""

    sent_since_report: int = 0
    """Requests we sent since its load was reported: that cannot have counted them."""

    prompt_tokens_since_report: int = 0
    """Their prompt tokens (estimated)."""

    output_tokens_since_report: int = 0
    """The tokens of their answers (expected); 0 where that was not said."""

    resting_until: float = 0.0
    """It refused a request and is left in peace until then, in seconds of our own clock."""


@attrs.frozen(kw_only=True)
class PeerRecord:
    """What we know of one peer; replaced whole, never edited."""

    peer_id: PeerId
    """Which peer."""

    capability: Capability
    """What it claims."""

    incarnation: int
    """Grows each time the peer starts."""

    sequence: int
    """Grows with each claim."""

    seen_at: float
    """When the claim was measured, in seconds of our own clock."""

    rtt: float | None = None
    """Smoothed round-trip time, in seconds."""

    rates: Mapping[str, Rates] = _NO_MODELS
    """Key of an offer (`ModelOffer.key`) to the speed we saw ourselves."""

    in_flight: int = 0
    """Requests of ours that it is working on."""

    sent_since_report: int = 0
    """Requests we sent since its load was reported: that cannot have counted them."""

    prompt_tokens_since_report: int = 0
    """Their prompt tokens (estimated)."""

    output_tokens_since_report: int = 0
    """The tokens of their answers (expected); 0 where that was not said."""

    breakers: Mapping[str | None, Breaker] = _NO_BREAKERS
    """Key of an offer to its breaker, if that is not closed; under `None` that of the peer."""

    resting_until: float = 0.0
    """It refused a request and is left in peace until then, in seconds of our own clock; of
    several lanes, the first that may be asked again."""

    engine_deaths: float = 0.0
    """Engines of it that died under requests, lately: what `Faults.deaths` says."""

    asked_at: float = 0.0
    """When a request of ours was last sent there, in seconds of our own clock."""

    fault_share: float = 0.0
    """Share of its recent answers that were a fault or a refusal instead, 0 to 1."""

    reputation: float = 1.0
    """0 to 1: see `PeerTable.succeeded` and `PeerTable.failed`."""

    lanes: Mapping[str, LaneRecord] = attrs.field(factory=dict)
    """Id of a lane to what we know of it, where there are several; of one lane, all is above."""

    reachable: bool | None = None
    """Whether a bootstrap could dial it; `None` if none has said. Shown, and part of no choice: we
    have a session with it."""

    unreachable_why: str = ""
    """Why not, in a sentence."""

    path: str | None = None
    """How its session reaches it: ``process``, ``machine`` or ``network``; `None` where that is not
    known. May grow. Shown, and part of no choice: `rtt` says what it costs."""

    # Candidates for requests that were made: every decision looks at each peer.
    _candidates: dict[_Wanted, tuple[Candidate, ...]] = attrs.field(
        init=False, eq=False, repr=False, factory=dict
    )

    @property
    def is_here(self) -> bool:
        """Whether it is on this machine, as far as its path tells."""
        return self.path in (IN_PROCESS, ON_MACHINE)

    @property
    def failures(self) -> int:
        """The most faults in a row, of one of its offers or of the whole peer.

        Those of one that answered a request of ours since do not count.
        """
        breakers = self.breakers.values()
        return max([0 if each.cleared else each.failures for each in breakers], default=0)

    def breaker(self, key: str | None) -> Breaker:
        """What keeps requests from the offer with this key: the stricter of its and the peer's."""
        whole = self.breakers.get(None, CLOSED)
        if key is None:
            return whole
        own = self.breakers.get(key, CLOSED)
        return max(whole, own, key=lambda breaker: (breaker.probing, breaker.until))

    def rates_of(self, key: str) -> Rates:
        """The measured speed of the offer with this key; empty if nothing was measured."""
        return self.rates.get(key, NO_RATES)

    def candidates(
        self,
        model: str | None = None,
        digest: str | None = None,
        offer: str | None = None,
        alike: str | None = None,
    ) -> tuple[Candidate, ...]:
        """Where a request could go: of each lane, the first offer that satisfies it.

        Where nothing is asked for by name, that is the peer's first model that is ready, and a
        real one before any that simulates.

        A peer that offers nothing that was asked for is one candidate all the same, with
        `NO_OFFER`: that, too, is a reason that a decision can give.

        Args:
          model: Name of the model; `None` for any.
          digest: Its digest; `None` for any.
          offer: The id of the very offer; `None` for any.
          alike: The digest of *model*: a real offer of that file is one of the model, whatever it
            is called; `None` if only the name counts.

        """
        wanted = (model, digest, offer, alike)
        found = self._candidates.get(wanted)
        if found is None:
            if len(self._candidates) >= MAX_CACHED:
                self._candidates.clear()
            found = self._candidates[wanted] = self._find(model, digest, offer, alike)
        return found

    def forget_candidates(self) -> None:
        """Another record takes its place: those that are held nowhere else need not stay."""
        self._candidates.clear()

    def _find(
        self, model: str | None, digest: str | None, wanted: str | None, alike: str | None
    ) -> tuple[Candidate, ...]:
        lanes, several = self.capability.lanes, len(self.capability.lanes) > 1
        if several and model is None and digest is None and wanted is None:
            model = self._first_model()
        found: dict[str, ModelOffer] = {}
        not_made_up = {lane.id for lane in lanes if not lane.simulated} if alike else ()
        for offer in self.capability.models:
            if (
                (
                    model is None
                    or offer.name == model
                    or (alike is not None and offer.digest == alike and offer.lane in not_made_up)
                )
                and (digest is None or offer.digest == digest)
                and (wanted is None or offer.id == wanted)
            ):
                found.setdefault(offer.lane, offer)
                if not several:
                    break
        candidates = [
            Candidate(peer=self, offer=found[lane.id], lane=lane)
            for lane in lanes
            if lane.id in found
        ]
        if not candidates:
            real = [lane for lane in lanes if not lane.simulated]
            lane = (*real, *lanes, _NO_LANE)[0]
            candidates = [Candidate(peer=self, offer=NO_OFFER, lane=lane)]
        return tuple(candidates)

    def _first_model(self) -> str | None:
        lane_of = {lane.id: lane for lane in self.capability.lanes}

        def rank(offer: ModelOffer) -> tuple[bool, bool]:
            lane = lane_of.get(offer.lane, _NO_LANE)
            return lane.simulated, lane.state != READY

        # The first of those that are equal: `min` keeps the order of the peer.
        first = min(self.capability.models, key=rank, default=None)
        return None if first is None else first.name


@attrs.frozen(kw_only=True, eq=False, init=False)
class Candidate:
    """One offer of one peer: where a request may go. Each is equal to itself only."""

    peer: PeerRecord = attrs.field(repr=False)
    """What is known of the peer."""

    offer: ModelOffer = attrs.field(repr=False)
    """What it offers; `NO_OFFER` if that is nothing that was asked for."""

    lane: Lane = attrs.field(repr=False)
    """The lane that would answer."""

    id: str
    """Names it in `RouteRequest.tried` and the like: the peer's id, and with a slash behind it
    the offer's, where that has one."""

    peer_id: PeerId = attrs.field(repr=False)
    """Which peer."""

    load: Load = attrs.field(repr=False)
    """How busy the lane is, as it says."""

    ours: PeerRecord | LaneRecord = attrs.field(repr=False)
    """What we know of the lane ourselves."""

    present: int = attrs.field(repr=False)
    """Requests that are there or on their way, as far as anybody here can know.

    A report may have been on its way while we sent, so it is never taken to be less than what
    we know to be there ourselves.
    """

    per_slot: float = attrs.field(repr=False)
    """The same for each slot of the lane."""

    rates: Rates = attrs.field(repr=False)
    """The measured speed of the offer."""

    belief: Belief = attrs.field(repr=False)
    """How fast the offer is taken to be, by what was measured and what is claimed."""

    is_offered: bool = attrs.field(repr=False)
    """Whether the peer offers what was asked for."""

    is_capped: bool = attrs.field(repr=False)
    """Whether it says of anything how much of it may be asked for."""

    is_troubled: bool = attrs.field(repr=False)
    """Whether the peer failed or refused lately, in whatever way."""

    has_room: bool = attrs.field(repr=False)
    """Whether the lane takes a further request: a slot or a place in its queue is free."""

    is_plain: bool = attrs.field(repr=False)
    """Whether nothing that is known of it keeps a request from it: it offers what was asked for,
    without caps, works, has room, and neither failed nor refused anything lately."""

    def __init__(self, *, peer: PeerRecord, offer: ModelOffer, lane: Lane) -> None:
        # All is worked out here once, and not once a look: a decision looks several times at each.
        load, lanes = lane.load, peer.lanes
        ours = lanes.get(lane.id, peer) if lanes else peer
        present = max(ours.in_flight, load.busy + load.queued + ours.sent_since_report)
        rates = peer.rates.get(offer.key, NO_RATES) if peer.rates else NO_RATES
        is_offered = offer is not NO_OFFER
        is_capped = (offer.max_output, lane.max_seconds, lane.max_priority) != (None, None, None)
        is_troubled = bool(peer.breakers or peer.fault_share or peer.engine_deaths)
        has_room = present < load.slots + load.queue_limit and not load.draining
        is_welcome = lane.state in ANSWERING and not ours.resting_until
        self.__attrs_init__(
            peer=peer,
            offer=offer,
            lane=lane,
            id=candidate_id(peer.peer_id, offer.id),
            peer_id=peer.peer_id,
            load=load,
            ours=ours,
            present=present,
            per_slot=present / max(1, load.slots),
            rates=rates,
            belief=Belief.of(offer, rates),
            is_offered=is_offered,
            is_capped=is_capped,
            is_troubled=is_troubled,
            has_room=has_room,
            is_plain=is_offered and has_room and is_welcome and not (is_capped or is_troubled),
        )

    @property
    def is_one_of_several(self) -> bool:
        """Whether the peer has other lanes, so that its name alone does not say which is meant."""
        return len(self.peer.capability.lanes) > 1

    @property
    def breaker(self) -> Breaker:
        """What keeps requests from it."""
        if not self.is_troubled:
            return CLOSED
        return self.peer.breaker(self.offer.key if self.is_offered else None)


def candidate_id(peer_id: PeerId, offer: str | None) -> str:
    """The id of the candidate that is the offer with this id of a peer."""
    return peer_id if offer is None else f"{peer_id}/{offer}"


def candidates_of(
    peers: Sequence[PeerRecord],
    model: str | None = None,
    digest: str | None = None,
    offer: str | None = None,
    alike: str | None = None,
) -> list[Candidate]:
    """The candidates of all *peers*, see `PeerRecord.candidates`."""
    wanted = (model, digest, offer, alike)
    found: list[Candidate] = []
    for peer in peers:
        # Most were looked at before: a look of this loop's own spares a call for each.
        found += peer._candidates.get(wanted) or peer.candidates(*wanted)
    return found
