"""Runs llama.cpp's RPC server for one borrower: on loopback, bounded in memory, ended by us.

Who may borrow, and when a server is started or started anew, is decided by the worker.

* It listens on 127.0.0.1 alone, on a port that was free. That it is our own child that listens
  there, and not another program that was faster, is looked at.
* It ignores SIGPIPE: a client that leaves before it has its answer ends nothing but its connection.
* llama.cpp's server has no limit on its memory. Where its devices are the CPU alone, it gets one on
  its address space (Linux) or on its control group; of other devices nobody can limit the memory.
* It speaks TCP alone, which goes through a tunnel.
* It serves until it is told to end, so any end of its own is a failure, exit code 0 too: that is
  how it tells of a port that was taken.
"""

from __future__ import annotations

import math
import os
import re
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, Literal

import attrs
import psutil
import trio

from .._background import open_background
from ..exceptions import BackendCrashed, BackendError
from ..machine import measure_memory
from ..processes import (
    Child,
    LastLines,
    busy_seconds,
    describe_exit,
    open_control_group,
    start_child,
)
from ._rpc_hello import rpc_hello
from ._rpc_protocol import RPC_ENV, RpcDevice, RpcFacts, RpcVersion

MemoryBound = Literal["limit", "cgroup", "promise"]
"""What holds an RPC server to its memory: a limit on its address space, its control group, or
nothing but that the borrower was told."""

# A program with CUDA takes seconds to start, and longer if its kernels must be compiled.
START_SECONDS: Final = 60.0

# Another program may be given the port between our look and the server's.
MAX_STARTS: Final = 3

# Beyond what is lent: what the allocator holds back, and the graph that is being read.
SPARE_BYTES: Final = 8 << 20

# The stack of a thread of OpenMP or ggml, where the system does not say another size.
STACK_BYTES: Final = 8 << 20

# What the server printed at its start is in the pipe when it answers hello, and read at once.
_BANNER_SECONDS: Final = 0.5

_DEVICE = re.compile(r"(\w+): (.+) \(\d+ MiB, \d+ MiB free\)")
_ACCEPTED = "Accepted client connection"


@attrs.frozen(kw_only=True)
class _Command:
    """How the server is started, each time anew; the fields are as in `open_rpc_server`."""

    program: Path
    devices: tuple[str, ...]
    threads: int | None
    memory: int | None
    cache_folder: Path | None
    start_timeout: float

    def argv(self, port: int) -> list[str]:
        argv = [str(self.program), "--host", "127.0.0.1", "--port", str(port)]
        if self.threads is not None:
            argv += ["--threads", str(self.threads)]
        if self.devices:
            argv += ["--device", ",".join(self.devices)]
        if self.cache_folder is not None:
            argv += ["--cache"]
        return argv

    def env(self) -> dict[str, str]:
        cache = {} if self.cache_folder is None else {"LLAMA_CACHE": str(self.cache_folder)}
        return {**RPC_ENV, **cache}


