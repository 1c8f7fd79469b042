"""The client that all sides are asked with: as little of HTTP/1.1 as a measurement needs.

One loop over a selector and connections that stay open. Answers are kept as bytes and looked at
when the clock has stopped. In an open loop a request's time begins when it was due, not when it
could be sent: a server that stalls is charged for everybody who waited meanwhile
("coordinated omission", Gil Tene, How NOT to Measure Latency, 2015).
"""

from __future__ import annotations

import gc
import json
import re
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import attrs

READ_BYTES = 256 << 10

# No answer takes as long: a server that has not answered by then has lost the request.
PATIENCE_SECONDS = 60.0

_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:\s*chunked", re.IGNORECASE)
_LAST_CHUNK = re.compile(rb"(?:\r\n|^)0\r\n(?:[^\r\n]+\r\n)*\r\n\Z")

# Who has no answer yet keeps a connection; `select` takes 1,024 descriptors.
MAX_CONNECTIONS = 800

# The last chunk and the trailers behind it.
_TAIL_BYTES = 1024


@attrs.frozen(kw_only=True, slots=True)
class Address:
    """Where to ask."""

    port: int
    """On 127.0.0.1."""

    key: str = ""
    """API key, if it wants one."""

    path: str = "/v1/chat/completions"
    """Of the question."""


@attrs.frozen(slots=True)
class Answer:
    """One question, and what came of it."""

    due: float
    """When it was to be asked, in `time.perf_counter` seconds."""

    first: float
    """When the first byte came."""

    ended: float
    """When the last one came."""

    asked: bytes
    """The question."""

    raw: bytes
    """All of it, as it came; empty if the connection broke or nothing came."""

    @property
    def seconds(self) -> float:
        """From when it was due to its end."""
        return self.ended - self.due

    @property
    def status(self) -> int:
        """Of HTTP; 0 if none came."""
        return int(self.raw[9:12] or 0)

    @property
    def fine(self) -> bool:
        """Whether it has the form of an answer."""
        return self.raw[9:12] == b"200" and b'"choices"' in self.raw

    @property
    def head(self) -> bytes:
        """Status line and headers."""
        return self.raw.partition(b"\r\n\r\n")[0]

    @property
    def body(self) -> bytes:
        """Without chunks."""
        head, _, rest = self.raw.partition(b"\r\n\r\n")
        if not _CHUNKED.search(head):
            return rest
        parts = []
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            length = int(size.partition(b";")[0], 16)
            if not length:
                break
            parts.append(rest[:length])
            rest = rest[length + 2 :]
        return b"".join(parts)

    @property
    def events(self) -> list[Any]:
        """Of a stream, without the ``[DONE]``."""
        lines = self.body.splitlines()
        return [json.loads(line[6:]) for line in lines if line.startswith(b"data: {")]

    @property
    def text(self) -> str:
        """What the model said, streamed or not; nothing if it is no answer."""
        if not self.fine:
            return ""
        if b"text/event-stream" not in self.head.lower():
            return str(json.loads(self.body)["choices"][0]["message"]["content"])
        deltas = [choice["delta"] for event in self.events for choice in event["choices"]]
        return "".join(delta.get("content") or "" for delta in deltas)

    @property
    def complete(self) -> bool:
        """Whether a stream says itself that it has ended."""
        return b"data: [DONE]" in self.raw


