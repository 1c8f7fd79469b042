"""Punch's real programs as child processes: start them, read what they say, leave none behind."""

from __future__ import annotations

import codecs
import functools
import inspect
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import IO, Any, TypeVar

import attrs
import psutil
import trio

ROOT = Path(__file__).parents[2]

# In the environment of every process that a `Programs` starts, and so of its children: by this,
# and by nothing else, they are found again.
MARK = "PUNCH_TEST_PROGRAMS"

# A program starts in one to two seconds on a quiet machine.
START_SECONDS = 60.0
# A drain takes at most 10 s, closing a node 3 s.
STOP_SECONDS = 30.0

NONE: Mapping[str, str] = MappingProxyType({})
"""No variables."""

T = TypeVar("T")


def alive(pid: int) -> bool:
    """Whether *pid* runs; a zombie does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def limit(seconds: float) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Fail a test, sync or async, that takes longer."""

    def decorate(test: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.iscoroutinefunction(test):

            @functools.wraps(test)
            async def limited(*args: Any, **kwargs: Any) -> None:
                with trio.fail_after(seconds):
                    await test(*args, **kwargs)

            return limited

        def ring(number: int, frame: FrameType | None) -> None:
            raise TimeoutError(f"the test took longer than {seconds:g} s")

        @functools.wraps(test)
        def timed(*args: Any, **kwargs: Any) -> None:
            before = signal.signal(signal.SIGALRM, ring)
            signal.setitimer(signal.ITIMER_REAL, seconds)
            try:
                test(*args, **kwargs)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, before)

        return timed

    return decorate


async def off(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Call something that blocks from an async test."""
    return await trio.to_thread.run_sync(partial(function, *args, **kwargs), abandon_on_cancel=True)


def free_port() -> int:
    """A port that nobody has on TCP or UDP just now."""
    while True:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        ):
            tcp.bind(("127.0.0.1", 0))
            port: int = tcp.getsockname()[1]
            try:
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


@attrs.frozen(kw_only=True)
class Result:
    """What a program that ended has left."""

    code: int
    """Exit code."""

    out: str
    """Standard output."""

    err: str
    """Standard error."""

    seconds: float
    """How long it ran."""

    def json(self) -> dict[str, Any]:
        """Standard output, which must be one JSON object on one line."""
        assert self.code == 0, self
        (line,) = self.out.splitlines()
        found: dict[str, Any] = json.loads(line)
        return found


class Program:
    """One running program. Made by `Programs.start`."""

    def __init__(self, name: str, process: subprocess.Popen[str]) -> None:
        self.name = name
        self.process = process
        self.pid = process.pid
        self.began = time.monotonic()
        self.peer_id: Any = ""
        """Known once it listens."""
        self.addresses: tuple[str, ...] = ()
        self.url = ""
        """Of a gateway, once it serves."""
        self._out: list[str] = []
        self._err: list[str] = []
        self._news = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=pair, daemon=True)
            for pair in ((process.stdout, self._out), (process.stderr, self._err))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, pipe: IO[str], into: list[str]) -> None:
        # As it comes: an answer has no line ends until it is complete.
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        while data := os.read(pipe.fileno(), 1 << 16):
            with self._news:
                into.append(decode(data))
                self._news.notify_all()

    @property
    def out(self) -> str:
        """Standard output so far."""
        return "".join(self._out)

    @property
    def err(self) -> str:
        """Standard error so far."""
        return "".join(self._err)

    @property
    def log(self) -> list[dict[str, Any]]:
        """The log lines so far."""
        lines = self.err.split("\n")[:-1]
        return [json.loads(line) for line in lines if line.startswith("{")]

    def events(self, event: str) -> list[dict[str, Any]]:
        """The log lines so far whose event begins like this."""
        return [line for line in self.log if line["event"].startswith(event)]

    def wait_until(self, ready: Callable[[], T], what: str, seconds: float = START_SECONDS) -> T:
        """Wait until *ready* is true of what it has said; fail if it ends before, or never is."""
        deadline = time.monotonic() + seconds
        while True:
            with self._news:
                if found := ready():
                    return found
                if self.process.poll() is not None and not any(r.is_alive() for r in self._readers):
                    raise AssertionError(f"{self} ended before {what}:\n{self.err}")
                if time.monotonic() > deadline:
                    raise AssertionError(f"{self}: no {what} within {seconds} s:\n{self.err}")
                self._news.wait(0.05)

    def wait_for(self, event: str, seconds: float = START_SECONDS) -> dict[str, Any]:
        """Wait for a log line; the first one whose event begins like this."""
        return self.wait_until(lambda: self.events(event), repr(event), seconds)[0]

    def wait_out(self, text: str = "", seconds: float = START_SECONDS) -> None:
        """Wait until it has printed *text*, by default anything."""
        self.wait_until(lambda: self.out and text in self.out, f"output {text!r}", seconds)

    def write(self, text: str) -> None:
        """Type something."""
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def wait(self, seconds: float = STOP_SECONDS) -> Result:
        """Wait for its end."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self} still runs after {seconds} s:\n{self.err}") from None
        taken = time.monotonic() - self.began
        for reader in self._readers:
            reader.join(5)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        return Result(code=code, out=self.out, err=self.err, seconds=taken)

    def send(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM) -> Result:
        """Tell it to end, and wait."""
        self.send(number)
        return self.wait()

    def kill(self) -> Result:
        """End it without a word."""
        return self.stop(signal.SIGKILL)

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})"


