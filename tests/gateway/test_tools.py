"""Calls of tools in OpenAI's dialects: how many, of which kinds, and under whose names."""

from __future__ import annotations

import json
from typing import Any

import pytest
from gateway_client import open_client
from trio.testing import MockClock

from punch.backends import Emit, Generation
from punch.capability import ModelOffer
from punch.testing import ScriptedBackend
from punch.wire import CommandRequest, Completion, Timings, ToolCall, Usage

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
TWO = (ToolCall(id="1", name="f", arguments="{}"), ToolCall(id="2", name="f", arguments="{}"))


def caller(asked: list[CommandRequest], *calls: ToolCall) -> ScriptedBackend:
    async def play(request: CommandRequest, emit: Emit) -> Generation:
        asked.append(request)
        reason = "tool_calls" if calls else "stop"
        completion = Completion(tool_calls=calls, finish_reason=reason)
        return Generation(completion=completion, usage=Usage(), timings=Timings())

    features = frozenset({"chat", "tools"})
    return ScriptedBackend(play, offers=(ModelOffer(name="m", features=features),))


@pytest.mark.parametrize(("said", "count"), [(None, 2), (True, 2), (False, 1)])
@pytest.mark.parametrize("stream", [True, False])
async def test_calls_side_by_side_are_as_many_as_asked_for(
    said: bool | None, count: int, stream: bool, autojump_clock: MockClock
) -> None:
    """Of two that a model makes all the same, the first is kept."""
    asked: list[CommandRequest] = []
    async with open_client({"a": caller(asked, *TWO)}) as client:
        body = {**ASK, "tools": [FUNCTION], "parallel_tool_calls": said, "stream": stream}
        reply = await client.post(CHAT, body)
        tools = [{"type": "function", "name": "f"}]
        more = {"model": "m", "input": "x", "tools": tools, "parallel_tool_calls": said}
        response = (await client.post(RESPONSES, more)).json()
    assert reply.status == 200
    assert [each.parallel_tool_calls for each in asked] == [said] * 2
    if stream:
        choices = [e["choices"][0] for e in reply.events()[:-1]]
        calls = [c for choice in choices for c in choice["delta"].get("tool_calls", ())]
    else:
        calls = reply.json()["choices"][0]["message"]["tool_calls"]
    assert [call["id"] for call in calls] == ["1", "2"][:count]
    assert [item["call_id"] for item in response["output"]] == ["1", "2"][:count]
    assert response["parallel_tool_calls"] is (said is not False)


async def test_without_tools_their_number_is_no_matter(autojump_clock: MockClock) -> None:
    """Programs say it all the same, with and without a choice."""
    asked: list[CommandRequest] = []
    fields = {"parallel_tool_calls": False, "tools": [], "tool_choice": "auto"}
    async with open_client({"a": caller(asked)}) as client:
        replies = [
            await client.post(CHAT, {**ASK, "parallel_tool_calls": False, "tools": []}),
            await client.post(RESPONSES, {"model": "m", "input": "x", **fields}),
        ]
    assert [reply.status for reply in replies] == [200, 200]
    assert [each.parallel_tool_calls for each in asked] == [None, None]


GROUP = {
    "type": "namespace",
    "name": "mcp__files",
    "description": "Files of the project.",
    "tools": [
        {"type": "function", "name": "read", "description": "Reads one.", "strict": False},
        {"type": "function", "name": "list", "parameters": {"type": "object", "properties": {}}},
    ],
}
FREE = {"type": "custom", "name": "patch", "description": "A patch.", "format": {"type": "text"}}


