"""Serves the commands of this user: hears who asks, calls the handler, and sends what it says.

Who does not know the token gets nothing, not even an error, and holds nobody up: strangers have
few bytes and little time, and the oldest of too many gives way.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import attrs
import trio

from .._background import open_background
from .._logs import get_logger
from ..exceptions import AddressUnavailable, PunchError, RemoteProtocolError
from ._door import Door, claimed, shown
from ._lines import (
    AT_WORK,
    MAX_COMMAND_BYTES,
    Answer,
    Command,
    Failure,
    Lines,
    Reply,
    Told,
    decode_command,
    encode_reply,
)

log = get_logger(__name__)

LOOPBACK = "127.0.0.1"
"""Where commands are taken, and nowhere else. A socket in the file system would say by its rights
who may ask, but not on every platform."""

# Who knows the token sends it at once; who does not is gone after this time.
HEAR_SECONDS = 5.0

# Callers whose token is not known yet; of one more, the oldest is dropped.
MAX_STRANGERS = 32

# Commands at a time: a person has a few terminals that follow the log.
MAX_CALLERS = 32

# How often a caller hears that its handler is at work: it gives up when it hears nothing.
AT_WORK_SECONDS = 1.0

# A caller that takes no bytes for this time is dropped.
SEND_SECONDS = 10.0

_READ_BYTES = 16 << 10


@attrs.frozen(kw_only=True)
class Call:
    """A command of this user, and how its handler answers while it is carried out."""

    arguments: Mapping[str, Any]
    """What the caller gave: whatever JSON has."""

    tell: Callable[[Any], Awaitable[None]]
    """Sends the caller a value, as JSON; waits while the caller is slow."""


Handler: TypeAlias = Callable[[Call], Awaitable[Any]]
"""Carries a command out and returns its value, as JSON. A `PunchError` is the caller's to hear; a
caller that goes away cancels it."""


@attrs.frozen(kw_only=True)
class AdminStatistics:
    """How busy the admin surface is."""

    callers: int
    """Commands that are being carried out."""

    strangers: int
    """Connections whose token is not known yet."""


class Admin:
    """The commands of this user to this program. Made by `open_admin`."""

    def __init__(self, token: str, handlers: Mapping[str, Handler]) -> None:
        self._token = token.encode()
        self._handlers = dict(handlers)
        self._strangers: OrderedDict[int, trio.CancelScope] = OrderedDict()
        self._numbers = 0
        self._callers = 0

    def statistics(self) -> AdminStatistics:
        """Who is there."""
        return AdminStatistics(callers=self._callers, strangers=len(self._strangers))

    async def attend(self, stream: trio.abc.Stream) -> None:
        """Serve one connection until its end; raises nothing of its own."""
        async with stream:
            try:
                command = await self._hear(stream)
                if command is not None:
                    await self._serve(stream, command)
            except _CallerGone:
                return

    async def _hear(self, stream: trio.abc.Stream) -> Command | None:
        """What is asked; `None` if it is nothing, or asked by a stranger."""
        self._numbers += 1
        number, scope = self._numbers, trio.CancelScope(deadline=trio.current_time() + HEAR_SECONDS)
        if len(self._strangers) >= MAX_STRANGERS:
            self._strangers.popitem(last=False)[1].cancel()
        self._strangers[number] = scope
        try:
            with scope:
                command = await _read_command(stream)
                if hmac.compare_digest(command.token.encode("utf-8", "replace"), self._token):
                    return command
        except (RemoteProtocolError, trio.BrokenResourceError):
            pass
        finally:
            self._strangers.pop(number, None)
        log.debug("somebody without the token asked for a command, and got nothing")
        return None

    async def _serve(self, stream: trio.abc.Stream, command: Command) -> None:
        caller = _Caller(stream)
        handler = self._handlers.get(command.name)
        if handler is None:
            known = ", ".join(sorted(self._handlers))
            await caller.end(
                Failure(
                    code="request",
                    message=f"the running punch knows no command {command.name!r}, but {known}; "
                    "if another version runs, end it with `punch down` and start it again",
                )
            )
            return
        if self._callers >= MAX_CALLERS:
            await caller.end(
                Failure(
                    code="quota",
                    message=f"{MAX_CALLERS} commands are being carried out; end one of those that "
                    "follow the log",
                )
            )
            return
        self._callers += 1
        try:
            await caller.carry_out(handler, command)
        finally:
            self._callers -= 1


class _CallerGone(Exception):
    """The caller went away, or takes nothing."""


class _Caller:
    """Who knows the token, and waits for replies."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        # Of the handler's values and the word that it is at work.
        self._sending = trio.Lock()

    async def carry_out(self, handler: Handler, command: Command) -> None:
        """Call *handler* and send what it says, for as long as the caller is there."""
        async with open_background() as nursery:
            nursery.start_soon(self._watch, nursery.cancel_scope)
            nursery.start_soon(self._reassure, nursery.cancel_scope)
            await self.end(await self._outcome(handler, command))

    async def _outcome(self, handler: Handler, command: Command) -> Reply:
        try:
            return Answer(value=await handler(Call(arguments=command.arguments, tell=self._tell)))
        except PunchError as error:
            return Failure(code=error.code, message=str(error))
        except _CallerGone:
            raise
        except Exception as error:
            # A bug in a command ends that command alone.
            log.error("a command has a bug", exc_info=error, command=command.name)
            return Failure(
                code=PunchError.code,
                message=f"the running punch has a bug ({type(error).__name__}); its log says more",
            )

    async def _tell(self, value: Any) -> None:
        await self._send(encode_reply(Told(value=value)))

    async def end(self, reply: Reply) -> None:
        """Send the last reply."""
        try:
            line = encode_reply(reply)
        except ValueError as error:
            log.error("a command has a bug", exc_info=error)
            line = encode_reply(Failure(code=PunchError.code, message=f"the answer: {error}"))
        await self._send(line)

    async def _send(self, line: bytes) -> None:
        async with self._sending:
            # Half a line makes the connection useless, and it is closed.
            with trio.move_on_after(SEND_SECONDS), suppress(trio.BrokenResourceError):
                await self._stream.send_all(line)
                return
        raise _CallerGone

    async def _reassure(self, scope: trio.CancelScope) -> None:
        while True:
            await trio.sleep(AT_WORK_SECONDS)
            if not self._sending.locked():
                try:
                    await self._send(AT_WORK)
                except _CallerGone:
                    scope.cancel()

    async def _watch(self, scope: trio.CancelScope) -> None:
        # A caller says one thing. Whatever comes then, or its end, is the end.
        with suppress(trio.BrokenResourceError):
            await self._stream.receive_some(_READ_BYTES)
        scope.cancel()


