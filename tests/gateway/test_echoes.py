"""What was sent can be sent back, as the official client's own types write it."""

from __future__ import annotations

from typing import Any

import pytest
from gateway_client import open_client
from openai.types.chat import ChatCompletion
from openai.types.responses import Response
from trio.testing import MockClock

from punch.backends import Emit, Generation
from punch.capability import ModelOffer
from punch.testing import ScriptedBackend
from punch.wire import CommandRequest, Completion, Timings, TokenLogprob, ToolCall, Usage

USER = {"role": "user", "content": "hi"}
TOOL = {"name": "look", "parameters": {"type": "object"}}
FEATURES = frozenset({"chat", "tools", "logprobs", "reasoning"})


def backend(asked: list[CommandRequest]) -> ScriptedBackend:
    """Calls a tool where one is required, and says `yes` after a thought otherwise."""

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        asked.append(request)
        if request.tool_choice == "required":
            call = ToolCall(id="c1", name="look", arguments="{}")
            said: dict[str, Any] = {"text": "", "tool_calls": (call,)}
        else:
            await emit("yes", 1)
            said = {"text": "yes"}
            if request.logprobs is not None:
                said["logprobs"] = (TokenLogprob(token="yes", logprob=-0.5),)
        usage = Usage(prompt_tokens=3, completion_tokens=1)
        return Generation(completion=Completion(**said), usage=usage, timings=Timings())

    return ScriptedBackend(
        play, offers=(ModelOffer(name="model", digest="ab" * 32, features=FEATURES),)
    )


def gathered(events: list[Any]) -> dict[str, Any]:
    """A message as people gather it from deltas: whatever a delta has is kept."""
    message: dict[str, Any] = {}
    for event in events:
        for choice in event["choices"] if event != "[DONE]" else ():
            for name, value in choice["delta"].items():
                if isinstance(value, str) and name != "role":
                    message[name] = message.get(name, "") + value
                else:
                    message[name] = value
    return message


CALLED = {"tools": [{"type": "function", "function": TOOL}], "tool_choice": "required"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fields", [{}, {"logprobs": True, "top_logprobs": 1}, CALLED], ids=str)
async def test_a_chats_answer_comes_back(
    fields: dict[str, Any], stream: bool, autojump_clock: MockClock
) -> None:
    """Whole as `model_dump` and `to_dict` write it, and gathered from a stream."""
    asked: list[CommandRequest] = []
    async with open_client({"a": backend(asked)}) as client:
        reply = await client.chat(stream=stream, **fields)
        if stream:
            echoes = [gathered(reply.events())]
        else:
            answer = ChatCompletion.model_validate(reply.json()).choices[0]
            message = answer.message
            echoes = [message.model_dump(), message.to_dict()]
            echoes.append(message.model_dump() | {"parsed": None, "provider_specific_fields": {}})
        for echo in echoes:
            calls = echo.get("tool_calls") or ()
            results = [{"role": "tool", "tool_call_id": c["id"], "content": "ok"} for c in calls]
            history = [USER, echo, *results, USER]
            again = await client.post("/v1/chat/completions", {"messages": history})
            assert again.status == 200, again.body
            said = asked[-1].messages[1]
            assert (said.content, len(said.tool_calls)) == ("" if calls else "yes", len(calls))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "fields",
    [{}, {"tools": [{"type": "function", **TOOL}], "tool_choice": "required"}],
    ids=["text", "call"],
)
async def test_a_responses_items_come_back(
    fields: dict[str, Any], stream: bool, autojump_clock: MockClock
) -> None:
    """Each as the official client's types write it."""
    asked: list[CommandRequest] = []
    async with open_client({"a": backend(asked)}) as client:
        reply = await client.post("/v1/responses", {"input": "hi", "stream": stream} | fields)
        body = reply.events()[-1]["response"] if stream else reply.json()
        response = Response.construct(**body)
        for items in (body["output"], [item.model_dump() for item in response.output]):
            outputs = [
                {"type": "function_call_output", "call_id": item["call_id"], "output": "ok"}
                for item in items
                if item["type"] == "function_call"
            ]
            again = await client.post("/v1/responses", {"input": [USER, *items, *outputs, USER]})
            assert again.status == 200, again.body
            said = asked[-1].messages[1]
            assert said.content == ("" if outputs else "yes")
            assert len(said.tool_calls) == len(outputs)