async def test_codexs_groups_of_functions_are_functions_of_both_names(
    autojump_clock: MockClock,
) -> None:
    """And their calls come back with the group's name, and are sent back with it."""
    asked: list[CommandRequest] = []
    call = ToolCall(id="c1", name="mcp__files__read", arguments='{"path": "a"}')
    body = {
        "model": "m",
        "input": "read a",
        "tools": [GROUP, {"type": "function", "name": "read"}],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "reasoning": {"summary": "auto"},
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "client_metadata": {"x-codex": "1"},
        "prompt_cache_key": "k",
    }
    async with open_client({"a": caller(asked, call)}) as client:
        whole = (await client.post(RESPONSES, body)).json()
        stream = (await client.post(RESPONSES, {**body, "stream": True})).events()
        (item,) = whole["output"]
        back = [
            {"role": "user", "content": "read a"},
            item,
            {"type": "function_call_output", "call_id": "c1", "output": "text"},
        ]
        again = await client.post(RESPONSES, {**body, "input": back})
    assert [tool.name for tool in asked[0].tools] == [
        "mcp__files__read",
        "mcp__files__list",
        "read",
    ]
    assert asked[0].tools[0].description == "Files of the project.\nReads one."
    assert (item["namespace"], item["name"], item["arguments"]) == (
        "mcp__files",
        "read",
        '{"path": "a"}',
    )
    done = [e["item"] for e in stream if e["type"] == "response.output_item.done"]
    # Each response has ids of its own.
    assert done == [item | {"id": done[0]["id"]}]
    assert again.status == 200
    assert asked[-1].messages[1].tool_calls == (call,)


def test_names_of_groups_are_apart_and_short() -> None:
    """However long they are, and whatever else is called so."""
    from punch.gateway.openai._response_tools import FunctionGroup, FunctionTool, ToolNames

    def function(name: str) -> FunctionTool:
        return FunctionTool.model_construct(type="function", name=name)

    def group(name: str, *tools: str) -> FunctionGroup:
        functions = [function(each) for each in tools]
        return FunctionGroup.model_construct(
            type="namespace", name=name, description=None, tools=functions
        )

    long = "x" * 60
    names = ToolNames(
        [function("a__b"), group("a", "b", "c d"), group(long, long + "1", long + "2")]
    )
    found = [tool.name for tool in names.tools]
    assert len(set(found)) == len(found) == 5
    assert found[:3] == ["a__b", "a__b_2", "a__c_d"]
    assert max(map(len, found)) <= 64
    assert names.ours("b", "a") == "a__b_2"
    assert names.ours("a__b") == "a__b"


@pytest.mark.parametrize(
    ("mode", "allowed", "names", "choice"),
    [
        ("auto", [{"name": "read"}], ["read"], "auto"),
        (
            "required",
            [{"name": "read", "namespace": "mcp__files"}],
            ["mcp__files__read"],
            "required",
        ),
        ("auto", [{"name": "other"}], [], None),
    ],
)
async def test_a_response_may_call_some_of_its_tools_only(
    mode: str, allowed: list[Any], names: list[str], choice: str | None, autojump_clock: MockClock
) -> None:
    """As a chat may; and the choice is said back."""
    asked: list[CommandRequest] = []
    wanted = {
        "type": "allowed_tools",
        "mode": mode,
        "tools": [{"type": "function"} | each for each in allowed],
    }
    body = {"model": "m", "input": "x", "tools": [GROUP, {"type": "function", "name": "read"}]}
    calls = [ToolCall(id="c1", name=name, arguments="{}") for name in names]
    async with open_client({"a": caller(asked, *calls)}) as client:
        reply = await client.post(RESPONSES, body | {"tool_choice": wanted})
    assert reply.status == 200, reply.body
    assert ([tool.name for tool in asked[0].tools], asked[0].tool_choice) == (names, choice)
    assert reply.json()["tool_choice"] == wanted


