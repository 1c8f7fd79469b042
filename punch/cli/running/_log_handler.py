"""The command `logs` of a running program: its last lines, and those that come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...admin import Call, Handler
from ._ring import MAX_LINES, LogRing

# In one message: each line is bounded, and this many are far below what a message may have.
LINES_AT_ONCE = 50


def logs_of(ring: LogRing) -> Handler:
    """The handler that tells what *ring* has, and with ``follow`` goes on until its caller goes."""

    async def handle(call: Call) -> None:
        wanted = call.arguments.get("lines")
        count = min(wanted, MAX_LINES) if type(wanted) is int and wanted >= 0 else MAX_LINES
        number = ring.written
        _, lines = ring.since(max(0, number - count))
        await _tell(call, lines[:count], lost=0)
        while call.arguments.get("follow") is True:
            await ring.wait(number)
            end = ring.written
            lost, lines = ring.since(number)
            number = end
            await _tell(call, lines, lost=lost)

    return handle


async def _tell(call: Call, lines: Sequence[dict[str, Any]], *, lost: int) -> None:
    for start in range(0, len(lines), LINES_AT_ONCE):
        await call.tell({"lost": lost, "lines": list(lines[start : start + LINES_AT_ONCE])})
        lost = 0
