"""OpenAI's endpoints: what is asked of the router, and the shapes of what comes back."""

from __future__ import annotations

import base64
import math
import struct
from typing import Any

import pytest
import trio
from gateway_client import Client, open_client
from trio.testing import MockClock

from punch.backends import Emit, Generation, MockBackend, MockScript, mock_words
from punch.capability import ModelOffer
from punch.gateway._asking import GATHER_SECONDS
from punch.testing import ScriptedBackend
from punch.wire import (
    ChatMessage,
    CommandRequest,
    Completion,
    Sampling,
    Timings,
    TokenLogprob,
    Tool,
    ToolCall,
    Usage,
)

FEATURES = frozenset({"chat", "complete", "embed", "tools", "json_schema", "logprobs"})


def mock(**script: Any) -> MockBackend:
    return MockBackend(MockScript(**script))


class Scribe:
    """Plays a backend that notes what it is asked and gives a completion it was told."""

    def __init__(self, *parts: str, **result: Any) -> None:
        self.asked: list[CommandRequest] = []
        self.parts = parts
        self.result = result
        self.backend = ScriptedBackend(
            self.play,
            offers=(ModelOffer(name="model", digest="ab" * 32, features=FEATURES),),
        )

    async def play(self, request: CommandRequest, emit: Emit) -> Generation:
        self.asked.append(request)
        for part in self.parts:
            await emit(part, 1)
        text = "".join(self.parts)
        return Generation(
            completion=Completion(text=text, **self.result),
            usage=Usage(prompt_tokens=7, completion_tokens=len(self.parts), cached_tokens=2),
            timings=Timings(),
        )


def words(said: str, **sampling: Any) -> str:
    """What a mock answers to a chat."""
    request = CommandRequest(
        request_id="any",
        messages=(ChatMessage(role="user", content=said),),
        sampling=Sampling(**sampling),
    )
    return " ".join(mock_words(request))


# ---- chat ----


async def test_a_chat_has_openais_shape(autojump_clock: MockClock) -> None:
    """Every field that the official client reads, and punch's own beside them."""
    async with open_client({"a": mock()}) as client:
        reply = await client.post(
            "/v1/chat/completions",
            {"model": "mock", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3},
            x_request_id="my-1",
        )
    body = reply.json()
    seconds = body["punch"]["segments"][0].pop("seconds")
    assert seconds >= 0
    assert reply.status == 200
    assert body == {
        "id": "chatcmpl-my-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "mock",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": words("hi", max_tokens=3),
                    "refusal": None,
                },
                "logprobs": None,
                "finish_reason": "length",
            }
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4},
        "punch": {
            "request_id": "my-1",
            "segments": [
                {
                    "peer_id": "a",
                    "tokens": 3,
                    "characters": len(words("hi", max_tokens=3)),
                    "reason": "length",
                }
            ],
        },
    }


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
        ("/v1/completions", {"prompt": "hi"}),
        ("/v1/responses", {"input": "hi"}),
        ("/api/chat", {"model": "model", "messages": [{"role": "user", "content": "hi"}]}),
        ("/api/generate", {"model": "model", "prompt": "hi"}),
    ],
)
@pytest.mark.parametrize(("streams", "interval"), [(True, 0.0), (False, GATHER_SECONDS)])
async def test_an_answer_that_is_sent_whole_comes_in_fewer_messages(
    path: str, body: dict[str, Any], streams: bool, interval: Any, autojump_clock: MockClock
) -> None:
    """It is streamed from its peer all the same: what is there survives that peer."""
    scribe = Scribe("a", "b")
    async with open_client({"a": scribe.backend}) as client:
        reply = await client.post(path, body | {"stream": streams})
    assert reply.status == 200
    assert [(each.stream, each.stream_interval) for each in scribe.asked] == [(True, interval)]


async def test_the_headers_say_who_answered_and_why(autojump_clock: MockClock) -> None:
    """Request id, peer, decision, provenance, segments."""
    async with open_client({"a": mock()}) as client:
        reply = await client.chat(model="mock")
    headers = reply.headers
    assert headers["x-punch-peer"] == "a"
    assert headers["x-punch-decision"].startswith("policy=completion-time; peer=a; predicted=")
    assert headers["x-punch-decision"].endswith("; of=1")
    assert headers["x-punch-provenance"].startswith("simulated; backend=mock; digest=")
    assert headers["x-punch-segments"] == "1"
    assert headers["x-request-id"] == client.seen.last.request_id


