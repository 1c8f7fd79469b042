"""Filters: which candidates may be asked at all.

A filter keeps candidates, and can say of one it did not keep why. It sees the whole list at once,
which is several times faster than one call a candidate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import attrs

from ..capability import Lane
from ..peers import ANSWERING, RESTS, STARTING, Candidate, PeerRecord
from ._request import RouteRequest

# Adverts come every second; after five the peer is not told apart from a dead one.
FRESH_SECONDS = 5.0

Keep = Callable[[RouteRequest, Sequence[Candidate], float], Sequence[Candidate]]
Why = Callable[[RouteRequest, Candidate, float], str]


@attrs.frozen(kw_only=True)
class Filter:
    """One reason not to ask a candidate."""

    name: str
    """One word, for tables and logs."""

    keep: Keep
    """``keep(request, candidates, now)`` is those that pass, in the same order."""

    why: Why
    """``why(request, candidate, now)`` says in a sentence why *candidate* did not pass."""

    passes_plain: bool = False
    """Whether each `Candidate.is_plain` passes, so that a decision among such need not look."""

    passes_usual: bool = False
    """Whether all pass for each `RouteRequest.is_usual`: a decision on such need not look."""


def _keep_real(
    request: RouteRequest, candidates: Sequence[Candidate], now: float
) -> Sequence[Candidate]:
    # Strict mode has a filter and a reason of its own; and an offer that is named is meant.
    if request.strict or request.offer is not None:
        return candidates
    real = [candidate for candidate in candidates if not candidate.lane.simulated]
    if len(real) == len(candidates):
        return candidates
    # It counts before any other filter: a real one that is busy, that failed, or that was tried
    # is no reason to make an answer up.
    if request.real_only or [candidate for candidate in real if candidate.is_offered]:
        return real
    # Where any model will do, so will the one that a real lane is about to have.
    names_none = request.model is None and request.model_digest is None
    if names_none and [one for one in candidates if _has_coming(one.peer)]:
        return real
    return candidates


def _has_coming(peer: PeerRecord) -> bool:
    """Whether a real lane of the peer starts, or rests, and does not say yet what it has."""
    claim = peer.capability
    coming = {
        lane.id for lane in claim.lanes if not lane.simulated and lane.state in (STARTING, RESTS)
    }
    return bool(coming and coming - {offer.lane for offer in claim.models})


def _why_real(request: RouteRequest, candidate: Candidate, now: float) -> str:
    backend = candidate.lane.backend
    if request.real_only:
        return f"simulates (backend {backend}); a real one was asked, and none is made up instead"
    return f"simulates (backend {backend}); there is a real one for this model"


def _why_model(request: RouteRequest, candidate: Candidate, now: float) -> str:
    if request.ambiguous:
        return f"offers no model of the very name {request.model}, which may be several"
    wanted = request.model or "any model"
    if request.model_digest is not None:
        wanted += f" with digest {request.model_digest[:12]}"
    if request.offer is not None:
        wanted += f" as {request.offer}"
    claim = candidate.peer.capability
    offered = ", ".join(offer.name for offer in claim.models) or "none"
    # What a backend that is down would offer is not told; why it is down may be all there is.
    down = [f"its backend {lane.backend} {_how_it_is(lane)}" for lane in claim.lanes if lane.reason]
    return "; ".join([f"does not offer {wanted}", f"it offers {offered}", *down])


def _how_it_is(lane: Lane) -> str:
    """The state of a lane, and why, in its peer's words."""
    return f"is {lane.state}" + (f", and says: {lane.reason}" if lane.reason else "")


def _keep_features(
    request: RouteRequest, candidates: Sequence[Candidate], now: float
) -> Sequence[Candidate]:
    wanted = request.needs | {request.command}
    return [candidate for candidate in candidates if wanted <= candidate.offer.features]


# What a peer cannot do that lacks a feature, in words.
_ABILITIES = {
    "tools": "call tools",
    "json_schema": "hold an answer to a JSON schema",
    "logprobs": "give log-probabilities",
    "image": "take pictures",
    "audio": "take sounds",
}


