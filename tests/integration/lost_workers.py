"""A split over two `punch worker`s, each a program of its own, and the ways to lose one of them.

The programs may be on one machine or, in the laboratory, on three. Everything is seen from outside:
by what programs print, and by what the system says of their processes.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs
import psutil
from integration.programs import Program, Programs, Result, alive

from punch.libp2p import load_key

QUESTION = "Write a story about a dog."
TOKENS = 60
# Shorter than the context, with an answer.
LONG_PROMPT = " ".join(f"Word {number} of this text says nothing." for number in range(70))

STAGES = ("hello", "load", "prompt", "mid", "idle", "reload")
"""When the worker is lost. At ``reload`` another one was lost in mid-answer, and the head loads its
model again while the request waits."""

# From the loss until the request has ended: four seconds to notice, one to load, an answer; on two
# cores with other work.
BOUND_SECONDS = 40.0

# The lease of a borrower that is cut off ends by itself after thirty seconds.
IDLE_SECONDS = 45.0

# Until the server has got so much of the model, it is not said to load.
LOADED_BYTES = 4 << 20

Harm = Callable[["Home", int], None]


@attrs.define
class Home:
    """Where the programs are, and those that stay from one split to the next."""

    head: Programs
    """Where the coordinator and the dialers are."""

    places: Sequence[Programs]
    """Where each worker is."""

    engine: Path
    """The folder of llama.cpp's programs."""

    model: Path
    workers: list[Program] = attrs.field(factory=list)
    listening: list[int] = attrs.field(factory=list)
    """How many ports each worker has open while it lends to nobody."""

    @property
    def identity(self) -> Path:
        """The key of the coordinator, who alone may borrow."""
        return self.head.folder / "coordinator.key"

    @property
    def options(self) -> list[str]:
        """Of the coordinator: the model lies on both, also where that is slow."""
        wanted = ["--min-workers", "2", "--force", "--context", "1024", "--slots", "1"]
        return ["--model", str(self.model), "--identity", str(self.identity), *wanted]

    @property
    def variables(self) -> dict[str, str]:
        """Which llama.cpp it is, and that each machine has one core."""
        return {"LLAMA_CPP_EXE": str(self.engine / "llama-server"), "LLAMA_THREADS": "1"}

    def open(self) -> None:
        """Start what stays."""
        self.head.bootstrap()
        load_key(self.identity)
        self.workers = [self.worker(number) for number in range(len(self.places))]
        for each in self.workers:
            each.wait_for("lending")
        self.listening = [len(ports_of(each)) for each in self.workers]

    def worker(self, number: int) -> Program:
        """A worker that lends to the coordinator."""
        place = self.places[number]
        return place.start_punch(
            "worker",
            "--lend-to", load_key(self.identity).peer_id, "--memory", "512MiB",
            "--device", "CPU", "--no-calibrate",
            "--identity", str(place.folder / f"worker{number}.key"),
            **self.variables,
        )  # fmt: skip

    def revive(self) -> None:
        """Have both workers lend again, whatever was done to them, and see that nothing is left."""
        for number, each in enumerate(self.workers):
            for process in tree(each):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGCONT)
            if each.process.poll() is not None:
                self.workers[number] = self.worker(number)
        for number, each in enumerate(self.workers):
            each.wait_for("lending")
            self.until_idle(number)

    def until_idle(self, number: int) -> None:
        """Wait until a worker lends to nobody: its server and the ports of both are gone."""
        worker = self.workers[number]
        until(lambda: not servers_of(worker), "its server is gone", seconds=IDLE_SECONDS)
        # A program that was started anew may have other ports, and as many.
        until(lambda: len(ports_of(worker)) == self.listening[number], "the ports are closed")

    @contextlib.contextmanager
    def coordinator(self, *options: str) -> Iterator[Program]:
        """A coordinator over both, which leaves nothing behind."""
        program = self.head.start_punch("coordinator", *self.options, *options, **self.variables)
        try:
            yield program
            own = tree(program)
            ended = program.stop(signal.SIGTERM)
            assert ended.code == 0, ended.err
            until(lambda: not any(alive(each.pid) for each in own), "all of it has ended")
        finally:
            if program.process.poll() is None:
                print(program.err)
                program.kill()

    def ask(self, text: str = QUESTION, tokens: int = TOKENS) -> Program:
        """A dialer that asks, and prints the answer as it comes."""
        return self.head.start(
            "dialer", "--ask", text, "--temperature", "0", "--max-tokens", str(tokens)
        )


# ---- what is there ----


