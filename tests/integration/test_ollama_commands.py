"""Ollama's command line at Ollama's own port: the bytes that its Go program puts on the wire."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from typing import Any

import httpx
from integration.programs import Programs


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
