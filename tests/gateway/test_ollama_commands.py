"""`ollama run`, `list`, `ps`, `show`, ...: what its Go client sends, byte by byte, and reads.

Go writes every field of a structure that it may not leave out, empty or null if it has none, in the
structure's order; and it reads a field only if its JSON has the field's type.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest
from gateway_client import BY_NAME, Client, Reply, open_client
from trio.testing import MockClock

from punch.backends import Emit, Generation, MockBackend, MockScript
from punch.capability import ModelOffer
from punch.testing import ScriptedBackend
from punch.wire import CommandRequest, Completion, Timings, Usage

JSON, NDJSON = "application/json", "application/x-ndjson"
AGENT = "ollama/0.13.0 (amd64 linux) Go/go1.24.1"

DETAILS: dict[str, Any] = {
    "parent_model": str, "format": str, "family": str, "families": [str],
    "parameter_size": str, "quantization_level": str, "context_length": int,
    "embedding_length": int,
}  # fmt: skip
TAG: dict[str, Any] = {
    "name": str, "model": str, "modified_at": datetime, "size": int, "digest": str,
    "details": DETAILS, "capabilities": [str],
}  # fmt: skip
RUNNING: dict[str, Any] = {
    "name": str, "model": str, "size": int, "digest": str, "details": DETAILS,
    "expires_at": datetime, "size_vram": int, "context_length": int,
}  # fmt: skip
SHOWN: dict[str, Any] = {
    "license": str, "modelfile": str, "parameters": str, "template": str, "system": str,
    "details": DETAILS, "model_info": dict, "capabilities": [str], "modified_at": datetime,
}  # fmt: skip
METRICS: dict[str, Any] = {
    "total_duration": int, "load_duration": int, "prompt_eval_count": int,
    "prompt_eval_duration": int, "eval_count": int, "eval_duration": int,
}  # fmt: skip
GENERATED: dict[str, Any] = METRICS | {
    "model": str, "created_at": datetime, "response": str, "done": bool, "done_reason": str,
}  # fmt: skip
CHATTED: dict[str, Any] = METRICS | {
    "model": str, "created_at": datetime, "message": {"role": str, "content": str},
    "done": bool, "done_reason": str,
}  # fmt: skip
EMBEDDED: dict[str, Any] = {
    "model": str, "embeddings": [[float]], "total_duration": int, "load_duration": int,
    "prompt_eval_count": int,
}  # fmt: skip


def read(value: Any, kind: Any) -> Any:
    """*value*, if Go could read it into a structure of this *kind*."""
    if isinstance(kind, dict):
        assert isinstance(value, dict)
        for name, its in kind.items():
            if name in value:
                read(value[name], its)
    elif isinstance(kind, list):
        assert isinstance(value, list)
        for each in value:
            read(each, kind[0])
    elif kind is datetime:
        assert value.endswith("Z")
        datetime.fromisoformat(value)
    elif kind is float:
        assert type(value) in (int, float)
    else:
        assert type(value) is kind
    return value


class Command:
    """One command of Ollama's: what its client does in it."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def heartbeat(self) -> None:
        """Every command looks first whether the server is there."""
        reply = await self.client.request("HEAD", "/", accept=JSON, user_agent=AGENT)
        assert reply.status == 200

    async def do(self, method: str, path: str, body: bytes | None = None) -> Reply:
        """Ask for one value."""
        headers = {"accept": JSON, "content_type": JSON, "user_agent": AGENT}
        return await self.client.request(method, path, body, **headers)

    async def show(self, body: bytes) -> Any:
        """Ask what is known of a model."""
        reply = await self.do("POST", "/api/show", body)
        assert reply.status == 200, reply.body
        return read(reply.json(), SHOWN)

    async def stream(self, path: str, body: bytes) -> Reply:
        """Ask for many lines."""
        headers = {"accept": NDJSON, "content_type": JSON, "user_agent": AGENT}
        return await self.client.request("POST", path, body, **headers)


