"""RPC servers that run already: lent without a lease, a tunnel or a secret.

The head reaches them through a relay of this process, which counts bytes and reads along, so that
a server which ends or hangs is noticed as a worker is that is reached through a tunnel. RPC has no
protection of its own: unless plain RPC is allowed, nothing but loopback is reached so, and then
nothing outside this machine's own networks. What is reached so is called by what it is.
"""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial

import attrs
import psutil
import trio

from ..._background import open_background
from ...exceptions import BackendError, ConfigurationError
from ...llama_cpp import RpcDevice, RpcFacts, RpcFrames, rpc_hello
from ...network import own_address
from ...placement import Link
from ...processes import busy_seconds
from ._lending import Lendable, LentDevice, LoanLook
from ._workers import UNMEASURED_RATE

# A server on this machine answers a hello within milliseconds, unless it has a borrower or hangs.
HELLO_SECONDS = 2.0

CONNECT_SECONDS = 2.0

# As much as a pipe holds, in bytes.
_PIECE = 64 * 1024

# Through the relay; what the head computes takes a hundred times as long.
_LINK = Link(rtt=0.0003, rate=500e6)


# Of a processor a server says that all of the machine's memory is free; so much of it is.
_FREE_SHARE = 0.75

UNAUTHENTICATED = "unauthenticated@"
"""What the name of a server begins with that is reached by plain RPC, wherever it is shown."""


@attrs.frozen(kw_only=True)
class PlainSpeeds:
    """How fast the processor is whose memory such servers lend."""

    bandwidth: float
    """Bytes of weights a second."""

    compute: float
    """Multiply-adds a second."""


class PlainLender:
    """A server at a port of loopback, which the user named as one of this machine.

    Args:
      address: ``127.0.0.1:PORT``.
      speeds: How fast this machine is.

    Raises:
      ConfigurationError: if the address is not one of loopback.

    """

    def __init__(self, address: str, *, speeds: PlainSpeeds) -> None:
        self.name = address
        """Its address."""
        self._server = _Server(self.name, *read_address(address))
        self._speeds = speeds

    async def survey(self) -> Lendable:
        """What the server says of itself; it is not asked while it is lent."""
        facts, _ = await self._server.ask()
        memory = psutil.virtual_memory()
        devices = _devices(
            facts.devices,
            self._speeds,
            # Of a processor, a server says that all of the machine's memory is free.
            lambda device: (
                min(device.free_bytes, memory.available)
                if device.total_bytes >= memory.total
                else device.free_bytes
            ),
        )
        return Lendable(devices=devices, version=facts.version, link=_LINK, is_own=True)

    def take(self) -> AbstractAsyncContextManager[PlainLoan]:
        """Use the server until the context ends."""
        return self._server.take(is_own=True)


class ForeignLender:
    """A server that nobody of punch started, on this machine or in one of its own networks.

    Nobody proves that the server is the one that was meant, or hides what is sent there, so it
    counts as nobody's own even where its port is one of loopback: that may lead anywhere.

    Args:
      address: ``HOST:PORT``, with an IP address or a name.
      speeds: How fast it is taken to be, since it does not say.
      is_allowed: Whether plain RPC may be used.

    """

    def __init__(self, address: str, *, speeds: PlainSpeeds, is_allowed: bool) -> None:
        host, _, port = address.rpartition(":")
        self.name = f"{UNAUTHENTICATED}{address}"
        """Its address, and that it is not authenticated."""
        self._host = host.strip("[]")
        self._server = _Server(self.name, self._host, int(port))
        self._speeds = speeds
        self._is_allowed = is_allowed

    async def _look(self) -> None:
        """See that the server may be talked to now, and where it is.

        Raises:
          BackendError: if it may not; the text says what must be done.

        """
        if not self._is_allowed:
            raise BackendError(
                "plain RPC is not allowed: it neither proves who is at its other end nor hides "
                "what is asked; --allow-plain-rpc allows it, and `punch worker` there needs none"
            )
        found = await own_address(self._host)
        if found is None:
            raise BackendError(
                f"{self._host} is in no private network of this machine, and plain RPC leaves "
                "none; run `punch worker` there"
            )
        self._server.host = found

    async def survey(self) -> Lendable:
        """What the server says of itself; it is not asked while it is lent."""
        await self._look()
        facts, rtt = await self._server.ask()
        devices = _devices(
            facts.devices,
            self._speeds,
            lambda device: (
                int(device.free_bytes * _FREE_SHARE)
                if device.free_bytes == device.total_bytes
                else device.free_bytes
            ),
        )
        link = Link(rtt=rtt, rate=UNMEASURED_RATE)
        return Lendable(devices=devices, version=facts.version, link=link, is_authenticated=False)

    @asynccontextmanager
    async def take(self) -> AsyncIterator[PlainLoan]:
        """Use the server until the context ends."""
        await self._look()
        async with self._server.take(is_own=False) as loan:
            yield loan


