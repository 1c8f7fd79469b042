"""How much a client may send, and how long it may take: bodies, headers, connections."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import attrs
import trio

from ._errors import Refusal

Receive = Callable[[], Awaitable[Any]]

# What one body may have by default: the longest context of today's models is a few megabytes of
# text, and the peers take eight.
BODY_LIMIT = 32 << 20

# How long a client may take for its headers, and for its body: nobody types them.
SLOWEST_SECONDS = 10.0

# A long body may take longer, but not slower than this: half of an old DSL line.
LEAST_RATE = 64 << 10

# A body that is too long is thrown away up to this many times the limit before it is refused:
# whoever still writes when the connection ends never reads why.
READ_AWAY = 4

# Of JSON that has nothing in it but brackets.
DEEPEST = 64

# What the gateway wants to hold open: a thousand idle clients must not stop the next one.
WANTED_DESCRIPTORS = 16384


@attrs.frozen(kw_only=True)
class Limits:
    """What a client may do; see the module."""

    body: int = BODY_LIMIT
    """Longest body, in bytes."""

    slowest: float = SLOWEST_SECONDS
    """Seconds for the headers, and for a body of up to `LEAST_RATE` times as many bytes."""

    idle: float = 75.0
    """Seconds that a connection may have nothing to do; what nginx gives, and more than clients
    keep one."""

    stuck: float = 30.0
    """Seconds that a client may take nothing of what it is sent."""

    head: int = 32 << 10
    """Longest request line and headers, in bytes."""

    connections: int = 8192
    """Connections at a time."""


async def read_body(headers: Mapping[bytes, bytes], receive: Receive, limits: Limits) -> bytes:
    """The whole body.

    Raises:
      Refusal: if it is too long, or comes too slowly.
      ClientGone: if the client went away before its end.

    """
    announced = headers.get(b"content-length", b"")
    if announced.isdigit() and int(announced) > limits.body:
        await _read_away(receive, min(int(announced), READ_AWAY * limits.body), limits)
        raise _too_long(limits)
    parts: list[bytes] = []
    size = 0
    deadline = trio.current_time() + limits.slowest
    while True:
        with trio.move_on_at(deadline + size / LEAST_RATE) as patience:
            message = await receive()
        if patience.cancelled_caught:
            raise Refusal(
                status=408,
                message=f"the body was not complete within {limits.slowest:g} s: send it faster",
                code="body_too_slow",
                closes=True,
            )
        if message["type"] == "http.disconnect":
            raise ClientGone
        part = message.get("body", b"")
        size += len(part)
        if size > limits.body:
            await _read_away(receive, READ_AWAY * limits.body, limits)
            raise _too_long(limits)
        if part:
            parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


class ClientGone(Exception):
    """The client went away; nobody is left to be told anything."""


def _too_long(limits: Limits) -> Refusal:
    return Refusal(
        status=413,
        message=f"the body is longer than the limit of {limits.body} bytes: shorten it",
        code="body_too_long",
        closes=True,
    )


async def _read_away(receive: Receive, most: int, limits: Limits) -> None:
    """Throw away what the client still sends, within reason."""
    with trio.move_on_after(limits.slowest):
        while most > 0:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            most -= len(message.get("body", b""))
            if not message.get("more_body", False):
                return


def raise_descriptor_limit(wanted: int = WANTED_DESCRIPTORS) -> int:
    """Let this process have more files and sockets open, as far as it may; how many it may."""
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