def of(reply: Reply, kind: Any) -> list[Any]:
    """The lines of a stream, each of which Go can read."""
    assert reply.status == 200, reply.body
    return [read(line, kind) for line in reply.lines()]


def mock(**script: Any) -> MockBackend:
    return MockBackend(MockScript(**script))


def knowing(asked: list[CommandRequest], **facts: Any) -> ScriptedBackend:
    """A backend that knows something of its model, and says "ok"."""

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        asked.append(request)
        await emit("ok", 1)
        usage = Usage(prompt_tokens=3, completion_tokens=1)
        return Generation(completion=Completion(text="ok"), usage=usage, timings=Timings())

    return ScriptedBackend(play, offers=(ModelOffer(**{"name": "m"} | facts),))


LLAMA: dict[str, Any] = {
    "digest": "ab" * 32,
    "context_tokens": 8192,
    "features": frozenset({"chat", "complete", "embed", "tools"}),
    "parameters": 3_212_749_888,
    "quantization": "Q4_K_M",
    "size_bytes": 2_019_393_189,
    "architecture": "llama",
    "embedding_length": 3072,
}


async def test_list_has_a_row_of_each_model(autojump_clock: MockClock) -> None:
    """Its client prints the first twelve digits of a digest, without a look how many there are."""
    async with open_client({"a": knowing([], **LLAMA), "b": knowing([], name="bare")}) as client:
        command = Command(client)
        await command.heartbeat()
        reply = await command.do("GET", "/api/tags")
        again = await command.do("GET", "/api/tags")
    bare, known = read(reply.json()["models"], [TAG])
    assert again.json() == reply.json()
    assert (known["name"], known["model"], known["size"]) == ("m", "m", 2_019_393_189)
    assert known["digest"] == "ab" * 32
    assert known["details"] == {
        "parent_model": "", "format": "gguf", "family": "llama", "families": ["llama"],
        "parameter_size": "3.2B", "quantization_level": "Q4_K_M",
        "context_length": 8192, "embedding_length": 3072,
    }  # fmt: skip
    assert len(bare["digest"]) == 64
    assert set(bare["digest"]) <= set("0123456789abcdef")
    assert bare["details"]["family"] == "unknown"


async def test_a_digest_that_one_peer_knows_is_the_models(autojump_clock: MockClock) -> None:
    """Whichever offer takes the longest context."""
    one = knowing([], digest="cd" * 32, context_tokens=100, architecture="qwen2")
    async with open_client({"a": one, "b": knowing([], context_tokens=200)}) as client:
        (model,) = (await client.get("/api/tags")).json()["models"]
    assert model["digest"] == "cd" * 32
    assert model["details"]["family"] == "qwen2"
    assert model["details"]["context_length"] == 200


async def test_ps_has_what_is_loaded(autojump_clock: MockClock) -> None:
    """With the context, and a time that its client prints as "Forever"."""
    loaded, idle = knowing([], **LLAMA), knowing([], name="idle", load_seconds=9.0)
    async with open_client({"a": loaded, "b": idle}) as client:
        command = Command(client)
        await command.heartbeat()
        reply = await command.do("GET", "/api/ps")
    (row,) = read(reply.json()["models"], [RUNNING])
    assert (row["name"], row["context_length"], row["size_vram"]) == ("m", 8192, 0)
    years = datetime.fromisoformat(row["expires_at"]).year - 2023
    assert 20 < years < 300


def processor(row: dict[str, Any]) -> str:
    """The column PROCESSOR of ``ollama ps``, as Ollama 0.13 computes it."""
    size, on_gpus = row["size"], row["size_vram"]
    if on_gpus == 0:
        return "100% CPU"
    if on_gpus == size:
        return "100% GPU"
    if on_gpus > size or size == 0:
        return "Unknown"
    on_cpu = round((size - on_gpus) / size * 100)
    return f"{on_cpu}%/{100 - on_cpu}% CPU/GPU"


