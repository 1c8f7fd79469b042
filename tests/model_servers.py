"""Servers of models that tests play: what Ollama, LM Studio, vLLM, SGLang and others answer.

The shapes are those of the programs' own documents, and of answers that were recorded. One server
can be played inside this process, in virtual time, and on a real port.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import attrs
import httpx

from punch.testing import Upstream

ANSWER = "Paris is the capital."


@attrs.frozen(kw_only=True)
class Asked:
    """A request that reached a server."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any

    @property
    def model(self) -> Any:
        """The model that it names."""
        return self.body.get("model") if isinstance(self.body, dict) else None


@attrs.frozen
class Reply:
    """What a server says to it."""

    status: int
    data: bytes
    kind: str = "application/json"


def reply(value: object, status: int = 200) -> Reply:
    """A reply with a JSON body."""
    return Reply(status, json.dumps(value).encode())


def error(status: int, message: str, **fields: object) -> Reply:
    """A reply with an error, in OpenAI's form."""
    return reply({"error": {"message": message, "code": status, **fields}}, status)


class ModelServer:
    """A server that lists models and answers with them, as OpenAI's interface has it.

    Args:
      models: Names of the models.
      owner: Its word for ``owned_by``.

    """

    def __init__(self, *models: str, owner: str = "somebody") -> None:
        self.models = list(models)
        self.owner = owner
        self.is_up = True
        """Whether connections are accepted."""
        self.status: int | None = None
        """The status that every request gets, in place of an answer."""
        self.cannot_chat: dict[str, int] = {}
        """Models that do not chat, with the status that asking them to gets."""
        self.asked: list[Asked] = []
        """What it was asked, in order."""
        self.loaded_by_asking: list[str] = []
        """Models that were loaded because somebody asked them something."""

    # ---- what it says ----

    def loaded(self) -> set[str]:
        """The models that are in memory."""
        return set(self.models)

    def rows(self) -> list[dict[str, Any]]:
        """The rows of ``/v1/models``."""
        return [
            {"id": name, "object": "model", "created": 1, "owned_by": self.owner}
            for name in self.models
        ]

    def native(self, asked: Asked) -> Reply | None:
        """What it says at paths of its own."""
        return None

    def respond(self, asked: Asked) -> Reply:
        """The reply to any request."""
        self.asked.append(asked)
        if self.status is not None:
            return error(self.status, "Loading model" if self.status == 503 else "no")
        if asked.method == "GET" and asked.path == "/v1/models":
            return reply({"object": "list", "data": self.rows()})
        if asked.method == "POST" and asked.path.startswith("/v1/"):
            return self._work(asked)
        found = self.native(asked)
        return error(404, "not found") if found is None else found

    def _work(self, asked: Asked) -> Reply:
        if asked.model not in self.models:
            return error(404, f'model "{asked.model}" not found', code="model_not_found")
        if asked.model not in self.loaded():
            self.loaded_by_asking.append(asked.model)
        if asked.path == "/v1/embeddings":
            rows = [
                {"index": n, "embedding": [0.5, float(n)]} for n in range(len(asked.body["input"]))
            ]
            return reply({"data": rows, "usage": {"prompt_tokens": 3}})
        if asked.model in self.cannot_chat:
            return error(self.cannot_chat[asked.model], "this model cannot chat")
        return self.chat(asked)

    def chat(self, asked: Asked) -> Reply:
        """The answer to a chat or a completion."""
        words = ANSWER.split(" ")
        parts = [f"{word} " for word in words[:-1]] + words[-1:]
        events = [_event(asked, part) for part in parts]
        events.append(_event(asked, "", "stop"))
        usage = {"prompt_tokens": 9, "completion_tokens": len(parts)}
        events.append(f"data: {json.dumps({'choices': [], 'usage': usage})}\n\n")
        events.append("data: [DONE]\n\n")
        return Reply(200, "".join(events).encode(), "text/event-stream")

    # ---- what it was asked ----

    def counted(self) -> Counter[str]:
        """How often each path was asked for."""
        return Counter(each.path for each in self.asked)

    def chats(self) -> list[Any]:
        """The models that were asked to chat, in order."""
        return [each.model for each in self.asked if each.path == "/v1/chat/completions"]

    # ---- where it is played ----

    def transport(self) -> httpx.AsyncBaseTransport:
        """A transport that leads an HTTP client here, whatever the address."""
        return _Gate(self)

    @contextmanager
    def serve(self, port: int) -> Iterator[str]:
        """Play it on a port of this machine; gives its address."""
        server = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def _event(asked: Asked, text: str, finish: str | None = None) -> str:
    is_chat = asked.path == "/v1/chat/completions"
    said = {"delta": {"content": text}} if is_chat else {"text": text}
    choice = {"index": 0, "finish_reason": finish, **said}
    return f"data: {json.dumps({'choices': [choice]})}\n\n"


class _Gate(httpx.AsyncBaseTransport):
    def __init__(self, server: ModelServer) -> None:
        self._server = server
        self._inner = _Played(server).transport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Pass it on, if the server is up."""
        if not self._server.is_up:
            raise httpx.ConnectError(f"all attempts to connect to {request.url.netloc!r} failed")
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._inner.aclose()


class _Played(Upstream):
    def __init__(self, server: ModelServer) -> None:
        super().__init__()
        self._server = server

    def answer(self, request: bytes) -> tuple[bytes, ...]:
        """Have the server respond to whatever comes."""
        head, _, data = request.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        method, path, _ = first.split(" ")
        pairs = (line.split(": ", 1) for line in lines)
        headers = {name.lower(): value for name, value in pairs}
        found = self._server.respond(_asked(method, path, headers, data))
        top = f"HTTP/1.1 {found.status} -\r\nContent-Length: {len(found.data)}\r\n"
        return (f"{top}Content-Type: {found.kind}\r\n\r\n".encode(), found.data)


def _asked(method: str, path: str, headers: Mapping[str, str], data: bytes) -> Asked:
    return Asked(method=method, path=path, headers=headers, body=json.loads(data) if data else None)


def _handler(played: ModelServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            """Respond."""
            data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            found = played.respond(_asked(self.command, self.path, headers, data))
            self.send_response(found.status)
            self.send_header("Content-Type", found.kind)
            self.send_header("Content-Length", str(len(found.data)))
            self.end_headers()
            self.wfile.write(found.data)

        do_POST = do_GET  # noqa: N815 - the name that the library asks for

    return Handler
