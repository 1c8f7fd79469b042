"""Serves newcomers while a program runs, has its grant renewed, and looks for the others.

What members tell each other of themselves is in `telling`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import trio

from .._background import open_background
from .._logs import get_logger
from ..exceptions import ConfigurationError, PeerUnreachable
from ..network import Node
from ._door import Door
from ._home import Home
from ._membership import DiskMembership
from ._messages import PROTOCOL
from ._running import running
from .finding import MEMBER, Recognised, is_member
from .renewal import keep_renewed
from .telling import PROTOCOL as TELLING
from .telling import Teller, keep_telling

log = get_logger(__name__)

# How often the addresses of a program are looked at, in seconds.
LOOK_SECONDS = 2.0

# How long no member is heard of until they are looked for, and how often then: soon at the start,
# seldom later. Each look dials a few addresses.
QUIET_SECONDS = 30.0
SCOUT_SECONDS = 2.0
MAX_SCOUT_SECONDS = 60.0
MAX_SCOUTED = 8


@asynccontextmanager
async def open_door(membership: DiskMembership, node: Node) -> AsyncIterator[Door]:
    """Let newcomers in at *node*, and do what `open_upkeep` does, while the context lasts.

    Only a machine that is an admin lets anybody in.
    """
    door, teller = Door(membership, node), Teller(membership)
    node.handle(PROTOCOL, door.serve)
    node.handle(MEMBER, Recognised(membership).serve)
    node.handle(TELLING, teller.serve)
    async with open_background() as nursery:
        # Said before this returns: an invite that is made next has the addresses.
        await nursery.start(_say_where, membership.home, node)
        async with open_upkeep(membership, node, teller):
            yield door


@asynccontextmanager
async def open_upkeep(
    membership: DiskMembership, node: Node, teller: Teller | None = None
) -> AsyncIterator[None]:
    """Have this machine's grant renewed, look for the others, and tell them who is here."""
    async with open_background() as nursery:
        nursery.start_soon(keep_telling, membership, node, teller)
        nursery.start_soon(keep_renewed, membership, node)
        nursery.start_soon(scout, membership, node)
        yield


async def _say_where(
    home: Home, node: Node, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Keep the addresses of *node* in a file, for as long as the task lives."""
    is_started = False
    try:
        with running(home, node.peer_id) as program:
            told: tuple[str, ...] | None = None
            while True:
                if node.addresses != told:
                    told = node.addresses
                    program.say(told)
                    # Once: the addresses may change as often as the machine's network does.
                    if not is_started:
                        is_started = True
                        task_status.started()
                await trio.sleep(LOOK_SECONDS)
    except ConfigurationError as error:
        log.warning("`punch invite` will not know where this program is", why=str(error))
        if not is_started:
            task_status.started()


async def scout(membership: DiskMembership, node: Node) -> None:
    """Find out who is where members were, as long as nobody else says, for ever.

    A machine that was let in knows where the inviting machine was; another program of punch, with
    another identity, may be there now, and so may a stranger: whoever is there shows a grant first.
    """
    pause = SCOUT_SECONDS
    while True:
        if trio.current_time() > membership.heard_at + QUIET_SECONDS:
            for address in membership.bare_places()[:MAX_SCOUTED]:
                if address not in _bare(node.addresses):
                    with suppress(PeerUnreachable):
                        peer_id = await node.identify(address)
                        if await is_member(membership, node, peer_id, address):
                            membership.found(peer_id, address)
        await trio.sleep(pause)
        pause = min(2 * pause, MAX_SCOUT_SECONDS)


def _bare(addresses: tuple[str, ...]) -> set[str]:
    return {address.partition("/p2p/")[0] for address in addresses}
