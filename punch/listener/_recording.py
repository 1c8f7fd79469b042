"""Holds an answer while it is made and after, and passes it on to its readers at their own pace.

* A reader that leaves on purpose leaves for good. A reader whose session broke may come back: the
  answer is made on for `GRACE_SECONDS`.
* No answer is made for longer than its readers gave it, nor for longer than `MAX_SECONDS`,
  however often they come back.
* A reader that shows no text before the end may have it in fewer messages, one every
  `stream_interval`: a message costs as much as twenty tokens in one. None is held for longer than
  two of these intervals, and the rest comes with the end.
* What the model thinks is passed on as it comes, in its place among the text. A reader of minor 0
  knows of no such thing, and gets the tokens of it with the next text.
* A reader that gets no text, because it wants the answer whole or because the model thinks and it
  is not told of that, is sent a sign now and then that tokens are made.

Which request is answered with which recording is decided in `punch.listener._recordings`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from hashlib import blake2b

import trio

from ..capability import PeerId
from ..session import ServerCall
from ..wire import WINDOW, CommandRequest, CommandResponse, PromptCount, Provenance, Thought
from .members import Asker

# A dialer whose session broke dials again at once and then every second or two; one that has not
# come back by now has most likely asked another peer.
GRACE_SECONDS = 5.0

# An answer takes no longer, and so holds its slot no longer, whatever its readers allow.
MAX_SECONDS = 3600.0

# A reader that gets no text is sent a sign this often, in seconds: as often as one that is queued.
SIGN_SECONDS = 5.0

# More tokens than any answer has, and the most that one `Chunk` may stand for: a backend that
# claims more is not believed.
MAX_TOKENS = 1 << 20

# Text that a reader gets at a time: it always fits an empty window, at four bytes a character.
PIECE_CHARACTERS = WINDOW // 4

Key = tuple[PeerId, str, bytes]
"""The dialer, the request's id, and a hash of what others had delivered of the answer before."""


def key_of(dialer: PeerId, request: CommandRequest) -> Key:
    """The key under which the recording of *request* is found."""
    begun = (request.continuation or "").encode("utf-8", "surrogatepass")
    return dialer, request.request_id, blake2b(begun, digest_size=8).digest() if begun else b""


