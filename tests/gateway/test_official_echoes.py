"""What the official clients make of an answer is sent back by them, as their examples do it.

OpenAI's, Anthropic's and Ollama's own libraries ask the gateway's application, with no server.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import attrs
import httpx
import httpx2
import ollama
import openai
import pydantic
import pytest
from gateway_client import open_client
from trio.testing import MockClock

from punch.backends import Emit, Generation
from punch.capability import ModelOffer
from punch.testing import ScriptedBackend
from punch.wire import (
    ChatMessage,
    CommandRequest,
    Completion,
    Thought,
    Timings,
    TokenLogprob,
    ToolCall,
    Usage,
)

pytestmark = [
    # Their streams leave generators behind, which say so when they are collected.
    pytest.mark.filterwarnings("ignore:Async generator '(httpx|openai|anthropic):ResourceWarning"),
    # They dump what they have parsed in a field that is typed as empty.
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning"),
]

FEATURES = frozenset({"chat", "complete", "tools", "json_schema", "logprobs", "reasoning"})
USER: Any = {"role": "user", "content": "hi"}
PARAMETERS = {"type": "object", "properties": {"at": {"type": "integer"}}}
FUNCTION = {"name": "look", "description": "Looks.", "parameters": PARAMETERS}


class Form(pydantic.BaseModel):
    """What a structured answer is parsed to."""

    at: int


@attrs.define
class Asked:
    """The official clients of one gateway, and what its model was asked."""

    requests: list[CommandRequest]
    openai: openai.AsyncOpenAI
    anthropic: anthropic.AsyncAnthropic
    ollama: ollama.AsyncClient

    @property
    def before(self) -> ChatMessage:
        """The assistant's message in the last question."""
        (message,) = (each for each in self.requests[-1].messages if each.role == "assistant")
        return message

    def check(self, *, call: bool = False, text: str = "yes", thought: str | None = "hm") -> None:
        """The last question had the answer before it: its words or its call, and its thought."""
        found = self.before
        calls = [(each.name, each.arguments) for each in found.tool_calls]
        assert (found.content, calls) == (("", [("look", '{"at": 1}')]) if call else (text, []))
        assert found.reasoning == thought


def speaker(asked: list[CommandRequest]) -> ScriptedBackend:
    """Thinks, and then calls where there is a tool and nothing was called yet, or says `yes`."""

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        asked.append(request)
        thought = None if request.reasoning_effort == "none" else "hm"
        if thought:
            await emit(Thought("h"), 1)
            await emit(Thought("m"), 1)
        said: dict[str, Any] = {"reasoning": thought or ""}
        if request.tools and not any(message.tool_calls for message in request.messages):
            said["tool_calls"] = (ToolCall(id="c1", name="look", arguments='{"at": 1}'),)
        else:
            text = '{"at": 1}' if request.response_schema else "yes"
            for part in (text[:1], text[1:]):
                await emit(part, 1)
            said["text"] = text
            if request.logprobs is not None:
                said["logprobs"] = (TokenLogprob(token=text, logprob=-0.5, top=(("no", -1.5),)),)
        return Generation(
            completion=Completion(**{"text": "", **said}),
            usage=Usage(prompt_tokens=3, completion_tokens=2),
            timings=Timings(),
        )

    offer = ModelOffer(name="model", digest="ab" * 32, features=FEATURES)
    return ScriptedBackend(play, offers=(offer,))


@asynccontextmanager
async def open_clients() -> AsyncIterator[Asked]:
    """The official clients of a gateway with one listener."""
    asked: list[CommandRequest] = []
    async with open_client({"a": speaker(asked)}) as client:
        http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=client.app))
        url = "http://localhost"
        async with http:
            yield Asked(
                requests=asked,
                openai=openai.AsyncOpenAI(api_key="k", base_url=f"{url}/v1", http_client=http),
                anthropic=anthropic.AsyncAnthropic(api_key="k", base_url=url, http_client=http),
                ollama=ollama.AsyncClient(url, transport=httpx.ASGITransport(app=client.app)),
            )


def kept(model: Any) -> list[Any]:
    """The ways in which programs keep what a client has given them."""
    return [
        model,
        model.model_dump(),
        model.model_dump(exclude_none=True),
        model.model_dump(mode="json", by_alias=True, exclude_unset=True),
    ]


# ---- OpenAI's ----

CHATS: dict[str, dict[str, Any]] = {
    "text": {},
    "logprobs": {"logprobs": True, "top_logprobs": 1},
    "call": {"tools": [{"type": "function", "function": {**FUNCTION, "strict": True}}]},
    "form": {"response_format": Form},
}


