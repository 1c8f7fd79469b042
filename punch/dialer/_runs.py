"""Exactly once: one run for each request id, however often it is asked for.

What a run does is its own business; which readers share one, and how long its answer is kept for
those that ask again, is decided here.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import attrs
import trio

from ..exceptions import RequestConflict
from ..wire import CommandRequest, fingerprint
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


class SharedRun:
    """A run, and what its readers share. A reader is only told apart from others here."""

    def __init__(self, run: Run, print_: bytes) -> None:
        self.run = run
        self.fingerprint = print_
        self.is_kept = False
        """Whether the answer is kept for a while when it is complete."""
        self.readers: list[object] = []
        self.billed_to: object | None = None
        """The reader that it is made for: the first; if that one has left, the next."""
        self.ended_at: float | None = None
        """When it was stored, in seconds of trio's clock."""
        self._billed_earlier = Attribution()
        self._is_driven = False
        self._waiting = trio.lowlevel.ParkingLot()

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
        self.billed_to = self.readers[0] if self.readers and not run.is_over else None
        self._billed_earlier = Attribution(prompt=run.has_begun, tokens=run.books.delivered.counted)

    def advance_nowait(self) -> None:
        """Take what has arrived, unless another reader is about to."""
        if not self._is_driven:
            self.run.advance_nowait()

    async def advance(self, position: int, *, until: float) -> None:
        """Wait until the run has more parts than *position*, is over, or it is *until*.

        One of the readers drives the run. It may be cancelled: then the next one that waits
        takes over.
        """
        run = self.run
        if until < run.deadline or self._is_driven:
            with trio.move_on_at(until):
                await self._advance(position, until)
        else:
            # The run ends its own waits by then: a scope less for nearly every request.
            await self._advance(position, until)

    async def _advance(self, position: int, until: float) -> None:
        run = self.run
        while len(run.parts) <= position and not run.is_over and trio.current_time() < until:
            if self._is_driven:
                await self._waiting.park()
                continue
            self._is_driven = True
            try:
                await run.advance(until)
            finally:
                self._is_driven = False
                self._waiting.unpark_all()


class EngineDeaths:
    """How many engines died under requests that may be sent again, by their id and fingerprint."""

    def __init__(self) -> None:
        self._counts: OrderedDict[tuple[str, bytes], tuple[float, int]] = OrderedDict()

    def count(self, request_id: str, print_: bytes) -> int:
        """Engines that died under this very request lately."""
        noted_at, count = self._counts.get((request_id, print_), (-math.inf, 0))
        return count if noted_at + DEATHS_SECONDS > trio.current_time() else 0

    def note(self, shared: SharedRun) -> None:
        """Remember what a run without an answer has seen."""
        request_id, count = shared.run.request.request_id, shared.run.books.attempts.deaths.count
        if count > self.count(request_id, shared.fingerprint):
            self._counts[request_id, shared.fingerprint] = (trio.current_time(), count)
            self._counts.move_to_end((request_id, shared.fingerprint))
        while len(self._counts) > MAX_DEATHS:
            self._counts.popitem(last=False)


class Runs:
    """The runs of one dialer by request id: those under way, and for a while those complete."""

    def __init__(self, dispatch: Dispatch) -> None:
        self.dispatch = dispatch
        self._runs: dict[str, SharedRun] = {}
        self._stored: OrderedDict[str, int] = OrderedDict()
        self._characters = 0
        self._deaths = EngineDeaths()

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def under_way(self) -> int:
        """Runs that are not complete."""
        return len(self._runs) - len(self._stored)

    def join(
        self,
        reader: object,
        request: CommandRequest,
        *,
        deadline: float,
        keep: bool = True,
        scope: str = "",
        key_id: str | None = None,
    ) -> SharedRun:
        """The run for *request*: a new one, or the one that its id has already.

        Args:
          reader: What `leave` is called with.
          request: What is asked.
          deadline: When this reader gives up, in seconds of trio's clock.
          keep: Whether to keep the answer for readers that ask again.
          scope: What else must be the same for two to be the same request.
          key_id: The gateway's key that pays, if there is one.

        Raises:
          RequestConflict: if the id was used for another request.

        """
        self._forget()
        request_id, print_ = request.request_id, fingerprint(request) + scope.encode()
        shared = self._runs.get(request_id)
        if shared is None or shared.run.error is not None:
            # One that failed is asked anew; its readers hold on to it.
            if shared is not None:
                self._deaths.note(shared)
            books = Books(self.dispatch, request, deadline=deadline, key_id=key_id)
            run = Run(self.dispatch, books)
            run.books.attempts.deaths.before = self._deaths.count(request_id, print_)
            shared = self._runs[request_id] = SharedRun(run, print_)
            shared.billed_to = reader
        elif shared.fingerprint != print_:
            raise RequestConflict(
                f"request_id {request_id!r} was used for another request within the last "
                f"{STORED_SECONDS:.0f} s: give each request its own"
            )
        elif shared.readers:
            shared.run.extend(deadline)
        shared.readers.append(reader)
        shared.is_kept |= keep
        return shared

    def leave(self, reader: object, shared: SharedRun) -> None:
        """A reader has all it wanted. A complete run is kept a while, any other goes with it."""
        shared.lose(reader)
        run, request_id = shared.run, shared.run.request.request_id
        if run.response is not None and shared.is_kept:
            if shared.ended_at is None:
                self._store(shared, request_id)
        elif not shared.readers:
            run.abandon()
            self._deaths.note(shared)
            if self._runs.get(request_id) is shared:
                del self._runs[request_id]

    def _store(self, shared: SharedRun, request_id: str) -> None:
        shared.ended_at = trio.current_time()
        shared.run = shared.run.stored()
        self._stored[request_id] = size = _size(shared.run)
        self._characters += size
        self._forget()

    def _forget(self) -> None:
        """Drop what is too old, and the oldest of what is too much."""
        expired = trio.current_time() - STORED_SECONDS
        while self._stored:
            request_id, size = next(iter(self._stored.items()))
            too_much = len(self._stored) > MAX_STORED or self._characters > MAX_CHARACTERS
            ended_at = self._runs[request_id].ended_at
            if not too_much and ended_at is not None and ended_at > expired:
                return
            del self._stored[request_id], self._runs[request_id]
            self._characters -= size


def _size(run: Run) -> int:
    """What a complete run takes, in characters of text."""
    result = run.response.result if run.response is not None else None
    texts, numbers = sum(map(len, run.parts)), 0
    if result is not None:
        texts += sum(len(call.name) + len(call.arguments) for call in result.tool_calls)
        numbers += sum(map(len, result.embeddings))
        # Each comes with the text of its token.
        numbers += sum(2 + 2 * len(one.top) for one in result.logprobs)
    return ANSWER_CHARACTERS + texts + NUMBER_CHARACTERS * numbers
