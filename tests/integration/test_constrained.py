"""Tools, schemas, log-probabilities and embeddings, by a real model behind every real backend."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypedDict

import attrs
import pytest
import trio
from answers import result_of

from punch.backends import Backend, open_binding, open_embedded, open_llama_server, open_openai
from punch.backends.llama._served import ServedBackend
from punch.capability import ModelOffer
from punch.exceptions import AnswerUnfit, InvalidRequest, PeerRefused
from punch.model_store import describe
from punch.testing import open_swarm
from punch.wire import ChatMessage, Command, CommandRequest, Sampling, Tool, ToolCall

LIMIT = 180

Open = Callable[[], AbstractAsyncContextManager[Backend]]


class Settings(TypedDict):
    """What every backend takes."""

    threads: int
    no_mmap: bool
    context_tokens: int


SAME = Settings(threads=1, no_mmap=False, context_tokens=1024)

WEATHER = Tool(
    name="get_weather",
    description="The weather of a city",
    # As pydantic writes it: with a part that is referred to.
    parameters=json.dumps(
        {
            "$defs": {"Unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}},
            "type": "object",
            "properties": {
                "city": {"type": "string", "maxLength": 20},
                "unit": {"$ref": "#/$defs/Unit"},
            },
            "required": ["city", "unit"],
            "additionalProperties": False,
        }
    ),
)
ADD = Tool(
    name="add",
    parameters=json.dumps(
        {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        }
    ),
)
ASK = CommandRequest(
    request_id="ask",
    messages=(ChatMessage(role="user", content="What is the weather in Paris?"),),
    sampling=Sampling(max_tokens=200, temperature=0.0, seed=1),
)
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
UNBOUNDED = PERSON | {"properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}


class Emitted:
    """Takes what is emitted and keeps it."""

    def __init__(self) -> None:
        self.text = ""

    async def __call__(self, text: str, tokens: int) -> None:
        """Keep *text*."""
        self.text += text


@asynccontextmanager
async def _behind_http(server: Open) -> AsyncIterator[Backend]:
    async with server() as own:
        assert isinstance(own, ServedBackend)
        key = own._client._headers["Authorization"].removeprefix("Bearer ")
        async with open_openai(url=own.url, api_key=key) as backend:
            yield backend


@pytest.fixture(params=["llama_cpp", "embedded", "openai", "llama_cpp_python"])
def backend(
    request: pytest.FixtureRequest, model_path: Path, llama_cpp_folder: Path, tmp_path: Path
) -> Open:
    """Opens one backend after the other."""
    if request.param == "embedded":
        return partial(open_embedded, model_path=model_path, slots=2, **SAME)
    if request.param == "llama_cpp_python":
        offer = describe(model_path, cache_folder=tmp_path).offer
        return partial(open_binding, model_path=model_path, offer=offer, **SAME)
    program = llama_cpp_folder / "llama-server"
    server = partial(open_llama_server, program=program, model_path=model_path, slots=2, **SAME)
    return partial(_behind_http, server) if request.param == "openai" else server


def features(backend: Backend) -> frozenset[str]:
    """What a backend says its model can do."""
    (offer,) = backend.offers
    return offer.features


async def test_an_answer_is_held_to_a_schema(backend: Open) -> None:
    """It parses, and it fits; also if any object will do."""
    with trio.fail_after(LIMIT):
        async with backend() as one:
            assert "json_schema" in features(one)
            emitted = Emitted()
            schema = json.dumps(PERSON)
            if one.name == "llama_cpp_python":
                with pytest.raises(PeerRefused, match="response_schema has maximum, minimum"):
                    await one.generate(attrs.evolve(ASK, response_schema=schema), emitted)
                schema = json.dumps(UNBOUNDED)
            held = attrs.evolve(ASK, response_schema=schema)
            answer = (await one.generate(held, emitted)).completion
            plain = CommandRequest(
                request_id="p",
                command="complete",
                prompt="A person: ",
                response_schema=schema,
                sampling=ASK.sampling,
            )
            completed = (await one.generate(plain, Emitted())).completion
            free = attrs.evolve(
                ASK,
                messages=(ChatMessage(role="user", content="Give me a short JSON object."),),
                response_schema="{}",
            )
            anything = (await one.generate(free, Emitted())).completion
    assert emitted.text == answer.text
    assert answer.finish_reason == "stop"
    for text in (answer.text, completed.text):
        person = json.loads(text)
        assert set(person) == {"name", "age"}
        assert isinstance(person["name"], str)
        assert isinstance(person["age"], int)
        assert schema == json.dumps(UNBOUNDED) or 0 <= person["age"] <= 120
    # However long the model goes on, it began an object.
    assert anything.text.lstrip().startswith("{")
    if anything.finish_reason == "stop":
        assert isinstance(json.loads(anything.text), dict)


async def test_patterns_and_formats_that_its_grammar_leaves_out_are_held(
    model_path: Path, llama_cpp_folder: Path
) -> None:
    """Said more simply, most of them; the rest is found out at the end of the answer."""
    program = llama_cpp_folder / "llama-server"
    rules: dict[str, dict[str, object]] = {
        "code": {"pattern": r"^\d{3}-[\w]{4}$"},
        "mail": {"format": "email"},
        "host": {"format": "ipv4"},
        "word": {"pattern": r"^[^\s\d]{3,8}$"},
    }
    held = {
        "type": "object",
        "properties": {name: {"type": "string", **rule} for name, rule in rules.items()},
        "required": list(rules),
        "additionalProperties": False,
    }
    broken = {"type": "number", "minimum": 5, "maximum": 6, "multipleOf": 0.125}
    with trio.fail_after(LIMIT):
        opened = open_llama_server(program=program, model_path=model_path, slots=2, **SAME)
        async with opened as backend, open_swarm() as swarm, swarm.router() as router:
            await swarm.listener("a", backend)
            asked = attrs.evolve(ASK, response_schema=json.dumps(held))
            answer = result_of(await router.ask(asked))
            with pytest.raises(AnswerUnfit, match=r"does not fit response_schema: \$ breaks"):
                await router.ask(
                    attrs.evolve(ASK, request_id="n", response_schema=json.dumps(broken))
                )
    said = json.loads(answer.text)
    assert re.fullmatch(r"[0-9]{3}-[A-Za-z0-9_]{4}", said["code"])
    assert re.fullmatch(r"[^@]+@[^@]+[.][a-z]+", said["mail"])
    assert str(ipaddress.IPv4Address(said["host"])) == said["host"]
    assert re.fullmatch(r"[^\s0-9]{3,8}", said["word"])


async def test_a_tool_that_must_be_called_is_called(backend: Open) -> None:
    """With arguments that fit; its model's template knows no tools, so they are written out."""
    with trio.fail_after(LIMIT):
        async with backend() as one:
            assert "tools" in features(one)
            emitted = Emitted()
            named = attrs.evolve(ASK, tools=(ADD, WEATHER), tool_choice="function:get_weather")
            answer = (await one.generate(named, emitted)).completion
            some = attrs.evolve(ASK, tools=(ADD, WEATHER), tool_choice="required")
            any_of = (await one.generate(some, Emitted())).completion
    assert emitted.text == answer.text == ""
    assert answer.finish_reason == any_of.finish_reason == "tool_calls"
    (call,) = answer.tool_calls
    assert call.name == "get_weather"
    assert call.id.startswith("call_")
    arguments = json.loads(call.arguments)
    assert set(arguments) == {"city", "unit"}
    assert arguments["unit"] in ("celsius", "fahrenheit")
    (other,) = any_of.tool_calls
    assert other.name in ("add", "get_weather")
    assert set(json.loads(other.arguments)) in ({"a", "b"}, {"city", "unit"})


