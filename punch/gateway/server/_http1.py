"""Parses requests and frames answers of HTTP/1.0 and 1.1 (RFC 9112), as bytes.

Decides what is refused as no valid request. Knows no network and no time. The
only importer of httptools: llhttp, the parser of Node.js.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Sequence
from http import HTTPStatus
from urllib.parse import unquote

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

Headers = Sequence[tuple[bytes, bytes]]

# Requests that a client may send before it has read an answer.
MAX_REQUESTS_AHEAD = 64

_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}

# Answers that have no body, whatever they say of one.
_BODILESS = frozenset({101, 204, 304})


class BadRequest(Exception):
    """The bytes are no request that we accept; where the next one begins is unknown.

    Args:
      status: The status to refuse it with.
      message: What is wrong with it, and what to do.
      headers: What the answer says besides.

    """

    def __init__(self, status: int, message: str, *, headers: Headers = ()) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


class Request:
    """A request, as far as it was parsed. Made by `RequestParser`."""

    def __init__(self) -> None:
        self.method = ""
        self.target = b""
        """The request target as it was sent: a path with a query, or a whole URL."""
        self.version = ""
        """``1.0`` or ``1.1``."""
        self.headers: list[tuple[bytes, bytes]] = []
        """Headers in their order, names in lower case."""
        self.keeps_alive = False
        """The connection may serve another request after this one."""
        self.waits = False
        """The client waits for a 100 before it sends the body (``Expect: 100-continue``)."""
        self.has_body = False
        """The head announces a body."""
        self.is_complete = False
        """The whole request has been parsed."""
        self.is_websocket = False
        """It asks for a WebSocket, at a path that has one: no request follows it."""
        self._parts: list[bytes] = []

    @property
    def path(self) -> bytes:
        """The path without its query, and without a host before it (RFC 9112, section 3.2.2)."""
        path = self.target.partition(b"?")[0]
        if path[:1] != b"/" and b"://" in path:
            path = b"/" + path.partition(b"://")[2].partition(b"/")[2]
        return path

    @property
    def place(self) -> str:
        """The path as text, without its percent signs."""
        path = self.path.decode("ascii", "replace")
        return unquote(path) if "%" in path else path

    @property
    def query(self) -> bytes:
        """The bytes behind the question mark."""
        return self.target.partition(b"?")[2]

    @property
    def has_news(self) -> bool:
        """Whether there is more of the body to `consume`."""
        return bool(self._parts)

    def add(self, data: bytes) -> None:
        """Append a parsed part of the body."""
        self._parts.append(data)

    @property
    def body(self) -> bytes:
        """What has come of the body and was not consumed."""
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)

    def consume(self) -> bytes:
        """The parts of the body that came since the last call."""
        body, self._parts = self.body, []
        return body


class RequestParser:
    """Makes requests from bytes.

    Args:
      most_head: Longest request line and headers, in bytes; also what may come without an end of
        something between two parts of a body.
      websockets: Paths at which a request may ask for a WebSocket.

    """

    def __init__(self, most_head: int, websockets: Container[str] = frozenset()) -> None:
        self.requests: deque[Request] = deque()
        """Requests whose heads are complete; the connection pops each as it answers it."""
        self.error: BadRequest | None = None
        """Why the bytes behind these requests cannot be parsed; `feed` ignores all further ones."""
        self.in_head = False
        """A head has begun and is not complete."""
        self.rest = bytearray()
        """What came behind a request for a WebSocket: its frames."""
        self._most_head = most_head
        self._websockets = websockets
        self._request = Request()
        self._size = 0
        self._fruitless = 0
        self._is_resumed = False
        self._parser = HttpRequestParser(self)

    @property
    def has_more(self) -> bool:
        """Whether anything came behind the request that is being answered."""
        return bool(self.requests) or self.in_head or self.error is not None or bool(self.rest)

    def feed(self, data: bytes | bytearray) -> None:
        """Parse *data*; faults are found in `error`, none is raised."""
        if self._request.is_websocket:
            self.rest += data
            return
        fruitless = self._fruitless + len(data)
        self._fruitless = fruitless
        while data and self.error is None:
            try:
                self._parser.feed_data(data)
                break
            except HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
                if self._is_for_websocket():
                    self._request.is_websocket = True
                    self.rest += data
                    return
                self._pass_over_upgrade()
            except HttpParserError as error:
                self._fail(error)
        if self._fruitless == fruitless > self._most_head and self.error is None:
            self.error = self._too_long()

    def close(self) -> None:
        """Break the reference cycle with the C parser, which holds all that was read."""
        del self._parser
        # Its traceback holds this object as well.
        self.error = None

    def _is_for_websocket(self) -> bool:
        """Whether the request that asks for another protocol asks for one that is spoken here."""
        request = self._request
        return (
            request.method == "GET"
            and request.version == "1.1"
            and not request.has_body
            and request.place in self._websockets
            and any(
                word.strip().lower() == b"websocket"
                for name, value in request.headers
                if name == b"upgrade"
                for word in value.split(b",")
            )
        )

    def _pass_over_upgrade(self) -> None:
        """Continue behind the head of a request that asks for another protocol.

        The request is answered as if it had not asked (RFC 9110, section 7.8). llhttp takes all
        that follows for the other protocol, so a new parser continues, and is told of the body.
        """
        request = self._request
        self._parser = HttpRequestParser(self)
        if request.method == "CONNECT":
            # No request follows, but the bytes for the host that it wants to reach.
            self.requests.pop()
            self.error = BadRequest(400, "this is no proxy")
        elif request.has_body:
            request.is_complete = False
            framing = [
                b"%b: %b\r\n" % (name, value)
                for name, value in request.headers
                if name in (b"content-length", b"transfer-encoding")
            ]
            self._is_resumed = True
            self._parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(framing))

    def _fail(self, error: HttpParserError) -> None:
        if self.error is not None:
            return
        # As far as it was read: 0.0 in front of it, and 2.0 in the first line of HTTP/2.
        is_version = self._parser.get_http_version() not in ("0.0", "1.0", "1.1")
        self.error = BadRequest(
            505 if is_version else 400,
            f"this is no HTTP/1.1 ({error}); speak that to this port",
        )

    def _too_long(self) -> BadRequest:
        return BadRequest(
            431, f"request line and headers have more than {self._most_head} bytes: send less"
        )

    # ---- what the parser says ----

    def on_message_begin(self) -> None:
        """Start a request (called by llhttp, as are all below)."""
        if self._is_resumed:
            return
        if len(self.requests) >= MAX_REQUESTS_AHEAD:
            self._refuse(
                429, f"more than {MAX_REQUESTS_AHEAD} requests at once: wait for an answer"
            )
        self._request = Request()
        self._size = 0
        self.in_head = True

    def on_url(self, part: bytes) -> None:
        """Append to the target."""
        if self._is_resumed:
            return
        self._size += len(part)
        if self._size > self._most_head:
            self._refuse_head()
        self._request.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header; trailers behind a body are counted and dropped."""
        if self._is_resumed:
            return
        self._size += len(name) + len(value) + 4
        if self._size > self._most_head:
            self._refuse_head()
        if self.in_head:
            # llhttp leaves the space behind a value to us (RFC 9112, section 5.1).
            self._request.headers.append((name.lower(), value.rstrip()))

    def on_headers_complete(self) -> None:
        """Check the complete head, and hand the request over."""
        if self._is_resumed:
            self._is_resumed = False
            return
        self.in_head = False
        self._fruitless = 0
        request, parser = self._request, self._parser
        request.method = parser.get_method().decode("ascii")
        request.version = parser.get_http_version()
        request.keeps_alive = parser.should_keep_alive()
        hosts = 0
        for name, value in request.headers:
            if name == b"host":
                hosts += 1
            elif name == b"content-length":
                request.has_body = value.strip(b"0") != b""
            elif name == b"transfer-encoding":
                request.has_body = True
                self._check_coding(value)
            elif name == b"expect" and value.lower() == b"100-continue":
                request.waits = request.version == "1.1"
        if request.version not in ("1.0", "1.1"):
            self._refuse(505, f"this is HTTP/{request.version}; speak HTTP/1.1 to this port")
        if hosts != (1 if request.version == "1.1" else min(hosts, 1)):
            self._refuse(400, f"there are {hosts} Host headers: send one (RFC 9112, section 3.2)")
        self.requests.append(request)

    def on_body(self, data: bytes) -> None:
        """Append to the body."""
        self._fruitless = 0
        self._request.add(data)

    def on_message_complete(self) -> None:
        """Mark the request as complete."""
        self._fruitless = 0
        self._request.is_complete = True

    def _check_coding(self, coding: bytes) -> None:
        """Refuse a coding by which a proxy could see another end of the body (smuggling)."""
        if self._request.version == "1.0":
            self._refuse(
                400, "HTTP/1.0 has no Transfer-Encoding: send none (RFC 9112, section 6.1)"
            )
        if coding.lower() != b"chunked":
            self._refuse(501, "the only Transfer-Encoding here is chunked: send the body as it is")

    def _refuse_head(self) -> None:
        self.error = self._too_long()
        raise self.error

    def _refuse(self, status: int, message: str) -> None:
        self.error = BadRequest(status, message)
        raise self.error