class Recording:
    """An answer that is being made, or was; readable from its beginning by any number of readers.

    The task that makes it runs in `scope` and calls `say`, `begin`, `add` and at last `end`.
    Readers wait in `follow`.
    """

    def __init__(self, dialer: PeerId, request: CommandRequest, mark: bytes) -> None:
        self.key = key_of(dialer, request)
        self.fingerprint = mark
        self.scope = trio.CancelScope()
        """Cancelled when the last reader has left, or when the time is up."""
        self.asker = Asker(claimant=dialer)
        """Who asks for it."""
        self.provenance: Provenance | None = None
        """Where the answer comes from, once the backend works on it."""
        self.response: CommandResponse | None = None
        """How it ended, with the whole text; `None` while it is made."""
        self.tokens = 0
        """Tokens made so far."""
        self._prompt: PromptCount | None = None
        self.first_text_at: float | None = None
        """When the first text came, in seconds."""
        self._parts: list[tuple[str, int]] = []
        self._readers: list[Reader] = []
        self._changed = trio.Event()
        self._turned = trio.Event()
        self._taken = trio.Event()
        self._progress: Callable[[ServerCall], None] | None = None
        self.has_thoughts = False
        """Whether anything that was thought was told as it came."""
        self._silent_tokens = 0
        self._sign_at = -math.inf
        self._latest: float | None = None
        self._until = -math.inf

    @property
    def text(self) -> str:
        """The text so far, without what was thought."""
        return "".join(part for part, _ in self._parts if type(part) is not Thought)

    # ---- for the task that makes the answer ----

    def say(self, progress: Callable[[ServerCall], None]) -> None:
        """Send every reader, and those to come, what the request waits for."""
        self._progress = progress
        for reader in self._readers:
            progress(reader.call)

    def begin(self, provenance: Provenance) -> None:
        """Note that the backend has begun, and wake the readers."""
        self.provenance = provenance
        self._progress = None
        self._sign_at = trio.current_time() + SIGN_SECONDS
        self._turn()

    async def add(self, text: str, tokens: int) -> None:
        """The next part; waits until the most advanced reader has passed on the ones before.

        A reader has passed a part on when it is within the window of its session, so the backend
        is never more than that and one message ahead. Tokens without a text are passed on with the
        next text.
        """
        if type(text) is PromptCount:
            self._counted(text)
            return
        tokens = max(0, min(tokens, MAX_TOKENS - self.tokens))
        while self._is_ahead():
            self._taken = trio.Event()
            await self._taken.wait()
        self.tokens += tokens
        if text:
            self._add_text(text, tokens + self._silent_tokens)
            self._silent_tokens = 0
        else:
            self._silent_tokens += tokens
        if tokens and trio.current_time() >= self._sign_at:
            self._give_sign(text)
        await trio.lowlevel.checkpoint()

    def _counted(self, prompt: PromptCount) -> None:
        """Tell the readers that show an answer as it comes how long the prompt was."""
        self._prompt = _believed(prompt)
        for reader in self._readers:
            reader.counted(self._prompt)

    def _add_text(self, text: str, tokens: int) -> None:
        if self.first_text_at is None:
            self.first_text_at = trio.current_time()
        self._parts.append((text, tokens))
        is_thought = type(text) is Thought
        self.has_thoughts |= is_thought
        asleep = False
        for reader in self._readers:
            if is_thought and not reader.takes_thoughts:
                # It has nothing to send, and must not be waited for.
                asleep |= reader.is_catching_up
            else:
                asleep |= not self._hand_on(reader, len(text))
        if asleep:
            self._wake()

    def _give_sign(self, text: str) -> None:
        """Send a sign of life to the readers that do not get *text* now."""
        self._sign_at = trio.current_time() + SIGN_SECONDS
        for reader in self._readers:
            is_told = reader.is_streaming and (type(text) is not Thought or reader.takes_thoughts)
            if reader.has_started and not (text and is_told):
                reader.call.progress("working")

    def _hand_on(self, reader: Reader, size: int) -> bool:
        """Send an up-to-date reader its parts from this task, or let them gather; false: wake it.

        Waking the reader's own task for it would cost half as much again.
        """
        if not reader.is_streaming:
            return True
        if reader.is_catching_up:
            return False
        if reader.hold(size):
            return True
        runs = _runs(self._parts[reader.place :], reader.takes_thoughts)
        # What was thought and what was said since leave as two messages, from the reader's task.
        if len(runs) != 1 or not reader.call.send_now(*runs[0]):
            reader.is_catching_up = True
            return False
        reader.passed_on(len(self._parts))
        return True

    def end(self, response: CommandResponse) -> None:
        """Note how the answer ended, and wake the readers."""
        self.response = response
        self._join_parts()
        self._turn()

    def _join_parts(self) -> None:
        """Hold a finished text as one part and not as a thousand, once no reader is within it."""
        if self._readers or self.response is None or self.response.result is None:
            return
        whole = self.response.result.text
        runs = _runs(self._parts, True)
        self._parts = [(whole if whole == text else text, tokens) for text, tokens in runs]

    def _is_ahead(self) -> bool:
        count = len(self._parts)
        readers = self._readers
        return bool(readers) and all(
            reader.is_streaming and reader.is_catching_up and reader.place < count
            for reader in readers
        )

    def _wake(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    def _turn(self) -> None:
        """Wake all readers, those included that are not woken for each part."""
        turned, self._turned = self._turned, trio.Event()
        turned.set()
        self._wake()

    # ---- for its readers ----

    @property
    def is_alive(self) -> bool:
        """Whether there is, or will be, an answer to read."""
        return self.response is not None or not self.scope.cancel_called

    @property
    def readers(self) -> int:
        """How many read it now."""
        return len(self._readers)

    def join(self, call: ServerCall) -> Reader:
        """A new reader from the beginning, for *call*; it must `leave`."""
        reader = Reader(call)
        self._readers.append(reader)
        self.scope.deadline = self._allow(call.request.timeout)
        # A reader that takes the answer whole applies no back-pressure: wake the producer, which
        # may have waited for a slow one.
        self._taken.set()
        if self._progress is not None:
            self._progress(call)
        return reader

    def _allow(self, timeout: float | None) -> float:
        """Until when the answer may be made, now that a reader waits *timeout* seconds."""
        now = trio.current_time()
        if self._latest is None:
            self._latest = now + MAX_SECONDS
        patience = MAX_SECONDS if timeout is None else timeout + GRACE_SECONDS
        self._until = max(self._until, min(self._latest, now + patience))
        return self._until

    def leave(self, reader: Reader, *, comes_back: bool) -> None:
        """Remove *reader*; without readers the work is cancelled, at once or after the grace."""
        self._readers.remove(reader)
        self._taken.set()
        if self._readers:
            return
        if self.response is not None:
            self._join_parts()
        elif comes_back:
            self.scope.deadline = min(self._until, trio.current_time() + GRACE_SECONDS)
        else:
            self.scope.cancel()

    async def follow(self, reader: Reader) -> CommandResponse:
        """Pass everything on to *reader* as it comes; the response at its end, with the whole text.

        Raises:
          RequestCancelled: if the reader's dialer reads nothing for too long.

        """
        while True:
            if self.provenance is not None and not reader.has_started:
                reader.start(self.provenance, self._prompt)
            is_over = self.response is not None
            if (
                reader.has_started
                and reader.is_streaming
                and (is_over or not reader.is_holding_back)
            ):
                await self._pass_on(reader)
            if self.response is not None:
                return self.response
            await reader.wait(self._changed if reader.is_streaming else self._turned)

    async def _pass_on(self, reader: Reader) -> None:
        """Send the parts that are there, a piece at a time."""
        parts = self._parts
        reader.is_catching_up = True
        while reader.place < len(parts):
            end, size = reader.place, 0
            while end < len(parts) and (size < PIECE_CHARACTERS or end == reader.place):
                size += len(parts[end][0])
                end += 1
            while not reader.takes_thoughts and type(parts[end - 1][0]) is Thought:
                # Their tokens go with the text that follows.
                end -= 1
                if end == reader.place:
                    reader.is_catching_up = False
                    # Who makes the answer may wait for a reader that seemed to be behind.
                    self._taken.set()
                    return
            for text, tokens in _runs(parts[reader.place : end], reader.takes_thoughts):
                await reader.call.send_text(text, tokens)
            reader.passed_on(end)
            self._taken.set()
        reader.is_catching_up = False


def _runs(parts: list[tuple[str, int]], takes_thoughts: bool) -> list[tuple[str, int]]:
    """Texts and tokens of *parts*: what was thought in a row, and what was said in a row.

    For a reader that is told no thoughts, their tokens are with the text that follows.
    """
    if len(parts) == 1 and takes_thoughts:
        return parts
    runs: list[tuple[str, int]] = []
    texts: list[str] = []
    total, was_thought = 0, False
    for text, tokens in parts:
        is_thought = type(text) is Thought
        if is_thought and not takes_thoughts:
            total += tokens
            continue
        if texts and is_thought is not was_thought:
            runs.append((_joined(texts), total))
            texts, total = [], 0
        texts.append(text)
        total += tokens
        was_thought = is_thought
    return [*runs, (_joined(texts), total)] if texts else runs


def _believed(prompt: PromptCount) -> PromptCount:
    """*prompt* with numbers that can travel."""
    tokens, cached = prompt.tokens, prompt.cached
    return PromptCount(_bounded(tokens), None if cached is None else _bounded(cached))


def _bounded(tokens: int) -> int:
    return max(0, min(tokens, MAX_TOKENS))


def _joined(texts: list[str]) -> str:
    """What was thought, or was said, in a row."""
    text = "".join(texts)
    return Thought(text) if type(texts[0]) is Thought else text


class Reader:
    """The place of one call in a recording."""

    def __init__(self, call: ServerCall) -> None:
        self.call = call
        self.takes_thoughts = call.minor >= 1
        """The call is told what the model thinks."""
        self.is_streaming = call.request.stream
        """The call takes the answer in parts; otherwise whole, at the end."""
        self.has_started = False
        """The call has been sent the provenance."""
        self.place = 0
        """Parts passed on."""
        self.is_catching_up = True
        """Parts are passed on in the call's own task; otherwise by the task that makes them."""
        self._interval = call.request.stream_interval
        self._next_at = -math.inf
        self._held = 0
        self._nap = trio.CancelScope()

    def start(self, provenance: Provenance, prompt: PromptCount | None) -> None:
        """Say where the answer comes from, and how long the prompt is if that is known."""
        self.has_started = True
        self.call.started(provenance)
        if prompt is not None:
            self.counted(prompt)

    def counted(self, prompt: PromptCount) -> None:
        """Say how long the prompt is, to a call that shows an answer as it comes."""
        # One that gathers text shows none before the end, and hears of the prompt there.
        if self.has_started and self.is_streaming and not self._interval:
            self.call.counted(prompt)

    def hold(self, size: int) -> bool:
        """Let a part of *size* characters wait for the next ones; false if it is time to send.

        Without a next one, the part is sent after an interval.
        """
        if not self._interval:
            return False
        self._held += size
        if self._held >= PIECE_CHARACTERS or trio.current_time() >= self._next_at:
            return False
        self._nap.deadline = self._latest
        return True

    @property
    def is_holding_back(self) -> bool:
        """Whether the held parts may still wait."""
        return self._held > 0 and not self.is_catching_up and trio.current_time() < self._latest

    @property
    def _latest(self) -> float:
        return self._next_at + self._interval

    async def wait(self, news: trio.Event) -> None:
        """Wait for news, or until the held parts must be sent."""
        if not self._interval:
            await news.wait()
            return
        with trio.CancelScope(deadline=self._latest if self._held else math.inf) as self._nap:
            await news.wait()

    def passed_on(self, place: int) -> None:
        """Note that the call has all parts before *place*."""
        self.place = place
        if self._interval:
            self._held, self._next_at = 0, trio.current_time() + self._interval
            self._nap.deadline = math.inf
