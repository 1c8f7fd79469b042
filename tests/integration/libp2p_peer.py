"""A peer in a process of its own, to be killed, stopped and lied to; and a handle on it.

Run as a program it opens a node, prints one line of JSON with its peer id and addresses, and
serves the protocols below until its standard input ends.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import hashlib
import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import trio

ECHO = "/test/echo/1"  # Sends back what it gets.
SINK = "/test/sink/1"  # u64 size, u32 pause in ms, then size bytes; answers with their SHA-256.
SOURCE = "/test/source/1"  # u64 size; answers with so many bytes.
SILENT = "/test/silent/1"  # Reads nothing, says nothing.
BOOM = "/test/boom/1"  # Fails.
RETURN = "/test/return/1"  # Returns at once.
NUMBERS = "/test/numbers/1"  # u32 count; answers with so many big-endian u32, one write each.
STATE = "/test/state/1"  # Answers with JSON: what the process holds.

_QUIC_TABLES = {
    "_connections",
    "_pending",
    "_initial_connection_ids",
    "_connection_id_to_addr",
    "_addr_to_connection_id",
    "_connection_sequences",
    "_connection_sequence_counters",
    "_conn_by_quic_id",
    "_pending_cid_by_quic_id",
    "_promotion_locks",
    "_handler_invoked_quic_ids",
}

ROOT = Path(__file__).parents[2]


async def read_exactly(stream: Any, size: int) -> bytes:
    """Read *size* bytes of a stream, or fail."""
    parts = bytearray()
    while len(parts) < size:
        data = await stream.receive_some()
        if not data:
            raise EOFError(f"{len(parts)} of {size} bytes")
        parts += data
    assert len(parts) == size
    return bytes(parts)


async def read_all(stream: Any) -> bytes:
    """Read a stream to its end."""
    parts = bytearray()
    while data := await stream.receive_some():
        parts += data
    return bytes(parts)


async def echo(stream: Any) -> None:
    """Serve `ECHO`."""
    while data := await stream.receive_some():
        await stream.send_all(data)


async def sink(stream: Any) -> None:
    """Serve `SINK`."""
    got = b""
    while len(got) < 12:
        got += await stream.receive_some()
    size, pause = struct.unpack(">QI", got[:12])
    await trio.sleep(pause / 1000)
    digest, count = hashlib.sha256(got[12:]), len(got) - 12
    while count < size:
        data = await stream.receive_some()
        if not data:
            return
        digest.update(data)
        count += len(data)
    await stream.send_all(digest.digest())


async def source(stream: Any) -> None:
    """Serve `SOURCE`."""
    (size,) = struct.unpack(">Q", await read_exactly(stream, 8))
    await stream.send_all(bytes(size))


async def silent(stream: Any) -> None:
    """Serve `SILENT`."""
    await trio.sleep_forever()


async def boom(stream: Any) -> None:
    """Serve `BOOM`."""
    raise RuntimeError("a bug in a handler")


async def return_at_once(stream: Any) -> None:
    """Serve `RETURN`."""


async def numbers(stream: Any) -> None:
    """Serve `NUMBERS`."""
    (count,) = struct.unpack(">I", await read_exactly(stream, 4))
    for number in range(count):
        await stream.send_all(struct.pack(">I", number))


def state_of(node: Any) -> dict[str, Any]:
    """What a node, and its process, hold."""
    gc.collect()
    process = psutil.Process()
    found: dict[str, Any] = {
        "connections": node.statistics().connections,
        "inbound": node.statistics().inbound_streams,
        "fds": process.num_fds(),
        "rss": process.memory_info().rss,
        "tasks": trio.lowlevel.current_statistics().tasks_living,
        "limiter": node._swarm._inbound_limiter.borrowed_tokens,
        "links": len(node._connections._states),
    }
    for listener in node._swarm.listeners.values():
        if hasattr(listener, "_registry"):
            tables = {**vars(listener._registry), **vars(listener)}
            found["quic"] = {
                name: len(table)
                for name, table in tables.items()
                if isinstance(table, dict | set) and len(table) and name in _QUIC_TABLES
            }
    return found


def serve_everything(node: Any) -> None:
    """Handle all the protocols above."""

    async def state(stream: Any) -> None:
        await stream.send_all(json.dumps(state_of(node)).encode())

    node.handle(ECHO, echo)
    node.handle(SINK, sink)
    node.handle(SOURCE, source)
    node.handle(SILENT, silent)
    node.handle(BOOM, boom)
    node.handle(RETURN, return_at_once)
    node.handle(NUMBERS, numbers)
    node.handle(STATE, state)


async def serve(arguments: argparse.Namespace) -> None:
    """Run one peer until standard input ends."""
    from punch.libp2p import _node as _libp2p
    from punch.libp2p.defects import _swarm as _libp2p_defects

    _libp2p_defects.apply(without=arguments.without)
    opened = _libp2p.open_node(
        identity=arguments.identity, listen=arguments.listen, transport=arguments.transport
    )
    async with opened as node:
        serve_everything(node)
        print(json.dumps({"peer_id": node.peer_id, "addresses": node.addresses}), flush=True)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)


class Peer:
    """A handle on a peer process."""

    def __init__(
        self, process: subprocess.Popen[bytes], peer_id: str, addresses: list[str]
    ) -> None:
        self.process = process
        self.pid = process.pid
        self.peer_id: Any = peer_id
        self.addresses = tuple(addresses)

    def of(self, transport: str) -> tuple[str, ...]:
        """Its addresses of one transport."""
        return tuple(each for each in self.addresses if ("quic" in each) == (transport == "quic"))

    def port(self, transport: str) -> int:
        """Its port of one transport."""
        return int(self.of(transport)[0].split("/")[4])

    def stop(self) -> None:
        """Let it end by itself; kill it if it does not within 5 s."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def environment() -> dict[str, str]:
    """The environment of a child: this interpreter, this checkout."""
    paths = [str(ROOT), str(ROOT / "tests")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONWARNINGS": "ignore"}


@asynccontextmanager
async def peer(
    *listen: str, transport: str = "tcp", identity: Path | None = None
) -> AsyncIterator[Peer]:
    """A peer process, as long as the block runs."""
    arguments = [sys.executable, __file__, "--transport", transport]
    for address in listen or ("/ip4/127.0.0.1/tcp/0",):
        arguments += ["--listen", address]
    if identity is not None:
        arguments += ["--identity", str(identity)]
    process = subprocess.Popen(  # noqa: ASYNC220 - Starting it takes a moment; tests may wait.
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
    )
    assert process.stdout is not None
    try:
        line = await trio.to_thread.run_sync(process.stdout.readline, abandon_on_cancel=True)
        started = Peer(process, **json.loads(line))
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)  # In case a test stopped it.
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(Peer(process, "", []).stop)
        process.stdout.close()


async def ask_state(node: Any, other: Peer) -> dict[str, Any]:
    """What a peer process holds now."""
    stream = await node.open_stream(other.peer_id, other.addresses, STATE)
    try:
        answer: dict[str, Any] = json.loads(await read_all(stream))
        return answer
    finally:
        await stream.aclose()


def main() -> None:
    """Run one peer as the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--identity")
    parser.add_argument("--listen", action="append", default=[])
    parser.add_argument("--transport", default="tcp")
    parser.add_argument("--without", action="append", default=[])
    trio.run(partial(serve, parser.parse_args()))


if __name__ == "__main__":
    main()
