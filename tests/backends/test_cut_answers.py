"""An answer over HTTP is delivered once, wherever its connection breaks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from punch.backends.openai._client import HttpClient, open_http_client
from punch.exceptions import BackendCrashed, GenerationFailed, PunchError
from punch.testing import CUT, RESET, Part, Upstream, answer_event, chunk, head
from punch.wire import ChatMessage, CommandRequest

REQUEST = CommandRequest(request_id="r", messages=(ChatMessage(role="user", content="Hi"),))
VECTORS = CommandRequest(request_id="r", command="embed", inputs=("a",))

CHUNKED = head(Content_Type="text/event-stream", Transfer_Encoding="chunked")
EVENTS = (answer_event("one "), answer_event("two "), answer_event("three", "stop"))
END = b"data: [DONE]\n\n"
WHOLE = CHUNKED + b"".join(map(chunk, (*EVENTS, END, b"")))


@asynccontextmanager
async def client_of(upstream: Upstream) -> AsyncIterator[HttpClient]:
    """A client of *upstream*."""
    async with open_http_client(url="http://up", slots=1, transport=upstream.transport()) as client:
        yield client


async def ask(client: HttpClient) -> tuple[str, PunchError | None]:
    """What was emitted of one answer, and the error that ended it."""
    emitted: list[str] = []

    async def emit(text: str, tokens: int) -> None:
        emitted.append(text)

    try:
        await client.generate(REQUEST, emit, model="m", dialect="other")
    except PunchError as error:
        return "".join(emitted), error
    return "".join(emitted), None


@pytest.mark.parametrize("end", [CUT, RESET])
@pytest.mark.parametrize(
    "broken",
    [
        (CHUNKED, chunk(EVENTS[0]), chunk(EVENTS[1])),
        (CHUNKED, chunk(EVENTS[0]) + chunk(EVENTS[1])[:-2]),
        (CHUNKED, chunk(EVENTS[0]), b"4"),
        (CHUNKED, chunk(EVENTS[0]), chunk(EVENTS[1])[:20]),
        (CHUNKED, chunk(EVENTS[0][:-1])),
        (CHUNKED,),
        (head(Content_Length=4096), EVENTS[0], EVENTS[1]),
        (head(Content_Length=4096),),
        (CHUNKED[:20],),
    ],
)
async def test_a_started_answer_is_never_asked_for_again(
    broken: tuple[bytes, ...], end: Part
) -> None:
    """Also if the server would give all of it the second time."""
    upstream = Upstream((*broken, end), (WHOLE,))
    async with client_of(upstream) as client:
        text, error = await ask(client)
        assert isinstance(error, BackendCrashed)
        assert "one two ".startswith(text)
        assert len(upstream.requests) == 1
        assert await ask(client) == ("one two three", None)


async def test_nothing_is_asked_again_on_a_connection_of_its_own() -> None:
    """The server has read the request; maybe that is what ended it."""
    for end in (CUT, RESET):
        upstream = Upstream((end,), (WHOLE,))
        async with client_of(upstream) as client:
            text, error = await ask(client)
        assert (text, type(error), len(upstream.requests)) == ("", BackendCrashed, 1)


@pytest.mark.parametrize("end", [CUT, RESET])
async def test_a_request_lost_on_a_stale_connection_is_sent_once_more(end: Part) -> None:
    """The server closed it as the request was on its way."""
    upstream = Upstream((WHOLE,), (end,), (WHOLE,))
    async with client_of(upstream) as client:
        assert await ask(client) == ("one two three", None)
        assert await ask(client) == ("one two three", None)
    assert (len(upstream.requests), upstream.connections) == (3, 2)


async def test_a_stale_connection_is_no_reason_for_a_third_try() -> None:
    """The second one has a connection of its own."""
    upstream = Upstream((WHOLE,), (CUT,), (CUT,), (WHOLE,))
    async with client_of(upstream) as client:
        await ask(client)
        text, error = await ask(client)
    assert (text, type(error), len(upstream.requests)) == ("", BackendCrashed, 3)


async def test_a_cut_on_a_kept_connection_after_the_first_text_is_a_cut() -> None:
    """That the connection was an old one explains nothing once an answer has begun."""
    upstream = Upstream((WHOLE,), (CHUNKED, chunk(EVENTS[0]), CUT), (WHOLE,))
    async with client_of(upstream) as client:
        await ask(client)
        text, error = await ask(client)
    assert (text, type(error), len(upstream.requests)) == ("one ", BackendCrashed, 2)


async def test_vectors_follow_the_same_rule() -> None:
    """A stale connection is replaced, a body that was cut is not asked for again."""
    body = b'{"data": [{"index": 0, "embedding": [1.0]}]}'
    good = head(Content_Length=len(body)) + body
    short = head(Content_Length=len(body) + 1) + body

    upstream = Upstream((good,), (RESET,), (good,))
    async with client_of(upstream) as client:
        for _ in range(2):
            await client.generate(VECTORS, no_emit, model="m", dialect="other")
    assert len(upstream.requests) == 3
    upstream = Upstream((short, CUT), (good,))
    async with client_of(upstream) as client:
        with pytest.raises(BackendCrashed):
            await client.generate(VECTORS, no_emit, model="m", dialect="other")
    assert len(upstream.requests) == 1


async def test_a_silence_in_the_middle_is_no_reason_to_ask_again(autojump_clock: object) -> None:
    """It fails the answer, after the client's patience."""
    upstream = Upstream((CHUNKED, chunk(EVENTS[0]), 10_000.0), (WHOLE,))
    async with client_of(upstream) as client:
        text, error = await ask(client)
    assert (text, type(error), len(upstream.requests)) == ("one ", GenerationFailed, 1)


async def no_emit(text: str, tokens: int) -> None:
    """Take a part of an answer and drop it."""
    await trio.lowlevel.checkpoint()


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, len(WHOLE) - 1), end=st.sampled_from([CUT, RESET]), kept=st.booleans())
def test_no_cut_anywhere_delivers_anything_twice(at: int, end: Part, kept: bool) -> None:
    """Whatever the byte, and whatever the age of the connection."""

    async def main() -> None:
        script = [(WHOLE[:at], end), (WHOLE,)] if at else [(end,), (WHOLE,)]
        upstream = Upstream(*([(WHOLE,)] if kept else []), *script)
        async with client_of(upstream) as client:
            if kept:
                await ask(client)
            text, error = await ask(client)
            assert "one two three".startswith(text)
            assert error is not None or text == "one two three"

    run: Callable[..., None] = trio.run
    run(main)
