"""What is known of one peer while it is there: changed often, and read as a record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import attrs

from ..capability import Capability, Lane, Load, PeerId
from ._breaker import FIRST_COOLING_SECONDS, MAX_COOLING_SECONDS
from ._faults import NO_FAULTS
from ._rates import NO_RATES, Rates, Sample, with_sample
from ._record import LaneRecord, PeerRecord

# Offers per peer whose speed is remembered.
MAX_OFFERS = 64

# A rate that is so many times what was believed is that of an offer that was mended.
MENDED_FACTOR = 2.0

# Smoothing of the round-trip time, as TCP does (RFC 6298, section 2).
RTT_WEIGHT = 0.125

_NO_MODELS: Mapping[str, Rates] = MappingProxyType({})


class _LaneBooks:
    """The requests of ours on one lane."""

    __slots__ = ("in_flight", "output_tokens", "prompt_tokens", "resting_until", "sent", "sequence")

    def __init__(self) -> None:
        self.in_flight = 0
        # Since its load was last reported.
        self.sent = 0
        self.prompt_tokens = 0
        self.output_tokens = 0
        self.resting_until = 0.0
        # Of the message that told its load.
        self.sequence = -1

    def reported(self, sequence: int | None = None) -> None:
        self.sent = self.prompt_tokens = self.output_tokens = 0
        if sequence is not None:
            self.sequence = sequence


class KnownPeer:
    """One peer, for one session.

    Args:
      peer_id: Which.
      session_number: Which of its sessions this is: what was sent in another one is not in
        these books.

    """

    # A snapshot reads one of each peer: with a dictionary each it takes nearly twice as long.
    __slots__ = (
        "_lanes",
        "_record",
        "_running",
        "asked_at",
        "capability",
        "faults",
        "heard",
        "incarnation",
        "path",
        "peer_id",
        "rates",
        "reachable",
        "rtt",
        "seen_at",
        "sequence",
        "session_number",
        "unreachable_why",
    )

    def __init__(self, peer_id: PeerId, *, session_number: int) -> None:
        self.peer_id = peer_id
        self.session_number = session_number
        self.capability = Capability()
        self.incarnation = -1
        self.sequence = -1
        """Of its newest advert."""
        self.heard = -1
        """Of its newest message of any kind."""
        self.seen_at = 0.0
        self.asked_at = 0.0  # When a request of ours was last sent.
        self.rtt: float | None = None
        self.reachable: bool | None = None
        self.unreachable_why = ""
        self.path: str | None = None
        self.rates = _NO_MODELS
        self.faults = NO_FAULTS
        self._lanes: dict[str, _LaneBooks] = {}
        # Requests of ours by the key of their offer: when the last one ends, so has every probe.
        self._running: dict[str | None, int] = {}
        self._record: PeerRecord | None = None

    @property
    def record(self) -> PeerRecord:
        """All of it, as a value; made when it is looked at."""
        if self._record is None:
            self._record = self._make_record()
        return self._record

    def changed(self) -> None:
        """The record is not true any more."""
        if self._record is not None:
            self._record.forget_candidates()
            self._record = None

    def _make_record(self) -> PeerRecord:
        in_flight, sent, prompt_tokens, output_tokens = _totals(self._lanes.values())
        claimed, faults = self.capability.lanes, self.faults
        several = claimed if len(claimed) > 1 else ()
        return PeerRecord(
            peer_id=self.peer_id,
            capability=self.capability,
            incarnation=self.incarnation,
            sequence=self.heard,
            seen_at=self.seen_at,
            rtt=self.rtt,
            rates=self.rates,
            in_flight=in_flight,
            sent_since_report=sent,
            prompt_tokens_since_report=prompt_tokens,
            output_tokens_since_report=output_tokens,
            breakers=faults.breakers,
            resting_until=min([self._lanes[one.id].resting_until for one in claimed], default=0.0),
            fault_share=faults.share,
            engine_deaths=faults.deaths,
            asked_at=self.asked_at,
            reputation=faults.reputation,
            lanes={lane.id: _as_record(self._lanes[lane.id]) for lane in several},
            reachable=self.reachable,
            unreachable_why=self.unreachable_why,
            path=self.path,
        )

    # ---- what it says ----

    def advertised(
        self, capability: Capability, *, incarnation: int, sequence: int, seen_at: float
    ) -> None:
        """Take a claim that is newer than the last one."""
        if incarnation != self.incarnation:
            self.faults = self.faults.anew()
            for books in self._lanes.values():
                books.resting_until, books.sequence = 0.0, -1
        newer: dict[str, Load] = {}
        known = {lane.id: lane.load for lane in self.capability.lanes}
        for lane in capability.lanes:
            books = self._books(lane.id)
            if books.sequence > sequence and lane.id in known:
                newer[lane.id] = known[lane.id]
            else:
                books.reported(sequence)
        self._forgive(seen_at)
        self.capability = capability.with_loads(newer) if newer else capability
        is_same = incarnation == self.incarnation
        self.incarnation, self.sequence, self.seen_at = incarnation, sequence, seen_at
        self.heard = max(self.heard, sequence) if is_same else sequence
        claimed = {lane.id for lane in capability.lanes}
        for lane_id in [i for i, b in self._lanes.items() if i not in claimed and not b.in_flight]:
            del self._lanes[lane_id]

    def load_reported(self, loads: Mapping[str, Load], *, sequence: int, seen_at: float) -> bool:
        """Take the loads of some lanes, as far as they are newer. True if any was."""
        newer = {
            lane.id: loads[lane.id]
            for lane in self.capability.lanes
            if lane.id in loads and sequence > max(self.sequence, self._books(lane.id).sequence)
        }
        if not newer and sequence <= self.heard:
            return False
        self.heard = max(self.heard, sequence)
        for lane_id in newer:
            self._books(lane_id).reported(sequence)
        self._forgive(seen_at)
        self.capability = self.capability.with_loads(newer)
        self.seen_at = seen_at
        return True

    def response_reported(self, load: Load, lane_id: str | None) -> None:
        """Take the load of a lane that rides on a response; with `None` that of its only one."""
        if (lane := self.lane(lane_id)) is not None:
            if load != lane.load:
                self.capability = self.capability.with_loads({lane.id: load})
            self._books(lane.id).reported()

    def round_trip(self, seconds: float) -> None:
        """Take one measured round trip."""
        rtt = self.rtt
        self.rtt = seconds if rtt is None else rtt + RTT_WEIGHT * (seconds - rtt)

    def reached(self, reachable: bool | None, why: str, path: str | None) -> None:
        """Take a bootstrap's word on whether it could dial the peer, and the path that we have."""
        self.reachable, self.unreachable_why, self.path = reachable, why, path

    def _forgive(self, seen_at: float) -> None:
        self.faults = self.faults.forgiven(max(0.0, seen_at - self.seen_at))

    # ---- what we send it ----

    def sent(
        self, lane_id: str, key: str | None, *, prompt_tokens: int, output_tokens: int, now: float
    ) -> None:
        """A request is on its way; where a breaker has cooled it is the probe."""
        books = self._books(lane_id)
        self.asked_at = now
        books.in_flight += 1
        books.sent += 1
        books.prompt_tokens += prompt_tokens
        books.output_tokens += output_tokens
        self._running[key] = self._running.get(key, 0) + 1
        if self.faults.breakers:
            self.faults = self.faults.probed(key, now=now)

    def ended(self, lane_id: str, key: str | None) -> None:
        """A request is no longer there, however it ended."""
        books, running = self._books(lane_id), self._running
        books.in_flight = max(0, books.in_flight - 1)
        # One that ended without a report, cancelled say, is not on its way any longer.
        books.sent = max(0, books.sent - 1)
        if not books.sent:
            books.prompt_tokens = books.output_tokens = 0
        left = running.get(key, 0) - 1
        if left > 0:
            running[key] = left
        else:
            running.pop(key, None)
        if self.faults.breakers:
            over = () if left > 0 else (key,) if running else (key, None)
            self.faults = self.faults.freed(*over)

    # ---- what came of it ----

    def succeeded(self, lane_id: str | None, key: str, sample: Sample) -> Rates:
        """An offer of a lane has answered; returns how fast it is taken to be after that."""
        if (lane := self.lane(lane_id)) is not None:
            self._books(lane.id).resting_until = 0.0
            if sample.batch is not None and sample.batch > lane.load.slots:
                sample = attrs.evolve(sample, batch=float(lane.load.slots))
        self.faults = self.faults.answered(key)
        return self._learn(key, self.rates.get(key, NO_RATES), sample)

    def refused(self, lane: Lane, *, now: float, retry_after: float | None) -> None:
        """It refused a request for this lane."""
        books, load = self._books(lane.id), lane.load
        rested = books.resting_until
        has_room = load.busy + load.queued < load.slots + load.queue_limit
        if retry_after is None and has_room:
            retry_after = FIRST_COOLING_SECONDS
        if retry_after is not None:
            books.resting_until = max(rested, now + min(retry_after, MAX_COOLING_SECONDS))
        if rested <= now:
            # As with faults: what is refused at once is one refusal.
            self.faults = self.faults.with_share(1.0)

    def slowed(self, key: str, tokens: int, seconds: float) -> None:
        """An offer has made so many tokens of an answer in so many seconds."""
        sample = Sample(decode_tokens=tokens, decode_seconds=seconds)
        self._learn(key, self.rates.get(key, NO_RATES), sample)

    def probed(self, key: str, tokens: int | None, seconds: float) -> None:
        """An offer has answered a request of our own, with so many tokens in so many seconds."""
        self.faults = self.faults.cleared(key)
        before = self.rates.get(key, NO_RATES).decode
        if before and tokens and tokens / seconds > MENDED_FACTOR * before:
            # It is another machine now, as it were: what was learned of it is over.
            self._learn(key, NO_RATES, Sample(decode_tokens=tokens, decode_seconds=seconds))

    def _learn(self, key: str, before: Rates, sample: Sample) -> Rates:
        rates = with_sample(before, sample)
        if rates is not before and (key in self.rates or len(self.rates) < MAX_OFFERS):
            self.rates = MappingProxyType({**self.rates, key: rates})
        return rates

    def doubted(self, key: str, weight: float) -> bool:
        """Take what counts against an offer in part; true if all of it makes a fault now."""
        self.faults, is_enough = self.faults.doubted(key, weight)
        return is_enough

    def lane(self, lane_id: str | None) -> Lane | None:
        """The lane with this id; with `None` its only one."""
        for lane in (lanes := self.capability.lanes):
            if lane.id == lane_id or (lane_id is None and len(lanes) == 1):
                return lane
        return None

    def _books(self, lane_id: str) -> _LaneBooks:
        books = self._lanes.get(lane_id)
        if books is None:
            books = self._lanes[lane_id] = _LaneBooks()
        return books


def _totals(lanes: Iterable[_LaneBooks]) -> tuple[int, int, int, int]:
    """What all lanes have together: in flight, sent since the report, prompt and answer tokens."""
    in_flight = sent = prompt_tokens = output_tokens = 0
    for books in lanes:
        in_flight += books.in_flight
        sent += books.sent
        prompt_tokens += books.prompt_tokens
        output_tokens += books.output_tokens
    return in_flight, sent, prompt_tokens, output_tokens


def _as_record(books: _LaneBooks) -> LaneRecord:
    return LaneRecord(
        in_flight=books.in_flight,
        sent_since_report=books.sent,
        prompt_tokens_since_report=books.prompt_tokens,
        output_tokens_since_report=books.output_tokens,
        resting_until=books.resting_until,
    )
