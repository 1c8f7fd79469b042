"""Reads what one client sends: its requests one after another, and that it leaves.

A task of its own reads all the time, as far as there is room: so a client that leaves is missed at
once, and no request sets up a watch for that. While a request is under way, what is read belongs
to its body or waits until its answer is over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container

import trio

from ._http1 import Request, RequestParser
from ._limits import Limits
from ._pipe import ClientPipe

# Bytes that a client may send ahead while its request is under way; after these, nothing is read
# until the request ends, and TCP holds the client back.
MAX_AHEAD_BYTES = 64 << 10


class Incoming:
    """One client's requests.

    Args:
      pipe: The client's connection.
      limits: What clients may do.
      websockets: Paths at which a request may ask for a WebSocket.
      ahead: Bytes that were read of the connection before.
      keeps_raw: The bytes of a request are kept until `raw_of` asks for them.

    """

    def __init__(
        self,
        pipe: ClientPipe,
        limits: Limits,
        websockets: Container[str],
        *,
        ahead: bytes,
        keeps_raw: bool,
    ) -> None:
        self.due = trio.current_time() + limits.idle
        """When the server ends the connection for want of a request, in seconds of trio's clock."""
        self.request: Request | None = None
        """The request under way."""
        self.is_lost = False
        """The connection cannot be used any more: the client went away, or took too long."""
        self.has_ended = False
        """Nothing more comes; a client that has said all may still wait for its answers."""
        self.parser = RequestParser(limits.head, websockets)
        """Has what was read of this request and the next ones."""
        self.ahead = bytearray(ahead)
        """What came behind the request under way, and is not parsed before its end."""
        self._pipe = pipe
        self._limits = limits
        self._keeps_raw = keeps_raw
        self._raw: bytearray | None = None
        self._is_ours = False
        self.answering = trio.CancelScope()
        """The work on answers, cancelled at the client's end if the one under way wants that."""
        self._ends_answer = False
        self._news = trio.Event()
        self._room = trio.Event()
        self._waits_for_room = False
        self._reading = trio.CancelScope()
        self._has_stopped = trio.Event()

    async def next_request(self, is_ending: Callable[[], bool]) -> Request | None:
        """The next request once its head is complete; `None` if there will be none."""
        parser = self.parser
        if self.request is not None:
            self.request, self.due = None, trio.current_time() + self._limits.idle
            self._ends_answer = False
        if self._keeps_raw:
            self._is_ours = False
            self._raw = None if parser.has_more else bytearray(self.ahead)
        if self.ahead:
            ahead, self.ahead = self.ahead, bytearray()
            parser.feed(ahead)
            self._room.set()
        in_head = False
        while (request := self._begun()) is None:
            if parser.error is not None or is_ending() or self.is_lost or self.has_ended:
                return None
            if parser.in_head and not in_head:
                # A head that was begun must come within seconds, however long the idle time is.
                in_head = True
                self.due = min(self.due, trio.current_time() + self._limits.slowest)
            await self.until_news()
        return None if self.is_lost else request

    def _begun(self) -> Request | None:
        """The request under way: the next one that is there begins now."""
        if self.request is None and self.parser.requests:
            self.request, self.due = self.parser.requests.popleft(), math.inf
        return self.request

    async def raw(self) -> bytes | None:
        """The bytes of this request and what came behind it; see `HandOver`.

        Until `go_on` nothing more is read: what another process has to read is left to it.
        """
        if not self._waits_for_room:
            # The request came while another one was answered.
            await self.stop()
        return None if self._raw is None else bytes(self._raw)

    def go_on(self, nursery: trio.Nursery) -> None:
        """Answer the request whose bytes were asked for here."""
        self._raw, self._is_ours = None, True
        self._room.set()
        if not self._waits_for_room:
            self.start(nursery)

    def start(self, nursery: trio.Nursery) -> None:
        """Read all the time, in a task of *nursery*."""
        self._reading, self._has_stopped = trio.CancelScope(), trio.Event()
        nursery.start_soon(self._read_on)

    async def stop(self) -> None:
        """Read no more but in `read`; what came until now is with the parser or in `ahead`."""
        self._reading.cancel()
        with trio.CancelScope(shield=True):
            await self._has_stopped.wait()

    async def _read_on(self) -> None:
        try:
            with self._reading:
                while not (self.is_lost or self.has_ended):
                    if self._has_room():
                        self._sort(await self.read())
                    else:
                        self._room, self._waits_for_room = trio.Event(), True
                        await self._room.wait()
                        self._waits_for_room = False
        finally:
            self._waits_for_room = False
            self._has_stopped.set()

    def _has_room(self) -> bool:
        request = self.request
        if request is None:
            return self.parser.error is None
        if self._keeps_raw and not self._is_ours:
            return False
        if request.is_complete:
            return len(self.ahead) < MAX_AHEAD_BYTES
        return self.parser.error is None and not request.has_news

    def _sort(self, data: bytes | bytearray) -> None:
        """Add *data* to what it belongs to; no data is the client's end."""
        if not data:
            # Of half a request it has not said all that it had to say.
            in_body = self.request is not None and not self.request.is_complete
            if self.is_lost or self._ends_answer or in_body:
                self.lose()
            else:
                self._tell()
            return
        if self._raw is not None:
            self._raw += data
        if self.request is not None and self.request.is_complete:
            self.ahead += data
        else:
            self.parser.feed(data)
            # Not only when the other task has its turn: what is read next is of this request.
            self._begun()
        self._news.set()

    async def read(self) -> bytes | bytearray:
        """The next bytes; empty at the end."""
        if self.is_lost:
            return b""
        data = await self._pipe.read()
        self.has_ended |= not data
        self.is_lost |= self._pipe.is_broken
        # Bytes that arrived while the client was dropped are ignored: it will send them again.
        return b"" if self.is_lost else data

    async def until_news(self) -> None:
        """Wait until the client has sent more than is known of now, or is gone."""
        self._room.set()
        if self._news.is_set():
            self._news = trio.Event()
        await self._news.wait()

    def lose(self) -> None:
        """Tell all that wait for the client that it is gone."""
        self.is_lost = True
        self._tell()
        if self._ends_answer:
            self.answering.cancel()

    def _tell(self) -> None:
        self._room.set()
        self._news.set()

    def end_answer(self) -> None:
        """Cancel the work on the answer under way at the client's end, which may be there."""
        self._ends_answer = True
        if self.is_lost or self.has_ended:
            self.lose()

    def keep_answer(self) -> None:
        """Cancel nothing at the client's end any more: the end of the answer is on its way."""
        self._ends_answer = False

    def has_no_more_of(self, request: Request) -> bool:
        """Whether the client went away, or the rest of *request* cannot be read."""
        has_ended = self.is_lost or self.has_ended
        return has_ended or (self.parser.error is not None and not request.is_complete)