class Framing:
    """Frames one answer: its length, its chunks, or the end of the connection (RFC 9112, 6).

    Args:
      request: The request; `None` if it could not be parsed.
      closes: The connection ends after the answer.

    """

    def __init__(self, request: Request | None, *, closes: bool) -> None:
        self.closes = closes
        """The connection ends after the answer."""
        self._speaks_11 = request is None or request.version == "1.1"
        self._is_head = request is not None and request.method == "HEAD"
        self._is_bodiless = False
        self._is_chunked = False
        self._left: int | None = None

    def head(self, status: int, headers: Headers, body: bytes, *, last: bool) -> bytes:
        """Status line, headers and the first part of the body.

        Raises:
          ValueError: if a header would end the line it is in.

        """
        lines = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
        for name, value in headers:
            lines.append(b"%b: %b\r\n" % (name, value))
            lowered = name.lower()
            if lowered == b"content-length":
                self._left = int(value)
            elif lowered == b"connection" and b"close" in value.lower():
                self.closes = True
        self._is_bodiless = self._is_head or status in _BODILESS
        if self._left is None and not self._is_bodiless:
            if last:
                self._left = len(body)
                lines.append(b"content-length: %d\r\n" % len(body))
            elif self._speaks_11:
                self._is_chunked = True
                lines.append(b"transfer-encoding: chunked\r\n")
            else:
                self.closes = True
        if self.closes:
            if not any(name.lower() == b"connection" for name, _ in headers):
                lines.append(b"connection: close\r\n")
        elif not self._speaks_11:
            lines.append(b"connection: keep-alive\r\n")
        data = b"".join(lines)
        if data.count(b"\n") != len(lines) or data.count(b"\r") != len(lines) or b"\0" in data:
            raise ValueError("a header of an answer holds the end of a line")
        return data + b"\r\n" + self.body(body, last=last)

    def body(self, data: bytes, *, last: bool) -> bytes:
        """The next part of the body.

        Raises:
          ValueError: if the body is longer or, at its end, shorter than the head said.

        """
        if self._is_bodiless:
            return b""
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0 or (last and self._left):
                raise ValueError("an answer is not as long as its content-length says")
        elif self._is_chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
            if last:
                data += b"0\r\n\r\n"
        return data