def question(address: Address, prompt: str, tokens: int, **further: Any) -> bytes:
    """A chat request with its headers."""
    asked = {
        "model": further.pop("model", "mock"),
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": tokens,
        **further,
    }
    body = json.dumps(asked).encode()
    key = f"authorization: Bearer {address.key}\r\n" if address.key else ""
    head = (
        f"POST {address.path} HTTP/1.1\r\nhost: 127.0.0.1:{address.port}\r\n{key}"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class _Connection:
    """One connection, with at most one question under way."""

    __slots__ = ("_address", "_data", "_first", "_got", "_need", "_selector", "_socket", "due")

    def __init__(self, address: Address, selector: selectors.BaseSelector) -> None:
        self._address = address
        self._selector = selector
        self._socket: socket.socket | None = None
        self.due: float | None = None
        """When the question under way was to be asked, if there is one."""

    def ask(self, data: bytes, due: float) -> None:
        self._data, self._got, self._need, self._first = data, b"", 0, 0.0
        self.due = due
        if self._socket is None:
            self._connect()
        assert self._socket is not None
        try:
            sent = self._socket.send(data)
        except OSError:
            # It was closed while nobody used it, which every server may do.
            self.close()
            self._connect()
            sent = self._socket.send(data)
        assert sent == len(data), "a question is longer than what a fresh connection takes"

    def _connect(self) -> None:
        self._socket = socket.create_connection(("127.0.0.1", self._address.port), timeout=10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        self._selector.register(self._socket, selectors.EVENT_READ, self)

    def happened(self) -> Answer | None:
        """Read; the answer, if it is whole or will never be."""
        assert self._socket is not None
        try:
            data = self._socket.recv(READ_BYTES)
        except OSError:
            data = b""
        if self.due is None:
            self.close()
            return None
        now = time.perf_counter()
        if not data:
            self.close()
            return self._ended(now, b"")
        if not self._got:
            self._first = now
        self._got = got = self._got + data if self._got else data
        if not self._need and not self._read_head():
            return None
        if self._need > 0:
            return self._ended(now, got) if len(got) >= self._need else None
        if got.endswith(b"\r\n\r\n") and _LAST_CHUNK.search(got[-_TAIL_BYTES:]):
            return self._ended(now, got)
        return None

    def _read_head(self) -> bool:
        end = self._got.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = self._got[:end]
        length = _LENGTH.search(head)
        # Without a length it is chunked; who closes instead is counted as an error.
        self._need = end + 4 + int(length[1]) if length else -1
        return True

    def _ended(self, now: float, raw: bytes) -> Answer:
        assert self.due is not None
        answer = Answer(self.due, self._first or now, now, self._data, raw)
        self.due = None
        return answer

    def give_up(self) -> Answer:
        """Close; what came of the question under way: nothing."""
        self.close()
        return self._ended(time.perf_counter(), b"")

    def close(self) -> None:
        if self._socket is not None:
            self._selector.unregister(self._socket)
            self._socket.close()
            self._socket = None


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Without our own collector of garbage, whose pauses would be theirs."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class _Pool:
    """Connections, and a loop that moves them on."""

    def __init__(
        self,
        address: Address,
        selector: selectors.BaseSelector,
        keep: Callable[[Answer], None] | None = None,
    ) -> None:
        self.selector = selector
        self.idle: deque[_Connection] = deque()
        self.busy: set[_Connection] = set()
        self.answers: list[Answer] = []
        self._address = address
        self._keep = keep or self.answers.append

    def ask(self, data: bytes, due: float) -> None:
        connection = self.idle.pop() if self.idle else _Connection(self._address, self.selector)
        self.busy.add(connection)
        connection.ask(data, due)

    def turn(self, timeout: float) -> int:
        """Wait for something to happen; how many answers that made."""
        ended = 0
        for key, _ in self.selector.select(timeout):
            connection = key.data
            if (answer := connection.happened()) is not None:
                ended += 1
                self._keep(answer)
                self.busy.discard(connection)
                self.idle.append(connection)
        return ended

    def finish(self) -> None:
        """Wait for what is under way; who lets us wait too long has lost it."""
        deadline = time.perf_counter() + PATIENCE_SECONDS
        while self.busy and (left := deadline - time.perf_counter()) > 0:
            self.turn(left)
        for connection in self.busy:
            self._keep(connection.give_up())
        self.busy.clear()

    def close(self) -> None:
        for connection in (*self.idle, *self.busy):
            connection.close()
        self.selector.close()


@contextmanager
def _open_pool(
    address: Address,
    kind: Callable[[], selectors.BaseSelector],
    keep: Callable[[Answer], None] | None = None,
) -> Iterator[_Pool]:
    pool = _Pool(address, kind(), keep)
    try:
        with _undisturbed():
            yield pool
    finally:
        pool.close()


def closed_loop(
    address: Address, questions: Iterator[bytes], clients: int, seconds: float
) -> list[Answer]:
    """So many clients, each asking again as soon as it has its answer, for so long."""
    with _open_pool(address, selectors.DefaultSelector) as pool:
        now = time.perf_counter()
        until = now + seconds
        for _ in range(clients):
            pool.ask(next(questions), now)
        while (left := until - time.perf_counter()) > 0:
            for _ in range(pool.turn(left)):
                pool.ask(next(questions), time.perf_counter())
        pool.finish()
        return pool.answers


def one_after_another(address: Address, questions: Iterable[bytes]) -> list[Answer]:
    """One client that asks all of them."""
    with _open_pool(address, selectors.DefaultSelector) as pool:
        for data in questions:
            pool.ask(data, time.perf_counter())
            pool.finish()
        return pool.answers


def all_at_once(address: Address, questions: Sequence[bytes]) -> list[Answer]:
    """Every question on a connection of its own, at one moment; answers in the same order."""
    with _open_pool(address, selectors.DefaultSelector) as pool:
        began = time.perf_counter()
        for index, data in enumerate(questions):
            # By its moment an answer is told from the others; they differ by nanoseconds.
            pool.ask(data, began + index * 1e-9)
        pool.finish()
        return sorted(pool.answers, key=lambda answer: answer.due)


def open_loop(
    address: Address,
    questions: Iterator[bytes],
    rate: float,
    seconds: float,
    *,
    keep: Callable[[Answer], None] | None = None,
) -> list[Answer]:
    """Ask at fixed moments, whatever becomes of the others.

    Answers are returned, or given to *keep* as they come: thousands of seconds of them are more
    than fits the memory.
    """
    # By `select`, whose timeouts are exact to a microsecond; `epoll` has whole milliseconds.
    with _open_pool(address, selectors.SelectSelector, keep) as pool:
        began = time.perf_counter()
        count = round(rate * seconds)
        asked = 0
        while asked < count:
            now = time.perf_counter()
            while (
                asked < count
                and (due := began + asked / rate) <= now
                and len(pool.busy) < MAX_CONNECTIONS
            ):
                pool.ask(next(questions), due)
                asked += 1
            full = len(pool.busy) == MAX_CONNECTIONS
            next_due = now + PATIENCE_SECONDS if full else began + asked / rate
            pool.turn(max(0.0, next_due - time.perf_counter()))
        pool.finish()
        return pool.answers


def ask_once(address: Address, data: bytes) -> Answer:
    """One question on a fresh connection."""
    return one_after_another(address, [data])[0]
