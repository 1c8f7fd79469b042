"""Reads the bodies of requests within a budget of memory for all of them.

Decides how long a body may be, how slowly it may come, and when there is no memory for one more.
What a body means is left to `bodies`.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import trio

from ._errors import Refusal
from .server import WHOLE_BODY, ClientGone, Limits

Scope = Any
Receive = Callable[[], Awaitable[Any]]

# A long body may take longer, but not slower than this: half of an old DSL line.
MIN_BYTES_PER_SECOND = 64 << 10

# A body up to this long is always accepted, so that long bodies never shut out short requests.
ALWAYS_TAKEN = 64 << 10

# When to send a body again that found no memory: most requests end sooner. Seconds.
MEMORY_RETRY_SECONDS = 2.0

# A body that is too long is read and dropped up to this many times the limit before it is refused:
# a client that is still writing when the connection closes gets a reset and never reads the reason
# (RFC 9112, section 9.6).
MAX_DISCARDED_BODIES = 4

# Bytes of bodies after which the cycle collector is run: by itself it counts objects, not bytes.
COLLECT_BYTES = 64 << 20


class MemoryBudget:
    """Counts the bytes of the bodies of all requests under way, and bounds them.

    Args:
      limits: What clients may do.

    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.held = 0
        """Bytes that bodies take now."""
        self.held_by: Counter[str] = Counter()
        """Bytes that the bodies of each API key take."""
        self._released = 0
        self.parsing = trio.CapacityLimiter(1)
        """Threads that may parse long bodies: one, since parsing holds the interpreter's lock."""

    def reserve(self, key_id: str | None = None) -> BodyReservation:
        """Memory for one body while its request lasts; *key_id* is the API key it counts for."""
        return BodyReservation(self, self._limits, key_id)

    def released(self, size: int) -> None:
        """Count the *size* bytes of a body whose request is over."""
        self._released += size
        if self._released >= COLLECT_BYTES:
            # Reference cycles that a request left behind still hold its body.
            self._released = 0
            gc.collect(1)


class BodyReservation:
    """The memory that one body takes while its context lasts. Made by `MemoryBudget.reserve`."""

    def __init__(self, budget: MemoryBudget, limits: Limits, key_id: str | None) -> None:
        self._budget = budget
        self._key_id = key_id
        self._most = max(limits.bodies, limits.body)
        # One key leaves half of the budget to the others.
        self._most_of_key = max(limits.bodies // 2, limits.body)
        self.held = 0
        """Bytes that the body takes of the budget."""
        self.is_read = False
        """The body was read to its end."""

    def grow(self, size: int) -> bool:
        """Reserve *size* bytes in all for the body; false if the budget has not that much left."""
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

    def __enter__(self) -> BodyReservation:
        return self

    def __exit__(self, *_: object) -> None:
        """Give the memory back to the other bodies."""
        if not self.held:
            return
        budget, key_id = self._budget, self._key_id
        budget.held -= self.held
        if key_id is not None:
            budget.held_by[key_id] -= self.held
            if not budget.held_by[key_id]:
                del budget.held_by[key_id]
        budget.released(self.held)


async def read_body(
    scope: Scope, receive: Receive, limits: Limits, reservation: BodyReservation
) -> bytes:
    """The whole body of a request.

    Raises:
      Refusal: if the body is too long, comes too slowly, or finds no memory.
      ClientGone: if the client went away before the end of the body.

    """
    headers = scope["punch.headers"]
    _check_coding(headers)
    data: bytes | None = scope.get(WHOLE_BODY)
    if data is not None and len(data) <= limits.body and reservation.grow(len(data)):
        # Most bodies come with their head: nothing is waited for, and no time runs out.
        reservation.is_read = True
        return data
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
        # A fast start earns no right to be silent later: the body would hold its memory meanwhile.
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
            raise _no_memory()
        if part:
            parts.append(part)
        if not message.get("more_body", False):
            reservation.is_read = True
            return parts[0] if len(parts) == 1 else b"".join(parts)


def _check_coding(headers: Mapping[bytes, bytes]) -> None:
    coding = headers.get(b"content-encoding")
    if coding is None:
        return
    said = coding.decode("latin-1").strip().lower()
    if said not in ("", "identity"):
        raise Refusal(
            status=415,
            message=f"Content-Encoding is {said[:80]!r}; send the body as it is, without it",
            code="unsupported_media_type",
            param="Content-Encoding",
            # RFC 9110, section 12.5.3.
            headers=(("accept-encoding", "identity"),),
        )


def _too_long(limits: Limits) -> Refusal:
    return Refusal(
        status=413,
        message=f"the body is longer than the limit of {limits.body} bytes: shorten it",
        code="body_too_long",
        closes=True,
    )


def _no_memory() -> Refusal:
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
    """Read and drop what the client still sends, up to *most* bytes and for a bounded time."""
    with trio.move_on_after(limits.slowest):
        while most > 0:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            most -= len(message.get("body", b""))
            if not message.get("more_body", False):
                return
