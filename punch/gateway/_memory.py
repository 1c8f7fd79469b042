"""The bodies of requests: the memory that all of them may take, and reading one."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import trio

from ._errors import Refusal
from .server import ClientGone, Limits

Receive = Callable[[], Awaitable[Any]]

# A long body may take longer, but not slower than this: half of an old DSL line.
MIN_BYTES_PER_SECOND = 64 << 10

# A body up to this long is taken in any case: nobody is shut out by those who send long ones.
ALWAYS_TAKEN = 64 << 10

# Seconds after which there may be room for a body again.
MEMORY_RETRY_SECONDS = 2.0

# A body that is too long is thrown away up to this many times the limit before it is refused:
# whoever still writes when the connection ends never reads why.
MAX_DISCARDED_BODIES = 4

# Bytes of bodies after which the collector of cycles is run, as it comes by itself seldom.
COLLECT_BYTES = 64 << 20


class MemoryBudget:
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
        self._released = 0
        self.parsing = trio.CapacityLimiter(1)
        """Threads that may read long bodies: they hold the interpreter's lock for most of it."""

    @contextmanager
    def reserve(self, key_id: str | None = None) -> Iterator[BodyReservation]:
        """Memory for one body, for as long as its request lasts; *key_id* says whose it is."""
        reservation = BodyReservation(self, self._limits, key_id)
        try:
            yield reservation
        finally:
            reservation.release()
            self._released += reservation.held
            if self._released >= COLLECT_BYTES:
                # What a request has left in rings of references still has its body.
                self._released = 0
                gc.collect(1)


class BodyReservation:
    """The memory that one body takes. Made by `MemoryBudget.reserve`."""

    def __init__(self, budget: MemoryBudget, limits: Limits, key_id: str | None) -> None:
        self._budget = budget
        self._key_id = key_id
        self._most = max(limits.bodies, limits.body)
        # One key leaves half of it to the others.
        self._most_of_key = max(limits.bodies // 2, limits.body)
        self.held = 0
        """Bytes that it takes of the budget."""
        self.is_read = False
        """The body was read to its end."""

    def grow(self, size: int) -> bool:
        """Whether the body may be *size* bytes long."""
        more = size - self.held
        if size <= ALWAYS_TAKEN or more <= 0:
            return True
        budget, key_id = self._budget, self._key_id
        if budget.held + more > self._most:
            return False
        if key_id is not None:
            if budget.held_by[key_id] + more > self._most_of_key:
                return False
            budget.held_by[key_id] += more
        budget.held += more
        self.held = size
        return True

    def release(self) -> None:
        """Give the memory back to the other bodies."""
        budget, key_id = self._budget, self._key_id
        budget.held -= self.held
        if key_id is not None and self.held:
            budget.held_by[key_id] -= self.held
            if not budget.held_by[key_id]:
                del budget.held_by[key_id]


async def read_body(
    headers: Mapping[bytes, bytes], receive: Receive, limits: Limits, reservation: BodyReservation
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
        await _discard_rest(
            receive, min(int(announced), MAX_DISCARDED_BODIES * limits.body), limits
        )
        raise _too_long(limits)
    parts: list[bytes] = []
    size = 0
    deadline = trio.current_time() + limits.slowest
    while True:
        # Who was fast has earned no right to be silent: all that time it would hold its room.
        latest = min(deadline + size / MIN_BYTES_PER_SECOND, trio.current_time() + limits.slowest)
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
            await _discard_rest(receive, MAX_DISCARDED_BODIES * limits.body, limits)
            raise _too_long(limits)
        if not reservation.grow(size):
            parts.clear()
            await _discard_rest(receive, MAX_DISCARDED_BODIES * limits.body, limits)
            raise _no_room()
        if part:
            parts.append(part)
        if not message.get("more_body", False):
            reservation.is_read = True
            return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_long(limits: Limits) -> Refusal:
    return Refusal(
        status=413,
        message=f"the body is longer than the limit of {limits.body} bytes: shorten it",
        code="body_too_long",
        closes=True,
    )


def _no_room() -> Refusal:
    return Refusal(
        status=503,
        message="the bodies of other requests, or of this key's, take all the room there is for "
        "them: send it again later",
        type="service_unavailable_error",
        code="no_room",
        retry_after=MEMORY_RETRY_SECONDS,
        cause="quota",
        closes=True,
    )


async def _discard_rest(receive: Receive, most: int, limits: Limits) -> None:
    """Throw away what the client still sends, within reason."""
    with trio.move_on_after(limits.slowest):
        while most > 0:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            most -= len(message.get("body", b""))
            if not message.get("more_body", False):
                return
