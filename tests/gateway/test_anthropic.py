"""Anthropic's Messages API: what is asked of peers, and how answers and errors are spelled."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

import pytest
from gateway_client import Reply, open_client
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from punch.backends import Emit, Generation, MockBackend, MockScript
from punch.capability import ModelOffer
from punch.gateway.anthropic._shapes import MessageShape
from punch.testing import ScriptedBackend
from punch.wire import (
    ChatMessage,
    CommandRequest,
    CommandResponse,
    Completion,
    PromptCount,
    Timings,
    Tool,
    ToolCall,
    Usage,
)

PATH = "/v1/messages"
COUNT = "/v1/messages/count_tokens"
USER = {"role": "user", "content": "how is it?"}
WEATHER = {"name": "weather", "input_schema": {"type": "object"}}
PNG = b"\x89PNG"
IMAGE = {
    "type": "image",
    "source": {
        "type": "base64",
        "media_type": "image/png",
        "data": base64.b64encode(PNG).decode(),
    },
}


def mock(**script: Any) -> MockBackend:
    return MockBackend(MockScript(**script))


def backend(
    asked: list[CommandRequest],
    completion: Completion | None = None,
    *,
    text: Sequence[str] = ("fine",),
    usage: Usage | None = None,
    features: Sequence[str] = ("chat", "tools", "json_schema", "image", "count"),
) -> ScriptedBackend:
    """A peer that notes what it is asked."""

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        asked.append(request)
        for part in text:
            await emit(part, 1)
        result = completion or Completion(text="".join(text))
        return Generation(completion=result, usage=usage or Usage(), timings=Timings())

    return ScriptedBackend(play, offers=(ModelOffer(name="m", features=frozenset(features)),))


async def asked_with(*, path: str = PATH, **fields: Any) -> CommandRequest:
    """What a peer is asked for a body with these *fields*."""
    asked: list[CommandRequest] = []
    body = {"model": "m", "max_tokens": 9, "messages": [USER]} | fields
    async with open_client({"a": backend(asked, usage=Usage(prompt_tokens=1))}) as client:
        reply = await client.post(path, body)
    assert reply.status == 200, reply.body
    return asked[-1]


async def refused(path: str = PATH, **fields: Any) -> str:
    """The error that a body with these *fields* gets, which is a 400 in Anthropic's shape."""
    body = {"model": "m", "max_tokens": 9, "messages": [USER]} | fields
    async with open_client({"a": backend([])}) as client:
        reply = await client.post(path, body)
    assert reply.status == 400, reply.body
    return error_of(reply)["message"]


def error_of(reply: Reply) -> dict[str, str]:
    """The error in Anthropic's shape, with the id that the headers say, too."""
    found = reply.json()
    assert sorted(found) == ["error", "request_id", "type"]
    assert found["type"] == "error"
    assert sorted(found["error"]) == ["message", "type"]
    assert found["request_id"] == reply.headers["request-id"] == reply.headers["x-request-id"]
    error: dict[str, str] = found["error"]
    return error


def gathered(events: Sequence[Any]) -> dict[str, Any]:
    """The message that a client makes of the events of a stream, whose order it checks."""
    first, *events = [event for event in events if event["type"] != "ping"]
    assert first["type"] == "message_start"
    message: dict[str, Any] = first["message"]
    content: list[dict[str, Any]] = message["content"]
    assert content == []
    is_open = False
    spelled = ""
    for event in events[:-2]:
        if event["type"] == "content_block_start":
            assert not is_open
            assert event["index"] == len(content)
            content.append(event["content_block"])
            is_open, spelled = True, ""
            continue
        assert is_open
        assert event["index"] == len(content) - 1
        if event["type"] == "content_block_stop":
            is_open = False
            if spelled:
                content[-1]["input"] = json.loads(spelled)
            continue
        assert event["type"] == "content_block_delta"
        delta = event["delta"]
        match delta.pop("type"):
            case "input_json_delta":
                spelled += delta["partial_json"]
            case "text_delta" | "thinking_delta":
                ((name, text),) = delta.items()
                content[-1][name] += text
            case "signature_delta":
                content[-1].update(delta)
            case other:
                raise AssertionError(other)
    assert not is_open
    delta, stop = events[-2:]
    assert (delta["type"], stop) == ("message_delta", {"type": "message_stop"})
    return {**message, **delta["delta"], "usage": delta["usage"], "punch": delta["punch"]}