def _why_features(request: RouteRequest, candidate: Candidate, now: float) -> str:
    features = candidate.offer.features
    lacks = [] if request.command in features else [request.command]
    lacks += [f"{_ABILITIES.get(need, need)} ({need})" for need in sorted(request.needs - features)]
    return f"cannot {', '.join(lacks)}; it can {', '.join(sorted(features)) or 'nothing'}"


def _keep_context(
    request: RouteRequest, candidates: Sequence[Candidate], now: float
) -> Sequence[Candidate]:
    if len(candidates) < 2:
        return candidates
    # What a prompt has in tokens is an estimate, which chooses between contexts and refuses none:
    # only the peer's own tokenizer can say that a prompt does not fit.
    contexts = [candidate.offer.context_tokens for candidate in candidates]
    known = [tokens for tokens in contexts if tokens is not None]
    if not known:
        return candidates
    least, most, rooms = min(known), max(known), request.rooms
    if least >= rooms[0] or (least == most and len(known) == len(contexts)):
        return candidates
    # None is as large as this: then the largest, which is the likeliest to hold it.
    needed = next((room for room in rooms if room <= most), most)
    if len(known) < len(contexts) and most < rooms[-1]:
        # A context of which nothing is said may be larger than all of them.
        needed = most + 1
    return [
        candidate
        for candidate, tokens in zip(candidates, contexts, strict=True)
        if tokens is None or tokens >= needed
    ]


def _why_context(request: RouteRequest, candidate: Candidate, now: float) -> str:
    wanted, expected = request.rooms[0], request.rooms[2]
    context = candidate.offer.context_tokens or 0
    what = "the longest answer that is allowed" if expected <= context < wanted else "its answer"
    return (
        f"has a context of {context} tokens; another has more, which may be needed for the prompt "
        f"and {what}"
    )


def exceeded(request: RouteRequest, candidate: Candidate) -> tuple[str, str] | None:
    """The field of *request* that exceeds a cap of *candidate*, and the rule; `None` if none does.

    Caps are what its owner has set for us: what the owner itself is told has none.
    """
    tokens, most = request.max_tokens, candidate.offer.max_output
    if tokens is not None and most is not None and tokens > most:
        return "max_tokens", f"is {tokens}; at most {most} are made for us"
    limit = candidate.lane.max_priority
    # Who says 0 says nothing, and waits as the cap has it.
    if limit is not None and request.priority and request.priority > limit:
        return "priority", f"is {request.priority}; at most {limit} is taken from us"
    return None


def _seconds(request: RouteRequest, candidate: Candidate) -> float:
    """Seconds that the answer would hold its slot, by the peer's own rates; 0 if unknown."""
    prefill, decode = candidate.offer.prefill_rate, candidate.offer.decode_rate
    read = 0.0 if prefill is None else request.prompt_tokens / prefill
    return read if decode is None else read + request.output_tokens / decode


def _keep_caps(
    request: RouteRequest, candidates: Sequence[Candidate], now: float
) -> Sequence[Candidate]:
    if not [candidate for candidate in candidates if candidate.is_capped]:
        return candidates
    kept = [candidate for candidate in candidates if exceeded(request, candidate) is None]
    # A prediction chooses among those that there are, and leaves nobody without any.
    quick = [
        candidate
        for candidate in kept
        if (most := candidate.lane.max_seconds) is None or _seconds(request, candidate) <= most
    ]
    return quick or kept


def _why_caps(request: RouteRequest, candidate: Candidate, now: float) -> str:
    broken = exceeded(request, candidate)
    if broken is not None:
        return " ".join(broken)
    return (
        f"would take about {_seconds(request, candidate):.0f} s for the answer; it works "
        f"{candidate.lane.max_seconds:g} s at most for us"
    )


def _keep_slots(
    request: RouteRequest, candidates: Sequence[Candidate], now: float
) -> Sequence[Candidate]:
    return [candidate for candidate in candidates if candidate.has_room]


def _why_slots(request: RouteRequest, candidate: Candidate, now: float) -> str:
    load = candidate.load
    if load.draining:
        return "is shutting down"
    return (
        f"is full: {load.busy} of {load.slots} slots busy, {load.queued} of {load.queue_limit} "
        f"queued, {candidate.ours.in_flight} of them ours"
    )


