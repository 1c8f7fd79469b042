"""Punch's real programs as processes: a bootstrap, listeners, a gateway.

They share a folder for their files and a bootstrap address, and nothing with what else of punch
runs on this machine. What they say goes into a file each, from which is read what they are.
"""

from __future__ import annotations

import json
import os
import pstats
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from _alternatives import Side, free_port, running, wait_until_it_answers
from _http_client import Address
from _processes import by_room

ROOT = Path(__file__).resolve().parent.parent
PROFILED = Path(__file__).with_name("_profiled.py")

START_SECONDS = 60.0

# More than any measurement asks at once: queues are not what is measured.
SLOTS = 256
QUEUE = 4096

MOCK = {"PUNCH_INFERENCE_BACKEND": "mock"}


class Programs:
    """Starts those of a *tree*, by default this one."""

    def __init__(self, folder: Path, *, tree: Path = ROOT) -> None:
        self.folder = folder
        self._tree = tree
        self.bootstrap = f"/ip4/127.0.0.1/tcp/{free_port()}"
        self._started = 0

    @contextmanager
    def program(
        self,
        name: str,
        *options: str,
        ready: str,
        environment: Mapping[str, str] | None = None,
        profiled: bool = False,
    ) -> Iterator[tuple[psutil.Process, dict[str, Any]]]:
        """``python -m punch.NAME``, and the line of its log that begins with *ready*."""
        self._started += 1
        log = self.folder / f"{name}-{self._started}.log"
        command = [sys.executable, *([str(PROFILED)] if profiled else ["-m"]), f"punch.{name}"]
        settings = self._environment(environment or {})
        # ``-m`` looks where the process starts before it looks anywhere else.
        with running([*command, *options], log, settings, cwd=self._tree) as process:
            yield process, _hear(log, process, ready)

    def listener(self, number: int, *options: str, **how: Any) -> Any:
        """A listener that has joined; the first one is the bootstrap, if nobody else is."""
        identity = str(self.folder / f"listener-{number}")
        return self.program("listener", "--identity", identity, *options, ready="listening", **how)

    def mock_listener(
        self, number: int = 0, *, backend: Mapping[str, str] | None = None, **how: Any
    ) -> Any:
        """One that answers at once, by itself or from a server that does."""
        options = ("--slots", str(SLOTS), "--queue", str(QUEUE))
        return self.listener(number, *options, environment=backend or MOCK, **how)

    @contextmanager
    def gateway(self, *options: str, profiled: bool = False) -> Iterator[Side]:
        """A gateway that answers."""
        options = ("--port", "0", *options)
        with self.program("gateway", *options, ready="serving", profiled=profiled) as (
            process,
            line,
        ):
            address = Address(port=int(line["url"].rpartition(":")[2]))
            log = self.folder / f"gateway-{self._started}.log"
            wait_until_it_answers(address, process, log, model="auto")
            yield Side(name="punch", address=address, processes=(process,))

    def _environment(self, further: Mapping[str, str]) -> Mapping[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PUNCH_", "LLAMA_"))}
        return {
            **inherited,
            "PYTHONPATH": str(self._tree),
            "XDG_DATA_HOME": str(self.folder),
            "XDG_CACHE_HOME": str(self.folder),
            "PUNCH_BOOTSTRAP": self.bootstrap,
            "PUNCH_SETTINGS": "none",
            **further,
        }


def _hear(log: Path, process: psutil.Process, event: str) -> dict[str, Any]:
    """The line of its log whose event begins like this, once it is there."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        said = log.read_text(encoding="utf-8", errors="replace")
        for text in said.split("\n")[:-1]:
            if text.startswith("{") and str((line := json.loads(text))["event"]).startswith(event):
                return dict(line)
        if process.status() == psutil.STATUS_ZOMBIE or time.monotonic() > deadline:
            raise RuntimeError(f"{log.stem} did not start: {said[-4000:]}")
        time.sleep(0.05)


class Profile:
    """Of a process that was started with ``profiled=True``."""

    def __init__(self, process: psutil.Process, folder: Path) -> None:
        self._process = process
        self._file = folder / f"{process.pid}.profile"

    def start(self) -> None:
        """From now on."""
        self._file.unlink(missing_ok=True)
        self._process.send_signal(signal.SIGUSR1)

    def stop(self) -> dict[str, float]:
        """CPU seconds by library and room."""
        self._process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + START_SECONDS
        while not self._file.exists():
            if time.monotonic() > deadline:
                raise RuntimeError("the profile did not come")
            time.sleep(0.05)
        return by_room(pstats.Stats(str(self._file)))
