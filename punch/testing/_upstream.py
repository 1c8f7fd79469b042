"""Plays an HTTP server, byte by byte, with cuts where the script has them.

The bytes go through the real HTTP client, so that what is tested is how it reads them: a
script may stop in the middle of a header, of a chunk or of an event. The server is reached
without a socket, by `Upstream.transport`, or on a port of this machine, by `Upstream.listen`.
"""

from __future__ import annotations

import enum
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from .._background import open_background

if TYPE_CHECKING:
    import httpx


class _Cut(enum.Enum):
    CUT = "cut"
    RESET = "reset"


CUT = _Cut.CUT
"""The server closes the connection, whatever it had announced."""

RESET = _Cut.RESET
"""The connection is reset."""

Part = bytes | float | _Cut
"""Some bytes of an answer, a pause in seconds, or the end of the connection."""

Script = Iterable[Part] | Callable[[bytes], Iterable[Part]]
"""An answer, or what makes one from the request, which it gets whole, with its head."""


def head(status: int = 200, **headers: str | int) -> bytes:
    """The head of a response; an underscore in the name of a header is a dash."""
    lines = [f"HTTP/1.1 {status} -"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def chunk(data: bytes) -> bytes:
    """*data* as one chunk of a chunked body; an empty one ends the body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def answer_event(text: str, finish: str | None = None) -> bytes:
    """An event of a streamed chat, as servers with OpenAI's interface send it."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return f"data: {json.dumps({'choices': [choice]})}\n\n".encode()


class Upstream:
    """A server that plays scripted answers.

    What is asked with GET has answers of its own: the list of models, and 404 for anything else.

    Args:
      answers: The answer to each request, in their order; the last is repeated for all that
        follow. An answer without a cut leaves the connection open for the next request.
      models: The models that it lists.
      owner: What it says of who owns them, by which some servers are known.

    """

    def __init__(
        self, *answers: Script, models: Sequence[str] = ("scripted",), owner: str = "punch"
    ) -> None:
        self._owner = owner
        self._answers = [answer if callable(answer) else tuple(answer) for answer in answers]
        self._models = tuple(models)
        self.requests: list[bytes] = []
        """Every request for an answer that was read, whole, with its head."""
        self.connections = 0
        """How many connections were opened."""

    def transport(self) -> httpx.AsyncBaseTransport:
        """A transport that leads an HTTP client here, whatever the address."""
        # Late: httpx takes 0.15 s to import, which a simulation should not pay.
        import httpcore
        import httpx

        network: Any = _Network(self)
        # Certificates take 20 ms to load, and here is no wire.
        transport = httpx.AsyncHTTPTransport(trust_env=False, verify=False)
        # httpx has no argument for it; its pool is one of httpcore, which has.
        transport._pool = httpcore.AsyncConnectionPool(network_backend=network)
        return transport

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[str]:
        """Serve on a free port of the loopback interface; gives the address of the server."""
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with open_background() as nursery:
            serve = partial(trio.serve_listeners, handler_nursery=nursery)
            nursery.start_soon(serve, self._serve, [listener])
            yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}"

    async def _serve(self, stream: trio.SocketStream) -> None:
        """Play to one connection, to its end or ours."""
        self.connections += 1
        received = bytearray()
        try:
            while data := await stream.receive_some():
                received += data
                while (whole := _whole_request(received)) is not None:
                    request = bytes(received[:whole])
                    del received[:whole]
                    for part in self.answer(request):
                        if isinstance(part, bytes):
                            await stream.send_all(part)
                        elif isinstance(part, float | int):
                            await trio.sleep(part)
                        else:
                            if part is RESET:
                                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
                            return
        except trio.BrokenResourceError:
            # The client is gone, which is its own business.
            pass
        finally:
            await trio.aclose_forcefully(stream)

    def answer(self, request: bytes) -> tuple[Part, ...]:
        """Take a whole *request*, and say what to send for it."""
        if request.startswith(b"GET "):
            return (self._looked_up(request),)
        self.requests.append(request)
        answer = self._answers[min(len(self.requests), len(self._answers)) - 1]
        return tuple(answer(request)) if callable(answer) else answer

    def _looked_up(self, request: bytes) -> bytes:
        if request.split(b" ")[1] != b"/v1/models":
            return head(404, Content_Length=0)
        models = [{"id": name, "object": "model", "owned_by": self._owner} for name in self._models]
        body = json.dumps({"object": "list", "data": models}).encode()
        return head(Content_Type="application/json", Content_Length=len(body)) + body


# Linger for no seconds: what is closed so is reset.
_AT_ONCE = struct.pack("ii", 1, 0)


class _Network:
    """Has every connection end at one server: an `httpcore.AsyncNetworkBackend`."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    async def connect_tcp(self, host: str, port: int, *_: Any, **__: Any) -> _Connection:
        """Connect, whatever the address."""
        await trio.lowlevel.checkpoint()
        self._upstream.connections += 1
        return _Connection(self._upstream)

    async def sleep(self, seconds: float) -> None:
        """Sleep by trio's clock."""
        await trio.sleep(seconds)


class _Connection:
    """A connection, from the client's side: an `httpcore.AsyncNetworkStream`."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._received = bytearray()
        self._parts: list[Part] = []
        self._ended: _Cut | None = None

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Give the next bytes of the answer, as they come by the script."""
        import httpcore

        with trio.move_on_after(float("inf") if timeout is None else timeout):
            data = await self._next(max_bytes)
            if data is None:
                raise httpcore.ReadError("reset")
            return data
        raise httpcore.ReadTimeout

    async def _next(self, max_bytes: int) -> bytes | None:
        """The next bytes, none of them after a cut, `None` after a reset."""
        await trio.lowlevel.checkpoint()
        while self._ended is None:
            if not self._parts:
                await trio.sleep_forever()
            part = self._parts.pop(0)
            if isinstance(part, bytes):
                if part[max_bytes:]:
                    self._parts.insert(0, part[max_bytes:])
                return part[:max_bytes]
            if isinstance(part, _Cut):
                self._ended = part
            else:
                await trio.sleep(part)
        return b"" if self._ended is CUT else None

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Take bytes of requests; the answer to each is added to what is to be read."""
        del timeout
        await trio.lowlevel.checkpoint()
        self._received += buffer
        while (whole := _whole_request(self._received)) is not None:
            self._parts += self._upstream.answer(bytes(self._received[:whole]))
            del self._received[:whole]

    async def aclose(self) -> None:
        """Close our side."""
        self._ended = RESET
        await trio.lowlevel.checkpoint()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> _Connection:  # fmt: skip
        """Do without: there is no wire to listen at."""
        del ssl_context, server_hostname, timeout
        await trio.lowlevel.checkpoint()
        return self

    def get_extra_info(self, info: str) -> Any:
        """Say that nothing is to be read: a close is seen only after the next request is sent."""
        return False if info == "is_readable" else None


def _whole_request(data: bytes | bytearray) -> int | None:
    """Length of the first request in *data*, if all of it is there."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    length = 0
    for line in bytes(data[:end]).split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    whole = end + 4 + length
    return whole if len(data) >= whole else None