class RpcServer:
    """An RPC server of llama.cpp that runs under punch. Made by `open_rpc_server`."""

    def __init__(self, command: _Command, nursery: trio.Nursery) -> None:
        self._command = command
        self._nursery = nursery
        self._lock = trio.Lock()
        self._things = AsyncExitStack()
        self._child: Child | None = None
        self._serving: int | None = None
        self._facts: RpcFacts | None = None
        self._output = LastLines()
        self._has_printed = trio.Event()
        self.port = 0
        """The port on 127.0.0.1 where it listens; another one after a `restart`."""
        self.bound: MemoryBound = "promise"
        """What holds it to its memory."""
        self.lost = trio.Event()
        """Set when the server has ended by itself; a `restart` makes a new event."""
        self.why: str | None = None
        """Why it has ended by itself, with its last lines; `None` while it runs."""

    @property
    def pid(self) -> int | None:
        """Process id of the server while it runs, and not of a script that has started it."""
        running = None if self._child is None else self._child.pid
        return None if running is None else self._serving

    @property
    def version(self) -> RpcVersion:
        """The protocol that it speaks."""
        assert self._facts is not None
        return self._facts.version

    def devices(self) -> tuple[RpcDevice, ...]:
        """Its devices with what is free of them now, within the memory that it may use.

        Of a CPU the server itself says that all is free, so this machine is asked. Of another
        device it is what was free when the server started, which is when nobody used it.
        """
        assert self._facts is not None
        _, available = measure_memory()
        left = math.inf if self._command.memory is None else self._command.memory
        found = []
        for device in self._facts.devices:
            free = device.free_bytes
            if _is_cpu(device) and available is not None:
                free = min(free, available)
            free = int(min(free, left))
            left -= free
            found.append(attrs.evolve(device, free_bytes=free))
        return tuple(found)

    def cpu_seconds(self) -> float | None:
        """CPU time that it has used or waited for since its start; `None` if it does not run.

        A server that owes an answer and whose time does not move hangs, or is stopped.
        """
        return None if self.pid is None else busy_seconds(self.pid)

    async def restart(self) -> None:
        """End it, with all that its borrower left there, and start it anew.

        Raises:
          BackendCrashed: if it does not start; it may be tried again.

        """
        async with self._lock:
            await self._end()
            await self._start()

    async def start(self) -> None:
        """Start it for the first time; raises as `restart` does."""
        async with self._lock:
            await self._start()

    async def end(self) -> None:
        """End it for good, and wait until it is gone."""
        with trio.CancelScope(shield=True):
            async with self._lock:
                await self._end()

    async def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            # At once: nothing of what it has is to be kept.
            await child.end(0.0)
        await self._things.aclose()

    async def _start(self) -> None:
        said = "the RPC server cannot be started"
        for _ in range(MAX_STARTS):
            try:
                code = await self._start_once()
            except BaseException:
                with trio.CancelScope(shield=True):
                    await self._end()
                raise
            if code is None:
                return
            said = self._describe(code)
            await self._end()
            if code != 0:
                break
        raise BackendCrashed(said)

    def _describe(self, code: int) -> str:
        words = f"the RPC server {self._command.program} ended with {describe_exit(code)}"
        lines = self._output.lines[-6:]
        return words + (
            "; it printed nothing" if not lines else "; it printed: " + " / ".join(lines)
        )

    async def _start_once(self) -> int | None:
        """Start it and wait until it answers; its exit code if it has ended instead."""
        command = self._command
        self.port = _free_port()
        self.lost, self.why, self.bound, self._facts = trio.Event(), None, "promise", None
        self._output, self._has_printed = LastLines(self._hear), trio.Event()
        group = None
        if command.memory is not None:
            spare = SPARE_BYTES + self._stacks()
            group = self._things.enter_context(open_control_group(command.memory + spare))
        try:
            child = await start_child(
                command.argv(self.port),
                env=command.env(),
                grace=0.0,
                ignores_sigpipe=True,
                control_group=group,
            )
        except OSError as error:
            words = f"{command.program} cannot be run: {error.strerror}"
            raise BackendCrashed(words) from None
        self._child = child
        assert child.stderr is not None
        self._nursery.start_soon(self._output.read, child.stdout)
        self._nursery.start_soon(self._output.read, child.stderr)
        facts = await self._await_hello(child)
        if facts is None:
            return await child.wait()
        self._facts = attrs.evolve(facts, devices=await self._with_names(facts.devices))
        if command.memory is not None and all(map(_is_cpu, self._facts.devices)):
            if self._limit(self._serving, command.memory):
                self.bound = "limit"
            elif group is not None:
                self.bound = "cgroup"
        self._nursery.start_soon(self._watch, child, self.lost)
        return None

    async def _watch(self, child: Child, lost: trio.Event) -> None:
        code = await child.wait()
        # What it said last may still be in the pipe.
        await trio.sleep(0.02)
        if child is self._child:
            self.why = self._describe(code)
            lost.set()

    async def _await_hello(self, child: Child) -> RpcFacts | None:
        """What the server says of itself, once it does; `None` if it ends before that."""
        seconds, said = self._command.start_timeout, ["it does not listen"]
        answers: list[RpcFacts] = []
        with trio.move_on_after(seconds) as patience:
            async with open_background() as nursery:
                nursery.start_soon(self._ask, child, seconds, said, answers, nursery.cancel_scope)
                await child.wait()
        if patience.cancelled_caught:
            words = f"the RPC server {self._command.program} did not answer within {seconds:g} s"
            raise BackendCrashed(f"{words}: {said[-1]}")
        return answers[0] if answers else None

    async def _ask(
        self,
        child: Child,
        seconds: float,
        said: list[str],
        answers: list[RpcFacts],
        done: trio.CancelScope,
    ) -> None:
        pause = 0.01
        while True:
            try:
                facts = await rpc_hello("127.0.0.1", self.port, patience=seconds)
            except BackendError as error:
                said.append(str(error))
            else:
                self._serving = _listener(child.pid, self.port)
                if self._serving is not None:
                    answers.append(facts)
                    done.cancel()
                # Otherwise another program has the port; ours says so, and ends.
            await trio.sleep(pause)
            pause = min(pause * 1.5, 0.25)

    async def _with_names(self, devices: Sequence[RpcDevice]) -> tuple[RpcDevice, ...]:
        """*devices* by the names that the server has printed; without names if it has not."""
        with trio.move_on_after(_BANNER_SECONDS):
            # Its output is written when it has its first client, and hello was that.
            await self._has_printed.wait()
        found = [match for line in self._output.lines if (match := _DEVICE.fullmatch(line))]
        if len(found) != len(devices):
            return tuple(devices)
        return tuple(
            attrs.evolve(device, name=match[1], description=match[2])
            for device, match in zip(devices, found, strict=True)
        )

    def _hear(self, line: str) -> None:
        if line == _ACCEPTED:
            self._has_printed.set()

    def _stacks(self) -> int:
        # The first thread has its stack from the start.
        threads = self._command.threads or os.cpu_count() or 1
        return (threads - 1) * _stack_bytes()

    def _limit(self, pid: int | None, memory: int) -> bool:
        """Limit the address space of process *pid* to *memory* beyond what it has; if that went."""
        if sys.platform != "linux" or pid is None:
            # Elsewhere the limit can be set by the process alone, and macOS ignores it.
            return False
        import resource

        try:
            held = psutil.Process(pid).memory_info().vms
            most = held + memory + SPARE_BYTES + self._stacks()
            resource.prlimit(pid, resource.RLIMIT_AS, (most, most))
        except (psutil.Error, OSError, ValueError):
            return False
        return True


