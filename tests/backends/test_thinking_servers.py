"""Servers that think or see, played: what is offered of them, and in which words they are asked."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import attrs
import pytest
import trio
from model_servers import Asked, LlamaServer, ModelServer, Ollama, Reply, Sglang, Vllm, reply
from trio.testing import MockClock

from punch.backends import Generation, open_openai
from punch.backends._thinking import Told
from punch.backends.openai._backend import OpenAIBackend
from punch.backends.openai._completions import build
from punch.wire import (
    ChatMessage,
    CommandRequest,
    ContentPart,
    Thought,
    Tool,
    ToolCall,
    with_calls_asked_for,
)

CHAT = CommandRequest(request_id="r", messages=(ChatMessage(role="user", content="Hi"),))
PNG = b"\x89PNG\r\n\x1a\nrest"
SEEN = CommandRequest(
    request_id="r",
    messages=(
        ChatMessage.of_parts(
            "user",
            [
                ContentPart(type="text", text="What is it?"),
                ContentPart(type="image", media_type="image/png", data=PNG),
            ],
        ),
    ),
)
CONTENT = [
    {"type": "text", "text": "What is it?"},
    {
        "type": "image_url",
        "image_url": {"url": f"data:image/png;base64,{base64.b64encode(PNG).decode()}"},
    },
]


class ThinkingLlama(LlamaServer):
    """A fake llama-server with a template that knows the switch, and a projector if asked."""

    def __init__(self, *, switch: bool = True, levels: bool = False, sees: bool = False) -> None:
        super().__init__("thinker")
        self.switch, self.levels, self.sees = switch, levels, sees

    def native(self, asked: Asked) -> Reply | None:
        """Its pages, with what the template and the projector are."""
        if asked.path == "/apply-template":
            on = asked.body["chat_template_kwargs"]["enable_thinking"]
            return reply({"prompt": "a<think>" if on or not self.switch else "a</think>"})
        if asked.path == "/props":
            return reply(
                {
                    "total_slots": 1,
                    "modalities": {"vision": self.sees, "audio": False},
                    "chat_template_caps": {"supports_reasoning_effort": self.levels},
                }
            )
        return super().native(asked)


@asynccontextmanager
async def adopted(server: ModelServer, **options: Any) -> AsyncIterator[OpenAIBackend]:
    with trio.fail_after(10_000):
        async with open_openai(
            url="http://up:1/v1", transport=server.transport(), rng=Random(1), **options
        ) as backend:
            yield backend


async def ask(backend: OpenAIBackend, request: CommandRequest) -> tuple[Generation, list[str]]:
    parts: list[str] = []

    async def emit(text: str, tokens: int) -> None:
        parts.append(text)

    return await backend.generate(request, emit), parts


def features(backend: OpenAIBackend) -> frozenset[str]:
    return backend.offers[0].features & {"reasoning", "reasoning_effort", "image"}


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        (ThinkingLlama(), {"reasoning"}),
        (ThinkingLlama(switch=False), set()),
        (ThinkingLlama(levels=True, sees=True), {"reasoning", "reasoning_effort", "image"}),
        (LlamaServer(), set()),
        (Vllm(), set()),
        (Sglang(), set()),
    ],
)
async def test_a_server_is_offered_with_what_it_says_of_itself(
    server: ModelServer, expected: set[str], autojump_clock: MockClock
) -> None:
    """A llama-server by its template and projector; nothing is claimed where nothing is said."""
    async with adopted(server) as backend:
        assert features(backend) == expected


async def test_what_ollama_says_of_thinking_and_seeing_is_offered(
    autojump_clock: MockClock,
) -> None:
    """And asked in its words: an effort only of a model that can think."""
    server = Ollama("qwen3", "plain")
    server.shows["qwen3"] = {"capabilities": ["completion", "thinking", "vision"]}
    server.shows["plain"] = {"capabilities": ["completion"]}
    async with adopted(server) as backend:
        offers = {offer.name: offer.features for offer in backend.offers}
        for name in offers:
            await ask(backend, attrs.evolve(CHAT, model=name, reasoning_effort="none"))
        await ask(backend, attrs.evolve(SEEN, model="qwen3"))
    assert {"reasoning", "image"} <= offers["qwen3"]
    assert not {"reasoning", "image"} & offers["plain"]
    bodies = [each.body for each in server.asked if each.path == "/v1/chat/completions"]
    told = {body["model"]: body.get("reasoning_effort") for body in bodies[:2]}
    assert told == {"qwen3": "none", "plain": None}
    assert bodies[2]["messages"][0]["content"] == CONTENT


def body_of(request: CommandRequest, **told: Any) -> Mapping[str, Any]:
    """What a server is sent."""
    return build(request, model="m", dialect="other", told=Told(**told))[1]


@pytest.mark.parametrize(
    ("wish", "told", "fields"),
    [
        ({}, {"words": "llama_cpp"}, {}),
        (
            {"reasoning_effort": "none"},
            {"words": "llama_cpp"},
            {"chat_template_kwargs": {"enable_thinking": False}},
        ),
        (
            {"reasoning_effort": "high", "reasoning_budget": 64},
            {"words": "llama_cpp"},
            {"chat_template_kwargs": {"enable_thinking": True}, "thinking_budget_tokens": 64},
        ),
        (
            {"reasoning_effort": "high"},
            {"words": "llama_cpp", "features": frozenset({"reasoning_effort"})},
            {"chat_template_kwargs": {"enable_thinking": True}, "reasoning_effort": "high"},
        ),
        (
            {"reasoning_effort": "low"},
            {"words": "template"},
            {
                "chat_template_kwargs": {"enable_thinking": True, "thinking": True},
                "reasoning_effort": "low",
            },
        ),
        (
            {"reasoning_effort": "xhigh"},
            {"words": "template"},
            {"chat_template_kwargs": {"enable_thinking": True, "thinking": True}},
        ),
        ({"reasoning_effort": "low"}, {"words": "effort"}, {}),
        (
            {"reasoning_effort": "low", "reasoning_budget": 9},
            {"words": "effort", "features": frozenset({"reasoning"})},
            {"reasoning_effort": "low"},
        ),
    ],
)
def test_how_much_to_think_is_said_in_each_servers_words(
    wish: dict[str, Any], told: dict[str, Any], fields: dict[str, Any]
) -> None:
    """And nothing is said where nothing is wished."""
    names = ("chat_template_kwargs", "reasoning_effort", "thinking_budget_tokens")
    body = body_of(attrs.evolve(CHAT, **wish), **told)
    assert {name: body[name] for name in names if name in body} == fields


def test_a_turn_says_what_was_thought_and_shows_its_pictures() -> None:
    """And a call without parameters has the arguments of none."""
    call = ToolCall(id="1", name="f", arguments="")
    turn = ChatMessage(role="assistant", content="", tool_calls=(call,), reasoning="hm")
    request = attrs.evolve(SEEN, messages=(*SEEN.messages, turn))
    first, second = body_of(request, words="llama_cpp")["messages"]
    assert first["content"] == CONTENT
    assert second["reasoning_content"] == "hm"
    assert second["tool_calls"][0]["function"]["arguments"] == "{}"
    assert body_of(request, words="effort")["messages"][1]["reasoning"] == "hm"


@pytest.mark.parametrize("said", [None, True, False])
def test_how_many_calls_are_wanted_is_said_and_held_to(said: bool | None) -> None:
    """By name to every server; of several that come all the same, the first is kept."""
    request = attrs.evolve(CHAT, tools=(Tool(name="f"),), parallel_tool_calls=said)
    assert body_of(request, words="effort").get("parallel_tool_calls") is said
    calls = tuple(ToolCall(id=str(n), name="f", arguments="{}") for n in range(3))
    from punch.wire import Completion

    kept = with_calls_asked_for(Completion(tool_calls=calls), request).tool_calls
    assert kept == (calls[:1] if said is False else calls)


async def test_what_a_server_thinks_is_emitted_as_it_comes(autojump_clock: MockClock) -> None:
    """Apart from the text, and counted where the server counts it."""

    class Thinking(ThinkingLlama):
        def chat(self, asked: Asked) -> Reply:
            deltas: list[dict[str, Any]] = [
                {"reasoning_content": "hm, "},
                {"reasoning_content": "yes"},
                {"content": "Well."},
            ]
            import json

            values: list[dict[str, Any]] = [{"choices": [{"delta": delta}]} for delta in deltas]
            usage = {
                "completion_tokens": 5,
                "completion_tokens_details": {"reasoning_tokens": 3},
            }
            values.append({"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": usage})
            text = "".join(f"data: {json.dumps(value)}\n\n" for value in values)
            return Reply(200, f"{text}data: [DONE]\n\n".encode(), "text/event-stream")

    async with adopted(Thinking()) as backend:
        generation, parts = await ask(backend, attrs.evolve(CHAT, model="thinker"))
    assert parts == ["hm, ", "yes", "Well."]
    assert [type(part) is Thought for part in parts] == [True, True, False]
    assert generation.completion.reasoning == "hm, yes"
    assert generation.completion.text == "Well."
    assert generation.usage.reasoning_tokens == 3
