"""Asks the running punch: finds it by its file, sends one command, and gives what it says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import trio

from .. import exceptions
from ..exceptions import ConfigurationError, NotRunning, PunchError, RemoteProtocolError
from ._door import Door, read_door
from ._lines import (
    MAX_REPLY_BYTES,
    Answer,
    Command,
    Failure,
    Lines,
    Reply,
    Told,
    decode_reply,
    encode_command,
)
from ._server import LOOPBACK

# It says every second that it is at work; who says nothing for this time hangs.
SILENT_SECONDS = 15.0

_READ_BYTES = 64 << 10


class Replies:
    """What a command is told: iterate over it. Made by `follow`."""

    def __init__(self, stream: trio.abc.Stream, door: Door) -> None:
        self._stream = stream
        self._door = door
        self._lines = Lines(MAX_REPLY_BYTES)
        self.value: Any = None
        """What the command came to, once there is nothing more to iterate over."""
        self._ended = False

    def __aiter__(self) -> Replies:
        return self

    async def __anext__(self) -> Any:
        if self._ended:
            raise StopAsyncIteration
        reply = await self._next()
        if isinstance(reply, Told):
            return reply.value
        self._ended = True
        if isinstance(reply, Failure):
            raise _error_of(reply)
        self.value = reply.value
        raise StopAsyncIteration

    async def _next(self) -> Told | Answer | Failure:
        while True:
            line = self._lines.next()
            if line:
                reply: Reply = decode_reply(line)
                return reply
            if line is None:
                self._lines.feed(await self._receive())

    async def _receive(self) -> bytes:
        with trio.move_on_after(SILENT_SECONDS):
            try:
                data = await self._stream.receive_some(_READ_BYTES)
            except trio.BrokenResourceError:
                data = b""
            if data:
                return bytes(data)
            raise _gone(self._door, "ended before it had answered")
        raise _gone(self._door, f"says nothing for {SILENT_SECONDS:.0f} s")


async def call(folder: Path, command: str, /, **arguments: Any) -> Any:
    """Have the running punch carry out *command*; what that came to.

    Args:
      folder: The folder that the running program serves.
      command: The name of a handler there.
      arguments: What the handler is given: JSON.

    Raises:
      NotRunning: if none runs, or it does not answer.
      PunchError: the very error that the handler raised.

    """
    async with follow(folder, command, **arguments) as replies:
        async for _ in replies:
            pass
        return replies.value


@asynccontextmanager
async def follow(folder: Path, command: str, /, **arguments: Any) -> AsyncIterator[Replies]:
    """Have the running punch carry out *command*, and iterate over what it tells meanwhile.

    The command is cancelled there when the context ends before it does. Arguments and errors are
    those of `call`; errors of the handler come out of the iteration.
    """
    door = read_door(folder)
    if door is None:
        raise NotRunning("no `punch up` of this user runs here: start it with `punch up`")
    try:
        line = encode_command(Command(token=door.token, name=command, arguments=arguments))
    except ValueError as error:
        raise ConfigurationError(f"the arguments of {command!r} cannot be sent: {error}") from None
    try:
        with trio.fail_after(SILENT_SECONDS):
            stream = await trio.open_tcp_stream(LOOPBACK, door.port)
    except (OSError, trio.TooSlowError):
        raise _gone(door, "does not answer") from None
    async with stream:
        try:
            with trio.fail_after(SILENT_SECONDS):
                await stream.send_all(line)
        except (trio.BrokenResourceError, trio.TooSlowError):
            raise _gone(door, "takes no command") from None
        try:
            yield Replies(stream, door)
        except RemoteProtocolError as error:
            raise _gone(door, f"answers what is none of ours ({error})") from None


def _gone(door: Door, how: str) -> NotRunning:
    return NotRunning(
        f"`punch up` (process {door.mark.pid}) {how}: look at its log; `punch down` ends it, and "
        "`punch up` starts it again"
    )


def _error_of(failure: Failure) -> PunchError:
    kind = _kinds().get(failure.code, PunchError)
    return kind(failure.message)


@cache
def _kinds() -> dict[str, type[PunchError]]:
    """The classes of errors by their codes."""
    found = [each for each in vars(exceptions).values() if isinstance(each, type)]
    return {each.code: each for each in found if issubclass(each, PunchError)}
