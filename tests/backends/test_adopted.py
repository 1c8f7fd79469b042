"""Servers that are not ours, played: what is offered of them, and when."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import attrs
import httpx
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from model_servers import (
    ANSWER,
    Asked,
    LlamaServer,
    LmStudio,
    ModelServer,
    Ollama,
    Reply,
    Sglang,
    Vllm,
    reply,
)
from trio.testing import MockClock

from punch.backends import Adopted, Generation, open_openai
from punch.backends.openai import _backend
from punch.backends.openai._backend import OpenAIBackend
from punch.capability import ModelOffer
from punch.exceptions import (
    BackendCrashed,
    ConfigurationError,
    OfferUnavailable,
    PunchError,
)
from punch.wire import ChatMessage, CommandRequest, Tool, fault_of_offer, mark_of

LIMIT = 10_000

CHAT = CommandRequest(request_id="r", messages=(ChatMessage(role="user", content="Hi"),))


@asynccontextmanager
async def adopted(server: ModelServer, **options: Any) -> AsyncIterator[OpenAIBackend]:
    """The backend in front of *server*, in virtual time."""
    with trio.fail_after(LIMIT):
        async with open_openai(
            url="http://inner.example:1234/v1",
            transport=server.transport(),
            rng=Random(1),
            **options,
        ) as backend:
            yield backend


def offered(backend: OpenAIBackend) -> list[str]:
    return [offer.name for offer in backend.offers]


def offer_of(backend: OpenAIBackend, name: str) -> ModelOffer:
    return next(offer for offer in backend.offers if offer.name == name)


async def ask(backend: OpenAIBackend, model: str, **fields: Any) -> Generation:
    async def emit(text: str, tokens: int) -> None:
        pass

    return await backend.generate(attrs.evolve(CHAT, model=model, **fields), emit)


async def embed(backend: OpenAIBackend, model: str) -> Generation:
    return await ask(backend, model, command="embed", messages=(), inputs=("a", "b"))


async def test_a_request_says_of_what_it_was_made_and_nothing_else(
    autojump_clock: MockClock,
) -> None:
    """A digest, the same for texts and vectors, by which a gateway sees that it asks itself."""
    server = Ollama("llama3.2:latest", "nomic-embed-text:latest")
    async with adopted(server) as backend:
        await ask(backend, "llama3.2:latest", request_id="mine@key#1")
        await embed(backend, "nomic-embed-text:latest")
    marks = [each.headers["x-punch-of"] for each in server.asked if "x-punch-of" in each.headers]
    assert marks == [mark_of("mine@key"), mark_of("r")]
    assert not any("mine" in str(each.headers) for each in server.asked)


# ---- what the programs tell ----


async def test_ollama_tells_of_its_models(autojump_clock: MockClock) -> None:
    """Context, digest, size, quantisation, and what each can do; nothing is loaded for it."""
    server = Ollama("llama3.2:latest", "nomic-embed-text:latest")
    async with adopted(server) as backend:
        llama = offer_of(backend, "llama3.2:latest")
        nomic = offer_of(backend, "nomic-embed-text:latest")

    assert (llama.context_tokens, llama.digest) == (131072, server.digest("llama3.2:latest"))
    assert (llama.size_bytes, llama.quantization) == (2019393189, "Q4_K_M")
    assert llama.parameters == 3212749888
    assert llama.features == {"chat", "complete", "tools", "json_schema"}
    assert nomic.features == {"embed"}
    assert nomic.context_tokens == 2048
    assert (llama.architecture, llama.embedding_length) == ("llama", 3072)
    assert (nomic.architecture, nomic.embedding_length) == ("nomic-bert", 768)
    assert server.loaded_by_asking == []


@pytest.mark.parametrize(
    ("shown", "features"),
    [
        ({"capabilities": ["completion"]}, {"chat", "complete", "json_schema"}),
        (
            {"capabilities": ["completion", "vision", "insert"]},
            {"chat", "complete", "json_schema", "image"},
        ),
        (
            {"capabilities": ["completion", "thinking"]},
            {"chat", "complete", "json_schema", "reasoning"},
        ),
        ({"capabilities": ["embedding"]}, {"embed"}),
        (
            {"capabilities": ["completion", "embedding"]},
            {"chat", "complete", "embed", "json_schema"},
        ),
        ({"capabilities": ["image"]}, None),
        # Before 0.6.4.
        ({"capabilities": None}, {"chat", "complete", "tools", "json_schema"}),
        ({"capabilities": None, "template": "{{ .Prompt }}"}, {"chat", "complete", "json_schema"}),
        ({"capabilities": "all"}, {"chat", "complete", "tools", "json_schema"}),
    ],
)
async def test_what_ollama_says_of_an_ability_counts(
    shown: dict[str, Any], features: set[str] | None, autojump_clock: MockClock
) -> None:
    """Whatever the model is called."""
    server = Ollama("whisper-rerank")
    server.shows["whisper-rerank"] = shown
    server.tags["whisper-rerank"] = {"details": {"family": "llama"}}
    async with adopted(server) as backend:
        found = [set(offer.features) for offer in backend.offers]
    assert found == ([] if features is None else [features])


async def test_an_embedder_of_an_old_ollama_is_known_by_its_architecture(
    autojump_clock: MockClock,
) -> None:
    """It has no capabilities to tell, and holds no answer to a schema yet."""
    server = Ollama("nomic-embed-text", "llama3", version="0.3.14")
    server.shows = {name: {"capabilities": None} for name in server.models}
    async with adopted(server) as backend:
        found = {offer.name: set(offer.features) for offer in backend.offers}
    assert found == {"nomic-embed-text": {"embed"}, "llama3": {"chat", "complete", "tools"}}


async def test_the_context_is_that_of_the_model_in_memory(autojump_clock: MockClock) -> None:
    """Before it is there, what the model was made with counts more than what it was trained for."""
    server = Ollama("running", "made", "trained")
    server.running["running"] = 4096
    server.shows["made"] = {"parameters": "num_ctx                        8192\ntemperature 1"}
    async with adopted(server) as backend:
        found = {offer.name: offer.context_tokens for offer in backend.offers}
        server.running["trained"] = 2048
        await trio.sleep(10)
        later = offer_of(backend, "trained").context_tokens
    assert found == {"running": 4096, "made": 8192, "trained": 131072}
    assert later == 2048


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"size": 3_000_000_000, "size_vram": 3_000_000_000}, (3_000_000_000, 3_000_000_000)),
        ({"size": 3_000_000_000, "size_vram": 700}, (3_000_000_000, 700)),
        # All of it is on the CPU.
        ({"size": 3_000_000_000, "size_vram": 0}, (3_000_000_000, None)),
        ({"size": None, "size_vram": None}, (None, None)),
        ({"size": "big", "size_vram": -1}, (None, None)),
        ({"size_vram": 2**60}, (2019393189, None)),
    ],
)
async def test_ollama_says_how_much_of_a_loaded_model_is_in_gpus(
    row: dict[str, Any], told: tuple[int | None, int | None], autojump_clock: MockClock
) -> None:
    """Of one that is not loaded, and of what cannot be true, nothing is told."""
    server = Ollama("loaded", "idle")
    server.running["loaded"] = 4096
    server.ps["loaded"] = row
    async with adopted(server) as backend:
        loaded, idle = offer_of(backend, "loaded"), offer_of(backend, "idle")
        del server.running["loaded"]
        await trio.sleep(10)
        later = offer_of(backend, "loaded")
    assert (loaded.loaded_bytes, loaded.gpu_bytes) == told
    assert loaded.size_bytes == 2019393189
    assert (idle.loaded_bytes, idle.gpu_bytes) == (later.loaded_bytes, later.gpu_bytes)
    assert idle.gpu_bytes is None


async def test_a_model_that_must_be_loaded_first_says_about_how_long(
    autojump_clock: MockClock,
) -> None:
    """Dialers are patient with it then, and prefer a peer that has it in memory."""
    server = Ollama("loaded", "small", "large")
    server.running["loaded"] = 4096
    server.tags["large"] = {"size": 40_000_000_000}
    async with adopted(server) as backend:
        seconds = {offer.name: offer.load_seconds for offer in backend.offers}
        assert backend.state == "ready"
    assert seconds["loaded"] == 0
    assert 1 < seconds["small"] < 10
    assert seconds["large"] == 80


async def test_a_model_that_is_being_loaded_says_what_is_left_of_that(
    autojump_clock: MockClock,
) -> None:
    """Who waits for it may be served sooner than by another server that would load it, too."""
    server = Ollama("large")
    server.tags["large"] = {"size": 40_000_000_000}
    server.pace = 30.0
    seconds: dict[float, float] = {}
    async with adopted(server) as backend, trio.open_nursery() as nursery:
        nursery.start_soon(ask, backend, "large")
        for at in (0, 10, 25, 30.5):
            await trio.sleep_until(at)
            seconds[at] = offer_of(backend, "large").load_seconds
        nursery.cancel_scope.cancel()
    assert seconds[0] == 80
    assert 80 - 10 <= seconds[10] <= 80 - 10 + 4
    assert 80 - 25 <= seconds[25] <= 80 - 25 + 4
    # Its first word says that it is there, whatever was guessed.
    assert seconds[30.5] == 0


async def test_a_load_that_comes_to_nothing_is_to_be_waited_for_in_full(
    autojump_clock: MockClock,
) -> None:
    """And one that takes longer than was guessed is never said to be done."""
    server = Ollama("small")
    server.pace = 1000.0
    async with adopted(server) as backend:
        whole = offer_of(backend, "small").load_seconds
        with trio.move_on_after(60):
            await ask(backend, "small")
        left = offer_of(backend, "small").load_seconds
        await trio.sleep(5)
        after = offer_of(backend, "small").load_seconds
    assert left == pytest.approx(0.1 * whole)
    assert after == whole


async def test_the_time_for_loading_is_none_for_reading_the_prompt(
    autojump_clock: MockClock,
) -> None:
    """The server would be taken for one that reads slowly, for long."""
    server = Ollama("small")
    server.pace = 4.0
    async with adopted(server) as backend:
        first = await ask(backend, "small")
        server.running["small"] = 4096
        await trio.sleep(5)
        second = await ask(backend, "small")
    assert first.timings.prefill is None
    assert second.timings.prefill == pytest.approx(4.0, abs=0.5)


@pytest.mark.parametrize("api", ["v0", "v1"])
async def test_lm_studio_tells_of_its_models(api: str, autojump_clock: MockClock) -> None:
    """By its new API, or by its old one."""
    server = LmStudio("qwen3-4b", "text-embedding-nomic-embed-text-v1.5", "other", api=api)
    server.running["qwen3-4b"] = 4096
    async with adopted(server) as backend:
        qwen = offer_of(backend, "qwen3-4b")
        nomic = offer_of(backend, "text-embedding-nomic-embed-text-v1.5")
        other = offer_of(backend, "other")
        loaded = await backend.loaded()
    assert (qwen.context_tokens, other.context_tokens) == (4096, 40960)
    assert qwen.features == {"chat", "complete", "tools", "json_schema"}
    assert qwen.quantization == "Q4_K_M"
    assert (qwen.size_bytes, qwen.parameters) == (
        (2497280256, 4_000_000_000) if api == "v1" else (None, None)
    )
    assert nomic.features == {"embed"}
    assert loaded == ("qwen3-4b",)
    assert server.loaded_by_asking == []


async def test_vllm_tells_its_context(autojump_clock: MockClock) -> None:
    """In its list; what it has, it has in memory."""
    server = Vllm()
    async with adopted(server) as backend:
        (offer,) = backend.offers
        assert await backend.loaded() == (offer.name,)
    assert offer.context_tokens == 16384
    assert offer.features == {"chat", "complete", "tools", "json_schema", "logprobs"}


async def test_a_vllm_that_was_started_to_embed_is_offered_for_that(
    autojump_clock: MockClock,
) -> None:
    """It has its model in memory, so it can be tried."""
    async with adopted(Vllm("bge-m3", embeds=True)) as backend:
        (offer,) = backend.offers
        assert offer.features == {"embed"}
        assert len((await embed(backend, "bge-m3")).completion.embeddings) == 2


@pytest.mark.parametrize(
    ("server", "features"),
    [
        (Sglang(), {"chat", "complete", "json_schema"}),
        (Sglang(tool_call_parser="qwen25"), {"chat", "complete", "json_schema", "tools"}),
        (Sglang(is_generation=False), {"embed"}),
    ],
)
async def test_sglang_tells_how_it_was_started(
    server: Sglang, features: set[str], autojump_clock: MockClock
) -> None:
    """Tools take a flag of it; and it says how many requests it batches."""
    async with adopted(server) as backend:
        (offer,) = backend.offers
        assert offer.features == features
        assert offer.context_tokens == 32768
        assert backend.slots == 8


@pytest.mark.parametrize("embeds", [False, True])
async def test_llama_server_tells_what_a_slot_has(embeds: bool, autojump_clock: MockClock) -> None:
    """And is offered under the name of its file, not under the path of it."""
    server = LlamaServer()
    server.embeds = embeds
    async with adopted(server) as backend:
        (offer,) = backend.offers
        assert backend.slots == 2
        generation = await ask(backend, "SmolLM2-135M.Q4_1")
    assert offer.name == "SmolLM2-135M.Q4_1"
    assert (offer.context_tokens, offer.parameters, offer.size_bytes, offer.quantization) == (
        4096, 134515008, 96576768, "Q4_1",
    )  # fmt: skip
    assert ("embed" in offer.features) == embeds
    assert generation.completion.text == ANSWER
    assert server.asked[-1].model == "/home/ann/models/SmolLM2-135M.Q4_1.gguf"


async def test_a_sleeping_llama_server_is_not_woken(autojump_clock: MockClock) -> None:
    """Nothing but a request of somebody's is worth loading the model again."""
    server = LlamaServer()
    server.is_sleeping = True
    async with adopted(server) as backend:
        await trio.sleep(60)
        assert await backend.loaded() == ()
        assert len(backend.offers) == 1
    assert {each.method for each in server.asked} == {"GET"}


