"""Exactly once: one run for each request id, however often it is asked for.

What a run does is its own business; which readers share one, and how long its answer is kept for
those that ask again, is decided here.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import attrs
import trio

from ..exceptions import DeadlineExceeded, RequestConflict
from ..wire import CommandRequest, CommandResponse, Progress
from ._books import Books
from ._dispatch import Dispatch
from ._run import Run

# A program that lost its connection to us asks again within seconds; two minutes cover a
# restart of its machine. The other two bound what is kept meanwhile: 34 short answers a second,
# or four of the longest that there can be.
STORED_SECONDS = 120.0
MAX_STORED = 4096
MAX_CHARACTERS = 16 << 20

# How long it is remembered that engines died under a request, and of how many requests. A client
# that gives up for good has done so by then.
DEATHS_SECONDS = 600.0
MAX_DEATHS = 1024

# What one number of an embedding takes, in the same measure.
NUMBER_CHARACTERS = 32

# What is kept of an answer besides its text, as so many characters more.
ANSWER_CHARACTERS = 2048


@attrs.frozen(kw_only=True)
class Attribution:
    """What of an answer was made for one reader, and not for another who had asked before."""

    prompt: bool = False
    """A peer has taken the prompt."""

    tokens: int = 0
    """Tokens of the text, as those who made them count."""

    earlier: int = 0
    """Tokens before them, made for readers who have left."""


@attrs.frozen(kw_only=True)
class _Stored:
    """An answer that is kept for those that ask for it again.

    Neither its prompt nor the snapshots of peers that led to it: they are far larger.
    """

    response: CommandResponse

    parts: Sequence[str]
    """Its text, put together, and in its place among it what was thought."""

    tokens: int
    """See `Delivered.counted`."""

    progress: Progress | None
    """See `Run.progress`."""

    prompt: Progress | None
    """See `Run.prompt`."""

    fingerprint: bytes
    """Of the request that it answers."""

    ended_at: float
    """When it was stored, in seconds of trio's clock."""

    @property
    def size(self) -> int:
        """What it takes, in characters of text."""
        texts, numbers = sum(map(len, self.parts)), 0
        if (result := self.response.result) is not None:
            texts += sum(len(call.name) + len(call.arguments) for call in result.tool_calls)
            numbers += sum(map(len, result.embeddings))
            # Each comes with the text of its token.
            numbers += sum(2 + 2 * len(one.top) for one in result.logprobs)
        return ANSWER_CHARACTERS + texts + NUMBER_CHARACTERS * numbers


class SharedRun:
    """A run, and what its readers share. A reader is only told apart from others here."""

    def __init__(self, run: Run, *, scope: str, billed_to: object | None) -> None:
        self.run = run
        self.is_kept = False
        """Whether the answer is kept for a while when it is complete."""
        self.readers: list[object] = []
        self.billed_to = billed_to
        """The reader that it is made for: the first; if that one has left, the next."""
        self._scope = scope
        self._billed_earlier = Attribution()
        self._is_driven = False
        self._waiting = trio.lowlevel.ParkingLot()

    @property
    def fingerprint(self) -> bytes:
        """What another request with its id must have, too, to be the same."""
        return _fingerprint(self.run.request, self._scope)

    def billed(self) -> Attribution:
        """What was made for the reader that it is billed to."""
        run, earlier = self.run, self._billed_earlier
        return Attribution(
            prompt=run.has_begun and not earlier.prompt,
            tokens=max(0, run.books.delivered.counted - earlier.tokens),
            earlier=earlier.tokens,
        )

    def lose(self, reader: object) -> None:
        """A reader has left; if it was billed to that one, the next pays from now on."""
        self.readers.remove(reader)
        if self.billed_to is not reader:
            return
        run = self.run
        self.billed_to = None
        if self.readers and not run.is_over:
            self.billed_to = self.readers[0]
            counted = run.books.delivered.counted
            self._billed_earlier = Attribution(prompt=run.has_begun, tokens=counted)

    def advance_nowait(self) -> None:
        """Take what has arrived, unless another reader is about to."""
        if not self._is_driven:
            self.run.advance_nowait()

    async def advance(self, position: int, *, until: float) -> None:
        """Wait until the run has more parts than *position*, or is over.

        One of the readers drives the run. It may be cancelled: then the next one that waits
        takes over.

        Raises:
          DeadlineExceeded: if it is *until* before, in seconds of trio's clock.

        """
        run, parts = self.run, self.run.parts
        while True:
            if self._is_driven:
                with trio.move_on_at(until):
                    await self._waiting.park()
            else:
                self._is_driven = True
                try:
                    if until < run.deadline:
                        with trio.move_on_at(until):
                            await run.advance(until)
                    else:
                        # The run ends its own waits by then: a scope less for nearly every request.
                        await run.advance(until)
                finally:
                    self._is_driven = False
                    if len(self.readers) > 1:
                        self._waiting.unpark_all()
            if len(parts) > position or run.is_over:
                return
            if trio.current_time() >= until:
                raise DeadlineExceeded("the time ran out before the rest of the answer")


