"""Decides whether an engine of ours is stuck, and has it killed.

A server that is up says nothing of the engine behind it: its HTTP threads answer while its one
computing thread is lost in a request. What counts is whether tokens come, or whether the engine
answers a question that only its computing thread can answer:

* While requests run or one was cancelled, an engine without a token for `QUIET_SECONDS` is
  asked. An answer is as good as a token.
* An engine that gives neither for its patience is stuck, and so is one that is busy with more
  requests than there are for its patience after a cancel.
* The patience is a fixed part and the time of the longest computation that cannot be broken
  off, a batch of the prompts that are being read, by the speed that was measured here.

The vigil is for engines that punch started; a server that is not ours is never touched. Starting
the engine again is left to `punch.processes`.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import trio

# How often the vigil looks. A stuck engine costs its callers much more than that.
CHECK_SECONDS = 2.0

# Seconds without a token after which the engine is asked. Slow machines make a token in less,
# once the prompt is read.
QUIET_SECONDS = 5.0

# Beyond the longest computation: for a machine that swaps, or starts other programs.
PATIENCE_SECONDS = 10.0

# Before anything was measured, a batch may take as long as with the slowest of machines.
UNKNOWN_BATCH_SECONDS = 60.0

# Callers have given up by then, and a server's silence is an error everywhere else, too.
MAX_PATIENCE_SECONDS = 600.0

# llama.cpp reads a prompt in batches of this many tokens (`--batch-size`).
BATCH_TOKENS = 2048

# How many times slower than measured a batch may be: other programs compute beside it.
SLOWER = 4.0


class Watched:
    """A request that an engine works at, while it is watched."""

    def __init__(self, vigil: Vigil, prompt_tokens: int) -> None:
        self._vigil = vigil
        self.prompt_tokens = prompt_tokens
        """Tokens that the engine may still have to read for it."""

    def sign(self) -> None:
        """Report that a token of its answer has come."""
        self.prompt_tokens = 0
        self._vigil.sign()


class Vigil:
    """Watches one engine.

    Args:
      ask: Asks the engine how many requests it works at, and waits for the answer; gives `None`
        if the engine does not say.
      kill: Called with the reason, if the engine is stuck.

    """

    def __init__(
        self, *, ask: Callable[[], Awaitable[int | None]], kill: Callable[[str], None]
    ) -> None:
        self._ask = ask
        self._kill = kill
        self._running: set[Watched] = set()
        self._cancelled_at: float | None = None
        self._left_tokens = 0
        self._asking = trio.CancelScope()
        self._asked_at = -math.inf
        self._last_sign = -math.inf
        self._begun_at = -math.inf
        self._wake = trio.Event()
        self._token_seconds: float | None = None
        self._batch_sample = 0

    @property
    def patience(self) -> float:
        """Seconds that the engine may neither make a token nor answer."""
        if self._token_seconds is None:
            return PATIENCE_SECONDS + UNKNOWN_BATCH_SECONDS
        tokens = self._left_tokens + sum(one.prompt_tokens for one in self._running)
        batch = SLOWER * min(tokens, BATCH_TOKENS) * self._token_seconds
        return min(PATIENCE_SECONDS + batch, MAX_PATIENCE_SECONDS)

    def sign(self) -> None:
        """Report a sign of life: a token, or an answer to a question."""
        self._last_sign = trio.current_time()

    def learn(self, tokens: int | None, seconds: float | None) -> None:
        """Report how long the engine took for the *tokens* of a prompt."""
        # A longer prompt tells more: its tokens are computed together, as in a batch.
        if tokens and seconds and tokens >= self._batch_sample:
            self._batch_sample = min(tokens, BATCH_TOKENS)
            self._token_seconds = seconds / tokens

    @contextmanager
    def request(self, prompt_tokens: int) -> Iterator[Watched]:
        """Watch over one request, and over what becomes of it if it is cancelled.

        Args:
          prompt_tokens: Tokens of its prompt, or at least as many.

        """
        if not self._running:
            self._begun_at = trio.current_time()
        watched = Watched(self, prompt_tokens)
        self._running.add(watched)
        # What it brings may take longer than what there was when the engine was asked.
        self._asking.deadline = max(self._asking.deadline, self._asked_at + self.patience)
        self._wake.set()
        try:
            yield watched
        except BaseException:
            # Also where the answer could not be passed on: nobody wants the rest.
            if self._cancelled_at is None:
                self._cancelled_at = trio.current_time()
            self._left_tokens = min(self._left_tokens + watched.prompt_tokens, BATCH_TOKENS)
            raise
        finally:
            self._running.discard(watched)

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            if not self._running and self._cancelled_at is None:
                self._wake = trio.Event()
                await self._wake.wait()
            await trio.sleep(CHECK_SECONDS)
            if self._cancelled_at is not None:
                await self._look_after_cancel(self._cancelled_at)
            elif self._running and trio.current_time() >= self._quiet_since + QUIET_SECONDS:
                await self._look()

    @property
    def _quiet_since(self) -> float:
        return max(self._last_sign, self._begun_at)

    async def _look(self) -> int | None:
        """Ask the engine; have it killed if there is no sign of life within the patience.

        Returns how many requests it works at; `None` if it does not say.
        """
        busy, last_sign = None, self._last_sign
        self._asked_at = trio.current_time()
        self._asking = trio.CancelScope(deadline=self._asked_at + self.patience)
        with self._asking:
            busy = await self._ask()
        if not self._asking.cancelled_caught:
            self.sign()
        elif self._last_sign <= last_sign:
            after = "" if self._cancelled_at is None else ", after a request was cancelled"
            self._end(f"it made nothing and gave no answer for {self.patience:.0f} s{after}")
        return busy

    async def _look_after_cancel(self, cancelled_at: float) -> None:
        """See that the engine is rid of a cancelled request, within the patience."""
        busy = await self._look()
        if self._cancelled_at is None:
            return  # It was killed.
        if busy is None or busy <= len(self._running):
            self._forget()
        elif trio.current_time() >= cancelled_at + self.patience:
            self._end(f"it was busy for {self.patience:.0f} s after a request was cancelled")

    def _forget(self) -> None:
        self._cancelled_at = None
        self._left_tokens = 0

    def _end(self, why: str) -> None:
        self._forget()
        self.sign()
        self._kill(why)