class Programs:
    """Starts programs that share a data folder and a bootstrap port of their own.

    Args:
      folder: Where their files go.

    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.prefix: tuple[str, ...] = ()
        """What stands before each program on its command line: what runs it elsewhere."""
        self._mark = uuid.uuid4().hex
        # The kernel counts in hundredths of a second, from a boot time that is rounded.
        self._began = time.time() - 2.0
        self._running: list[Program] = []

    @property
    def address(self) -> str:
        """Where they meet."""
        return f"/ip4/127.0.0.1/tcp/{self.port}"

    @property
    def data(self) -> Path:
        """Where punch keeps its files."""
        return self.folder / "data" / "punch"

    @property
    def decisions(self) -> Path:
        """The decision log of all dialers."""
        return self.folder / "decisions.jsonl"

    def environment(self, given: Mapping[str, str]) -> dict[str, str]:
        """What a program sees: of our own settings of punch and llama.cpp, nothing."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PUNCH_", "LLAMA_"))
        }
        return {
            **inherited,
            "PYTHONPATH": str(ROOT),
            "XDG_DATA_HOME": str(self.folder / "data"),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            # Not the settings of who runs the tests.
            "PUNCH_SETTINGS": "none",
            "PUNCH_BOOTSTRAP": self.address,
            # Not every platform lets `XDG_DATA_HOME` say where a user's data is.
            "PUNCH_DECISION_LOG": str(self.decisions),
            MARK: self._mark,
            **given,
        }

    def start(
        self,
        name: str,
        *arguments: str,
        stdin: int = subprocess.PIPE,
        variables: Mapping[str, str] = NONE,
        **environment: str,
    ) -> Program:
        """Start ``python -m punch.NAME`` and do not wait for anything.

        Its environment is *variables* and what is given by name.
        """
        given = {**variables, **environment}
        return self._open(name, ["-m", f"punch.{name}", *arguments], given, stdin)

    def start_script(self, script: Path | str, *arguments: str, **environment: str) -> Program:
        """Start a Python file, or code."""
        code = [str(script)] if isinstance(script, Path) else ["-c", script]
        return self._open("script", [*code, *arguments], environment)

    def _open(
        self,
        name: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        stdin: int = subprocess.PIPE,
    ) -> Program:
        process = subprocess.Popen(
            [*self.prefix, sys.executable, *arguments],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            env=self.environment(environment),
            cwd=self.folder,
        )
        program = Program(name, process)
        self._running.append(program)
        return program

    def listener(self, *arguments: str, **environment: str) -> Program:
        """A listener that has joined."""
        return self.ready(self.start("listener", *arguments, variables=environment))

    def ready(self, program: Program, seconds: float = START_SECONDS) -> Program:
        """Wait until a started listener has joined."""
        said = program.wait_for("listening", seconds)
        program.peer_id, program.addresses = said["peer"], tuple(said["addresses"])
        return program

    def listeners(
        self, *starts: Mapping[str, Any], seconds: float = START_SECONDS
    ) -> list[Program]:
        """Several listeners, started side by side; each is its arguments and environment."""
        started = [
            self.start("listener", *each.get("arguments", ()), **each.get("environment", {}))
            for each in starts
        ]
        return [self.ready(program, seconds) for program in started]

    def bootstrap(self, *arguments: str, **environment: str) -> Program:
        """A bootstrap that is there."""
        program = self.start("bootstrap", *arguments, variables=environment)
        said = program.wait_for("bootstrap")
        program.peer_id, program.addresses = said["peer"], tuple(said["addresses"])
        return program

    def gateway(self, *arguments: str, **environment: str) -> Program:
        """A gateway that is there, at any port."""
        program = self.start("gateway", "--port", "0", *arguments, variables=environment)
        program.url = program.wait_for("serving")["url"]
        return program

    def dial(
        self,
        *arguments: str,
        typed: str = "",
        seconds: float = 60.0,
        variables: Mapping[str, str] = NONE,
        **environment: str,
    ) -> Result:
        """Run a dialer to its end."""
        given = {**variables, **environment}
        return self.run("dialer", *arguments, typed=typed, seconds=seconds, variables=given)

    def run(
        self,
        name: str,
        *arguments: str,
        typed: str = "",
        seconds: float = 60.0,
        variables: Mapping[str, str] = NONE,
        **environment: str,
    ) -> Result:
        """Run a program to its end."""
        program = self.start(name, *arguments, variables={**variables, **environment})
        assert program.process.stdin is not None
        program.write(typed)
        program.process.stdin.close()
        return program.wait(seconds)

    def punch(self, command: str, *arguments: str, seconds: float = 60.0) -> Result:
        """Run ``python -m punch COMMAND`` to its end."""
        return self.start_punch(command, *arguments).wait(seconds)

    def start_punch(self, command: str, *arguments: str, **environment: str) -> Program:
        """Start ``python -m punch COMMAND`` and do not wait for anything."""
        given = ["-m", "punch", command, *arguments]
        return self._open(command, given, environment, subprocess.DEVNULL)

    def start_typing(self, command: str, *arguments: str, **environment: str) -> Program:
        """The same, to which something can be typed."""
        return self._open(command, ["-m", "punch", command, *arguments], environment)

    def up(self, *arguments: str, **environment: str) -> Program:
        """A ``punch up`` that serves, at any port."""
        program = self.start_punch("up", "--port", "0", *arguments, **environment)
        program.wait_out("dashboard")
        (program.url,) = re.findall(r"dashboard +(http://\S+)/", program.out)
        return program

    def descendants(self) -> list[psutil.Process]:
        """Every process alive that we started, or that they did."""
        found = []
        for process in psutil.process_iter():
            try:
                # Whoever was there before us is none of ours, and not ours to look into.
                if process.create_time() < self._began or process.uids().real != os.getuid():
                    continue
                if process.status() == psutil.STATUS_ZOMBIE:
                    continue
                if process.environ().get(MARK) == self._mark:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def ask_to_end(self) -> list[Program]:
        """Tell every program that runs to end; those."""
        alive = [each for each in self._running if each.process.poll() is None]
        for program in alive:
            program.send(signal.SIGCONT)
            program.send(signal.SIGTERM)
        return alive

    def close(self) -> None:
        """End everything; fail if a program has left one of its children behind."""
        alive = self.ask_to_end()
        stuck = []
        for program in alive:
            try:
                program.wait()
            except AssertionError:
                stuck.append(str(program))
                program.kill()
        for program in self._running:
            if program.process.stdout is not None and not program.process.stdout.closed:
                program.wait()
        # A killed program cannot end its children; they notice by themselves.
        deadline = time.monotonic() + 10
        while (left := self.descendants()) and time.monotonic() < deadline:
            time.sleep(0.1)
        for process in left:
            process.kill()
        assert not stuck, f"did not end on SIGTERM: {stuck}"
        assert not left, f"left behind: {left}"


@contextmanager
def open_programs(folder: Path) -> Iterator[Programs]:
    """Programs that are gone when the block ends."""
    programs = Programs(folder)
    try:
        yield programs
    finally:
        programs.close()


@attrs.frozen(kw_only=True)
class Held:
    """What a process holds."""

    descriptors: int
    """Open files and sockets."""

    memory: int
    """Resident bytes."""

    threads: int
    """Threads."""


def held_by(program: Program) -> Held:
    """What *program* holds now."""
    process = psutil.Process(program.pid)
    return Held(
        descriptors=process.num_fds(),
        memory=process.memory_info().rss,
        threads=process.num_threads(),
    )


def settled(program: Program, done: Callable[[Held], bool], seconds: float = 20.0) -> Held:
    """Wait until what *program* holds is as it should be; what it holds then, or at the end."""
    deadline = time.monotonic() + seconds
    while not done(held := held_by(program)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return held