@pytest.mark.parametrize("way", ["create", "stream", "parse"])
@pytest.mark.parametrize("kind", CHATS)
async def test_openais_chats(kind: str, way: str, autojump_clock: MockClock) -> None:
    """The message object, and what it is dumped to."""
    fields: dict[str, Any] = {"model": "model", "messages": [USER], **CHATS[kind]}
    async with open_clients() as asked:
        chats = asked.openai.chat.completions
        answer: Any
        if way == "stream":
            async with chats.stream(**fields) as stream:
                async for _ in stream:
                    pass
                answer = await stream.get_final_completion()
        elif way == "parse":
            answer = await chats.parse(**fields)
        else:
            if kind == "form":
                fields["response_format"] = {"type": "json_object"}
            answer = await chats.create(**fields)
        message = answer.choices[0].message
        if kind == "logprobs":
            assert answer.choices[0].logprobs.content[0].top_logprobs[0].token == "no"
        if kind == "form" and way != "create":
            assert message.parsed == Form(at=1)
        calls = message.tool_calls or []
        results = [{"role": "tool", "tool_call_id": each.id, "content": "ok"} for each in calls]
        for echo in [*kept(message), message.to_dict()]:
            history: Any = [USER, echo, *results, USER]
            await chats.create(model="model", messages=history, tools=fields.get("tools", []))
            asked.check(call=kind == "call", text='{"at": 1}' if kind == "form" else "yes")


@pytest.mark.parametrize("stream", [False, True])
async def test_openais_completions_have_log_probabilities(
    stream: bool, autojump_clock: MockClock
) -> None:
    """In the old form, each token with its place in the text."""
    fields: dict[str, Any] = {"model": "model", "prompt": "hi", "logprobs": 1, "stream": stream}
    async with open_clients() as asked:
        answer: Any = await asked.openai.completions.create(**fields)
        choices = [each.choices[0] async for each in answer] if stream else answer.choices
        (found,) = (choice.logprobs for choice in choices if choice.logprobs)
        assert "".join(choice.text for choice in choices) == "yes"
        assert (found.tokens, found.token_logprobs, found.text_offset) == (["yes"], [-0.5], [0])
        assert found.top_logprobs == [{"no": -1.5}]
        assert asked.requests[-1].logprobs == 1


RESPONSES: dict[str, dict[str, Any]] = {
    "text": {},
    "logprobs": {"include": ["message.output_text.logprobs"], "top_logprobs": 1},
    "call": {"tools": [{"type": "function", "strict": True, **FUNCTION}]},
    "form": {"text_format": Form},
    "summary": {"reasoning": {"effort": "low", "summary": "auto"}},
    "sealed": {"include": ["reasoning.encrypted_content"], "store": False},
}


@pytest.mark.parametrize("way", ["create", "stream", "parse"])
@pytest.mark.parametrize("kind", RESPONSES)
async def test_openais_responses(kind: str, way: str, autojump_clock: MockClock) -> None:
    """The items of an output, and what they are dumped to."""
    fields: dict[str, Any] = {"model": "model", "input": [USER], **RESPONSES[kind]}
    async with open_clients() as asked:
        responses = asked.openai.responses
        if way == "stream":
            async with responses.stream(**fields) as stream:
                async for _ in stream:
                    pass
                answer = await stream.get_final_response()
        elif way == "parse":
            answer = await responses.parse(**fields)
        else:
            if kind == "form":
                fields["text"] = {"format": {"type": "json_object"}}
                fields.pop("text_format")
            answer = await responses.create(**fields)
        if kind == "form" and way != "create":
            assert answer.output_parsed == Form(at=1)
        ways = [kept(item) for item in answer.output]
        results = [
            {"type": "function_call_output", "call_id": item.call_id, "output": "ok"}
            for item in answer.output
            if item.type == "function_call"
        ]
        for items in zip(*ways, strict=True):
            history: Any = [USER, *items, *results, USER]
            await responses.create(model="model", input=history, tools=fields.get("tools", []))
            asked.check(call=kind == "call", text='{"at": 1}' if kind == "form" else "yes")


async def test_a_sealed_thought_comes_back_alone(autojump_clock: MockClock) -> None:
    """Programs that store nothing keep `encrypted_content`, and no text of what was thought."""
    fields: dict[str, Any] = {"model": "model", **RESPONSES["sealed"]}
    async with open_clients() as asked:
        for stream in (False, True):
            answer: Any = await asked.openai.responses.create(input=[USER], stream=stream, **fields)
            if stream:
                events = [event async for event in answer]
                done = [e.item for e in events if e.type == "response.output_item.done"]
                answer = events[-1].response
                assert done[0].encrypted_content == answer.output[0].encrypted_content
            thought, message = answer.output
            echo: Any = {
                "type": "reasoning",
                "id": thought.id,
                "summary": [],
                "encrypted_content": thought.encrypted_content,
            }
            await asked.openai.responses.create(
                input=[USER, echo, message.model_dump(), USER], **fields
            )
            asked.check()