class _Server:
    """One server, which is asked or used by one at a time."""

    def __init__(self, name: str, host: str, port: int) -> None:
        self._name = name
        self.host = host
        """Its IP address; a name until it was looked up."""
        self._port = port
        self._is_lent = False

    async def ask(self) -> tuple[RpcFacts, float]:
        """What it says of itself, and the seconds of one way there and back."""
        if self._is_lent:
            raise BackendError(f"{self._name} is lent to another split of this process")
        began = trio.current_time()
        facts = await rpc_hello(self.host, self._port, patience=HELLO_SECONDS, outlives=True)
        # The connection, its hello, how many devices there are, and each of them.
        return facts, (trio.current_time() - began) / (3 + len(facts.devices))

    @asynccontextmanager
    async def take(self, *, is_own: bool) -> AsyncIterator[PlainLoan]:
        """Use it until the context ends."""
        facts, _ = await self.ask()
        if self._is_lent:
            raise BackendError(f"{self._name} is lent to another split of this process")
        self._is_lent = True
        try:
            pid = None
            if ipaddress.ip_address(self.host).is_loopback:
                pid = await trio.to_thread.run_sync(partial(_listener_at, self._port))
            async with open_background() as nursery:
                (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
                loan = PlainLoan(
                    self._name,
                    (self.host, self._port),
                    listener,
                    devices=len(facts.devices),
                    pid=pid,
                    is_own=is_own,
                )
                nursery.start_soon(trio.serve_listeners, loan.carry, [listener])
                yield loan
        finally:
            self._is_lent = False


def _devices(
    found: Sequence[RpcDevice], speeds: PlainSpeeds, memory: Callable[[RpcDevice], int]
) -> tuple[LentDevice, ...]:
    return tuple(
        LentDevice(
            name=f"device{number}" if found[1:] else "",
            memory=memory(device),
            bandwidth=speeds.bandwidth,
            compute=speeds.compute,
        )
        for number, device in enumerate(found)
    )


class PlainLoan:
    """The relay to one server, and what went through it."""

    def __init__(
        self,
        name: str,
        target: tuple[str, int],
        listener: trio.SocketListener,
        *,
        devices: int,
        pid: int | None,
        is_own: bool,
    ) -> None:
        self._name = name
        self._target = target
        self._pid = pid
        self._port: int = listener.socket.getsockname()[1]
        self._open: set[RpcFrames] = set()
        self._up = 0
        self.link: Link | None = None
        """As in the survey."""
        self.devices = devices
        """How many devices the server lists."""
        self.is_own = is_own
        """Whether its machine is known to be of the head's own owner."""
        self.lost = trio.Event()
        """Set when the server has gone."""
        self.why = ""
        """How that was seen."""
        self.memory: int | None = None
        """Never told: there is no lease."""
        self._fault: str | None = None

    @property
    def endpoint(self) -> str:
        """Where the head reaches the server."""
        return f"127.0.0.1:{self._port}"

    @property
    def bytes_up(self) -> int:
        """Bytes that the head has sent to the server."""
        return self._up

    @property
    def oldest_reply_age(self) -> float | None:
        """Seconds for which the head waits for a reply of the server."""
        since = [one.counts().oldest_due_since for one in self._open]
        begun = [one for one in since if one is not None]
        return trio.current_time() - min(begun) if begun else None

    @property
    def fault(self) -> str | None:
        """What the server did that a head does not survive."""
        found = (each.counts().fault for each in self._open)
        return self._fault or next((each for each in found if each is not None), None)

    async def look(self) -> LoanLook | None:
        """How the server's process is; `None` if it is another user's."""
        if self._pid is None:
            return None
        try:
            status, used = psutil.Process(self._pid).status(), busy_seconds(self._pid)
        except psutil.NoSuchProcess:
            return LoanLook(cpu_seconds=0.0, is_alive=False)
        except psutil.Error:
            return None
        stopped = (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
        return LoanLook(cpu_seconds=used or 0.0, is_alive=status not in stopped)

    async def carry(self, head: trio.SocketStream) -> None:
        """Carry the bytes of one connection of the head, both ways, until it ends."""
        frames = RpcFrames()
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            try:
                with trio.fail_after(CONNECT_SECONDS):
                    server = await trio.open_tcp_stream(*self._target)
            except (OSError, trio.TooSlowError):
                self._lose(f"nothing takes connections at {self._name}")
                return
            self._open.add(frames)
            try:
                async with server, trio.open_nursery() as nursery:
                    nursery.start_soon(self._up_from, head, server, frames, nursery.cancel_scope)
                    await self._down_from(server, head, frames)
                    nursery.cancel_scope.cancel()
            finally:
                self._open.discard(frames)
                self._fault = self._fault or frames.counts().fault

    async def _up_from(
        self,
        head: trio.SocketStream,
        server: trio.SocketStream,
        frames: RpcFrames,
        scope: trio.CancelScope,
    ) -> None:
        try:
            while data := await head.receive_some(_PIECE):
                frames.feed_up(data, trio.current_time())
                try:
                    await server.send_all(data)
                except trio.BrokenResourceError:
                    self._lose(f"{self._name} broke the connection")
                    raise
                self._up += len(data)
            # What is closed by the head first is no loss: all of it has arrived.
            self._open.discard(frames)
            await server.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._open.discard(frames)
            scope.cancel()

    async def _down_from(
        self, server: trio.SocketStream, head: trio.SocketStream, frames: RpcFrames
    ) -> None:
        try:
            while data := await server.receive_some(_PIECE):
                frames.feed_down(data, trio.current_time())
                await head.send_all(data)
        except trio.BrokenResourceError:
            pass
        if frames in self._open:
            self._lose(f"{self._name} closed the connection")

    def _lose(self, why: str) -> None:
        if not self.lost.is_set():
            self.why = why
            self.lost.set()


def read_address(text: str) -> tuple[str, int]:
    """Host and port of a server on this machine.

    Raises:
      ConfigurationError: if *text* is no such address.

    """
    host, colon, port = text.rpartition(":")
    try:
        is_here = host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        is_here = False
    if not colon or not is_here or not port.isascii() or not port.isdecimal():
        raise ConfigurationError(
            f"--workers {text[:100]!r}: an RPC server is given as 127.0.0.1:PORT, on this machine "
            "only, since RPC has no protection; memory of another machine is lent by "
            "`punch worker` there, and named by its identity, or an RPC server that runs there "
            "already by --rpc-backend and --allow-plain-rpc"
        )
    if not 1 <= int(port) <= 65535:
        raise ConfigurationError(f"--workers {text[:100]!r}: the port must be 1 to 65535")
    return "127.0.0.1" if host == "localhost" else host.strip("[]"), int(port)


def _listener_at(port: int) -> int | None:
    """The process that listens at *port* of this machine; `None` if that cannot be seen."""
    with suppress(psutil.Error, OSError):
        for one in psutil.net_connections(kind="tcp"):
            if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port:
                return int(one.pid) if one.pid else None
    return None
