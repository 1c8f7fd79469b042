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
from ._breaker import CLOSED, FIRST_COOLING, LONGEST_COOLING, Breaker
from ._rates import Rates
from ._record import PeerRecord

# More listeners than anybody lets meet at one bootstrap; past it the table takes no new ones.
MAX_PEERS = 4096

# Models per peer whose speed is remembered.
MAX_MODELS = 64

# Weight of the newest outcome in the share of faults: about the last five count.
OUTCOME_WEIGHT = 0.2

# Half of what a share of faults says is forgotten after this long, in seconds: a peer that is
# not asked any more cannot clear itself with good answers. Two coolings at their longest.
FORGIVING_SECONDS = 60.0

# What is remembered of a peer that left, so that an old advert does not bring it back.
TOMBSTONE_SECONDS = 300.0

# Smoothing of the round-trip time, as TCP does (RFC 6298, section 2).
RTT_WEIGHT = 0.125


@attrs.frozen(kw_only=True)
class _Tombstone:
    """What is remembered of a peer that left, for a while."""

    incarnation: int
    sequence: int
    breakers: Mapping[str | None, Breaker]
    fault_share: float
    rates: Mapping[str, Rates]
    reputation: float
    until: float


# Fields of a record that are read before they are first written.
_NOTHING_YET: Mapping[str, Any] = MappingProxyType(
    {
        field.name: field.default
        for field in attrs.fields(PeerRecord)
        if field.init and field.default is not attrs.NOTHING
    }
)

_Breakers = Mapping[str | None, Breaker]
_NO_BREAKERS: _Breakers = MappingProxyType({})

# What we have sent since a report, when there is a new one.
_REPORTED: Mapping[str, Any] = MappingProxyType(
    {"sent_since_report": 0, "prompt_tokens_since_report": 0, "output_tokens_since_report": 0}
)