@pytest.mark.parametrize("includes_usage", [True, False])
async def test_a_stream_has_openais_shape(includes_usage: bool, autojump_clock: MockClock) -> None:
    """The role, the text in parts, the reason, perhaps the usage, and the mark of the end."""
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if includes_usage else {}
    async with open_client({"a": mock(decode_rate=10.0)}) as client:
        reply = await client.chat(model="mock", stream=True, max_tokens=3, **options)
    *chunks, end = reply.events()
    assert end == "[DONE]"
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert {chunk["model"] for chunk in chunks} == {"mock"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [c["choices"][0]["delta"] for c in chunks[1:4]] == [
        {"content": part} for part in _parts(words("tell me", max_tokens=3))
    ]
    assert chunks[4]["choices"] == [
        {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "length"}
    ]
    assert chunks[-1]["punch"]["segments"][0]["peer_id"] == "a"
    if includes_usage:
        assert chunks[-1]["choices"] == []
        assert chunks[-1]["usage"] == {
            "prompt_tokens": 2,
            "completion_tokens": 3,
            "total_tokens": 5,
        }
        assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * 5
    else:
        assert len(chunks) == 5


def _parts(text: str) -> list[str]:
    first, *others = text.split(" ")
    return [first, *(f" {word}" for word in others)]


async def test_each_part_of_the_text_leaves_as_it_comes(autojump_clock: MockClock) -> None:
    """Nothing is held back for company."""
    async with open_client({"a": mock(decode_rate=10.0)}) as client:
        reply = await client.chat(stream=True, max_tokens=5)
    gaps = [b - a for a, b in zip(reply.times, reply.times[1:], strict=False)]
    assert gaps[:4] == [pytest.approx(0.1, abs=0.02)] * 4


async def test_what_is_ready_at_once_leaves_in_one_write(autojump_clock: MockClock) -> None:
    """While a client takes nothing, text gathers; each part keeps an event of its own."""
    body = {"messages": [{"role": "user", "content": "tell me"}], "max_tokens": 20, "stream": True}
    async with open_client({"a": mock()}) as client:
        async with client.open("POST", "/v1/chat/completions", body) as connection:
            connection.takes = 1
            await trio.sleep(1)
            connection.take(math.inf)
    reply = connection.reply
    parts = [e for e in reply.events()[:-1] if e["choices"][0]["delta"].get("content")]
    assert len(parts) == 20
    # The first, what had gathered behind it, and the end.
    assert len(reply.writes) <= 5
    assert reply.text() == words("tell me", max_tokens=20)


async def test_every_wish_reaches_the_backend(autojump_clock: MockClock) -> None:
    """Under the name that punch has for it."""
    scribe = Scribe("ok")
    async with open_client({"a": scribe.backend}) as client:
        reply = await client.post(
            "/v1/chat/completions",
            {
                "model": "model",
                "messages": [
                    {"role": "developer", "content": "be brief"},
                    {"role": "user", "name": "Ann", "content": [{"type": "text", "text": "a"}]},
                ],
                "temperature": 0.5,
                "top_p": 0.9,
                "top_k": 40,
                "min_p": 0.05,
                "repeat_penalty": 1.1,
                "presence_penalty": 0.1,
                "frequency_penalty": 0.2,
                "max_completion_tokens": 9,
                "stop": ["x", "y"],
                "seed": 4,
                "user": "me",
                "metadata": {"a": "b"},
                "store": False,
                "punch": {"priority": 5, "timeout": 60, "continuation": False, "strict": False},
            },
        )
    assert reply.status == 200, reply.body
    (asked,) = scribe.asked
    assert asked.messages == (
        ChatMessage(role="system", content="be brief"),
        ChatMessage(role="user", content="a", name="Ann"),
    )
    assert asked.sampling == Sampling(
        temperature=0.5, top_p=0.9, top_k=40, min_p=0.05, repeat_penalty=1.1,
        presence_penalty=0.1, frequency_penalty=0.2, max_tokens=9, stop=("x", "y"), seed=4,
    )  # fmt: skip
    assert (asked.priority, asked.model, asked.stream) == (5, "model", True)
    assert asked.timeout == pytest.approx(60, abs=1)


async def test_n_answers_are_made_side_by_side(autojump_clock: MockClock) -> None:
    """Each has its own id, and with a seed its own seed."""
    async with open_client({"a": mock(decode_rate=10.0), "b": mock(decode_rate=10.0)}) as client:
        began = trio.current_time()
        # What is asked with an id of one's own is kept.
        client.headers["x-request-id"] = "tea"
        reply = await client.chat(n=3, seed=1, max_tokens=10)
        assert trio.current_time() - began < 1.5
    choices = reply.json()["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2]
    assert [choice["message"]["content"] for choice in choices] == [
        words("tell me", max_tokens=10, seed=seed) for seed in (1, 2, 3)
    ]
    usage = reply.json()["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (2, 30)
    assert sorted(client.router._runs._stored) == ["tea", "tea#1", "tea#2"]


async def test_n_answers_stream_side_by_side(autojump_clock: MockClock) -> None:
    """Each chunk says which answer it belongs to."""
    async with open_client({"a": mock(decode_rate=10.0)}) as client:
        reply = await client.chat(n=2, seed=1, max_tokens=5, stream=True)
    assert [reply.text(index) for index in (0, 1)] == [
        words("tell me", max_tokens=5, seed=seed) for seed in (1, 2)
    ]
    reasons = [c["choices"][0]["finish_reason"] for c in reply.events()[:-1]]
    assert reasons.count("length") == 2


TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "How it is outside.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
        # As OpenAI's own client writes it.
        "strict": True,
    },
}


async def test_tool_calls_come_back_in_openais_shape(autojump_clock: MockClock) -> None:
    """And the tool is told to the backend as JSON text."""
    call = ToolCall(id="call_1", name="weather", arguments='{"place": "here"}')
    scribe = Scribe(tool_calls=(call,), finish_reason="tool_calls")
    async with open_client({"a": scribe.backend}) as client:
        reply = await client.chat(
            tools=[TOOL], tool_choice={"type": "function", "function": {"name": "weather"}}
        )
    (choice,) = reply.json()["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "weather", "arguments": '{"place": "here"}'},
            }
        ],
    }
    (asked,) = scribe.asked
    assert asked.tool_choice == "function:weather"
    assert asked.tools == (
        Tool(
            name="weather",
            description="How it is outside.",
            parameters='{"type": "object", "properties": {"place": {"type": "string"}}}',
        ),
    )


