"""What stands in for a running `punch up`: its commands, in a thread of this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import trio

from punch.admin import Call, Handler, open_admin
from punch.cli.running._asking import admin_folder

# A thread that does not begin, or end, has a fault.
LIMIT_SECONDS = 20.0


def saying(value: Any) -> Handler:
    """A handler that always comes to *value*."""

    async def handle(call: Call) -> Any:
        return value

    return handle


@contextmanager
def running_up(handlers: Mapping[str, Handler], ends: trio.Event | None = None) -> Iterator[None]:
    """Commands of this user reach *handlers*, in the data folder of the test.

    It ends with the context, or as soon as a handler sets *ends*.
    """
    began, ends = threading.Event(), trio.Event() if ends is None else ends
    tokens: list[trio.lowlevel.TrioToken] = []

    async def serve() -> None:
        async with open_admin(admin_folder(), handlers):
            tokens.append(trio.lowlevel.current_trio_token())
            began.set()
            await ends.wait()

    thread = threading.Thread(target=trio.run, args=(serve,), daemon=True)
    thread.start()
    assert began.wait(LIMIT_SECONDS)
    try:
        yield
    finally:
        with suppress(trio.RunFinishedError):
            tokens[0].run_sync_soon(ends.set)
        thread.join(LIMIT_SECONDS)
        assert not thread.is_alive()
