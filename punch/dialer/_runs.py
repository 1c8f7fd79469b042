"""Exactly once: one run for each request id, however often it is asked for."""

from __future__ import annotations

from collections import OrderedDict

import attrs
import trio

from ..exceptions import DeadlineExceeded, RequestConflict
from ..wire import CommandRequest, fingerprint
from ._dispatch import Dispatch
from ._run import USUAL_TIMEOUT, Run

# A program that lost its connection to us asks again within seconds; two minutes cover a
# restart of its machine. The other two bound what is kept meanwhile: 34 short answers a second,
# or four of the longest that there can be.
STORED_SECONDS = 120.0
MOST_STORED = 4096
MOST_CHARACTERS = 16 << 20

# Whose time runs out as the run's own does hears of it from the run: by so many seconds.
AFTER_THE_RUN = 0.01

# What one number of an embedding takes, in the same measure.
NUMBER_CHARACTERS = 32

# What is kept of an answer besides its text, as so many characters more.
ANSWER_CHARACTERS = 2048


@attrs.frozen(kw_only=True)
class Made:
    """What of an answer was made for one reader, and not for another who had asked before."""

    prompt: bool = False
    """A peer has taken the prompt."""

    tokens: int = 0
    """Tokens of the text, as those who made them count."""

    earlier: int = 0
    """Tokens before them, made for readers who have left."""


class _Shared:
    """A run, and what its readers share."""

    def __init__(self, run: Run, print_: bytes) -> None:
        self.run = run
        self.fingerprint = print_
        self.is_kept = False
        """Whether it is kept for a while when it is complete."""
        self.readers: list[Reading] = []
        self.owner: Reading | None = None
        """For whom it is made: who asked first, or if that one has left, who joined next."""
        self._made_earlier = Made()
        self.ended_at: float | None = None
        self._is_driven = False
        self._waiting = trio.lowlevel.ParkingLot()

    def made(self) -> Made:
        """What was made for its owner."""
        run, earlier = self.run, self._made_earlier
        return Made(
            prompt=run.was_taken and not earlier.prompt,
            tokens=max(0, run.tokens - earlier.tokens),
            earlier=earlier.tokens,
        )

    def lose(self, reading: Reading) -> None:
        """One reads no more; if it was made for that one, it is for the next from now on."""
        self.readers.remove(reading)
        if self.owner is not reading:
            return
        run = self.run
        self.owner = self.readers[0] if self.readers and not run.is_over else None
        self._made_earlier = Made(prompt=run.was_taken, tokens=run.tokens)

    def advance_nowait(self) -> None:
        """Take what has arrived, unless somebody is about to."""
        if not self._is_driven:
            self.run.advance_nowait()

    async def advance(self, position: int) -> None:
        """Wait until the run has more parts than *position*, or is over; drive it if nobody does.

        Whoever drives may be cancelled: then the next one who waits takes over.
        """
        run = self.run
        while len(run.parts) <= position and not run.is_over:
            if self._is_driven:
                await self._waiting.park()
                continue
            self._is_driven = True
            try:
                await run.advance()
            finally:
                self._is_driven = False
                self._waiting.unpark_all()


class Reading:
    """One reader's place in a run. Made by `Runs.join`."""

    def __init__(self, runs: Runs, shared: _Shared, deadline: float) -> None:
        self.run = shared.run
        self.shared = shared
        self._deadline = deadline
        self._runs = runs
        self._position = 0

    @property
    def made(self) -> Made | None:
        """What was made for this reader; `None` if another asked for it before."""
        return self.shared.made() if self.shared.owner is self else None

    @property
    def text(self) -> str:
        """What this reader has received."""
        return "".join(self.run.parts[: self._position])

    async def receive(self) -> str | None:
        """The next part; `None` at the end. Raises what went wrong with the run."""
        run = self.run
        text = self.receive_nowait()
        if text is None and not run.is_over:
            await self._advance()
            text = self.receive_nowait()
        if text is None and run.error is not None:
            raise run.error
        return text

    def receive_nowait(self) -> str | None:
        """The next part, if it is there."""
        run = self.run
        if self._position >= len(run.parts) and not run.is_over:
            self.shared.advance_nowait()
        if self._position >= len(run.parts):
            return None
        self._position += 1
        return run.parts[self._position - 1]

    async def _advance(self) -> None:
        # The run keeps time for whoever waits longest, and says more when it runs out.
        with trio.move_on_at(self._deadline + AFTER_THE_RUN) as patience:
            await self.shared.advance(self._position)
        if patience.cancelled_caught:
            raise DeadlineExceeded("the time ran out before the rest of the answer")

    def leave(self) -> None:
        """The reader wants no more."""
        self._runs.leave(self)


class Runs:
    """The runs of one dialer by request id: those under way, and for a while those complete."""

    def __init__(self, dispatch: Dispatch) -> None:
        self.dispatch = dispatch
        self._runs: dict[str, _Shared] = {}
        self._stored: OrderedDict[str, int] = OrderedDict()
        self._characters = 0

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def under_way(self) -> int:
        """Runs that are not complete."""
        return len(self._runs) - len(self._stored)

    def join(self, request: CommandRequest, *, keep: bool = True, scope: str = "") -> Reading:
        """Read the run for *request*: a new one, or the one that its id has already.

        Args:
          request: What is asked.
          keep: Whether to keep the answer for whoever asks again.
          scope: What else must be the same for two to be the same request.

        Raises:
          RequestConflict: if the id was used for another request.

        """
        self._forget()
        request_id, print_ = request.request_id, fingerprint(request) + scope.encode()
        shared = self._runs.get(request_id)
        is_new = shared is None or shared.run.error is not None
        if shared is None or is_new:
            # One that failed is asked anew; who still reads it holds on to it.
            shared = self._runs[request_id] = _Shared(Run(self.dispatch, request), print_)
        elif shared.fingerprint != print_:
            raise RequestConflict(
                f"request_id {request_id!r} was used for another request within the last "
                f"{STORED_SECONDS:.0f} s: give each request its own"
            )
        deadline = trio.current_time() + (request.timeout or USUAL_TIMEOUT)
        reading = Reading(self, shared, deadline)
        if is_new:
            shared.owner = reading
        elif shared.readers:
            shared.run.extend(deadline)
        shared.readers.append(reading)
        shared.is_kept |= keep
        return reading

    def leave(self, reading: Reading) -> None:
        """A reader has all it wanted. A complete run is kept a while, any other goes with it."""
        shared = reading.shared
        shared.lose(reading)
        run, request_id = shared.run, shared.run.request.request_id
        if run.response is not None and shared.is_kept:
            if shared.ended_at is None:
                self._store(shared, request_id)
        elif not shared.readers:
            run.abandon()
            if self._runs.get(request_id) is shared:
                del self._runs[request_id]

    def _store(self, shared: _Shared, request_id: str) -> None:
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
            too_much = len(self._stored) > MOST_STORED or self._characters > MOST_CHARACTERS
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
