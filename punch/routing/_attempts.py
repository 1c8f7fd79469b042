# Failing over and going on, without any I/O.
#
# Rule 1: everything that decides "whom next, wait, or give up?" lives in this file. The router
# only carries out what it says.
#
# Rule 2: no offer is asked twice for the same request, and no peer whose connection broke or
# that lied, unless the peer has started anew since. An offer whose engine is being started again,
# as a split that has lost a worker, may be asked again, and so often only.
#
# Rule 3: a peer's fault moves the request on: before the first text to anybody who can answer,
# after it only to a peer that can go on with the text. So does a peer's word that the request is at
# fault, until a second one says the same: see `_failed`.
#
# Rule 4: a network where everything fails is not hammered: tries after the first are paid for
# from a budget that all requests share. Going on with a begun answer is always paid.
#
# Rule 5: a request under which the engines of two peers died may be what kills them. It goes to
# no third one. A peer that vanished is no such proof: its cable may have been pulled.
"""Which peer to try next, and when to give up."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Literal

import attrs

from ..capability import PeerId
from ..exceptions import (
    AnswerInterrupted,
    AnswerUnfit,
    DeadlineExceeded,
    EnginesDied,
    NoPeerAvailable,
    PeerTimeout,
    PeerUnreachable,
    PunchError,
)
from ..peers import Candidate
from ._budget import Budget
from ._decision import Decision, Prediction
from ._failed import (
    FailedAttempt,
    Presence,
    agreed,
    is_worth_a_wait,
    least_wait,
    nobody,
    objects,
    reasons_of,
    what_it_comes_to,
    whom_next,
    words_of,
)

# More tries than this and it is the network that is broken, not a peer.
MAX_ATTEMPTS = 8

# One engine may die of anything while it has a request; with two it is likely the request.
MAX_ENGINES_DIED = 2

# How long a peer may stay silent before its first token, at least and where nothing is
# predicted. A listener says after five seconds that tokens are made which have no text, as those of
# a model that thinks; the other is several times the prefill of a long prompt on a slow machine.
MIN_PATIENCE_SECONDS = 8.0
DEFAULT_PATIENCE_SECONDS = 60.0

# What counts against a peer that was given up, by its caller or for another, long after it should
# have answered: half a fault. The prediction may have been wrong; twice in a row it was not.
GAVE_UP_DOUBT = 0.5

# A prediction that is off by more than this factor is no prediction.
PATIENCE_FACTOR = 4.0

# However long something is predicted to take, by a claim perhaps: after this long it is worth
# looking whether somebody else could do it.
MAX_PATIENCE_SECONDS = 300.0

# A listener that was killed is started again and has joined within this time, by whatever
# supervises it; a request that lost its peer waits so long before it finds that nobody is left.
RETURN_SECONDS = 5.0

# A split may lose one worker after the other. One that loses a third under the same request is
# left to others.
MAX_RESTARTS = 2

# How often it looks meanwhile: some things, as the end of a rest, announce themselves to nobody.
LOOK_AGAIN_SECONDS = 0.25

# A request that waits in a queue goes elsewhere only if that is so much quicker, and only so
# often: predictions are no better than that, and where all are full nobody should run about.
MOVE_FACTOR = 1.25
MAX_MOVES = 2

Reason = Literal["first", "failover", "continuation", "hedge", "move"]
"""Why a peer is asked: the first one, another before or after the first text, one beside a late
one, or in place of one where the request would wait longer."""


@attrs.frozen(kw_only=True)
class Try:
    """Ask this candidate next."""

    candidate: Candidate
    """Which offer of which peer."""

    predicted: Prediction
    """How long it is expected to take."""

    patience: float
    """How long it may stay silent before the first text, in seconds."""

    reason: Reason
    """Why."""

    @classmethod
    def of(
        cls, decision: Decision, candidate: Candidate, reason: Reason, *, most: float = math.inf
    ) -> Try:
        """A try with the usual patience, and *most* seconds of it."""
        predicted = decision.predicted(candidate)
        patience = DEFAULT_PATIENCE_SECONDS
        if (first := predicted.uncached) is not None:
            patience = min(max(MIN_PATIENCE_SECONDS, PATIENCE_FACTOR * first), MAX_PATIENCE_SECONDS)
        return cls(
            candidate=candidate, predicted=predicted, patience=min(patience, most), reason=reason
        )

    @property
    def peer_id(self) -> PeerId:
        """Its peer."""
        return self.candidate.peer_id


@attrs.frozen(kw_only=True)
class Wait:
    """Nobody can be asked now, and somebody may be back in a moment."""

    until: float
    """When to look again at the latest, in seconds of the router's clock."""


@attrs.frozen
class GiveUp:
    """Stop, and raise this to the caller."""

    error: PunchError


