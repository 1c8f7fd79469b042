"""What a client of the gateway gets when a server behind a peer answers in an odd way."""

from __future__ import annotations

import json
from typing import Any

import pytest
from gateway_client import open_client
from trio.testing import MockClock

from punch.backends import Emit, Generation
from punch.backends.openai._client import open_http_client
from punch.capability import ModelOffer
from punch.testing import (
    CUT,
    EMPTY_ANSWERS,
    ODD_FAILURES,
    ODD_FORMS,
    WORDS,
    AnswerForm,
    ScriptedBackend,
    Upstream,
    response,
)
from punch.wire import CommandRequest

GOOD = response(AnswerForm().body(["one ", "two"]))
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


def asks(upstream: Upstream) -> ScriptedBackend:
    """A backend that asks *upstream* over HTTP."""

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        transport = upstream.transport()
        async with open_http_client(url="http://up", slots=1, transport=transport) as client:
            return await client.generate(request, emit, model="m", dialect="other")

    offer = ModelOffer(name="m", features=frozenset({"chat", "tools"}))
    return ScriptedBackend(play, offers=(offer,), simulated=False)


def streamed(*choices: Any, **more: Any) -> bytes:
    """A response of one event for each of *choices*, and ``[DONE]``."""
    values = [json.dumps({"choices": [choice], **more}) for choice in choices]
    return response(AnswerForm().spell([*values, "[DONE]"]))


# All of them are tried against the backend itself.
FAILURES = (
    "an event named error",
    "a field named error, in words",
    "an object of the kind error",
    "a page",
    "a message as one value",
)


@pytest.mark.parametrize("name", [*FAILURES, "nothing", "only [DONE]"])
@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_no_answer_is_asked_of_the_next_peer(
    name: str, stream: bool, autojump_clock: MockClock
) -> None:
    """The client hears nothing of it."""
    body = ODD_FAILURES.get(name) or EMPTY_ANSWERS[name]
    upstream = Upstream([response(body)], [GOOD])
    async with open_client({"a": asks(upstream), "b": asks(upstream)}) as client:
        reply = await client.chat(stream=stream)
    assert reply.status == 200, reply.body
    text = reply.text() if stream else reply.json()["choices"][0]["message"]["content"]
    assert text == "one two"
    assert len(upstream.requests) == 2


@pytest.mark.parametrize("name", FAILURES)
async def test_where_there_is_no_next_peer_the_servers_words_are_told(
    name: str, autojump_clock: MockClock
) -> None:
    """As an error, in the body of an error."""
    upstream = Upstream([response(ODD_FAILURES[name])])
    async with open_client({"a": asks(upstream)}) as client:
        reply = await client.chat()
    assert reply.status is not None
    assert reply.status >= 500
    assert WORDS in reply.error["message"]


@pytest.mark.parametrize("name", ["no reason, but [DONE]", "an empty reason, and [DONE]"])
async def test_an_answer_that_ends_with_done_alone_is_whole(
    name: str, autojump_clock: MockClock
) -> None:
    """Its stream ends as any."""
    data = response(ODD_FORMS[name].body(["one ", "two"]))
    async with open_client({"a": asks(Upstream([data]))}) as client:
        reply = await client.chat(stream=True)
    assert reply.text() == "one two"
    assert reply.events()[-1] == "[DONE]"
    assert reply.events()[-2]["choices"][0]["finish_reason"] == "stop"


async def test_an_answer_that_is_cut_is_told_once_and_as_cut(autojump_clock: MockClock) -> None:
    """Although the server would give all of it the second time."""
    cut = GOOD.partition(b'"two"')[0]
    upstream = Upstream([cut, CUT], [GOOD])
    async with open_client({"a": asks(upstream)}) as client:
        reply = await client.chat(stream=True)
    assert reply.text() == "one "
    assert "error" in reply.events()[-1]
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "delta",
    [
        {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}]},
        {"content": "", "refusal": None},
    ],
)
async def test_an_answer_without_text_says_who_delivered_it(
    delta: Any, stream: bool, autojump_clock: MockClock
) -> None:
    """A call alone, or an end at once."""
    upstream = Upstream(
        [streamed({"delta": delta, "finish_reason": "stop"}, usage={"completion_tokens": 7})]
    )
    async with open_client({"a": asks(upstream)}) as client:
        reply = await client.chat(tools=[TOOL], stream=stream, stop=["longer stop"])
    last = reply.events()[-2] if stream else reply.json()
    assert len(last["punch"]["segments"]) == 1
    assert last["punch"]["segments"][0]["tokens"] == 7
    if not stream:
        assert reply.headers["x-punch-segments"] == "1"


@pytest.mark.parametrize(
    ("fields", "reason", "made"),
    [
        ({"stop": ["a long stop"]}, "stop", 4),
        ({"max_tokens": 3}, "length", 3),
        ({}, "length", 2),
    ],
)
async def test_tokens_that_have_no_text_are_counted(
    fields: Any, reason: str, made: int, autojump_clock: MockClock
) -> None:
    """A stop sequence hit at once, a limit before the first text, half of a character."""
    usage = {"prompt_tokens": 3, "completion_tokens": made}
    data = streamed({"delta": {}, "finish_reason": reason}, usage=usage)
    async with open_client({"a": asks(Upstream([data]))}) as client:
        reply = await client.chat(**fields)
        assert reply.json()["usage"]["completion_tokens"] == made
        assert client.seen.last.cost.answer == made


CUT_CALL = streamed(
    {
        "delta": {
            "tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": '{"a'}}]
        }
    },
    {"delta": {}, "finish_reason": "length"},
)


async def test_a_call_that_the_limit_cut_off_is_an_unfinished_call(
    autojump_clock: MockClock,
) -> None:
    """In each dialect, whole and in a stream; also where a call was demanded."""
    async with open_client({"a": asks(Upstream([CUT_CALL]))}) as client:
        whole = await client.chat(tools=[TOOL], tool_choice="required", max_tokens=2)
        parts = await client.chat(tools=[TOOL], max_tokens=2, stream=True)
        body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "tools": [TOOL]}
        ollama = await client.post("/api/chat", body | {"stream": False})
    (choice,) = whole.json()["choices"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("length", None)
    assert choice["message"]["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a'}
    deltas = [event["choices"][0] for event in parts.events()[:-1]]
    assert deltas[-1]["finish_reason"] == "length"
    assert deltas[-2]["delta"]["tool_calls"][0]["function"]["arguments"] == '{"a'
    assert parts.text() == ""
    found = ollama.json()
    assert (found["done_reason"], found["message"]["content"]) == ("length", "")
    (call,) = found["message"]["tool_calls"]
    assert call["function"] == {"name": "f", "arguments": {"arguments": '{"a'}}
