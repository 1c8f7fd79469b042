"""Says what was met at an address where no libp2p peer is, by the first bytes that it sent.

People mix up ports: the gateway's, a web server's, a router's. A program is named only where its
protocol says so in its first bytes; nothing is ever sent to find out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# What each protocol's server begins with, whatever a client has said.
_BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (b"HTTP/", "a web server (HTTP)"),
    (b"<!DOCTYPE", "a web server (HTTP)"),
    (b"<html", "a web server (HTTP)"),
    (b"SSH-", "an SSH server"),
    (b"\x15\x03", "a server with TLS"),
    (b"220", "a mail or FTP server"),
    (b"-ERR", "a Redis server"),
    (b"RFB ", "a VNC server"),
)

# Enough for every one of them, and for the beginning of what no entry knows.
_MAX_BYTES = 64
_SHOWN_BYTES = 24

# What a libp2p peer begins with: the length of its first line, and that.
_MULTISTREAM = b"/multistream/"


class Heard:
    """What one dial has met."""

    def __init__(self) -> None:
        self.is_connected = False
        """True once something has accepted the connection."""
        self._data = bytearray()

    @contextmanager
    def listening_in(self, raw: Any) -> Iterator[None]:
        """Keep the first bytes that a raw connection of libp2p reads, while the block runs."""
        self.is_connected = True
        stream = raw.stream
        read = stream.read

        async def read_and_keep(n: int | None = None) -> bytes:
            data: bytes = await read(n)
            self._data += data[: _MAX_BYTES - len(self._data)]
            return data

        stream.read = read_and_keep
        try:
            yield
        finally:
            # The method of its class again.
            del stream.read

    def __str__(self) -> str:
        heard = bytes(self._data)
        if not heard:
            return "something answers there without a word"
        if _MULTISTREAM in heard[: len(_MULTISTREAM) + 2]:
            return "a libp2p node answers there"
        for beginning, who in _BEGINNINGS:
            if heard.startswith(beginning):
                return f"{who} answers there"
        return (
            f"something that begins with {heard[:_SHOWN_BYTES].decode('latin-1')!r} answers there"
        )

    @property
    def is_silent(self) -> bool:
        """True if no byte has come."""
        return not self._data
