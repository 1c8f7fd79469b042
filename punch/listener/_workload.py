"""Estimates how much work a lane has before it, for its load reports."""

from __future__ import annotations

import math

import attrs

from ..admission import Slots, Ticket
from ..capability import Load, ModelOffer
from ..wire import CommandRequest, usual_output
from .recordings import Recording

# Weight of the newest answer in the usual length; about the last twenty matter.
WEIGHT = 0.1

# A longer usual length is a backend's miscount, and dialers would refuse the offer for it.
MAX_TOKENS = 1 << 20

# An answer that is longer than usual already still has this share of a usual one before it: the
# length of answers has no memory, or the longest would be reported as all but finished.
MIN_SHARE = 0.1


@attrs.frozen(kw_only=True, eq=False)
class Work:
    """A request that has a slot."""

    recording: Recording
    """The answer that is being made."""

    ticket: Ticket
    """The expected tokens of the request."""

    most_tokens: float = math.inf
    """Longest answer that was asked for, in tokens."""

    @property
    def prompt_tokens_left(self) -> int:
        """Prompt tokens still to be read: none once there is text."""
        return self.ticket.prompt_tokens if self.recording.first_text_at is None else 0

    @property
    def output_tokens_left(self) -> int:
        """Answer tokens still to be made (expected)."""
        expected, made = self.ticket.output_tokens, self.recording.tokens
        left = max(expected - made, math.ceil(MIN_SHARE * expected))
        return max(0, int(min(left, self.most_tokens - made)))


class Workload:
    """The requests that have a slot, and how long their answers usually are."""

    def __init__(self) -> None:
        self._usual: dict[str, float] = {}
        self._works: set[Work] = set()

    def plan(self, recording: Recording, request: CommandRequest, offer: ModelOffer) -> Work:
        """The work of answering *request* with *offer*, with the tokens expected of it."""
        limit = request.sampling.max_tokens
        most = math.inf if limit is None else float(limit)
        usual = self._usual.get(offer.name, usual_output(request))
        expected = 0 if request.command in ("embed", "count") else math.ceil(min(usual, most))
        ticket = Ticket(
            claimant=recording.asker.claimant,
            priority=request.priority,
            prompt_tokens=request.prompt_tokens,
            output_tokens=expected,
            made=lambda: recording.tokens,
        )
        return Work(recording=recording, ticket=ticket, most_tokens=most)

    def usual_tokens(self, offer: ModelOffer) -> int | None:
        """Length of a usual answer of *offer*, once there was one; it fits the context."""
        usual = self._usual.get(offer.name)
        most = min(offer.context_tokens or MAX_TOKENS, MAX_TOKENS)
        return None if usual is None else min(math.ceil(usual), most)

    def begin(self, work: Work) -> None:
        """Count *work*, which has its slot, until it ends."""
        self._works.add(work)

    def end(self, work: Work) -> None:
        """Count *work*, which has given its slot back, no more."""
        self._works.discard(work)

    def learn(self, model: str, tokens: int | None) -> None:
        """Learn the usual length from an answer of *model* with *tokens*."""
        if tokens:
            before = self._usual.get(model, float(tokens))
            self._usual[model] = before + WEIGHT * (tokens - before)

    @property
    def prompt_tokens_left(self) -> int:
        """Prompt tokens of begun requests still to be read (estimated)."""
        return sum(work.prompt_tokens_left for work in self._works)

    @property
    def output_tokens_left(self) -> int:
        """Answer tokens of begun requests still to be made (expected)."""
        return sum(work.output_tokens_left for work in self._works)

    def load(self, slots: Slots, *, is_draining: bool) -> Load:
        """The load of a lane with these *slots*: what was begun, and what waits."""
        return Load(
            slots=slots.slots,
            busy=slots.busy,
            queued=slots.queued,
            queue_limit=slots.queue_limit,
            queued_prompt_tokens=slots.line.prompt_tokens + self.prompt_tokens_left,
            output_tokens_left=slots.line.output_tokens + self.output_tokens_left,
            draining=is_draining,
        )