def _is_cpu(device: RpcDevice) -> bool:
    return device.name.startswith("CPU")


def _free_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
        return port


def _listener(pid: int | None, port: int) -> int | None:
    """Which process listens on *port*: *pid*, or one that it has started; `None` if another does.

    *pid* where the system does not tell.
    """
    if pid is None:
        return None
    try:
        program = psutil.Process(pid)
        for process in (program, *program.children(recursive=True)):
            for one in process.net_connections(kind="tcp"):
                if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port:
                    return int(process.pid)
    except psutil.NoSuchProcess:
        return None
    except (psutil.Error, OSError):
        return pid
    return None


def _stack_bytes() -> int:
    """Address space that a thread takes for its stack."""
    if sys.platform == "win32":
        return STACK_BYTES
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_STACK)
    # Unlimited is 2 to 8 MiB, by the system; a page beside it guards it.
    return (STACK_BYTES if soft == resource.RLIM_INFINITY else soft) + 65536


@asynccontextmanager
async def open_rpc_server(
    program: str | Path,
    *,
    devices: Sequence[str] = (),
    threads: int | None = None,
    memory: int | None = None,
    cache_folder: Path | None = None,
    start_timeout: float = START_SECONDS,
) -> AsyncIterator[RpcServer]:
    """Start an RPC server of llama.cpp on loopback; enter when it answers, end it on the way out.

    The server and all that it starts also end when this process does, in whatever way.

    Args:
      program: ``ggml-rpc-server``, or ``rpc-server`` of an older build; see `find_rpc_server`.
      devices: Names of the devices to lend, as the program lists them; by default all that are no
        CPU, and without one the CPU.
      threads: Threads for a CPU device; by default the program's own number.
      memory: Bytes that a borrower may use on all devices together: weights, cache, computing, and
        the message of the biggest tensor while it arrives. `None` for no bound at all.
      cache_folder: Where the server keeps big tensors for the next load. It does not check them
        again, so it is one borrower's alone. `None` for none.
      start_timeout: Seconds from its start until it must answer.

    Raises:
      BackendCrashed: if it does not start; the text has its last lines.

    """
    command = _Command(
        program=Path(program),
        devices=tuple(devices),
        threads=threads,
        memory=memory,
        cache_folder=cache_folder,
        start_timeout=start_timeout,
    )
    async with open_background() as nursery:
        server = RpcServer(command, nursery)
        try:
            await server.start()
            yield server
        finally:
            await server.end()
