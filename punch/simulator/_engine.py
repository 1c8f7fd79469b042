"""The service model of one simulated machine: pure, event by event.

Rule 1: it works on at most `slots` requests. Their prompts are read one after another, in the
order they began, at the prefill rate. Tokens found in the cache are not read, but for the last
one: its successor has to be computed.

Rule 2: the first token of an answer comes with the end of its prompt. The others are made for
all requests side by side: b of them get d / (1 + s (b - 1)) tokens a second each. But a prompt
takes the machine: while one is read, each of them gets one token for every PIECE_TOKENS of it,
as llama.cpp does, which computes so much of it in one step.

Rule 3: a machine with a loading time puts its model away when it has nothing to do, and the
first request after that waits for it.

Rule 4: everything happens at the moment the formulas say. Nothing in here is drawn by lot.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence

import attrs

from ._pool import PoolPeer
from ._traces import TraceRequest

# What llama.cpp reads of prompts in one step (its --batch-size).
PIECE_TOKENS = 2048

# Less than this much of a token is rounding.
NOTHING = 1e-6

# Two events this close are one, in seconds: sums of times are not exact.
INSTANT = 1e-9


@attrs.define(kw_only=True, eq=False)
class Job:
    """A request on a machine."""

    key: str
    """The request id."""

    prompt_tokens: int
    """Tokens of the prompt."""

    cached_tokens: int
    """Of these, the ones found in the cache."""

    output_tokens: int
    """Tokens of the answer, at least 1."""

    unread: float = attrs.field(init=False)
    """Prompt tokens still to be read, and what loading the model takes, as so many more."""

    made: float = 0.0
    """Answer tokens made so far."""

    begun_at: float = 0.0
    """When it got its slot."""

    first_at: float | None = None
    """When its first token was made."""

    ended_at: float | None = None
    """When its last token was made."""

    batch_seconds: float = 0.0
    """Integral of the batch over the time it was worked on."""

    def __attrs_post_init__(self) -> None:
        self.unread = float(max(1, self.prompt_tokens - self.cached_tokens))

    def copy(self) -> Job:
        """A copy in the same state, for running ahead."""
        job: Job = Job.__new__(Job)
        for name in Job.__slots__:
            if name != "__weakref__":
                setattr(job, name, getattr(self, name))
        return job


class Engine:
    """A machine at work, by the rules of this module.

    Args:
      peer: Slots and speeds of the machine.

    """

    __slots__ = (
        *("_decode", "_load_seconds", "_prefill", "_slowdown"),
        *("decoding", "now", "reading", "slots", "worked"),
    )

    def __init__(self, peer: PoolPeer) -> None:
        self._prefill = peer.prefill_rate
        self._decode = peer.decode_rate
        self._slowdown = peer.slowdown
        self._load_seconds = peer.load_seconds
        self.slots = peer.slots
        self.worked = 0.0
        """Seconds that slots were in use, summed over the slots."""
        self.now = 0.0
        """The time up to which it has worked, in seconds."""
        self.reading: list[Job] = []
        self.decoding: list[Job] = []

    def copy(self) -> Engine:
        """A copy in the same state, for running ahead."""
        engine: Engine = Engine.__new__(Engine)
        engine._prefill, engine._decode = self._prefill, self._decode
        engine._slowdown, engine._load_seconds = self._slowdown, self._load_seconds
        engine.slots, engine.now, engine.worked = self.slots, self.now, self.worked
        engine.reading = [job.copy() for job in self.reading]
        engine.decoding = [job.copy() for job in self.decoding]
        return engine

    def speed_up(self, factor: float, now: float) -> None:
        """Be *factor* times as fast from *now* on."""
        self.advance(now)
        self._prefill *= factor
        self._decode *= factor

    @property
    def active(self) -> int:
        """Requests that have a slot."""
        return len(self.reading) + len(self.decoding)

    def begin(self, job: Job, now: float) -> None:
        """Give *job* a slot."""
        self.advance(now)
        job.begun_at = now
        if not self.active:
            # The model was put away with the last request.
            job.unread += self._load_seconds * self._prefill
        self.reading.append(job)

    def end(self, job: Job, now: float) -> None:
        """Take a job out, whether it is done or not."""
        self.advance(now)
        if job in self.decoding:
            self.decoding.remove(job)
        elif job in self.reading:
            self.reading.remove(job)

    def advance(self, now: float) -> None:
        """Work until *now*."""
        while (seconds := self._next()) <= now - self.now + INSTANT:
            self._work(seconds)
            self._settle()
        if now > self.now:
            self._work(now - self.now)
            self.now = now

    def next_event(self) -> float:
        """When a prompt will be read or an answer done next, if no other request comes."""
        return self.now + self._next()

    def reading_seconds(self, job: Job) -> float:
        """Seconds to read the prompt of *job*, without loading or waiting."""
        return max(1, job.prompt_tokens - job.cached_tokens) / self._prefill

    def milestone(self, job: Job) -> float:
        """When *job* will have its first or, after that, its last token, if nothing changes."""
        if job.first_at is None:
            if job not in self.reading:
                return math.inf
            ahead = self.reading[: self.reading.index(job) + 1]
            return self.now + sum(other.unread for other in ahead) / self._prefill
        unread = sum(other.unread for other in self.reading)
        left = max(0.0, job.output_tokens - job.made)
        beside = unread / PIECE_TOKENS
        if left <= beside:
            return self.now + left * PIECE_TOKENS / self._prefill
        return self.now + unread / self._prefill + (left - beside) / self._side_by_side(self.active)

    def _side_by_side(self, batch: int) -> float:
        """Tokens a second of each answer, with *batch* of them at a time."""
        return self._decode / (1 + self._slowdown * (batch - 1))

    def _rate(self) -> float:
        """Tokens a second that each answer gets now."""
        if self.reading:
            return self._prefill / PIECE_TOKENS
        return self._side_by_side(len(self.decoding))

    def _next(self) -> float:
        seconds = self.reading[0].unread / self._prefill if self.reading else math.inf
        if self.decoding:
            left = min([job.output_tokens - job.made for job in self.decoding])
            seconds = min(seconds, max(0.0, left) / self._rate())
        return seconds

    def _work(self, seconds: float) -> None:
        if seconds <= 0:
            return
        decoding = self.decoding
        self.worked += self.active * seconds
        batch_seconds = (len(decoding) + bool(self.reading)) * seconds
        if decoding:
            made = self._rate() * seconds
            for job in decoding:
                job.made += made
                job.batch_seconds += batch_seconds
        if self.reading:
            self.reading[0].unread -= self._prefill * seconds
            self.reading[0].batch_seconds += batch_seconds
        self.now += seconds

    def _settle(self) -> None:
        """End the answers that are complete, and begin that of the prompt that is read."""
        for job in [job for job in self.decoding if job.output_tokens - job.made <= NOTHING]:
            job.ended_at = self.now
            self.decoding.remove(job)
        if self.reading and self.reading[0].unread <= NOTHING:
            job = self.reading.pop(0)
            job.first_at = self.now
            job.made = 1.0
            if job.output_tokens <= 1:
                job.ended_at = self.now
            else:
                self.decoding.append(job)


class PrefixCache:
    """Blocks of prompts that a machine has read, the least recently used of them forgotten first.

    Args:
      tokens: How many tokens it holds.

    """

    def __init__(self, tokens: int) -> None:
        self.capacity = tokens
        self.tokens = 0
        """Tokens in it."""
        self._blocks: OrderedDict[int, int] = OrderedDict()

    def found(self, request: TraceRequest) -> int:
        """Tokens at the beginning of the prompt that are in it."""
        tokens = 0
        for block, length in request.block_lengths():
            if self._blocks.get(block, 0) < length:
                break
            tokens += length
        return tokens

    def add(self, request: TraceRequest) -> None:
        """Keep a prompt that was read."""
        # The end first: what others are likeliest to share is forgotten last.
        for block, length in reversed(list(request.block_lengths())):
            self.tokens += max(0, length - self._blocks.get(block, 0))
            self._blocks[block] = max(length, self._blocks.get(block, 0))
            self._blocks.move_to_end(block)
        while self.tokens > self.capacity:
            _, length = self._blocks.popitem(last=False)
            self.tokens -= length


def job_of(key: str, request: TraceRequest, cache: PrefixCache, *, delivered: int = 0) -> Job:
    """The work that *request* is for a machine with this cache.

    *delivered* tokens of its answer were made elsewhere: they are read like a prompt.
    """
    return Job(
        key=key,
        prompt_tokens=request.input_tokens + delivered,
        cached_tokens=min(cache.found(request), request.input_tokens - 1),
        output_tokens=max(1, request.output_tokens - delivered),
    )


def forecast(engine: Engine, waiting: Sequence[Job] | Iterable[Job], last: Job) -> float:
    """When *last* will be done if *waiting* jobs get the slots before it, in their order."""
    engine = engine.copy()
    queue = [*waiting, last]
    while last.ended_at is None:
        while queue and engine.active < engine.slots:
            engine.begin(queue.pop(0), engine.now)
        engine.advance(engine.next_event())
    return last.ended_at
