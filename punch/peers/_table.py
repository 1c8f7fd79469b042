# The peers a dialer knows, without any I/O.
#
# Rule 1: an advert is believed only if it is newer than what is known, by incarnation first
# and sequence second. Arrival order and clocks mean nothing.
#
# Rule 2: what we measured ourselves outlives a peer's restart for a while; what it claimed
# does not.
"""The peers a dialer knows."""

from __future__ import annotations

from types import MappingProxyType

import attrs

from ..capability import Capability, Load, PeerId
from ._rates import Rates
from ._record import PeerRecord

# More listeners than anybody lets meet at one bootstrap; past it the table takes no new ones.
MAX_PEERS = 4096

# Models per peer whose speed is remembered.
MAX_MODELS = 64

# A peer that failed is left alone for a second, then two, four, ... up to half a minute, which
# is about how long a large model takes to load again.
FIRST_COOLING = 1.0
LONGEST_COOLING = 30.0

# What is remembered of a peer that left, so that an old advert does not bring it back.
TOMBSTONE_SECONDS = 300.0

# Smoothing of the round-trip time, as TCP does (RFC 6298, section 2).
RTT_WEIGHT = 0.125


@attrs.frozen(kw_only=True)
class _Tombstone:
    incarnation: int
    sequence: int
    rates: MappingProxyType[str, Rates]
    reputation: float
    until: float


class PeerTable:
    """Peers by id. Every change replaces a record, so a snapshot never changes."""

    def __init__(self) -> None:
        self._records: dict[PeerId, PeerRecord] = {}
        self._gone: dict[PeerId, _Tombstone] = {}
        self._snapshot: tuple[PeerRecord, ...] | None = None

    def __len__(self) -> int:
        return len(self._records)

    def get(self, peer_id: PeerId) -> PeerRecord | None:
        """The record of one peer."""
        return self._records.get(peer_id)

    def snapshot(self) -> tuple[PeerRecord, ...]:
        """Every record, in the order the peers were first seen."""
        if self._snapshot is None:
            self._snapshot = tuple(self._records.values())
        return self._snapshot

    def advertised(
        self,
        peer_id: PeerId,
        capability: Capability,
        *,
        incarnation: int,
        sequence: int,
        seen_at: float,
    ) -> bool:
        """Merge a claim that was measured at *seen_at*. True if it was news."""
        known = self._records.get(peer_id)
        newest = known or self._gone.get(peer_id)
        if newest is not None and (incarnation, sequence) <= (newest.incarnation, newest.sequence):
            return False
        if known is not None:
            restarted = known.incarnation != incarnation
            self._put(
                attrs.evolve(
                    known,
                    capability=capability,
                    incarnation=incarnation,
                    sequence=sequence,
                    seen_at=seen_at,
                    sent_since_report=0,
                    prompt_tokens_since_report=0,
                    cooling_until=0.0 if restarted else known.cooling_until,
                    failures=0 if restarted else known.failures,
                )
            )
            return True
        if len(self._records) >= MAX_PEERS:
            return False
        grave = self._gone.pop(peer_id, None)
        self._put(
            PeerRecord(
                peer_id=peer_id,
                capability=capability,
                incarnation=incarnation,
                sequence=sequence,
                seen_at=seen_at,
                rates=grave.rates if grave is not None else MappingProxyType({}),
                reputation=grave.reputation if grave is not None else 1.0,
            )
        )
        return True

    def reported(self, peer_id: PeerId, load: Load) -> None:
        """Take the load that rides on a response."""
        record = self._records.get(peer_id)
        if record is None:
            return
        if record.capability.load != load or record.sent_since_report:
            self._put(
                attrs.evolve(
                    record,
                    capability=attrs.evolve(record.capability, load=load),
                    sent_since_report=0,
                    prompt_tokens_since_report=0,
                )
            )

    def round_trip(self, peer_id: PeerId, seconds: float) -> None:
        """Take one measured round trip."""
        record = self._records.get(peer_id)
        if record is not None:
            rtt = record.rtt
            smoothed = seconds if rtt is None else rtt + RTT_WEIGHT * (seconds - rtt)
            self._put(attrs.evolve(record, rtt=smoothed))

    def lost(self, peer_id: PeerId, *, now: float) -> None:
        """Forget a peer whose session ended."""
        record = self._records.pop(peer_id, None)
        if record is None:
            return
        self._snapshot = None
        self._gone = {p: g for p, g in self._gone.items() if g.until > now}
        if len(self._gone) < MAX_PEERS:
            self._gone[peer_id] = _Tombstone(
                incarnation=record.incarnation,
                sequence=record.sequence,
                rates=MappingProxyType(dict(record.rates)),
                reputation=record.reputation,
                until=now + TOMBSTONE_SECONDS,
            )

    def sent(self, peer_id: PeerId, *, prompt_tokens: int) -> None:
        """Count a request of ours that is on its way."""
        record = self._records.get(peer_id)
        if record is not None:
            self._put(
                attrs.evolve(
                    record,
                    in_flight=record.in_flight + 1,
                    sent_since_report=record.sent_since_report + 1,
                    prompt_tokens_since_report=record.prompt_tokens_since_report + prompt_tokens,
                )
            )

    def ended(self, peer_id: PeerId) -> None:
        """A request of ours is no longer there, however it ended."""
        record = self._records.get(peer_id)
        if record is not None:
            self._put(attrs.evolve(record, in_flight=max(0, record.in_flight - 1)))

    def succeeded(
        self,
        peer_id: PeerId,
        model: str,
        *,
        prefill_tokens: int | None = None,
        prefill_seconds: float | None = None,
        decode_tokens: int | None = None,
        decode_seconds: float | None = None,
    ) -> None:
        """Learn from an answer: its speed, and that the peer is well.

        *prefill_tokens* are those that the backend had to compute, the cached ones left out.
        Reputation gains 0.03, as in the original for an answer of full quality.
        """
        record = self._records.get(peer_id)
        if record is None:
            return
        rates = dict(record.rates)
        if model in rates or len(rates) < MAX_MODELS:
            rates[model] = record.rates_of(model).with_sample(
                prefill_tokens=prefill_tokens,
                prefill_seconds=prefill_seconds,
                decode_tokens=decode_tokens,
                decode_seconds=decode_seconds,
            )
        self._put(
            attrs.evolve(
                record,
                rates=MappingProxyType(rates),
                failures=0,
                cooling_until=0.0,
                reputation=min(1.0, record.reputation + 0.03),
            )
        )

    def failed(self, peer_id: PeerId, *, now: float, retry_after: float | None = None) -> None:
        """Leave a peer alone for a while after a fault of its own. Reputation loses 0.05."""
        record = self._records.get(peer_id)
        if record is None:
            return
        cooling = min(LONGEST_COOLING, FIRST_COOLING * 2**record.failures)
        self._put(
            attrs.evolve(
                record,
                failures=min(record.failures + 1, 30),
                cooling_until=now + (cooling if retry_after is None else retry_after),
                reputation=max(0.0, record.reputation - 0.05),
            )
        )

    def _put(self, record: PeerRecord) -> None:
        self._records[record.peer_id] = record
        self._snapshot = None
