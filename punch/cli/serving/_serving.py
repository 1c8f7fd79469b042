"""Opens the gateway that settings describe, over a router, with all that looks at it.

The listener beside it is opened by who calls, with whatever lanes, and so are its identity and its
membership: the gateway, the router and the listener of a process are one peer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs

from ..._logs import get_logger
from ...adoption import AdoptedServer
from ...cluster.coordinator import OnDemand
from ...dashboard import (
    Feed,
    Machines,
    Newcomers,
    Rights,
    dashboard_routes,
    live_routes,
    open_feed,
)
from ...decision_log import open_decision_log
from ...dialer import Router
from ...events import Bus
from ...exceptions import ConfigurationError
from ...gateway import (
    Gateway,
    GatewayParts,
    Shared,
    metrics_route,
    open_canonical_log,
    open_gateway,
    open_metrics,
    open_spans,
)
from ...gateway.fronts import Switchboard
from ...listener import Listener
from ...membership import DiskMembership
from ...settings import GatewaySettings
from .._aliases import open_alias_following
from .._namespace import Place
from .._router import open_router_of
from .._shared import decision_log_path, join_lines
from ..splits._on_demand import open_splits_of
from ._books import Books, open_lock
from ._fronts import check_processes, open_fronts
from ._http_settings import http_settings

log = get_logger("punch.gateway")


@attrs.frozen(kw_only=True)
class Serving:
    """A gateway that serves, and the parts that stand behind it."""

    gateway: Gateway
    """The HTTP front."""

    router: Router
    """What chooses who answers."""

    listener: Listener | None
    """The listener in this process; `None` if there is none."""

    feed: Feed
    """What the dashboard shows. Its streams never end by themselves: close it before a drain."""

    fronts: Switchboard | None = None
    """Leads to the processes that serve HTTP; `None` if this one does."""

    @property
    def under_way(self) -> int:
        """How many requests are being answered."""
        return self.gateway.under_way if self.fronts is None else self.fronts.under_way


@asynccontextmanager
async def open_serving(
    settings: GatewaySettings,
    *,
    events: Bus,
    books: Books,
    place: Place,
    membership: DiskMembership | None,
    identity: Path,
    listener: Listener | None,
    routes: Sequence[Any] = (),
    adopted: Callable[[], Sequence[AdoptedServer]] = tuple,
) -> AsyncIterator[Serving]:
    """Serve the namespace over HTTP, for as long as the context lasts.

    Args:
      settings: Where and for whom; its `listen_too` and `listener` are the caller's to follow.
      events: Where everything publishes what it does, the *listener* too.
      books: The API keys and their quotas, of `open_books`.
      place: The namespace.
      membership: Of this process in a closed namespace.
      identity: File with the key of this process, which *listener* has, too.
      listener: A listener of this process, with any lanes, none included; `None` for none.
      routes: Further routes of Starlette, before the gateway's own.
      adopted: Gives the servers of others that *listener* has lanes of, for the dashboard.

    Raises:
      ConfigurationError: if a setting makes no sense.
      NetworkError: if a port is in use.

    """
    check_processes(settings)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        decisions = decision_log_path(settings.decision_log)
        book, home = books.book, place.home
        rights = Rights(has_keys=lambda: book.keys is not None, is_open=settings.open_to_all)
        # Without a file, too: its lines are the stories that the dashboard shows.
        await enter(open_decision_log(decisions, events))
        splits = await enter(_open_splits(settings, listener, events))
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
        switchboard = None
        if settings.processes > 1:
            switchboard = Switchboard(
                settings.processes,
                settings=settings,
                events=events,
                peers=lambda: len(router.peers),
            )
            book.quotas = switchboard
        metrics = await enter(
            open_metrics(
                router,
                events=events,
                waiting=lambda: book.quotas.statistics().waiting,
                served=lambda: () if listener is None else listener.statistics().members,
            )
        )
        await enter(open_canonical_log(events))
        await enter(open_spans(events, endpoint=settings.traces))
        gateway = await enter(
            open_gateway(
                router,
                GatewayParts(
                    settings=http_settings(settings),
                    events=events,
                    keys=books.keys,
                    quotas=books.quotas,
                    shared=_shared_with(switchboard),
                    routes=(
                        *routes,
                        *dashboard_routes(
                            feed,
                            decision_log=decisions,
                            book=book,
                            newcomers=None if home is None else Newcomers(home, rights=rights),
                            machines=None if home is None else Machines(home, rights=rights),
                            router=router,
                            adopted=adopted,
                        ),
                        *live_routes(feed, events),
                        metrics_route(metrics),
                    ),
                ),
            )
        )
        await enter(open_lock(gateway, settings, events, books))
        if switchboard is not None:
            await enter(open_fronts(settings, gateway, switchboard))
        log.info(
            "serving",
            url=gateway.url,
            openai=f"{gateway.url}/v1",
            ollama=gateway.ollama_url,
            namespace=str(place),
            keys=books.keys is not None,
        )
        yield Serving(
            gateway=gateway, router=router, listener=listener, feed=feed, fronts=switchboard
        )


def _shared_with(switchboard: Switchboard | None) -> Shared:
    """What the gateway of this process leaves to its fronts: all that asks a model."""
    if switchboard is None:
        return Shared()
    return Shared(accepts=False, hand_over=switchboard.hand_over)


@asynccontextmanager
async def _open_splits(
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