async def test_tool_calls_end_a_stream(autojump_clock: MockClock) -> None:
    """In a chunk of their own, each with its number."""
    calls = tuple(ToolCall(id=f"call_{i}", name="weather", arguments="{}") for i in range(2))
    scribe = Scribe(tool_calls=calls, finish_reason="tool_calls")
    async with open_client({"a": scribe.backend}) as client:
        reply = await client.chat(tools=[TOOL], stream=True)
    deltas = [event["choices"][0] for event in reply.events()[:-1]]
    assert [call["index"] for call in deltas[1]["delta"]["tool_calls"]] == [0, 1]
    assert deltas[-1]["finish_reason"] == "tool_calls"


async def test_what_tools_returned_is_part_of_the_conversation(autojump_clock: MockClock) -> None:
    """The official client sends its own message back as it was."""
    scribe = Scribe("sunny")
    turn = {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "weather", "arguments": "{}"},
            }
        ],
    }
    result = {"role": "tool", "tool_call_id": "call_1", "content": "21 degrees"}
    question = {"role": "user", "content": "how is it?"}
    async with open_client({"a": scribe.backend}) as client:
        reply = await client.post(
            "/v1/chat/completions", {"messages": [question, turn, result], "tools": [TOOL]}
        )
    assert reply.status == 200, reply.body
    _, called, returned = scribe.asked[0].messages
    assert called.tool_calls == (ToolCall(id="call_1", name="weather", arguments="{}"),)
    assert (returned.role, returned.tool_call_id, returned.content) == (
        "tool",
        "call_1",
        "21 degrees",
    )


@pytest.mark.parametrize(
    ("wanted", "schema"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, "{}"),
        (
            {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
            '{"type": "object"}',
        ),
    ],
)
async def test_a_response_format_is_a_schema(
    wanted: dict[str, Any], schema: str | None, autojump_clock: MockClock
) -> None:
    """As text; any object is the empty one."""
    scribe = Scribe("{}")
    async with open_client({"a": scribe.backend}) as client:
        reply = await client.chat(response_format=wanted)
    assert reply.status == 200, reply.body
    assert scribe.asked[0].response_schema == schema


