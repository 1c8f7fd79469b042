"""Several members of a closed namespace in one process, on a machine that has joined it.

    crowd.py listeners 5    says who they are, once all have joined, and answers until SIGTERM
    crowd.py dialers 5      says each second of each whom it could ask

Each has an identity, a node and a membership of its own, as if it were a program: only Python and
its modules are there once, which is most of a small program.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import trio

from punch import Router, open_listener, open_router, real_lan
from punch.backends import MockBackend, MockScript
from punch.cli import claim_identity
from punch.libp2p import open_node
from punch.listener import Listener
from punch.membership import DiskMembership, open_door, open_membership, open_upkeep

# A peer that was heard of less than this many seconds ago is there.
FRESH_SECONDS = 2.5


@asynccontextmanager
async def open_member(role: str) -> AsyncIterator[tuple[Path, DiskMembership]]:
    """An identity that no other program of this machine has, with its membership."""
    with claim_identity(role) as identity:
        async with open_membership(identity=identity) as membership:
            yield identity, membership


@asynccontextmanager
async def open_one_listener() -> AsyncIterator[Listener]:
    """A listener, as ``punch listener`` opens one, without a bootstrap."""
    async with (
        open_member("listener") as (identity, membership),
        open_listener(
            MockBackend(MockScript()),
            bootstrap=None,
            namespace=membership.namespace.name,
            identity=identity,
            membership=membership,
            lan=real_lan(),
            calibrate=False,
        ) as listener,
        open_door(membership, listener.node),
    ):
        yield listener


@asynccontextmanager
async def open_one_router() -> AsyncIterator[Router]:
    """A dialer, as ``punch peers`` opens one, without a bootstrap."""
    async with (
        open_member("dialer") as (identity, membership),
        open_node(identity=identity) as node,
        open_upkeep(membership, node),
        open_router(
            node=node,
            bootstrap=None,
            namespace=membership.namespace.name,
            membership=membership,
            lan=real_lan(),
        ) as router,
    ):
        yield router


async def listen(listeners: list[Listener]) -> None:
    """Say who they are, once all have joined."""
    for listener in listeners:
        await listener.wait_until_joined()
    print(json.dumps([listener.peer_id for listener in listeners]), flush=True)


async def dial(routers: list[Router]) -> None:
    """Say each second of each whom it could ask."""
    while True:
        now = trio.current_time()
        heard = [
            [peer.peer_id for peer in router.peers if now - peer.seen_at < FRESH_SECONDS]
            for router in routers
        ]
        print(json.dumps(heard), flush=True)
        await trio.sleep(1.0)


async def main(role: str, number: int) -> None:
    """Be a crowd until SIGTERM."""
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            # All of them are opened and closed by this task, one inside the other.
            if role == "listeners":
                speak = partial(listen, [await enter(open_one_listener()) for _ in range(number)])
            else:
                speak = partial(dial, [await enter(open_one_router()) for _ in range(number)])
            async with trio.open_nursery() as nursery:
                nursery.start_soon(speak)
                async for _ in signals:
                    nursery.cancel_scope.cancel()
                    break


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]))
