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
    [
        {},
        {"include": ["message.output_text.logprobs"], "top_logprobs": 2},
        {"tools": [{"type": "function", **TOOL}], "tool_choice": "required"},
    ],
    ids=["text", "logprobs", "call"],
)
async def test_a_responses_items_come_back(
    fields: dict[str, Any], stream: bool, autojump_clock: MockClock
) -> None:
    """Each as the official client's types write it."""
    asked: list[CommandRequest] = []
    async with open_client({"a": backend(asked)}) as client:
        reply = await client.post("/v1/responses", {"input": "hi", "stream": stream} | fields)
        body = reply.events()[-1]["response"] if stream else reply.json()
        if "include" in fields:
            assert asked[0].logprobs == 2
            (likely,) = body["output"][0]["content"][0]["logprobs"]
            assert (likely["token"], likely["logprob"]) == ("yes", -0.5)
        read = [item.model_dump() for item in Response.model_validate(body).output]
        for part in (part for item in read for part in item.get("content") or ()):
            part["parsed"] = {"of": "a form"}
        for items in (body["output"], read):
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


# ---- as libraries keep them ----

# The shapes are those that the libraries write, at these versions, of the answer `yes` after the
# thought `hm`, or of a call of `look`.
CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
OLLAMA, ANTHROPIC = "/api/chat", "/v1/messages"

FUNCTION = {"name": "look", "arguments": "{}"}
CALL = {"id": "c1", "type": "function", "function": FUNCTION}
READ = {"function": {"name": "look", "arguments": {}}}
ITEM = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"}
NONE = {"function_call": None, "provider_specific_fields": None}
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "s"}
USE = {"type": "tool_use", "id": "c1", "name": "look", "input": {}}
STREAMED = {"index": 1, "partial_json": "{}", "text": None}
REDACTED = {"type": "redacted_thinking", "data": "x"}
TEXT = {"type": "text", "text": "yes"}
PART = {"type": "output_text", "text": "yes", "annotations": []}
MESSAGE = {"type": "message", "role": "assistant", "id": "msg_1"}
REASONING = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [],
    "content": [{"type": "reasoning_text", "text": "hm"}],
}


def said(**fields: Any) -> list[dict[str, Any]]:
    """A message of the assistant's, as the only thing that is sent back."""
    return [{"role": "assistant", **fields}]


# Library and version, where it is sent, what is sent.
SHAPES: list[tuple[str, str, list[dict[str, Any]]]] = [
    ("litellm 1.89.7", CHAT, said(content="yes", tool_calls=None, reasoning_content="hm", **NONE)),
    (
        "litellm 1.89.7",
        CHAT,
        said(content="yes", thinking_blocks=[THOUGHT], reasoning_content="hm"),
    ),
    ("litellm 1.89.7", CHAT, said(content=None, tool_calls=[CALL], **NONE)),
    ("langchain-openai 1.1.16", CHAT, said(content="yes")),
    ("langchain-openai 1.1.16", CHAT, said(content=[TEXT], name="model")),
    ("langchain-openai 1.1.16", CHAT, said(content=None, tool_calls=[CALL])),
    ("langchain-openai 1.1.16", RESPONSES, [REASONING, MESSAGE | {"content": [PART]}]),
    (
        "langchain-openai 1.1.16",
        RESPONSES,
        [MESSAGE | {"content": [{"type": "refusal", "refusal": "yes"}]}],
    ),
    ("langchain-openai 1.1.16", RESPONSES, [ITEM]),
    ("langchain-ollama 1.1.0", OLLAMA, said(content="yes", images=[], tool_calls=None)),
    ("langchain-ollama 1.1.0", OLLAMA, said(content="", images=[], tool_calls=[CALL | READ])),
    ("@ai-sdk/openai-compatible 3.0.92", CHAT, said(content="yes", reasoning_content="hm")),
    ("@ai-sdk/openai-compatible 3.0.92", CHAT, said(content=None, tool_calls=[CALL])),
    ("@ai-sdk/openai 4.0.118", RESPONSES, said(content="yes", phase="final_answer")),
    ("@ai-sdk/openai 4.0.118", RESPONSES, [ITEM | {"id": "fc_c1"}]),
    ("llama-index-llms-openai 0.8.3", CHAT, said(content="yes")),
    ("llama-index-llms-openai 0.8.3", CHAT, said(content=None, tool_calls=[CALL])),
    ("llama-index-llms-openai 0.8.3", RESPONSES, said(content="yes")),
    ("llama-index-llms-openai 0.8.3", RESPONSES, [ITEM]),
    ("llama-index-llms-ollama 0.11.0", OLLAMA, said(content="yes", thinking="hm")),
    ("llama-index-llms-ollama 0.11.0", OLLAMA, said(content="", tool_calls=[READ])),
    ("ollama 0.6.3", OLLAMA, said(content="yes", thinking="hm", tool_name=None, images=None)),
    ("anthropic 2.14.0", ANTHROPIC, said(content=[THOUGHT, TEXT | {"citations": None}])),
    ("anthropic 2.14.0", ANTHROPIC, said(content=[USE | {"caller": {"type": "direct"}}])),
    ("langchain-anthropic 1.7.10", ANTHROPIC, said(content="yes")),
    ("langchain-anthropic 1.7.10", ANTHROPIC, said(content=[THOUGHT, TEXT])),
    ("langchain-anthropic 1.7.10", ANTHROPIC, said(content=[REDACTED, TEXT])),
    ("langchain-anthropic 1.7.10", ANTHROPIC, said(content=[THOUGHT, USE])),
    # What it has gathered of a stream, as programs keep it that send its messages themselves.
    (
        "langchain-anthropic 1.7.10",
        ANTHROPIC,
        said(content=[THOUGHT | {"index": 0}, TEXT | {"index": 1, "citations": []}]),
    ),
    ("langchain-anthropic 1.7.10", ANTHROPIC, said(content=[USE | STREAMED])),
]


