"""What is wished of the choice: in a body, or in headers, in every dialect."""

from __future__ import annotations

from typing import Any

import pytest
from gateway_client import Client, open_client
from trio.testing import MockClock

from punch.backends import MockBackend, MockScript

SAID = [{"role": "user", "content": "x"}]
ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": SAID, "max_tokens": 1},
    "/v1/completions": {"prompt": "x", "max_tokens": 1},
    "/v1/responses": {"input": "x", "max_output_tokens": 1},
    "/v1/embeddings": {"input": "x"},
    "/v1/messages": {"model": "auto", "max_tokens": 1, "messages": SAID},
    "/api/chat": {"model": "mock", "messages": SAID, "stream": False},
    "/api/generate": {"model": "mock", "prompt": "x", "stream": False},
    "/api/embed": {"model": "mock", "input": "x"},
    "/api/embeddings": {"model": "mock", "prompt": "x"},
}


def listeners() -> dict[str, Any]:
    """Three that are alike."""
    return {name: MockBackend(MockScript()) for name in "abc"}


def ids(client: Client) -> list[str]:
    """Their identities."""
    return [str(peer.peer_id) for peer in client.router.peers]


@pytest.mark.parametrize("path", ASKED)
async def test_a_wish_may_stand_in_the_body_or_in_a_header(
    path: str, autojump_clock: MockClock
) -> None:
    """The body counts more; a list may be a text with commas."""
    async with open_client(listeners()) as client:
        first, second, third = ids(client)
        for body, headers, meant in (
            ({"punch": {"only": [second]}}, {}, {second}),
            ({"punch": {"only": second[-8:]}}, {}, {second}),
            ({"punch": {"avoid": f"{first}, {second}"}}, {}, {third}),
            ({}, {"x-punch-prefer": third}, {third}),
            ({}, {"x-punch-avoid": f"{first},{third}"}, {second}),
            ({}, {"x-punch-only": first}, {first}),
            ({"punch": {"only": [second]}}, {"x-punch-only": first}, {second}),
            ({"punch": {"prefer": None, "privacy": "any"}}, {"x-punch-only": first}, {first}),
        ):
            replies = [await client.post(path, ASKED[path] | body, **headers) for _ in range(3)]
            assert {reply.status for reply in replies} == {200}, replies[0].body
            assert {reply.headers["x-punch-peer"] for reply in replies} == meant


@pytest.mark.parametrize(
    ("body", "headers", "status", "param"),
    [
        ({"punch": {"only": ["nobody"]}}, {}, 503, None),
        ({"punch": {"privacy": "own"}}, {}, 503, None),
        ({}, {"x-punch-privacy": "own"}, 503, None),
        ({}, {"x-punch-privacy": "secret"}, 400, "punch.privacy"),
        ({"punch": {"privacy": "secret"}}, {}, 400, "punch.privacy"),
        ({"punch": {"avoid": [1]}}, {}, 400, "punch.avoid[0]"),
        ({}, {"x-punch-only": "x" * 200}, 400, "punch.only[0]"),
        ({}, {"x-punch-only": ",".join("x" * 40)}, 400, "punch.only"),
    ],
)
async def test_what_cannot_be_wished_is_refused_by_name(
    body: Any, headers: dict[str, str], status: int, param: str | None, autojump_clock: MockClock
) -> None:
    """And where nobody is left who may be asked, it says so."""
    async with open_client(listeners()) as client:
        reply = await client.post(
            "/v1/chat/completions", ASKED["/v1/chat/completions"] | body, **headers
        )
    assert reply.status == status
    assert reply.error["param"] == param