ROWS: list[tuple[dict[str, Any], dict[str, Any] | None]] = [
    ({"context_length": 4096}, {"context_tokens": 4096}),
    ({"context_window": 8192.0}, {"context_tokens": 8192}),
    ({"max_context_length": 1024, "type": "chat"}, {"context_tokens": 1024}),
    ({"top_provider": {"context_length": 512}}, {"context_tokens": 512}),
    ({"type": "image"}, None),
    ({"type": "rerank"}, None),
    ({"type": "embedding"}, {"features": {"embed"}}),
    ({"capabilities": ["rerank"]}, None),
    ({"capabilities": {"completion_chat": False, "ocr": True}}, None),
    (
        {"capabilities": {"completion_chat": True, "function_calling": True, "vision": False}},
        {"features": {"chat", "complete", "tools"}},
    ),
    ({"architecture": {"output_modalities": ["image"]}}, None),
    (
        {
            "architecture": {"output_modalities": ["text"]},
            "supported_parameters": ["tools", "structured_outputs", "temperature"],
        },
        {"features": {"chat", "complete", "tools", "json_schema"}},
    ),
    ({"capabilities": ["vision"]}, {"features": {"chat", "complete", "image"}}),
    ({"capabilities": {"vision": False}}, {"features": {"chat", "complete"}}),
    (
        {"architecture": {"output_modalities": ["text"], "input_modalities": ["text", "image"]}},
        {"features": {"chat", "complete", "image"}},
    ),
    ({"type": "vlm"}, {"features": {"chat", "complete", "image"}}),
    ({}, {"features": {"chat", "complete"}, "context_tokens": None}),
]


