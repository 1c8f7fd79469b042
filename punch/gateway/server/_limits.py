"""The limits of a client: bytes of bodies and heads, seconds, connections, file descriptors."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import attrs

from ..._background import open_background

Receive = Callable[[], Awaitable[Any]]

# Bytes of one body, by default: the longest context of today's models is a few megabytes of text,
# and a frame between peers has eight at most.
DEFAULT_BODY_BYTES = 32 << 20

# How long a client may take for its headers, and for its body: programs send them, not people.
DEFAULT_SLOWEST_SECONDS = 10.0

# Bytes of all bodies of requests under way together: a few of the longest, thousands of usual ones.
DEFAULT_BODIES_BYTES = 256 << 20

# What the gateway wants to hold open: a thousand idle clients must not stop the next one.
WANTED_DESCRIPTORS = 16384


@attrs.frozen(kw_only=True)
class Limits:
    """The limits of a client."""

    body: int = DEFAULT_BODY_BYTES
    """Longest body, in bytes."""

    bodies: int = DEFAULT_BODIES_BYTES
    """Bytes of the bodies of all requests under way, those of up to 64 KiB aside. One API key may
    take half of it, or one body's."""

    slowest: float = DEFAULT_SLOWEST_SECONDS
    """Seconds for the headers, and for a body of up to 64 KiB times as many."""

    idle: float = 75.0
    """Seconds without a request after which a connection ends: nginx's default, and longer than
    clients keep an idle connection."""

    stuck: float = 30.0
    """Seconds that a client may take for each 64 KiB of what it is sent."""

    head: int = 32 << 10
    """Longest request line and headers, in bytes."""

    connections: int = 8192
    """Connections at a time."""

    message: int = 4 << 10
    """Longest message of a client of a WebSocket, in bytes: these are for watching."""

    ping: float = 20.0
    """Seconds between two pings of a WebSocket; a client that is silent for two of them is lost."""


class ClientGone(Exception):
    """The client went away; there is nobody left to answer."""


def has_body(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a request says that it has a body."""
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"


async def discarding_body(receive: Receive, work: Callable[[], Awaitable[None]]) -> None:
    """Do *work* while the body is read and dropped: a client may send all of it before it reads."""
    async with open_background() as nursery:

        async def read() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        nursery.start_soon(read)
        await work()


def raise_descriptor_limit(wanted: int = WANTED_DESCRIPTORS) -> int:
    """Raise the soft limit of open files to *wanted*, or as far as may be; the limit it has now."""
    if sys.platform == "win32":
        # There is no such limit there.
        return wanted
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    return soft
