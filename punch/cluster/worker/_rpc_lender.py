"""What a machine lends by llama.cpp's RPC server: its devices, and a server for each lease.

A server is started once before anything is lent, and asked who it is: a program that does not start
or speaks no RPC is found out then, and not by a borrower. Between two leases none runs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import psutil
import trio

from ..._logs import get_logger
from ...exceptions import BackendError, ConfigurationError
from ...llama_cpp import (
    MemoryBound,
    RpcDevice,
    RpcServer,
    RpcVersion,
    Speeds,
    ask_program,
    find_server,
    measure_lent,
    open_rpc_server,
)
from ...machine import measure_memory
from ..leases import MAX_MEMORY_BYTES, LentDevice, Surveyed, Tenancy

log = get_logger(__name__)

# Of the memory that is free when nothing is said: the machine's other programs grow, too.
DEFAULT_SHARE = 0.75

# A split of less than this holds no layer of any model.
MIN_MEMORY_BYTES = 64 << 20


@attrs.frozen(kw_only=True)
class _Known:
    """What the program says of itself."""

    devices: tuple[RpcDevice, ...]
    version: RpcVersion
    bound: MemoryBound
    build: str
    speeds: tuple[Speeds | None, ...]
    """Of each device; `None` where nobody has measured."""


class LeasedServer:
    """The server of one lease: a `RunningServer`.

    Args:
      server: The server.

    """

    def __init__(self, server: RpcServer) -> None:
        self._server = server

    @property
    def port(self) -> int:
        """The port on loopback where it listens."""
        return self._server.port

    @property
    def pid(self) -> int | None:
        """Its process."""
        return self._server.pid

    @property
    def lost(self) -> trio.Event:
        """Set when it has ended by itself."""
        return self._server.lost

    def cpu_seconds(self) -> float:
        """What it has computed; 0 once it is gone."""
        return self._server.cpu_seconds() or 0.0

    def is_running(self) -> bool:
        """True if its process is there and was not stopped."""
        pid = self._server.pid
        try:
            return pid is not None and psutil.Process(pid).status() not in (
                psutil.STATUS_STOPPED,
                psutil.STATUS_ZOMBIE,
                psutil.STATUS_DEAD,
            )
        except psutil.Error:
            return False


class RpcLender:
    """Lends what an RPC server of llama.cpp can: a `Lender`.

    Args:
      program: The server's program.
      devices: Names of the devices to lend; by default all that are no CPU, and without one the
        CPU.
      memory: Bytes to lend at most, on all devices together; `None` for a share of what is free.
      threads: Threads of a CPU device; by default the program's own number.
      measures: Whether the devices are measured, for the borrowers' plans.
      cache_folder: Where what was measured is kept until the machine starts anew.

    """

    def __init__(
        self,
        program: Path,
        *,
        devices: Sequence[str] = (),
        memory: int | None = None,
        threads: int | None = None,
        measures: bool = True,
        cache_folder: Path | None = None,
    ) -> None:
        self._program = program
        self._devices = tuple(devices)
        self._memory = memory
        self._threads = threads
        self._measures = measures
        self._cache_folder = cache_folder
        self._known: _Known | None = None

    async def learn(self) -> None:
        """Start the program once and ask it who it is, and measure its devices.

        Raises:
          BackendError: if it does not start, lends nothing, or no token is made with it.

        """
        # With a bound, though it is one that is never met: whether it holds is to be seen.
        async with self._open(self._devices, self._memory or MAX_MEMORY_BYTES) as running:
            devices = _named(running.devices())
            version, bound = running.version, running.bound
        if not devices:
            raise BackendError(f"{self._program} has no device to lend")
        build, speeds = "", tuple[Speeds, ...]()
        server = find_server(self._program)
        if server is not None:
            try:
                found = await ask_program(server, setting="the llama-server beside it")
                build = found.version or ""
                if self._measures:
                    speeds = await self._measured(server)
            except ConfigurationError as error:
                log.warning("what is lent could not be measured", program=server, why=str(error))
        elif self._measures:
            log.warning(
                "no llama-server stands beside the RPC server, so its devices are not measured, "
                "and borrowers plan with what is usual",
                program=self._program,
            )
        self._known = _Known(
            devices=devices,
            version=version,
            bound=bound,
            build=build,
            speeds=speeds if len(speeds) == len(devices) else (None,) * len(devices),
        )

    async def _measured(self, server: Path) -> tuple[Speeds, ...]:
        return await measure_lent(
            server,
            self._program,
            self._devices,
            threads=self._threads,
            cache_folder=self._cache_folder,
        )

    def _limit(self) -> int:
        """Bytes that may be lent now, on all devices."""
        if self._memory is not None:
            return self._memory
        _, free = measure_memory()
        own = sum(each.free_bytes for each in self._others())
        return own + int((free or 0) * DEFAULT_SHARE)

    def _others(self) -> tuple[RpcDevice, ...]:
        """The devices that are no CPU."""
        found = () if self._known is None else self._known.devices
        return tuple(each for each in found if not _is_cpu(each.name))

    async def survey(self) -> Surveyed:
        """What there is to lend now; raises `BackendError`."""
        if self._known is None:
            await self.learn()
        known = self._known
        assert known is not None
        limit = left = self._limit()
        _, available = measure_memory()
        devices = []
        for device, speeds in zip(known.devices, known.speeds, strict=True):
            real = device.free_bytes
            if _is_cpu(device.name):
                # The server says that all of it is free.
                real = device.total_bytes if available is None else available
            free = max(0, min(real, left, device.total_bytes))
            left -= free
            devices.append(
                LentDevice(
                    name=device.name,
                    description=device.description[:128],
                    total=device.total_bytes,
                    free=free,
                    bandwidth=0.0 if speeds is None else speeds.bandwidth,
                    compute=0.0 if speeds is None else speeds.compute,
                )
            )
        return Surveyed(
            devices=tuple(devices),
            memory=min(limit, sum(device.free for device in devices)),
            bound=known.bound,
            rpc=attrs.astuple(known.version),
            build=known.build[:128],
            threads=self._threads or 0,
        )

    @asynccontextmanager
    async def open_server(self, tenancy: Tenancy) -> AsyncIterator[LeasedServer]:
        """A server for one lease; raises `BackendError`."""
        known = self._known
        wanted = tenancy.devices
        if known is not None and wanted == tuple(each.name for each in known.devices):
            # As the program itself orders them.
            wanted = self._devices
        async with self._open(wanted, tenancy.memory) as server:
            yield LeasedServer(server)

    @asynccontextmanager
    async def _open(self, devices: Sequence[str], memory: int) -> AsyncIterator[RpcServer]:
        async with open_rpc_server(
            self._program,
            devices=devices,
            threads=self._threads,
            memory=memory,
            # A cache would grow without a bound, and the server believes whatever is in it.
            cache_folder=None,
        ) as server:
            yield server


def _named(devices: Sequence[RpcDevice]) -> tuple[RpcDevice, ...]:
    """*devices*, each with a name: a build that prints none is given the numbers of a head."""
    return tuple(
        device if device.name else attrs.evolve(device, name=f"RPC{number}")
        for number, device in enumerate(devices)
    )


def _is_cpu(name: str) -> bool:
    return name.startswith("CPU")


@asynccontextmanager
async def open_rpc_lender(
    program: str | Path,
    *,
    devices: Sequence[str] = (),
    memory: int | None = None,
    threads: int | None = None,
    measures: bool = True,
    cache_folder: Path | None = None,
) -> AsyncIterator[RpcLender]:
    """What a machine lends, for as long as the context lasts; its program has answered once.

    Args:
      program: llama.cpp's ``ggml-rpc-server``, or ``rpc-server`` of an older build.
      devices: Names of the devices to lend; by default all that are no CPU, and without one the
        CPU.
      memory: Bytes to lend at most, on all devices together; by default three quarters of the main
        memory that is free, and all that is free of other devices.
      threads: Threads of a CPU device; by default the program's own number.
      measures: Measure how fast the devices are, for the borrowers' plans: by the llama-server that
        stands beside the program, in a second or two.
      cache_folder: Where what was measured is kept until the machine starts anew; by default it is
        measured each time.

    Raises:
      BackendError: if the program does not start, or has no device.

    """
    lender = RpcLender(
        Path(program),
        devices=devices,
        memory=memory,
        threads=threads,
        measures=measures,
        cache_folder=cache_folder,
    )
    await lender.learn()
    yield lender