@pytest.mark.parametrize(
    ("said", "meant"),
    [("required", "required"), ("any", "required"), ("auto", "auto"), ("none", "none")],
)
async def test_a_response_may_say_its_choice_as_an_object(
    said: str, meant: str, autojump_clock: MockClock
) -> None:
    """As LiteLLM's proxy makes it of what Anthropic's clients send."""
    asked: list[CommandRequest] = []
    call = ToolCall(id="c1", name="f", arguments="{}")
    body = {"model": "m", "input": "x", "tools": [{"type": "function", "name": "f"}]}
    async with open_client(
        {"a": caller(asked, *([call] if meant == "required" else ()))}
    ) as client:
        reply = await client.post(RESPONSES, body | {"tool_choice": {"type": said}})
    assert reply.status == 200, reply.body
    assert asked[0].tool_choice == meant
    assert reply.json()["tool_choice"] == meant


@pytest.mark.parametrize(
    ("fields", "places"),
    [
        (
            {"tools": [{"type": "web_search"}, {"type": "mcp"}, GROUP, {"type": "file_search"}]},
            ["tools[0].type", "tools[1].type", "tools[3].type"],
        ),
        (
            {"input": [{"type": "web_search_call"}, {"type": "mcp_call", "id": "x"}]},
            ["input[0].type", "input[1].type"],
        ),
        (
            {
                "input": [
                    {"role": "user", "content": [{"type": "input_file"}, {"type": "input_audio"}]}
                ]
            },
            ["input[0].content[0].type", "input[0].content[1].type"],
        ),
    ],
    ids=["tools", "items", "parts"],
)
async def test_all_that_nobody_runs_or_reads_here_is_said_in_one_error(
    fields: dict[str, Any], places: list[str], autojump_clock: MockClock
) -> None:
    """Not one after another, each time that a program is set up anew."""
    async with open_client({"a": caller([])}) as client:
        reply = await client.post(RESPONSES, {"model": "m", "input": "x", "moderation": 1} | fields)
    assert reply.status == 400
    told = [line.split()[0] for line in reply.error["message"].splitlines()]
    assert told == ["moderation", *places]


async def test_a_tool_of_free_text_is_a_function_of_one_text(autojump_clock: MockClock) -> None:
    """Whose call is spelled as it was asked for."""
    asked: list[CommandRequest] = []
    call = ToolCall(id="c1", name="patch", arguments=json.dumps({"input": "*** Begin"}))
    body = {"model": "m", "input": "patch it", "tools": [FREE]}
    async with open_client({"a": caller(asked, call)}) as client:
        (item,) = (await client.post(RESPONSES, body)).json()["output"]
        stream = (await client.post(RESPONSES, {**body, "stream": True})).events()
        output = {"type": "custom_tool_call_output", "call_id": "c1", "output": "ok"}
        back = [{"role": "user", "content": "patch it"}, item, output]
        again = await client.post(RESPONSES, {**body, "input": back})
    assert (item["type"], item["input"]) == ("custom_tool_call", "*** Begin")
    deltas = [e["delta"] for e in stream if e["type"] == "response.custom_tool_call_input.delta"]
    assert deltas == ["*** Begin"]
    assert json.loads(asked[0].tools[0].parameters)["required"] == ["input"]
    assert again.status == 200
    assert asked[-1].messages[1].tool_calls == (call,)


@pytest.mark.parametrize(
    ("tools", "param", "words"),
    [
        ([{"type": "web_search", "external_web_access": True}], "tools[0].type", "web_search"),
        ([GROUP, {"type": "image_generation"}], "tools[1].type", "turn them off"),
        (
            [{**FREE, "format": {"type": "grammar", "syntax": "lark", "definition": "x"}}],
            "tools[0].format.type",
            "describe the tool as a function",
        ),
    ],
)
async def test_tools_that_nobody_runs_here_are_refused_with_how_to_turn_them_off(
    tools: list[Any], param: str, words: str, autojump_clock: MockClock
) -> None:
    """By name."""
    async with open_client({"a": caller([])}) as client:
        reply = await client.post(RESPONSES, {"model": "m", "input": "x", "tools": tools})
    assert (reply.status, reply.error["param"]) == (400, param)
    assert words in reply.error["message"]
    assert len(reply.error["message"].splitlines()) == 1
