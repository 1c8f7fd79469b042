"""OpenAI's Responses API: text and functions."""

from __future__ import annotations

from typing import Any

import pytest
from gateway_client import open_client
from trio.testing import MockClock

from punch.backends import Emit, Generation, MockBackend, MockScript
from punch.capability import ModelOffer
from punch.testing import ScriptedBackend
from punch.wire import ChatMessage, CommandRequest, Completion, Timings, Tool, ToolCall, Usage

PATH = "/v1/responses"


def mock(**script: Any) -> MockBackend:
    return MockBackend(MockScript(**script))


def caller(asked: list[CommandRequest], *calls: ToolCall) -> ScriptedBackend:
    async def play(request: CommandRequest, emit: Emit) -> Generation:
        asked.append(request)
        reason = "tool_calls" if calls else "stop"
        completion = Completion(tool_calls=calls, finish_reason=reason)
        return Generation(completion=completion, usage=Usage(), timings=Timings())

    features = frozenset({"chat", "tools", "json_schema"})
    return ScriptedBackend(play, offers=(ModelOffer(name="m", features=features),))


async def test_a_response_has_openais_shape(autojump_clock: MockClock) -> None:
    """A message with one part of text."""
    body = {"model": "mock", "input": "hi", "max_output_tokens": 3, "metadata": {"a": "b"}}
    async with open_client({"a": mock()}) as client:
        reply = await client.post(PATH, body, x_request_id="one")
    found = reply.json()
    (message,) = found["output"]
    assert found["id"] == "resp_one"
    assert found["object"] == "response"
    assert found["status"] == "incomplete"
    assert found["incomplete_details"] == {"reason": "max_output_tokens"}
    assert (found["model"], found["metadata"], found["store"]) == ("mock", {"a": "b"}, True)
    assert message["type"] == "message"
    assert len(message["content"][0]["text"].split()) == 3
    assert found["usage"]["input_tokens"] == 1
    assert found["usage"]["output_tokens"] == 3


@pytest.mark.parametrize("stream", [True, False])
async def test_a_message_that_was_cut_says_so_itself(
    stream: bool, autojump_clock: MockClock
) -> None:
    """Not only the response that it is in."""
    body = {"model": "mock", "input": "hi", "max_output_tokens": 3, "stream": stream}
    async with open_client({"a": mock()}) as client:
        reply = await client.post(PATH, body)
    if stream:
        done = [e for e in reply.events() if e["type"] == "response.output_item.done"]
        items = [done[0]["item"], reply.events()[-1]["response"]["output"][0]]
    else:
        items = reply.json()["output"]
    assert {item["status"] for item in items} == {"incomplete"}


async def test_a_stream_opens_and_closes_every_part(autojump_clock: MockClock) -> None:
    """In the order that the official client expects, each with its number."""
    async with open_client({"a": mock(decode_rate=10.0)}) as client:
        reply = await client.post(
            PATH, {"model": "mock", "input": "hi", "max_output_tokens": 2, "stream": True}
        )
    events = reply.events()
    assert [event["type"] for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    assert [event["sequence_number"] for event in events] == list(range(10))
    text = events[4]["delta"] + events[5]["delta"]
    assert events[6]["text"] == text
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == text
    names = [line for line in reply.body.decode().split("\n") if line.startswith("event: ")]
    assert names[0] == "event: response.created"


@pytest.mark.parametrize("stream", [True, False])
async def test_function_calls_are_items_of_their_own(
    stream: bool, autojump_clock: MockClock
) -> None:
    """With no empty message before them."""
    asked: list[CommandRequest] = []
    call = ToolCall(id="call_1", name="weather", arguments="{}")
    tool = {
        "type": "function",
        "name": "weather",
        "parameters": {"type": "object"},
        "strict": True,
    }
    body = {
        "model": "m",
        "input": "how is it?",
        "tools": [tool],
        "tool_choice": {"type": "function", "name": "weather"},
        "stream": stream,
    }
    async with open_client({"a": caller(asked, call)}) as client:
        reply = await client.post(PATH, body)
    found = reply.events()[-1]["response"] if stream else reply.json()
    (item,) = found["output"]
    assert (item["type"], item["call_id"], item["name"]) == ("function_call", "call_1", "weather")
    assert asked[0].tools == (Tool(name="weather", parameters='{"type": "object"}'),)
    assert asked[0].tool_choice == "function:weather"
    if stream:
        kinds = [event["type"] for event in reply.events()]
        assert "response.function_call_arguments.done" in kinds
        assert "response.output_text.delta" not in kinds


async def test_earlier_items_are_a_conversation(autojump_clock: MockClock) -> None:
    """Calls that were asked for together are one turn."""
    asked: list[CommandRequest] = []
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "how is it?"}]},
        {"type": "function_call", "call_id": "1", "name": "weather", "arguments": "{}"},
        {"type": "function_call", "call_id": "2", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "21"},
        {"type": "function_call_output", "call_id": "2", "output": "22"},
    ]
    tool = {"type": "function", "name": "weather"}
    async with open_client({"a": caller(asked)}) as client:
        reply = await client.post(
            PATH, {"model": "m", "instructions": "be brief", "input": items, "tools": [tool]}
        )
    assert reply.status == 200, reply.body
    system, user, called, first, second = asked[0].messages
    assert system == ChatMessage(role="system", content="be brief")
    assert user.content == "how is it?"
    assert [call.id for call in called.tool_calls] == ["1", "2"]
    assert [first.tool_call_id, second.tool_call_id] == ["1", "2"]