# ---- answers ----


async def test_a_message_has_anthropics_shape(autojump_clock: MockClock) -> None:
    """Whole, with a block of text, the reason of its end and what was counted."""
    body = {"model": "mock", "max_tokens": 3, "messages": [{"role": "user", "content": "hi"}]}
    async with open_client({"a": mock()}) as client:
        reply = await client.post(PATH, body, x_request_id="one")
    found = reply.json()
    (block,) = found["content"]
    assert (found["id"], found["type"], found["role"]) == ("msg_one", "message", "assistant")
    assert (found["model"], found["stop_reason"], found["stop_sequence"]) == (
        "mock",
        "max_tokens",
        None,
    )
    assert block["type"] == "text"
    assert len(block["text"].split()) == 3
    assert found["usage"] == {
        "input_tokens": 1,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": 3,
    }
    assert found["punch"]["request_id"] == "one"
    assert reply.headers["request-id"] == reply.headers["x-request-id"] == "one"
    assert reply.headers["x-punch-provenance"].startswith("simulated")


async def test_a_stream_opens_and_closes_its_message_and_every_block(
    autojump_clock: MockClock,
) -> None:
    """In the order that the official client expects, each kind said twice."""
    body = {"model": "mock", "max_tokens": 2, "messages": [USER], "stream": True}
    async with open_client({"a": mock(decode_rate=10.0)}) as client:
        reply = await client.post(PATH, body)
    kinds = [event["type"] for event in reply.events()]
    assert kinds == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    lines = reply.body.decode().split("\n")
    assert [line for line in lines if line.startswith("event: ")] == [f"event: {k}" for k in kinds]
    assert reply.headers["content-type"].startswith("text/event-stream")
    last = reply.events()[-2]
    assert last["usage"]["output_tokens"] == 2
    assert last["usage"]["input_tokens"] == 3
    # Known before the first word: clients show how full the context is from here on.
    first = reply.events()[0]["message"]["usage"]
    assert (first["input_tokens"], first["output_tokens"]) == (3, 0)


