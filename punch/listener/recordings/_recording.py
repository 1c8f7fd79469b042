"""Holds an answer while it is made and after, and passes it on to its readers at their own pace.

The task that makes an answer passes it on as well. A reader has a task of its own only once it
needs one: it is behind, gathers text, or is not the only one, so that its time is its own.

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

Which request is answered with which recording is decided in `_recordings`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from hashlib import blake2b

import trio

from ...capability import PeerId
from ...session import ServerCall
from ...wire import CommandRequest, CommandResponse, PromptCount, Provenance, Thought
from ..members import Asker
from ._parts import MAX_TOKENS, believed_count, runs_of
from ._reader import MAX_SECONDS, Reader

# A dialer whose session broke dials again at once and then every second or two; one that has not
# come back by now has most likely asked another peer.
GRACE_SECONDS = 5.0

# A reader that gets no text is sent a sign this often, in seconds: as often as one that is queued.
SIGN_SECONDS = 5.0

Key = tuple[PeerId, str, bytes]
"""The dialer, the request's id, and a hash of what others had delivered of the answer before."""


def key_of(dialer: PeerId, request: CommandRequest) -> Key:
    """The key under which the recording of *request* is found."""
    begun = b""
    if request.continuation:
        text = request.continuation.encode("utf-8", "surrogatepass")
        begun = blake2b(text, digest_size=8).digest()
    return dialer, request.request_id, begun


