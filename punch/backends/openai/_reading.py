"""Takes the bytes of one response to the answer in it, with the time that each token came.

Decides how long the end of a response is waited for, once that of the answer is there. What the
bytes mean is `_sse`'s and `_answer`'s to say, and what httpx says of them `_client`'s.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterable

import trio

from .._base import Emit, Generation
from ._answer import AnswerReader
from ._sse import Event, EventReader

# Once a server has said that nothing more comes, the end of its response is as good as there; to
# have read it keeps the connection for the next request.
_DONE_SECONDS = 0.5

# The tokens are counted right after the end of the text.
_USAGE_SECONDS = 30.0


class Reading:
    """Reads one answer from the bytes of its response, and emits it.

    Args:
      answer: Puts it together.
      emit: Gets the text as it comes.

    """

    def __init__(self, answer: AnswerReader, emit: Emit) -> None:
        self._answer = answer
        self._emit = emit
        self._events = EventReader()
        self._started = trio.current_time()
        self._first: float | None = None
        self._last: float | None = None

    async def read(self, parts: AsyncIterable[bytes]) -> None:
        """Read to the end of the response, or for a while past that of the answer."""
        answer = self._answer
        failed: Exception | None = None
        with trio.CancelScope() as patience:
            async for data in parts:
                patience.deadline = math.inf
                try:
                    if failed is None:
                        await self._take(self._events.feed(data))
                except Exception as error:  # noqa: BLE001 - raised below
                    # An iteration over httpcore's generators can be left by a cancel only: they
                    # close none of those within them.
                    failed = error
                    patience.cancel()
                if answer.is_whole:
                    seconds = _DONE_SECONDS if answer.done else _USAGE_SECONDS
                    # With a stop found here, its server goes on until the connection is closed.
                    patience.deadline = trio.current_time() + seconds * (not answer.stops.stopped)
        if failed is not None:
            raise failed

    async def read_rest(self) -> None:
        """Read what the end of the response makes certain."""
        await self._take(self._events.finish())

    async def finish(self) -> Generation:
        """The whole answer, given that the response has ended."""
        await self.read_rest()
        if rest := self._answer.rest():
            await self._emit(rest, 0)
        return self._answer.finish(
            first_token=self._first, last_token=self._last, words=self._events.words
        )

    async def _take(self, events: list[Event]) -> None:
        for event in events:
            text, tokens = self._answer.feed(*event)
            if text or tokens:
                self._last = trio.current_time() - self._started
                if self._first is None:
                    self._first = self._last
                    if (count := self._answer.prompt_count()) is not None:
                        await self._emit(count, 0)
                if (thought := self._answer.thoughts.fresh()) is not None:
                    await self._emit(thought, tokens)
                    tokens = 0
                if text or tokens:
                    await self._emit(text, tokens)