@pytest.mark.parametrize("minor", [0, 1])
async def test_what_an_older_listener_has_not_counted_yet_is_said_at_the_end(
    minor: int, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is made up for the beginning of the message."""
    monkeypatch.setattr("punch.session._calls.ServerCall.minor", minor)
    body = {"model": "mock", "max_tokens": 2, "messages": [USER], "stream": True}
    async with open_client({"a": mock()}) as client:
        reply = await client.post(PATH, body)
    assert reply.events()[0]["message"]["usage"]["input_tokens"] == 0
    assert reply.events()[-2]["usage"]["input_tokens"] == 3


async def test_more_tokens_than_the_prompt_can_have_are_not_believed(
    autojump_clock: MockClock,
) -> None:
    """A peer that counts wrongly, or lies, tells nobody that its context is full."""

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        await emit(PromptCount(10**30, 2 * 10**30), 0)
        await emit("one", 1)
        return Generation(completion=Completion(text="one"))

    body = {"model": "mock", "max_tokens": 2, "messages": [USER], "stream": True}
    async with open_client({"a": ScriptedBackend(play)}) as client:
        reply = await client.post(PATH, body)
    usage = reply.events()[0]["message"]["usage"]
    assert 0 < usage["input_tokens"] + usage["cache_read_input_tokens"] < 2000


async def test_the_stream_is_the_whole_message(autojump_clock: MockClock) -> None:
    """The same body asked both ways."""
    body = {"model": "mock", "max_tokens": 7, "messages": [USER]}
    async with open_client({"a": mock(), "b": mock()}) as client:
        whole = (await client.post(PATH, body)).json()
        streamed = gathered((await client.post(PATH, body | {"stream": True})).events())
    for name in ("content", "stop_reason", "stop_sequence", "usage", "model", "role", "type"):
        assert streamed[name] == whole[name], name


async def test_pings_keep_a_waiting_stream_open(autojump_clock: MockClock) -> None:
    """After the message was opened: clients want that first."""
    body = {"model": "mock", "max_tokens": 2, "messages": [USER], "stream": True}
    async with open_client({"a": mock(delay=12.0)}) as client:
        reply = await client.post(PATH, body)
    kinds = [event["type"] for event in reply.events()]
    assert kinds[:3] == ["message_start", "ping", "ping"]
    assert kinds[-1] == "message_stop"


@pytest.mark.parametrize("stream", [True, False])
async def test_calls_are_blocks_of_their_own(stream: bool, autojump_clock: MockClock) -> None:
    """With no empty text before them, and an object for their input."""
    asked: list[CommandRequest] = []
    calls = (
        ToolCall(id="call_1", name="weather", arguments='{"city":"Ulm"}'),
        ToolCall(id="call_2", name="weather", arguments=""),
    )
    peer = backend(asked, Completion(tool_calls=calls, finish_reason="tool_calls"), text=())
    body = {"model": "m", "max_tokens": 9, "messages": [USER], "tools": [WEATHER]}
    async with open_client({"a": peer}) as client:
        reply = await client.post(PATH, body | {"stream": stream})
    found = gathered(reply.events()) if stream else reply.json()
    assert found["stop_reason"] == "tool_use"
    assert found["content"] == [
        {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Ulm"}},
        {"type": "tool_use", "id": "call_2", "name": "weather", "input": {}},
    ]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_call_that_was_cut_says_so(stream: bool, autojump_clock: MockClock) -> None:
    """What there is of its arguments goes under a name: clients take objects only."""
    call = ToolCall(id="c", name="weather", arguments='{"city":"U')
    peer = backend([], Completion(tool_calls=(call,), finish_reason="length"), text=())
    body = {"model": "m", "max_tokens": 9, "messages": [USER], "tools": [WEATHER]}
    async with open_client({"a": peer}) as client:
        reply = await client.post(PATH, body | {"stream": stream})
    found = gathered(reply.events()) if stream else reply.json()
    assert found["stop_reason"] == "max_tokens"
    assert found["content"][0]["input"] == {"arguments": '{"city":"U'}


async def test_what_was_cached_is_no_input_once_more(autojump_clock: MockClock) -> None:
    """Anthropic's three counts of a prompt add up to it."""
    usage = Usage(prompt_tokens=10, completion_tokens=4, cached_tokens=8)
    async with open_client({"a": backend([], usage=usage)}) as client:
        reply = await client.post(PATH, {"model": "m", "max_tokens": 9, "messages": [USER]})
    assert reply.json()["usage"] == {
        "input_tokens": 2,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 8,
        "output_tokens": 4,
    }


@pytest.mark.parametrize("stream", [True, False])
async def test_the_stop_sequence_that_ended_it_is_named(
    stream: bool, autojump_clock: MockClock
) -> None:
    """Before it the text ends; one that nobody asked for is believed of no peer."""
    body = {"model": "mock", "max_tokens": 30, "messages": [USER], "stream": stream}
    async with open_client({"a": mock()}) as client:
        whole = (await client.post(PATH, body | {"stream": False})).json()["content"][0]["text"]
        stop = whole.split()[9]
        reply = await client.post(PATH, body | {"stop_sequences": ["zzz", stop]})
    found = gathered(reply.events()) if stream else reply.json()
    assert (found["stop_reason"], found["stop_sequence"]) == ("stop_sequence", stop)
    assert found["content"][0]["text"] == whole[: whole.index(stop)]
    liar = backend([], Completion(text="fine", stopped_by="made up"))
    async with open_client({"a": liar}) as client:
        reply = await client.post(PATH, body | {"model": "m", "stop_sequences": ["zzz"]})
    found = gathered(reply.events()) if stream else reply.json()
    assert (found["stop_reason"], found["stop_sequence"]) == ("end_turn", None)


async def test_no_tokens_asked_for_gives_none(autojump_clock: MockClock) -> None:
    """The prompt is read for a later question; no backend takes a limit of nothing."""
    for stream in (True, False):
        asked: list[CommandRequest] = []
        body = {"model": "m", "max_tokens": 0, "messages": [USER], "stream": stream}
        async with open_client({"a": backend(asked)}) as client:
            reply = await client.post(PATH, body)
        assert asked[0].sampling.max_tokens == 1
        found = gathered(reply.events()) if stream else reply.json()
        assert found["content"] == []


@pytest.mark.parametrize("stream", [True, False])
async def test_another_peer_continues_a_message(stream: bool, autojump_clock: MockClock) -> None:
    """One message, and its `punch` says who made which part."""
    body = {"model": "mock", "max_tokens": 9, "messages": [USER], "stream": stream}
    async with open_client({"a": mock(fail_after=4, decode_rate=10.0)}) as client:
        await client.swarm.listener("b", mock(decode_rate=9.0))
        reply = await client.post(PATH, body)
    found = gathered(reply.events()) if stream else reply.json()
    text = found["content"][0]["text"]
    assert len(text.split()) == 9
    assert [segment["tokens"] for segment in found["punch"]["segments"]][-1] < 10


async def test_the_same_id_gets_the_same_message(autojump_clock: MockClock) -> None:
    """Made once; another question with that id is a conflict."""
    asked: list[CommandRequest] = []
    body = {"model": "m", "max_tokens": 9, "messages": [USER]}
    async with open_client({"a": backend(asked)}) as client:
        one, two = [await client.post(PATH, body, x_request_id="tea") for _ in range(2)]
        other = await client.post(PATH, body | {"max_tokens": 8}, x_request_id="tea")
    assert (len(asked), one.json()["content"]) == (1, two.json()["content"])
    assert two.headers["x-punch-decision"] == "replayed"
    assert other.status == 409
    assert error_of(other)["type"] == "conflict_error"


# ---- what is asked ----


async def test_the_fields_of_sampling_are_passed_on(autojump_clock: MockClock) -> None:
    """Under their names between peers."""
    request = await asked_with(temperature=0.5, top_p=0.9, top_k=40, stop_sequences=["\n\n"])
    sampling = request.sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p) == (9, 0.5, 0.9)
    assert (sampling.top_k, sampling.stop) == (40, ("\n\n",))