@pytest.mark.parametrize(
    ("told", "sizes", "shown"),
    [
        ([{"size_bytes": 2000}], (2000, 0), "100% CPU"),
        ([{}], (0, 0), "100% CPU"),
        ([{"size_bytes": 2000, "loaded_bytes": 3000}], (3000, 0), "100% CPU"),
        (
            [{"size_bytes": 2000, "loaded_bytes": 3000, "gpu_bytes": 3000}],
            (3000, 3000),
            "100% GPU",
        ),
        (
            [{"size_bytes": 2000, "loaded_bytes": 3000, "gpu_bytes": 750}],
            (3000, 750),
            "75%/25% CPU/GPU",
        ),
        # A cache beside the weights, and no word of how much it is in all.
        ([{"size_bytes": 2000, "gpu_bytes": 2500}], (2500, 2500), "100% GPU"),
        ([{"gpu_bytes": 2500}], (2500, 2500), "100% GPU"),
        # Both are of one peer, and of one that has it loaded.
        (
            [{"loaded_bytes": 9000}, {"loaded_bytes": 3000, "gpu_bytes": 1500}],
            (3000, 1500),
            "50%/50% CPU/GPU",
        ),
        (
            [{"size_bytes": 2000}, {"load_seconds": 9.0, "loaded_bytes": 3000, "gpu_bytes": 1500}],
            (2000, 0),
            "100% CPU",
        ),
    ],
)
async def test_ps_says_what_an_engine_said_of_its_gpus(
    told: list[dict[str, Any]], sizes: tuple[int, int], shown: str, autojump_clock: MockClock
) -> None:
    """The command line makes shares of it."""
    peers = {f"peer-{number}": knowing([], **facts) for number, facts in enumerate(told)}
    async with open_client(peers) as client:
        (row,) = read((await client.get("/api/ps")).json()["models"], [RUNNING])
    assert (row["size"], row["size_vram"]) == sizes
    assert processor(row) == shown


async def test_show_says_what_the_header_of_the_file_says(autojump_clock: MockClock) -> None:
    """The name comes in the old field, and the new one is empty."""
    async with open_client({"a": knowing([], **LLAMA)}) as client:
        command = Command(client)
        await command.heartbeat()
        shown = await command.show(
            b'{"model":"","system":"","template":"","verbose":false,"options":null,"name":"m"}'
        )
    assert shown["model_info"] == {
        "general.architecture": "llama",
        "general.basename": "m",
        "general.parameter_count": 3_212_749_888,
        "llama.context_length": 8192,
        "llama.embedding_length": 3072,
    }
    assert shown["capabilities"] == ["completion", "tools"]
    assert shown["parameters"].split() == ["num_ctx", "8192"]
    assert "FROM m\n" in shown["modelfile"]


SHOW = b'{"model":"%s","system":"","template":"","verbose":false,"options":null,"name":""}'


async def test_run_with_a_prompt_shows_and_generates(autojump_clock: MockClock) -> None:
    """Show, then a stream of lines that ends with what was counted."""
    asked: list[CommandRequest] = []
    async with open_client({"a": knowing(asked, **LLAMA)}) as client:
        command = Command(client)
        await command.heartbeat()
        shown = await command.show(SHOW % b"m")
        reply = await command.stream(
            "/api/generate",
            b'{"model":"m","prompt":"why \\u003e how?","suffix":"","system":"","template":"",'
            b'"options":{}}',
        )
    assert "embedding" not in shown["capabilities"]
    assert not any(".vision." in name for name in shown["model_info"])
    first, last = of(reply, GENERATED)
    assert (first["response"], first["done"]) == ("ok", False)
    assert (last["done"], last["done_reason"]) == (True, "stop")
    assert (last["prompt_eval_count"], last["eval_count"]) == (3, 1)
    assert [message.content for message in asked[0].messages] == ["why > how?"]


