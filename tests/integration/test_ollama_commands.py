"""Ollama's command line at Ollama's own port: the bytes that its Go program puts on the wire."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import httpx
from integration.programs import Programs, free_port, limit
from model_servers import ANSWER, Ollama

from punch.cli import ExitCode


class GoClient:
    """Writes requests as Go's net/http does: one connection for all of a command."""

    def __init__(self, connection: socket.socket, port: int) -> None:
        self._connection = connection
        self._host = f"127.0.0.1:{port}"

    def ask(self, method: str, path: str, body: bytes | None = None, *, accept: str) -> Any:
        """Status and body of the answer."""
        lines = [
            f"{method} {path} HTTP/1.1",
            f"Host: {self._host}",
            "User-Agent: ollama/0.13.0 (amd64 linux) Go/go1.24.1",
            *([] if body is None else [f"Content-Length: {len(body)}"]),
            f"Accept: {accept}",
            "Content-Type: application/json",
            "Accept-Encoding: gzip",
        ]
        self._connection.sendall("\r\n".join([*lines, "", ""]).encode() + (body or b""))
        answer = HTTPResponse(self._connection, method=method)
        answer.begin()
        return answer.status, answer.read()

    def do(self, method: str, path: str, body: bytes | None = None) -> Any:
        """One value; for ``HEAD`` nothing."""
        status, data = self.ask(method, path, body, accept="application/json")
        assert status == 200, data
        return json.loads(data) if data else None

    def stream(self, path: str, body: bytes) -> list[Any]:
        """The lines of a stream."""
        status, data = self.ask("POST", path, body, accept="application/x-ndjson")
        assert status == 200, data
        return [json.loads(line) for line in data.splitlines()]


@contextmanager
def command(url: str) -> Iterator[GoClient]:
    """A command, which begins with a look whether the server is there."""
    port = int(url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        client = GoClient(connection, port)
        assert client.do("HEAD", "/") is None
        yield client


def test_ollamas_commands_work_at_ollamas_port(programs: Programs) -> None:
    """`list`, `ps`, `show`, `run` and `stop`; and a port that is taken is a clear error."""
    programs.listener()
    gateway = programs.gateway("--ollama-port", "0")
    serving = gateway.wait_for("serving")
    url = serving["ollama"]
    gateway.wait_until(lambda: httpx.get(f"{url}/ready").is_success, "a peer")
    assert url != serving["url"]
    with command(url) as client:
        (row,) = client.do("GET", "/api/tags")["models"]
        assert len(row["digest"]) == 64
        name = row["name"].encode()
    with command(url) as client:
        (row,) = client.do("GET", "/api/ps")["models"]
        assert row["context_length"] > 0
    with command(url) as client:
        shown = client.do(
            "POST",
            "/api/show",
            b'{"model":"","system":"","template":"","verbose":false,"options":null,"name":"%s"}'
            % name,
        )
        assert shown["capabilities"] == ["completion", "tools"]
    show = (
        b'{"model":"%s","system":"","template":"","verbose":false,"options":null,"name":""}' % name
    )
    with command(url) as client:
        client.do("POST", "/api/show", show)
        *parts, last = client.stream(
            "/api/generate",
            b'{"model":"%s","prompt":"hi","suffix":"","system":"","template":"",'
            b'"options":{"num_predict":4}}' % name,
        )
        assert "".join(part["response"] for part in parts)
        assert (last["done_reason"], last["eval_count"]) == ("length", 4)
    with command(url) as client:
        client.do("POST", "/api/show", show)
        (last,) = client.stream(
            "/api/generate",
            b'{"model":"%s","prompt":"","suffix":"","system":"","template":"",'
            b'"keep_alive":"0s","options":null}' % name,
        )
        assert last["done_reason"] == "unload"
    port = url.rpartition(":")[2]
    other = programs.run("gateway", "--port", "0", "--ollama-port", port)
    assert other.code not in (0, 1), other
    assert f"port {port}" in other.err
    assert "--ollama-port" in other.err


@limit(120)
def test_a_pool_of_ollamas_is_one_ollama_to_its_programs(
    programs: Programs, tmp_path: Path
) -> None:
    """What either has is listed once, what either has in memory runs, and each model answers."""
    first = Ollama("llama3.2:latest", "nomic-embed-text:latest")
    second = Ollama("llama3.2:latest", "qwen3:latest")
    second.running = {"llama3.2:latest": 4096}
    ports = free_port(), free_port()
    variables = {
        "PUNCH_ADOPT": ";".join(f"http://127.0.0.1:{port}" for port in ports),
        "PUNCH_ADOPT_FOUND": "0",
        "PUNCH_LISTEN": "/ip4/127.0.0.1/tcp/0",
        "PUNCH_LAN": "0",
        "PUNCH_GATEWAY_PORT": "0",
        "PUNCH_OLLAMA_PORT": "0",
        # A busy machine measures a server as slower than one that nobody has measured.
        "PUNCH_CALIBRATE": "0",
        "HOME": str(tmp_path),
    }
    with first.serve(ports[0]), second.serve(ports[1]):
        up = programs.start_punch("up", **variables)
        up.wait_out("nomic-embed-text:latest")
        up.wait_out("qwen3:latest")
        url = re.findall(r"Ollama +(http://\S+)", up.out)[0]
        # What `up` has found and said, its gateway offers a moment later.
        up.wait_until(lambda: len(httpx.get(f"{url}/api/tags").json()["models"]) == 3, "models")
        with command(url) as client:
            rows = client.do("GET", "/api/tags")["models"]
            assert sorted(row["name"] for row in rows) == [
                "llama3.2:latest", "nomic-embed-text:latest", "qwen3:latest",
            ]  # fmt: skip
            digests = {row["name"]: row["digest"] for row in rows}
            assert digests["llama3.2:latest"] == first.digest("llama3.2:latest")
            running = client.do("GET", "/api/ps")["models"]
            assert [row["name"] for row in running] == ["llama3.2:latest"]
        with command(url) as client:
            shown = client.do("POST", "/api/show", b'{"model":"qwen3:latest"}')
            assert "tools" in shown["capabilities"]
        asked = len(second.chats())
        for path, body in (
            ("/api/chat", {"messages": [{"role": "user", "content": "?"}]}),
            ("/api/generate", {"prompt": "?"}),
        ):
            for model in ("llama3.2:latest", "qwen3:latest"):
                with command(url) as client:
                    *parts, last = client.stream(path, json.dumps(body | {"model": model}).encode())
                    said = [p.get("response") or p["message"]["content"] for p in parts]
                    assert ("".join(said), last["done_reason"]) == (ANSWER, "stop")
        with command(url) as client:
            texts = b'{"model":"nomic-embed-text","input":["a","b"]}'
            assert len(client.do("POST", "/api/embed", texts)["embeddings"]) == 2
    # The one that has the model in memory has answered with it.
    assert first.chats() == []
    assert first.loaded_by_asking == ["nomic-embed-text:latest"]
    assert len(second.chats()) >= asked + 3
    assert up.stop().code in (ExitCode.OK, ExitCode.TERMINATED)
