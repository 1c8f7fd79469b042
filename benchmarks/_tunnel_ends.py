"""Ends of tunnels in processes of their own, for `tunnels.py`: each ends when its input does.

_tunnel_ends.py direct TARGET...        both ends, TLS; prints the near ends' ports
_tunnel_ends.py near                    over streams: prints its identity, then is told of each
far end in a line, and prints the near ends' ports
_tunnel_ends.py far TARGET BORROWER     over streams: prints identity and address
"""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack

import trio

from punch.capability import PeerId
from punch.libp2p import open_node
from punch.tunnels import (
    TunnelOpening,
    door_of,
    make_certificate,
    open_carrier,
    open_near_stream,
)

HERE = "127.0.0.1"


def say(text: object) -> None:
    """A line for the parent."""
    print(text, flush=True)


async def line() -> str:
    """The parent's next one; empty at its end."""
    return (await trio.to_thread.run_sync(sys.stdin.readline)).strip()


async def direct(targets: list[int]) -> None:
    """A carrier for the machine of the head, and one for each worker's."""
    async with AsyncExitStack() as stack:
        here = await stack.enter_async_context(open_carrier())
        ports = []
        for target in targets:
            there = await stack.enter_async_context(open_carrier())
            ours, theirs = make_certificate(), make_certificate()
            there.allow(target)
            far = await there.open_far(
                [HERE], [0], certificate=theirs, trusted_pem=ours.pem, target=target
            )
            near = await here.open_near(
                far.addresses, certificate=ours, trusted_pem=theirs.pem, frames=True
            )
            ports.append(near.port)
        say(" ".join(map(str, ports)))
        await line()


async def near_streams() -> None:
    """The machine of the head, over streams."""
    async with open_node() as node, AsyncExitStack() as stack:
        say(node.peer_id)
        while told := await line():
            ports = []
            for each in told.split(","):
                peer_id, address = each.split()
                near = await stack.enter_async_context(
                    open_near_stream(
                        node, PeerId(peer_id), (address,), TunnelOpening(lease="one"), frames=True
                    )
                )
                ports.append(near.port)
            say(" ".join(map(str, ports)))


async def far_stream(target: int, borrower: str) -> None:
    """A worker's machine, over streams."""
    async with (
        open_node(listen=[f"/ip4/{HERE}/tcp/0"]) as node,
        door_of(node).lend("one", borrower=PeerId(borrower), port=target),
    ):
        say(f"{node.peer_id} {node.addresses[0]}")
        await line()


async def main(kind: str, *arguments: str) -> None:
    """Be one of the three."""
    if kind == "direct":
        await direct(list(map(int, arguments)))
    elif kind == "near":
        await near_streams()
    else:
        await far_stream(int(arguments[0]), arguments[1])


trio.run(main, *sys.argv[1:])
