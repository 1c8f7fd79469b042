"""A reader of an answer: the place of one call in a recording, and what is held back for it.

What there is to read is kept by the recording; how it is joined is decided by `_parts`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

import trio

from ...capability import PeerId
from ...session import ServerCall
from ...wire import CommandResponse, PromptCount, Provenance, Thought
from ._parts import PIECE_CHARACTERS, runs_of

if TYPE_CHECKING:
    from ._recording import Recording

# An answer takes no longer, and so holds its slot no longer, whatever its readers allow.
MAX_SECONDS = 3600.0


class Answering(Protocol):
    """What a reader needs of the listener."""

    def follow(self, reader: Reader) -> None:
        """Have `Recording.follow` pass the answer on to *reader*, in a task and in its scope."""
        ...

    def ended(self, reader: Reader, response: CommandResponse | None) -> None:
        """Tell the dialer of *reader* how its request ended; `None` if it has left."""
        ...


class Reader:
    """The place of one call in a recording.

    Args:
      call: The call.
      answering: Runs its task, and is told of its end.
      arrived_at: When the call came, in seconds.
      machine: The machine of its dialer, in a closed namespace.

    """

    recording: Recording
    """What it reads; set by `Recording.join`."""

    def __init__(
        self,
        call: ServerCall,
        answering: Answering,
        *,
        arrived_at: float,
        machine: PeerId | None = None,
    ) -> None:
        self.call = call
        self.arrived_at = arrived_at
        self.machine = machine
        request = call.request
        self.deadline = arrived_at + min(MAX_SECONDS, request.timeout or MAX_SECONDS)
        """When its time is up, in seconds."""
        self.takes_thoughts = call.minor >= 1
        """The call is told what the model thinks."""
        self.is_streaming = request.stream
        """The call takes the answer in parts; otherwise whole, at the end."""
        self.is_over = False
        """The call was answered, or has left."""
        self.place = 0
        """Parts passed on."""
        self.is_catching_up = False
        """Parts are passed on in the reader's own task; otherwise by the task that makes them."""
        self.scope: trio.CancelScope | None = None
        """Of its own task; `None` while it has none."""
        self._answering = answering
        self._news: trio.Event | None = None
        self._interval = request.stream_interval
        self._next_at = -math.inf
        self._held = 0
        self._nap: trio.CancelScope | None = None

    @property
    def is_followed(self) -> bool:
        """Whether it has a task of its own, which also ends it."""
        return self.scope is not None

    def follow(self) -> None:
        """Have a task of its own look at what there is for it."""
        if self.scope is not None:
            self.wake()
        elif not self.is_over:
            self.scope = trio.CancelScope(deadline=self.deadline)
            self._answering.follow(self)

    def left(self) -> None:
        """Its dialer has cancelled, or lost its session and may come back."""
        call, recording = self.call, self.recording
        call.tokens = max(call.tokens, recording.tokens)
        recording.leave(self, comes_back=not call.unwanted)
        self.end(None)

    def end(self, response: CommandResponse | None) -> None:
        """Note that it gets no more; *response* is how its request ended, `None` if it left."""
        self.is_over = True
        # Not in a circle with its call any more: both are freed now, and not by a collection.
        self.call.left = None
        if self.scope is not None:
            self.scope.cancel()
        self._answering.ended(self, response)

    def start(self, provenance: Provenance, prompt: PromptCount | None) -> None:
        """Say where the answer comes from, and how long the prompt is if that is known."""
        self.call.started(provenance)
        if prompt is not None:
            self.counted(prompt)

    def counted(self, prompt: PromptCount) -> None:
        """Say how long the prompt is, to a call that shows an answer as it comes."""
        # One that gathers text shows none before the end, and hears of the prompt there.
        if self.is_streaming and not self._interval:
            self.call.counted(prompt)

    def hold(self, size: int, now: float) -> bool:
        """Let a part of *size* characters wait for the next ones; false if it is time to send.

        Without a next one, the part is sent after an interval.
        """
        if not self._interval:
            return False
        self._held += size
        if self._held >= PIECE_CHARACTERS or now >= self._next_at:
            return False
        if self._nap is not None:
            self._nap.deadline = self._latest
        return True

    @property
    def is_holding_back(self) -> bool:
        """Whether the held parts may still wait."""
        return self._held > 0 and not self.is_catching_up and trio.current_time() < self._latest

    @property
    def _latest(self) -> float:
        return self._next_at + self._interval

    def wake(self) -> None:
        """Have its task look again, if it has one that waits."""
        if self._news is not None:
            self._news.set()

    async def wait(self) -> None:
        """Wait until it is woken, or until the held parts must be sent."""
        self._news = trio.Event()
        if not self._interval:
            await self._news.wait()
            return
        with trio.CancelScope(deadline=self._latest if self._held else math.inf) as self._nap:
            await self._news.wait()

    async def pass_on(self, parts: list[tuple[str, int]]) -> None:
        """Send the *parts* that are there, a piece at a time, from its own task."""
        self.is_catching_up = True
        while self.place < len(parts):
            end, size = self.place, 0
            while end < len(parts) and (size < PIECE_CHARACTERS or end == self.place):
                text, _ = parts[end]
                if self.takes_thoughts or type(text) is not Thought:
                    size += len(text)
                end += 1
            while not self.takes_thoughts and type(parts[end - 1][0]) is Thought:
                # Their tokens go with the text that follows.
                end -= 1
                if end == self.place:
                    self.is_catching_up = False
                    # Who makes the answer may wait for a reader that seemed to be behind.
                    self.recording.go_on()
                    return
            for text, tokens in runs_of(parts[self.place : end], self.takes_thoughts):
                await self.call.send_text(text, tokens)
            self.passed_on(end)
            self.recording.go_on()
        self.is_catching_up = False

    def passed_on(self, place: int) -> None:
        """Note that the call has all parts before *place*."""
        self.place = place
        if self._interval:
            self._held, self._next_at = 0, trio.current_time() + self._interval
            if self._nap is not None:
                self._nap.deadline = math.inf