class _Peer:
    """The fields of a `PeerRecord`, changed often, and the record, made when it is looked at."""

    __slots__ = ("_record", "fields", "running", "session_number")

    def __init__(self, session_number: int, **fields: Any) -> None:
        self.fields = fields
        # Which of its sessions this is: what was sent in another one is not in these books.
        self.session_number = session_number
        # Requests of ours there, by model: when the last one ends, so has every probe.
        self.running: dict[str | None, int] = {}
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
        claim: dict[str, Any] = {
            "capability": capability,
            "incarnation": incarnation,
            "sequence": sequence,
            "seen_at": seen_at,
        }
        if peer is not None:
            fields = peer.fields
            if fields["incarnation"] != incarnation:
                claim |= {"breakers": _NO_BREAKERS, "resting_until": 0.0}
            peer.change(**claim, **_forgiven(fields, seen_at), **_REPORTED)
            return True
        if len(self._peers) >= MAX_PEERS:
            return False
        if grave is not None:
            del self._gone[peer_id]
            claim |= {
                "rates": grave.rates,
                "reputation": grave.reputation,
                "breakers": grave.breakers,
                "fault_share": grave.fault_share,
            }
        self._sessions += 1
        self._peers[peer_id] = _Peer(
            self._sessions, **{**_NOTHING_YET, "peer_id": peer_id, **claim}
        )
        return True

    def load_reported(
        self, peer_id: PeerId, loads: Mapping[str, Load], *, sequence: int, seen_at: float
    ) -> bool:
        """Merge the loads of a peer's lanes, measured at *seen_at*. True if it was news.

        It is a sign of life as an advert is, and as old as its *sequence* says.
        """
        peer = self._change(peer_id)
        if peer is None or sequence <= peer.fields["sequence"]:
            return False
        capability: Capability = peer.fields["capability"]
        peer.change(
            capability=capability.with_loads(loads),
            sequence=sequence,
            seen_at=seen_at,
            **_forgiven(peer.fields, seen_at),
            **_REPORTED,
        )
        return True

    def met(self, peer_id: PeerId) -> None:
        """A new session began: its first claim counts, whatever the peer's clock says now.

        What it claimed before came on another stream and is over. Without this, a peer whose
        clock was set back would not be believed until it is forgotten.
        """
        grave = self._gone.get(peer_id)
        if grave is not None:
            self._gone[peer_id] = attrs.evolve(grave, incarnation=-1, sequence=-1)

    def reported(self, peer_id: PeerId, load: Load, *, lane: str | None = None) -> None:
        """Take the load that rides on a response: of one *lane*, or of all of a peer's.

        What is said of a whole peer counts for its only lane; of several it tells nothing.
        """
        peer = self._change(peer_id)
        if peer is not None:
            capability: Capability = peer.fields["capability"]
            if lane is None and len(capability.lanes) == 1:
                lane = capability.lanes[0].id
            if lane is not None:
                capability = capability.with_loads({lane: load})
            peer.change(capability=capability, **_REPORTED)

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
                breakers=_freed(peer.fields["breakers"], *peer.fields["breakers"]),
                fault_share=peer.fields["fault_share"],
                rates=peer.fields["rates"],
                reputation=peer.fields["reputation"],
                until=now + TOMBSTONE_SECONDS,
            )

    def sent(
        self,
        peer_id: PeerId,
        *,
        model: str | None = None,
        prompt_tokens: int,
        output_tokens: int = 0,
        now: float = 0.0,
    ) -> int:
        """Count a request of ours that is on its way; where a breaker has cooled it is the probe.

        Returns the number of the peer's session, for `ended`.

        Args:
          peer_id: Where to.
          model: The name of the offer that it is for.
          prompt_tokens: Length of its prompt (estimated).
          output_tokens: Length of its answer (expected).
          now: The time, in seconds.

        """
        peer = self._change(peer_id)
        if peer is not None:
            fields = peer.fields
            peer.running[model] = peer.running.get(model, 0) + 1
            peer.change(
                in_flight=fields["in_flight"] + 1,
                sent_since_report=fields["sent_since_report"] + 1,
                prompt_tokens_since_report=fields["prompt_tokens_since_report"] + prompt_tokens,
                output_tokens_since_report=fields["output_tokens_since_report"] + output_tokens,
                breakers=_probed(fields["breakers"], model, now=now),
            )
        return 0 if peer is None else peer.session_number

    def ended(
        self, peer_id: PeerId, *, model: str | None = None, session_number: int | None = None
    ) -> None:
        """A request of ours is no longer there, however it ended.

        With *session_number* only if the peer has not gone since it was sent: a slow reader may
        notice the end of an old session when requests of a new one are under way.
        """
        peer = self._change(peer_id)
        if peer is None or session_number not in (None, peer.session_number):
            return
        fields, running = peer.fields, peer.running
        # One that ended without a report, cancelled say, is not on its way any longer.
        unreported = max(0, fields["sent_since_report"] - 1)
        in_flight = max(0, fields["in_flight"] - 1)
        running[model] = running.get(model, 0) - 1
        over: list[str | None] = []
        if running[model] <= 0:
            del running[model]
            over.append(model)
        if not in_flight:
            over.append(None)
        peer.change(
            in_flight=in_flight,
            sent_since_report=unreported,
            prompt_tokens_since_report=fields["prompt_tokens_since_report"] if unreported else 0,
            output_tokens_since_report=fields["output_tokens_since_report"] if unreported else 0,
            breakers=_freed(fields["breakers"], *over),
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
        batch: float | None = None,
        now: float = 0.0,
    ) -> None:
        """Learn from an answer: its speed, and that the peer is well.

        *prefill_tokens* are those that the backend had to compute, the cached ones left out;
        *batch* the mean number of requests it worked on meanwhile, believed up to its number of
        slots. The breakers of the model and of the peer close. Reputation gains 0.03, as in the
        original for an answer of full quality.
        """
        peer = self._change(peer_id)
        if peer is None:
            return
        rates: Mapping[str, Rates] = peer.fields["rates"]
        if batch is not None:
            capability: Capability = peer.fields["capability"]
            batch = min(batch, float(capability.load.slots))
        if model in rates or len(rates) < MAX_MODELS:
            learned = rates.get(model, Rates()).with_sample(
                prefill_tokens=prefill_tokens,
                prefill_seconds=prefill_seconds,
                decode_tokens=decode_tokens,
                decode_seconds=decode_seconds,
                batch=batch,
            )
            rates = MappingProxyType({**rates, model: learned})
        peer.change(
            rates=rates,
            breakers=_without(peer.fields["breakers"], model, None),
            resting_until=0.0,
            fault_share=(1 - OUTCOME_WEIGHT) * peer.fields["fault_share"],
            reputation=min(1.0, peer.fields["reputation"] + 0.03),
        )

    def failed(
        self,
        peer_id: PeerId,
        *,
        model: str | None = None,
        now: float,
        retry_after: float | None = None,
    ) -> None:
        """Leave a peer alone for a while after a fault of its own. Reputation loses 0.05.

        With *model* only requests for that model; with `None` all, as for a connection that
        broke. It counts against a peer that is gone as well: breaking the session is the
        commonest fault of all.
        """
        peer = self._change(peer_id)
        grave = self._gone.get(peer_id)
        if peer is not None:
            before: _Breakers = peer.fields["breakers"]
            reputation, share = peer.fields["reputation"], peer.fields["fault_share"]
        elif grave is not None:
            before, reputation, share = grave.breakers, grave.reputation, grave.fault_share
        else:
            return
        if model not in before and len(before) > MAX_MODELS:
            model = None
        breaker = before.get(model, CLOSED)
        after = breaker.failed(now=now, retry_after=retry_after)
        if after is breaker:
            return
        fault = {
            "breakers": MappingProxyType({**before, model: after}),
            "reputation": max(0.0, reputation - 0.05),
            "fault_share": share + OUTCOME_WEIGHT * (1 - share),
        }
        if peer is not None:
            peer.change(**fault)
        elif grave is not None:
            self._gone[peer_id] = attrs.evolve(grave, **fault)

    def refused(
        self,
        peer_id: PeerId,
        *,
        model: str | None = None,
        now: float,
        retry_after: float | None = None,
    ) -> None:
        """Leave a peer alone after a refusal, for as long as it asks, or for a moment.

        A refusal is no fault, and no breaker opens. But one that claims free slots and refuses
        all the same would be asked first again and again. Slots are those of the whole peer,
        whichever *model* it was about.
        """
        peer = self._change(peer_id)
        if peer is None:
            return
        fields = peer.fields
        load: Load = fields["capability"].load
        rest: float = fields["resting_until"]
        has_room = load.busy + load.queued < load.slots + load.queue_limit
        if retry_after is not None or has_room:
            wait = FIRST_COOLING if retry_after is None else min(LONGEST_COOLING, retry_after)
            rest = max(rest, now + wait)
        share: float = fields["fault_share"]
        if fields["resting_until"] <= now:
            # As with faults: what is refused at once is one refusal.
            share += OUTCOME_WEIGHT * (1 - share)
        peer.change(resting_until=rest, fault_share=share)


def _forgiven(fields: Mapping[str, Any], seen_at: float) -> Mapping[str, Any]:
    """The share of faults, less what is forgotten since the peer was heard of before."""
    if not fields["fault_share"]:
        return {}
    age = max(0.0, seen_at - fields["seen_at"])
    return {"fault_share": fields["fault_share"] * 0.5 ** (age / FORGIVING_SECONDS)}


def _without(breakers: _Breakers, *models: str | None) -> _Breakers:
    if not breakers:
        return breakers
    return MappingProxyType({m: b for m, b in breakers.items() if m not in models})


def _probed(breakers: _Breakers, model: str | None, *, now: float) -> _Breakers:
    if not breakers:
        return breakers
    return MappingProxyType(
        {m: b.probed(now=now) if m in (None, model) else b for m, b in breakers.items()}
    )


def _freed(breakers: _Breakers, *models: str | None) -> _Breakers:
    if not breakers:
        return breakers
    return MappingProxyType({m: b.freed() if m in models else b for m, b in breakers.items()})
