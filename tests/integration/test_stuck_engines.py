"""Engines that are lost in a request: killed with all they started, and started again.

The server is a small program of our own that speaks as llama-server does, and hangs when asked.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from integration.programs import alive

from punch.backends import Backend, Supervisable, open_binding
from punch.backends.llama import _binding, _cli, _vigil
from punch.backends.llama._cli import open_llama_cli
from punch.backends.llama._served import ServedBackend
from punch.backends.llama._server import open_llama_server
from punch.backends.openai._backend import open_openai
from punch.capability import ModelOffer
from punch.exceptions import BackendCrashed
from punch.listener._lane import reason_of
from punch.processes import Child, _restarts, start_child
from punch.wire import ChatMessage, CommandRequest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="scripts with a #! line")

LIMIT = 60

SERVER = """
import json, os, subprocess, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

if "--help" in sys.argv:
    print("--model FNAME\\n--ctx-size N\\n--port PORT\\n--parallel N\\n--slots")
    sys.exit()
if len(sys.argv) < 4:
    sys.exit()
# A grandchild, as of a wrapper script.
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
with open(FOLDER + "/pids", "a") as file:
    print(os.getpid(), child.pid, file=file)
computing = threading.Lock()
busy = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args): pass

    def say(self, value, status=200):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", len(data))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        if self.path == "/slots" and "--no-slots" in sys.argv:
            self.say({"error": {"code": 501, "message": "not here"}}, 501)
        elif self.path == "/slots":
            with computing:
                self.say([{"id": n, "is_processing": n < busy} for n in range(2)])
        else:
            self.say({"data": [{"id": "m", "owned_by": "llamacpp"}]})

    def do_POST(self):
        global busy
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        word = body["messages"][-1]["content"] if "messages" in body else ""
        if word == "hang":
            with computing:
                time.sleep(1000)
        if word == "ignore":
            busy += 1
            time.sleep(1000)
        while word == "compute":
            pass
        if word == "mute":
            time.sleep(1000)
        if word == "die":
            os.kill(os.getpid(), 9)
        with computing:
            pass
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        choice = {"index": 0, "delta": {"content": word}, "finish_reason": "stop"}
        self.wfile.write(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\\n\\n")
        self.close_connection = True


port = int(sys.argv[sys.argv.index("--port") + 1])
ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""

WORKER = """
import json, os, subprocess, sys, time
print(end="", flush=True)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
with open(FOLDER + "/pids", "a") as file:
    print(os.getpid(), child.pid, file=file)


def say(line): print(json.dumps(line), flush=True)


say({"ready": {"context_tokens": 100, "threads": 1, "version": "0"}})
for line in sys.stdin:
    request = json.loads(line)
    if "id" not in request:
        continue
    word, number = request["prompt"], request["id"]
    if word == "hang":
        time.sleep(1000)
    if word == "die":
        os.kill(os.getpid(), 9)
    while word == "endless":
        say({"id": number, "text": "more ", "tokens": 1})
        time.sleep(0.01)
    say({"id": number, "text": word, "tokens": 1})
    say({"id": number, "end": {"finish_reason": "stop", "prompt_tokens": 1,
                               "completion_tokens": 1, "prefill": 0.001}})
"""

CLI = """
import sys, time, subprocess
if "--help" in sys.argv:
    print("--model FNAME\\n--ctx-size N\\n--file FNAME\\n-cnv, -no-cnv\\n--perf")
    sys.exit()
if len(sys.argv) < 4:
    sys.exit()
with open(sys.argv[sys.argv.index("--file") + 1]) as file:
    if file.read().strip() == "a":
        print("word")
        sys.exit()
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
with open(FOLDER + "/pids", "a") as file:
    print(child.pid, file=file)
time.sleep(1000)
"""


def program(folder: Path, name: str, code: str) -> Path:
    """A Python program of *code*, which knows its *folder*."""
    path = folder / name
    path.write_text(f"#!{sys.executable} -S\nFOLDER = {str(folder)!r}\n{code}")
    path.chmod(0o755)
    return path


def has_started(backend: ServedBackend, times: int) -> bool:
    """Whether the program of a backend was started so often."""
    return backend.statistics().starts == times


def pids(folder: Path) -> list[int]:
    """The processes that the program has noted."""
    return [int(word) for word in (folder / "pids").read_text().split()]


async def until(condition: Callable[[], bool]) -> None:
    """Return when *condition* holds; other processes tell us nothing."""
    while not condition():
        await trio.sleep(0.01)


def question(word: str) -> CommandRequest:
    """What has the program do as *word* says."""
    return CommandRequest(request_id=word, messages=(ChatMessage(role="user", content=word),))


async def emit(text: str, tokens: int) -> None:
    """Take a part of an answer and drop it."""
    await trio.lowlevel.checkpoint()


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little patience."""
    monkeypatch.setattr(_vigil, "CHECK_SECONDS", 0.1)
    monkeypatch.setattr(_vigil, "QUIET_SECONDS", 0.2)
    monkeypatch.setattr(_vigil, "PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr(_vigil, "UNKNOWN_BATCH_SECONDS", 0.0)


@asynccontextmanager
async def served(folder: Path, *extra_args: str) -> AsyncIterator[ServedBackend]:
    """The backend of a server that hangs when asked."""
    with trio.fail_after(LIMIT):
        async with open_llama_server(
            program=program(folder, "llama-server", SERVER), model_path=folder / "m.gguf",
            threads=None, no_mmap=False, slots=2, context_tokens=100, extra_args=extra_args,
        ) as backend:  # fmt: skip
            yield backend


@pytest.mark.parametrize("word", ["hang", "ignore"])
async def test_a_server_that_stays_busy_after_a_cancel_is_killed_and_started_again(
    word: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With what it has started; the log says so, and the next request is answered."""
    with caplog.at_level(logging.INFO):
        async with served(tmp_path) as backend:
            with trio.move_on_after(0.5):
                await backend.generate(question(word), emit)
            first = pids(tmp_path)
            await until(lambda: backend.statistics().state == "restarting")
            assert backend.offers[0].load_seconds
            answer = await backend.generate(question("hello"), emit)
            assert answer.completion.text == "hello"
            assert not any(map(alive, first))
            statistics = backend.statistics()
            assert (statistics.state, statistics.starts) == ("ready", 2)
            assert "llama-server was killed: it " in str(statistics.reason)
            second = pids(tmp_path)[len(first) :]
            assert all(map(alive, second))
    said = [str(record.msg) for record in caplog.records]
    assert any("an engine is stuck and is killed" in one for one in said)
    assert any("an engine is ready again" in one for one in said)


async def test_all_requests_of_a_stuck_server_fail_so_that_others_are_asked(
    tmp_path: Path,
) -> None:
    """Those that wait behind it as well, with the reason; nobody has to cancel anything."""
    errors: list[BackendCrashed] = []

    async def ask(word: str) -> None:
        with pytest.raises(BackendCrashed) as caught:
            await backend.generate(question(word), emit)
        errors.append(caught.value)

    async with served(tmp_path) as backend:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "hang")
            await trio.sleep(0.2)
            nursery.start_soon(ask, "hello")
        assert all("gave no answer for 1 s" in str(error) for error in errors)
        assert len(errors) == 2


