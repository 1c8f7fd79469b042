# The peers a dialer knows, without any I/O.
#
# Rule 1: an advert is believed only if it is newer than what is known, by incarnation first
# and sequence second. Arrival order and clocks mean nothing.
#
# Rule 2: what we measured ourselves outlives a peer's restart for a while; what it claimed
# does not.
"""The peers a dialer knows."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

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
    """What is remembered of a peer that left, for a while."""

    incarnation: int
    sequence: int
    failures: int
    cooling_until: float
    rates: Mapping[str, Rates]
    reputation: float
    until: float


# Fields of a record that are read before they are first written.
_NOTHING_YET: Mapping[str, Any] = MappingProxyType(
    {
        field.name: field.default
        for field in attrs.fields(PeerRecord)
        if field.default is not attrs.NOTHING
    }
)


class _Peer:
    """The fields of a `PeerRecord`, changed often, and the record, made when it is looked at."""

    __slots__ = ("_record", "fields")

    def __init__(self, **fields: Any) -> None:
        self.fields = fields
        self._record: PeerRecord | None = None

    @property
    def record(self) -> PeerRecord:
        if self._record is None:
            self._record = PeerRecord(**self.fields)
        return self._record

    def change(self, **fields: Any) -> None:
        self.fields.update(fields)
        self._record = None


class PeerTable:
    """Peers by id. Every change makes a new record, so a snapshot never changes."""

    def __init__(self) -> None:
        self._peers: dict[PeerId, _Peer] = {}
        self._gone: dict[PeerId, _Tombstone] = {}
        self._snapshot: tuple[PeerRecord, ...] | None = None

    def __len__(self) -> int:
        return len(self._peers)

    def get(self, peer_id: PeerId) -> PeerRecord | None:
        """The record of one peer."""
        peer = self._peers.get(peer_id)
        return None if peer is None else peer.record

    def snapshot(self) -> tuple[PeerRecord, ...]:
        """Every record, in the order the peers were first seen."""
        if self._snapshot is None:
            self._snapshot = tuple([peer.record for peer in self._peers.values()])
        return self._snapshot

    def _change(self, peer_id: PeerId) -> _Peer | None:
        """The peer, which is about to change."""
        self._snapshot = None
        return self._peers.get(peer_id)

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
        peer = self._change(peer_id)
        grave = self._gone.get(peer_id)
        if grave is not None and grave.until <= seen_at:
            del self._gone[peer_id]
            grave = None
        newest = (-1, -1)
        if peer is not None:
            newest = (peer.fields["incarnation"], peer.fields["sequence"])
        elif grave is not None:
            newest = (grave.incarnation, grave.sequence)
        if (incarnation, sequence) <= newest:
            return False
        claim = {
            "capability": capability,
            "incarnation": incarnation,
            "sequence": sequence,
            "seen_at": seen_at,
        }
        if peer is not None:
            if peer.fields["incarnation"] != incarnation:
                claim |= {"cooling_until": 0.0, "failures": 0}
            peer.change(**claim, sent_since_report=0, prompt_tokens_since_report=0)
            return True
        if len(self._peers) >= MAX_PEERS:
            return False
        if grave is not None:
            del self._gone[peer_id]
            claim |= {
                "rates": grave.rates,
                "reputation": grave.reputation,
                "failures": grave.failures,
                "cooling_until": grave.cooling_until,
            }
        self._peers[peer_id] = _Peer(**{**_NOTHING_YET, "peer_id": peer_id, **claim})
        return True

    def met(self, peer_id: PeerId) -> None:
        """A new session began: its first claim counts, whatever the peer's clock says now.

        What it claimed before came on another stream and is over. Without this, a peer whose
        clock was set back would not be believed until it is forgotten.
        """
        grave = self._gone.get(peer_id)
        if grave is not None:
            self._gone[peer_id] = attrs.evolve(grave, incarnation=-1, sequence=-1)

    def reported(self, peer_id: PeerId, load: Load) -> None:
        """Take the load that rides on a response."""
        peer = self._change(peer_id)
        if peer is not None:
            capability = peer.fields["capability"]
            if capability.load != load:
                capability = attrs.evolve(capability, load=load)
            peer.change(capability=capability, sent_since_report=0, prompt_tokens_since_report=0)

    def round_trip(self, peer_id: PeerId, seconds: float) -> None:
        """Take one measured round trip."""
        peer = self._change(peer_id)
        if peer is not None:
            rtt = peer.fields["rtt"]
            peer.change(rtt=seconds if rtt is None else rtt + RTT_WEIGHT * (seconds - rtt))

    def lost(self, peer_id: PeerId, *, now: float) -> None:
        """Forget a peer whose session ended."""
        peer = self._change(peer_id)
        if peer is None:
            return
        del self._peers[peer_id]
        self._gone = {p: g for p, g in self._gone.items() if g.until > now}
        if len(self._gone) < MAX_PEERS:
            self._gone[peer_id] = _Tombstone(
                incarnation=peer.fields["incarnation"],
                sequence=peer.fields["sequence"],
                failures=peer.fields["failures"],
                cooling_until=peer.fields["cooling_until"],
                rates=peer.fields["rates"],
                reputation=peer.fields["reputation"],
                until=now + TOMBSTONE_SECONDS,
            )

    def sent(self, peer_id: PeerId, *, prompt_tokens: int) -> None:
        """Count a request of ours that is on its way."""
        peer = self._change(peer_id)
        if peer is not None:
            fields = peer.fields
            peer.change(
                in_flight=fields["in_flight"] + 1,
                sent_since_report=fields["sent_since_report"] + 1,
                prompt_tokens_since_report=fields["prompt_tokens_since_report"] + prompt_tokens,
            )

    def ended(self, peer_id: PeerId) -> None:
        """A request of ours is no longer there, however it ended."""
        peer = self._change(peer_id)
        if peer is not None:
            # One that ended without a report, cancelled say, is not on its way any longer.
            unreported = max(0, peer.fields["sent_since_report"] - 1)
            tokens = peer.fields["prompt_tokens_since_report"] if unreported else 0
            peer.change(
                in_flight=max(0, peer.fields["in_flight"] - 1),
                sent_since_report=unreported,
                prompt_tokens_since_report=tokens,
            )

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
        peer = self._change(peer_id)
        if peer is None:
            return
        rates: Mapping[str, Rates] = peer.fields["rates"]
        if model in rates or len(rates) < MAX_MODELS:
            learned = rates.get(model, Rates()).with_sample(
                prefill_tokens=prefill_tokens,
                prefill_seconds=prefill_seconds,
                decode_tokens=decode_tokens,
                decode_seconds=decode_seconds,
            )
            rates = MappingProxyType({**rates, model: learned})
        peer.change(
            rates=rates,
            failures=0,
            cooling_until=0.0,
            reputation=min(1.0, peer.fields["reputation"] + 0.03),
        )

    def failed(self, peer_id: PeerId, *, now: float, retry_after: float | None = None) -> None:
        """Leave a peer alone for a while after a fault of its own. Reputation loses 0.05.

        It counts against a peer that is gone as well: breaking the session is the commonest
        fault of all.
        """
        peer = self._change(peer_id)
        grave = self._gone.get(peer_id)
        if peer is not None:
            failures, reputation = peer.fields["failures"], peer.fields["reputation"]
            cooling_until = peer.fields["cooling_until"]
        elif grave is not None:
            failures, reputation = grave.failures, grave.reputation
            cooling_until = grave.cooling_until
        else:
            return
        if cooling_until > now:
            # Everything that was in flight fails at once when a session breaks: one fault.
            return
        cooling = min(LONGEST_COOLING, FIRST_COOLING * 2**failures)
        if retry_after is not None:
            cooling = min(LONGEST_COOLING, retry_after)
        fault = {
            "failures": min(failures + 1, 30),
            "cooling_until": now + cooling,
            "reputation": max(0.0, reputation - 0.05),
        }
        if peer is not None:
            peer.change(**fault)
        elif grave is not None:
            self._gone[peer_id] = attrs.evolve(grave, **fault)

    def refused(self, peer_id: PeerId, *, now: float, retry_after: float | None = None) -> None:
        """Leave a peer alone after a refusal, for as long as it asks, or for a moment.

        A refusal is no fault. But one that claims free slots and refuses all the same would
        be asked first again and again.
        """
        peer = self._change(peer_id)
        if peer is None:
            return
        load: Load = peer.fields["capability"].load
        has_room = load.busy + load.queued < load.slots + load.queue_limit
        if retry_after is not None or has_room:
            wait = FIRST_COOLING if retry_after is None else min(LONGEST_COOLING, retry_after)
            peer.change(cooling_until=max(peer.fields["cooling_until"], now + wait))
