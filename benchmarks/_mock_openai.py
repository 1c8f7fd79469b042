"""A server that answers OpenAI's chat requests, at once or after a delay, and does little else.

    _mock_openai.py '{"port": 0, "delay": 0.021}'

What stands in front of it is measured, so it does as little as Python can: one loop over a
selector, answers made beforehand, and no more of HTTP/1.1 than its callers use. The text of an
answer is ``0 1 2 ...``, as many tokens as were asked for. A streamed one has an event and a chunk
for each token, and leaves in one write: who stands in front is spared a hundred readings.

With a delay it takes that long for every answer, however many it makes side by side, as a model
with batches does.

It prints its port, and ends with its standard input.
"""

from __future__ import annotations

import json
import re
import selectors
import socket
import sys
import time
from collections import deque
from functools import lru_cache
from typing import Any

READ_BYTES = 256 << 10
BACKLOG = 1024
DEFAULT_TOKENS = 1

# LiteLLM and sglang-router write JSON in ways of their own.
_LIMIT = re.compile(rb'"max_(?:completion_)?tokens"\s*:\s*(\d+)')
_STREAM = re.compile(rb'"stream"\s*:\s*true')
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)

_STATED = {"id": "chatcmpl-0", "created": 0, "model": "mock"}


def words(count: int) -> str:
    """The text of an answer of so many tokens."""
    return " ".join(map(str, range(count)))


def _whole(kind: bytes, body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n"
    return head % (kind, len(body)) + body


def _json(value: Any) -> bytes:
    return _whole(b"application/json", json.dumps(value).encode())


@lru_cache
def _completion(tokens: int) -> bytes:
    message = {"role": "assistant", "content": words(tokens)}
    return _json(
        {
            **_STATED,
            "object": "chat.completion",
            "choices": [{"index": 0, "message": message, "finish_reason": "length"}],
            "usage": {"prompt_tokens": 8, "completion_tokens": tokens, "total_tokens": tokens + 8},
        }
    )


@lru_cache
def _stream(tokens: int) -> bytes:
    texts = words(tokens).split(" ")
    deltas: list[dict[str, str]] = [{"role": "assistant", "content": texts[0]}]
    deltas += [{"content": f" {text}"} for text in texts[1:]]
    choices: list[dict[str, Any]] = [{"delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"delta": {}, "finish_reason": "length"})
    events = [
        json.dumps(
            {**_STATED, "object": "chat.completion.chunk", "choices": [{"index": 0, **choice}]}
        )
        for choice in choices
    ]
    chunks = [f"data: {event}\n\n".encode() for event in (*events, "[DONE]")]
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return head + b"\r\n" + body + b"0\r\n\r\n"


# What routers ask a server about itself: health, the list of models, and SGLang's own.
_ABOUT = {
    b"/v1/models": _json(
        {"object": "list", "data": [{"id": "mock", "object": "model", "owned_by": "mock"}]}
    ),
    b"/model_info": _json({"model_path": "mock", "is_generation": True}),
    b"/get_model_info": _json({"model_path": "mock", "is_generation": True}),
    b"/server_info": _json({"served_model_name": "mock", "model_path": "mock"}),
    b"/get_server_info": _json({"served_model_name": "mock", "model_path": "mock"}),
    b"/health": _whole(b"text/plain", b"ok"),
}
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"


def _answer(head: bytes, body: bytes) -> bytes:
    if head.startswith(b"POST"):
        limit = _LIMIT.search(body)
        tokens = int(limit[1]) if limit else DEFAULT_TOKENS
        return _stream(tokens) if _STREAM.search(body) else _completion(tokens)
    if not head.startswith(b"GET "):
        # sglang-router tries HTTP/2 first.
        raise ConnectionError
    return _ABOUT.get(head.split(b" ", 2)[1], _NOT_FOUND)


class _Later:
    """Answers that leave when their delay is over: the first made is the first due."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._waiting: deque[tuple[float, _Connection, bytes]] = deque()

    def answer(self, connection: _Connection, data: bytes) -> None:
        """Send *data* when it is due."""
        if self._delay:
            self._waiting.append((time.monotonic() + self._delay, connection, data))
        else:
            connection.write(data)

    def send_due(self) -> float | None:
        """Send what is due; the seconds until the next is, `None` if nothing waits."""
        while self._waiting:
            due, connection, data = self._waiting[0]
            if (left := due - time.monotonic()) > 0:
                return left
            self._waiting.popleft()
            connection.write(data)
        return None


class _Connection:
    """One caller."""

    def __init__(
        self, conn: socket.socket, selector: selectors.BaseSelector, later: _Later
    ) -> None:
        self._socket = conn
        self._selector = selector
        self._later = later
        self._got = b""
        self._left = b""
        conn.setblocking(False)
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(conn, selectors.EVENT_READ, self)

    def happened(self) -> None:
        """Go on reading or writing, whichever it waited for."""
        try:
            if self._left:
                self._write(b"")
            else:
                self._read()
        except OSError:
            self._close()

    def write(self, data: bytes) -> None:
        """Send *data*, or as much as there is room for; a caller that is gone gets nothing."""
        try:
            self._write(data)
        except OSError:
            self._close()

    def _read(self) -> None:
        data = self._socket.recv(READ_BYTES)
        if not data:
            self._close()
            return
        self._got = got = self._got + data if self._got else data
        while (end := got.find(b"\r\n\r\n")) >= 0:
            head = got[:end]
            length = _LENGTH.search(head)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(got) < whole:
                break
            data = _answer(head, got[end + 4 : whole])
            if head.startswith(b"POST"):
                self._later.answer(self, data)
            else:
                self._write(data)
            self._got = got = got[whole:]

    def _write(self, data: bytes) -> None:
        waited = bool(self._left)
        data = self._left + data if waited else data
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        self._left = data[sent:]
        if bool(self._left) != waited:
            event = selectors.EVENT_WRITE if self._left else selectors.EVENT_READ
            self._selector.modify(self._socket, event, self)

    def _close(self) -> None:
        if self._socket.fileno() < 0:
            return
        self._selector.unregister(self._socket)
        self._socket.close()


def serve(port: int = 0, delay: float = 0.0) -> None:
    """Answer, each question after *delay* seconds, until standard input ends."""
    later = _Later(delay)
    with socket.create_server(("127.0.0.1", port), backlog=BACKLOG) as listener:
        selector = selectors.DefaultSelector()
        selector.register(listener, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        print(listener.getsockname()[1], flush=True)
        while True:
            for key, _ in selector.select(later.send_due()):
                if key.data is not None:
                    key.data.happened()
                elif key.fileobj is listener:
                    _Connection(listener.accept()[0], selector, later)
                else:
                    return


if __name__ == "__main__":
    serve(**json.loads(sys.argv[1] if len(sys.argv) > 1 else "{}"))