def returned(path: str) -> list[dict[str, Any]]:
    """What the call has returned, and what the user says then."""
    if path == RESPONSES:
        return [{"type": "function_call_output", "call_id": "c1", "output": "ok"}, USER]
    if path == ANTHROPIC:
        block = {"type": "tool_result", "tool_use_id": "c1", "content": "ok"}
        return [{"role": "user", "content": [block, TEXT]}]
    answered = {"tool_name": "look"} if path == OLLAMA else {"tool_call_id": "c1"}
    return [{"role": "tool", "content": "ok", **answered}, USER]


async def test_answers_come_back_as_libraries_keep_them(autojump_clock: MockClock) -> None:
    """Each is the answer that it was: its words, its calls, and what was thought."""
    asked: list[CommandRequest] = []
    async with open_client({"a": backend(asked)}) as client:
        for library, path, items in SHAPES:
            calls = "look" in str(items)
            history = [USER, *items, *(returned(path) if calls else [USER])]
            body: dict[str, Any] = {"model": "model", "stream": False}
            body["input" if path == RESPONSES else "messages"] = history
            if path == ANTHROPIC:
                body["max_tokens"] = 9
            reply = await client.post(path, body)
            assert reply.status == 200, (library, items, reply.body)
            _, message, *after = asked[-1].messages
            told = (message.role, message.content, [call.name for call in message.tool_calls])
            expected = ("assistant", "", ["look"]) if calls else ("assistant", "yes", [])
            assert told == expected, (library, items)
            assert message.reasoning == ("hm" if "hm" in str(items) else None), (library, items)
            assert [each.role for each in after] == (["tool", "user"] if calls else ["user"])


async def test_the_input_of_a_call_is_read_from_what_was_streamed(
    autojump_clock: MockClock,
) -> None:
    """Programs that gather a stream have the JSON, and an input that is empty."""
    asked: list[CommandRequest] = []
    async with open_client({"a": backend(asked)}) as client:
        call = USE | {"index": 0, "partial_json": '{"at": 1}'}
        history = [USER, *said(content=[call]), *returned(ANTHROPIC)]
        body = {"model": "model", "max_tokens": 9, "messages": history}
        assert (await client.post(ANTHROPIC, body)).status == 200
    assert asked[0].messages[1].tool_calls[0].arguments == '{"at": 1}'


async def test_a_reference_to_an_item_is_refused_with_the_remedy(autojump_clock: MockClock) -> None:
    """Of what was never sent from here; Vercel's kit refers to items unless it is told not to."""
    async with open_client({"a": backend([])}) as client:
        items = [USER, {"type": "item_reference", "id": "msg_1"}, USER]
        reply = await client.post(RESPONSES, {"input": items})
        assert reply.status == 400
        assert "store = false" in reply.json()["error"]["message"]