async def test_a_format_is_a_schema(autojump_clock: MockClock) -> None:
    """As with chat, with the fields in another place."""
    asked: list[CommandRequest] = []
    wanted = {"type": "json_schema", "name": "n", "schema": {"type": "object"}}
    async with open_client({"a": caller(asked)}) as client:
        reply = await client.post(PATH, {"model": "m", "input": "x", "text": {"format": wanted}})
    # It was asked for, and what came was found not to be one.
    assert (reply.status, reply.json()["error"]["code"]) == (502, "schema_not_met")
    assert asked[0].response_schema == '{"type": "object"}'


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"background": True}, "background"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"input": [{"type": "web_search_call", "id": "1"}]}, "input[0].type"),
    ],
)
async def test_what_would_have_to_be_stored_or_searched_is_refused(
    fields: dict[str, Any], param: str, autojump_clock: MockClock
) -> None:
    """By name."""
    async with open_client({"a": mock()}) as client:
        reply = await client.post(PATH, {"model": "mock", "input": "x"} | fields)
    assert reply.status == 400
    assert reply.error["param"] == param


@pytest.mark.parametrize(
    "fields",
    [
        {
            "include": ["reasoning.encrypted_content"],
            "reasoning": {"summary": "auto", "effort": None},
            "client_metadata": {"a": "b"},
            "store": False,
            "prompt_cache_key": "k",
            "service_tier": "flex",
            "text": {"verbosity": "medium", "format": None},
        },
        {"store": True, "truncation": "auto", "background": False, "previous_response_id": None},
        {"tools": [], "tool_choice": "auto", "parallel_tool_calls": False, "max_tool_calls": 3},
        {"max_output_tokens": -1, "temperature": 1.0, "stream": None, "metadata": {}, "user": "u"},
        {"input": [{"role": "user", "content": "x"}, {"role": "assistant", "content": ""}]},
    ],
    ids=str,
)
async def test_what_asks_for_nothing_is_taken(
    fields: dict[str, Any], autojump_clock: MockClock
) -> None:
    """As Codex and others send it by default."""
    asked: list[CommandRequest] = []
    async with open_client({"a": caller(asked)}) as client:
        reply = await client.post(PATH, {"model": "m", "input": "x"} | fields)
    assert reply.status == 200, reply.body
    assert [(each.role, each.content) for each in asked[0].messages] == [("user", "x")]


async def test_an_answer_that_breaks_ends_in_an_error_event(autojump_clock: MockClock) -> None:
    """Which the official client raises."""
    backends = {name: mock(decode_rate=10.0) for name in "ab"}
    body = {"input": "hi", "stream": True, "max_output_tokens": 40}
    async with open_client(backends) as client:
        body |= {"punch": {"continuation": False}}
        async with client.open("POST", PATH, body) as connection:
            await connection.until(8)
            client.swarm.kill(connection.reply.headers["x-punch-peer"])
    last = connection.reply.events()[-1]
    assert last["type"] == "error"
    assert last["error"]["code"] == "answer_interrupted"
