"""The HTTP client, over a transport that is no network."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

import httpx
import pytest
import trio

from punch.backends import open_openai
from punch.backends.openai._address import read_server
from punch.backends.openai._client import HttpClient, open_http_client
from punch.backends.openai._completions import Dialect
from punch.exceptions import (
    BackendCrashed,
    ConfigurationError,
    GenerationFailed,
    InvalidRequest,
    OfferUnavailable,
    PeerUnable,
)
from punch.wire import ChatMessage, CommandRequest

REQUEST = CommandRequest(request_id="r", messages=(ChatMessage(role="user", content="Hi"),))
Handler = Callable[[httpx.Request], Coroutine[None, None, httpx.Response]]


class Body(httpx.AsyncByteStream):
    """Parts of a response; a number is a pause in seconds, an exception is raised."""

    def __init__(self, *parts: bytes | float | Exception) -> None:
        self.parts = parts
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self.parts:
            if isinstance(part, bytes):
                yield part
            elif isinstance(part, Exception):
                raise part
            else:
                await trio.sleep(part)

    async def aclose(self) -> None:
        """Note that it was closed."""
        self.closed = True


def chunk(text: str, finish: str | None = None) -> bytes:
    """One event of a stream."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return f"data: {json.dumps({'choices': [choice]})}\n\n".encode()


@asynccontextmanager
async def client_of(handler: Handler) -> AsyncIterator[HttpClient]:
    """A client whose requests go to *handler*."""
    transport = httpx.MockTransport(handler)
    async with open_http_client(
        url="http://test", slots=2, api_key="k", key_setting="THE_KEY", transport=transport
    ) as client:
        yield client


def answers(status: int, *parts: bytes | float | Exception, **headers: str) -> Handler:
    """A server that answers every request the same."""

    async def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, stream=Body(*parts), headers=headers)

    return handler


async def ask(handler: Handler) -> tuple[str, list[tuple[str, int]]]:
    """The text of one answer, and what was emitted on the way."""
    emitted: list[tuple[str, int]] = []

    async def emit(text: str, tokens: int) -> None:
        emitted.append((text, tokens))

    async with client_of(handler) as client:
        generation = await client.generate(REQUEST, emit, model="m", dialect="other")
    return generation.completion.text, emitted


async def test_chunks_are_emitted_as_they_come() -> None:
    """One call for each, and the whole text at the end."""
    handler = answers(200, chunk("Hel"), chunk("lo", "stop"), b"data: [DONE]\n\n")
    assert await ask(handler) == ("Hello", [("Hel", 1), ("lo", 1)])


async def test_the_key_and_the_model_reach_the_server() -> None:
    """As a bearer token, and in the body."""
    seen: list[httpx.Request] = []

    async def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, stream=Body(chunk("a", "stop")))

    await ask(handler)
    assert seen[0].headers["Authorization"] == "Bearer k"
    assert json.loads(await seen[0].aread())["model"] == "m"


async def test_times_are_ours_where_the_server_gives_none(autojump_clock: object) -> None:
    """Prefill until the first chunk, decode until the last."""
    handler = answers(200, 2.0, chunk("a"), 3.0, chunk("b", "stop"))

    async def emit(text: str, tokens: int) -> None:
        pass

    async with client_of(handler) as client:
        generation = await client.generate(REQUEST, emit, model="m", dialect="other")
    assert generation.timings.prefill == pytest.approx(2.0)
    assert generation.timings.decode == pytest.approx(3.0)


async def test_a_slow_reader_slows_the_server_down(autojump_clock: object) -> None:
    """Nothing is read while the last part is not taken."""

    async def emit(text: str, tokens: int) -> None:
        await trio.sleep(5)

    async with client_of(answers(200, chunk("a"), chunk("b", "stop"))) as client:
        began = trio.current_time()
        await client.generate(REQUEST, emit, model="m", dialect="other")
        assert trio.current_time() - began == pytest.approx(10)


async def test_a_cancelled_answer_closes_its_connection(autojump_clock: object) -> None:
    """That is how a server is told to stop."""
    body = Body(chunk("a"), 1000.0)

    async def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=body)

    with trio.move_on_after(5):
        await ask(handler)
    assert body.closed


async def test_a_cut_answer_has_failed() -> None:
    """Also when the connection ends in peace."""
    with pytest.raises(GenerationFailed, match="cut off"):
        await ask(answers(200, chunk("a")))


async def test_a_broken_connection_is_a_crash() -> None:
    """In the middle of an answer it is not tried again: text was delivered."""
    broken = httpx.RemoteProtocolError("peer closed connection without sending complete message")
    calls = 0

    async def handler(request: httpx.Request) -> httpx.Response:
        nonlocal calls
        calls += 1
        return httpx.Response(200, stream=Body(chunk("a"), httpx.ReadError("reset")))

    with pytest.raises(BackendCrashed, match="reset"):
        await ask(handler)
    assert calls == 1
    with pytest.raises(BackendCrashed, match="complete message"):
        await ask(answers(200, chunk("a"), broken))


