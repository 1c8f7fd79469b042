"""Parts, items, blocks and tools whose type says nothing: they are refused, and never left out."""

from __future__ import annotations

from typing import Any

import pytest
from gateway_client import open_client
from trio.testing import MockClock

from punch.backends import MockBackend, MockScript

CHAT, RESPONSES, ANTHROPIC = "/v1/chat/completions", "/v1/responses", "/v1/messages"

ASKED = {"role": "user", "content": "hi"}


def message(part: Any) -> dict[str, Any]:
    """A message with a text and *part*."""
    return {"role": "user", "content": [{"type": "text", "text": "hi"}, part]}


BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat part": (CHAT, {"messages": [message({"type": "", "file": "x"})]}),
    "chat tool": (CHAT, {"messages": [ASKED], "tools": [{"type": "", "name": "x"}]}),
    "item": (RESPONSES, {"input": [ASKED, {"type": "", "query": "x"}]}),
    "item of an odd type": (RESPONSES, {"input": [ASKED, {"type": [], "query": "x"}]}),
    "item's part": (RESPONSES, {"input": [message({"type": "", "file": "x"})]}),
    "item's part of an odd type": (RESPONSES, {"input": [message({"type": {}, "file": "x"})]}),
    "item's tool": (RESPONSES, {"input": "hi", "tools": [{"type": "", "path": "x"}]}),
    "block": (ANTHROPIC, {"messages": [message({"type": "", "file": "x"})]}),
    "block without a type": (ANTHROPIC, {"messages": [message({"file": "x"})]}),
    "source": (ANTHROPIC, {"messages": [message({"type": "image", "source": {"type": ""}})]}),
    "source without a type": (
        ANTHROPIC,
        {"messages": [message({"type": "image", "source": {"id": "x"}})]},
    ),
    "tool": (ANTHROPIC, {"messages": [ASKED], "tools": [{"type": "", "path": "x"}]}),
    "edit": (
        ANTHROPIC,
        {"messages": [ASKED], "context_management": {"edits": [{"type": "", "keep": 1}]}},
    ),
}


@pytest.mark.parametrize("what", BODIES)
async def test_what_has_an_empty_type_is_refused(what: str, autojump_clock: MockClock) -> None:
    """It might say anything; the request is answered as if it were not there by nobody."""
    path, body = BODIES[what]
    asked = {"model": "mock", "max_tokens": 4, **body}
    if path == RESPONSES:
        del asked["max_tokens"]
    async with open_client({"a": MockBackend(MockScript())}) as client:
        reply = await client.post(path, asked)
    assert reply.status == 400, reply.body
    assert b"type" in reply.body or b"name" in reply.body
