"""Requests that nobody could answer are refused before anybody is asked."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import digests, maybe, names, samplings

from punch.exceptions import InvalidRequest
from punch.wire import (
    MAX_FRAME,
    ChatMessage,
    CommandRequest,
    Request,
    Sampling,
    check_request,
    decode,
    encode,
)
from punch.wire._request import MAX_TEXT_BYTES as MOST_TEXT

HI = (ChatMessage(role="user", content="hi"),)
GOOD = CommandRequest(request_id="r1", messages=HI)


def request(**changes: Any) -> CommandRequest:
    """A good request, changed."""
    return attrs.evolve(GOOD, **changes)


def sampled(**changes: Any) -> CommandRequest:
    """A good request with this sampling."""
    return request(sampling=Sampling(**changes))


def refusal(wrong: CommandRequest) -> str:
    """What `check_request` says against a request."""
    with pytest.raises(InvalidRequest) as caught:
        check_request(wrong)
    return str(caught.value)


@pytest.mark.parametrize(
    "good",
    [
        GOOD,
        request(request_id="r" * 128),
        request(model="m" * 256, model_digest="a" * 64),
        request(command="complete", prompt="x", messages=()),
        request(command="embed", inputs=("x", ""), messages=()),
        request(command="capabilities", messages=()),
        request(command="ping", messages=()),
        request(timeout=0.001),
        request(timeout=1e9),
        request(priority=-100),
        request(priority=100),
        request(messages=(ChatMessage(role="assistant", content=""),)),
        request(messages=(ChatMessage(role="user", content="x" * MOST_TEXT),)),
        sampled(max_tokens=1, temperature=0, top_p=0, top_k=0, min_p=0, repeat_penalty=0, seed=0),
        sampled(
            max_tokens=1 << 40,
            temperature=100,
            top_p=1,
            top_k=1 << 31,
            min_p=1,
            repeat_penalty=100,
            seed=(1 << 64) - 1,
        ),
        sampled(stop=("x" * 1024,) * 16),
    ],
    ids=lambda request: request.request_id[:4] + " " + request.command,
)
def test_what_a_peer_can_answer_passes(good: CommandRequest) -> None:
    """The limits themselves are allowed, and whoever passes gets through to the peer."""
    check_request(good)
    assert decode(encode(Request(request=good))[4:]) == Request(request=good)


IDENTIFIER = "it must be 1 to 128 printable ASCII characters without spaces"


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (request(request_id=""), f"request_id is ''; {IDENTIFIER}"),
        (request(request_id="a b"), f"request_id is 'a b'; {IDENTIFIER}"),
        (request(request_id="a\n"), f"request_id is 'a\\n'; {IDENTIFIER}"),
        (request(request_id="ä"), f"request_id is 'ä'; {IDENTIFIER}"),
        (request(request_id="r" * 129), f"request_id is '{'r' * 129}'; {IDENTIFIER}"),
        (request(messages=()), "messages is empty; chat needs at least one message"),
        (request(command="complete"), "prompt is empty; complete needs text to go on from"),
        (
            request(command="complete", prompt=""),
            "prompt is empty; complete needs text to go on from",
        ),
        (request(command="embed"), "inputs is empty; embed needs at least one text"),
        (request(model=""), "model has 0 characters; 1 to 256 are allowed"),
        (request(model="m" * 257), "model has 257 characters; 1 to 256 are allowed"),
        (request(timeout=0.0), "timeout is 0.0 s; it must be above 0"),
        (request(timeout=-1.0), "timeout is -1.0 s; it must be above 0"),
        (request(timeout=math.nan), "timeout is nan s; it must be above 0"),
        (request(priority=101), "priority is 101; it must be from -100 to 100"),
        (request(priority=-101), "priority is -101; it must be from -100 to 100"),
        (
            request(messages=(*HI, ChatMessage(role="tool", content="x"))),
            "messages[1].role is 'tool'; it must be one of system, user, assistant",
        ),
        (
            request(messages=(*HI, ChatMessage(role="user", content="ab\ud800"))),
            "messages[1].content holds a lone surrogate at character 2; "
            "decode the text with errors='replace' before sending it",
        ),
        (
            request(prompt="\udfff"),
            "prompt holds a lone surrogate at character 0; "
            "decode the text with errors='replace' before sending it",
        ),
        (
            request(inputs=("a", "\udfff")),
            "inputs[1] holds a lone surrogate at character 0; "
            "decode the text with errors='replace' before sending it",
        ),
        (
            request(continuation="\udfff"),
            "continuation holds a lone surrogate at character 0; "
            "decode the text with errors='replace' before sending it",
        ),
        (
            request(prompt="ü" * (MOST_TEXT // 2)),
            f"the text has {MOST_TEXT + 2} bytes; at most {MOST_TEXT} fit one request: shorten it",
        ),
        (sampled(max_tokens=0), "max_tokens is 0; it must be from 1 to 1099511627776"),
        (sampled(temperature=-0.1), "temperature is -0.1; it must be from 0 to 100"),
        (sampled(temperature=math.nan), "temperature is nan; it must be from 0 to 100"),
        (sampled(top_p=1.1), "top_p is 1.1; it must be from 0 to 1"),
        (sampled(top_k=-1), "top_k is -1; it must be from 0 to 2147483648"),
        (sampled(min_p=math.inf), "min_p is inf; it must be from 0 to 1"),
        (sampled(repeat_penalty=101), "repeat_penalty is 101; it must be from 0 to 100"),
        (sampled(seed=-1), "seed is -1; it must be from 0 to 18446744073709551615"),
        (sampled(stop=("x",) * 17), "stop has 17 entries; at most 16 are allowed"),
        (
            sampled(stop=("x", "")),
            "stop has an entry of 0 characters; 1 to 1024 are allowed",
        ),
        (
            sampled(stop=("x" * 1025,)),
            "stop has an entry of 1025 characters; 1 to 1024 are allowed",
        ),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_the_refusal_names_the_value_and_the_rule(wrong: CommandRequest, text: str) -> None:
    """Whoever sent it can mend it without reading this code."""
    assert refusal(wrong)[: len(text)] == text


def test_a_timeout_beyond_the_limit_is_told_the_limit() -> None:
    """A rule that the value keeps is no help."""
    assert refusal(request(timeout=2e9)) != "timeout is 2000000000.0 s; it must be above 0"


@pytest.mark.parametrize(
    "wrong",
    [
        request(model_digest="abc"),
        request(model_digest="A" * 64),
        request(command="sing"),
        request(messages=HI * 4097),
        request(command="embed", inputs=("x",) * 2049),
        request(model="m\ud800"),
        sampled(stop=("\ud800",)),
        sampled(max_tokens=1.5),
        sampled(seed=1.0),
        request(priority=0.5),
    ],
    ids=[
        "digest",
        "digest's case",
        "command",
        "messages",
        "inputs",
        "model's text",
        "stop's text",
        "half a token",
        "seed",
        "priority",
    ],
)
def test_what_the_peer_must_refuse_is_refused_here(wrong: CommandRequest) -> None:
    """Sent as it is, it would cost us the session with one peer after the other."""
    assert refusal(wrong)


def test_the_largest_request_that_passes_fits_one_frame() -> None:
    """Everything at its limit at once: an error of the protocol is not for the caller to see."""
    largest = CommandRequest(
        request_id="r" * 128,
        model="😀" * 256,
        model_digest="a" * 64,
        messages=(ChatMessage(role="assistant", content=""),) * 4096,
        prompt="x" * (MOST_TEXT - 1),
        inputs=("",) * 2048,
        continuation="y",
        sampling=Sampling(stop=("😀" * 1024,) * 16, seed=(1 << 64) - 1),
    )
    check_request(largest)
    assert len(encode(Request(request=largest))) <= MAX_FRAME
    assert refusal(attrs.evolve(largest, continuation="yy"))


@given(
    request=st.builds(
        CommandRequest,
        request_id=st.text(max_size=5),
        command=st.sampled_from(["chat", "complete", "embed", "capabilities", "ping"]),
        model=maybe(names),
        model_digest=maybe(digests),
        messages=st.lists(
            st.builds(
                ChatMessage, role=st.sampled_from(["user", "system", "tool"]), content=st.text()
            ),
            max_size=2,
        ).map(tuple),
        prompt=maybe(st.text(st.characters())),
        inputs=st.lists(st.text(st.characters()), max_size=2).map(tuple),
        sampling=samplings
        | st.builds(
            Sampling,
            max_tokens=st.integers(-1, 2),
            temperature=maybe(st.floats()),
            top_p=maybe(st.floats(-1, 2)),
            stop=st.lists(st.text(max_size=2), max_size=18).map(tuple),
        ),
        timeout=maybe(st.floats()),
        priority=st.integers(-200, 200),
        continuation=maybe(st.text()),
    )
)
def test_a_request_that_passes_arrives_as_it_was_asked(request: CommandRequest) -> None:
    """Either the caller is told what is wrong, or the peer can read it."""
    try:
        check_request(request)
    except InvalidRequest:
        return
    assert decode(encode(Request(request=request))[4:]) == Request(request=request)