async def test_run_that_asks_again_and_again_loads_and_chats(autojump_clock: MockClock) -> None:
    """It loads the model before its prompt is there, and sends the conversation each time."""
    asked: list[CommandRequest] = []
    features = LLAMA["features"] | {"json_schema"}
    async with open_client({"a": knowing(asked, **LLAMA | {"features": features})}) as client:
        command = Command(client)
        await command.heartbeat()
        await command.show(SHOW % b"m")
        await command.show(SHOW % b"m")
        loads = await command.stream(
            "/api/generate",
            b'{"model":"m","prompt":"","suffix":"","system":"","template":"","options":null}',
        )
        reply = await command.stream(
            "/api/chat",
            b'{"model":"m","messages":[{"role":"system","content":"be brief"},'
            b'{"role":"user","content":"hi"}],"format":"json","options":{"num_ctx":4096,'
            b'"seed":7,"stop":["x"],"temperature":0.5}}',
        )
    (loaded,) = of(loads, GENERATED)
    assert (loaded["done"], loaded["done_reason"], loaded["response"]) == (True, "load", "")
    first, last = of(reply, CHATTED)
    assert first["message"] == {"role": "assistant", "content": "ok"}
    assert last["done"] is True
    assert [message.role for message in asked[0].messages] == ["system", "user"]
    assert (asked[0].sampling.seed, asked[0].response_schema) == (7, "{}")


async def test_run_of_an_embedder_prints_a_vector(autojump_clock: MockClock) -> None:
    """It is told from what chats by its one capability."""
    asked: list[CommandRequest] = []

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        asked.append(request)
        completion = Completion(embeddings=((0.5, 0.25),))
        return Generation(completion=completion, usage=Usage(prompt_tokens=1), timings=Timings())

    offer = ModelOffer(name="e", features=frozenset({"embed"}))
    async with open_client({"a": ScriptedBackend(play, offers=(offer,))}) as client:
        command = Command(client)
        shown = await command.show(SHOW % b"e")
        reply = await command.do(
            "POST", "/api/embed", b'{"model":"e","input":"some text","options":null}'
        )
    assert shown["capabilities"] == ["embedding"]
    assert read(reply.json(), EMBEDDED)["embeddings"] == [[0.5, 0.25]]
    assert asked[0].inputs == ("some text",)


async def test_run_of_what_is_not_there_pulls_and_is_told_why_not(
    autojump_clock: MockClock,
) -> None:
    """404 makes it pull; the error of that is what a person reads."""
    async with open_client({"a": mock()}, settings=BY_NAME) as client:
        command = Command(client)
        shown = await command.do("POST", "/api/show", SHOW % b"other")
        pulled = await command.stream(
            "/api/pull", b'{"model":"","username":"","password":"","name":"other"}'
        )
    assert shown.status == 404
    assert "not found" in shown.json()["error"]
    assert pulled.status == 404
    (error,) = pulled.lines()
    assert error.keys() == {"error"}
    for words in ("not found", "on offer: mock", "punch models pull"):
        assert words in error["error"]


async def test_pull_of_what_is_on_offer_succeeds(autojump_clock: MockClock) -> None:
    """In lines, or as one value."""
    async with open_client({"a": mock()}) as client:
        command = Command(client)
        await command.heartbeat()
        reply = await command.stream(
            "/api/pull", b'{"model":"","username":"","password":"","name":"mock:latest"}'
        )
        whole = await client.post("/api/pull", {"model": "mock", "stream": False})
    *_, last = of(reply, {"status": str})
    assert last == {"status": "success"}
    assert whole.json() == {"status": "success"}


