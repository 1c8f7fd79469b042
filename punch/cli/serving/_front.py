"""The program of one front of a gateway, which starts it and tells it what to be."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import trio

from ..._subscribers import open_bus
from ...decision_log import open_decision_log
from ...dialer import Router
from ...gateway import Gateway, GatewayParts, open_gateway, open_spans
from ...gateway.fronts import (
    Front,
    SharedClock,
    log_lines_to,
    open_front,
    open_telling,
)
from .._aliases import open_alias_following
from .._exits import ExitCode
from .._identity import claim_identity
from .._namespace import open_membership_of, place_of
from .._router import open_router_of
from .._run import Shutdown, run_supervised
from .._shared import decision_log_path
from ._books import Books, open_books, open_lock
from ._http_settings import http_settings

# How long a front waits for the listeners that the gateway knows, before it accepts connections.
PEERS_SECONDS = 10.0


async def run_front(path: Path, number: int, shutdown: Shutdown) -> ExitCode:
    """Be a front until told to end, or until the gateway is gone."""
    async with open_front(path, number) as front:
        settings = front.start.settings
        with log_lines_to(front.link, settings.log_level):
            await _serve(front, shutdown)
    return ExitCode.OK


async def _serve(front: Front, shutdown: Shutdown) -> None:
    settings, share = front.start.settings, front.start.count
    events = open_bus()
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        books = await enter(open_books(settings, events, share=share))
        # What the gateway was given is its own: two processes of one identity would be one peer.
        identity = stack.enter_context(claim_identity("gateway"))
        place = place_of(settings.network)
        membership = await enter(open_membership_of(place, identity, settings.network))
        await enter(open_decision_log(decision_log_path(settings.decision_log), events))
        router = await enter(
            open_router_of(
                settings, identity=identity, events=events, place=place, membership=membership
            )
        )
        await enter(open_alias_following(router, settings))
        await enter(open_spans(events, endpoint=settings.traces))
        await _until_met(router, front.start.peers)
        await enter(open_telling(front.link, events, prompts=settings.show_prompts))
        gateway = await enter(
            open_gateway(
                router,
                GatewayParts(
                    settings=http_settings(settings, share=share),
                    events=events,
                    keys=books.keys,
                    quotas=books.quotas,
                    shared=front.shared,
                ),
            )
        )
        await enter(open_lock(gateway, settings, events, books, share=share))
        await _until_told(front, gateway, books, shutdown)


async def _until_met(router: Router, peers: int) -> None:
    """Wait until the listeners are known that the gateway knows, for a while."""
    with trio.move_on_after(PEERS_SECONDS):
        await router.wait_for_peers(lambda known: len(known) >= peers)


async def _until_told(front: Front, gateway: Gateway, books: Books, shutdown: Shutdown) -> None:
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await front.serve(gateway)
            # Without the gateway there is nothing to be a front of.
            shutdown.requested.set()

        nursery.start_soon(serve)
        nursery.start_soon(front.report, gateway, books.quotas)
        shutdown.drains = True
        await shutdown.requested.wait()
        front.leave()
        nursery.cancel_scope.cancel()


def main(arguments: list[str]) -> int:
    """Run a front: the gateway's socket, the front's number, and the gateway's clock."""
    path, number, offset = arguments
    program = partial(run_front, Path(path), int(number))
    return run_supervised(program, clock=SharedClock(float(offset)))
