"""Serves what the page shows of the network: machines, connections, sizes, and adopted servers.

What is shown takes the same key as every other request; what changes anything is left to
`Machines`, which asks for more.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from ..adoption import AdoptedServer
from ..exceptions import ConfigurationError, InvalidRequest, NotPermitted
from ._answers import data_of, error_of
from ._feed import Feed
from ._machines import Machines
from ._network import Charted, adopted_rows, sizes, topology

PREFIX = "/api/dashboard"

# Loads are reported every second or so: until then, nothing is known anew.
KEPT_SECONDS = 1.0

# What an open namespace has of machines: everybody who knows its name is in.
_OPEN: dict[str, Any] = {
    "namespace": None,
    "may": False,
    "why_not": None,
    "served": False,
    "members": [],
    "more_members": 0,
    "invites": [],
}


def network_routes(
    feed: Feed,
    *,
    machines: Machines | None,
    router: Charted | None,
    adopted: Callable[[], Sequence[AdoptedServer]],
) -> list[BaseRoute]:
    """The routes for machines, connections, sizes and adopted servers; see `dashboard_routes`."""
    routes: list[BaseRoute] = [
        Route(f"{PREFIX}/members", partial(_members, machines), methods=["GET"]),
        Route(f"{PREFIX}/adopted", partial(_adopted, adopted), methods=["GET"]),
    ]
    if router is not None:
        routes += [
            Route(f"{PREFIX}/topology", partial(_topology, feed, router), methods=["GET"]),
            Route(f"{PREFIX}/sizes", Sizes(router).serve, methods=["GET"]),
        ]
    if machines is not None:
        routes += [
            Route(f"{PREFIX}/invites", partial(_invite, machines), methods=["POST"]),
            Route(
                f"{PREFIX}/invites/{{identifier}}/withdraw",
                partial(_withdraw, machines),
                methods=["POST"],
            ),
            Route(
                f"{PREFIX}/members/{{machine}}/remove",
                partial(_remove, machines),
                methods=["POST"],
            ),
        ]
    return routes


async def _members(machines: Machines | None, request: Request) -> Response:
    if machines is None:
        return data_of(_OPEN)
    try:
        return data_of(await machines.as_data(request))
    except ConfigurationError:
        # The file's name is for the operator, whose log has it.
        return error_of(503, "the files of the namespace cannot be read")


async def _adopted(adopted: Callable[[], Sequence[AdoptedServer]], request: Request) -> Response:
    return data_of({"adopted": adopted_rows(adopted())})


async def _topology(feed: Feed, router: Charted, request: Request) -> Response:
    return data_of(topology(router, feed.splits))


class Sizes:
    """Answers where models would run; pages that ask at once have one answer.

    Args:
      router: What chooses.

    """

    def __init__(self, router: Charted) -> None:
        self._router = router
        self._made_at = -math.inf
        self._made: dict[str, Any] = {}

    async def serve(self, request: Request) -> Response:
        """The models on offer, each beside the places where it would run."""
        now = trio.current_time()
        if now - self._made_at >= KEPT_SECONDS:
            self._made, self._made_at = sizes(self._router, now=now), now
        return data_of(self._made)


# ---- what changes something ----


async def _invite(machines: Machines, request: Request) -> Response:
    return await _done(machines.invite(request))


async def _withdraw(machines: Machines, request: Request) -> Response:
    return await _done(_said(machines.withdraw(request, request.path_params["identifier"])))


async def _remove(machines: Machines, request: Request) -> Response:
    return await _done(_said(machines.remove(request, request.path_params["machine"])))


async def _said(words: Awaitable[str]) -> dict[str, Any]:
    return {"said": await words}


async def _done(change: Awaitable[dict[str, Any]]) -> Response:
    try:
        return data_of(await change)
    except NotPermitted as error:
        return error_of(403, error.message)
    except InvalidRequest as error:
        return error_of(400, error.message)
    except ConfigurationError as error:
        return error_of(409, error.message)