@pytest.mark.parametrize(
    "system",
    [
        "be brief\nbe kind",
        [{"type": "text", "text": "be brief"}, {"type": "text", "text": "be kind"}],
        [
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=2; cch=0815;"},
            {"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}},
            {"type": "text", "text": "be kind"},
        ],
    ],
)
async def test_the_system_prompt_is_one_message(system: Any, autojump_clock: MockClock) -> None:
    """As text or as blocks; who pays is no part of it."""
    request = await asked_with(system=system)
    assert request.messages[0] == ChatMessage(role="system", content="be brief\nbe kind")
    assert len(request.messages) == 2


async def test_results_of_tools_are_messages_of_tools(autojump_clock: MockClock) -> None:
    """Before what the user says in the same turn, pictures after all of them."""
    uses = [
        {"type": "text", "text": "I look. "},
        {"type": "tool_use", "id": "1", "name": "weather", "input": {"city": "Ulm"}},
        {"type": "tool_use", "id": "2", "name": "weather", "input": {}},
    ]
    parts = [{"type": "text", "text": "21"}, {"type": "text", "text": "degrees"}, IMAGE]
    results = [
        {"type": "tool_result", "tool_use_id": "1", "content": parts},
        {"type": "tool_result", "tool_use_id": "2", "content": "no city", "is_error": True},
        {"type": "text", "text": "and now?"},
    ]
    request = await asked_with(
        messages=[
            USER,
            {"role": "assistant", "content": uses},
            {"role": "user", "content": results},
        ],
        tools=[WEATHER],
    )
    _, called, first, second, user = request.messages
    assert called.content == "I look. "
    assert [(call.id, json.loads(call.arguments)) for call in called.tool_calls] == [
        ("1", {"city": "Ulm"}),
        ("2", {}),
    ]
    assert first == ChatMessage(role="tool", content="21\ndegrees", tool_call_id="1")
    assert second == ChatMessage(role="tool", content="Error: no city", tool_call_id="2")
    assert [part.type for part in user.parts] == ["image", "text"]
    assert user.parts[0].data == PNG
    assert user.content == "and now?"


@pytest.mark.parametrize("content", [None, "", []])
async def test_a_tool_may_return_nothing(content: Any, autojump_clock: MockClock) -> None:
    """An error with nothing to say is still an error."""
    use = {"type": "tool_use", "id": "1", "name": "weather", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "1", "content": content}
    for is_error, text in ((False, ""), (True, "Error")):
        request = await asked_with(
            messages=[
                USER,
                {"role": "assistant", "content": [use]},
                {"role": "user", "content": [result | {"is_error": is_error}]},
            ]
        )
        assert request.messages[-1].content == text


async def test_turns_of_one_role_are_one_turn(autojump_clock: MockClock) -> None:
    """As Anthropic has it; many templates know no other way."""
    request = await asked_with(
        messages=[
            {"role": "user", "content": "a"},
            {"role": "user", "content": [{"type": "text", "text": "b"}, IMAGE]},
            {"role": "assistant", "content": "c"},
            {"role": "user", "content": "d"},
            {"role": "user", "content": "e"},
        ]
    )
    first, second, third = request.messages
    assert [part.text for part in first.parts] == ["a", "b", None]
    assert (second.content, third.content) == ("c", "d\ne")


async def test_a_system_message_among_the_turns_is_read_where_it_can_be(
    autojump_clock: MockClock,
) -> None:
    """Templates take one, at the beginning; to change that later would empty every cache."""
    request = await asked_with(
        system="first",
        messages=[
            USER,
            {"role": "system", "content": [{"type": "text", "text": "second"}]},
            {"role": "assistant", "content": "fine"},
            {"role": "system", "content": "gone", "clear_at": "next_user_message"},
            {"role": "user", "content": "and?"},
            {"role": "system", "content": "third", "output_config": {"effort": "high"}},
        ],
    )
    assert [(message.role, message.content) for message in request.messages] == [
        ("system", "first\nsecond"),
        ("user", "how is it?"),
        ("assistant", "fine"),
        ("user", "and?\nthird"),
    ]
    assert request.reasoning_effort == "high"


async def test_a_begun_answer_is_continued(autojump_clock: MockClock) -> None:
    """A last message of the assistant's is the beginning; an empty one is no message at all."""
    begun = await asked_with(messages=[USER, {"role": "assistant", "content": "It is"}])
    empty = await asked_with(messages=[USER, {"role": "assistant", "content": ""}])
    between = await asked_with(messages=[USER, {"role": "assistant", "content": []}, USER])
    assert begun.messages[-1] == ChatMessage(role="assistant", content="It is")
    assert [message.role for message in empty.messages] == ["user"]
    assert [message.role for message in between.messages] == ["user"]


@pytest.mark.parametrize(
    ("choice", "asked", "parallel"),
    [
        ({"type": "auto"}, "auto", None),
        ({"type": "any"}, "required", None),
        ({"type": "none"}, "none", None),
        ({"type": "tool", "name": "weather"}, "function:weather", None),
        ({"type": "any", "disable_parallel_tool_use": True}, "required", False),
        ({"type": "auto", "disable_parallel_tool_use": False}, "auto", None),
        (None, None, None),
    ],
)
async def test_choices_of_tools(
    choice: Any, asked: Any, parallel: Any, autojump_clock: MockClock
) -> None:
    """In the words between peers."""
    request = await asked_with(tools=[WEATHER], tool_choice=choice)
    assert (request.tool_choice, request.parallel_tool_calls) == (asked, parallel)


async def test_a_choice_that_chooses_nothing_needs_no_tools(autojump_clock: MockClock) -> None:
    """Some clients say so with every question."""
    for kind in ("auto", "none"):
        request = await asked_with(
            tool_choice={"type": kind, "disable_parallel_tool_use": True}, tools=[]
        )
        assert (request.tool_choice, request.parallel_tool_calls) == (None, None)
    assert "tool_choice" in await refused(tool_choice={"type": "any"})


async def test_a_tool_is_passed_on_with_its_examples(autojump_clock: MockClock) -> None:
    """Which stand in its description: a template has no other place for them."""
    tool = WEATHER | {
        "type": "custom",
        "description": "Tells it.",
        "input_examples": [{"city": "Ulm"}],
        "cache_control": {"type": "ephemeral", "ttl": "1h"},
        "strict": True,
        "eager_input_streaming": True,
        "allowed_callers": ["direct"],
    }
    request = await asked_with(tools=[tool])
    assert request.tools == (
        Tool(
            name="weather",
            description='Tells it.\nExamples of its input:\n{"city": "Ulm"}',
            parameters='{"type": "object"}',
        ),
    )


def named(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "input_schema": {"type": "object"}, **more}


async def test_tools_come_and_go_as_the_conversation_says(autojump_clock: MockClock) -> None:
    """Deferred ones once they are found or added; removed ones no more."""
    tools = [
        named("search"),
        named("found", defer_loading=True),
        named("added", defer_loading=True),
        named("hidden", defer_loading=True),
        named("removed"),
    ]
    found = [{"type": "tool_reference", "tool_name": "found"}]
    changes = [
        {"type": "tool_addition", "tool": {"type": "tool_reference", "name": "added"}},
        {"type": "tool_removal", "tool": {"type": "tool_reference", "name": "removed"}},
    ]
    messages = [
        USER,
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "1", "name": "search", "input": {}}],
        },
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "1", "content": found}],
        },
        {"role": "system", "content": changes},
    ]
    request = await asked_with(tools=tools, messages=messages)
    assert [tool.name for tool in request.tools] == ["search", "found", "added"]
    assert request.messages[-1].role == "tool"
    assert request.messages[-1].content == "The tool found is there now."


