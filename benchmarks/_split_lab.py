"""Splits of SmolLM2 over plain rpc-servers on loopback, each behind a slow link of its own."""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs
import psutil
from _alternatives import ended, free_port
from _results import UnavailableError
from inference import find_model, find_server

from punch.placement import Link

SLOW_LINK = Path(__file__).with_name("_slow_link.py")
START_SECONDS = 120.0
CONTEXT = 2048
PINGS = 21

# A few kilobytes of a token go there, and a few come back.
PING = b"x" * 64


@attrs.frozen(kw_only=True)
class Timings:
    """What llama-server says of one answer."""

    prompt_tokens: int
    prompt_seconds: float
    tokens: int
    """Of the answer, but for the first."""
    seconds: float
    """For those."""
    drafted: int = 0
    """Tokens that were guessed."""
    accepted: int = 0
    """Of those the ones that were right."""

    @property
    def token(self) -> float:
        """Seconds for one token."""
        return self.seconds / self.tokens


@attrs.frozen(kw_only=True)
class Head:
    """A llama-server that can be asked."""

    port: int
    load: float
    """Seconds from its start until it could be asked."""

    def ask(self, prompt: str, tokens: int) -> Timings:
        """Ask for so many tokens, greedily, whatever they are."""
        body = {
            "prompt": prompt,
            "n_predict": tokens,
            "temperature": 0,
            "cache_prompt": False,
            "ignore_eos": True,
        }
        found = fetch(self.port, "/completion", body)["timings"]
        return Timings(
            prompt_tokens=found["prompt_n"],
            prompt_seconds=found["prompt_ms"] / 1e3,
            tokens=found["predicted_n"],
            seconds=found["predicted_ms"] / 1e3,
            drafted=found.get("draft_n", 0),
            accepted=found.get("draft_n_accepted", 0),
        )

    def ask_at_once(self, prompts: Sequence[str], tokens: int) -> float:
        """Seconds until all are answered."""
        threads = [threading.Thread(target=self.ask, args=(each, tokens)) for each in prompts]
        begin = time.perf_counter()
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        return time.perf_counter() - begin


def fetch(port: int, path: str, body: dict[str, Any] | None = None) -> Any:
    """An answer in JSON."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=START_SECONDS) as answer:
        return json.loads(answer.read())


@contextmanager
def open_worker(log: Path) -> Iterator[int]:
    """A plain rpc-server with one thread; its port."""
    port = free_port()
    program = find_server().with_name("ggml-rpc-server")
    command = [str(program), "-H", "127.0.0.1", "-p", str(port), "-t", "1"]
    with log.open("ab") as into:
        # A borrower that goes away must not end it: SIGPIPE stays ignored, as it is in Python.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=into, stderr=into, restore_signals=False
        )
    with ended(process):
        until(lambda: listens(process.pid, port), process, log)
        yield port


def listens(pid: int, port: int) -> bool:
    """Whether a process listens there. Asking it would take the place of its only client."""
    connections = psutil.Process(pid).net_connections("tcp")
    return any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in connections)


@contextmanager
def open_link(target: int, link: Link) -> Iterator[int]:
    """A slow link; the port that leads there."""
    command = [sys.executable, str(SLOW_LINK), str(target), str(link.rtt / 2), str(link.rate)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    with ended(process):
        assert process.stdout is not None
        yield int(process.stdout.readline())


@contextmanager
def open_head(log: Path, *, ports: Sequence[int], options: Sequence[str] = ()) -> Iterator[Head]:
    """A head with one thread, over workers behind *ports*; without any, alone."""
    port = free_port()
    command = [str(find_server()), "-m", str(find_model()), "--host", "127.0.0.1"]
    command += ["--port", str(port), "-t", "1", "--no-webui", "-cram", "0"]
    if ports:
        names = ",".join(f"RPC{i}" for i in range(len(ports)))
        command += ["--rpc", ",".join(f"127.0.0.1:{each}" for each in ports), "--device", names]
        command += ["-ngl", "99", "-fit", "off"]
    else:
        command += ["--device", "none"]
    begin = time.perf_counter()
    with log.open("ab") as into:
        process = subprocess.Popen(
            [*command, *options],
            stdin=subprocess.DEVNULL,
            stdout=into,
            stderr=into,
            env={**os.environ, "GGML_NO_BACKTRACE": "1"},
        )
    with ended(process):
        until(lambda: is_ready(port), process, log)
        yield Head(port=port, load=time.perf_counter() - begin)


def is_ready(port: int) -> bool:
    """Whether a head can be asked."""
    try:
        return bool(fetch(port, "/health") == {"status": "ok"})
    except OSError:
        return False


def until(condition: Any, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for it."""
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            said = log.read_text(encoding="utf-8", errors="replace")
            raise UnavailableError(f"{log.stem} did not start: {said[-2000:]}")
        time.sleep(0.01)


@contextmanager
def open_split(
    folder: Path, *, links: Sequence[Link], options: Sequence[str] = ()
) -> Iterator[Head]:
    """A head over a worker behind each link; without links a head alone."""
    with ExitStack() as stack:
        workers = [
            stack.enter_context(open_worker(folder / f"worker-{i}.log")) for i in range(len(links))
        ]
        ports = [
            stack.enter_context(open_link(worker, link))
            for worker, link in zip(workers, links, strict=True)
        ]
        log = folder / "head.log"
        yield stack.enter_context(open_head(log, ports=ports, options=options))


def measure_rtt(link: Link) -> float:
    """Seconds there and back over a slow link, with what the link itself adds."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=echo, args=(server,), daemon=True).start()
        with (
            open_link(server.getsockname()[1], link) as port,
            socket.create_connection(("127.0.0.1", port)) as connection,
        ):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            times = []
            for _ in range(PINGS):
                begin = time.perf_counter()
                connection.sendall(PING)
                left = len(PING)
                while left:
                    left -= len(connection.recv(left))
                times.append(time.perf_counter() - begin)
    return statistics.median(times)


def echo(server: socket.socket) -> None:
    """Send back what comes, to one client."""
    connection, _ = server.accept()
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := connection.recv(4096):
            connection.sendall(data)


def load_average() -> float:
    """How many processes want a core, over the last minute."""
    return os.getloadavg()[0]