@pytest.mark.parametrize(
    ("word", "extra", "why"),
    [
        ("mute", (), "it answered, and made nothing for 1 s"),
        ("mute", ("--no-slots",), "it answered, and made nothing for 1 s"),
        ("compute", ("--no-slots",), "it computed on for 1 s after a request was cancelled"),
    ],
)
async def test_a_server_that_is_well_and_makes_nothing_is_killed(
    word: str, extra: tuple[str, ...], why: str, tmp_path: Path
) -> None:
    """Also where it does not say what its slots do."""
    async with served(tmp_path, *extra) as backend:
        with trio.move_on_after(0.5 if word == "compute" else LIMIT):
            with pytest.raises(BackendCrashed) as caught:
                await backend.generate(question(word), emit)
            assert caught.value.engine_died
        await until(lambda: backend.statistics().state == "restarting")
        assert reason_of(backend) == f"llama-server was killed: {why}"
        answer = await backend.generate(question("hello"), emit)
        assert answer.completion.text == "hello"
        assert reason_of(backend) is None
        assert not any(map(alive, pids(tmp_path)[:2]))


async def test_a_server_that_is_stopped_is_killed(tmp_path: Path) -> None:
    """It keeps its port, and takes connections; nothing of it runs."""
    async with served(tmp_path) as backend:
        pid = backend.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(BackendCrashed, match="made nothing and gave no answer") as caught:
            await backend.generate(question("hello"), emit)
        assert caught.value.engine_died
        assert (await backend.generate(question("hello"), emit)).completion.text == "hello"
        assert not alive(pid)


async def test_a_server_that_dies_of_its_own_says_so(tmp_path: Path) -> None:
    """Its request may be why; and the reason that others read has nothing that it printed."""
    async with served(tmp_path) as backend:
        with pytest.raises(BackendCrashed, match="ended with SIGKILL") as caught:
            await backend.generate(question("die"), emit)
        assert caught.value.engine_died
        await until(lambda: backend.statistics().state == "restarting")
        assert str(backend.reason).startswith("llama-server ended with SIGKILL")
        assert "lines" not in str(backend.reason)
        await backend.ready(lambda seconds: None)


@asynccontextmanager
async def bound(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Backend]:
    """The binding's backend, with a worker that has no model and hangs when asked."""
    path = program(folder, "worker", WORKER)

    async def start(argv: list[str], **more: Any) -> Child:
        return await start_child([str(path)], **more)

    monkeypatch.setattr(_binding, "start_child", start)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    with trio.fail_after(LIMIT):
        async with open_binding(model_path="m.gguf", offer=ModelOffer(name="m")) as backend:
            yield backend


def prompt(word: str) -> CommandRequest:
    """What has the binding's worker do as *word* says."""
    return CommandRequest(request_id=word, command="complete", prompt=word)


