"""A value that passes the gateway's door passes at the peer: both are made from one table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from gateway_client import open_client
from trio.testing import MockClock

from punch.backends import MockBackend, MockScript
from punch.wire import LIMITS, SAMPLING_NUMBERS

# What an interface calls a field of a request otherwise.
OURS = {
    "max_completion_tokens": "max_tokens",
    "max_output_tokens": "max_tokens",
    "num_predict": "max_tokens",
    "top_logprobs": "logprobs",
    "input": "inputs",
    "ResponsesBody.input": "messages",
}


async def schemas() -> dict[str, Any]:
    """The models of bodies in /openapi.json."""
    async with open_client({"a": MockBackend(MockScript())}) as client:
        reply = await client.get("/openapi.json")
    found: dict[str, Any] = reply.json()["components"]["schemas"]
    return found


# Numbers of which -1 means something to engines, and what is the least that is taken.
LEAST = {"top_k": -1, "seed": -(1 << 63)}


def bounds(schema: Any) -> Iterator[tuple[str, float]]:
    """The limits that a field's schema says, in whichever branch."""
    for name, value in schema.items():
        if name in ("minimum", "exclusiveMinimum", "maximum", "maxItems", "maxLength"):
            yield name, value
    for branch in schema.get("anyOf", ()) or schema.get("oneOf", ()):
        yield from bounds(branch)


async def fields() -> list[tuple[str, str, dict[str, float]]]:
    """Every field of a body that is one of a request: the body, our name, what it says."""
    found = []
    for body, schema in (await schemas()).items():
        for name, field in schema.get("properties", {}).items():
            ours = OURS.get(f"{body}.{name}", OURS.get(name, name))
            said = dict(bounds(field))
            if ours in LIMITS and said:
                found.append((f"{body}.{name}", ours, said))
    return found


async def test_openapi_says_no_wider_limit_than_peers_have(autojump_clock: MockClock) -> None:
    """It would be an invitation to send what nobody answers."""
    wider = []
    for place, ours, said in await fields():
        limit = LIMITS[ours]
        least = said.get("minimum", said.get("exclusiveMinimum", limit.least))
        most = min((v for k, v in said.items() if k.startswith("max")), default=limit.most)
        if most > limit.most or least < limit.least:
            wider.append(place)
    # What stands for no limit, any seed or all tokens (-1, -2) is not sent to anybody, and nor are
    # Anthropic's tools of a server, which come beside others.
    unlimited = {"num_predict", "n_predict", "max_tokens", "max_completion_tokens"}
    unlimited |= {"max_output_tokens", *LEAST}
    allowed = {place for place in wider if place.partition(".")[2] in unlimited}
    assert set(wider) - allowed <= {"CountBody.tools", "MessagesBody.tools"}
    assert "Options.num_predict" in allowed


async def test_openapi_says_a_limit_for_every_number_that_chooses_tokens(
    autojump_clock: MockClock,
) -> None:
    """None is forgotten in any interface that has it."""
    said = {(place.partition(".")[0], ours) for place, ours, _ in await fields()}
    for name in SAMPLING_NUMBERS:
        assert ("ChatBody", name) in said
        assert ("CompletionBody", name) in said
        assert ("Options", name) in said
    for name in ("temperature", "top_p", "max_tokens"):
        assert ("ResponsesBody", name) in said


@pytest.mark.parametrize("name", SAMPLING_NUMBERS)
async def test_the_ends_of_each_limit_are_answered_and_beyond_is_refused(
    name: Any, autojump_clock: MockClock
) -> None:
    """With the field's name, before anybody is asked."""
    limit = LIMITS[name]
    most = int(limit.most) if name != "seed" else (1 << 63) - 1
    least = int(limit.least) if name not in LEAST else LEAST[name]
    question = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
    async with open_client({"a": MockBackend(MockScript())}) as client:
        for value, status in ((least, 200), (most, 200), (least - 1, 400), (most + 1, 400)):
            if (name, value) == ("max_tokens", most):
                continue
            reply = await client.post("/v1/chat/completions", question | {name: value})
            assert reply.status == status, reply.body
            if status == 400:
                assert reply.error["param"] == name
