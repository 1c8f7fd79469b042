"""How much a client may send, and how long it may take: bodies, headers, connections."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs
import trio

from ..._background import open_background
from .._errors import Refusal

Receive = Callable[[], Awaitable[Any]]

# What one body may have by default: the longest context of today's models is a few megabytes of
# text, and the peers take eight.
BODY_LIMIT = 32 << 20

# How long a client may take for its headers, and for its body: nobody types them.
SLOWEST_SECONDS = 10.0

# A long body may take longer, but not slower than this: half of an old DSL line.
LEAST_RATE = 64 << 10

# Bytes of all bodies of requests under way together: a few of the longest, thousands of usual ones.
BODIES_LIMIT = 256 << 20

# A body up to this long is taken in any case: nobody is shut out by those who send long ones.
ALWAYS_TAKEN = 64 << 10

# Seconds after which there may be room for a body again.
ROOM_RETRY = 2.0

# A body that is too long is thrown away up to this many times the limit before it is refused:
# whoever still writes when the connection ends never reads why.
READ_AWAY = 4

# Bytes of bodies after which the collector of cycles is run, as it comes by itself seldom.
COLLECT_BYTES = 64 << 20

# What the gateway wants to hold open: a thousand idle clients must not stop the next one.
WANTED_DESCRIPTORS = 16384


@attrs.frozen(kw_only=True)
class Limits:
    """What a client may do; see the module."""

    body: int = BODY_LIMIT
    """Longest body, in bytes."""

    bodies: int = BODIES_LIMIT
    """Bytes of the bodies of all requests under way, those of up to 64 KiB aside. One API key may
    take half of it, or one body's."""

    slowest: float = SLOWEST_SECONDS
    """Seconds for the headers, and for a body of up to `LEAST_RATE` times as many bytes."""

    idle: float = 75.0
    """Seconds that a connection may have nothing to do; what nginx gives, and more than clients
    keep one."""

    stuck: float = 30.0
    """Seconds that a client may take for each 64 KiB of what it is sent."""

    head: int = 32 << 10
    """Longest request line and headers, in bytes."""

    connections: int = 8192
    """Connections at a time."""


class Bodies:
    """The bodies of all requests under way, and how many bytes of them there may be.

    Args:
      limits: What clients may do.

    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.held = 0
        """Bytes that are held now."""
        self.held_by: Counter[str] = Counter()
        """Of these, what each API key holds."""
        self._let_go = 0
        self.parsing = trio.CapacityLimiter(1)
        """Threads that may read long bodies: they hold the interpreter's lock for most of it."""

    @contextmanager
    def room(self, key_id: str | None = None) -> Iterator[Room]:
        """Room for one body, for as long as its request lasts; *key_id* says whose it is."""
        room = Room(self, self._limits, key_id)
        try:
            yield room
        finally:
            room.let_go()
            self._let_go += room.held
            if self._let_go >= COLLECT_BYTES:
                # What a request has left in rings of references still has its body.
                self._let_go = 0
                gc.collect(1)


class Room:
    """The room that one body takes. Made by `Bodies.room`."""

    def __init__(self, bodies: Bodies, limits: Limits, key_id: str | None) -> None:
        self._bodies = bodies
        self._key_id = key_id
        self._most = max(limits.bodies, limits.body)
        # One key leaves half of it to the others.
        self._most_of_key = max(limits.bodies // 2, limits.body)
        self.held = 0
        """Bytes that it takes of those for all."""
        self.is_read = False
        """It was read to its end."""

    def grow(self, size: int) -> bool:
        """Whether the body may be *size* bytes long."""
        more = size - self.held
        if size <= ALWAYS_TAKEN or more <= 0:
            return True
        bodies, key_id = self._bodies, self._key_id
        if bodies.held + more > self._most:
            return False
        if key_id is not None:
            if bodies.held_by[key_id] + more > self._most_of_key:
                return False
            bodies.held_by[key_id] += more
        bodies.held += more
        self.held = size
        return True

    def let_go(self) -> None:
        """It is needed no more."""
        bodies, key_id = self._bodies, self._key_id
        bodies.held -= self.held
        if key_id is not None and self.held:
            bodies.held_by[key_id] -= self.held
            if not bodies.held_by[key_id]:
                del bodies.held_by[key_id]


async def read_body(
    headers: Mapping[bytes, bytes], receive: Receive, limits: Limits, room: Room
) -> bytes:
    """The whole body.

    Raises:
      Refusal: if it is too long, or comes too slowly, or there is no room for it.
      ClientGone: if the client went away before its end.

    """
    coding = headers.get(b"content-encoding", b"").decode("latin-1").strip().lower()
    if coding not in ("", "identity"):
        raise Refusal(
            status=415,
            message=f"Content-Encoding is {coding[:80]!r}; send the body as it is, without it",
            code="unsupported_media_type",
            param="Content-Encoding",
        )
    announced = headers.get(b"content-length", b"")
    if announced.isdigit() and int(announced) > limits.body:
        await _read_away(receive, min(int(announced), READ_AWAY * limits.body), limits)
        raise _too_long(limits)
    parts: list[bytes] = []
    size = 0
    deadline = trio.current_time() + limits.slowest
    while True:
        # Who was fast has earned no right to be silent: all that time it would hold its room.
        latest = min(deadline + size / LEAST_RATE, trio.current_time() + limits.slowest)
        with trio.move_on_at(latest) as patience:
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
        if not room.grow(size):
            parts.clear()
            await _read_away(receive, READ_AWAY * limits.body, limits)
            raise _no_room()
        if part:
            parts.append(part)
        if not message.get("more_body", False):
            room.is_read = True
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


def has_body(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a request says that it has a body."""
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"


async def reading_away(receive: Receive, work: Callable[[], Awaitable[None]]) -> None:
    """Do *work* while nobody wants the body: unread, it would keep the answer from leaving."""
    async with open_background() as nursery:

        async def read() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        nursery.start_soon(read)
        await work()


def _no_room() -> Refusal:
    return Refusal(
        status=503,
        message="the bodies of other requests, or of this key's, take all the room there is for "
        "them: send it again later",
        type="service_unavailable_error",
        code="no_room",
        retry_after=ROOM_RETRY,
        cause="quota",
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