async def test_a_stale_connection_is_replaced_once() -> None:
    """The server may close an idle connection just when it is used again."""
    calls = 0

    async def handler(request: httpx.Request) -> httpx.Response:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.")
        return httpx.Response(200, stream=Body(chunk("a", "stop")))

    assert await ask(handler) == ("a", [("a", 1)])


async def test_a_server_that_keeps_disconnecting_is_gone() -> None:
    """Once is bad luck, twice is a crash."""
    gone = httpx.RemoteProtocolError("Server disconnected without sending a response.")

    async def handler(request: httpx.Request) -> httpx.Response:
        raise gone

    with pytest.raises(BackendCrashed, match="disconnected"):
        await ask(handler)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx.ConnectError("refused"), BackendCrashed),
        (httpx.ConnectTimeout("slow"), BackendCrashed),
        (httpx.ReadTimeout(""), GenerationFailed),
        (httpx.PoolTimeout(""), GenerationFailed),
    ],
)
async def test_transport_errors_are_translated(error: Exception, kind: type[Exception]) -> None:
    """Nobody past this door knows httpx."""

    async def handler(request: httpx.Request) -> httpx.Response:
        raise error

    with pytest.raises(kind):
        await ask(handler)


async def test_a_rejection_keeps_the_servers_words() -> None:
    """And the time that it asks for."""
    with pytest.raises(InvalidRequest, match="top_k must be positive"):
        body = b'{"error": {"message": "top_k must be positive", "param": "top_k"}}'
        await ask(answers(400, body))
    with pytest.raises(OfferUnavailable, match="THE_KEY"):
        await ask(answers(401, b"no"))
    with pytest.raises(GenerationFailed) as caught:
        await ask(answers(503, b"{}", **{"Retry-After": "9"}))
    assert caught.value.retry_after == 9.0


async def test_a_list_that_does_not_come_is_given_up(autojump_clock: object) -> None:
    """A probe has a limit of its own."""
    async with client_of(answers(200, 100.0)) as client:
        with pytest.raises(BackendCrashed, match="within 3 s"):
            await client.get_json("/v1/models", timeout=3)


@pytest.mark.parametrize(
    "url", ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/", " http://h:1/v1 "]
)
def test_every_spelling_of_an_address_is_the_same(url: str) -> None:
    """People copy it with and without /v1."""
    server = read_server(url, None, url_setting="S", key_setting="K")
    assert (server.url, server.authorization) == ("http://h:1", None)


@pytest.mark.parametrize("url", ["", "h:1", "ftp://h", "http://", "http://h/v1?key=x", "/v1"])
def test_what_is_no_address_is_refused_by_name(url: str) -> None:
    """The text names the setting."""
    with pytest.raises(ConfigurationError, match="PUNCH_OPENAI_URL"):
        read_server(url, None, url_setting="PUNCH_OPENAI_URL", key_setting="K")


async def test_a_bad_address_is_refused_before_anything_is_sent() -> None:
    """Opening the backend says so."""
    with pytest.raises(ConfigurationError, match="PUNCH_OPENAI_URL"):
        async with open_openai(url="nonsense"):
            pass


# ---- texts to embed ----

TOO_LONG = "input (620 tokens) is too large to process. increase the physical batch size"


def embeds(*, longest: int, status: int = 500, words: str = TOO_LONG) -> Handler:
    """A server that embeds texts of at most *longest* characters."""

    async def handler(request: httpx.Request) -> httpx.Response:
        texts = json.loads(request.content)["input"]
        if any(len(text) > longest for text in texts):
            error = {"code": status, "type": "server_error", "message": words}
            return httpx.Response(status, json={"error": error})
        rows = [{"index": n, "embedding": [1.0]} for n in range(len(texts))]
        return httpx.Response(200, json={"data": rows})

    return handler


async def embed(handler: Handler, dialect: Dialect = "llama_cpp") -> None:
    """Have a text of 100 characters embedded."""

    async def emit(text: str, tokens: int) -> None:
        pass

    request = CommandRequest(request_id="r", command="embed", inputs=("x" * 100,))
    async with client_of(handler) as client:
        await client.generate(request, emit, model=None, dialect=dialect)


@pytest.mark.parametrize("words", [TOO_LONG, "Eingabe zu lang", "", "out of memory"])
async def test_a_text_that_only_this_server_cannot_embed_is_its_limit(words: str) -> None:
    """In whatever words it says so: it embeds a shorter one."""
    with pytest.raises(PeerUnable, match="split them") as caught:
        await embed(embeds(longest=50, words=words))
    assert words in caught.value.message
    assert caught.value.param == "inputs"


@pytest.mark.parametrize(
    ("handler", "dialect"),
    [
        (embeds(longest=0), "llama_cpp"),
        (embeds(longest=50, status=503), "llama_cpp"),
        (embeds(longest=50), "other"),
    ],
    ids=["fails at all", "is busy", "is of another kind"],
)
async def test_a_server_that_fails_has_failed_whatever_it_says(
    handler: Handler, dialect: Dialect
) -> None:
    """Its words are for people."""
    with pytest.raises(GenerationFailed, match="620 tokens"):
        await embed(handler, dialect)
