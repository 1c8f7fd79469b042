"""Starts the fronts of a gateway, starts those again that end, and ends them with the gateway."""

from __future__ import annotations

import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from ..._background import open_background
from ..._logs import get_logger
from ...exceptions import ConfigurationError
from ...gateway import Gateway
from ...gateway.fronts import Place, Switchboard, Turns, offset_here, turns_beside
from ...gateway.server import DRAIN_SECONDS
from ...processes import Child, LastLines, Restarts, describe_exit, open_child
from ...settings import GatewaySettings

log = get_logger("punch.gateway")

# A front has imported everything and joined its namespace within a few seconds.
START_SECONDS = 60.0

# After its requests have ended, or have had their time, a front is gone within this, in seconds.
LEAVE_SECONDS = 5.0

SWEEP_SECONDS = 1.0

# Until the next try where no descriptor is left for a process that wants to come in.
ACCEPT_PAUSE_SECONDS = 1.0


def check_processes(settings: GatewaySettings) -> None:
    """Refuse settings that need what only a gateway in one process has.

    Raises:
      ConfigurationError: if there are several processes, and something that does not go with them.

    """
    if settings.processes == 1:
        return
    said = settings.said("processes")
    if sys.platform == "win32":
        raise ConfigurationError(f"{said}: a gateway has one process on Windows")
    if settings.split:
        raise ConfigurationError(
            f"{said} does not go with {settings.said('split')}: a split is started by the process "
            "whose listener it is to be a lane of; leave one of them out"
        )


@attrs.define(eq=False)
class _Kept:
    """A front that is kept running."""

    place: Place
    child: Child | None = None
    why: str = ""
    """How it ended last, with what it printed."""
    was_there: bool = False
    """It has accepted connections, now or before it was started again."""
    is_starting: bool = False
    """It runs, and has not accepted connections yet."""
    started_at: float = 0.0
    """When it was started last, in seconds of trio's clock."""
    failed: trio.Event = attrs.field(factory=trio.Event)
    """Set if it has ended before it was there for the first time."""


@asynccontextmanager
async def open_fronts(
    settings: GatewaySettings, gateway: Gateway, switchboard: Switchboard
) -> AsyncIterator[None]:
    """Run the fronts of *gateway* for as long as the context lasts, from when all are there.

    At the end they finish what they have begun, within the time that a gateway gives its requests.

    Raises:
      ConfigurationError: if one ends before it is there, with what it has said.

    """
    switchboard.open(gateway.listeners, gateway.adopt)
    with tempfile.TemporaryDirectory(prefix="punch-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "fronts"
        listener = _listen(path)
        Turns.make(turns_beside(path), settings.processes)
        async with open_background() as nursery:
            nursery.start_soon(_accept, listener, switchboard, nursery)
            kept = [_Kept(place) for place in switchboard.places]
            ending = trio.Event()
            try:
                async with trio.open_nursery() as keeping:
                    for each in kept:
                        keeping.start_soon(_keep, each, path, ending)
                    nursery.start_soon(_sweep, switchboard, kept)
                    try:
                        await _until_there(kept)
                        log.info("processes serve", processes=len(kept))
                        yield
                    finally:
                        ending.set()
                        for listening in gateway.listeners:
                            await listening.aclose()
            finally:
                switchboard.close()


def _listen(path: Path) -> trio.SocketListener:
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.bind(str(path))
    except OSError as error:
        sock.close()
        raise ConfigurationError(
            f"processes of the gateway cannot meet at {path}: {error}; set TMPDIR to a folder of "
            "a short name"
        ) from None
    sock.listen()
    sock.setblocking(False)
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))


async def _accept(
    listener: trio.SocketListener, switchboard: Switchboard, nursery: trio.Nursery
) -> None:
    async with listener:
        while True:
            try:
                stream = await listener.accept()
            except OSError as error:
                log.error("a process of the gateway cannot come in", why=str(error))
                await trio.sleep(ACCEPT_PAUSE_SECONDS)
                continue
            connected = socket.socket(fileno=stream.socket.detach())
            nursery.start_soon(switchboard.serve, connected)


