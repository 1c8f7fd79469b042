"""The gateway: one OpenAI and Ollama address for all the listeners of a namespace.

``python -m punch.gateway``, or ``punch serve``; ``--help`` has the options.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import attrs
import trio

from .._background import open_background
from .._logs import get_logger
from .._subscribers import open_bus
from ..cli import (
    ExitCode,
    Place,
    Shutdown,
    claim_identity,
    decision_log_path,
    join_lines,
    keys_path,
    open_alias_following,
    open_listener_of,
    open_membership_of,
    open_router_of,
    place_of,
    run_program,
)
from ..cli.splits._on_demand import open_splits_of
from ..cluster.coordinator import OnDemand
from ..dashboard import KeyBook, Newcomers, dashboard_routes, live_routes, open_feed
from ..decision_log import open_decision_log
from ..events import Bus
from ..exceptions import ConfigurationError
from ..listener import Listener
from ..membership import DiskMembership
from ..settings import GatewaySettings
from ._gateway import Gateway, GatewayParts, open_gateway
from ._gateway import GatewaySettings as HttpSettings
from .keys._keys import KeyStore, open_keys
from .keys._quotas import Quotas
from .keys._usage import open_usage
from .server import Limits
from .telemetry._canonical import open_canonical_log
from .telemetry._metrics import metrics_route, open_metrics
from .telemetry._spans import open_spans

log = get_logger("punch.gateway")

# How often a gateway without API keys looks whether one was made, in seconds.
KEY_CHECK_SECONDS = 1.0

ABOUT = "Serve OpenAI's and Ollama's API, answered by the best listener of a namespace."


@asynccontextmanager
async def open_books(settings: GatewaySettings, events: Bus) -> AsyncIterator[KeyStore | None]:
    """The API keys, with their books kept; `None` if there is no file of keys."""
    path = keys_path(settings.keys)
    if settings.keys is None and (settings.open_to_all or not path.exists()):
        if path.exists():
            log.warning("there are API keys, and --open-to-all asks nobody for one", keys=str(path))
        yield None
        return
    async with open_keys(path) as keys, open_usage(keys.database, events=events):
        yield keys


@asynccontextmanager
async def open_lock(
    gateway: Gateway, settings: GatewaySettings, events: Bus, book: KeyBook
) -> AsyncIterator[None]:
    """Ask for API keys as soon as there is one, if the gateway began without any."""
    async with open_background() as nursery:
        nursery.start_soon(_lock_once_keyed, gateway, settings, events, book)
        yield


async def _lock_once_keyed(
    gateway: Gateway, settings: GatewaySettings, events: Bus, book: KeyBook
) -> None:
    path = keys_path(settings.keys)
    while not await trio.to_thread.run_sync(path.exists):  # noqa: ASYNC110 - another process makes it
        await trio.sleep(KEY_CHECK_SECONDS)
    async with open_keys(path) as keys, open_usage(keys.database, events=events):
        gateway.lock(keys)
        book.keys = keys
        log.warning("an API key was made: every request needs one from now on", keys=str(path))
        await trio.sleep_forever()


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


@asynccontextmanager
async def open_splits(
    settings: GatewaySettings, listener: Listener | None, events: Bus
) -> AsyncIterator[OnDemand | None]:
    """The splits that may be started for requests, if there are to be any."""
    if not settings.split:
        yield None
        return
    if listener is None:
        raise ConfigurationError(
            f"{settings.said('split')} needs --listen-too: a split that was started is a lane of "
            "the listener in this process"
        )
    async with open_splits_of(
        settings.split,
        network=settings.network,
        options=settings.splits,
        program=settings.listener.backend.program,
        listener=listener,
        events=events,
    ) as splits:
        yield splits


async def serve(settings: GatewaySettings, shutdown: Shutdown) -> ExitCode:
    """Serve until told to stop."""
    quotas, events = Quotas(), open_bus()
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        keys = await enter(open_books(settings, events))
        book = KeyBook(quotas, keys=keys)
        identity = stack.enter_context(claim_identity("gateway", settings.identity))
        place = place_of(settings.network)
        membership = await enter(open_membership_of(place, identity, settings.network))
        listener = await enter(open_listener_too(settings, identity, events, place, membership))
        # Without a file, too: its lines are the stories that the dashboard shows.
        await enter(open_decision_log(decision_log_path(settings.decision_log), events))
        splits = await enter(open_splits(settings, listener, events))
        router = await enter(
            open_router_of(
                settings,
                identity=identity,
                events=events,
                place=place,
                membership=membership,
                listener=listener,
                startable=() if splits is None else splits.startable,
                start=None if splits is None else splits.start,
            )
        )
        await enter(open_alias_following(router, settings))
        feed = await enter(
            open_feed(
                router,
                events=events,
                show_prompts=settings.show_prompts,
                join=attrs.asdict(join_lines(settings.network, place.home)),
            )
        )
        metrics = await enter(
            open_metrics(
                router,
                events=events,
                waiting=lambda: quotas.statistics().waiting,
                served=lambda: () if listener is None else listener.statistics().members,
            )
        )
        await enter(open_canonical_log(events))
        await enter(open_spans(events, endpoint=settings.traces))
        gateway = await enter(
            open_gateway(
                router,
                GatewayParts(
                    settings=gateway_settings(settings),
                    events=events,
                    keys=keys,
                    quotas=quotas,
                    routes=(
                        *dashboard_routes(
                            feed,
                            decision_log=decision_log_path(settings.decision_log),
                            book=book,
                            newcomers=newcomers_of(settings, place, book),
                        ),
                        *live_routes(feed, events),
                        metrics_route(metrics),
                    ),
                ),
            )
        )
        if keys is None and not settings.open_to_all:
            await enter(open_lock(gateway, settings, events, book))
        log.info(
            "serving",
            url=gateway.url,
            openai=f"{gateway.url}/v1",
            ollama=gateway.ollama_url,
            namespace=str(place),
            keys=keys is not None,
        )
        shutdown.drains = True
        await shutdown.requested.wait()
        # The stream of a dashboard's watcher never ends by itself, and would hold the drain up.
        feed.close()
        log.info("draining; interrupt again to stop at once", requests=gateway.under_way)
    log.info("stopped")
    return ExitCode.OK


def newcomers_of(settings: GatewaySettings, place: Place, book: KeyBook) -> Newcomers | None:
    """Who asks to be let into the namespace, for the dashboard; `None` in an open one."""
    if place.home is None:
        return None
    return Newcomers(
        place.home, has_keys=lambda: book.keys is not None, is_open=settings.open_to_all
    )


def gateway_settings(settings: GatewaySettings) -> HttpSettings:
    """The settings of the HTTP half of the program."""
    return HttpSettings(
        host=settings.host,
        port=settings.port,
        ollama_port=settings.ollama_port,
        open_to_all=settings.open_to_all,
        strict=settings.strict.is_on,
        timeout=settings.timeout,
        store_responses=settings.store_responses,
        any_name=settings.any_name,
        origins=settings.allow_origin,
        limits=attrs.evolve(Limits(), body=settings.body_limit),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program, or the command of `punch` with these *arguments*; its exit code."""
    name = "python -m punch.gateway" if arguments is None else "punch serve"
    return run_program(name, ABOUT, GatewaySettings, serve, arguments, stays=True)


if __name__ == "__main__":
    sys.exit(main())
