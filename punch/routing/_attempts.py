# Failing over, without any I/O.
#
# Rule 1: everything that decides "whom next, or give up?" lives in this file. The router only
# carries out what it says.
#
# Rule 2: no peer is asked twice for the same request.
#
# Rule 3: a caller's fault is returned at once. A peer's fault moves the request on, until the
# first text was delivered: from then on the answer is bound to its peer.
"""Which peer to try next, and when to give up."""

from __future__ import annotations

import attrs

from ..capability import PeerId
from ..exceptions import (
    DeadlineExceeded,
    NoPeerAvailable,
    NoRealPeer,
    PeerError,
    PeerSimulated,
    PunchError,
    UnknownModel,
)
from ._decision import Decision

# More tries than this and it is the network that is broken, not a peer.
MAX_ATTEMPTS = 8

# How long a peer may stay silent before its first token, at least and where nothing is
# predicted: several times the prefill of a long prompt on a slow machine.
LEAST_PATIENCE = 20.0
USUAL_PATIENCE = 60.0

# A prediction that is off by more than this factor is no prediction.
PATIENCE_FACTOR = 4.0


@attrs.frozen(kw_only=True)
class Try:
    """Ask this peer next."""

    peer_id: PeerId
    """Whom."""

    patience: float
    """How long it may stay silent before the first text, in seconds."""


@attrs.frozen
class GiveUp:
    """Stop, and raise this to the caller."""

    error: PunchError


@attrs.frozen(kw_only=True)
class Attempt:
    """One try that failed."""

    peer_id: PeerId
    """Who was asked."""

    error: PunchError
    """What went wrong."""

    seconds: float
    """How long it took."""


class Attempts:
    """The tries of one request.

    Args:
      deadline: When the caller gives up, in seconds of the router's clock.
      limit: How many peers to try at most.

    """

    def __init__(self, *, deadline: float, limit: int = MAX_ATTEMPTS) -> None:
        self._deadline = deadline
        self._limit = limit
        self._failed: list[Attempt] = []
        self._delivered = False

    @property
    def failed_attempts(self) -> tuple[Attempt, ...]:
        """The tries so far that failed, in order."""
        return tuple(self._failed)

    @property
    def tried(self) -> frozenset[PeerId]:
        """Peers not to ask again."""
        return frozenset(attempt.peer_id for attempt in self._failed)

    def next_step(self, decision: Decision, *, now: float) -> Try | GiveUp:
        """What to do now, given who may still be asked."""
        if self._delivered:
            return GiveUp(self._failed[-1].error)
        if now >= self._deadline:
            return GiveUp(self.out_of_time())
        # The filter for peers already tried says the same, but a policy may leave it out.
        left = (peer_id for peer_id in decision.order if peer_id not in self.tried)
        peer_id = next(left, None)
        if peer_id is None or len(self._failed) >= self._limit:
            return GiveUp(self._nobody(decision))
        patience = min(self.patience(decision, peer_id), self._deadline - now)
        return Try(peer_id=peer_id, patience=patience)

    def failed(self, peer_id: PeerId, error: PunchError, *, seconds: float) -> GiveUp | None:
        """Record a failure. `GiveUp` if it was not the peer's: nobody else would do better."""
        self._failed.append(Attempt(peer_id=peer_id, error=error, seconds=seconds))
        return None if isinstance(error, PeerError) else GiveUp(error)

    def delivered(self) -> None:
        """Record that the caller has seen part of the answer."""
        self._delivered = True

    def out_of_time(self) -> DeadlineExceeded:
        """The error for a caller whose time ran out."""
        tried = "; ".join(f"{a.peer_id}: {a.error}" for a in self._failed)
        return DeadlineExceeded(
            "the time ran out before an answer" + (f" ({tried})" if tried else "")
        )

    def patience(self, decision: Decision, peer_id: PeerId) -> float:
        """How long *peer_id* may stay silent before its first text, in seconds."""
        decode = decision.term(peer_id, "decode")
        if decode is None:
            return USUAL_PATIENCE
        return max(LEAST_PATIENCE, PATIENCE_FACTOR * (decision.score(peer_id) - decode))

    def _nobody(self, decision: Decision) -> NoPeerAvailable:
        reasons = {a.peer_id: str(a.error).removeprefix(f"{a.peer_id}: ") for a in self._failed}
        candidates = [c for c in decision.candidates() if c.peer_id not in reasons]
        for candidate in candidates:
            reasons[candidate.peer_id] = candidate.reason or "was not tried"
        removed_by = {c.removed_by for c in candidates}
        failures = {type(a.error) for a in self._failed}
        error: NoPeerAvailable
        if not reasons:
            error = NoPeerAvailable("no listener is known in this namespace")
        elif decision.request.strict and removed_by <= {"strict"} and failures <= {PeerSimulated}:
            error = NoRealPeer(
                "strict mode takes real inference only, and nobody offers it", reasons
            )
        elif removed_by == {"model"} and not failures:
            error = UnknownModel(_what_is_on_offer(decision), reasons)
        else:
            error = NoPeerAvailable("no listener could answer", reasons)
        waits = [a.error.retry_after for a in self._failed if a.error.retry_after is not None]
        error.retry_after = min(waits, default=None)
        return error


def _what_is_on_offer(decision: Decision) -> str:
    request = decision.request
    offered = {offer.name for peer, _ in decision.removed for offer in peer.capability.models}
    wanted = "no listener offers " + (repr(request.model) if request.model else "a model")
    if request.model_digest is not None:
        wanted += f" with digest {request.model_digest}"
    return f"{wanted}; on offer: {', '.join(sorted(offered)) or 'none'}"