@pytest.mark.parametrize("stream", [True, False])
async def test_logprobs_come_with_their_alternatives(
    stream: bool, autojump_clock: MockClock
) -> None:
    """In a stream, with the last chunk."""
    likely = (TokenLogprob(token="ok", logprob=-0.1, top=(("ok", -0.1), ("no", -2.5))),)
    scribe = Scribe("ok", logprobs=likely)
    async with open_client({"a": scribe.backend}) as client:
        reply = await client.chat(logprobs=True, top_logprobs=2, stream=stream)
    last = reply.events()[-2] if stream else reply.json()
    (token,) = last["choices"][0]["logprobs"]["content"]
    assert scribe.asked[0].logprobs == 2
    assert token["token"] == "ok"
    assert token["bytes"] == [111, 107]
    assert [each["token"] for each in token["top_logprobs"]] == ["ok", "no"]


# ---- completions ----


async def test_a_completion_goes_on_from_the_prompt(autojump_clock: MockClock) -> None:
    """In the shape of the old endpoint."""
    async with open_client({"a": mock()}) as client:
        reply = await client.post("/v1/completions", {"prompt": "once", "max_tokens": 2})
    body = reply.json()
    assert body["object"] == "text_completion"
    assert body["id"].startswith("cmpl-")
    (choice,) = body["choices"]
    assert choice["finish_reason"] == "length"
    assert len(choice["text"].split()) == 2


async def test_several_prompts_have_a_choice_each(autojump_clock: MockClock) -> None:
    """In their order, and all of them are counted."""
    async with open_client({"a": mock()}) as client:
        reply = await client.post("/v1/completions", {"prompt": ["a", "b c"], "max_tokens": 2})
        alone = await client.post("/v1/completions", {"prompt": "b c", "max_tokens": 2})
    choices = reply.json()["choices"]
    assert [choice["index"] for choice in choices] == [0, 1]
    assert choices[1]["text"] == alone.json()["choices"][0]["text"]
    assert reply.json()["usage"]["prompt_tokens"] == 3


async def test_a_streamed_completion_has_text_and_a_reason(autojump_clock: MockClock) -> None:
    """And no role."""
    async with open_client({"a": mock()}) as client:
        reply = await client.post(
            "/v1/completions", {"prompt": "once", "max_tokens": 2, "stream": True}
        )
    *chunks, end = reply.events()
    assert end == "[DONE]"
    assert [c["choices"][0]["finish_reason"] for c in chunks] == [None, None, "length"]


# ---- embeddings ----


async def test_embeddings_are_numbers_or_packed(autojump_clock: MockClock) -> None:
    """The official client asks for base64 and unpacks 32-bit floats."""
    body = {"input": ["a b", "c"]}
    async with open_client({"a": mock()}) as client:
        plain = await client.post("/v1/embeddings", body)
        packed = await client.post("/v1/embeddings", body | {"encoding_format": "base64"})
    numbers = plain.json()["data"][1]["embedding"]
    data = base64.b64decode(packed.json()["data"][1]["embedding"])
    unpacked = struct.unpack(f"<{len(data) // 4}f", data)
    assert list(unpacked) == pytest.approx(numbers, rel=1e-6)
    assert [each["index"] for each in plain.json()["data"]] == [0, 1]
    assert plain.json()["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


async def test_dimensions_that_the_model_does_not_have_are_refused_by_name(
    autojump_clock: MockClock,
) -> None:
    """And those that it has are not."""
    async with open_client({"a": mock()}) as client:
        length = len((await _embed(client)).json()["data"][0]["embedding"])
        good = await _embed(client, dimensions=length)
        bad = await _embed(client, dimensions=length + 1)
    assert good.status == 200
    assert bad.status == 400
    assert bad.error["param"] == "dimensions"


async def _embed(client: Client, **fields: Any) -> Any:
    return await client.post("/v1/embeddings", {"input": "x"} | fields)


# ---- models ----


async def test_models_are_listed_with_what_punch_knows(autojump_clock: MockClock) -> None:
    """Each once, whoever offers it, and `auto` before them."""
    listeners = {"a": mock(), "b": mock(), "c": mock(model="other")}
    async with open_client(listeners) as client:
        listed = await client.get("/v1/models")
        one = await client.get("/v1/models/mock")
    names = [model["id"] for model in listed.json()["data"]]
    assert names == ["auto", "mock", "other"]
    assert sorted(one.json()["punch"]["peers"]) == ["a", "b"]
    assert one.json() == listed.json()["data"][1]


async def test_auto_lets_the_router_choose(autojump_clock: MockClock) -> None:
    """The answer says which model it was."""
    async with open_client({"a": mock(model="some")}) as client:
        reply = await client.chat(model="auto")
    assert reply.json()["model"] == "some"
    assert client.seen.last.model is None