class EngineDeaths:
    """How many engines died under requests that may be sent again, by their id and fingerprint."""

    def __init__(self) -> None:
        self._counts: OrderedDict[tuple[str, bytes], tuple[float, int]] = OrderedDict()

    def count(self, shared: SharedRun) -> int:
        """Engines that died under this very request lately."""
        if not self._counts:
            return 0
        noted_at, count = self._counts.get(_key(shared), (-math.inf, 0))
        return count if noted_at + DEATHS_SECONDS > trio.current_time() else 0

    def note(self, shared: SharedRun) -> None:
        """Remember what a run without an answer has seen."""
        count = shared.run.books.attempts.deaths.count
        if count and count > self.count(shared):
            self._counts[_key(shared)] = (trio.current_time(), count)
            self._counts.move_to_end(_key(shared))
        while len(self._counts) > MAX_DEATHS:
            self._counts.popitem(last=False)


class Runs:
    """The runs of one dialer by request id, and for a while the answers of those complete."""

    def __init__(self, dispatch: Dispatch) -> None:
        self.dispatch = dispatch
        self._runs: dict[str, SharedRun] = {}
        self._stored: OrderedDict[str, _Stored] = OrderedDict()
        self._characters = 0
        self._deaths = EngineDeaths()

    def __len__(self) -> int:
        return len(self._runs) + len(self._stored)

    @property
    def under_way(self) -> int:
        """Runs that are not complete, or are still read."""
        return len(self._runs)

    def join(
        self,
        reader: object,
        request: CommandRequest,
        *,
        deadline: float,
        now: float,
        keep: bool = True,
        scope: str = "",
        key_id: str | None = None,
    ) -> SharedRun:
        """The run for *request*: a new one, or the one that its id has already.

        Args:
          reader: What `leave` is called with.
          request: What is asked.
          deadline: When this reader gives up, in seconds of trio's clock.
          now: The time, in seconds of that clock.
          keep: Whether to keep the answer for readers that ask again.
          scope: What else must be the same for two to be the same request.
          key_id: The gateway's key that pays, if there is one.

        Raises:
          RequestConflict: if the id was used for another request.

        """
        self._forget(now)
        request_id = request.request_id
        shared, stored = self._runs.get(request_id), self._stored.get(request_id)
        if shared is not None and shared.run.error is not None:
            # One that failed is asked anew; its readers hold on to it.
            self._deaths.note(shared)
            shared = None
        earlier = shared or stored
        if earlier is not None and earlier.fingerprint != _fingerprint(request, scope):
            raise RequestConflict(
                f"request_id {request_id!r} was used for another request within the last "
                f"{STORED_SECONDS:.0f} s: give each request its own"
            )
        if shared is None:
            books = Books(self.dispatch, request, deadline=deadline, now=now, key_id=key_id)
            run = Run(self.dispatch, books)
            shared = SharedRun(run, scope=scope, billed_to=reader if stored is None else None)
            if stored is not None:
                run.response, run.progress = stored.response, stored.progress
                run.prompt = stored.prompt
                books.delivered.take_over(stored.parts, stored.tokens, stored.response.segments)
            else:
                books.attempts.deaths.before = self._deaths.count(shared)
                self._runs[request_id] = shared
        elif shared.readers:
            shared.run.extend(deadline)
        shared.readers.append(reader)
        shared.is_kept |= keep
        return shared

    def leave(self, reader: object, shared: SharedRun) -> None:
        """A reader has all it wanted. A complete run is kept a while, any other goes with it."""
        shared.lose(reader)
        run, request_id = shared.run, shared.run.request.request_id
        is_current = self._runs.get(request_id) is shared
        if run.response is not None and shared.is_kept:
            if is_current:
                del self._runs[request_id]
                self._store(shared, run.response)
        elif not shared.readers:
            run.abandon()
            self._deaths.note(shared)
            if is_current:
                del self._runs[request_id]

    def _store(self, shared: SharedRun, response: CommandResponse) -> None:
        run, now = shared.run, trio.current_time()
        self._stored[run.request.request_id] = stored = _Stored(
            response=response,
            parts=run.books.delivered.pieces(),
            tokens=run.books.delivered.counted,
            progress=run.progress,
            prompt=run.prompt,
            fingerprint=shared.fingerprint,
            ended_at=now,
        )
        self._characters += stored.size
        self._forget(now)

    def _forget(self, now: float) -> None:
        """Drop what is too old, and the oldest of what is too much."""
        while self._stored:
            oldest = next(iter(self._stored.values()))
            too_much = len(self._stored) > MAX_STORED or self._characters > MAX_CHARACTERS
            if not too_much and oldest.ended_at + STORED_SECONDS > now:
                return
            self._stored.popitem(last=False)
            self._characters -= oldest.size


def _fingerprint(request: CommandRequest, scope: str) -> bytes:
    return request.fingerprint + scope.encode()


def _key(shared: SharedRun) -> tuple[str, bytes]:
    return shared.run.request.request_id, shared.fingerprint