@pytest.mark.parametrize(("row", "said"), ROWS)
async def test_what_other_servers_add_to_a_row_counts(
    row: dict[str, Any], said: dict[str, Any] | None, autojump_clock: MockClock
) -> None:
    """Mistral's, OpenRouter's, Together's and Groq's fields."""

    class Other(ModelServer):
        def rows(self) -> list[dict[str, Any]]:
            return [{**each, **row} for each in super().rows()]

    async with adopted(Other("m", "n")) as backend:
        offers = backend.offers
    if said is None:
        assert offers == ()
        return
    assert len(offers) == 2
    for name, value in said.items():
        assert getattr(offers[0], name) == value


@pytest.mark.parametrize(
    ("name", "is_offered"),
    [
        ("gpt-4o", True),
        ("text-embedding-3-small", False),
        ("nomic-embed-text", False),
        ("whisper-1", False),
        ("tts-1-hd", False),
        ("dall-e-3", False),
        ("bge-reranker-v2", False),
        ("omni-moderation-latest", False),
        ("imbedded-systems-expert", True),
        ("whispering-llama", True),
        ("stts", True),
    ],
)
async def test_where_a_server_tells_nothing_a_name_may(
    name: str, is_offered: bool, autojump_clock: MockClock
) -> None:
    """Only then, and a setting counts more."""
    async with adopted(ModelServer(name, "another")) as backend:
        assert (name in offered(backend)) == is_offered
    async with adopted(ModelServer(name), model=name, features=frozenset({"embed"})) as backend:
        (offer,) = backend.offers
        assert (offer.name, set(offer.features)) == (name, {"embed"})


