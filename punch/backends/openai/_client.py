"""Talks HTTP to one server of models: the only importer of httpx in this room.

Decides when a request may be sent a second time, and turns httpx's exceptions into ours. Bodies
and events are made and read by `_completions`.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import trio

from ...exceptions import BackendCrashed, GenerationFailed, PeerUnable, PunchError
from ...wire import MARK, CommandRequest, Secrets, mark_of
from .._base import Emit, Generation
from .._thinking import Told
from ._answer import AnswerReader, reader_of
from ._completions import Dialect, build, fault, read_count, read_embeddings
from ._reading import Reading
from ._sse import plain_words

if TYPE_CHECKING:
    import httpx

    Transport = httpx.AsyncBaseTransport

T = TypeVar("T")

# A listener on the other side of the world answers a SYN in 0.3 s, or not at all.
CONNECT_SECONDS = 10.0

# Reading a long prompt on a slow CPU takes minutes without a byte (llama-server sends a
# comment every 30 s, others nothing). Requests have their own, shorter deadlines.
SILENCE_SECONDS = 600.0

# llama-server closes an idle connection after 5 s (`Keep-Alive: timeout=5`). A request
# written just then is lost, so ours are given up earlier.
_KEEPALIVE_SECONDS = 3.0

# One vector of 4096 numbers takes some 80 KB as JSON.
_MAX_BODY_BYTES = 64 * 1024 * 1024
_MAX_ERROR_BYTES = 64 * 1024

# Some frameworks say "created" to every POST, and a proxy that has changed something says so.
_ANSWERS = frozenset({200, 201, 203})

# Characters of what is no JSON that are told.
_MAX_WORDS = 500

# What a server tells of itself: ten thousand models take 3 MB, a license in Ollama's answer 40 KB.
_MAX_LIST_BYTES = 16 * 1024 * 1024


class HttpClient:
    """A client of one server. Made by `open_http_client`."""

    def __init__(
        self,
        connections: _Connections,
        errors: _Errors,
        *,
        url: str,
        authorization: str | None,
        key_setting: str | None,
        secrets: Secrets,
    ) -> None:
        self._connections = connections
        self._errors = errors
        self._key_setting = key_setting
        self._secrets = secrets
        self._headers = {"Accept-Encoding": "identity"}
        if authorization is not None:
            self._headers["Authorization"] = authorization
        self.url = url
        """The server's address, without a slash at the end; may change with a restart."""
        self.rejected: Callable[[str | None, str, int, int], None] | None = None
        """Called with the model, the path, the bytes and the status of a request that got no answer
        but an error."""

    async def generate(
        self,
        request: CommandRequest,
        emit: Emit,
        *,
        model: str | None,
        dialect: Dialect,
        slot: int | None = None,
        told: Told | None = None,
    ) -> Generation:
        """Answer *request* through the server.

        A cancel closes the connection, which is how such a server is told to stop.

        Args:
          request: What to answer.
          emit: Gets the text as it comes.
          model: The server's name for the model; `None` if it has only one.
          dialect: Which extensions of the interface the server understands.
          slot: Which of its slots is to answer; `None` leaves it to the server.
          told: How the server is told how much to think.

        Raises:
          InvalidRequest: if the server rejects a value; the text has its words.
          ContextTooLong: if the prompt does not fit; the text has both numbers.
          PeerUnable: if the request is beyond what this server serves.
          BackendError: if the server rejects the API key.
          GenerationFailed: if this answer failed, or was cut off.
          BackendCrashed: if the server is not there, or went away.

        """
        path, body = build(request, model=model, dialect=dialect, slot=slot, told=told)
        mark = mark_of(request.request_id)
        if request.command == "embed":
            count = len(request.inputs)
            return await self._embed(path, body, mark, expected=count, dialect=dialect)
        if request.command == "count":
            return read_count(await self.post_json(path, body))
        answer = reader_of(request, dialect)
        return await self._asked(partial(self._stream, path, body, emit, answer, mark))

    async def _embed(
        self, path: str, body: Mapping[str, Any], mark: str, *, expected: int, dialect: Dialect
    ) -> Generation:
        """The vectors of the texts in *body*.

        llama-server reads a text to embed in one piece, says of one that is longer than its batch
        only in words that it failed, and tells nowhere how long that is. One that embeds a letter
        meanwhile is well, and the text is what it cannot serve.
        """
        try:
            return read_embeddings(await self._json("POST", path, body, mark), expected=expected)
        except GenerationFailed as error:
            # One that is busy or loading says when to come back.
            if dialect != "llama_cpp" or error.retry_after is not None:
                raise
            failed = error
        try:
            read_embeddings(await self.post_json(path, {**body, "input": ["a"]}), expected=1)
        except PunchError:
            raise failed from None
        raise PeerUnable(
            f"the server embeds short texts, and failed at these: {failed.message}; split them",
            param="inputs",
        ) from failed

    async def _asked(self, ask: Callable[[_Wire], Awaitable[T]]) -> T:
        """The result of *ask*; a request lost on a stale connection is sent once more.

        A server may close an idle connection just as we write to it (RFC 9112, section 9.3.1).
        That is the one case for a second try: on a new connection the server has read the
        request, and after the first byte of an answer some of it may be with the reader.
        """
        wire = _Wire()
        try:
            return await self._discreet(ask, wire)
        except self._errors.disconnected as error:
            if wire.is_new or wire.is_answered:
                raise self._crashed(error) from error
        except self._errors.any as error:
            raise self._translate(error) from error
        try:
            return await self._discreet(ask, _Wire())
        except self._errors.any as error:
            raise self._translate(error) from error

    async def _stream(
        self,
        path: str,
        body: Mapping[str, Any],
        emit: Emit,
        answer: AnswerReader,
        mark: str,
        wire: _Wire,
    ) -> Generation:
        reading = Reading(answer, emit)
        headers = {"Content-Type": "application/json", MARK: mark}
        async with self._sent("POST", path, _encode(body), headers, wire) as response:
            if response.status_code not in _ANSWERS:
                self._note(path, body, response.status_code)
                raise await _fault_in(response, self._key_setting)
            try:
                await reading.read(_bytes_in(response))
            except self._errors.any:
                await reading.read_rest()
                # How the connection ends is of no interest once the answer is whole.
                if not answer.is_whole:
                    raise
        return await reading.finish()

    @asynccontextmanager
    async def _sent(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], wire: _Wire
    ) -> AsyncIterator[httpx.Response]:
        """Send a request; the context is entered with the head of its response."""
        given = {**self._headers, **headers}
        async with self._connections.sent(
            method, self.url + path, content=body, headers=given, extensions={"trace": wire.note}
        ) as response:
            wire.is_answered = True
            yield response

    async def get_json(self, path: str, *, timeout: float) -> Any:
        """The JSON body of a GET, within *timeout* seconds.

        Raises:
          BackendCrashed: if no server answers in time.
          PunchError: for any other fault, as `generate`.

        """
        with trio.move_on_after(timeout):
            return await self._json("GET", path, None)
        raise BackendCrashed(f"the server does not answer at {path} within {timeout:g} s")

    async def fetch(
        self, path: str, body: Mapping[str, Any] | None = None, *, timeout: float
    ) -> tuple[int, bytes]:
        """Status and body of whatever the server says to a question of ours.

        Raises:
          TooSlowError: if that takes longer than *timeout* seconds.
          PunchError: if there is no server, or it says too much.

        """
        method, content, kind = "GET", None, {}
        if body is not None:
            method, content, kind = "POST", _encode(body), {"Content-Type": "application/json"}

        async def ask(wire: _Wire) -> tuple[int, bytes]:
            async with self._sent(method, path, content, kind, wire) as response:
                return response.status_code, await _read(response, _MAX_LIST_BYTES)

        with trio.fail_after(timeout):
            return await self._asked(ask)

    async def post_json(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON body of the response to a POST of *body*.

        Raises:
          PunchError: as `generate`.

        """
        return await self._json("POST", path, body)

    async def _json(
        self, method: str, path: str, body: Mapping[str, Any] | None, mark: str | None = None
    ) -> Any:
        kind = {} if body is None else {"Content-Type": "application/json"}
        headers = kind if mark is None else kind | {MARK: mark}
        content = None if body is None else _encode(body)

        async def ask(wire: _Wire) -> bytes:
            async with self._sent(method, path, content, headers, wire) as response:
                if response.status_code not in _ANSWERS:
                    self._note(path, body, response.status_code)
                    raise await _fault_in(response, self._key_setting)
                return await _read(response, _MAX_BODY_BYTES)

        data = await self._asked(ask)
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            words = plain_words(data)[:_MAX_WORDS]
            says = f"; it says: {words}" if words else ""
            raise GenerationFailed(
                f"the server does not answer with JSON at {path}{says}"
            ) from None

    def _note(self, path: str, body: Mapping[str, Any] | None, status: int) -> None:
        if self.rejected is not None and body is not None:
            self.rejected(body.get("model"), path, len(_encode(body)), status)

    def _translate(self, error: Exception) -> PunchError:
        if isinstance(error, self._errors.busy):
            failed = GenerationFailed("every connection to the server is in use")
            failed.retry_after = 1.0
            return failed
        if isinstance(error, self._errors.silent):
            why = self._secrets.hide(_words(error))
            return GenerationFailed(f"the server was silent for too long: {why}")
        return self._crashed(error)

    def _crashed(self, error: Exception) -> BackendCrashed:
        why = self._secrets.hide(_words(error))
        return BackendCrashed(f"the connection to the server failed: {why}")

    async def _discreet(self, ask: Callable[[_Wire], Awaitable[T]], wire: _Wire) -> T:
        """The result of *ask*; an error, which may travel, repeats none of our secrets."""
        try:
            return await ask(wire)
        except PunchError as error:
            error.message = self._secrets.hide(error.message)
            error.args = (error.message,)
            raise


class _Connections:
    """The connections to one server: the one that was used last is used next.

    Each is a transport of httpx's own. Its client would add cookies, redirects and hooks to every
    request, which nobody wants here; and its pool looks at every connection for every request,
    with a system call for each that is idle.

    Args:
      open_one: Makes a connection, which opens with its first request.
      most: Connections at a time.
      silence: Seconds without a byte after which an answer has failed.

    """

    def __init__(self, open_one: Callable[[], Transport], *, most: int, silence: float) -> None:
        self._open = open_one
        self._idle: deque[tuple[float, Transport]] = deque()
        self._free = trio.Semaphore(most)
        self._timeout = {"connect": CONNECT_SECONDS, "read": silence, "write": silence}

    @asynccontextmanager
    async def sent(
        self, method: str, url: str, *, extensions: dict[str, Any], **parts: Any
    ) -> AsyncIterator[httpx.Response]:
        """Send a request; the context is entered with the head of its response."""
        # Imported late, as where the client is opened.
        import httpx

        given = extensions | {"timeout": self._timeout}
        request = httpx.Request(method, url, extensions=given, **parts)
        try:
            self._free.acquire_nowait()
        except trio.WouldBlock:
            with trio.move_on_after(CONNECT_SECONDS) as patience:
                await self._free.acquire()
            if patience.cancelled_caught:
                raise httpx.PoolTimeout("every connection is in use") from None
        transport = self._idle.pop()[1] if self._idle else self._open()
        try:
            await self._close_oldest()
            response = await transport.handle_async_request(request)
            try:
                yield response
            finally:
                await response.aclose()
        finally:
            self._idle.append((trio.current_time(), transport))
            self._free.release()

    async def _close_oldest(self) -> None:
        """Close the connection that was idle for longest, if its server may have closed it."""
        if self._idle and self._idle[0][0] + _KEEPALIVE_SECONDS < trio.current_time():
            await self._idle.popleft()[1].aclose()

    async def close(self) -> None:
        """Close all of them; no request is under way."""
        while self._idle:
            await self._idle.pop()[1].aclose()


class _Wire:
    """What is known of one request on its way: enough to say whether it may be sent again."""

    def __init__(self) -> None:
        self.is_new = False
        """Whether its connection was made for it, and so cannot be a stale one."""
        self.is_answered = False
        """Whether the head of a response has come."""

    async def note(self, event: str, details: object) -> None:
        """Note what an event of httpx's ``trace`` extension says of the connection."""
        # No TLS without TCP before it, and no proxy is ever asked.
        self.is_new |= event == "connection.connect_tcp.complete"


@attrs.frozen(kw_only=True)
class _Errors:
    """httpx's exceptions, sorted; named here because httpx is imported late."""

    any: type[Exception]
    disconnected: tuple[type[Exception], ...]
    busy: type[Exception]
    silent: tuple[type[Exception], ...]


async def _fault_in(response: httpx.Response, key_setting: str | None) -> PunchError:
    try:
        data = await _read(response, _MAX_ERROR_BYTES)
    except GenerationFailed:
        data = b""
    return fault(
        response.status_code,
        data,
        retry_after=response.headers.get("Retry-After"),
        date=response.headers.get("Date"),
        key_setting=key_setting,
    )


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


def _encode(body: Mapping[str, Any]) -> bytes:
    # Lone surrogates can be in a Python string and not in UTF-8.
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")


def _bytes_in(response: httpx.Response) -> AsyncIterable[bytes]:
    """The bytes of a body as they come.

    Raises:
      GenerationFailed: if they are compressed in a way that cannot be undone.

    """
    coding = response.headers.get("Content-Encoding", "identity").strip().lower()
    # Some servers name the character set there.
    if coding in ("", "identity", "none", "utf-8"):
        # What `aiter_raw` reads, without its four generators a token.
        return response.stream  # type: ignore[return-value]  # it is async
    if coding in ("gzip", "deflate"):
        # Nobody asked for it; some proxies compress all the same.
        return response.aiter_bytes()
    raise GenerationFailed(f"the server sends its answer as {coding!r}, which was not asked for")


async def _read(response: httpx.Response, limit: int) -> bytes:
    data = bytearray()
    async for part in _bytes_in(response):
        data += part
        if len(data) > limit:
            raise GenerationFailed(f"the server's response is longer than {limit} bytes")
    return bytes(data)


@asynccontextmanager
async def open_http_client(
    *,
    url: str,
    slots: int,
    api_key: str | None = None,
    authorization: str | None = None,
    key_setting: str | None = None,
    secrets: Secrets | None = None,
    silence: float = SILENCE_SECONDS,
    transport: httpx.AsyncBaseTransport | None = None,
) -> AsyncIterator[HttpClient]:
    """Give a client of the server at *url*; its connections close at the end.

    Args:
      url: Scheme, host and port, without ``/v1``.
      slots: Requests at a time. One more connection is kept for questions of our own.
      api_key: Sent as a bearer token.
      authorization: The whole header that says who asks, where that is something else.
      key_setting: Name of the setting that holds the key, for error texts.
      secrets: What no error may show.
      silence: Seconds without a byte after which an answer has failed.
      transport: In place of the network, for tests.

    """
    # Late: httpx takes 0.15 s to import, which a listener with the mock should not pay.
    import httpx

    # Certificates take 20 ms to load and a loopback server has none.
    verified = httpx.create_ssl_context() if url.startswith("https:") else False
    # HTTP_PROXY is for the world outside; a proxy would answer for our own child.
    opened = partial(
        httpx.AsyncHTTPTransport,
        verify=verified,
        trust_env=False,
        limits=httpx.Limits(max_connections=1, keepalive_expiry=_KEEPALIVE_SECONDS),
    )
    connections = _Connections(
        opened if transport is None else lambda: transport, most=slots + 1, silence=silence
    )
    if authorization is None and api_key is not None:
        authorization = f"Bearer {api_key}"
    errors = _Errors(
        any=httpx.HTTPError,
        # An end, a reset, and a broken pipe: which of them depends on who was faster.
        disconnected=(httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError),
        busy=httpx.PoolTimeout,
        silent=(httpx.ReadTimeout, httpx.WriteTimeout),
    )
    try:
        yield HttpClient(
            connections,
            errors,
            url=url,
            authorization=authorization,
            key_setting=key_setting,
            secrets=secrets or Secrets(()),
        )
    finally:
        with trio.CancelScope(shield=True):
            await connections.close()
