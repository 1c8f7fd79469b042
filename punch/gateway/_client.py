"""The client of one HTTP request: is watched while its answer is made, and gets its bytes in order.

Decides when headers go out, when a silent stream needs a comment, and that a client that leaves
ends the work done for it. What the bytes say is decided by the shapes and by `RequestAccount`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from ._errors import Refusal, dialect_of
from ._headers import what_is_waited_for
from ._live import RequestAccount
from ._shape import StreamShape
from .server import RequestCycle, Work

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

# Proxies and clients give a silent stream up after 30 to 60 s; a listener says every five that a
# request still waits.
COMMENT_SECONDS = 5.0

# What a server may take over the last bytes of an answer once it has said that the client left.
LAST_BYTE_SECONDS = 1.0


class Client:
    """The client of one HTTP request.

    Args:
      receive: Receives the client's messages, as ASGI has it.
      send: Sends messages to the client, as ASGI has it.
      account: What is known of the answers, for headers and comments.
      stream: How to spell a stream; `None` if the client wants the answer whole.
      watch: What our own server knows of the client; `None` behind another one.

    """

    def __init__(
        self,
        *,
        receive: Receive,
        send: Send,
        account: RequestAccount,
        stream: StreamShape | None,
        watch: RequestCycle | None,
    ) -> None:
        self._receive = receive
        self._send = send
        self._account = account
        self._stream = stream
        self._watch = watch
        self._has_left = False
        self.is_open = False
        """The headers were sent."""
        self.quiet_since = trio.current_time()
        """When there was text or a comment last, in seconds of trio's clock."""
        self._is_done = False
        self._is_nameless = False
        # Side-by-side answers and comments write in tasks of their own; their bytes must not mix
        # where a server may not be called by two at once.
        self._lock = trio.Lock()

    @property
    def is_gone(self) -> bool:
        """Whether the client has left, or has not taken the last byte in time."""
        return self._has_left or (self._watch is not None and self._watch.is_lost)

    async def while_there(self, work: Work) -> None:
        """Do *work* until it is done or the client leaves, and break the silence of a stream."""
        if self._watch is not None:
            # Our own server cancels this task: that costs nothing as long as the client stays.
            self._watch.end_with_client(self._break_silence)
            await work()
            return
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                while (await self._receive())["type"] != "http.disconnect":
                    pass
                if self._is_done:
                    # Servers say so as well when the last byte has left, and are still busy with
                    # it. But not for long: a byte that never leaves would hold all of this.
                    await trio.sleep(LAST_BYTE_SECONDS)
                self._has_left = True
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            # In a task of its own: to ask for text with a time limit would have the router begin
            # anew with whatever it waits for.
            nursery.start_soon(self._break_silence)
            await work()
            nursery.cancel_scope.cancel()

    async def _break_silence(self) -> None:
        """Comment each time that there was nothing for a while."""
        while True:
            await trio.sleep_until(self.quiet_since + COMMENT_SECONDS)
            if trio.current_time() >= self.quiet_since + COMMENT_SECONDS:
                await self._comment()

    async def _comment(self) -> None:
        """Publish the state of a request without text for a while, and say it in a comment."""
        self.quiet_since = trio.current_time()
        account = self._account
        account.refresh()
        account.publish()
        if self._stream is not None:
            waited = trio.current_time() - account.record.began_at
            words = what_is_waited_for(account.record.progress, waited)
            if comment := self._stream.comment(words):
                # A format without comments leaves the status open: it may still be an error.
                await self.write(lambda: comment)

    async def send_whole(self, data: bytes) -> None:
        """Send *data*, a body of JSON, as the whole answer: nothing was sent before."""
        await self._open(200, "application/json", len(data))
        self._is_done = True
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    async def send_failure(self, refusal: Refusal) -> None:
        """Say that there is no answer, or no more of it."""
        record = self._account.record
        record.error_code = refusal.cause
        if self.is_open:
            data = b"" if self._stream is None else self._stream.failed(refusal)
        else:
            data = refusal.body(dialect_of(record.endpoint), record.request_id)
            headers = refusal.all_headers()
            await self._open(refusal.status, "application/json", len(data), headers)
        await self.write(lambda: data, last=True)

    async def write(self, spell: Callable[[], bytes], *, last: bool = False) -> None:
        """Send what *spell* gives; returns when the client, or its buffers, have taken it."""
        if self._watch is not None:
            # Our own server sends all in the order in which it is called, whoever calls.
            await self._write(spell, last=last)
            return
        async with self._lock:
            await self._write(spell, last=last)

    async def _write(self, spell: Callable[[], bytes], *, last: bool) -> None:
        if self._is_done:
            return
        opening = b""
        if not self.is_open:
            # An answer that is whole has sent its head with its length before.
            assert self._stream is not None
            await self._open(200, self._stream.stream_type)
            opening = self._stream.began(self._account.model(), self._account.prompt())
            self._is_nameless = self._account.record.provenance is None
        data = opening + spell()
        self._is_done = last
        if data or last:
            await self._send({"type": "http.response.body", "body": data, "more_body": not last})

    def name_model(self) -> None:
        """Name the model from now on, if a comment opened the stream before it was known."""
        if not self._is_nameless:
            return
        self._account.refresh()
        if self._account.record.provenance is not None:
            self._is_nameless = False
            if self._stream is not None:
                self._stream.named(self._account.model())

    async def _open(
        self,
        status: int,
        kind: str,
        length: int | None = None,
        more: list[tuple[bytes, bytes]] | None = None,
    ) -> None:
        """Send the headers, once."""
        if self.is_open:
            return
        self.is_open = True
        headers = [(b"content-type", kind.encode())]
        if length is not None:
            headers.append((b"content-length", str(length).encode()))
        else:
            # nginx keeps a stream back until it has a buffer full, unless it is told not to.
            headers += [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
        headers += self._account.headers(streamed=self._stream is not None)
        headers += more or []
        self._account.record.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
