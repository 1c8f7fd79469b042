"""One request on a session, from either side: what a dialer and a listener hold of it."""

from __future__ import annotations

from collections import deque
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
    Progress,
    Provenance,
    Reasoning,
    Started,
)

# The reader's credit is returned in quarters of the window: often enough that the writer
# never waits for a reader who keeps up, seldom enough to cost nothing.
CREDIT_STEP = WINDOW // 4

# Characters of what a model thinks that are kept for one answer: longer than any that was seen.
MAX_REASONING = 1 << 20

# Characters of one chunk, which thus fits what a reader leaves free that has taken everything and
# not yet returned the last credit: of ASCII one byte each, of any other text up to four.
MAX_ASCII_CHUNK = WINDOW // 4
MAX_CHUNK = (WINDOW - CREDIT_STEP) // 4 - 256


def _longest(text: str) -> int:
    """Characters of *text* that may travel in one chunk."""
    return MAX_ASCII_CHUNK if text.isascii() else MAX_CHUNK


# A slot is not kept for a dialer that stopped reading, however alive its heart is.
READER_SECONDS = 30.0


class CallSession(Protocol):
    """What requests need of their session."""

    peer_id: PeerId

    def say(self, message: Message) -> None:
        """Queue a message; nothing happens if the session has ended."""
        ...

    def answer(self, response: CommandResponse) -> None:
        """Send the end of an answer."""
        ...

    def abandon(self, call: ClientCall) -> None:
        """Cancel a call of ours."""
        ...

    def send_window(self, request_id: str) -> int:
        """Bytes that may be sent for a request now."""
        ...

    def cost(self, text: str) -> int:
        """Bytes of that which *text* takes, at the most."""
        ...

    @property
    def minor(self) -> int:
        """Minor version that both ends speak."""
        ...

    @property
    def is_behind(self) -> bool:
        """Whether too much waits to be written."""
        ...

    async def drained(self) -> None:
        """Wait while too much waits to be written."""
        ...


class ClientCall:
    """A request we sent: its answer as it comes in."""

    def __init__(self, session: CallSession, request: CommandRequest) -> None:
        self.request = request
        self._session = session
        self._arrived: deque[Progress | Started | Chunk | CommandResponse] = deque()
        # What each chunk among them takes of the window, in bytes.
        self._charged: deque[int] = deque()
        self.reasoning = ""
        """What the model has thought so far, at most `MAX_REASONING` characters of it."""
        self._error: PeerError | None = None
        self._wake = trio.Event()
        self._taken = 0
        self._over = False
        self._confirmed = trio.Event()
        self.first_text_at: float | None = None
        """When its first text arrived here, whenever it is read."""
        self.last_text_at: float | None = None
        """When its latest text arrived."""
        self.produced: int | None = None
        """Tokens that the listener had made of it when it was cancelled, once that is known."""

    @property
    def has_news(self) -> bool:
        """True if there is something to receive, or an error to raise."""
        return bool(self._arrived) or self._error is not None

    async def ready(self) -> None:
        """Wait until there is something to receive, or an error to raise."""
        while not self._arrived and self._error is None:
            self._wake = trio.Event()
            await self._wake.wait()

    async def receive(self) -> Progress | Started | Chunk | CommandResponse:
        """The next part of the answer; a `CommandResponse` is the last one.

        Raises:
          PeerError: if the session ended before the answer did.

        """
        while (part := self.receive_nowait()) is None:
            await self.ready()
        return part

    def receive_nowait(self) -> Progress | Started | Chunk | CommandResponse | None:
        """As `receive`, but `None` if nothing has arrived: no time-out needs to be set up."""
        if not self._arrived:
            if self._error is not None:
                raise self._error
            return None
        part = self._arrived.popleft()
        if type(part) is Chunk:
            self._credit(self._charged.popleft())
        return part

    def _credit(self, charged: int) -> None:
        self._taken += charged
        if self._taken >= CREDIT_STEP and not self._over:
            self._session.say(Credit(request_id=self.request.request_id, amount=self._taken))
            self._taken = 0

    def text_nowait(self) -> Chunk | None:
        """As `receive_nowait`, but only if text is what comes next. Raises nothing."""
        if not self._arrived or type(self._arrived[0]) is not Chunk:
            return None
        part = self.receive_nowait()
        assert type(part) is Chunk
        return part

    @property
    def session(self) -> object:
        """What it was asked on; only to be compared."""
        return self._session

    def cancel(self) -> None:
        """Tell the listener to stop. What still arrives is dropped."""
        if not self._over:
            self._over = True
            self._session.abandon(self)

    async def confirmed(self) -> int | None:
        """Wait until a cancel is acknowledged; the tokens made, `None` if the session ended."""
        await self._confirmed.wait()
        return self.produced

    def confirm(self, tokens: int | None) -> None:
        """The listener has stopped, after *tokens*; called by the session."""
        self.produced = tokens
        self._confirmed.set()

    def forget(self) -> None:
        """Let go of the prompt: nobody will ask with it again."""
        self.request = self.request.without_prompt()

    def add(self, part: Progress | Started | Chunk | CommandResponse, charged: int = 0) -> None:
        """Take the next part, a chunk with what it takes of the window; called by the session."""
        if type(part) is Chunk:
            self._charged.append(charged)
            self.last_text_at = trio.current_time()
            if self.first_text_at is None:
                self.first_text_at = self.last_text_at
        self._over = type(part) is CommandResponse
        if self._arrived and type(part) is Progress and type(self._arrived[-1]) is Progress:
            # Only the last one means anything; they are not bounded by the window.
            self._arrived.pop()
        self._arrived.append(part)
        self._wake.set()

    def think(self, part: Reasoning, charged: int) -> None:
        """Take a part of what the model thinks, which nobody waits for; called by the session."""
        self.reasoning += part.text[: MAX_REASONING - len(self.reasoning)]
        self._credit(charged)

    def fail(self, error: PeerError) -> None:
        """The session has ended; called by it."""
        self._over = True
        self._error = error
        self._wake.set()
        self._confirmed.set()