def tree(program: Program) -> list[psutil.Process]:
    """A program and all that it has started, if it is there."""
    try:
        process = psutil.Process(program.pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def named(program: Program, name: str) -> list[psutil.Process]:
    """Those of its children that are called so."""
    found = []
    for process in tree(program)[1:]:
        with contextlib.suppress(psutil.Error):
            if name in process.name() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def servers_of(worker: Program) -> list[psutil.Process]:
    """The RPC servers of a worker: one while it lends."""
    return named(worker, "rpc-server")


def ports_of(program: Program) -> set[int]:
    """Where a program and its children listen."""
    found = set()
    for process in tree(program):
        with contextlib.suppress(psutil.NoSuchProcess):  # It has ended since.
            for connection in process.net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    found.add(connection.laddr.port)
    return found


def until(condition: Callable[[], object], what: str, *, seconds: float = 15.0) -> None:
    """Wait for it, closely."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.005)


# ---- how a worker is lost ----


def kill_server(home: Home, victim: int) -> None:
    """Its RPC server."""
    for process in servers_of(home.workers[victim]):
        process.kill()


def stop_server(home: Home, victim: int) -> None:
    """Its RPC server; its worker goes on, and can say so."""
    for process in servers_of(home.workers[victim]):
        process.suspend()


def kill_all(home: Home, victim: int) -> None:
    """The worker with all that it has started."""
    for process in tree(home.workers[victim]):
        process.kill()
    home.workers[victim].process.wait()


def stop_all(home: Home, victim: int) -> None:
    """The worker with all that it has started: nobody is left who could say anything."""
    for process in tree(home.workers[victim]):
        process.suspend()


def stop_tunnel(home: Home, victim: int) -> None:
    """What carries its bytes; the worker and its server are well."""
    for process in named(home.workers[victim], "python"):
        process.suspend()


HARMS: dict[str, Harm] = {
    "server killed": kill_server,
    "server stopped": stop_server,
    "all killed": kill_all,
    "all stopped": stop_all,
    "tunnel stopped": stop_tunnel,
}


# ---- when ----


def lose(home: Home, harm: Harm, victim: int, stage: str) -> None:
    """Lose a worker at a stage: the request is answered, and so is the next one.

    What was delivered stays delivered. Nothing is left running when the coordinator has ended, and
    the workers that are there lend again: see `Home.revive`.
    """
    with home.coordinator() as coordinator:
        if stage in ("hello", "load"):
            coordinator.wait_for("a split is planned")
            _wait_for_load(home, victim, stage)
            harm(home, victim)
        coordinator.wait_for("listening")
        if stage == "idle":
            harm(home, victim)
            time.sleep(1.0)
        dialer = home.ask(LONG_PROMPT if stage == "prompt" else QUESTION)
        begun = ""
        if stage == "prompt":
            _wait_for_work(home, victim)
        elif stage in ("mid", "reload"):
            dialer.wait_until(lambda: len(dialer.out) > 30, "a beginning")
            begun = dialer.out
        if stage == "reload":
            (head,) = named(coordinator, "llama-server")
            kill_server(home, 1 - victim)
            until(lambda: not alive(head.pid), "the head has ended")
            until(lambda: named(coordinator, "llama-server"), "the head is started again")
            _wait_for_load(home, victim, "load")
        if stage in ("prompt", "mid", "reload"):
            harm(home, victim)
        began = time.monotonic()
        answer = dialer.wait(BOUND_SECONDS + 20)
        print(f"{stage}: answered {time.monotonic() - began:.1f} s after the loss")
        assert time.monotonic() - began < BOUND_SECONDS
        check(answer, begun)
        after = home.head.dial("--ask", "Hello", "--max-tokens", "4")
        assert after.code == 0, after.err
        lost = coordinator.events("a worker is lost")
        assert home_of(home, victim) in {line["worker"] for line in lost}, coordinator.err


def check(answer: Result, begun: str) -> None:
    """An answer goes on with what was delivered."""
    assert answer.code == 0, answer.err
    assert answer.out.startswith(begun)
    assert len(answer.out) > len(begun)


def home_of(home: Home, number: int) -> str:
    """The identity of a worker."""
    return str(home.workers[number].wait_for("lending")["peer"])


def _wait_for_load(home: Home, victim: int, stage: str) -> None:
    """At once for a hello; for a load, until the server has got some of the model."""
    if stage == "load":
        (server,) = servers_of(home.workers[victim])
        before = server.memory_info().rss
        until(
            lambda: server.memory_info().rss > before + LOADED_BYTES,
            "its server is given some of the model",
        )


def _wait_for_work(home: Home, victim: int) -> None:
    """Until the server computes."""
    (server,) = servers_of(home.workers[victim])
    before = server.cpu_times().user
    until(lambda: server.cpu_times().user >= before + 0.1, "its server computes")