async def test_a_setting_counts_more_than_what_the_server_tells(autojump_clock: MockClock) -> None:
    """Of many models, it means those that chat: an embedder stays one."""
    server = Ollama("llama3.2", "nomic-embed-text")
    features = frozenset({"chat", "logprobs"})
    async with adopted(server, features=features, context_tokens=512) as backend:
        found = {
            offer.name: (sorted(offer.features), offer.context_tokens) for offer in backend.offers
        }
    assert found == {"llama3.2": (["chat", "logprobs"], 512), "nomic-embed-text": (["embed"], 512)}


# ---- what works through it then ----

TOOL = Tool(name="weather", description="", parameters='{"type": "object"}')


async def test_tools_and_schemas_reach_a_server_that_can(autojump_clock: MockClock) -> None:
    """As OpenAI's interface has them."""
    server = Ollama("llama3.2")
    schema = '{"type": "object"}'
    async with adopted(server) as backend:
        await ask(backend, "llama3.2", tools=(TOOL,))
        await ask(backend, "llama3.2", response_schema='{"type": "array"}')
    tools, schema = [each.body for each in server.asked if each.path.endswith("completions")]
    assert tools["tools"][0]["function"]["name"] == "weather"
    assert schema["response_format"]["json_schema"]["schema"] == {"type": "array"}


async def test_a_call_that_ollama_would_not_force_is_forced_by_a_schema(
    autojump_clock: MockClock,
) -> None:
    """It passes over `tool_choice` without a word."""

    class Calling(Ollama):
        def chat(self, asked: Asked) -> Reply:
            call = json.dumps({"name": "weather", "arguments": {}})
            choice = {"index": 0, "delta": {"content": call}, "finish_reason": "stop"}
            event = f"data: {json.dumps({'choices': [choice]})}\n\ndata: [DONE]\n\n"
            return Reply(200, event.encode(), "text/event-stream")

    server = Calling("llama3.2")
    async with adopted(server) as backend:
        generation = await ask(backend, "llama3.2", tools=(TOOL,), tool_choice="function:weather")
    assert [call.name for call in generation.completion.tool_calls] == ["weather"]
    assert "tools" not in server.asked[-1].body
    assert server.asked[-1].body["response_format"]["type"] == "json_schema"


@pytest.mark.parametrize("server", [Ollama("nomic-embed-text"), LmStudio("nomic-embed-text")])
async def test_embeddings_work_through_it(server: ModelServer, autojump_clock: MockClock) -> None:
    """Where the server says that a model embeds."""
    async with adopted(server) as backend:
        generation = await embed(backend, "nomic-embed-text")
    assert len(generation.completion.embeddings) == 2


# ---- a server that comes and goes ----


async def test_a_server_may_come_later(autojump_clock: MockClock) -> None:
    """The backend is open at once, says why it offers nothing, and then offers what is there."""
    server = ModelServer("a")
    server.is_up = False
    began = trio.current_time()
    async with adopted(server) as backend:
        assert trio.current_time() - began < 1
        assert isinstance(backend, Adopted)
        assert (backend.state, backend.offers) == ("starting", ())
        assert backend.reason == "its server cannot be reached"
        await trio.sleep(300)
        assert backend.state == "starting"
        server.is_up = True
        await trio.sleep(5)
        assert (backend.state, offered(backend)) == ("ready", ["a"])
        assert backend.reason is None