async def test_the_result_of_a_tool_is_read(backend: Open) -> None:
    """The model goes on from what a tool returned, and may be forbidden to call another."""
    call = ToolCall(id="c1", name="get_weather", arguments='{"city": "Paris", "unit": "celsius"}')
    turns = (
        *ASK.messages,
        ChatMessage(role="assistant", content="", tool_calls=(call,)),
        ChatMessage(role="tool", content='{"sky": "purple fog"}', tool_call_id="c1"),
    )
    asked = attrs.evolve(
        ASK,
        messages=turns,
        tools=(WEATHER,),
        tool_choice="none",
        sampling=attrs.evolve(ASK.sampling, max_tokens=40),
    )
    with trio.fail_after(LIMIT):
        async with backend() as one:
            generation = await one.generate(asked, Emitted())
            without = attrs.evolve(asked, messages=ASK.messages)
            bare = await one.generate(without, Emitted())
    assert generation.completion.tool_calls == ()
    assert generation.completion.text
    assert generation.usage.prompt_tokens is not None
    assert bare.usage.prompt_tokens is not None
    assert generation.usage.prompt_tokens > bare.usage.prompt_tokens + 20


@pytest.mark.parametrize("command", ["chat", "complete"])
@pytest.mark.parametrize("alternatives", [0, 3])
async def test_every_token_comes_with_its_probability(
    backend: Open, command: Command, alternatives: int
) -> None:
    """As many as were counted, whose texts are the text, the likeliest of them first."""
    asked = attrs.evolve(
        ASK,
        command=command,
        prompt="Once upon a time",
        messages=ASK.messages if command == "chat" else (),
        logprobs=alternatives,
        sampling=Sampling(max_tokens=8, temperature=0.0),
    )
    with trio.fail_after(LIMIT):
        async with backend() as one:
            if "logprobs" not in features(one):
                assert one.name == "llama_cpp_python"
                return
            generation = await one.generate(asked, Emitted())
    tokens = generation.completion.logprobs
    assert len(tokens) == generation.usage.completion_tokens == 8
    assert "".join(token.token for token in tokens) == generation.completion.text
    for token in tokens:
        assert token.logprob <= 0
        assert len(token.top) == alternatives
        assert list(token.top) == sorted(token.top, key=lambda pair: -pair[1])
        if alternatives:
            assert token.top[0] == (token.token, token.logprob)