async def _until_there(kept: list[_Kept]) -> None:
    """Wait until all have come once; raises `ConfigurationError` if one does not."""
    with trio.move_on_after(START_SECONDS) as patience:
        async with trio.open_nursery() as nursery:

            async def wait(each: _Kept) -> None:
                async with trio.open_nursery() as either:

                    async def look(event: trio.Event) -> None:
                        await event.wait()
                        either.cancel_scope.cancel()

                    either.start_soon(look, each.place.came)
                    either.start_soon(look, each.failed)

            for each in kept:
                nursery.start_soon(wait, each)
    for each in kept:
        if each.failed.is_set() or patience.cancelled_caught:
            why = each.why or f"it was not there within {START_SECONDS:g} s"
            raise ConfigurationError(
                f"process {each.place.number + 1} of the gateway did not start: {why}"
            )


async def _keep(kept: _Kept, path: Path, ending: trio.Event) -> None:
    """Run a front until told to end, again and again."""
    number, restarts = kept.place.number, Restarts()
    while not ending.is_set():
        lines = LastLines()
        try:
            ended = await _run(kept, path, ending, restarts, lines)
        except OSError as error:  # Nothing is left to start it with: descriptors, memory.
            ended = f"it cannot be started: {error}"
        kept.child = None
        # However it ended: a connection must not be left to it.
        Turns(turns_beside(path), number).close()
        if ending.is_set():
            return
        kept.why = "; ".join([ended, *lines.lines[-12:]])
        if not kept.was_there:
            kept.failed.set()
            return
        pause = restarts.crashed(trio.current_time())
        log.warning(
            "a process of the gateway has ended and is started again: the requests that it had "
            "are lost",
            process=number + 1,
            why=ended,
            seconds=pause,
        )
        # Not in the log, which pages show: it may be a traceback.
        for line in lines.lines[-12:]:
            print(line, file=sys.stderr)
        with trio.move_on_after(pause):
            await ending.wait()


async def _run(
    kept: _Kept, path: Path, ending: trio.Event, restarts: Restarts, lines: LastLines
) -> str:
    """Run a front once; how it ended."""
    command = [sys.executable, "-m", "punch.gateway.fronts"]
    arguments = [str(path), str(kept.place.number), repr(offset_here())]
    grace = DRAIN_SECONDS + LEAVE_SECONDS
    kept.is_starting, kept.started_at = True, trio.current_time()
    async with open_child([*command, *arguments], env={}, stdin=None, grace=grace) as child:
        kept.child = child
        assert child.stderr is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lines.read, child.stdout)
            nursery.start_soon(lines.read, child.stderr)
            nursery.start_soon(_note_ready, kept, restarts)
            nursery.start_soon(_end_with, child, ending)
            try:
                await child.wait()
            except trio.Cancelled:
                # Told twice to end, or something has failed: nobody waits for requests.
                child.kill()
                raise
            # What it printed last is still in the pipe.
            nursery.cancel_scope.deadline = trio.current_time() + 0.2
    assert child.returncode is not None
    return f"ended with {describe_exit(child.returncode)}"


async def _note_ready(kept: _Kept, restarts: Restarts) -> None:
    await kept.place.came.wait()
    kept.was_there, kept.is_starting = True, False
    restarts.is_ready(trio.current_time())
    await trio.sleep_forever()


async def _end_with(child: Child, ending: trio.Event) -> None:
    await ending.wait()
    child.ask_to_end()


async def _sweep(switchboard: Switchboard, kept: list[_Kept]) -> None:
    """Kill fronts that are stuck, until cancelled."""
    while True:
        await trio.sleep(SWEEP_SECONDS)
        now = trio.current_time()
        stuck = switchboard.sweep(now)
        for each in kept:
            is_late = each.is_starting and now - each.started_at > START_SECONDS
            if (each.place in stuck or is_late) and each.child is not None:
                log.error(
                    "a process of the gateway is stuck and is killed", process=each.place.number + 1
                )
                each.child.kill()
