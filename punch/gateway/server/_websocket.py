"""Decides which handshakes are taken, and makes messages of a WebSocket's frames (RFC 6455).

Knows no network and no time. The only importer of wsproto. Extensions are not agreed to: a client
that compresses could make much of little.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Iterator

import attrs
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.utilities import generate_accept_token

from ._http1 import BadRequest, Request

# The one version that there is (RFC 6455, section 4.4).
VERSION = b"13"

# Bytes of a nonce (section 4.1).
NONCE_BYTES = 16

# Codes of the end of a connection (section 7.4.1).
NORMAL = 1000
GOING_AWAY = 1001
NOT_TAKEN = 1003
ABNORMAL = 1006
TOO_BIG = 1009
INTERNAL = 1011


def accept_token(request: Request) -> bytes:
    """The answer to the nonce of a handshake.

    Raises:
      BadRequest: if it is no handshake of the version that is spoken here.

    """
    versions = _values(request, b"sec-websocket-version")
    if versions != [VERSION]:
        said = b", ".join(versions).decode("ascii", "replace")[:40]
        raise BadRequest(
            426,
            f"Sec-WebSocket-Version is {said!r}; it must be 13 (RFC 6455)",
            headers=((b"sec-websocket-version", VERSION), (b"upgrade", b"websocket")),
        )
    keys = _values(request, b"sec-websocket-key")
    if len(keys) != 1 or not _is_nonce(keys[0]):
        raise BadRequest(
            400, "Sec-WebSocket-Key must be there once: 16 random bytes in base64 (RFC 6455)"
        )
    return generate_accept_token(keys[0])


def subprotocols_of(request: Request) -> list[str]:
    """The subprotocols that the client offers, the one that it likes best first."""
    offered = b",".join(_values(request, b"sec-websocket-protocol")).decode("latin-1")
    return [name for part in offered.split(",") if (name := part.strip())]


def _values(request: Request, wanted: bytes) -> list[bytes]:
    return [value for name, value in request.headers if name == wanted]


def _is_nonce(key: bytes) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == NONCE_BYTES
    except binascii.Error:
        return False


@attrs.frozen
class Text:
    """A whole message of the client."""

    text: str
    """What it says."""


@attrs.frozen
class Reply:
    """The client is owed an answer that says nothing: the pong to its ping."""

    data: bytes
    """The bytes to send."""


@attrs.frozen
class Ended:
    """No message follows."""

    code: int
    """The code of the end: the client's, or that of its fault."""

    reason: str
    """The words that came with the code."""

    data: bytes
    """The bytes to send before the connection is closed; empty if the client expects none."""

    is_fault: bool
    """The client broke a rule, and may still be sending."""


class Messages:
    """The messages of one client, of whose frames none is kept but those of one message.

    Args:
      most: Longest message that the client may send, in bytes.

    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._frames = Connection(ConnectionType.SERVER)
        self._text = io.StringIO()
        self._size = 0
        self._is_over = False

    @property
    def is_open(self) -> bool:
        """Whether messages may be sent."""
        return self._frames.state is ConnectionState.OPEN

    def text(self, text: str) -> bytes:
        """A message for the client, as bytes."""
        return bytes(self._frames.send(TextMessage(text)))

    def ping(self) -> bytes:
        """A ping for the client, as bytes."""
        return bytes(self._frames.send(Ping()))

    def close(self, code: int, reason: str) -> bytes:
        """The end of our messages, as bytes; nothing if it was said before."""
        if not self.is_open:
            return b""
        return bytes(self._frames.send(CloseConnection(code=code, reason=reason)))

    def feed(self, data: bytes | bytearray) -> Iterator[Text | Reply | Ended]:
        """What the client says with *data*. After `Ended`, nothing is found."""
        if self._is_over:
            return
        self._frames.receive_data(bytes(data))
        for event in self._frames.events():
            found = self._found(event)
            if found is not None:
                yield found
            if isinstance(found, Ended):
                return

    def _found(self, event: object) -> Text | Reply | Ended | None:
        if isinstance(event, CloseConnection):
            return self._ended(event)
        if not self.is_open or isinstance(event, Pong):
            # What crosses our own close on its way is not wanted any more.
            return None
        if isinstance(event, Ping):
            return Reply(bytes(self._frames.send(event.response())))
        if isinstance(event, BytesMessage):
            return self._fault(NOT_TAKEN, "messages are text here, not binary")
        assert isinstance(event, TextMessage)
        self._size += len(event.data.encode())
        if self._size > self._most:
            return self._fault(TOO_BIG, f"a message has at most {self._most} bytes here")
        self._text.write(event.data)
        if not event.message_finished:
            return None
        text, self._text, self._size = self._text.getvalue(), io.StringIO(), 0
        return Text(text)

    def _ended(self, event: CloseConnection) -> Ended:
        """The client's close, in answer to ours or before it; or the fault that wsproto met."""
        state = self._frames.state
        reason = event.reason or ""
        if state is ConnectionState.REMOTE_CLOSING:
            self._is_over = True
            answer = bytes(self._frames.send(event.response()))
            return Ended(int(event.code), reason, answer, is_fault=False)
        if state is ConnectionState.CLOSED:
            self._is_over = True
            return Ended(int(event.code), reason, b"", is_fault=False)
        return self._fault(int(event.code), reason)

    def _fault(self, code: int, reason: str) -> Ended:
        self._is_over = True
        return Ended(code, reason, self.close(code, reason), is_fault=True)