async def test_documents_are_read_as_far_as_they_are_text(autojump_clock: MockClock) -> None:
    """With their titles, and what a search has found with its source."""
    content = [
        {
            "type": "document",
            "title": "Tea",
            "context": "An essay.",
            "source": {"type": "text", "media_type": "text/plain", "data": "Hot."},
            "citations": {"enabled": False},
        },
        {
            "type": "document",
            "source": {"type": "content", "content": [{"type": "text", "text": "Cold."}]},
        },
        {
            "type": "search_result",
            "source": "https://x.test",
            "title": "Ice",
            "content": [{"type": "text", "text": "Frozen."}],
        },
    ]
    request = await asked_with(messages=[{"role": "user", "content": content}])
    text = "Tea\nAn essay.\nHot.\nCold.\nIce\nhttps://x.test\nFrozen."
    assert request.messages == (ChatMessage(role="user", content=text),)


@pytest.mark.parametrize("field", ["output_config", "output_format"])
async def test_a_schema_is_one_that_the_answer_must_fit(
    field: str, autojump_clock: MockClock
) -> None:
    """In its place of now and in that of the beta."""
    form = {"type": "json_schema", "schema": {"type": "object"}}
    asked: list[CommandRequest] = []
    value = {"format": form} if field == "output_config" else form
    body = {"model": "m", "max_tokens": 9, "messages": [USER], field: value}
    async with open_client({"a": backend(asked, text=("{}",))}) as client:
        reply = await client.post(PATH, body)
    assert reply.status == 200, reply.body
    assert asked[0].response_schema == '{"type": "object"}'