class ServerCall:
    """A request we received: the way to answer it."""

    def __init__(self, session: CallSession, request: CommandRequest) -> None:
        self.request = request
        self.cancel_scope = trio.CancelScope()
        """Cancelled when the dialer cancels or its session ends."""
        self.unwanted = False
        """The dialer has cancelled it. One whose session ended may come back for the answer."""
        self.tokens = 0
        """Tokens sent so far."""
        self._session = session
        self.answered = False
        """Whether `respond` was called."""
        self._credited = trio.Event()

    @property
    def dialer(self) -> PeerId:
        """Who asks."""
        return self._session.peer_id

    @property
    def minor(self) -> int:
        """Minor version that both ends speak."""
        return self._session.minor

    def caught_up(self) -> None:
        """The dialer has taken more of the answer; called by the session."""
        self._credited.set()

    def progress(
        self,
        state: Literal["queued", "loading", "working"],
        *,
        ahead: int | None = None,
        seconds: float | None = None,
    ) -> None:
        """Tell the dialer what its request waits for, or that it is worked on; see `Progress`."""
        request_id = self.request.request_id
        self._session.say(
            Progress(request_id=request_id, state=state, ahead=ahead, seconds=seconds)
        )

    def started(self, provenance: Provenance) -> None:
        """Tell the dialer that the backend works on it."""
        self._session.say(Started(request_id=self.request.request_id, provenance=provenance))

    def send_now(self, text: str, tokens: int) -> bool:
        """As `send_text`, if that need not wait; whether it was sent."""
        request_id = self.request.request_id
        session = self._session
        if not text.isascii():
            text = text.encode(errors="replace").decode()
        if len(text) > _longest(text) or session.is_behind:
            return False
        if session.cost(text) > session.send_window(request_id):
            return False
        self.tokens += tokens
        session.say(Chunk(request_id=request_id, text=text, tokens=tokens))
        return True

    async def send_text(self, text: str, tokens: int) -> None:
        """Send the next part of the answer; waits while the dialer is behind.

        Raises:
          RequestCancelled: if the dialer takes nothing for `READER_SECONDS`: nobody reads it.

        """
        await self._send(Chunk, text, tokens)

    async def send_reasoning(self, text: str, tokens: int) -> None:
        """As `send_text`, for what the model thinks before its answer; minor 0 knows no such thing.

        Raises:
          RequestCancelled: as `send_text`.

        """
        if self.minor >= 1:
            await self._send(Reasoning, text, tokens)

    async def _send(self, kind: type[Chunk | Reasoning], text: str, tokens: int) -> None:
        if not text.isascii():
            # Half of a pair, as some tokenizers leave it, is no Unicode.
            text = text.encode(errors="replace").decode()
        request_id = self.request.request_id
        session = self._session
        self.tokens += tokens
        longest = _longest(text)
        pieces = [text[i : i + longest] for i in range(0, len(text), longest)]
        for piece in pieces:
            size = session.cost(piece)
            while session.send_window(request_id) < size:
                self._credited = trio.Event()
                with trio.move_on_after(READER_SECONDS) as patience:
                    await self._credited.wait()
                if patience.cancelled_caught:
                    raise RequestCancelled(f"nobody took the answer for {READER_SECONDS:.0f} s")
            session.say(kind(request_id=request_id, text=piece, tokens=tokens))
            tokens = 0
        await session.drained()

    def respond(self, response: CommandResponse) -> None:
        """Send the end of the answer. A session that has ended takes it to nobody."""
        self.answered = True
        self._session.answer(response)
