"""The two ends of a request in a session: the client call that asks, the server call that answers.

A call counts its own credit and knows its own cancel; which calls there are is kept by
`_call_table`, and bytes are written by `_outbox`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Literal, Protocol

import trio

from ..capability import PeerId
from ..exceptions import PeerError, RequestCancelled
from ..wire import (
    WINDOW,
    Chunk,
    CommandRequest,
    CommandResponse,
    Credit,
    Message,
    Ping,
    Progress,
    PromptCount,
    Provenance,
    Reasoning,
    Started,
    Thought,
)
from ._heartbeat import Heartbeat

FromListener = Progress | Started | Chunk | Reasoning | CommandResponse
"""What a listener says of a request, in the order in which it came."""

# The reader's credit is returned in quarters of the window: often enough that the writer
# never waits for a reader who keeps up, seldom enough to cost nothing.
CREDIT_STEP = WINDOW // 4

# Characters of one chunk. A reader that has read everything may still hold back `CREDIT_STEP` of
# the window, and a chunk must fit what is left, or both sides would wait for ever. ASCII takes a
# byte a character, any other text up to four.
MAX_ASCII_CHUNK_CHARACTERS = WINDOW // 4
MAX_CHUNK_CHARACTERS = (WINDOW - CREDIT_STEP) // 4 - 256


def _longest(text: str) -> int:
    """Characters of *text* that may travel in one chunk."""
    return MAX_ASCII_CHUNK_CHARACTERS if text.isascii() else MAX_CHUNK_CHARACTERS


# A slot is not kept longer for a dialer that stopped reading, even if its heartbeat comes.
READER_SECONDS = 30.0


class CallSession(Protocol):
    """What calls need of their session."""

    peer_id: PeerId
    is_own: bool
    """True if the peer is of the same owner."""
    heartbeat: Heartbeat
    """When the peer was heard."""

    def say(self, message: Message) -> None:
        """Queue a message; does nothing if the session has ended."""
        ...

    def answer(self, response: CommandResponse) -> None:
        """Send the end of an answer."""
        ...

    def abandon(self, call: ClientCall) -> None:
        """Cancel a call of ours."""
        ...

    def fits(self, request_id: str, text: str) -> bool:
        """True if *text* may be sent for a request before its reader catches up."""
        ...

    @property
    def minor(self) -> int:
        """Minor version that both ends speak."""
        ...

    @property
    def is_behind(self) -> bool:
        """True if too much waits to be written."""
        ...

    async def drained(self) -> None:
        """Wait while too much waits to be written."""
        ...


class ClientCall:
    """A request that we sent: its answer as it comes in."""

    def __init__(self, session: CallSession, request: CommandRequest) -> None:
        self.request = request
        self._session = session
        self._arrived: deque[FromListener] = deque()
        # Bytes of the window that each text among them takes, in the same order.
        self._charged: deque[int] = deque()
        self._error: PeerError | None = None
        self._wake: Callable[[], None] = _nobody
        self._taken = 0
        self._over = False
        self._confirmed = trio.Event()
        self.first_text_at: float | None = None
        """When the first text arrived, whenever it is read; trio's clock, in seconds."""
        self.last_text_at: float | None = None
        """When the latest text arrived; trio's clock, in seconds."""
        self.produced: int | None = None
        """Tokens that the listener had made when the call was cancelled, once it has said so."""

    @property
    def has_news(self) -> bool:
        """True if there is something to receive, or an error to raise."""
        return bool(self._arrived) or self._error is not None

    async def ready(self) -> None:
        """Wait until there is something to receive, or an error to raise."""
        while not self._arrived and self._error is None:
            news = trio.Event()
            self.notify(news.set)
            await news.wait()

    def notify(self, wake: Callable[[], None]) -> None:
        """Call *wake* each time that something arrives, or goes wrong; nobody else is told."""
        self._wake = wake

    async def receive(self) -> FromListener:
        """The next part of the answer; a `CommandResponse` is the last one.

        Raises:
          PeerError: if the session ended before the answer did.

        """
        while (part := self.receive_nowait()) is None:
            await self.ready()
        return part

    def receive_nowait(self) -> FromListener | None:
        """The next part of the answer, or `None` if nothing has arrived.

        Raises:
          PeerError: if the session ended before the answer did.

        """
        if not self._arrived:
            if self._error is not None:
                raise self._error
            return None
        part = self._arrived.popleft()
        if type(part) is Chunk or type(part) is Reasoning:
            self._credit(self._charged.popleft())
        return part

    def _credit(self, charged: int) -> None:
        self._taken += charged
        if self._taken >= CREDIT_STEP and not self._over:
            self._session.say(Credit(request_id=self.request.request_id, amount=self._taken))
            self._taken = 0

    def text_nowait(self) -> Chunk | Reasoning | None:
        """The next part of the answer if it is text that has arrived. Raises nothing."""
        if not self._arrived:
            return None
        part = self._arrived[0]
        if type(part) is Chunk or type(part) is Reasoning:
            self._arrived.popleft()
            self._credit(self._charged.popleft())
            return part
        return None

    @property
    def session(self) -> object:
        """The session that the call was asked on; only to be compared."""
        return self._session

    def sign_due(self) -> float:
        """When its peer will be absent if nothing comes from it; in the past if it is already.

        A peer that was quiet for a while is asked for a sign. In seconds of trio's clock.
        """
        session, now = self._session, trio.current_time()
        if session.heartbeat.wants_sign(now):
            session.say(Ping(nonce=session.heartbeat.ping(now)))
        return session.heartbeat.sign_due

    def cancel(self) -> None:
        """Tell the listener to stop, and drop what still arrives. A second cancel does nothing."""
        if not self._over:
            self._over = True
            self._session.abandon(self)

    async def confirmed(self) -> int | None:
        """Wait until a cancel is acknowledged; the tokens made, `None` if the session ended."""
        await self._confirmed.wait()
        return self.produced

    def confirm(self, tokens: int | None) -> None:
        """Note that the listener has stopped, after *tokens*; called by the session."""
        self.produced = tokens
        self._confirmed.set()

    def forget(self) -> None:
        """Drop the prompt, which may be megabytes: a cancelled call is not asked again."""
        self.request = self.request.without_prompt()

    def add(self, part: FromListener, charged: int = 0) -> None:
        """Add the next part of the answer; called by the session.

        Args:
          part: What came.
          charged: Bytes of the window that a text takes.

        """
        if type(part) is Chunk or type(part) is Reasoning:
            self._charged.append(charged)
            self.last_text_at = trio.current_time()
            if self.first_text_at is None:
                self.first_text_at = self.last_text_at
        self._over = type(part) is CommandResponse
        if self._arrived and type(part) is Progress and type(self._arrived[-1]) is Progress:
            # Only the latest means anything, and no window bounds how many may come.
            self._arrived.pop()
        self._arrived.append(part)
        self._wake()

    def fail(self, error: PeerError) -> None:
        """End the call with *error*, since its session has ended; called by the session."""
        self._over = True
        self._error = error
        self._wake()
        self._confirmed.set()