@pytest.mark.parametrize(
    ("thinking", "config", "effort", "budget"),
    [
        (None, None, "none", None),
        (None, {"effort": "low"}, "low", None),
        ({"type": "disabled"}, None, "none", None),
        ({"type": "enabled", "budget_tokens": 2048}, None, "medium", 2048),
        ({"type": "adaptive"}, None, None, None),
        ({"type": "adaptive", "display": "omitted"}, {"effort": "xhigh"}, "high", None),
    ],
)
async def test_how_much_is_thought(
    thinking: Any, config: Any, effort: Any, budget: Any, autojump_clock: MockClock
) -> None:
    """In the words between peers."""
    request = await asked_with(thinking=thinking, output_config=config)
    assert (request.reasoning_effort, request.reasoning_budget) == (effort, budget)


async def test_what_asks_for_nothing_is_taken(autojump_clock: MockClock) -> None:
    """What Claude Code and the official client send unasked."""
    request = await asked_with(
        metadata={"user_id": "u"},
        service_tier="auto",
        cache_control={"type": "ephemeral"},
        context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        container=None,
        mcp_servers=[],
        inference_geo="eu",
        speed="fast",
        betas=["effort-2025-11-24"],
        stop_sequences=[],
        tools=None,
    )
    assert request.messages == (ChatMessage(role="user", content="how is it?"),)


async def test_an_answer_comes_back_whole(autojump_clock: MockClock) -> None:
    """As a client sends it that keeps all of it, with what streams leave beside the blocks."""
    body = {"model": "mock", "max_tokens": 3, "messages": [USER]}
    async with open_client({"a": mock()}) as client:
        found = (await client.post(PATH, body)).json()
        found["content"][0]["index"] = 0
        again = await client.post(PATH, body | {"messages": [USER, found, USER]})
    assert again.status == 200, again.body


