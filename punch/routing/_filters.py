"""Filters: who may be asked at all.

A filter keeps peers, and can say of one it did not keep why. It sees the whole list at once,
which is several times faster than one call a peer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from ..peers import PeerRecord
from ._request import RouteRequest

# Adverts come every second; after five the peer is not told apart from a dead one.
FRESH_SECONDS = 5.0

Keep = Callable[[RouteRequest, Sequence[PeerRecord], float], Sequence[PeerRecord]]
Why = Callable[[RouteRequest, PeerRecord, float], str]


@attrs.frozen(kw_only=True)
class Filter:
    """One reason not to ask a peer."""

    name: str
    """One word, for tables and logs."""

    keep: Keep
    """``keep(request, peers, now)`` is the peers that pass, in the same order."""

    why: Why
    """``why(request, peer, now)`` says in a sentence why *peer* did not pass."""


def _keep_model(
    request: RouteRequest, peers: Sequence[PeerRecord], now: float
) -> Sequence[PeerRecord]:
    model, digest = request.model, request.model_digest
    return [peer for peer in peers if peer.capability.offer(model, digest) is not None]


def _why_model(request: RouteRequest, peer: PeerRecord, now: float) -> str:
    wanted = request.model or "any model"
    if request.model_digest is not None:
        wanted += f" with digest {request.model_digest[:12]}"
    offered = ", ".join(offer.name for offer in peer.capability.models) or "none"
    return f"does not offer {wanted}; it offers {offered}"


def _features(request: RouteRequest, peer: PeerRecord) -> frozenset[str]:
    offer = peer.capability.offer(request.model, request.model_digest)
    return offer.features if offer is not None else frozenset()


def _keep_features(
    request: RouteRequest, peers: Sequence[PeerRecord], now: float
) -> Sequence[PeerRecord]:
    model, digest, command = request.model, request.model_digest, request.command
    needs = request.needs
    return [
        peer
        for peer in peers
        if (offer := peer.capability.offer(model, digest)) is not None
        and command in offer.features
        and needs <= offer.features
    ]


# What a peer cannot do that lacks a feature, in words.
_ABILITIES = {
    "tools": "call tools",
    "json_schema": "hold an answer to a JSON schema",
    "logprobs": "give log-probabilities",
}


def _why_features(request: RouteRequest, peer: PeerRecord, now: float) -> str:
    features = _features(request, peer)
    lacks = [] if request.command in features else [request.command]
    lacks += [f"{_ABILITIES[need]} ({need})" for need in sorted(request.needs - features)]
    return f"cannot {', '.join(lacks)}; it can {', '.join(sorted(features)) or 'nothing'}"


def _context(request: RouteRequest, peer: PeerRecord) -> int | None:
    offer = peer.capability.offer(request.model, request.model_digest)
    return offer.context_tokens if offer is not None else None


def _keep_context(
    request: RouteRequest, peers: Sequence[PeerRecord], now: float
) -> Sequence[PeerRecord]:
    model, digest = request.model, request.model_digest
    # The prompt's length is an estimate: only what is far too long is kept from the peer,
    # which will count for itself.
    least = request.context_tokens / 2
    return [
        peer
        for peer in peers
        if (offer := peer.capability.offer(model, digest)) is None
        or offer.context_tokens is None
        or least <= offer.context_tokens
    ]


def _keep_slots(
    request: RouteRequest, peers: Sequence[PeerRecord], now: float
) -> Sequence[PeerRecord]:
    return [
        peer
        for peer in peers
        if peer.present < (load := peer.capability.load).slots + load.queue_limit
        and not load.draining
    ]


def _why_slots(request: RouteRequest, peer: PeerRecord, now: float) -> str:
    load = peer.capability.load
    if load.draining:
        return "is shutting down"
    return (
        f"is full: {load.busy} of {load.slots} slots busy, {load.queued} of {load.queue_limit} "
        f"queued, {peer.in_flight} of them ours"
    )


def _keep_continuation(
    request: RouteRequest, peers: Sequence[PeerRecord], now: float
) -> Sequence[PeerRecord]:
    if not request.continuing:
        return peers
    model, digest, template = request.model, request.model_digest, request.chat_template
    # A plain prompt is gone on with as it is; a conversation is written out by the template.
    plain = request.command == "complete"
    return [
        peer
        for peer in peers
        if (offer := peer.capability.offer(model, digest)) is not None
        and offer.continues
        and (plain or offer.chat_template is not None)
        and (plain or template in (None, offer.chat_template))
    ]


def _why_continuation(request: RouteRequest, peer: PeerRecord, now: float) -> str:
    offer = peer.capability.offer(request.model, request.model_digest)
    if offer is None or not offer.continues:
        return "cannot go on with an answer that another peer began"
    return (
        f"writes a conversation with chat template {_short(offer.chat_template)}; the answer "
        f"was begun with {_short(request.chat_template)}"
    )


def _short(digest: str | None) -> str:
    return digest[:12] if digest is not None else "unknown"


def _offered(request: RouteRequest, peer: PeerRecord) -> str | None:
    offer = peer.capability.offer(request.model, request.model_digest)
    return offer.name if offer is not None else request.model


def _keep_breaker(
    request: RouteRequest, peers: Sequence[PeerRecord], now: float
) -> Sequence[PeerRecord]:
    kept = [
        peer
        for peer in peers
        if not peer.breakers or peer.breaker(_offered(request, peer)).admits(now)
    ]
    if request.alternative:
        return kept
    # When all have failed it is likelier our own network, or they are back: better to ask one
    # of them than nobody (fail open, as Envoy's panic threshold does).
    return kept or peers


def _why_breaker(request: RouteRequest, peer: PeerRecord, now: float) -> str:
    breaker = peer.breaker(_offered(request, peer))
    failed = f"failed {breaker.failures} times in a row; "
    if breaker.until > now:
        return f"{failed}left alone for another {breaker.until - now:.1f} s"
    return f"{failed}a single request is finding out whether it is well again"


TRIED = Filter(
    name="tried",
    keep=lambda request, peers, now: (
        [peer for peer in peers if peer.peer_id not in request.tried] if request.tried else peers
    ),
    why=lambda request, peer, now: "was already asked",
)

FRESH = Filter(
    name="fresh",
    keep=lambda request, peers, now: [
        peer for peer in peers if now - peer.seen_at <= FRESH_SECONDS
    ],
    why=lambda request, peer, now: (
        f"was last heard of {now - peer.seen_at:.1f} s ago; the limit is {FRESH_SECONDS:.0f} s"
    ),
)

STRICT = Filter(
    name="strict",
    keep=lambda request, peers, now: (
        [peer for peer in peers if not peer.capability.simulated] if request.strict else peers
    ),
    why=lambda request, peer, now: (
        f"simulates (backend {peer.capability.backend}); strict mode takes real inference only"
    ),
)

MODEL = Filter(name="model", keep=_keep_model, why=_why_model)

FEATURES = Filter(
    name="features",
    keep=_keep_features,
    why=_why_features,
)

CONTEXT = Filter(
    name="context",
    keep=_keep_context,
    why=lambda request, peer, now: (
        f"takes {_context(request, peer)} tokens; the prompt has about {request.context_tokens}"
    ),
)

CONTINUATION = Filter(
    name="continuation",
    keep=_keep_continuation,
    why=_why_continuation,
)

BREAKER = Filter(name="breaker", keep=_keep_breaker, why=_why_breaker)

RESTING = Filter(
    name="resting",
    keep=lambda request, peers, now: [peer for peer in peers if peer.resting_until <= now],
    why=lambda request, peer, now: (
        f"refused a request; left in peace for another {peer.resting_until - now:.1f} s"
    ),
)

SLOTS = Filter(
    name="slots",
    keep=_keep_slots,
    why=_why_slots,
)

STANDARD_FILTERS = (
    TRIED,
    FRESH,
    STRICT,
    MODEL,
    FEATURES,
    CONTEXT,
    CONTINUATION,
    BREAKER,
    RESTING,
    SLOTS,
)
"""What every policy starts with. Protocol and namespace were checked when the session began."""