# ---- Anthropic's ----

MESSAGES: dict[str, dict[str, Any]] = {
    "text": {},
    "thought": {"thinking": {"type": "enabled", "budget_tokens": 1024}},
    "hidden": {"thinking": {"type": "adaptive", "display": "omitted"}},
    "call": {
        "tools": [{"name": "look", "input_schema": PARAMETERS}],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
    },
    "stop": {"stop_sequences": ["no"]},
    "form": {"output_format": Form},
}


@pytest.mark.parametrize("way", ["create", "stream", "parse"])
@pytest.mark.parametrize("kind", MESSAGES)
async def test_anthropics_messages(kind: str, way: str, autojump_clock: MockClock) -> None:
    """The blocks of a message, the message itself, and what both are dumped to."""
    fields: dict[str, Any] = {"model": "model", "max_tokens": 2000, "messages": [USER]}
    fields |= MESSAGES[kind]
    async with open_clients() as asked:
        messages = asked.anthropic.messages
        answer: Any
        if way == "stream":
            async with messages.stream(**fields) as stream:
                answer = await stream.get_final_message()
        elif way == "parse":
            answer = await messages.parse(**fields)
        else:
            if kind == "form":
                fields.pop("output_format")
                form = {"type": "json_schema", "schema": PARAMETERS}
                fields["output_config"] = {"format": form}
            answer = await messages.create(**fields)
        results = [
            {"type": "tool_result", "tool_use_id": block.id, "content": "ok"}
            for block in answer.content
            if block.type == "tool_use"
        ]
        blocks = [kept(block) for block in answer.content]
        turns: list[Any] = [
            {"role": "assistant", "content": list(each)} for each in zip(*blocks, strict=True)
        ]
        # All of the answer, as some programs keep it.
        turns += [answer.model_dump(), answer.to_dict()]
        for turn in turns:
            history: Any = [USER, turn, {"role": "user", "content": [*results, *TOLD]}]
            await messages.create(
                model="model", max_tokens=9, messages=history, tools=fields.get("tools", [])
            )
            asked.check(
                call=kind == "call",
                text='{"at": 1}' if kind == "form" else "yes",
                thought="hm" if kind in ("thought", "hidden", "call") else None,
            )


TOLD = [{"type": "text", "text": "and?"}]


# ---- Ollama's ----


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["text", "thought", "call"])
async def test_ollamas_chats(kind: str, stream: bool, autojump_clock: MockClock) -> None:
    """The message object, what it is dumped to, and what programs gather of a stream."""
    fields: dict[str, Any] = {"model": "model", "think": kind != "text"}
    if kind == "call":
        fields["tools"] = [{"type": "function", "function": FUNCTION}]
    async with open_clients() as asked:
        if stream:
            parts = [
                part
                async for part in await asked.ollama.chat(messages=[USER], stream=True, **fields)
            ]
            messages = [part.message for part in parts]
            message = ollama.Message(
                role="assistant",
                content="".join(each.content or "" for each in messages),
                thinking="".join(each.thinking or "" for each in messages) or None,
                tool_calls=[call for each in messages for call in each.tool_calls or []] or None,
            )
        else:
            message = (await asked.ollama.chat(messages=[USER], **fields)).message
        calls = message.tool_calls or []
        results = [
            {"role": "tool", "tool_name": call.function.name, "content": "ok"} for call in calls
        ]
        for echo in kept(message):
            await asked.ollama.chat(messages=[USER, echo, *results, USER], **fields)
            asked.check(call=kind == "call", thought=None if kind == "text" else "hm")


@pytest.mark.parametrize("stream", [False, True])
async def test_what_ollama_generates_has_a_context_that_can_be_sent_back(
    stream: bool, autojump_clock: MockClock
) -> None:
    """Nothing is kept in it, and programs hand it on without a look."""
    async with open_clients() as asked:
        fields: Any = {"model": "model", "prompt": "hi", "stream": stream}
        answer: Any = await asked.ollama.generate(**fields)
        if stream:
            parts = [part async for part in answer]
            assert "".join(part.response for part in parts) == "yes"
            answer = parts[-1]
        else:
            assert (answer.response, answer.thinking) == ("yes", "hm")
        again = await asked.ollama.generate(model="model", prompt="more", context=answer.context)
        assert again.response == "yes"
        assert [each.content for each in asked.requests[-1].messages] == ["more"]
