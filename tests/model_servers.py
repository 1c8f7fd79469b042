"""Servers of models that tests play: what Ollama, LM Studio, vLLM, SGLang and others answer.

The shapes are those of the programs' own documents, and of answers that were recorded. One server
can be played inside this process, in virtual time, and on a real port.
"""

from __future__ import annotations

import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import attrs
import httpx

from punch.testing import Upstream

ANSWER = "Paris is the capital."
JSON_ANSWER = '{"city": "Paris"}'


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
        self.pace = 0.0
        """Seconds before each event of an answer."""
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
        """The answer: a call if there is a tool, JSON if there is a schema."""
        if asked.body.get("tools"):
            function = {"name": asked.body["tools"][0]["function"]["name"], "arguments": "{}"}
            call = {"index": 0, "id": "call_1", "type": "function", "function": function}
            choice = {"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": "tool_calls"}
            event = f"data: {json.dumps({'choices': [choice]})}\n\ndata: [DONE]\n\n"
            return Reply(200, event.encode(), "text/event-stream")
        text = JSON_ANSWER if asked.body.get("response_format") else ANSWER
        words = text.split(" ")
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
        server = _Server(("127.0.0.1", port), _handler(self))
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.shutdown()
            server.server_close()
            server.hang_up()
            thread.join()


class _Server(ThreadingHTTPServer):
    """One whose end is the end of its connections, too, as it is when a program ends."""

    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Have a thread of its own serve a connection."""
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection that is done with."""
        self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """End the connections that are kept."""
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


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

    def answer(self, request: bytes) -> tuple[bytes | float, ...]:
        """Have the server respond to whatever comes."""
        head, _, data = request.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        method, path, _ = first.split(" ")
        pairs = (line.split(": ", 1) for line in lines)
        headers = {name.lower(): value for name, value in pairs}
        found = self._server.respond(_asked(method, path, headers, data))
        pieces: list[bytes | float] = [found.data]
        if self._server.pace and found.kind == "text/event-stream":
            pieces = []
            for piece in found.data.split(b"\n\n"):
                pieces += [self._server.pace, piece + b"\n\n"]
            found = attrs.evolve(found, data=b"".join(p for p in pieces if isinstance(p, bytes)))
        top = f"HTTP/1.1 {found.status} -\r\nContent-Length: {len(found.data)}\r\n"
        return (f"{top}Content-Type: {found.kind}\r\n\r\n".encode(), *pieces)


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


# ---- the programs ----


class Ollama(ModelServer):
    """Ollama, which loads a model when it is asked something, and tells all of its models.

    Args:
      models: Names of the models.
      version: Its version.

    """

    def __init__(self, *models: str, version: str = "0.12.6") -> None:
        super().__init__(*models, owner="library")
        self.version = version
        self.running: dict[str, int] = {}
        """Models in memory, with the context that they were loaded with."""
        self.shows: dict[str, dict[str, Any]] = {}
        """What `/api/show` says of a model, besides the usual."""
        self.tags: dict[str, dict[str, Any]] = {}
        """The same of `/api/tags`."""
        self.ps: dict[str, dict[str, Any]] = {}
        """The same of `/api/ps`."""

    def loaded(self) -> set[str]:
        """The models that are in memory."""
        return set(self.running)

    def digest(self, name: str) -> str:
        """The digest of a model."""
        return f"{sum(name.encode()):064x}"

    def tag(self, name: str) -> dict[str, Any]:
        """A row of ``/api/tags``."""
        is_embedder = "embed" in name
        return {
            "name": name,
            "model": name,
            "modified_at": "2025-05-04T17:37:44.706015396-07:00",
            "size": 274302450 if is_embedder else 2019393189,
            "digest": self.digest(name),
            "details": {
                "parent_model": "",
                "format": "gguf",
                "family": "nomic-bert" if is_embedder else "llama",
                "families": ["nomic-bert"] if is_embedder else ["llama"],
                "parameter_size": "137M" if is_embedder else "3.2B",
                "quantization_level": "F16" if is_embedder else "Q4_K_M",
            },
            **self.tags.get(name, {}),
        }

    def show(self, name: str) -> dict[str, Any]:
        """What ``/api/show`` says."""
        is_embedder = "embed" in name
        family = "nomic-bert" if is_embedder else "llama"
        return {
            "license": "LLAMA 3.2 COMMUNITY LICENSE AGREEMENT",
            "modelfile": "FROM /usr/share/ollama/.ollama/models/blobs/sha256-dde5aa3fc5ff",
            "parameters": 'stop                           "<|eot_id|>"',
            "template": "{{ .Prompt }}" if is_embedder else "{{ if .Tools }}{{ end }}",
            "details": self.tag(name)["details"],
            "model_info": {
                "general.architecture": family,
                "general.parameter_count": 136727040 if is_embedder else 3212749888,
                f"{family}.context_length": 2048 if is_embedder else 131072,
                f"{family}.embedding_length": 768 if is_embedder else 3072,
                "tokenizer.ggml.tokens": None,
            },
            "capabilities": ["embedding"] if is_embedder else ["completion", "tools"],
            "modified_at": "2025-05-04T17:37:44.706015396-07:00",
            **self.shows.get(name, {}),
        }

    def native(self, asked: Asked) -> Reply | None:
        """Ollama's own API."""
        if asked.path == "/api/version":
            return reply({"version": self.version})
        if asked.path == "/api/tags":
            return reply({"models": [self.tag(name) for name in self.models]})
        if asked.path == "/api/ps":
            rows = [
                {
                    **{k: v for k, v in self.tag(name).items() if k != "modified_at"},
                    "expires_at": "2025-05-04T17:42:44.706015396-07:00",
                    "size_vram": 2019393189,
                    "context_length": context,
                    **self.ps.get(name, {}),
                }
                for name, context in self.running.items()
            ]
            return reply({"models": rows})
        if asked.path == "/api/show":
            if asked.model not in self.models:
                return reply({"error": f"model '{asked.model}' not found"}, 404)
            return reply(self.show(asked.model))
        return None


