"""Processes that do what they are told: one line of JSON in, one line of JSON out.

A measurement starts a `Child` for each peer and tells one of them at a time what to do, so
that the sides that are compared take turns within one run. A child runs `serve`.
"""

from __future__ import annotations

import cProfile
import json
import os
import pstats
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import trio
from _results import shares

HERE = Path(__file__).parent

# Longer than any command takes on a busy machine; a child that needs more hangs.
COMMAND_SECONDS = 180.0
FAREWELL_SECONDS = 10.0

Command = Callable[..., Awaitable[Any]]


class Child:
    """A process that runs ``python SCRIPT OPTIONS``, the options as JSON.

    The script, and the punch that it imports, are those of a *tree*, by default this one. It starts
    at once; the first `ask` waits until it is ready. Leaving the context ends it.
    """

    def __init__(self, script: str, *, tree: Path = HERE.parent, **options: Any) -> None:
        self.name = script
        command = [sys.executable, str(tree / HERE.name / script), json.dumps(options)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(tree)},
        )
        self._greeting: Any = None

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def greeting(self) -> Any:
        """What it said when it was ready."""
        if self._greeting is None:
            self._greeting = self._hear()
        return self._greeting

    def ask(self, command: str, **arguments: Any) -> Any:
        """Have it run *command*, and return what it answers."""
        _ = self.greeting
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([command, arguments]) + "\n")
        self._process.stdin.flush()
        return self._hear()

    def cpu(self) -> float:
        """CPU seconds it has used so far."""
        return float(self.ask("cpu"))

    def _hear(self) -> Any:
        assert self._process.stdout is not None
        # A pipe has no timeout of its own, and `select` is for sockets only on Windows.
        guard = threading.Timer(COMMAND_SECONDS, self._process.kill)
        guard.start()
        try:
            line = self._process.stdout.readline()
        finally:
            guard.cancel()
        if not line:
            raise RuntimeError(f"{self.name} ended or hung; its last words are above")
        return json.loads(line)

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(FAREWELL_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def punch_pair(stack: ExitStack, **settings: Any) -> tuple[Child, Child]:
    """A punch listener with the backend that *settings* name, and a dialer that has joined it."""
    listener = stack.enter_context(Child("_punch_listener.py", **settings))
    where = {name: listener.greeting[name] for name in ("bootstrap", "namespace", "address")}
    return listener, stack.enter_context(Child("_punch_dialer.py", **where))


def bare_pair(stack: ExitStack) -> tuple[Child, Child]:
    """The same two of py-libp2p alone."""
    listener = stack.enter_context(Child("_bare_peers.py", role="listener"))
    address = listener.greeting
    return listener, stack.enter_context(Child("_bare_peers.py", role="dialer", address=address))


def where_time_goes(
    dialer: Child, listener: Child, command: str, **arguments: Any
) -> tuple[str, str]:
    """A sentence on each side's CPU time while the dialer runs *command*, from cProfile."""
    sides = {"dialer": dialer, "listener": listener}
    for child in sides.values():
        child.ask("profile_start")
    dialer.ask(command, **arguments)
    found = [
        f"The {side}'s CPU time (profiled): {shares(child.ask('profile_stop'))}."
        for side, child in sides.items()
    ]
    return found[0], found[1]


# ---- the child's side ----


def options() -> dict[str, Any]:
    """The options that this process was started with."""
    given: dict[str, Any] = json.loads(sys.argv[1])
    return given


def claim_output() -> Callable[[Any], None]:
    """Keep standard output for answers: whatever else prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(value: Any) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    return say


async def serve(commands: Mapping[str, Command], *, greeting: Any = True) -> None:
    """Say *greeting*, then run what the parent asks for until it closes standard input."""
    say = claim_output()
    own = {"cpu": _cpu, **_profiling(), **commands}
    say(greeting)
    while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
        name, arguments = json.loads(line)
        say(await own[name](**arguments))


async def _cpu() -> float:
    return time.process_time()


def _profiling() -> dict[str, Command]:
    # By CPU time: by the clock, whoever is preempted while it wakes the other side looks slow.
    profile = cProfile.Profile(time.process_time)

    async def profile_start() -> None:
        profile.enable()

    async def profile_stop() -> dict[str, float]:
        profile.disable()
        return by_room(pstats.Stats(profile))

    return {"profile_start": profile_start, "profile_stop": profile_stop}


# Part of a path, or of the name of a built-in function -> what it belongs to, first match first.
_ROOMS = (
    ("_yamux_defects", "Yamux (patched)"),
    ("_streams.py", "Yamux (patched)"),
    ("punch/gateway", "punch.gateway"),
    ("punch/libp2p", "punch.libp2p"),
    ("punch/session", "punch.session"),
    ("punch/wire", "punch.wire"),
    ("punch/dialer", "punch.dialer"),
    ("punch/listener", "punch.listener"),
    ("punch/peers", "punch.peers"),
    ("punch/routing", "punch.routing"),
    ("punch/", "punch, other"),
    ("httptools", "httptools"),
    ("/starlette/", "Starlette"),
    ("/pydantic", "pydantic"),
    ("prometheus_client", "prometheus-client"),
    ("structlog", "logging"),
    ("/trio/", "trio"),
    ("/outcome/", "trio"),
    ("libp2p/stream_muxer", "Yamux"),
    ("libp2p/security", "Noise"),
    ("noise/", "Noise"),
    ("cryptography", "Noise"),
    ("ChaCha20", "Noise"),
    ("/libp2p/", "libp2p, other"),
    ("method 'send' of '_socket", "system calls"),
    ("method 'recv", "system calls"),
    ("epoll", "system calls"),
    ("contextlib.py", "trio"),
    ("contextvars", "trio"),
    ("coroutine", "trio"),
    ("msgpack", "punch.wire"),
    ("logging", "logging"),
    ("attr", "attrs"),
)


def by_room(stats: pstats.Stats) -> dict[str, float]:
    """CPU seconds spent in each library and room."""
    found: dict[str, float] = defaultdict(float)
    for (file, _, function), timing in stats.stats.items():  # type: ignore[attr-defined]  # not in typeshed
        place = f"{file.replace(os.sep, '/')} {function}"
        room = next((room for part, room in _ROOMS if part in place), "built-ins and the rest")
        found[room] += timing[2]  # Without what it called.
    return dict(found)