def _keep_continuation(
    request: RouteRequest, candidates: Sequence[Candidate], now: float
) -> Sequence[Candidate]:
    if not request.continuing:
        return candidates
    template = request.chat_template
    # A plain prompt is gone on with as it is; a conversation is written out by the template.
    plain = request.command == "complete"
    return [
        candidate
        for candidate in candidates
        if (offer := candidate.offer).continues
        and (plain or offer.chat_template is not None)
        and (plain or template in (None, offer.chat_template))
    ]


def _why_continuation(request: RouteRequest, candidate: Candidate, now: float) -> str:
    offer = candidate.offer
    if not offer.continues:
        return "cannot go on with an answer that another peer began"
    return (
        f"writes a conversation with chat template {_short(offer.chat_template)}; the answer "
        f"was begun with {_short(request.chat_template)}"
    )


def _short(digest: str | None) -> str:
    return digest[:12] if digest is not None else "unknown"


def _keep_state(
    request: RouteRequest, candidates: Sequence[Candidate], now: float
) -> Sequence[Candidate]:
    kept = [each for each in candidates if each.lane.state in ANSWERING]
    # It is better to ask a lane that may be well again than nobody, as with breakers.
    return kept or [each for each in candidates if each.lane.state == RESTS]


def _why_state(request: RouteRequest, candidate: Candidate, now: float) -> str:
    lane = candidate.lane
    if lane.closed_for is None:
        return f"takes no requests: its backend {_how_it_is(lane)}"
    hours, minutes = divmod(math.ceil(lane.closed_for / 60), 60)
    return (
        f"takes no requests from us at this hour, and does again in {hours} h {minutes} min: its "
        "owner has set the hours"
    )


def _keep_breaker(
    request: RouteRequest, candidates: Sequence[Candidate], now: float
) -> Sequence[Candidate]:
    kept = [
        candidate
        for candidate in candidates
        if not candidate.is_troubled or candidate.breaker.admits(now)
    ]
    if request.alternative:
        return kept
    # When all have failed it is likelier our own network, or they are back: better to ask one
    # of them than nobody (fail open, as Envoy's panic threshold does).
    return kept or candidates


def _why_breaker(request: RouteRequest, candidate: Candidate, now: float) -> str:
    breaker = candidate.breaker
    failed = f"failed {breaker.failures} times in a row; "
    if breaker.until > now:
        return f"{failed}left alone for another {breaker.until - now:.1f} s"
    return f"{failed}a single request is finding out whether it is well again"


def _keep_untried(
    request: RouteRequest, candidates: Sequence[Candidate], now: float
) -> Sequence[Candidate]:
    tried = request.tried
    if not tried:
        return candidates
    return [
        candidate
        for candidate in candidates
        if candidate.peer_id not in tried and candidate.id not in tried
    ]


def _keep_only(
    request: RouteRequest, candidates: Sequence[Candidate], now: float
) -> Sequence[Candidate]:
    only = request.wishes.only
    if only is None:
        return candidates
    return [candidate for candidate in candidates if candidate.peer_id in only]


def _keep_private(
    request: RouteRequest, candidates: Sequence[Candidate], now: float
) -> Sequence[Candidate]:
    match request.wishes.privacy:
        case "own":
            own = request.wishes.own
            return [
                candidate
                for candidate in candidates
                if candidate.peer_id in own
                and (not (offer := candidate.offer).split or offer.own_workers)
            ]
        case "whole":
            return [candidate for candidate in candidates if not candidate.offer.split]
    return candidates


def _why_private(request: RouteRequest, candidate: Candidate, now: float) -> str:
    if request.wishes.privacy == "own":
        if candidate.peer_id in request.wishes.own:
            return (
                "runs the model over machines that may be another owner's; the request is for "
                "those of its own only"
            )
        return "is of another owner; the request is for peers of its own only"
    return "runs the model over several machines; the request is for one that is whole"


def _rate(candidate: Candidate) -> float:
    """Tokens a second of one answer alone; 0 where nobody knows."""
    return candidate.rates.decode_or(candidate.offer.decode_rate) or 0.0


def _keep_quick(
    request: RouteRequest, candidates: Sequence[Candidate], now: float
) -> Sequence[Candidate]:
    least, most = request.wishes.min_rate, request.wishes.max_load
    kept = [one for one in candidates if _rate(one) >= least] if least else candidates
    return kept if most is None else [one for one in kept if one.per_slot <= most]


