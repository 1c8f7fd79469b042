"""A town of listeners in processes of their own, which can be killed, frozen and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from _alternatives import free_port
from inference import find_model, find_server

import punch

# A home's machine with a model of 7B: a second to the first text, 25 tokens a second after it.
MOCK = {
    "PUNCH_INFERENCE_BACKEND": "mock",
    "PUNCH_MOCK_DECODE_RATE": "25",
    "PUNCH_MOCK_DELAY": "0.7",
}

START_SECONDS = 60.0
STOP_SECONDS = 15.0

# Of the punch that is measured, which may be another tree's: its programs are started, too.
ROOT = Path(punch.__file__).resolve().parent.parent


class Listener:
    """One place in the town: a listener's process, and after its death the next one's."""

    def __init__(self, town: Town, number: int) -> None:
        self.number = number
        self.peer_id: str | None = None
        """While it is there."""
        self._town = town
        self._process: trio.Process | None = None

    async def start(self) -> None:
        """Start it, and return when it has joined."""
        process = self._process = await self._town.start("listener", self.number)
        assert process.stderr is not None
        with trio.fail_after(START_SECONDS):
            said = await _hear(process.stderr, "listening")
        self._town.nursery.start_soon(_drain, process.stderr)
        self.peer_id = said["peer"]

    def freeze(self) -> None:
        """Stop it (SIGSTOP): its connections stand, and it says nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    async def kill(self) -> str:
        """End it without a word; who it was."""
        assert self._process is not None
        assert self.peer_id is not None
        peer_id, self.peer_id = self.peer_id, None
        self._process.kill()
        await self._process.wait()
        return peer_id


class Town:
    """A bootstrap that stays and listeners that come and go."""

    nursery: trio.Nursery

    def __init__(
        self, listeners: int, folder: Path, backend: Mapping[str, str], *, real: bool
    ) -> None:
        self._real = real
        self.bootstrap = f"/ip4/127.0.0.1/tcp/{free_port()}"
        self.listeners = [Listener(self, number) for number in range(listeners)]
        self._folder = folder
        self._backend = backend
        self._processes: list[trio.Process] = []

    @property
    def there(self) -> list[Listener]:
        """Those that can be asked."""
        return [listener for listener in self.listeners if listener.peer_id is not None]

    async def start(self, program: str, number: int = 0) -> trio.Process:
        """Start a program of punch."""
        arguments = []
        if program == "listener":
            arguments = ["--identity", str(self._folder / f"identity-{number}")]
            # One mock alone can carry everything: deaths are measured, and no overload.
            arguments += ["--context", "1024", "--slots", "1" if self._real else "8"]
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", f"punch.{program}", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=self._environment(),
        )
        self._processes.append(process)
        return process

    def _environment(self) -> Mapping[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PUNCH_", "LLAMA_"))}
        return {
            **inherited,
            **self._backend,
            "PYTHONPATH": str(ROOT),
            "XDG_DATA_HOME": str(self._folder),
            "XDG_CACHE_HOME": str(self._folder),
            "PUNCH_BOOTSTRAP": self.bootstrap,
        }

    async def end(self) -> None:
        """End everything that was started."""
        for process in self._processes:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
        with trio.move_on_after(STOP_SECONDS):
            for process in self._processes:
                await process.wait()
        for process in self._processes:
            if process.returncode is None:
                process.kill()
                await process.wait()


def _real() -> Mapping[str, str]:
    return {
        "PUNCH_INFERENCE_BACKEND": "llama_cpp",
        "LLAMA_CPP_EXE": str(find_server()),
        "LLAMA_GGUF_PATH": str(find_model()),
        "LLAMA_THREADS": "1",
        # A prompt read in one piece gives numbers that differ in their last bits from those of
        # an answer made token by token, and now and then another word. Not what is tested here.
        "LLAMA_ARG_UBATCH": "1",
    }


async def _hear(stderr: trio.abc.ReceiveStream, event: str) -> dict[str, str]:
    """The first log line whose event begins like this."""
    heard = b""
    async for data in stderr:
        heard += data
        for line in heard.split(b"\n")[:-1]:
            if line.startswith(b"{"):
                said: dict[str, str] = json.loads(line)
                if said["event"].startswith(event):
                    return said
    raise RuntimeError(f"a program ended before it said {event!r}:\n{heard.decode()}")


async def _drain(stderr: trio.abc.ReceiveStream) -> None:
    async for _ in stderr:
        pass


@asynccontextmanager
async def open_town(listeners: int, *, real: bool = False) -> AsyncIterator[Town]:
    """A bootstrap and so many listeners, all joined: mocks, or *real* ones with SmolLM2."""
    with tempfile.TemporaryDirectory() as folder:
        town = Town(listeners, Path(folder), _real() if real else MOCK, real=real)
        try:
            async with trio.open_nursery() as town.nursery:
                bootstrap = await town.start("bootstrap")
                assert bootstrap.stderr is not None
                await _hear(bootstrap.stderr, "bootstrap")
                town.nursery.start_soon(_drain, bootstrap.stderr)
                async with trio.open_nursery() as starting:
                    for listener in town.listeners:
                        starting.start_soon(listener.start)
                yield town
                town.nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await town.end()
