"""A server that speaks Ollama's protocols and makes tokens at a speed that is set.

    _paced_ollama.py '{"rate": 100, "parallel": 4, "model": "llama3.2:latest"}'

It has one model in memory. At most `parallel` answers are made at a time, which share `rate` tokens
a second, as they do where the arithmetic is what takes time; further ones wait in the order in
which they came, as in Ollama. A prompt is read at ten times that rate.

It prints its port, and ends with its standard input.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import trio

PREFILL = 10.0
HEAD = b"HTTP/1.1 %d -\r\ncontent-type: %s\r\n"


class Ollama:
    """The server.

    Args:
      model: Name of its model.
      rate: Tokens a second, of all answers together.
      parallel: Answers at a time.

    """

    def __init__(self, *, model: str, rate: float, parallel: int) -> None:
        self.model = model
        self._rate = rate
        self._room = trio.CapacityLimiter(parallel)
        self._active = 0

    def value(self, path: str) -> Any:
        """What a page says; `None` if there is none."""
        details = {
            "format": "gguf", "family": "llama", "families": ["llama"],
            "parameter_size": "3.2B", "quantization_level": "Q4_K_M",
        }  # fmt: skip
        row = {
            "name": self.model, "model": self.model, "size": 2019393189, "digest": "0" * 64,
            "details": details,
        }  # fmt: skip
        pages: dict[str, Any] = {
            "/api/version": {"version": "0.12.6"},
            "/api/tags": {"models": [row]},
            "/api/ps": {"models": [{**row, "size_vram": 2019393189, "context_length": 4096}]},
            "/api/show": {
                "details": details,
                "model_info": {"general.architecture": "llama", "llama.context_length": 4096},
                "capabilities": ["completion"],
            },
            "/v1/models": {
                "object": "list",
                "data": [{"id": self.model, "object": "model", "owned_by": "library"}],
            },
        }
        return pages.get(path)

    async def events(self, body: dict[str, Any]) -> AsyncIterator[bytes]:
        """The events of an answer, as they are made."""
        tokens = int(body.get("max_tokens") or body.get("max_completion_tokens") or 16)
        prompt = sum(len(str(each.get("content"))) for each in body.get("messages", ())) // 4 + 1
        async with self._room:
            self._active += 1
            try:
                due = trio.current_time()
                for number in range(tokens + 1):
                    # What the others take is seen anew at each token.
                    work = prompt / PREFILL if number == 0 else 1.0
                    due += work * self._active / self._rate
                    await trio.sleep_until(due)
                    if number:
                        yield _event({"delta": {"content": f"w{number} "}, "finish_reason": None})
            finally:
                self._active -= 1
        yield _event({"delta": {}, "finish_reason": "length"})
        usage = {"prompt_tokens": prompt, "completion_tokens": tokens}
        yield b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n"
        yield b"data: [DONE]\n\n"

    async def serve(self, stream: trio.SocketStream) -> None:
        """Answer the requests of one connection, one after the other."""
        data = b""
        try:
            while True:
                while b"\r\n\r\n" not in data:
                    more = await stream.receive_some()
                    if not more:
                        return
                    data += more
                head, _, data = data.partition(b"\r\n\r\n")
                lines = head.decode().split("\r\n")
                fields = dict(line.lower().split(": ", 1) for line in lines[1:])
                length = int(fields.get("content-length", 0))
                while len(data) < length:
                    data += await stream.receive_some()
                body, data = data[:length], data[length:]
                await self._answer(stream, lines[0].split(" ")[1], json.loads(body or b"{}"))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    async def _answer(self, stream: trio.SocketStream, path: str, body: dict[str, Any]) -> None:
        if path != "/v1/chat/completions":
            value = self.value(path)
            text = json.dumps({"error": "not found"} if value is None else value).encode()
            head = HEAD % (404 if value is None else 200, b"application/json")
            await stream.send_all(head + b"content-length: %d\r\n\r\n%s" % (len(text), text))
            return
        head = HEAD % (200, b"text/event-stream")
        await stream.send_all(head + b"transfer-encoding: chunked\r\n\r\n")
        events = self.events(body)
        try:
            async for event in events:
                await stream.send_all(b"%x\r\n%s\r\n" % (len(event), event))
        finally:
            await events.aclose()  # type: ignore[attr-defined]  # it is a generator
        await stream.send_all(b"0\r\n\r\n")


def _event(choice: dict[str, Any]) -> bytes:
    value = {"object": "chat.completion.chunk", "choices": [{"index": 0, **choice}]}
    return b"data: " + json.dumps(value).encode() + b"\n\n"


async def main(**options: Any) -> None:
    """Serve until standard input ends."""
    server = Ollama(**options)
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(
            partial(trio.serve_tcp, server.serve, 0, host="127.0.0.1", handler_nursery=nursery)
        )
        print(json.dumps(listener.socket.getsockname()[1]), flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(partial(main, **json.loads(sys.argv[1])))