class LmStudio(ModelServer):
    """LM Studio, which answers 200 to paths that it does not have.

    Args:
      models: Names of the models.
      api: Its newest own API: ``v1``, or ``v0`` before version 0.4.

    """

    def __init__(self, *models: str, api: str = "v1") -> None:
        super().__init__(*models, owner="organization_owner")
        self.api = api
        self.running: dict[str, int] = {}
        """Models in memory, with the context that they were loaded with."""

    def loaded(self) -> set[str]:
        """The models that are in memory."""
        return set(self.running)

    def native(self, asked: Asked) -> Reply:
        """LM Studio's own API."""
        if asked.path == "/api/v0/models":
            return reply({"object": "list", "data": list(map(self._v0, self.models))})
        if asked.path == "/api/v1/models" and self.api == "v1":
            return reply({"models": list(map(self._v1, self.models))})
        path = f"{asked.method} {asked.path}"
        return reply({"error": f"Unexpected endpoint or method. ({path})"})

    def _v0(self, name: str) -> dict[str, Any]:
        context = self.running.get(name)
        is_embedder = "embed" in name
        row: dict[str, Any] = {
            "id": name,
            "object": "model",
            "type": "embeddings" if is_embedder else "llm",
            "publisher": "lmstudio-community",
            "arch": "nomic-bert" if is_embedder else "qwen3",
            "compatibility_type": "gguf",
            "quantization": "Q4_K_M",
            "state": "not-loaded" if context is None else "loaded",
            "max_context_length": 2048 if is_embedder else 40960,
        }
        if not is_embedder:
            row["capabilities"] = ["tool_use"]
        return row if context is None else {**row, "loaded_context_length": context}

    def _v1(self, name: str) -> dict[str, Any]:
        context = self.running.get(name)
        is_embedder = "embed" in name
        row = {
            "type": "embedding" if is_embedder else "llm",
            "publisher": "lmstudio-community",
            "key": name,
            "display_name": name.title(),
            "quantization": {"name": "Q4_K_M", "bits_per_weight": 4},
            "size_bytes": 2497280256,
            "params_string": "4B",
            "loaded_instances": []
            if context is None
            else [{"id": name, "config": {"context_length": context}}],
            "max_context_length": 2048 if is_embedder else 40960,
            "format": "gguf",
        }
        if not is_embedder:
            row["architecture"] = "qwen3"
            row["capabilities"] = {"vision": False, "trained_for_tool_use": True}
        return row