async def _read_command(stream: trio.abc.Stream) -> Command:
    lines = Lines(MAX_COMMAND_BYTES)
    while True:
        line = lines.next()
        if line is not None:
            return decode_command(line)
        data = await stream.receive_some(_READ_BYTES)
        if not data:
            raise RemoteProtocolError("it ended before its command did")
        lines.feed(bytes(data))


@asynccontextmanager
async def open_admin(folder: Path, handlers: Mapping[str, Handler]) -> AsyncIterator[Admin]:
    """Take the commands of this user for as long as the context lasts.

    Args:
      folder: Where commands look for the running program; made if need be, for this user alone.
      handlers: What can be asked for, by name.

    Raises:
      ConfigurationError: if the folder cannot be had, or another program serves it.
      AddressUnavailable: if loopback has no port left.

    """
    with ExitStack() as stack:
        stack.enter_context(claimed(folder))
        try:
            (listener,) = await trio.open_tcp_listeners(0, host=LOOPBACK)
        except OSError as error:
            raise AddressUnavailable(
                f"no port of {LOOPBACK} for commands: {error.strerror}"
            ) from None
        async with listener:
            door = Door.at(listener.socket.getsockname()[1])
            admin = Admin(door.token, handlers)
            # Before it is shown, so that whoever reads it finds somebody there; and what is under
            # way ends after nobody can find it any more.
            async with open_background() as nursery:
                nursery.start_soon(trio.serve_listeners, admin.attend, [listener])
                with shown(folder, door):
                    yield admin
