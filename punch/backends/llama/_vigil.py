"""Decides whether an engine of ours is stuck, and has it killed.

A wrapper that is up says nothing of the engine behind it: a server's HTTP threads answer while
its one computing thread is lost in a request. What counts is whether tokens come, or whether
the engine itself answers a question that its computing thread must take:

* While requests run or one was cancelled, an engine without a token for `QUIET_SECONDS` is
  asked. An answer is as good as a token.
* An engine that gives neither for its patience is stuck, and so is one that is busy with more
  requests than there are for its patience after a cancel.
* The patience is a fixed part and the time of the longest computation that cannot be broken
  off, a batch of the prompt, by the speed that was measured here.

Only for engines that punch started. A server of somebody else's is never touched.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import trio

# How often it looks. A stuck engine costs its callers much more than that.
CHECK_SECONDS = 2.0

# Without a token for so long, it is asked. Slow machines make one in less, beyond the prompt.
QUIET_SECONDS = 5.0

# Beyond the longest computation: for a machine that swaps, or starts other programs.
PATIENCE_SECONDS = 10.0

# Before anything was measured, a batch may take as long as with the slowest of machines.
UNKNOWN_BATCH_SECONDS = 60.0

# llama.cpp reads a prompt in batches of this many tokens (`--batch-size`).
BATCH_TOKENS = 2048

# A batch may be so much slower than what was measured: others compute beside it.
SLOWER = 4.0


class Vigil:
    """Watches one engine.

    Args:
      ask: Asks the engine how many requests it works at, and waits for the answer; `None` if
        it does not say.
      kill: Called with the reason, if the engine is stuck.

    """

    def __init__(
        self, *, ask: Callable[[], Awaitable[int | None]], kill: Callable[[str], None]
    ) -> None:
        self._ask = ask
        self._kill = kill
        self._running = 0
        self._cancelled_at: float | None = None
        self._last_sign = 0.0
        self._wake = trio.Event()
        self._batch_seconds: float | None = None
        self._batch_sample = 0

    @property
    def patience(self) -> float:
        """Seconds that it may be silent and not answer."""
        batch = self._batch_seconds
        return PATIENCE_SECONDS + (UNKNOWN_BATCH_SECONDS if batch is None else batch)

    def sign(self) -> None:
        """Report a sign of life."""
        self._last_sign = trio.current_time()

    def learn(self, tokens: int | None, seconds: float | None) -> None:
        """Report how long the engine took for the *tokens* of a prompt."""
        # A longer prompt tells more: its tokens are computed together, as in a batch.
        if tokens and seconds and tokens >= self._batch_sample:
            self._batch_sample = min(tokens, BATCH_TOKENS)
            self._batch_seconds = SLOWER * BATCH_TOKENS * seconds / tokens

    @contextmanager
    def request(self) -> Iterator[None]:
        """Watch over one request, and over what becomes of it if it is cancelled."""
        if not self._running:
            self.sign()
        self._running += 1
        self._wake.set()
        try:
            yield
        except BaseException:
            # Also where the answer could not be passed on: nobody wants the rest.
            self._cancelled_at = trio.current_time()
            raise
        finally:
            self._running -= 1

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            if not self._running and self._cancelled_at is None:
                self._wake = trio.Event()
                await self._wake.wait()
            await trio.sleep(CHECK_SECONDS)
            if self._cancelled_at is not None:
                await self._look_after_cancel(self._cancelled_at)
            elif self._running and trio.current_time() >= self._last_sign + QUIET_SECONDS:
                await self._look(self._last_sign)

    async def _look(self, since: float) -> int | None:
        """Ask it; have it killed if there is no sign of life for its patience."""
        busy = None
        with trio.move_on_at(max(since, trio.current_time()) + self.patience) as scope:
            busy = await self._ask()
        if not scope.cancelled_caught:
            self.sign()
        elif self._last_sign <= since:
            after = "" if self._cancelled_at is None else ", after a request was cancelled"
            self._end(f"it made nothing and gave no answer for {self.patience:.0f} s{after}")
        return busy

    async def _look_after_cancel(self, cancelled_at: float) -> None:
        """See that it is rid of a cancelled request, within its patience."""
        busy = await self._look(self._last_sign)
        if self._cancelled_at != cancelled_at:
            return  # It was killed, or another one was cancelled.
        if busy is None or busy <= self._running:
            self._cancelled_at = None
        elif trio.current_time() >= cancelled_at + self.patience:
            self._end(f"it was busy for {self.patience:.0f} s after a request was cancelled")

    def _end(self, why: str) -> None:
        self._cancelled_at = None
        self.sign()
        self._kill(why)