@pytest.mark.parametrize("kind", ["llama_cpp", "embedded"])
async def test_several_texts_are_embedded_through_the_router_beside_a_chat(
    kind: str, model_path: Path, llama_cpp_folder: Path
) -> None:
    """One model, one server: vectors for all inputs in their order, and an answer as well."""
    offer = ModelOffer(name="smol", digest="0" * 64, context_tokens=1024)
    program = llama_cpp_folder / "llama-server"
    opened = (
        open_embedded(model_path=model_path, slots=2, offer=offer, **SAME)
        if kind == "embedded"
        else open_llama_server(program=program, model_path=model_path, slots=2, offer=offer, **SAME)
    )
    texts = ("a cat sat on the mat", "the cat is sitting on a mat", "tax law of 1913")
    with trio.fail_after(LIMIT):
        async with opened as backend, open_swarm() as swarm, swarm.router() as router:
            await swarm.listener("a", backend)
            embedded = await router.ask(
                CommandRequest(request_id="e", command="embed", model="smol", inputs=texts)
            )
            with pytest.raises(InvalidRequest, match="embeds short texts, and failed at these"):
                await router.ask(
                    CommandRequest(request_id="l", command="embed", inputs=(" cat" * 700,))
                )
            again = await router.ask(
                CommandRequest(request_id="e2", command="embed", model="smol", inputs=texts[2:])
            )
            chat = await router.ask(
                attrs.evolve(ASK, model="smol", sampling=Sampling(max_tokens=4))
            )
    assert embedded.result is not None
    assert again.result is not None
    one, like_it, other = embedded.result.embeddings
    assert len(one) == len(like_it) == len(other) == 576
    assert _dot(one, like_it) > _dot(one, other)
    assert _dot(other, again.result.embeddings[0]) == pytest.approx(1.0, abs=1e-3)
    assert embedded.usage.prompt_tokens
    assert chat.result is not None
    assert chat.result.text


def _dot(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))
