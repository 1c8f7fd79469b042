"""A nursery for the work behind an `open_*()`, and a lock that is acquired without a reschedule."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def open_background() -> AsyncIterator[trio.Nursery]:
    """A nursery for the long-lived work behind an `open_*()` context manager.

    The work is cancelled when the body ends. What the body or the work raises comes out bare,
    not in a group, so that callers write ``except PunchError`` as everywhere else. Two faults
    at once stay a group: neither of them is the whole truth.
    """
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        leaf: BaseException = group
        while isinstance(leaf, BaseExceptionGroup) and len(leaf.exceptions) == 1:
            leaf = leaf.exceptions[0]
        if leaf is group:
            raise
        # The group says nothing that the exception itself does not.
        raise leaf from leaf.__cause__


async def acquire_now(lock: trio.Lock) -> None:
    """Acquire *lock*; at once if it is free, where trio lets everybody else have a turn first."""
    if lock.locked():
        await lock.acquire()
    else:
        await trio.lowlevel.checkpoint_if_cancelled()
        lock.acquire_nowait()