@pytest.mark.parametrize("keep_alive", [b'"0s"', b"0", b'"0"', b'"0h0m0s"', b"0.0"])
async def test_stop_unloads_nothing_and_is_believed(
    keep_alive: bytes, autojump_clock: MockClock
) -> None:
    """It shows the model, and asks for nothing with no time to stay."""
    async with open_client({"a": mock()}) as client:
        command = Command(client)
        await command.heartbeat()
        await command.show(SHOW % b"mock")
        reply = await command.stream(
            "/api/generate",
            b'{"model":"mock","prompt":"","suffix":"","system":"","template":"",'
            b'"keep_alive":' + keep_alive + b',"options":null}',
        )
        chat = await client.post(
            "/api/chat", {"model": "mock", "messages": [], "keep_alive": json.loads(keep_alive)}
        )
    (last,) = of(reply, GENERATED)
    assert (last["done"], last["done_reason"]) == (True, "unload")
    assert chat.lines()[-1]["done_reason"] == "unload"


@pytest.mark.parametrize("keep_alive", ['"5m"', "300", "-1", '"-1"', '"1h0m0s"', '"0.5s"', "null"])
async def test_a_model_that_is_to_stay_is_loaded(
    keep_alive: str, autojump_clock: MockClock
) -> None:
    """For how long is the listener's decision."""
    async with open_client({"a": mock()}) as client:
        body = {"model": "mock", "keep_alive": json.loads(keep_alive), "stream": False}
        reply = await client.post("/api/generate", body)
    assert reply.json()["done_reason"] == "load"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("DELETE", "/api/delete", b'{"model":"","name":"mock"}'),
        ("POST", "/api/copy", b'{"source":"mock","destination":"other"}'),
        ("POST", "/api/create", b'{"model":"own","from":"mock","name":""}'),
        ("POST", "/api/push", b'{"model":"","username":"","password":"","name":"mock"}'),
        ("POST", "/api/blobs/sha256:" + "ab" * 32, b"GGUF"),
    ],
)
async def test_what_would_change_models_is_refused_in_words(
    method: str, path: str, body: bytes, autojump_clock: MockClock
) -> None:
    """`rm`, `cp`, `create` and `push`: the remedy is where the models are."""
    async with open_client({"a": mock()}) as client:
        reply = await Command(client).do(method, path, body)
    assert reply.status == 403
    assert reply.json().keys() == {"error"}
    assert "`punch models`" in reply.json()["error"]


@pytest.mark.parametrize("path", ["/api/me", "/api/signout", "/api/experimental/web_search"])
async def test_what_is_no_business_of_a_gateway_is_not_there(
    path: str, autojump_clock: MockClock
) -> None:
    """Accounts and the web."""
    async with open_client({"a": mock()}) as client:
        reply = await Command(client).do("POST", path, b"{}")
    assert reply.status == 404
    assert reply.json().keys() == {"error"}


@pytest.mark.parametrize("body", [b"{}", b'{"model":"","name":""}', b'{"model":null,"name":null}'])
async def test_a_model_must_be_named(body: bytes, autojump_clock: MockClock) -> None:
    """In one of the two fields."""
    async with open_client({"a": mock()}) as client:
        for path in ("/api/show", "/api/pull"):
            reply = await Command(client).do("POST", path, body)
            assert (reply.status, reply.json()) == (400, {"error": "model is missing"})


@pytest.mark.parametrize(
    ("accept", "words"),
    [
        ("application/json", True),
        ("*/*", True),
        ("", True),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", False),
        ("TEXT/HTML", False),
    ],
)
async def test_the_front_door_tells_programs_that_ollama_runs(
    accept: str, words: bool, autojump_clock: MockClock
) -> None:
    """A browser gets what else is there: the dashboard, if there is one."""
    async with open_client({"a": mock()}) as client:
        reply = await client.get("/", accept=accept)
        head = await client.request("HEAD", "/", accept=accept)
    assert reply.status == head.status == 200
    assert (reply.body == b"Ollama is running") is words
    if words:
        assert reply.headers["content-type"] == "text/plain; charset=utf-8"
