"""The client of one HTTP request: is watched while its answer is made, and gets its bytes in order.

Decides when headers go out, when a silent stream needs a comment, and that a client that leaves
ends the work done for it. What the bytes say is decided by the shapes and by `RequestAccount`.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from .._background import acquire_now
from ._errors import Refusal, dialect_of
from ._headers import what_is_waited_for
from ._live import RequestAccount
from ._shape import StreamShape

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

    """

    def __init__(
        self,
        *,
        receive: Receive,
        send: Send,
        account: RequestAccount,
        stream: StreamShape | None,
    ) -> None:
        self._receive = receive
        self._send = send
        self._account = account
        self._stream = stream
        self.is_gone = False
        """The client has left, or has not taken the last byte in time."""
        self.is_open = False
        """The headers were sent."""
        self.quiet_since = trio.current_time()
        """When there was text or a comment last, in seconds of trio's clock."""
        self._is_done = False
        self._is_nameless = False
        # Side-by-side answers and comments write in tasks of their own; their bytes must not mix.
        self._lock = trio.Lock()

    async def while_there(
        self, work: Callable[..., Awaitable[None]], *args: Any, comments: bool = False
    ) -> None:
        """Do *work* until it is done or the client leaves; with *comments*, break its silence."""
        if self.is_gone:
            return
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                while not await self._leaves(comments=comments):
                    # In a task of its own: to ask for text with a time limit would have the
                    # router begin anew with whatever it waits for.
                    await self._comment()
                if self._is_done:
                    # Servers say so as well when the last byte has left, and are still busy with
                    # it. But not for long: a byte that never leaves would hold all of this.
                    await trio.sleep(LAST_BYTE_SECONDS)
                self.is_gone = True
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            await work(*args)
            nursery.cancel_scope.cancel()

    async def _leaves(self, *, comments: bool) -> bool:
        """Wait until the client goes away; with *comments*, or until it is time for one."""
        while True:
            due = self.quiet_since + COMMENT_SECONDS if comments else math.inf
            if trio.current_time() >= due:
                return False
            with trio.move_on_at(due):
                if (await self._receive())["type"] == "http.disconnect":
                    return True

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
        """Send *data*, a body of JSON, as the whole answer."""
        await self._open(200, "application/json", len(data))
        await self.write(lambda: data, last=True)

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
        await acquire_now(self._lock)
        try:
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
                body = {"type": "http.response.body", "body": data, "more_body": not last}
                await self._send(body)
        finally:
            self._lock.release()

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
