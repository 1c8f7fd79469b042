"""The gateway: one OpenAI and Ollama address for all the listeners of a namespace.

``python -m punch.gateway``, or ``punch serve``; ``--help`` has the options.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from .._logs import get_logger
from .._subscribers import open_bus
from ..cli import (
    ExitCode,
    Place,
    Shutdown,
    claim_identity,
    open_listener_of,
    open_membership_of,
    place_of,
    run_program,
)
from ..cli.serving import open_books, open_serving
from ..events import Bus
from ..listener import Listener
from ..membership import DiskMembership
from ..settings import GatewaySettings

log = get_logger("punch.gateway")

ABOUT = "Serve OpenAI's and Ollama's API, answered by the best listener of a namespace."


@asynccontextmanager
async def open_listener_too(
    settings: GatewaySettings,
    identity: Path,
    events: Bus,
    place: Place,
    membership: DiskMembership | None,
) -> AsyncIterator[Listener | None]:
    """A listener in this process, if there is to be one; at the end it drains.

    It is the same peer as the gateway, with one key and two roles. The gateway serves meanwhile:
    until the backend can answer, the others of the namespace do.
    """
    if not settings.listen_too:
        yield None
        return
    own = settings.listener
    async with open_listener_of(
        own, identity=identity, events=events, waits=False, place=place, membership=membership
    ) as listener:
        yield listener
        await listener.drain()


async def serve(settings: GatewaySettings, shutdown: Shutdown) -> ExitCode:
    """Serve until told to stop."""
    events = open_bus()
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        books = await enter(open_books(settings, events))
        identity = stack.enter_context(claim_identity("gateway", settings.identity))
        place = place_of(settings.network)
        membership = await enter(open_membership_of(place, identity, settings.network))
        listener = await enter(open_listener_too(settings, identity, events, place, membership))
        serving = await enter(
            open_serving(
                settings,
                events=events,
                books=books,
                place=place,
                membership=membership,
                identity=identity,
                listener=listener,
            )
        )
        shutdown.drains = True
        await shutdown.requested.wait()
        # The stream of a dashboard's watcher never ends by itself, and would hold the drain up.
        serving.feed.close()
        log.info("draining; interrupt again to stop at once", requests=serving.under_way)
    log.info("stopped")
    return ExitCode.OK


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program, or the command of `punch` with these *arguments*; its exit code."""
    name = "python -m punch.gateway" if arguments is None else "punch serve"
    return run_program(name, ABOUT, GatewaySettings, serve, arguments, stays=True)


if __name__ == "__main__":
    sys.exit(main())
