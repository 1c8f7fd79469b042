# The peers a dialer knows, without any I/O.
#
# Rule 1: an advert is believed only if it is newer than what is known, by incarnation first
# and sequence second, and so is the load of each lane. Arrival order and clocks mean nothing.
#
# Rule 2: what we measured ourselves outlives a peer's restart for a while; what it claimed
# does not.
#
# Rule 3: what is about a lane, its queue and our requests there, is kept by lane; what is about
# a model, its speed and its faults, by offer; what is about the link, by peer.
"""The peers a dialer knows."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from ..capability import Capability, Load, PeerId
from ._faults import Faults, after_fault
from ._known import KnownPeer
from ._rates import NO_RATES, Rates, Sample
from ._record import PeerRecord

# More listeners than anybody lets meet at one bootstrap; past it the table takes no new ones.
MAX_PEERS = 4096

# What is remembered of a peer that left, so that an old advert does not bring it back. Seconds.
TOMBSTONE_SECONDS = 300.0


@attrs.frozen(kw_only=True)
class _Tombstone:
    """What is remembered of a peer that left, for a while."""

    incarnation: int
    sequence: int
    faults: Faults
    rates: Mapping[str, Rates]
    until: float

    @classmethod
    def of(cls, peer: KnownPeer, *, until: float) -> _Tombstone:
        return cls(
            incarnation=peer.incarnation,
            sequence=peer.sequence,
            faults=peer.faults.freed(*peer.faults.breakers),
            rates=peer.rates,
            until=until,
        )


class PeerTable:
    """Peers by id. Every change makes a new record, so a snapshot never changes."""

    def __init__(self) -> None:
        self._peers: dict[PeerId, KnownPeer] = {}
        self._departed: dict[PeerId, _Tombstone] = {}
        self._sessions = 0
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

    def _change(self, peer_id: PeerId) -> KnownPeer | None:
        """The peer, which is about to change."""
        self._snapshot = None
        peer = self._peers.get(peer_id)
        if peer is not None:
            peer.changed()
        return peer

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
        tombstone = self._departed.get(peer_id)
        if tombstone is not None and tombstone.until <= seen_at:
            del self._departed[peer_id]
            tombstone = None
        newest = (-1, -1)
        if peer is not None:
            newest = (peer.incarnation, peer.sequence)
        elif tombstone is not None:
            newest = (tombstone.incarnation, tombstone.sequence)
        if (incarnation, sequence) <= newest:
            return False
        if peer is None:
            if len(self._peers) >= MAX_PEERS:
                return False
            self._sessions += 1
            peer = self._peers[peer_id] = KnownPeer(peer_id, session_number=self._sessions)
            peer.incarnation = incarnation
            if tombstone is not None:
                del self._departed[peer_id]
                peer.rates, peer.faults = tombstone.rates, tombstone.faults
                peer.seen_at = seen_at
        peer.advertised(capability, incarnation=incarnation, sequence=sequence, seen_at=seen_at)
        return True

    def load_reported(
        self, peer_id: PeerId, loads: Mapping[str, Load], *, sequence: int, seen_at: float
    ) -> bool:
        """Merge the loads of a peer's lanes, measured at *seen_at*. True if it was news.

        It is a sign of life as an advert is, and as old as its *sequence* says.
        """
        peer = self._change(peer_id)
        return peer is not None and peer.load_reported(loads, sequence=sequence, seen_at=seen_at)

    def met(self, peer_id: PeerId) -> None:
        """A new session began: its first claim counts, whatever the peer's clock says now.

        What it claimed before came on another stream and is over. Without this, a peer whose
        clock was set back would not be believed until it is forgotten.
        """
        tombstone = self._departed.get(peer_id)
        if tombstone is not None:
            self._departed[peer_id] = attrs.evolve(tombstone, incarnation=-1, sequence=-1)

    def reported(self, peer_id: PeerId, load: Load, *, lane: str | None = None) -> None:
        """Take the load that rides on a response: of one *lane*, or of all of a peer's.

        What is said of a whole peer counts for its only lane; of several it tells nothing.
        """
        if (peer := self._change(peer_id)) is not None:
            peer.response_reported(load, lane)

    def round_trip(self, peer_id: PeerId, seconds: float) -> None:
        """Take one measured round trip."""
        if (peer := self._change(peer_id)) is not None:
            peer.round_trip(seconds)

    def reached(
        self, peer_id: PeerId, reachable: bool | None, why: str = "", *, path: str | None = None
    ) -> None:
        """Take a bootstrap's word on whether it could dial a peer, and the *path* that we have."""
        if (peer := self._change(peer_id)) is not None:
            peer.reached(reachable, why, path)

    def lost(self, peer_id: PeerId, *, now: float) -> None:
        """Forget a peer whose session ended."""
        peer = self._change(peer_id)
        if peer is None:
            return
        del self._peers[peer_id]
        self._departed = {p: t for p, t in self._departed.items() if t.until > now}
        if len(self._departed) < MAX_PEERS:
            self._departed[peer_id] = _Tombstone.of(peer, until=now + TOMBSTONE_SECONDS)

    def sent(
        self,
        peer_id: PeerId,
        *,
        prompt_tokens: int,
        output_tokens: int = 0,
        offer: str | None = None,
        lane: str | None = None,
        now: float = 0.0,
    ) -> int:
        """Count a request of ours that is on its way; where a breaker has cooled it is the probe.

        *prompt_tokens* are estimated, *output_tokens* expected; *offer* is the key of the offer,
        *lane* the id of the lane. Returns the number of the peer's session, for `ended`.
        """
        peer = self._change(peer_id)
        if peer is None:
            return 0
        peer.sent(
            _lane_id(peer, lane),
            offer,
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            now=now,
        )
        return peer.session_number

    def ended(
        self,
        peer_id: PeerId,
        *,
        offer: str | None = None,
        lane: str | None = None,
        session_number: int | None = None,
    ) -> None:
        """A request of ours is no longer there; with *session_number* only if its session lasts.

        A slow reader may notice the end of an old one when requests of a new one are under way.
        """
        peer = self._change(peer_id)
        if peer is not None and session_number in (None, peer.session_number):
            peer.ended(_lane_id(peer, lane), offer)

    def succeeded(
        self, peer_id: PeerId, offer: str, sample: Sample, *, lane: str | None = None
    ) -> None:
        """Learn from an answer: its speed, and that the peer is well. Its breakers close.

        Its batch is believed up to the number of slots of its lane.
        """
        if (peer := self._change(peer_id)) is not None:
            peer.succeeded(lane, offer, sample)

    def answered(
        self,
        peer_id: PeerId,
        key: str | None,
        *,
        offer: str,
        lane: str,
        session_number: int,
        load: Load | None,
        load_lane: str | None,
        sample: Sample,
    ) -> Rates:
        """Take the whole answer to a request of ours: `reported`, `ended` and `succeeded` in one.

        It tells the speed of *key*, or of nothing with `None`, and was asked of *offer* on *lane*;
        *load* rides on it. Returns how fast *key* is taken to be after that.
        """
        if (peer := self._change(peer_id)) is None:
            return NO_RATES
        if load is not None:
            peer.response_reported(load, load_lane)
        if session_number == peer.session_number:
            peer.ended(lane, offer)
        return NO_RATES if key is None else peer.succeeded(lane, key, sample)

    def failed(
        self,
        peer_id: PeerId,
        *,
        offer: str | None = None,
        now: float,
        retry_after: float | None = None,
        engine_died: bool = False,
    ) -> None:
        """Leave a peer, or one *offer* of it, alone after a fault; one that is gone as well."""
        if (known := self._change(peer_id) or self._departed.get(peer_id)) is None:
            return
        after = after_fault(
            known.faults, offer, now=now, retry_after=retry_after, engine_died=engine_died
        )
        if after is None:
            return
        if isinstance(known, KnownPeer):
            known.faults = after
        else:
            self._departed[peer_id] = attrs.evolve(known, faults=after)

    def slowed(self, peer_id: PeerId, offer: str, *, tokens: int, seconds: float) -> None:
        """Learn from the *tokens* of an answer that was not waited for to its end."""
        if (peer := self._change(peer_id)) is not None:
            peer.slowed(offer, tokens, seconds)

    def probed(self, peer_id: PeerId, offer: str, *, tokens: int | None, seconds: float) -> None:
        """Take an answer to a request of our own: a caller's may find out whether it is well."""
        if (peer := self._change(peer_id)) is not None:
            peer.probed(offer, tokens, seconds)

    def spared(self, peer_id: PeerId, offer: str, *, now: float) -> None:
        """A request of our own said nothing of an offer: leave it alone for a while more."""
        if (peer := self._change(peer_id)) is not None:
            peer.faults = peer.faults.spared(offer, now=now)

    def doubted(self, peer_id: PeerId, *, offer: str, weight: float, now: float) -> None:
        """Take what counts against an offer in part: a share of a fault. An answer settles it."""
        peer = self._change(peer_id)
        if peer is not None and peer.doubted(offer, weight):
            self.failed(peer_id, offer=offer, now=now)

    def refused(
        self,
        peer_id: PeerId,
        *,
        lane: str | None = None,
        now: float,
        retry_after: float | None = None,
    ) -> None:
        """Leave a lane alone after a refusal: one that claims to be free is asked first again."""
        peer = self._change(peer_id)
        known = None if peer is None else peer.lane(lane)
        if peer is not None and known is not None:
            peer.refused(known, now=now, retry_after=retry_after)


def _lane_id(peer: KnownPeer, lane: str | None) -> str:
    """The id of a lane, also of one that has gone since it was chosen."""
    if lane is not None:
        return lane
    lanes = peer.capability.lanes
    return lanes[0].id if lanes else ""