class Deaths:
    """How many engines died under one request, by the word of as many peers.

    A peer counts once, or the word of one liar would end the requests of everybody.
    """

    def __init__(self) -> None:
        self.before = 0
        """Engines that died under it when it was asked before."""
        self._peers: set[PeerId] = set()

    @property
    def count(self) -> int:
        """Engines that died under it."""
        return self.before + len(self._peers)

    @property
    def are_many(self) -> bool:
        """Whether nobody else is to be asked."""
        return self.count >= MAX_ENGINES_DIED

    def error(self, so_far: str) -> EnginesDied:
        """What the caller gets, who has had *so_far* of the answer."""
        return EnginesDied(
            f"{self.count} engines died while they worked at this request, {so_far}, so no other "
            "is asked: make it lighter, such as its schema or its prompt, before it is sent again"
        )

    def note(self, attempt: FailedAttempt) -> None:
        """Count a failed attempt, if an engine died in it."""
        if attempt.engine_died:
            self._peers.add(attempt.peer_id)


class Attempts:
    """The tries of one request.

    Args:
      deadline: When the caller gives up, in seconds of the router's clock.
      limit: How many peers to try at most.
      continuable: Whether the caller wants a begun answer to go on elsewhere.

    """

    def __init__(
        self, *, deadline: float, limit: int = MAX_ATTEMPTS, continuable: bool = True
    ) -> None:
        self.deaths = Deaths()
        """Engines that died under the request."""
        self._deadline = deadline
        self._limit = limit
        self._continuable = continuable
        self._failed: list[FailedAttempt] = []
        self._digest: str | None = None
        self._waits_until: float | None = None
        self._moves = 0
        self.tokens = 0
        """Tokens delivered."""
        self.characters = 0
        """Characters delivered."""
        self.awaits: str | None = None
        """What the request waits for that no peer works on, in a sentence."""

    @property
    def failed_attempts(self) -> tuple[FailedAttempt, ...]:
        """The tries so far that failed, in order."""
        return tuple(self._failed)

    @property
    def begun(self) -> bool:
        """True once the caller has seen part of the answer."""
        return self.characters > 0

    def tried(
        self, presence_of: Callable[[PeerId], Presence | None] = lambda peer_id: None
    ) -> frozenset[str]:
        """Ids of the candidates and peers not to ask again.

        A peer that has started anew since is another one; and where it was only the connection
        that broke, a new connection is worth another try.

        Args:
          presence_of: How a peer is there now, if it is.

        """
        if not self._failed:
            return frozenset()
        restarts = Counter(each.excludes for each in self._failed if each.engine_restarts)
        return frozenset(
            attempt.excludes
            for attempt in self._failed
            if not _is_new(attempt, presence_of(attempt.peer_id))
            and not (attempt.engine_restarts and restarts[attempt.excludes] <= MAX_RESTARTS)
        )

    @property
    def reason(self) -> Reason:
        """Why the next peer will be asked."""
        if self.begun:
            return "continuation"
        return "failover" if self._failed else "first"

    def has_alternative(self, decision: Decision) -> bool:
        """Whether somebody else could answer, or go on with what is begun of the answer."""
        if self._next(decision) is None or len(self._failed) >= self._limit:
            return False
        return not self.begun or self._cannot_continue(decision) is None

    def next_step(
        self, decision: Decision, *, now: float, budget: Budget | None = None
    ) -> Try | Wait | GiveUp:
        """What to do now, given who may still be asked.

        Args:
          decision: Made with `tried` left out.
          now: The current time of the router's clock, in seconds.
          budget: What faults are paid from; `None` for no limit. Where nothing is left,
            nobody is asked after a fault.

        """
        if self.deaths.are_many:
            return GiveUp(self.deaths.error(self._so_far()))
        if now >= self._deadline:
            return GiveUp(self.out_of_time())
        if self.begun and self._failed and isinstance(self._failed[-1].error, AnswerUnfit):
            # The caller has all of it, and another one would be another answer.
            return GiveUp(self._failed[-1].error)
        if self.begun and (why := self._cannot_continue(decision)):
            return GiveUp(self._interrupted(why))
        candidate = self._next(decision)
        if len(self._failed) >= self._limit:
            return GiveUp(self._nobody(decision))
        if candidate is None:
            return self._wait(decision, now) or GiveUp(self._nobody(decision))
        self._waits_until = None
        if self._must_pay() and budget is not None and budget.left(now) < 1.0:
            return GiveUp(self._too_many_failures())
        return Try.of(decision, candidate, self.reason, most=self._deadline - now)

    def move(self, decision: Decision, *, seconds: float, now: float) -> Try | None:
        """Whom to ask in the place of a peer where the request still waits in the queue.

        Many dialers that choose at the same moment choose the same peer. The ones that find
        themselves queueing there look again, with what is known now.

        Args:
          decision: Made without that peer.
          seconds: To the whole answer there, by its own word.
          now: The current time of the router's clock, in seconds.

        """
        candidate = decision.chosen
        if decision.unit != "s" or candidate is None or self._moves >= MAX_MOVES:
            return None
        if decision.score(candidate) * MOVE_FACTOR >= seconds:
            return None
        self._moves += 1
        return Try.of(decision, candidate, "move", most=self._deadline - now)

    def failed(
        self,
        peer_id: PeerId,
        error: PunchError,
        *,
        seconds: float,
        presence: Presence | None = None,
        offer: str | None = None,
        context_tokens: int | None = None,
    ) -> None:
        """Record a failure."""
        attempt = FailedAttempt(
            peer_id=peer_id,
            error=error,
            seconds=seconds,
            presence=presence,
            offer=offer,
            context_tokens=context_tokens,
        )
        self._failed.append(attempt)
        self.deaths.note(attempt)

    def check_deaths(self) -> None:
        """Raise `EnginesDied` if so many engines died under the request that it ends."""
        if self.deaths.are_many:
            raise self.deaths.error(self._so_far())

    def delivered(self, *, tokens: int, characters: int, digest: str | None) -> None:
        """Record that the caller has seen more of the answer, of the model with this digest."""
        self.tokens += tokens
        self.characters += characters
        self._digest = digest

    def extend(self, deadline: float) -> None:
        """Somebody else waits for the same answer, until *deadline*."""
        self._deadline = max(self._deadline, deadline)

    def out_of_time(self) -> DeadlineExceeded:
        """The error for a caller whose time ran out."""
        if self.begun:
            what = f"the time ran out {self._so_far()}"
        else:
            what = "the time ran out before an answer"
        tried = [f"{a.peer_id}: {a.error.message}" for a in self._failed]
        why = "; ".join(tried if self.awaits is None else [*tried, self.awaits])
        return DeadlineExceeded(what + (f" ({why})" if why else ""))

    # ---- why not ----

    def _cannot_continue(self, decision: Decision) -> str | None:
        needs = decision.request.needs
        if needs & {"tools", "json_schema"}:
            return "an answer with tools, or held to a schema, cannot be gone on with half way"
        if "logprobs" in needs:
            return "the log-probabilities of what was delivered are lost with it"
        if not self._continuable:
            return "the request is not to be continued by another peer"
        if self._digest is None:
            return "its model file or chat template is unknown, so nobody is known to have the same"
        return None

    def _next(self, decision: Decision) -> Candidate | None:
        """The best that was not tried: a policy may leave out the filter that says so."""
        tried, order = decision.request.tried, decision.order
        left = order
        if tried:
            left = tuple(c for c in order if c.peer_id not in tried and c.id not in tried)
        if not self._failed:
            return left[0] if left else None
        return whom_next(self._failed, left)

    def _must_pay(self) -> bool:
        """Whether the next try is one after a fault: what peers say of the request is none."""
        if self.begun or not self._failed:
            return False
        return any(not objects(attempt.error) for attempt in self._failed)

    def _wait(self, decision: Decision, now: float) -> Wait | None:
        """Wait, and not for long, if a peer may come back that was lost, or could do better."""
        if agreed(self._failed) is not None and not self.begun:
            return None
        is_lost = any(isinstance(a.error, PeerUnreachable | PeerTimeout) for a in self._failed)
        if not is_lost and not is_worth_a_wait(self._failed, decision):
            return None
        if self._waits_until is None:
            self._waits_until = now + RETURN_SECONDS
        until = min(self._waits_until, self._deadline)
        return Wait(until=min(now + LOOK_AGAIN_SECONDS, until)) if now < until else None

    def _so_far(self) -> str:
        return f"after {self.tokens} tokens ({self.characters} characters) of the answer"

    def _interrupted(self, why: str) -> AnswerInterrupted:
        last = self._failed[-1]
        return AnswerInterrupted(
            f"{last.peer_id} failed {self._so_far()}: {last.error.message}; {why}",
            tokens=self.tokens,
            characters=self.characters,
        )

    def _too_many_failures(self) -> NoPeerAvailable:
        return NoPeerAvailable(
            "too many requests have failed lately to try this one again; see below for its own",
            words_of(self._failed),
            retry_after=least_wait(self._failed) or 1.0,
        )

    def _nobody(self, decision: Decision) -> PunchError:
        if self._failed and isinstance(self._failed[-1].error, AnswerUnfit):
            return self._failed[-1].error
        if not self.begun:
            return what_it_comes_to(self._failed, decision) or nobody(self._failed, decision)
        last = self._failed[-1].peer_id
        reasons, _ = reasons_of(self._failed, decision)
        lines = [f"\n  {p}: {why}" for p, why in reasons.items() if p != last]
        return self._interrupted("nobody could go on with it" + "".join(lines))


def _is_new(attempt: FailedAttempt, now: Presence | None) -> bool:
    """Whether the peer, as it is there *now*, is not the one that was asked."""
    before = attempt.presence
    if now is None or before is None:
        return False
    lost = isinstance(attempt.error, PeerUnreachable)
    return now.incarnation != before.incarnation or (lost and now.session is not before.session)