async def test_a_worker_of_the_binding_that_makes_nothing_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With what it has started; the log says so, and the next request is answered."""
    monkeypatch.setattr(_restarts, "MIN_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(_vigil, "PATIENCE_SECONDS", 0.3)
    async with bound(tmp_path, monkeypatch) as backend:
        assert (await backend.generate(prompt("hello"), emit)).completion.text == "hello"
        for number in range(6):
            with pytest.raises(BackendCrashed, match="was killed: it made nothing for") as caught:
                await backend.generate(prompt("hang"), emit)
            assert caught.value.engine_died
            assert "was killed" in str(reason_of(backend))
            # However often it is killed, that is no crash loop.
            assert backend.offers[0].load_seconds
            await backend.ready(lambda seconds: None)
            assert isinstance(backend, Supervisable)
            assert backend.restarts == number + 1
            assert (await backend.generate(prompt("hello"), emit)).completion.text == "hello"
        *dead, last, child = pids(tmp_path)
        await until(lambda: not any(map(alive, dead)))
        assert alive(last)
        assert alive(child)
    await until(lambda: not any(map(alive, pids(tmp_path))))
    assert sum("an engine is stuck" in str(record.msg) for record in caplog.records) == 6


@pytest.mark.parametrize("word", ["hang", "endless"])
async def test_a_worker_of_the_binding_that_ignores_a_cancel_is_killed(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the time that a cancel may take, and the next request is answered."""
    async with bound(tmp_path, monkeypatch) as backend:
        with trio.move_on_after(0.3) as scope:
            await backend.generate(prompt(word), emit)
        assert scope.cancelled_caught
        assert not any(map(alive, pids(tmp_path)))
        await backend.ready(lambda seconds: None)
        assert (await backend.generate(prompt("hello"), emit)).completion.text == "hello"


async def test_a_worker_of_the_binding_that_dies_again_and_again_rests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each death says that the request may be why; after five the lane has no offer, and why."""
    monkeypatch.setattr(_restarts, "MIN_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(_restarts, "MIN_LOOP_PAUSE_SECONDS", 1.0)
    async with bound(tmp_path, monkeypatch) as backend:
        for _ in range(5):
            await backend.ready(lambda seconds: None)
            with pytest.raises(BackendCrashed) as caught:
                await backend.generate(prompt("die"), emit)
            assert caught.value.engine_died
        assert len(backend.offers) == 0
        await until(lambda: bool(backend.offers))
        assert (await backend.generate(prompt("hello"), emit)).completion.text == "hello"


async def test_five_such_requests_do_not_take_the_engine_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a row of crashes would mean."""
    monkeypatch.setattr(_restarts, "MIN_PAUSE_SECONDS", 0.01)
    async with served(tmp_path) as backend:
        for starts in range(2, 8):
            with trio.move_on_after(0.1):
                await backend.generate(question("hang"), emit)
            await until(partial(has_started, backend, starts))
            await backend.ready(lambda seconds: None)
        assert (await backend.generate(question("hello"), emit)).completion.text == "hello"


async def test_a_server_of_somebody_else_is_never_killed(tmp_path: Path) -> None:
    """It may be as stuck as it likes."""
    path = program(tmp_path, "llama-server", SERVER)
    async with served(tmp_path / "."):
        pass
    (tmp_path / "pids").unlink()
    with trio.fail_after(LIMIT):
        from punch.backends.llama._served import free_port

        port = free_port()
        async with trio.open_nursery() as nursery:
            process = await nursery.start(trio.run_process, [path, "-a", "--port", str(port)])
            try:
                async with open_openai(url=f"http://127.0.0.1:{port}") as backend:
                    await until(lambda: bool(backend.offers))
                    with trio.move_on_after(0.5):
                        await backend.generate(question("hang"), emit)
                    await trio.sleep(3)
                    assert process.poll() is None
            finally:
                for pid in pids(tmp_path):
                    os.kill(pid, signal.SIGKILL)
                nursery.cancel_scope.cancel()


async def test_a_program_for_one_answer_that_prints_nothing_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After its patience, or at once when it is cancelled; with all that it has started."""
    monkeypatch.setattr(_cli, "SILENCE_SECONDS", 1.0)
    hang = CommandRequest(request_id="h", command="complete", prompt="hang")
    with trio.fail_after(LIMIT):
        async with open_llama_cli(
            program=program(tmp_path, "llama-completion", CLI), model_path=tmp_path / "m.gguf",
            threads=None, no_mmap=False, context_tokens=100,
        ) as backend:  # fmt: skip
            with pytest.raises(BackendCrashed, match=r"printed nothing for 1 s and was killed"):
                await backend.generate(hang, emit)
            monkeypatch.setattr(_cli, "SILENCE_SECONDS", 1000.0)
            with trio.move_on_after(0.5):
                await backend.generate(hang, emit)
            await until(lambda: not any(map(alive, pids(tmp_path))))
    assert len(pids(tmp_path)) == 2
    assert "an engine is stuck" in str(caplog.records[0].msg)