async def test_a_server_that_loads_is_waited_for(autojump_clock: MockClock) -> None:
    """It says 503 meanwhile."""
    server = LlamaServer()
    server.status = 503
    async with adopted(server) as backend:
        assert (backend.state, backend.reason) == ("starting", "its server is loading")
        server.status = None
        await trio.sleep(5)
        assert backend.state == "ready"


async def test_a_server_that_takes_the_question_and_says_nothing_is_waited_for(
    autojump_clock: MockClock,
) -> None:
    """Opening takes a few seconds at most."""

    class Mute(ModelServer):
        def transport(self) -> Any:
            return _Silent(super().transport(), self)

    class _Silent(httpx.AsyncBaseTransport):
        def __init__(self, inner: Any, server: ModelServer) -> None:
            self.inner, self.server = inner, server

        async def handle_async_request(self, request: Any) -> Any:
            if not self.server.is_up:
                await trio.sleep_forever()
            return await self.inner.handle_async_request(request)

    server = Mute("a")
    server.is_up = False
    began = trio.current_time()
    async with adopted(server) as backend:
        assert trio.current_time() - began < 6
        assert backend.state == "starting"
        server.is_up = True
        await trio.sleep(15)
        assert backend.state == "ready"


async def test_a_model_that_is_pulled_is_offered_and_one_that_is_removed_is_not(
    autojump_clock: MockClock,
) -> None:
    """Within a few seconds."""
    server = Ollama("a")
    async with adopted(server) as backend:
        server.models.append("b")
        await trio.sleep(5)
        assert offered(backend) == ["a", "b"]
        server.models.remove("a")
        await trio.sleep(5)
        assert offered(backend) == ["b"]
        with pytest.raises(OfferUnavailable):
            await ask(backend, "a")
        server.models.clear()
        await trio.sleep(5)
        assert (backend.state, backend.offers) == ("resting", ())
        assert backend.reason == "its server has no model that can be offered"


async def test_a_server_without_a_model_is_waited_for(autojump_clock: MockClock) -> None:
    """Somebody will pull one; the one that was named, if one was."""
    server = Ollama()
    async with adopted(server, model="llama3.2") as backend:
        assert (backend.state, backend.reason) == ("resting", "its server does not have the model")
        server.models.append("other:latest")
        await trio.sleep(5)
        assert backend.offers == ()
        server.models.append("llama3.2:latest")
        await trio.sleep(5)
        assert offered(backend) == ["llama3.2:latest"]
        assert offer_of(backend, "llama3.2:latest").context_tokens == 131072


async def test_a_server_that_stops_is_not_offered_and_comes_back_by_itself(
    autojump_clock: MockClock,
) -> None:
    """As another program, even."""
    server = ModelServer("a")
    async with adopted(server) as backend:
        server.is_up = False
        await trio.sleep(5)
        assert (backend.state, backend.offers) == ("resting", ())
        assert backend.reason == "its server cannot be reached"
        await trio.sleep(600)
        server.is_up = True
        server.models = ["b"]
        await trio.sleep(5)
        assert (backend.state, offered(backend)) == ("ready", ["b"])


async def test_another_program_at_the_same_address_is_noticed(autojump_clock: MockClock) -> None:
    """Also if it came between two looks."""
    servers: list[ModelServer] = [Vllm("m"), Ollama("m"), ModelServer("m"), LmStudio("m")]

    class Door(ModelServer):
        def respond(self, asked: Asked) -> Reply:
            return servers[0].respond(asked)

    async with adopted(Door()) as backend:
        found = []
        while servers:
            found.append(
                sorted(*(offer.features - {"chat", "complete"} for offer in backend.offers))
            )
            servers.pop(0)
            if servers:
                await trio.sleep(5)
    assert found == [
        ["json_schema", "logprobs", "tools"],
        ["json_schema", "tools"],
        [],
        ["json_schema", "tools"],
    ]


async def test_a_request_that_finds_nobody_has_the_server_looked_at_at_once(
    autojump_clock: MockClock,
) -> None:
    """The next request is not lost as well."""
    server = ModelServer("a")
    async with adopted(server) as backend:
        await trio.sleep(1)
        server.is_up = False
        with pytest.raises(BackendCrashed):
            await ask(backend, "a")
        await trio.sleep(0.5)
        assert backend.state == "resting"


async def test_a_server_that_lists_nothing_while_it_computes_is_not_away(
    autojump_clock: MockClock,
) -> None:
    """A program with one thread answers nobody else meanwhile."""

    class OneThread(ModelServer):
        is_computing = False

    server = OneThread("a")
    inner = server.transport()

    class Gate(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: Any) -> Any:
            if request.method == "POST":
                server.is_computing = True
                await trio.sleep(100)
                server.is_computing = False
            while server.is_computing:
                await trio.sleep(1)
            return await inner.handle_async_request(request)

    with trio.fail_after(LIMIT):
        async with open_openai(url="http://h", transport=Gate()) as backend:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, backend, "a")
                for _ in range(90):
                    await trio.sleep(1)
                    assert backend.state == "ready"
            assert offered(backend) == ["a"]


