"""Asks an RPC server who it is: its version and its devices, in a bounded time.

A server serves one client at a time, and a second one's hello waits until the first is gone. What
was asked is therefore never abandoned: a server that answers a client that has left gets SIGPIPE
and dies, with all of its borrower's work. A caller that loses patience gets its error, and the
connection stays until it is answered, and nobody is asked a second time before that. A server that
is leased is not to be asked at all.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import trio

from ..exceptions import BackendError, PunchError
from ._rpc_protocol import (
    DEVICE_COUNT,
    GET_DEVICE_MEMORY,
    HELLO,
    HELLO_REQUEST,
    REPLY_HEAD,
    REQUEST_HEAD,
    RpcDevice,
    RpcFacts,
    RpcVersion,
)
from ._rpc_waiting import hand_over

# An idle server on this machine answers within a millisecond, and one beyond a slow link within a
# second; one with a CUDA device needs its time before it listens at all.
DEFAULT_PATIENCE_SECONDS: Final = 3.0

# The answers are 4 to 28 bytes; a later version may say more of itself.
MAX_ANSWER_BYTES: Final = 4096

# llama.cpp's own limit of servers is 16.
MAX_DEVICES: Final = 64

# Questions whose asker has lost patience and that wait for their answer; each holds a descriptor.
MAX_UNANSWERED: Final = 16

_Place = tuple[str, int]

# Where each of them was put.
_unanswered: dict[object, _Place] = {}

# Who asks which server now; those that come meanwhile wait their turn.
_turns: dict[_Place, trio.Lock] = {}


async def rpc_hello(
    host: str,
    port: int,
    *,
    patience: float = DEFAULT_PATIENCE_SECONDS,
    outlives: bool = False,
) -> RpcFacts:
    """Ask the RPC server at *host* and *port* for its version and its devices.

    Args:
      host: Where it listens; for a server of our own that is loopback.
      port: The port there.
      patience: Seconds for all of it, from the connection to the last answer.
      outlives: Await an answer that is due even after this program has ended, in a process of its
        own: for a server that is not one of ours, which would die of it.

    Raises:
      BackendError: if nobody listens there, or what listens is no RPC server, or says nothing in
        time. The text says which.

    """
    where = f"the RPC server at {host}:{port}"
    if len(_unanswered) >= MAX_UNANSWERED:
        raise BackendError(
            f"{where} is not asked: {MAX_UNANSWERED} others have not answered yet; end those that "
            "hang, or wait until their borrowers are gone"
        )
    said = "is being asked by somebody else here, and answers nothing"
    with trio.move_on_after(patience):
        async with _turn((host, port)):
            if (host, port) in _unanswered.values():
                raise BackendError(
                    f"{where} has not answered what it was asked before: it is busy with a "
                    "borrower, or hangs; it is asked again once it has answered"
                )
            said = "does not take a connection"
            try:
                stream = await trio.open_tcp_stream(host, port)
            except OSError as error:
                raise BackendError(f"{where} cannot be reached: {_words(error)}") from None
            question = _Question(stream, where, (host, port), outlives=outlives)
            said = (
                "takes the connection and answers nothing; it may be busy with a borrower, or hang"
            )
            try:
                return await _ask_all(question)
            except trio.BrokenResourceError:
                raise BackendError(f"{where} closed the connection: {_UNLIKE}") from None
            finally:
                question.leave()
    raise BackendError(f"{where} {said} (for {patience:g} s)")


@asynccontextmanager
async def _turn(place: _Place) -> AsyncIterator[None]:
    """Wait until nobody else here asks the server at *place*."""
    lock = _turns.setdefault(place, trio.Lock())
    try:
        async with lock:
            yield
    finally:
        statistics = lock.statistics()
        if not statistics.locked and not statistics.tasks_waiting:
            _turns.pop(place, None)


_UNLIKE = "it is no RPC server of llama.cpp, or one of another version"


def _words(error: OSError) -> str:
    # trio tells of each address's error in a group that is the cause; the first says enough.
    cause = error.__cause__
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return (cause.strerror if isinstance(cause, OSError) else error.strerror) or str(error)


async def _ask_all(question: _Question) -> RpcFacts:
    hello = await question.ask(HELLO, HELLO_REQUEST)
    if len(hello) < 3:
        raise question.wrong(f"its hello has {len(hello)} bytes, and not 3 or more")
    version = RpcVersion(*hello[:3])
    (count,) = question.unpack("<I", await question.ask(DEVICE_COUNT))
    if count > MAX_DEVICES:
        raise question.wrong(f"it has {count} devices, and not {MAX_DEVICES} at most")
    devices = []
    for number in range(count):
        answer = await question.ask(GET_DEVICE_MEMORY, struct.pack("<I", number))
        free, total = question.unpack("<QQ", answer)
        devices.append(RpcDevice(total_bytes=total, free_bytes=min(free, total)))
    return RpcFacts(version=version, devices=tuple(devices))


class _Question:
    """One connection to an RPC server, and whether an answer is due on it."""

    def __init__(
        self, stream: trio.SocketStream, where: str, place: _Place, *, outlives: bool
    ) -> None:
        self._stream = stream
        self._where = where
        self._place = place
        self._outlives = outlives
        self._received = bytearray()
        self._is_due = False

    async def ask(self, command: int, payload: bytes = b"") -> bytes:
        """Send *command*; what is answered, without its size."""
        self._is_due = True
        await self._stream.send_all(REQUEST_HEAD.pack(command, len(payload)) + payload)
        (size,) = REPLY_HEAD.unpack(await self._receive(REPLY_HEAD.size))
        if size > MAX_ANSWER_BYTES:
            raise self.wrong(f"it answers {size} bytes, and not {MAX_ANSWER_BYTES} at most")
        answer = await self._receive(size)
        self._is_due = False
        return answer

    def unpack(self, form: str, answer: bytes) -> tuple[int, ...]:
        """The numbers in *answer*, which must be as long as *form*."""
        size = struct.calcsize(form)
        if len(answer) != size:
            raise self.wrong(f"an answer has {len(answer)} bytes, and not {size}")
        return struct.unpack(form, answer)

    def wrong(self, why: str) -> PunchError:
        """The error that what answers is no RPC server."""
        # It has answered, whatever that was: nobody waits for anything.
        self._is_due = False
        return BackendError(f"{self._where} answers something else: {why}; {_UNLIKE}")

    async def _receive(self, size: int) -> bytes:
        while len(self._received) < size:
            data = await self._stream.receive_some(MAX_ANSWER_BYTES)
            if not data:
                self._is_due = False
                raise trio.BrokenResourceError
            self._received += data
        answer = bytes(self._received[:size])
        del self._received[:size]
        return answer

    def leave(self) -> None:
        """Close the connection; if an answer is due, once it has come, and not before."""
        if not self._is_due:
            self._stream.socket.close()
            return
        _unanswered[self] = self._place
        trio.lowlevel.spawn_system_task(self._await_answer, name=f"answer of {self._where}")

    async def _await_answer(self) -> None:
        """Wait for what is due, without a limit of time, and close the connection then."""
        try:
            with suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                # The server reads our end after its answer, and closes its own.
                await self._stream.send_eof()
                left = MAX_ANSWER_BYTES
                while left > 0 and (data := await self._stream.receive_some(left)):
                    left -= len(data)
            self._stream.socket.close()
        except trio.Cancelled:
            # The whole program ends. The connection goes with its process, and not before.
            left_open = self._stream.socket.detach()
            if self._outlives:
                hand_over(socket.socket(fileno=left_open))
            raise
        finally:
            _unanswered.pop(self, None)
