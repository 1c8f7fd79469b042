"""Makes the facts that `punch.doctor` judges of what was seen of a namespace and its peers."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import attrs

from ...access import Refusal, encode_chain
from ...doctor import ClockFacts, GrantFacts, NameFacts, OfferFact, OwnListener, PeerFact
from ...exceptions import ConfigurationError
from ...membership import Home, list_members, read_removals
from ...network import parse_address
from ...peers import PeerRecord, short_id
from .._namespace import Place
from ..up import UpSettings
from ._seen import Seen


def grant_facts(home: Home) -> GrantFacts:
    """The grant of this machine, and whether it counts.

    Raises:
      ConfigurationError: if its files, or the machine's key, are damaged or gone.

    """
    chain, now = home.chain(), time.time()
    home.key()  # Without it the grant is of no use.
    verdict = read_removals(home).judge(home.machine, encode_chain(chain), now)
    grant = chain[-1].grant
    facts = GrantFacts(
        now=now,
        ends=grant.ends,
        is_renewed=grant.lasts > 0,
        misses=tuple(sorted({"dial", "listen"} - grant.scopes)),
    )
    if isinstance(verdict, Refusal):
        return attrs.evolve(facts, rule=verdict.rule, words=verdict.reason)
    return facts


def own_listener(peer: PeerRecord, status: Mapping[str, Any]) -> OwnListener:
    """A listener of this machine; the `punch up` of *status* says where it listens."""
    port, transport, relayed = None, "tcp", None
    if status.get("peer") == peer.peer_id:
        relayed = False
        for listens in status.get("listens", ()):
            with suppress(ConfigurationError):
                place = parse_address(str(listens), relayed=True)
                if place.relay is not None:
                    relayed = True
                elif port is None:
                    port, transport = place.port, "tcp" if place.transport == "tcp" else "udp"
    return OwnListener(
        reached=peer.reachable,
        words=peer.unreachable_why,
        port=port,
        transport=transport,
        relayed=relayed,
    )


def peer_fact(peer: PeerRecord, seen: Seen) -> PeerFact:
    return PeerFact(name=_name_of(peer), minor=seen.minors[peer.peer_id])


def _name_of(peer: PeerRecord) -> str:
    return peer.capability.machine_name or short_id(peer.peer_id)


def offer_facts(peers: Sequence[PeerRecord]) -> tuple[OfferFact, ...]:
    """The models of *peers* that no mock makes up."""
    return tuple(
        OfferFact(
            model=offer.name,
            peer=peer.peer_id,
            digest=offer.digest,
            template=offer.chat_template,
        )
        for peer in peers
        for offer in peer.capability.models
        if not peer.capability.lane(offer).simulated
    )


def clock_facts(home: Home | None, peers: Sequence[PeerRecord], now: float) -> ClockFacts:
    """What tells of the clock: when this machine's grant was made, and when others started."""
    granted_at = None
    if home is not None and home.grant.lasts > 0:
        granted_at = float(home.grant.ends - home.grant.lasts)
    return ClockFacts(
        now=now,
        granted_at=granted_at,
        # An incarnation is the time of the start, in milliseconds: see `new_incarnation`.
        starts=tuple((peer.peer_id, peer.incarnation / 1000) for peer in peers if not peer.is_here),
    )


def name_facts(place: Place, seen: Seen, up: UpSettings) -> NameFacts:
    home = place.home
    if home is None:
        names = (peer.capability.machine_name for peer in seen.peers if not peer.is_here)
        others = tuple(name for name in names if name)
        return NameFacts(own=up.listener.name or socket.gethostname(), others=others)
    members = [each for each in list_members(home) if each.state == "member"]
    return NameFacts(
        own=up.listener.name or home.name,
        others=tuple(each.own_name for each in members if not each.is_this_machine),
    )