class Recording:
    """An answer that is being made, or was; readable from its beginning by any number of readers.

    The task that makes it runs in `scope` and calls `say`, `begin`, `add` and at last `end`.

    Args:
      dialer: Whose request it answers.
      request: The request.
      asker: Who asks for it.
      deadline: When the time of its first reader will be up, in seconds.

    """

    def __init__(
        self,
        dialer: PeerId,
        request: CommandRequest,
        asker: Asker | None = None,
        *,
        deadline: float = math.inf,
    ) -> None:
        self.key = key_of(dialer, request)
        self.asked: CommandRequest | bytes = request
        """What it answers, or the fingerprint of that."""
        self.scope = trio.CancelScope(deadline=deadline)
        """Cancelled when the last reader has left, or when the time of all is up."""
        self.asker = asker or Asker(claimant=dialer)
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
        self._readers: tuple[Reader, ...] = ()
        self._taken: trio.Event | None = None
        self._progress: Callable[[ServerCall], None] | None = None
        self.has_thoughts = False
        """Whether anything that was thought was told as it came."""
        self._silent_tokens = 0
        self._sign_at = -math.inf
        self._latest: float | None = None

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

    def begin(self, provenance: Provenance, now: float) -> None:
        """Tell the readers that the backend has begun, at *now* in seconds."""
        self.provenance = provenance
        self._progress = None
        self._sign_at = now + SIGN_SECONDS
        for reader in self._readers:
            reader.start(provenance, None)

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
        now = trio.current_time()
        if text:
            self._add_text(text, tokens + self._silent_tokens, now)
            self._silent_tokens = 0
        else:
            self._silent_tokens += tokens
        if tokens and now >= self._sign_at:
            self._give_sign(text, now)
        # No turn for all other tasks at each token: a backend waits for its next one itself.
        await trio.lowlevel.checkpoint_if_cancelled()

    def _counted(self, prompt: PromptCount) -> None:
        """Tell the readers that show an answer as it comes how long the prompt was."""
        self._prompt = believed_count(prompt)
        for reader in self._readers:
            reader.counted(self._prompt)

    def _add_text(self, text: str, tokens: int, now: float) -> None:
        if self.first_text_at is None:
            self.first_text_at = now
        self._parts.append((text, tokens))
        is_thought = type(text) is Thought
        self.has_thoughts |= is_thought
        for reader in self._readers:
            if is_thought and not reader.takes_thoughts:
                # It has nothing to send: it looks again only if it seems to be behind, and is
                # waited for. Each look goes through all that was thought since the last text.
                if reader.is_catching_up:
                    reader.wake()
            elif reader.is_streaming:
                self._hand_on(reader, len(text), now)

    def _give_sign(self, text: str, now: float) -> None:
        """Send a sign of life to the readers that do not get *text* now."""
        self._sign_at = now + SIGN_SECONDS
        for reader in self._readers:
            is_told = reader.is_streaming and (type(text) is not Thought or reader.takes_thoughts)
            if not (text and is_told):
                reader.call.progress("working")

    def _hand_on(self, reader: Reader, size: int, now: float) -> None:
        """Send an up-to-date reader its parts from this task, or let them gather.

        Waking a task of the reader's own for it would cost half as much again.
        """
        if reader.is_catching_up:
            reader.wake()
        elif reader.hold(size, now):
            if not reader.is_followed:
                reader.follow()
        else:
            self._send(reader)

    def _send(self, reader: Reader) -> None:
        """Send the parts that are there, from the reader's own task if that has to wait."""
        runs = runs_of(self._parts[reader.place :], reader.takes_thoughts)
        # What was thought and what was said since leave as two messages, from the reader's task.
        if len(runs) > 1 or (runs and not reader.call.send_now(*runs[0])):
            reader.is_catching_up = True
            reader.follow()
        elif runs:
            reader.passed_on(len(self._parts))

    def end(self, response: CommandResponse) -> None:
        """Note how the answer ended, and tell the readers."""
        self.response = response
        for reader in self._readers:
            self._finish(reader)
        self._join_parts()

    def _finish(self, reader: Reader) -> None:
        if reader.is_streaming and not reader.is_followed:
            self._send(reader)
        if reader.is_followed:
            reader.follow()
        elif not reader.is_over:
            self.leave(reader, comes_back=False)
            reader.end(self.response)

    def _join_parts(self) -> None:
        """Hold a finished text as one part and not as a thousand, once no reader is within it."""
        if self._readers or self.response is None or self.response.result is None:
            return
        whole = self.response.result.text
        runs = runs_of(self._parts, True)
        self._parts = [(whole if whole == text else text, tokens) for text, tokens in runs]

    def _is_ahead(self) -> bool:
        count = len(self._parts)
        for reader in self._readers:
            if not (reader.is_streaming and reader.is_catching_up and reader.place < count):
                return False
        return len(self._readers) > 0

    def go_on(self) -> None:
        """Wake the task that makes the answer, if it waits for a reader."""
        if self._taken is not None:
            self._taken.set()

    # ---- for its readers ----

    @property
    def is_alive(self) -> bool:
        """Whether there is, or will be, an answer to read."""
        return self.response is not None or not self.scope.cancel_called

    def is_time_up(self, now: float) -> bool:
        """Whether none of its readers would wait any longer."""
        return all(now >= reader.deadline for reader in self._readers)

    def join(self, reader: Reader) -> None:
        """Add a reader, which gets the answer from the beginning."""
        reader.recording = self
        self._readers = (*self._readers, reader)
        if self._latest is None:
            self._latest = reader.arrived_at + MAX_SECONDS
        deadline = min(self._latest, max([each.deadline for each in self._readers]))
        if deadline != self.scope.deadline:
            self.scope.deadline = deadline
        # A reader that takes the answer whole applies no back-pressure: wake the producer, which
        # may have waited for a slow one.
        self.go_on()
        if self._progress is not None:
            self._progress(reader.call)
        if self.provenance is not None:
            reader.start(self.provenance, self._prompt)
        if self.response is not None:
            self._finish(reader)
            return
        if self._parts and reader.is_streaming:
            reader.is_catching_up = True
            reader.follow()
        if len(self._readers) > 1:
            # The time of one is not that of another.
            for each in self._readers:
                each.follow()

    def leave(self, reader: Reader, *, comes_back: bool) -> None:
        """Remove *reader*; without readers the work is cancelled, at once or after the grace."""
        self._readers = tuple(each for each in self._readers if each is not reader)
        self.go_on()
        if self._readers:
            return
        if self.response is not None:
            self._join_parts()
        elif comes_back:
            self.scope.deadline = min(self.scope.deadline, trio.current_time() + GRACE_SECONDS)
        else:
            self.scope.cancel()

    async def follow(self, reader: Reader) -> CommandResponse:
        """Pass everything on to *reader* as it comes; the response at its end, with the whole text.

        For the task of a reader that needs one, see `Reader.follow`.

        Raises:
          RequestCancelled: if the reader's dialer reads nothing for too long.

        """
        while True:
            if reader.is_streaming and (self.response is not None or not reader.is_holding_back):
                await reader.pass_on(self._parts)
            if self.response is not None:
                return self.response
            await reader.wait()