def _nobody() -> None:
    """Nobody waits for what comes."""


class ServerCall:
    """A request that we received, and the way to answer it."""

    def __init__(self, session: CallSession, request: CommandRequest) -> None:
        self.request = request
        self.unwanted = False
        """True if the dialer has cancelled. If only its session ended, the dialer may come back
        for the answer."""
        self.left: Callable[[], None] | None = None
        """Called once if the dialer cancels, or its session ends, before `respond` was called."""
        self.tokens = 0
        """Tokens sent so far."""
        self._session = session
        self._credited: trio.Event | None = None

    @property
    def dialer(self) -> PeerId:
        """The peer that asks."""
        return self._session.peer_id

    @property
    def is_own(self) -> bool:
        """True if the dialer is of the same owner."""
        return self._session.is_own

    @property
    def minor(self) -> int:
        """Minor version that both ends speak."""
        return self._session.minor

    def caught_up(self) -> None:
        """Note that the dialer has read more of the answer; called by the session."""
        if self._credited is not None:
            self._credited.set()

    def leave(self, *, unwanted: bool) -> None:
        """Note that the dialer waits no longer; called by the session.

        Args:
          unwanted: It has cancelled; otherwise its session has ended.

        """
        self.unwanted = unwanted
        if self.left is not None:
            self.left()

    def progress(
        self,
        state: Literal["queued", "loading", "working"],
        *,
        ahead: int | None = None,
        seconds: float | None = None,
    ) -> None:
        """Tell the dialer what its request waits for, or that it is worked on.

        Args:
          state: What the request waits for.
          ahead: Requests before it in the queue.
          seconds: Seconds that this will take, as far as that is known.

        """
        request_id = self.request.request_id
        self._session.say(
            Progress(request_id=request_id, state=state, ahead=ahead, seconds=seconds)
        )

    def counted(self, prompt: PromptCount) -> None:
        """Tell the dialer how many tokens its prompt has; one of minor 0 or 1 hears it last."""
        if self.minor >= 2:
            self._session.say(
                Progress(
                    request_id=self.request.request_id,
                    state="working",
                    prompt_tokens=prompt.tokens,
                    cached_tokens=prompt.cached,
                )
            )

    def started(self, provenance: Provenance) -> None:
        """Tell the dialer that the backend works on it."""
        self._session.say(Started(request_id=self.request.request_id, provenance=provenance))

    def send_now(self, text: str, tokens: int) -> bool:
        """Send the next part of the answer if that need not wait; True if it was sent.

        This saves the usual token a task switch. A `Thought` goes to no dialer of minor 0.
        """
        request_id = self.request.request_id
        session = self._session
        kind: type[Chunk | Reasoning] = Chunk
        if type(text) is Thought:
            if self.minor < 1:
                return True
            kind = Reasoning
        if not text.isascii():
            text = text.encode(errors="replace").decode()
        if len(text) > _longest(text) or session.is_behind or not session.fits(request_id, text):
            return False
        self.tokens += tokens
        session.say(kind(request_id=request_id, text=text, tokens=tokens))
        return True

    async def send_text(self, text: str, tokens: int) -> None:
        """Send the next part of the answer, and wait while the dialer is behind.

        Args:
          text: The text, of any length; a `Thought` goes to no dialer of minor 0.
          tokens: Tokens that it stands for.

        Raises:
          RequestCancelled: if the dialer reads nothing for `READER_SECONDS`.

        """
        kind: type[Chunk | Reasoning] = Chunk
        if type(text) is Thought:
            # Minor 0 knows no such messages.
            if self.minor < 1:
                return
            kind = Reasoning
        if not text.isascii():
            # Half of a surrogate pair, as some tokenizers leave it, is no Unicode.
            text = text.encode(errors="replace").decode()
        request_id = self.request.request_id
        session = self._session
        self.tokens += tokens
        longest = _longest(text)
        pieces = [text[i : i + longest] for i in range(0, len(text), longest)]
        for piece in pieces:
            while not session.fits(request_id, piece):
                self._credited = trio.Event()
                with trio.move_on_after(READER_SECONDS) as patience:
                    await self._credited.wait()
                if patience.cancelled_caught:
                    raise RequestCancelled(f"nobody took the answer for {READER_SECONDS:.0f} s")
            session.say(kind(request_id=request_id, text=piece, tokens=tokens))
            tokens = 0
        await session.drained()

    def respond(self, response: CommandResponse) -> None:
        """Send the end of the answer. Does nothing if the session has ended."""
        self._session.answer(response)
