"""Peers that are py-libp2p and nothing else: what punch is compared with.

Stock settings, with Noise and Yamux chosen, as anybody would write it who needs request and
response over py-libp2p. It runs in processes of its own, because punch repairs libp2p for the
whole process.
"""

from __future__ import annotations

import time
from typing import Any

import trio
from _messages import MANY, Messages, reply_to, request_of, time_hops
from _processes import options, serve
from libp2p import new_host
from libp2p.abc import IHost, INetStream
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_x25519_key_pair
from libp2p.custom_types import TProtocol
from libp2p.network.stream.exceptions import StreamError
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as Noise
from multiaddr import Multiaddr

ONE = TProtocol("/bench/one/1")  # One message and its reply, then the end.

# identify and the first measurement of the round trip are over by then.
SETTLE_SECONDS = 1.0


def messages_on(stream: INetStream) -> Messages:
    """Messages on a stream of py-libp2p."""
    return Messages(stream.read, stream.write)


def new_bare_host(**settings: Any) -> IHost:
    """A host with Noise; everything else is py-libp2p's choice."""
    key_pair = create_new_key_pair()
    noise = Noise(key_pair, noise_privkey=create_x25519_key_pair().private_key)
    return new_host(key_pair=key_pair, sec_opt={NOISE: noise}, **settings)


async def listen() -> None:
    """Answer messages until told to stop."""
    address = Multiaddr("/ip4/127.0.0.1/tcp/0")
    host = new_bare_host(listen_addrs=[address])

    async def many(stream: INetStream) -> None:
        messages = messages_on(stream)
        try:
            while True:
                await reply_to(messages)
        except (EOFError, StreamError):
            await stream.close()

    async def one(stream: INetStream) -> None:
        await reply_to(messages_on(stream))
        await stream.close()

    host.set_stream_handler(TProtocol(MANY), many)
    host.set_stream_handler(ONE, one)
    async with host.run(listen_addrs=[address]):
        await serve({}, greeting=str(host.get_addrs()[0]))
        await host.close()


class Dialer:
    """Commands of the side that asks."""

    def __init__(self, host: IHost, peer: ID) -> None:
        self._host = host
        self._peer = peer
        self._open: list[Messages] = []

    async def _stream(self, index: int) -> Messages:
        while len(self._open) <= index:
            self._open.append(
                messages_on(await self._host.new_stream(self._peer, [TProtocol(MANY)]))
            )
        return self._open[index]

    async def hops(self, *, count: int, request: int, reply: int) -> list[float]:
        """Round trips on one open stream."""
        return await time_hops(await self._stream(0), count=count, request=request, reply=reply)

    async def at_once(
        self, *, count: int, workers: int, request: int, reply: int, kept: bool
    ) -> float:
        """Seconds for *count* requests by *workers* tasks, on a stream each or a new one a time."""
        body = request_of(request, reply=reply)
        left = count
        began = 0.0

        async def work(index: int) -> None:
            nonlocal left
            messages = await self._stream(index) if kept else None
            while left > 0:
                left -= 1
                if messages is not None:
                    await messages.send(body)
                    await messages.receive()
                    continue
                stream = await self._host.new_stream(self._peer, [ONE])
                fresh = messages_on(stream)
                await fresh.send(body)
                await fresh.receive()
                await stream.close()

        if kept:
            for index in range(workers):
                await self._stream(index)
        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for index in range(workers):
                nursery.start_soon(work, index)
        return time.perf_counter() - began


async def dial(address: str) -> None:
    """Connect to *address* and do as told."""
    host = new_bare_host()
    peer = info_from_p2p_addr(Multiaddr(address))
    async with host.run(listen_addrs=[]):
        await host.connect(peer)
        await trio.sleep(SETTLE_SECONDS)
        dialer = Dialer(host, peer.peer_id)
        await serve({"hops": dialer.hops, "at_once": dialer.at_once})
        await host.close()


if __name__ == "__main__":
    given = options()
    if given["role"] == "listener":
        trio.run(listen)
    else:
        trio.run(dial, given["address"])