class Vllm(ModelServer):
    """vLLM, with the one model that it was started with.

    Args:
      model: Name of the model.
      embeds: Whether it was started to embed, and does nothing else then.

    """

    def __init__(
        self, model: str = "meta-llama/Llama-3.2-3B-Instruct", *, embeds: bool = False
    ) -> None:
        super().__init__(model, owner="vllm")
        self.embeds = embeds
        if embeds:
            self.cannot_chat[model] = 404

    def respond(self, asked: Asked) -> Reply:
        """Embed only if it was started for it."""
        if asked.path == "/v1/embeddings" and not self.embeds:
            self.asked.append(asked)
            return reply({"detail": "Not Found"}, 404)
        return super().respond(asked)

    def rows(self) -> list[dict[str, Any]]:
        """The rows of ``/v1/models``."""
        more = {"root": self.models[0], "parent": None, "max_model_len": 16384}
        return [{**row, **more, "permission": [{"id": "modelperm-1"}]} for row in super().rows()]

    def native(self, asked: Asked) -> Reply | None:
        """VLLM's own pages."""
        return reply({"version": "0.11.0"}) if asked.path == "/version" else None


class Sglang(ModelServer):
    """SGLang, with the one model that it was started with.

    Args:
      model: Name of the model.
      tool_call_parser: Its flag of that name.
      is_generation: Whether the model makes text.

    """

    def __init__(
        self,
        model: str = "qwen/qwen2.5-0.5b-instruct",
        *,
        tool_call_parser: str | None = None,
        is_generation: bool = True,
    ) -> None:
        super().__init__(model, owner="sglang")
        self.tool_call_parser = tool_call_parser
        self.is_generation = is_generation

    def rows(self) -> list[dict[str, Any]]:
        """The rows of ``/v1/models``."""
        return [{**r, "root": self.models[0], "max_model_len": 32768} for r in super().rows()]

    def native(self, asked: Asked) -> Reply | None:
        """SGLang's own pages."""
        if asked.path == "/get_model_info":
            return reply(
                {
                    "model_path": self.models[0],
                    "tokenizer_path": self.models[0],
                    "is_generation": self.is_generation,
                    "preferred_sampling_params": None,
                    "weight_version": "default",
                    "has_image_understanding": False,
                    "has_audio_understanding": False,
                }
            )
        if asked.path == "/get_server_info":
            return reply(
                {
                    "model_path": self.models[0],
                    "context_length": None,
                    "max_running_requests": 8,
                    "api_key": "sk-of-the-server",
                    "grammar_backend": "xgrammar",
                    "tool_call_parser": self.tool_call_parser,
                    "version": "0.5.3",
                    "internal_states": [{"last_gen_throughput": 0.0}],
                }
            )
        return None


class LlamaServer(ModelServer):
    """llama-server, as it was recorded: its list, ``/props``, and what it says while it loads."""

    def __init__(self, model: str = "/home/ann/models/SmolLM2-135M.Q4_1.gguf") -> None:
        super().__init__(model, owner="llamacpp")
        self.is_sleeping = False
        self.embeds = False
        self.context = 4096
        self.total_slots = 2

    def rows(self) -> list[dict[str, Any]]:
        """The rows of ``/v1/models``."""
        meta = {
            "vocab_type": 2,
            "n_vocab": 49152,
            "n_ctx": self.context,
            "n_ctx_train": 8192,
            "n_embd": 576,
            "n_params": 134515008,
            "size": 96576768,
            "ftype": "Q4_1",
        }
        return [{**row, "meta": meta} for row in super().rows()]

    def native(self, asked: Asked) -> Reply | None:
        """llama-server's own pages."""
        if asked.path != "/props":
            return None
        caps = {"supports_tools": False, "supports_tool_calls": False, "supports_system_role": True}
        return reply(
            {
                "default_generation_settings": {"n_ctx": self.context},
                "total_slots": self.total_slots,
                "model_path": self.models[0],
                "modalities": {"vision": False, "audio": False},
                "chat_template_caps": caps,
                "build_info": "b1-0c1e570",
                "is_sleeping": self.is_sleeping,
            }
        )

    def respond(self, asked: Asked) -> Reply:
        """Embed only if it was started for it."""
        if asked.path == "/v1/embeddings" and not self.embeds:
            self.asked.append(asked)
            return error(501, "This server does not support embeddings.")
        if asked.method == "POST" and "model" not in asked.body:
            asked = attrs.evolve(asked, body={**asked.body, "model": self.models[0]})
        return super().respond(asked)