def _keep_unavoided(
    request: RouteRequest, candidates: Sequence[Candidate], now: float
) -> Sequence[Candidate]:
    avoid = request.wishes.avoid
    return [one for one in candidates if one.peer_id not in avoid] or candidates


def _keep_preferred(
    request: RouteRequest, candidates: Sequence[Candidate], now: float
) -> Sequence[Candidate]:
    prefer = request.wishes.prefer
    return [one for one in candidates if one.peer_id in prefer] or candidates


# Before all others: they say who is meant, and a simulated peer that is meant is asked for.
ONLY = Filter(
    name="only",
    keep=_keep_only,
    why=lambda request, candidate, now: "is none of the peers that the request is limited to",
    passes_usual=True,
)

PRIVACY = Filter(name="privacy", keep=_keep_private, why=_why_private, passes_usual=True)

QUICK = Filter(
    name="quick",
    keep=_keep_quick,
    why=lambda request, candidate, now: (
        f"makes {_rate(candidate):.3g} tokens a second and has {candidate.per_slot:.2g} requests a "
        "slot, and the request says how many they must be at least, and at most"
    ),
    passes_usual=True,
)

# After all others: where nobody else is left, those are asked that were to be avoided.
AVOID = Filter(
    name="avoid",
    keep=_keep_unavoided,
    why=lambda request, candidate, now: "is to be avoided, and another can be asked",
    passes_usual=True,
)

PREFER = Filter(
    name="prefer",
    keep=_keep_preferred,
    why=lambda request, candidate, now: "can be asked, and another is preferred",
    passes_usual=True,
)

REAL = Filter(name="real", keep=_keep_real, why=_why_real)

TRIED = Filter(
    name="tried",
    keep=_keep_untried,
    why=lambda request, candidate, now: "was already asked",
    passes_usual=True,
)

FRESH = Filter(
    name="fresh",
    keep=lambda request, candidates, now: [
        candidate for candidate in candidates if now - candidate.peer.seen_at <= FRESH_SECONDS
    ],
    why=lambda request, candidate, now: (
        f"was last heard of {now - candidate.peer.seen_at:.1f} s ago; the limit is "
        f"{FRESH_SECONDS:.0f} s"
    ),
)

STRICT = Filter(
    name="strict",
    keep=lambda request, candidates, now: (
        [candidate for candidate in candidates if not candidate.lane.simulated]
        if request.strict
        else candidates
    ),
    why=lambda request, candidate, now: (
        f"simulates (backend {candidate.lane.backend}); strict mode takes real inference only"
    ),
    passes_usual=True,
)

MODEL = Filter(
    name="model",
    keep=lambda request, candidates, now: [
        candidate for candidate in candidates if candidate.is_offered
    ],
    why=_why_model,
    passes_plain=True,
)

FEATURES = Filter(name="features", keep=_keep_features, why=_why_features)

CONTEXT = Filter(name="context", keep=_keep_context, why=_why_context)

CAPS = Filter(name="caps", keep=_keep_caps, why=_why_caps, passes_plain=True)

CONTINUATION = Filter(
    name="continuation", keep=_keep_continuation, why=_why_continuation, passes_usual=True
)

STATE = Filter(name="state", keep=_keep_state, why=_why_state, passes_plain=True)

BREAKER = Filter(name="breaker", keep=_keep_breaker, why=_why_breaker, passes_plain=True)

RESTING = Filter(
    name="resting",
    keep=lambda request, candidates, now: [
        candidate for candidate in candidates if candidate.ours.resting_until <= now
    ],
    why=lambda request, candidate, now: (
        f"refused a request; left in peace for another {candidate.ours.resting_until - now:.1f} s"
    ),
    passes_plain=True,
)

SLOTS = Filter(name="slots", keep=_keep_slots, why=_why_slots, passes_plain=True)

STANDARD_FILTERS = (
    ONLY,
    PRIVACY,
    REAL,
    TRIED,
    FRESH,
    STRICT,
    MODEL,
    FEATURES,
    CAPS,
    CONTINUATION,
    STATE,
    BREAKER,
    RESTING,
    SLOTS,
    CONTEXT,
    QUICK,
    AVOID,
    PREFER,
)
"""What every policy starts with. Protocol and namespace were checked when the session began."""
