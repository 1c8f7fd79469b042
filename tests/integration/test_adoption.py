"""`punch up` among programs that run already: what it adopts, and what it leaves alone."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
from integration.programs import Program, Programs, free_port, limit
from model_servers import ANSWER, Ollama

from punch.cli import ExitCode


@contextmanager
def web_server(port: int) -> Iterator[list[tuple[str, str]]]:
    """A developer's web server, with a page at every path; gives what it was asked."""
    asked: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            """Give the page."""
            asked.append((self.command, self.path))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>shop</title>")

        do_POST = do_GET  # noqa: N815 - the name that the library asks for

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def llama_server(program: Path, model: Path, port: int) -> Iterator[None]:
    """llama-server, as people start it."""
    arguments = ["-m", str(model), "--host", "127.0.0.1", "--port", str(port), "-c", "512"]
    process = subprocess.Popen(
        [str(program), *arguments, "-t", "1", "--no-webui"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


class Up:
    """A `punch up` in a home of its own, and the commands about it.

    Args:
      programs: Starts them.
      variables: What all of them see.

    """

    def __init__(self, programs: Programs, variables: dict[str, str]) -> None:
        self.programs = programs
        self.variables = variables
        self.url = f"http://127.0.0.1:{variables['PUNCH_GATEWAY_PORT']}"

    def punch(self, *arguments: str, code: int = 0) -> str:
        """What a command says."""
        ended = self.programs.start_punch(*arguments, **self.variables).wait(60)
        assert ended.code == code, ended
        return ended.out

    def start(self, *arguments: str) -> Program:
        """Start it and wait until it answers."""
        program = self.programs.start_punch("up", *arguments, **self.variables)
        program.wait_out("OpenAI")
        return program

    def adopted(self) -> dict[str, dict[str, Any]]:
        """What `punch adopt list` says, by the port."""
        rows = map(json.loads, self.punch("adopt", "list", "--json").splitlines())
        return {str(row["url"]).rpartition(":")[2]: row for row in rows}

    def chat(self, model: str) -> Any:
        """An answer of *model*."""
        body = {"messages": [{"role": "user", "content": "?"}], "max_tokens": 4, "model": model}
        reply = httpx.post(f"{self.url}/v1/chat/completions", json=body, timeout=60)
        return reply.json()["choices"][0]["message"]["content"] if reply.is_success else reply.text

    def models(self) -> set[str]:
        """What its gateway lists."""
        rows = httpx.get(f"{self.url}/v1/models", timeout=20).json()["data"]
        return {row["id"] for row in rows} - {"auto"}


def eventually(check: Callable[[], Any], seconds: float = 40.0) -> None:
    """Wait until *check* is true."""
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.2)


def variables_of(folder: Path, **more: str) -> dict[str, str]:
    """A closed home, where nothing but what the test has is found."""
    (folder / "settings.toml").touch()
    return {
        "PUNCH_SETTINGS": str(folder / "settings.toml"),
        "PUNCH_LISTEN": "/ip4/127.0.0.1/tcp/0",
        "PUNCH_LAN": "0",
        "PUNCH_GATEWAY_PORT": str(free_port()),
        "PUNCH_OLLAMA_PORT": "0",
        "HOME": str(folder),
        **more,
    }


@limit(180)
def test_up_adopts_what_runs_and_leaves_its_own_kind_and_strangers_alone(
    programs: Programs, tmp_path: Path, llama_cpp_folder: Path, model_path: Path
) -> None:
    """Ollama and llama-server become lanes; a gateway of punch and a web server do not."""
    ports = {name: free_port() for name in ("ollama", "llama", "gateway", "web", "nas")}
    up = Up(
        programs,
        variables_of(
            tmp_path,
            OLLAMA_HOST=f"0.0.0.0:{ports['ollama']}",
            LLAMA_ARG_PORT=str(ports["llama"]),
            LOCALAI_ADDRESS=f":{ports['gateway']}",
            OPENEDAI_PORT=str(ports["web"]),
        ),
    )
    ollama, nas = Ollama("llama3.2:latest"), Ollama("qwen3:latest")
    foreign = programs.start(
        "gateway", "--port", str(ports["gateway"]), "--namespace", "other", "--listen-too"
    )
    foreign.wait_for("serving")
    with (
        web_server(ports["web"]) as asked,
        nas.serve(ports["nas"]),
        llama_server(llama_cpp_folder / "llama-server", model_path, ports["llama"]),
    ):
        program = up.start()
        # The engine comes late, and is adopted without anybody saying so.
        with ollama.serve(ports["ollama"]):
            eventually(lambda: "llama3.2:latest" in up.models())
            assert up.chat("llama3.2:latest") == ANSWER
            up.punch("adopt", f"127.0.0.1:{ports['nas']}", "--model", "qwen3:latest")
            # One engine, and another name of it.
            up.punch("adopt", f"http://localhost:{ports['ollama']}/v1")
            eventually(lambda: {"llama3.2:latest", "qwen3:latest"} <= up.models())
            eventually(lambda: len(up.models()) == 3)
            rows = up.adopted()
        by_name = {name: rows.get(str(port), {}) for name, port in ports.items()}
        by_name["ollama"] = next(row for row in rows.values() if "localhost" in row["url"])
        assert {name: row.get("state") for name, row in by_name.items()} == {
            "ollama": "ready", "llama": "ready", "gateway": "left alone",
            "web": "left alone", "nas": "ready",
        }  # fmt: skip
        assert by_name["llama"]["program"] == "llama-server"
        assert by_name["nas"]["how"] == by_name["ollama"]["how"] == "named"
        assert up.chat("qwen3:latest") == ANSWER
        llama = next(
            name for name in up.models() if name not in ("llama3.2:latest", "qwen3:latest")
        )
        assert up.chat(llama)
        # Its server is gone, and said to be.
        eventually(lambda: "llama3.2:latest" not in up.models())
        up.punch("adopt", "remove", f"http://127.0.0.1:{ports['nas']}")
        eventually(lambda: "qwen3:latest" not in up.models())
        assert str(ports["nas"]) not in up.adopted()
        assert "mock" not in up.models()
        assert program.stop().code in (ExitCode.OK, ExitCode.TERMINATED)
    assert set(asked) == {("GET", "/v1/models")}
    # Once by itself, and once for each time that a person changed what is adopted.
    assert len(asked) <= 4
    # By the questions above, and by nothing else.
    assert (ollama.loaded_by_asking, nas.loaded_by_asking) == (
        ["llama3.2:latest"], ["qwen3:latest"],
    )  # fmt: skip


@limit(90)
def test_a_listener_whose_server_is_its_own_gateway_ends_no_request_in_a_loop(
    programs: Programs,
) -> None:
    """A person may set it so: who asks that listener hears of it at once, and others answer."""
    gateway = programs.gateway("--namespace", "n")
    honest = programs.listener("--namespace", "n")
    looped = programs.listener(
        "--namespace", "n", PUNCH_INFERENCE_BACKEND="openai", PUNCH_OPENAI_URL=gateway.url
    )
    body = {"model": "mock", "messages": [{"role": "user", "content": "?"}], "max_tokens": 4}

    def ask(**headers: str) -> httpx.Response:
        return httpx.post(
            f"{gateway.url}/v1/chat/completions", json=body, headers=headers, timeout=30
        )

    eventually(lambda: ask(**{"X-Punch-Only": honest.peer_id}).is_success)
    began = time.monotonic()
    eventually(lambda: "status 508" in ask(**{"X-Punch-Only": looped.peer_id}).text)
    assert time.monotonic() - began < 30
    assert ask(**{"X-Punch-Only": honest.peer_id}).is_success