async def test_waiting_is_said_at_doubling_intervals(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, and then now and then; and when it is over."""
    server = ModelServer("a")
    server.is_up = False
    with caplog.at_level(logging.INFO):
        async with adopted(server) as backend:
            await trio.sleep(1000)
            waits = _lines(caplog, "waiting for a server of models")
            server.is_up = True
            await trio.sleep(5)
            assert backend.state == "ready"
    assert 4 <= len(waits) <= 6
    assert len(_lines(caplog, "a server of models is there")) == 1


def _lines(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    return [
        record.msg
        for record in caplog.records
        if isinstance(record.msg, dict) and record.msg["event"] == event
    ]


async def test_looking_costs_little(autojump_clock: MockClock) -> None:
    """A few requests in a few seconds; what cannot have changed is asked for once."""
    server = Ollama(*(f"m{number}" for number in range(20)))
    async with adopted(server) as backend:
        assert len(backend.offers) == 20
        await trio.sleep(60)
    counted = server.counted()
    assert counted["/api/show"] == 20
    assert 15 <= counted["/api/tags"] <= 30
    assert counted["/api/version"] == 1


async def test_a_slow_list_is_asked_for_less_often(autojump_clock: MockClock) -> None:
    """Looking takes a small share of a server's time, however long its list is."""
    server = ModelServer("a")
    inner = server.transport()

    class Slow(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: Any) -> Any:
            await trio.sleep(2.5)
            return await inner.handle_async_request(request)

    with trio.fail_after(LIMIT):
        async with open_openai(url="http://h", transport=Slow()):
            await trio.sleep(600)
    assert 18 <= server.counted()["/v1/models"] <= 40


# ---- what its answers tell ----


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_a_model_that_does_not_answer_is_withdrawn(
    status: int, autojump_clock: MockClock
) -> None:
    """For a while that doubles; the others stay."""
    server = ModelServer("good", "bad")
    server.cannot_chat["bad"] = status
    async with adopted(server) as backend:
        with pytest.raises(PunchError):
            await ask(backend, "bad")
        assert offered(backend) == ["good"]
        await trio.sleep(6)
        assert offered(backend) == ["good", "bad"]
        with pytest.raises(PunchError):
            await ask(backend, "bad")
        await trio.sleep(6)
        assert offered(backend) == ["good"]
        await trio.sleep(5)
        server.cannot_chat.clear()
        assert (await ask(backend, "bad")).completion.text == ANSWER
        assert offered(backend) == ["good", "bad"]


async def test_a_model_that_is_there_again_is_offered_at_once(autojump_clock: MockClock) -> None:
    """What its server tells of it has changed, so the refusal is an old story."""
    server = Ollama("a")
    server.cannot_chat["a"] = 404
    async with adopted(server) as backend:
        for _ in range(8):
            with pytest.raises(PunchError):
                await ask(backend, "a")
            while not backend.offers:
                await trio.sleep(1)
        with pytest.raises(PunchError):
            await ask(backend, "a")
        assert (backend.state, backend.offers) == ("resting", ())
        assert backend.reason == "its server refuses to answer with its models"
        server.cannot_chat.clear()
        server.tags["a"] = {"digest": "f" * 64}
        await trio.sleep(5)
        assert offered(backend) == ["a"]


@pytest.mark.parametrize("status", [401, 402, 403])
async def test_a_key_that_is_refused_rests_the_lane(status: int, autojump_clock: MockClock) -> None:
    """None of the models will answer."""
    server = ModelServer("a", "b")
    server.cannot_chat["a"] = status
    async with adopted(server) as backend:
        with pytest.raises(PunchError):
            await ask(backend, "a")
        assert (backend.state, backend.offers) == ("resting", ())
        assert backend.reason == f"its server refuses our requests (status {status})"
        await trio.sleep(6)
        assert offered(backend) == ["a", "b"]


async def test_a_key_that_is_taken_back_rests_the_lane_until_it_is_good_again(
    autojump_clock: MockClock,
) -> None:
    """The list says so too."""
    server = ModelServer("a")
    async with adopted(server) as backend:
        server.status = 401
        await trio.sleep(5)
        assert (backend.state, backend.reason) == ("resting", "its server rejects our key")
        server.status = None
        await trio.sleep(5)
        assert backend.state == "ready"


@pytest.mark.parametrize("status", [429, 500, 502, 504])
async def test_a_list_that_fails_once_withdraws_nothing(
    status: int, autojump_clock: MockClock
) -> None:
    """Too many questions, or a fault of the moment; a fault that lasts is another thing."""
    server = ModelServer("a")
    async with adopted(server) as backend:
        server.status = status
        await trio.sleep(3.9)
        server.status = None
        for _ in range(10):
            assert offered(backend) == ["a"]
            await trio.sleep(0.5)
        server.status = status
        await trio.sleep(15)
        assert offered(backend) == (["a"] if status == 429 else [])
        server.status = None
        await trio.sleep(70)
        assert offered(backend) == ["a"]


async def test_one_large_request_does_not_withdraw_a_model(autojump_clock: MockClock) -> None:
    """The next one may be small; a server that takes no small one is another thing."""
    server = ModelServer("a")
    server.cannot_chat["a"] = 413
    long = (ChatMessage(role="user", content="x" * 100_000),)
    async with adopted(server) as backend:
        with pytest.raises(PunchError):
            await ask(backend, "a", messages=long)
        assert offered(backend) == ["a"]
        with pytest.raises(PunchError):
            await ask(backend, "a")
        assert offered(backend) == []


async def test_a_command_that_a_server_does_not_know_is_offered_no_more(
    autojump_clock: MockClock,
) -> None:
    """Many servers chat, and complete nothing."""

    class ChatOnly(ModelServer):
        def respond(self, asked: Asked) -> Reply:
            if asked.path == "/v1/completions":
                return reply({"detail": "Not Found"}, 404)
            return super().respond(asked)

    async with adopted(ChatOnly("a")) as backend:
        with pytest.raises(PunchError):
            await ask(backend, "a", command="complete", messages=(), prompt="Once")
        (offer,) = backend.offers
        assert offer.features == {"chat"}
        assert (await ask(backend, "a")).completion.text == ANSWER


@pytest.mark.parametrize("status", [400, 422, 429, 500, 502, 503])
async def test_what_is_said_of_one_request_withdraws_nothing(
    status: int, autojump_clock: MockClock
) -> None:
    """Else any stranger could have a model withdrawn."""
    server = ModelServer("a")
    server.cannot_chat["a"] = status
    async with adopted(server) as backend:
        for _ in range(3):
            with pytest.raises(PunchError):
                await ask(backend, "a")
        assert offered(backend) == ["a"]


# ---- what is wrong from the start ----


@pytest.mark.parametrize(
    ("status", "setting"), [(401, "PUNCH_OPENAI_KEY"), (403, "PUNCH_OPENAI_KEY"),
                            (404, "PUNCH_OPENAI_URL"), (405, "PUNCH_OPENAI_URL")],
)  # fmt: skip
async def test_what_waiting_will_not_mend_is_said_at_once(
    status: int, setting: str, autojump_clock: MockClock
) -> None:
    """With the setting to change, and no secret."""
    server = ModelServer("a")
    server.status = status
    with pytest.raises(ConfigurationError, match=setting) as caught:
        async with adopted(server, api_key="hunter2-hunter2"):
            pass
    assert "hunter2" not in str(caught.value)


async def test_a_page_that_is_no_list_is_no_server_of_models(autojump_clock: MockClock) -> None:
    """Somebody's router, say."""

    class Page(ModelServer):
        def respond(self, asked: Asked) -> Reply:
            return Reply(200, b"<html>It works!</html>", "text/html")

    with pytest.raises(ConfigurationError, match="no server of models"):
        async with adopted(Page("a")):
            pass


async def test_a_bug_in_a_look_ends_nothing(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lane rests, and comes back."""
    server = ModelServer("a")
    async with adopted(server) as backend:
        with monkeypatch.context() as patched:
            patched.setattr(backend._surveyor, "look", lambda: 1 / 0)
            await trio.sleep(5)
            assert backend.state == "resting"
        await trio.sleep(5)
        assert backend.state == "ready"


# ---- names and numbers ----


class Listing(ModelServer):
    """A server whose list is these bytes."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.data = data

    def respond(self, asked: Asked) -> Reply:
        """Answer every GET with the list."""
        self.asked.append(asked)
        if asked.method == "GET" and asked.path == "/v1/models":
            return Reply(200, self.data)
        return self.chat(asked) if asked.method == "POST" else reply({}, 404)


def listing(*names: Any, **fields: Any) -> Listing:
    rows = [{"id": name, "object": "model", **fields} for name in names]
    return Listing(json.dumps({"object": "list", "data": rows}).encode())


@pytest.mark.parametrize(
    ("bad", "found"),
    [
        ("line\nbreak", "line_break"),
        ("  spaces \t", "spaces"),
        ("x" * 300, None),
        ("bell\x07", "bell_"),
        ("right\u202eleft", "right_left"),
        ("", ""),
        (" \n ", ""),
        ("lost\ud800half", ""),
        ("lost\ufffdbytes", ""),
        (None, ""),
        (7, ""),
        (["a"], ""),
    ],
)
async def test_a_bad_name_is_cleaned_or_left_out_and_the_others_are_offered(
    bad: Any, found: str | None, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """With a warning; what is offered can be asked, by the name that the server has."""
    server = listing("good", bad, "fine")
    async with adopted(server) as backend:
        names = offered(backend)
        assert all(fault_of_offer(offer) is None for offer in backend.offers)
        for name in names:
            await ask(backend, name)
    asked = [each.model for each in server.asked if each.method == "POST"]
    if found == "":
        assert names == asked == ["good", "fine"]
    else:
        assert (names[0], names[2]) == ("good", "fine")
        assert names[1] == (found or names[1])
        assert asked == ["good", bad, "fine"]
    if isinstance(bad, str) and bad:
        assert len(_lines(caplog, "about a model of a server")) == 1


async def test_bytes_that_are_no_text_hide_one_model_only(autojump_clock: MockClock) -> None:
    """Not the whole list."""
    data = b'\xef\xbb\xbf{"data": [{"id": "good"}, {"id": "b\xff\xfed"}, {"id": "fine"}]}'
    async with adopted(Listing(data)) as backend:
        assert offered(backend) == ["good", "fine"]


async def test_two_names_that_are_cleaned_to_one_stay_two(autojump_clock: MockClock) -> None:
    """And each is asked for by its own."""
    server = listing("a\nb", "a\tb", "a_b", "a_b")
    async with adopted(server) as backend:
        names = offered(backend)
        assert len(set(names)) == 3
        for name in names:
            await ask(backend, name)
    asked = [each.model for each in server.asked if each.method == "POST"]
    assert sorted(asked) == sorted(["a\nb", "a\tb", "a_b"])


ABSURD: list[Any] = [
    1 << 63, 1 << 200, -1, -4096, 0, 0.5, 1e300, float("inf"), float("nan"), "4096", "many", None,
    True, [], {}, [4096], {"n": 1},
]  # fmt: skip


@pytest.mark.parametrize("value", ABSURD)
@pytest.mark.parametrize("field", ["max_model_len", "context_length", "size", "meta", "digest"])
async def test_an_absurd_number_is_not_told_and_the_model_is_offered(
    field: str, value: Any, autojump_clock: MockClock
) -> None:
    """A peer would refuse the whole advert for it."""
    row = {field: {"n_ctx": value, "n_params": value, "size": value} if field == "meta" else value}
    async with adopted(listing("a", "b", **row)) as backend:
        assert offered(backend) == ["a", "b"]
        assert all(fault_of_offer(offer) is None for offer in backend.offers)


async def test_a_number_of_ten_thousand_digits_hides_nothing(autojump_clock: MockClock) -> None:
    """Python itself would refuse to read it."""
    data = b'{"data": [{"id": "a", "max_model_len": %s}, {"id": "b"}]}' % (b"9" * 10_000)
    async with adopted(Listing(data)) as backend:
        assert offered(backend) == ["a", "b"]
        assert offer_of(backend, "a").context_tokens is None


async def test_a_list_of_ten_thousand_is_bounded_and_said(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The first ones, and the one that was named, wherever it stands."""
    names = [f"m{number}" for number in range(10_000)]
    async with adopted(listing(*names, *names)) as backend:
        await trio.sleep(60)
        assert len(backend.offers) == 256
    said = [line["why"] for line in _lines(caplog, "about a model of a server")]
    assert sorted(said) == [
        "10000 rows of the list repeat a name, and are passed over",
        "the list is too long: 9744 models beyond 256",
    ]
    async with adopted(listing(*names), model="m9999") as backend:
        assert offered(backend) == ["m9999"]


async def test_a_thousand_bad_names_are_not_a_thousand_lines(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A few, and how many more."""
    async with adopted(listing("good", *(f"a\n{number}" for number in range(1000)))):
        await trio.sleep(60)
    assert len(_lines(caplog, "about a model of a server")) <= 22


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=300),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    [
        *("id", "key", "name", "model", "meta", "details", "digest", "size", "status", "state"),
        *("type", "capabilities", "max_model_len", "context_length", "quantization", "owned_by"),
        *("loaded_instances", "architecture", "supported_parameters", "model_info"),
    ]
)
ANY_ROW = st.dictionaries(FIELDS, VALUES, max_size=6) | VALUES


@given(st.lists(ANY_ROW, max_size=6))
@settings(max_examples=60, deadline=None)
def test_whatever_a_list_holds_the_good_model_is_offered(rows: list[Any]) -> None:
    """And every offer is one that peers accept, under a name of its own."""
    good = {"id": "the-good-one", "object": "model", "owned_by": "me"}
    data = json.dumps({"data": [*rows, good]}).encode()

    async def run() -> tuple[ModelOffer, ...]:
        async with open_openai(url="http://h", transport=Listing(data).transport()) as backend:
            return backend.offers

    offers = trio.run(run, clock=MockClock(autojump_threshold=0))
    names = [offer.name for offer in offers]
    assert "the-good-one" in names
    assert len(set(names)) == len(names)
    assert all(fault_of_offer(offer) is None for offer in offers)


@given(VALUES, st.sampled_from(["/v1/models", "/api/tags", "/api/ps", "/api/show"]))
@settings(max_examples=60, deadline=None)
def test_whatever_a_page_of_ollama_says_the_others_count(value: Any, page: str) -> None:
    """It raises nothing, and what is offered can be read."""

    class Odd(Ollama):
        def respond(self, asked: Asked) -> Reply:
            return reply(value) if asked.path == page else super().respond(asked)

    async def run() -> tuple[ModelOffer, ...]:
        async with open_openai(url="http://h", transport=Odd("a", "b").transport()) as backend:
            return backend.offers

    offers = trio.run(run, clock=MockClock(autojump_threshold=0))
    assert all(fault_of_offer(offer) is None for offer in offers)
    if page in ("/api/ps", "/api/show"):
        assert [offer.name for offer in offers] == ["a", "b"]


def test_the_pauses_are_bounded() -> None:
    """So that a model that was pulled is offered within seconds."""
    assert _backend.LOOK_SECONDS * (1 + _backend.JITTER) < 4