# ---- what is refused ----


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "assistant", "content": ""}]}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, '"video"'),
        ({"messages": [{"role": "user", "content": [{}]}]}, "messages[0].content[0]"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "image", "source": {"type": "url", "url": "https://x.test"}}
                        ],
                    }
                ]
            },
            "messages[0].content[0].source.type cannot be honoured: nothing is fetched from a url",
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {
                                "type": "image",
                                "source": {
                                    "type": "base64",
                                    "media_type": "image/png",
                                    "data": "%%",
                                },
                            }
                        ],
                    }
                ]
            },
            "messages[0].content[0].source.data: it is not base64",
        ),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "WebSearch"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice"),
        ({"container": "c1"}, "container"),
        ({"mcp_servers": [{"url": "x"}]}, "mcp_servers"),
        ({"context_management": {"edits": [{"type": "compact_20260112"}]}}, "compact_20260112"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"frequency_penalty": 1}, "frequency_penalty"),
    ],
)
async def test_what_cannot_be_honoured_is_refused_by_name(
    fields: dict[str, Any], words: str, autojump_clock: MockClock
) -> None:
    """A 400 whose message names the field, in Anthropic's shape."""
    assert words in await refused(**fields)


async def test_all_that_is_refused_is_in_one_error(autojump_clock: MockClock) -> None:
    """And what is taken is in a header: a client need not guess."""
    block = {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}
    body = {"model": "m", "messages": [{"role": "user", "content": [block]}], "betas": ["x"]}
    foreign = [{"type": "web_search_20250305", "name": "a"}, {"type": "bash_20250124", "name": "b"}]
    async with open_client({"a": backend([])}) as client:
        taken = await client.post(PATH, body)
        refused = await client.post(
            PATH, body | {"tools": foreign, "container": "c", "thread": "t"}
        )
    assert taken.headers["x-punch-taken"] == "betas, messages[].content[].cache_control"
    message = error_of(refused)["message"]
    for name in ("tools[0].type", "tools[1].type", "container", "thread"):
        assert name in message


async def test_every_error_has_anthropics_shape(autojump_clock: MockClock) -> None:
    """On its paths, and everywhere for who sends its header."""
    version = {"anthropic_version": "2023-06-01"}
    body = {"model": "m", "messages": [USER]}
    # Of two models: where there is one, any name means it.
    async with open_client({"a": mock(model="m"), "b": mock(model="n")}) as client:
        asked = [
            (404, "not_found_error", await client.post(PATH, body | {"model": "other"})),
            (404, "not_found_error", await client.post("/v1/messages/batches", body)),
            (404, "not_found_error", await client.get("/v1/nothing", **version)),
            (404, "not_found_error", await client.get("/v1/models/other", **version)),
            (405, "invalid_request_error", await client.get(PATH)),
            (415, "invalid_request_error", await client.post(PATH, body, content_type="text/x")),
            (400, "invalid_request_error", await client.post(PATH, b"{")),
            (400, "invalid_request_error", await client.post(COUNT, {})),
            (400, "invalid_request_error", await client.post(PATH, body, x_request_id="a b")),
        ]
    for status, kind, reply in asked:
        assert (reply.status, error_of(reply)["type"]) == (status, kind), reply.body


async def test_a_prompt_that_is_too_long_is_said_in_the_words_that_clients_know(
    autojump_clock: MockClock,
) -> None:
    """They look for them, and make the conversation shorter."""
    body = {"model": "mock", "max_tokens": 9, "messages": [{"role": "user", "content": "a " * 99}]}
    async with open_client({"a": mock(context_tokens=50)}) as client:
        replies = [await client.post(path, body) for path in (PATH, COUNT)]
    for reply in replies:
        error = error_of(reply)
        assert (reply.status, error["type"]) == (400, "invalid_request_error")
        assert error["message"].startswith("prompt is too long: ")


