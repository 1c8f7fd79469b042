"""A prompt that does not fit is said in the words that clients look for, in each dialect."""

from __future__ import annotations

import re
from typing import Any

import pytest
from gateway_client import open_client
from trio.testing import MockClock

from punch.backends import Emit, Generation, MockBackend, MockScript
from punch.capability import ModelOffer
from punch.exceptions import ContextTooLong
from punch.testing import ScriptedBackend
from punch.wire import CommandRequest

LONG = "word " * 50
SAID = [{"role": "user", "content": LONG}]

ASKED: dict[str, tuple[dict[str, Any], str | None]] = {
    "/v1/chat/completions": ({"messages": SAID}, "messages"),
    "/v1/completions": ({"prompt": LONG}, "prompt"),
    "/v1/responses": ({"input": LONG}, "input"),
    "/v1/embeddings": ({"input": LONG}, "input"),
    "/api/chat": ({"model": "mock", "messages": SAID}, None),
    "/api/generate": ({"model": "mock", "prompt": LONG}, None),
    "/api/embed": ({"model": "mock", "input": LONG}, None),
    "/api/embeddings": ({"model": "mock", "prompt": LONG}, None),
}

# The words that programs look for, as their sources have them.
PI = re.compile(r"maximum context length is \d+ tokens", re.IGNORECASE)
LITELLM = "this model's maximum context length is"
OLLAMA = "exceeds the context length"


@pytest.mark.parametrize("path", ASKED)
async def test_the_words_that_clients_look_for_are_there(
    path: str, autojump_clock: MockClock
) -> None:
    """With both numbers, the field that holds the text, and a code where the dialect has one."""
    body, param = ASKED[path]
    async with open_client({"a": MockBackend(MockScript(context_tokens=20))}) as client:
        reply = await client.post(path, body)
    error = reply.json()["error"]
    message = error if isinstance(error, str) else error["message"]
    assert reply.status == 400
    assert PI.search(message)
    assert LITELLM in message.lower()
    assert "is 20 tokens" in message
    assert "has 50 tokens" in message
    if param is None:
        assert OLLAMA in message
    else:
        assert error["param"] == param
        assert error["code"] == "context_length_exceeded"
        assert f"the text in {param} has" in message


async def test_anthropics_clients_look_for_other_words(autojump_clock: MockClock) -> None:
    """With both numbers, too."""
    async with open_client({"a": MockBackend(MockScript(context_tokens=20))}) as client:
        reply = await client.post(
            "/v1/messages", {"model": "mock", "max_tokens": 9, "messages": SAID}
        )
    assert reply.status == 400
    assert reply.json()["error"]["message"] == "prompt is too long: 50 tokens > 20 maximum"


async def test_a_stream_says_it_before_it_begins(autojump_clock: MockClock) -> None:
    """So that there is a status, which official clients make their error of."""
    async with open_client({"a": MockBackend(MockScript(context_tokens=20))}) as client:
        reply = await client.post("/v1/chat/completions", {"messages": SAID, "stream": True})
    assert reply.status == 400
    assert PI.search(reply.error["message"])


@pytest.mark.parametrize(
    ("offered", "counts", "words"),
    [
        (30, (40, 25), "is 25 tokens. However,"),
        # As peers of earlier versions say it: in words, with a context that they have offered.
        (30, (None, None), "maximum context length is 30 tokens"),
        (None, (None, None), "exceeds the context window"),
        # No count that a peer could not read ends its session.
        (30, (1 << 70, 1 << 70), "maximum context length is 30 tokens"),
    ],
)
async def test_what_a_peer_leaves_out_is_taken_from_its_offer(
    offered: int | None,
    counts: tuple[int | None, int | None],
    words: str,
    autojump_clock: MockClock,
) -> None:
    """Its own words are told where it has counted nothing."""

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        raise ContextTooLong.of("far too long for this server", *counts)

    offer = ModelOffer(name="m", context_tokens=offered)
    async with open_client({"a": ScriptedBackend(play, offers=(offer,))}) as client:
        reply = await client.chat()
    assert reply.status == 400
    assert words in reply.error["message"]
    assert LITELLM.removesuffix(" is") in reply.error["message"].lower()
    has_counted = counts[0] == 40
    assert ("far too long" in reply.error["message"]) is not has_counted
