"""Decides whether an engine of ours is stuck, which of its requests may be why, and has it killed.

A server that is up says nothing of the engine behind it: its HTTP threads answer while its one
computing thread is lost in a request, or while it makes nothing at all. What counts is progress:

* While requests run or one was cancelled, an engine without a token for `QUIET_SECONDS` is asked
  what it works at. What it says is progress if it has changed, such as a count of tokens.
* An engine that gives no answer within its patience is stuck, and so is one that answers and has
  made nothing in the time that all its prompts may take.
* After a cancel, an engine that is busy with more requests than there are for its patience is
  stuck, and so is one that computes on although nobody asks it anything.
* The patience is a fixed part and the time of the longest computation that cannot be broken
  off, a batch of the prompts that are being read, by the speed that was measured here.

The vigil is for engines that punch started; a server that is not ours is never touched. Starting
the engine again is left to `punch.processes`.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from contextlib import contextmanager

import attrs
import trio

# How often the vigil looks. A stuck engine costs its callers much more than that.
CHECK_SECONDS = 1.0

# Seconds without a token after which the engine is asked. Slow machines make a token in less,
# once the prompt is read.
QUIET_SECONDS = 3.0

# Beyond the longest computation: for a machine that swaps, or starts other programs.
PATIENCE_SECONDS = 8.0

# Before anything was measured, a batch may take as long as with the slowest of machines.
UNKNOWN_BATCH_SECONDS = 60.0

# Callers have given up by then, and a server's silence is an error everywhere else, too.
MAX_PATIENCE_SECONDS = 600.0

# llama.cpp reads a prompt in batches of this many tokens (`--batch-size`).
BATCH_TOKENS = 2048

# A prompt of fewer tokens, such as what is not cached of a conversation, is no measure of a batch.
_FEW_TOKENS = 128

# How many times slower than measured a batch may be: other programs compute beside it.
SLOWER = 4.0

# An engine that nobody asks anything uses a hundredth of one processor at most, one that computes
# all of one or more; where others compute beside it, less.
IDLE_SHARE = 0.1


@attrs.frozen(kw_only=True)
class Look:
    """What an engine says of itself."""

    busy: int | None = None
    """Requests that it works at; `None` if it does not say."""

    work: Collection[Collection[int]] = ()
    """Of each the tokens that were read and made; only compared. Empty where it does not say."""


class Pace:
    """How long an engine may take for what it cannot break off, by how fast it was.

    Args:
      is_warm: Whether the engine has computed something before it is asked, as servers do. One that
        has not may have to read its whole model from the disk first.

    """

    def __init__(self, *, is_warm: bool) -> None:
        self._is_warm = is_warm
        self._token_seconds: float | None = None
        self._sample = 0

    def learn(self, tokens: int | None, seconds: float | None) -> None:
        """Report how long the engine took for the *tokens* of a prompt."""
        # A longer prompt tells more: its tokens are computed together, as in a batch.
        if tokens and seconds and tokens >= self._sample:
            self._sample = min(tokens, BATCH_TOKENS)
            self._token_seconds = seconds / tokens
            if tokens < _FEW_TOKENS:
                # A handful takes as long as one, and says little of a batch.
                slowest = UNKNOWN_BATCH_SECONDS / BATCH_TOKENS / SLOWER
                self._token_seconds = min(self._token_seconds, slowest)

    def time_for(self, tokens: int) -> float:
        """Seconds after which an engine that has *tokens* of prompts to read is late."""
        if self._token_seconds is None:
            batches = tokens / BATCH_TOKENS
            if not self._is_warm:
                batches = max(1.0, batches)
            return min(PATIENCE_SECONDS + batches * UNKNOWN_BATCH_SECONDS, MAX_PATIENCE_SECONDS)
        return min(PATIENCE_SECONDS + SLOWER * tokens * self._token_seconds, MAX_PATIENCE_SECONDS)


class Watched:
    """A request that an engine works at, while it is watched."""

    def __init__(self, vigil: Vigil, prompt_tokens: int, *, has_grammar: bool) -> None:
        self._vigil = vigil
        self.prompt_tokens = prompt_tokens
        """Tokens that the engine may still have to read for it."""
        self.has_grammar = has_grammar
        """Whether its answer is held to a grammar, which is what most often takes an engine."""
        self.is_alone = True
        """Whether the engine has worked at nothing else since it has this request."""
        self.is_held_up = False
        """Whether its reader does not take what has come: the engine may have made more."""

    def sign(self) -> None:
        """Report that a token of its answer has come."""
        self.prompt_tokens = 0
        self._vigil.sign()

    @contextmanager
    def delivering(self) -> Iterator[None]:
        """While a part of the answer is passed on, however long its reader takes for that."""
        self.is_held_up = True
        try:
            yield
        finally:
            self.is_held_up = False
            self._vigil.sign()


class Vigil:
    """Watches one engine.

    Args:
      ask: Asks the engine how it is, and waits for the answer.
      kill: Called with the reason, if the engine is stuck.
      cpu_seconds: Processor time that the engine has used; `None` if that is not known.

    """

    def __init__(
        self,
        *,
        ask: Callable[[], Awaitable[Look]],
        kill: Callable[[str], None],
        cpu_seconds: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._ask = ask
        self._kill = kill
        self._cpu_seconds = cpu_seconds
        self._running: set[Watched] = set()
        self._cancelled: set[Watched] = set()
        self._cancelled_at: float | None = None
        self._accused: frozenset[Watched] | None = None
        self._left_tokens = 0
        self._last_sign = -math.inf
        self._begun_at = -math.inf
        self._work: Collection[Collection[int]] = ()
        self._quiet_before = 0.0
        # Whether the engine has said that it is rid of what was cancelled, and what it used since.
        self._is_rid = False
        self._used = self._used_at = self._rest_since = 0.0
        # Requests so far, and how many there were when the rest began that is looked at.
        self._begun = 0
        self._rest_begun = -1
        self._wake = trio.Event()
        self._pace = Pace(is_warm=True)

    @property
    def _tokens(self) -> int:
        """Tokens of prompts that the engine may still have to read."""
        return self._left_tokens + sum(one.prompt_tokens for one in self._running)

    @property
    def patience(self) -> float:
        """Seconds that the engine may neither make a token nor answer."""
        return self._pace.time_for(min(self._tokens, BATCH_TOKENS))

    @property
    def long_patience(self) -> float:
        """Seconds that the engine may make nothing, although it answers."""
        return self._pace.time_for(self._tokens)

    def sign(self) -> None:
        """Report a sign of life: a token, or progress that the engine tells of."""
        self._last_sign = trio.current_time()
        self._quiet_before = 0.0

    def learn(self, tokens: int | None, seconds: float | None) -> None:
        """Report how long the engine took for the *tokens* of a prompt."""
        self._pace.learn(tokens, seconds)

    @contextmanager
    def request(self, prompt_tokens: int, *, has_grammar: bool = False) -> Iterator[Watched]:
        """Watch over one request, and over what becomes of it if it is cancelled.

        Args:
          prompt_tokens: Tokens of its prompt, or at least as many.
          has_grammar: Whether its answer is held to a grammar.

        """
        if not self._running:
            self._begun_at = trio.current_time()
        self._accused = None
        self._begun += 1
        watched = Watched(self, prompt_tokens, has_grammar=has_grammar)
        watched.is_alone = not self._running and self._cancelled_at is None
        for other in self._running:
            other.is_alone = False
        self._running.add(watched)
        self._wake.set()
        try:
            yield watched
        except BaseException:
            # Also where the answer could not be passed on: nobody wants the rest.
            if self._cancelled_at is None:
                self._cancelled_at = trio.current_time()
            self._is_rid = False
            self._rest_begun = -1
            self._cancelled.add(watched)
            self._left_tokens = min(self._left_tokens + watched.prompt_tokens, BATCH_TOKENS)
            raise
        finally:
            self._running.discard(watched)
            if not self._running:
                # One caller after the other who gives up in time must not hide a mute engine.
                self._quiet_before += trio.current_time() - self._quiet_since

    def may_have_killed(self, watched: Watched) -> bool:
        """Whether *watched*, which the engine had when it ended, may be why it did.

        Every request that it had may be, unless some of them are likelier: those held to a
        grammar, and those that it went on with after their end.
        """
        if self._accused is None:
            self._accused = _likeliest(self._running | self._cancelled)
        return watched in self._accused

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            if not self._running and self._cancelled_at is None:
                self._wake = trio.Event()
                await self._wake.wait()
            await trio.sleep(CHECK_SECONDS)
            if any(one.is_held_up for one in self._running):
                self.sign()
            elif self._cancelled_at is not None and not self._is_rid:
                await self._look_after_cancel(self._cancelled_at)
            elif not self._running:
                self._look_at_rest()
            elif trio.current_time() >= self._quiet_since + QUIET_SECONDS:
                await self._look()

    @property
    def _quiet_since(self) -> float:
        return max(self._last_sign, self._begun_at)

    async def _look(self) -> Look:
        """Ask the engine, and have it killed if it gives no answer or makes nothing."""
        look, last_sign = Look(), self._last_sign
        # It hears the question before what comes after it, so that does not count.
        with trio.move_on_after(self.patience) as asking:
            look = await self._ask()
        if asking.cancelled_caught:
            if self._last_sign <= last_sign:
                after = "" if self._cancelled_at is None else ", after a request was cancelled"
                self._end(f"it made nothing and gave no answer for {self.patience:.0f} s{after}")
            return look
        before, self._work = self._work, look.work
        quiet = self._quiet_before + trio.current_time() - self._quiet_since
        if any(look.work) and look.work != before:
            self.sign()
        elif self._running and quiet >= self.long_patience:
            self._end(f"it answered, and made nothing for {self.long_patience:.0f} s")
        return look

    async def _look_after_cancel(self, cancelled_at: float) -> None:
        """See that the engine is rid of a cancelled request, within the patience."""
        look = await self._look()
        if self._cancelled_at is None:
            return  # It was killed.
        if look.busy is None or look.busy <= len(self._running):
            # It may still be at work for it, and say nothing: in one of its HTTP threads.
            self._is_rid = True
            self._left_tokens = 0
            self._cancelled.clear()
        elif trio.current_time() >= cancelled_at + self.patience:
            seconds = f"{self.patience:.0f} s"
            self._end(f"it was busy for {seconds} after a request was cancelled", self._cancelled)

    def _look_at_rest(self) -> None:
        """See that the engine uses next to no processor time while nobody asks it anything."""
        used, now = self._cpu_seconds(), trio.current_time()
        if used is None:
            self._forget()
            return
        if self._rest_begun != self._begun:
            self._rest_begun, self._rest_since = self._begun, now
        elif used - self._used <= IDLE_SHARE * (now - self._used_at):
            self._forget()
        elif now >= self._rest_since + self.patience:
            seconds = f"{self.patience:.0f} s"
            self._end(f"it computed on for {seconds} after a request was cancelled", ())
        self._used, self._used_at = used, now

    def _forget(self) -> None:
        self._cancelled_at = None
        self._is_rid = False
        self._cancelled.clear()
        self._left_tokens = 0

    def _end(self, why: str, accused: Iterable[Watched] | None = None) -> None:
        if accused is None:
            accused = _likeliest(self._running | self._cancelled)
        self._accused = frozenset(accused)
        self._forget()
        self._work = ()
        self.sign()
        self._kill(why)


def _likeliest(requests: Iterable[Watched]) -> frozenset[Watched]:
    """Those of *requests* that may have taken their engine."""
    all_of_them = frozenset(requests)
    return frozenset(one for one in all_of_them if one.has_grammar) or all_of_them