async def test_a_stream_that_breaks_ends_with_an_error_event(autojump_clock: MockClock) -> None:
    """With the name by which clients know it."""
    body = {"model": "mock", "max_tokens": 9, "messages": [USER], "stream": True}
    async with open_client({"a": mock(fail_after=2, decode_rate=10.0)}) as client:
        reply = await client.post(PATH, body | {"punch": {"continuation": False}})
    *_, last = reply.events()
    assert (last["type"], last["error"]["type"]) == ("error", "api_error")
    assert last["request_id"] == reply.headers["request-id"]
    assert b"event: error\n" in reply.body


# ---- counting ----


async def test_tokens_are_counted_and_nothing_is_made(autojump_clock: MockClock) -> None:
    """By a peer that counts, with all that a model would read."""
    async with open_client({"a": mock()}) as client:
        body = {"model": "mock", "messages": [USER], "system": "be brief", "tools": [WEATHER]}
        reply = await client.post(COUNT, body)
    assert reply.json() == {"input_tokens": 8}
    request = await asked_with(path=COUNT, tools=[WEATHER], tool_choice={"type": "any"})
    assert (request.command, len(request.tools)) == ("count", 1)


async def test_a_peer_that_cannot_count_reads_the_prompt_instead(
    autojump_clock: MockClock,
) -> None:
    """Its backend says how many tokens that had; a count is never a guess."""
    asked: list[CommandRequest] = []
    for usage, status in ((Usage(prompt_tokens=11, completion_tokens=1), 200), (Usage(), 502)):
        peer = backend(asked, usage=usage, features=("chat",))
        async with open_client({"a": peer}) as client:
            reply = await client.post(COUNT, {"model": "m", "messages": [USER]})
        assert (asked[-1].command, asked[-1].sampling.max_tokens) == ("chat", 1)
        assert reply.status == status
        if status == 200:
            assert reply.json() == {"input_tokens": 11}


# ---- models ----


async def test_models_are_listed_in_the_shape_of_who_asks(autojump_clock: MockClock) -> None:
    """Pages of Anthropic's models for its clients, and OpenAI's list for all others."""
    version = {"anthropic_version": "2023-06-01"}
    async with open_client({"a": backend([]), "b": mock()}) as client:
        all_, one, plain = [
            (await client.get("/v1/models", **version)).json(),
            (await client.get("/v1/models/mock", **version)).json(),
            (await client.get("/v1/models")).json(),
        ]
    assert [model["id"] for model in all_["data"]] == ["auto", "m", "mock"]
    assert (all_["has_more"], all_["first_id"], all_["last_id"]) == (False, "auto", "mock")
    assert (one["type"], one["display_name"], one["max_input_tokens"]) == ("model", "mock", 8192)
    assert plain["object"] == "list"


# ---- the shape alone ----

TEXTS = st.lists(st.text(min_size=1, max_size=6), max_size=4)
CALLS = st.lists(
    st.builds(
        ToolCall,
        id=st.text("abc", min_size=1, max_size=3),
        name=st.just("f"),
        arguments=st.one_of(
            st.text(max_size=6),
            st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3)).map(
                json.dumps
            ),
        ),
    ),
    max_size=2,
)


@given(
    thoughts=TEXTS,
    texts=TEXTS,
    calls=CALLS,
    reason=st.sampled_from(["stop", "length", "tool_calls"]),
    stop=st.sampled_from([None, "a", "b"]),
    shows=st.booleans(),
    is_mute=st.booleans(),
)
def test_a_gathered_stream_is_the_whole_message(
    thoughts: list[str],
    texts: list[str],
    calls: list[ToolCall],
    reason: str,
    stop: str | None,
    shows: bool,
    is_mute: bool,
) -> None:
    """Whatever is thought, said and called, and however it is cut."""

    def shape() -> MessageShape:
        return MessageShape(
            request_id="r", model="m", shows_thoughts=shows, is_mute=is_mute, stops=["a"]
        )

    completion = Completion(
        text="".join(texts),
        reasoning="".join(thoughts),
        tool_calls=tuple(calls),
        finish_reason=reason,
        stopped_by=stop,
    )
    response = CommandResponse(request_id="r", status="success", result=completion)
    stream = shape()
    data = stream.began("m", Usage())
    if thoughts:
        data += stream.reasoning(0, thoughts)
    if texts:
        data += stream.text(0, texts)
    data += stream.comment("waiting") + stream.finished(0, response) + stream.ended([response])
    reply = Reply(writes=[data])
    assert gathered(reply.events()) == shape().whole([response])
