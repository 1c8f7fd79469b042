"""Runs llama-server for a moment and lets it make tokens: whether it can, and how fast it is.

That a program starts says little: one that was built for another processor prints its help and dies
of the first multiplication. What is tried and what follows from it is decided elsewhere.
"""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from .._background import open_background
from ..exceptions import BackendCrashed
from ..processes import Child, LastLines, describe_exit, open_child
from ._program import Program
from ._rpc_frames import RpcFrames
from ._rpc_protocol import RPC_ENV

# A build with CUDA that compiles its kernels first takes the better part of a minute.
START_SECONDS: Final = 60.0

# For one request of a few tokens; a machine that takes longer is none to compute on.
ANSWER_SECONDS: Final = 60.0

_MAX_ANSWER_BYTES: Final = 1 << 20


@attrs.frozen(kw_only=True)
class Made:
    """What one request made, by the program's own clock."""

    tokens: int
    """Tokens of the answer."""

    prompt_rate: float
    """Tokens of the prompt read in a second."""

    answer_rate: float
    """Tokens of the answer made in a second."""

    prompt_seconds: float
    """How long reading the prompt took."""


class Head:
    """A llama-server that runs for a trial. Made by `open_head`."""

    def __init__(self, child: Child, port: int, key: str, describe: Callable[[], str]) -> None:
        self._child = child
        self._port = port
        self._key = key
        self._describe = describe

    async def wait_ready(self) -> None:
        """Return when the model is loaded.

        Raises:
          BackendCrashed: if the program ends, or takes too long.

        """
        pause = 0.01
        with trio.move_on_after(START_SECONDS):
            while self._child.is_running:
                with suppress(OSError, trio.BrokenResourceError, ValueError):
                    status, _ = await self._ask("GET", "/health", None)
                    if status == 200:
                        return
                await trio.sleep(pause)
                pause = min(pause * 1.3, 0.25)
            raise BackendCrashed(self._describe())
        raise BackendCrashed(f"it was not ready within {START_SECONDS:g} s")

    async def make(self, *, prompt: int, answer: int) -> Made:
        """Read a prompt of *prompt* tokens and make *answer* tokens.

        Raises:
          BackendCrashed: if there is no answer.

        """
        body = {
            # Numbers of tokens: every vocabulary has more than these.
            "prompt": [1 + number % 250 for number in range(prompt)],
            "n_predict": answer,
            "temperature": 0,
            "ignore_eos": True,
            "cache_prompt": False,
        }
        try:
            with trio.fail_after(ANSWER_SECONDS):
                status, answered = await self._ask("POST", "/completion", body)
        except trio.TooSlowError:
            raise BackendCrashed(f"it made no token within {ANSWER_SECONDS:g} s") from None
        except (OSError, trio.BrokenResourceError, ValueError):
            with trio.move_on_after(1):
                await self._child.wait()
            raise BackendCrashed(self._describe()) from None
        if status != 200:
            raise BackendCrashed(f"it refuses to make a token: status {status}, {answered}")
        try:
            told = answered["timings"]
            made = Made(
                tokens=int(told["predicted_n"]),
                prompt_rate=float(told["prompt_per_second"]),
                answer_rate=float(told["predicted_per_second"]),
                prompt_seconds=float(told["prompt_ms"]) / 1000,
            )
        except (KeyError, TypeError, ValueError):
            raise BackendCrashed(f"it answers without timings: {str(answered)[:200]}") from None
        if made.tokens < 1:
            raise BackendCrashed("it made no token")
        return made

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, Any]:
        """Send one request on a connection of its own; status and JSON of the answer."""
        data = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self._key}\r\n"
            f"Connection: close\r\nContent-Type: application/json\r\nContent-Length: {len(data)}"
            "\r\n\r\n"
        )
        received = bytearray()
        async with await trio.open_tcp_stream("127.0.0.1", self._port) as stream:
            await stream.send_all(head.encode() + data)
            while len(received) < _MAX_ANSWER_BYTES and (more := await stream.receive_some()):
                received += more
        top, _, rest = bytes(received).partition(b"\r\n\r\n")
        return int(top.split()[1]), json.loads(rest)


@asynccontextmanager
async def open_head(
    program: Program, model: Path, arguments: Sequence[str], *, threads: int | None = None
) -> AsyncIterator[Head]:
    """Run llama-server with *model*; enter when it is ready, end it on the way out.

    Args:
      program: The server, as it was asked what it can do.
      model: The GGUF file.
      arguments: Further arguments, such as those that name devices.
      threads: Threads to compute with; `None` for the program's choice.

    Raises:
      BackendCrashed: if it does not become ready; the text has its last lines.

    """
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
    key = secrets.token_urlsafe(32)
    command = [
        *program.command, "--model", str(model), "--host", "127.0.0.1", "--port", str(port),
        "--ctx-size", "1024", "--parallel", "1", *program.known("--offline"),
        *(program.known("--no-ui") or program.known("--no-webui")),
    ]  # fmt: skip
    if program.supports("--fit"):
        command += ["--fit", "off"]
    if threads is not None:
        command += ["--threads", str(threads)]
    output = LastLines()

    def describe() -> str:
        code = child.returncode
        ended = "broke its connection" if code is None else f"ended with {describe_exit(code)}"
        lines = output.lines[-6:]
        said = "it printed nothing" if not lines else "its last lines: " + " / ".join(lines)
        return f"{program.path} {ended}; {said}"

    env = {"LLAMA_API_KEY": key, "GGML_NO_BACKTRACE": "1", **RPC_ENV}
    try:
        async with open_child([*command, *arguments], env=env, grace=0.0) as child:
            assert child.stderr is not None
            async with open_background() as nursery:
                nursery.start_soon(output.read, child.stdout)
                nursery.start_soon(output.read, child.stderr)
                head = Head(child, port, key, describe)
                await head.wait_ready()
                yield head
    except OSError as error:
        raise BackendCrashed(f"{program.path} cannot be run: {error.strerror}") from None


class Tap:
    """Connections to an RPC server, passed on and read along. Made by `open_tap`."""

    def __init__(self, port: int) -> None:
        self.port = port
        """Where to connect to instead, on 127.0.0.1."""
        self._frames: list[RpcFrames] = []

    def open(self) -> RpcFrames:
        """Frames for another connection."""
        self._frames.append(RpcFrames())
        return self._frames[-1]

    @property
    def bytes_up(self) -> int:
        """Bytes that went to the server, on all connections."""
        return sum(one.counts().bytes_up for one in self._frames)

    @property
    def replies(self) -> int:
        """Replies of the server, on all connections."""
        return sum(one.counts().replies for one in self._frames)


@asynccontextmanager
async def open_tap(target: int) -> AsyncIterator[Tap]:
    """A port on loopback that leads to the port *target* there."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    tap = Tap(listener.socket.getsockname()[1])

    async def serve(head: trio.SocketStream) -> None:
        frames = tap.open()
        with suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            server = await trio.open_tcp_stream("127.0.0.1", target)
            async with server, trio.open_nursery() as nursery:
                nursery.start_soon(_pass_on, head, server, frames.feed_up)
                nursery.start_soon(_pass_on, server, head, frames.feed_down)

    async with listener, open_background() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield tap


async def _pass_on(
    source: trio.SocketStream, to: trio.SocketStream, feed: Callable[[bytes, float], None]
) -> None:
    with suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
        async for data in source:
            feed(bytes(data), trio.current_time())
            await to.send_all(data)
        await to.send_eof()
