"""One live try at one peer: what it was asked, what it has said, and how long it may be silent.

It decides nothing about other peers, and keeps no book but its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import trio

from ..capability import PeerId
from ..peers import Candidate
from ..routing import (
    GAVE_UP_DOUBT,
    Decision,
    Pace,
    Prediction,
    Reason,
    StallDetector,
    StopAcrossPeers,
    floor_within,
)
from ..session import ClientCall
from ..wire import CommandRequest, Progress, Provenance
from ._hedging import HELD_UP_SECONDS, READ_SECONDS, Lateness
from ._verdict import check_provenance

# A listener says every five seconds that a request still waits; three in a row is silence.
PROGRESS_PATIENCE = 15.0

# How long it may wait at all, past what it said at first: several times that, and a minute where
# that is little or nothing. After that somebody else may be asked.
PROMISE_FACTOR = 4.0
MIN_PROMISE_SECONDS = 60.0

# More tokens than any answer has.
MAX_TOKENS = 1 << 20


class Attempt:
    """What is known of one try while it lasts.

    Args:
      call: The call on the peer's session.
      request: What it was asked.
      decision: Why it was.
      candidate: The offer that the request is for, and its peer as it was then.
      reason: Whether it is the first, or why there was a further one.
      predicted: How long it is expected to take.
      asked_at: When it was asked, in seconds of trio's clock.
      deadline: Until when it may answer, by the same clock.
      patience: Seconds that it may be silent before its first text.
      session_number: The peer's session in the table, see `PeerTable.ended`.
      held_up: Tells for how many seconds its lane may have read prompts that came after it.
      stops: Finds the stop sequences that began in text delivered before, if any was.

    """

    def __init__(
        self,
        call: ClientCall,
        *,
        request: CommandRequest,
        decision: Decision,
        candidate: Candidate,
        reason: Reason,
        predicted: Prediction,
        asked_at: float,
        deadline: float,
        patience: float,
        session_number: int,
        held_up: Callable[[], float] = float,
        stops: StopAcrossPeers | None,
    ) -> None:
        self.call = call
        self.request = request
        self.decision = decision
        self.candidate = candidate
        """The offer that the request is for."""
        self.reason: Reason = reason
        self.stops = stops
        self.asked_at = asked_at
        """When it was asked."""
        self.predicted = predicted
        """How long it was expected to take."""
        self.first_text_at: float | None = None
        self.provenance: Provenance | None = None
        """What it says of its answer."""
        self.tokens = 0
        """Tokens that it has delivered."""
        self.characters = 0
        """Characters of text that it has delivered."""
        self.thought_tokens = 0
        """Tokens among those that it has delivered which it thought."""
        self.thought_bytes = 0
        """Bytes of what it thought, in UTF-8."""
        self._parts: list[str] = []
        self._held_tokens = 0
        self.session_number = session_number
        """The peer's session in the table, see `PeerTable.ended`."""
        self._held_up = held_up
        self.awaited = 0.0
        """Seconds in which there was nothing from it to read, and somebody who would have."""
        self.deadline = deadline
        """Until when it may answer, in seconds of trio's clock."""
        limits = (request.sampling.max_tokens, candidate.offer.context_tokens, MAX_TOKENS)
        self._most_tokens = min(limit for limit in limits if limit is not None)
        self.started_at: float | None = None
        """When its backend began to work on it."""
        self._waits_until: float | None = None
        self._patience = patience
        self._patient_until = asked_at + patience
        self._stalls: StallDetector | None = None
        self._pace: Pace | None = None
        self._awaited_before = 0.0
        # Until it says something, as predicted: of a whole answer that is its last word.
        self._until_first = predicted.uncached
        if not request.stream and predicted.uncached is not None:
            self._until_first = predicted.uncached + (predicted.decode or 0.0)
        self.lateness = Lateness(
            call.sign_due,
            now=asked_at,
            until=self.deadline,
            predicted=self._until_first,
            rtt=candidate.peer.rtt or 0.0,
            is_on_trial=candidate.breaker.failures > 0,
        )
        """When another peer is to be asked beside it."""

    @property
    def peer_id(self) -> PeerId:
        """Who was asked."""
        return self.candidate.peer_id

    @property
    def text(self) -> str:
        """The text that it has delivered."""
        return "".join(self._parts)

    @property
    def seconds(self) -> float:
        """How long ago it was asked."""
        return trio.current_time() - self.asked_at

    @property
    def patient_until(self) -> float:
        """When its silence is no longer usual."""
        return self._patient_until

    def is_overdue(self, now: float) -> bool:
        """Whether it is silent or behind for too long; if it has a reason, not before later."""
        if now < self._patient_until:
            return False
        if now - self._patient_until > HELD_UP_SECONDS:
            self._patient_until = now + READ_SECONDS
            return False
        if self._stalls is None or now >= self._stalls.overdue_at or self.is_behind:
            return True
        self.wait_on()
        return False

    @property
    def is_quiet(self) -> bool:
        """True before its first text."""
        return self.first_text_at is None

    @property
    def doubt(self) -> float:
        """What the time that it took says against it, if it ends here: a share of a fault."""
        first = self._until_first
        if first is None:
            return 0.0
        if self.is_quiet:
            return self.lateness.doubt(self.awaited, first)
        return GAVE_UP_DOUBT if self.is_behind else 0.0

    @property
    def is_behind(self) -> bool:
        """True if what has come of its answer took several times as long as was predicted."""
        pace = self._pace
        return pace is not None and pace.is_behind(self.tokens, awaited=self.decode_awaited)

    @property
    def decode_awaited(self) -> float:
        """Seconds since its first text in which somebody waited for the next."""
        return 0.0 if self.is_quiet else self.awaited - self._awaited_before

    def seconds_left(self, tokens: int) -> float:
        """Seconds for *tokens* more, at the rate at which it has answered so far."""
        return tokens * self.decode_awaited / max(1, self.tokens)

    def believed(self, tokens: int) -> int:
        """So many more *tokens*, as far as the answer can have them."""
        return max(0, min(tokens, self._most_tokens - self.tokens - self._held_tokens))

    def waits(self, progress: Progress, now: float) -> None:
        """It says that it is not done waiting; while that lasts, it will say so again."""
        works = progress.state == "working"
        self.lateness.signed(now, PROGRESS_PATIENCE, promised=progress.seconds, works=works)
        if works:
            self._patient_until = now + max(PROGRESS_PATIENCE, self._patience)
            return
        if self._waits_until is None:
            promised = PROMISE_FACTOR * (progress.seconds or 0.0)
            self._waits_until = now + max(MIN_PROMISE_SECONDS, promised)
        self._patient_until = max(now, min(now + PROGRESS_PATIENCE, self._waits_until))

    def started(self, provenance: Provenance, now: float) -> None:
        """Its backend works on it now; raises `PeerError` if that is not what was agreed on."""
        check_provenance(
            provenance, request=self.request, candidate=self.candidate, before=self.provenance
        )
        self.provenance = provenance
        self.started_at = now
        self.lateness.signed(now)
        self._patient_until = now + self._patience

    def heard(self, text: str, tokens: int, now: float) -> tuple[str, int]:
        """It has sent text; what of it, and of what was held back, can be delivered."""
        tokens = self._in_time(tokens, now)
        if self.stops is None:
            return text, tokens
        self._held_tokens += tokens
        text = self.stops.take(text)
        if not text:
            return "", 0
        tokens, self._held_tokens = self._held_tokens, 0
        return text, tokens

    def thought(self, text: str, tokens: int, now: float) -> int:
        """It has sent what it thinks; how many of its tokens are believed."""
        tokens = self._in_time(tokens, now)
        self.thought_tokens += tokens
        self.thought_bytes += len(text.encode("utf-8", "surrogatepass"))
        self.tokens += tokens
        return tokens

    def _in_time(self, tokens: int, now: float) -> int:
        """Note when it spoke, of so many *tokens*; how many of them are believed."""
        if self._stalls is None:
            self.first_text_at, self._awaited_before = now, self.awaited
            gap, floor = self._predicted_gap(), floor_within(self.deadline - now)
            self._pace = None if gap is None else Pace(gap, floor, self._held_up)
            self._stalls = _expected_gaps(now, gap, floor, self.candidate)
        else:
            self._stalls.heard(now)
        self.lateness.spoke(now)
        tokens = self.believed(tokens)
        self._patient_until = self._stalls.overdue_at
        if self._pace is not None:
            look_at = self._pace.look_at(self.tokens + tokens, awaited=self.decode_awaited, now=now)
            self._patient_until = min(self._patient_until, look_at)
        return tokens

    def _predicted_gap(self) -> float | None:
        """Seconds between two tokens, as predicted."""
        decode, tokens = self.predicted.decode, self.decision.request.output_tokens
        return decode / tokens if decode is not None and tokens and math.isfinite(decode) else None

    def last_heard(self, text: str, tokens: int | None) -> tuple[str, int]:
        """It is done; what of its last text can be delivered, given its own count of tokens."""
        if self.stops is not None:
            text = (self.stops.take(text) if text else "") + self.stops.rest()
        if tokens is None:
            return text, self._held_tokens
        return text, max(0, tokens - self.tokens)

    def delivered(self, text: str, tokens: int) -> None:
        """The caller has taken this much more of its text."""
        self._parts.append(text)
        self.tokens += tokens
        self.characters += len(text)

    def wait_on(self) -> None:
        """Nobody else could do better: let it be silent a little longer."""
        now = trio.current_time()
        self._patient_until = now + self._patience
        if self._pace is not None:
            self._patient_until = self._pace.looked(now, awaited=self.decode_awaited)

    @property
    def heard_at(self) -> float:
        """When it last spoke, or was asked."""
        return self.asked_at if self._stalls is None else self._stalls.heard_at

    @property
    def usual_gap(self) -> float | None:
        """Seconds between two of its texts, if that is known."""
        return None if self._stalls is None else self._stalls.usual_gap


def _expected_gaps(now: float, gap: float | None, floor: float, asked: Candidate) -> StallDetector:
    """What knows how long the gaps in an answer of *asked* usually are."""
    # Only a lane with several slots reads a prompt while it answers us.
    beside = asked.load.slots > 1
    return StallDetector(
        now, gap=gap, prefill_rate=asked.offer.prefill_rate if beside else None, floor=floor
    )
