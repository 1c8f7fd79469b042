"""Who asks to be let into the closed namespace, and what a person at the page decides of it.

The same files as those of `punch members approve` and `refuse`. Who may decide is left to
`_rights`; others are shown who asks, and where it is to be decided.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import trio
from starlette.requests import Request

from ..exceptions import ConfigurationError, NotPermitted
from ..membership import (
    Home,
    NearbyRequest,
    approve_newcomer,
    decided_words,
    read_requests,
    refuse_newcomer,
    shown_digits,
)
from ._rights import Rights

DECISIONS = {"approve": approve_newcomer, "refuse": refuse_newcomer}


class Newcomers:
    """Shows the requests of one namespace, and decides them.

    Args:
      home: The namespace.
      rights: Who may decide.
      wall: The time, in seconds since 1970.

    """

    def __init__(
        self,
        home: Home,
        *,
        rights: Rights | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._home = home
        self._rights = rights or Rights()
        self._wall = wall
        # Pages that ask often keep one thread busy, and no more.
        self._reading = trio.CapacityLimiter(1)

    async def as_data(self, request: Request) -> dict[str, Any]:
        """What the page shows; see `NearbyRequest`.

        Raises:
          ConfigurationError: if the files of the namespace are damaged.

        """

        def read() -> tuple[tuple[NearbyRequest, ...], str | None]:
            hindrance = self._hindrance(request, is_admin=self._home.is_admin)
            return read_requests(self._home, now=self._wall()), hindrance

        found, hindrance = await trio.to_thread.run_sync(read, limiter=self._reading)
        return {
            "namespace": str(self._home.namespace),
            "may": hindrance is None,
            "why_not": hindrance,
            "newcomers": [self._row(each) for each in found],
        }

    def _row(self, request: NearbyRequest) -> dict[str, Any]:
        return {
            "id": request.identifier,
            "name": request.name,
            "digits": shown_digits(request.digits),
            "host": request.host,
            "state": request.state,
            "seconds": max(0, round(request.ends - self._wall())),
            "said": decided_words(self._home, request),
        }

    def _hindrance(self, request: Request, *, is_admin: bool) -> str | None:
        """Why this request may decide nothing; `None` if it may."""
        return self._rights.hindrance(request, is_admin=is_admin, command="punch members approve")

    async def decide(self, request: Request, what: str, identifier: str, digits: str) -> str:
        """Do *what* people have decided of a request that shows *digits*; says what was done.

        Raises:
          NotPermitted: if it is not for this request to decide.
          ConfigurationError: if the request has ended, or shows other digits.

        """

        def decide() -> str:
            hindrance = self._hindrance(request, is_admin=self._home.is_admin)
            if hindrance is not None:
                raise NotPermitted(hindrance)
            found = [
                each
                for each in read_requests(self._home, now=self._wall())
                if each.identifier == identifier and each.digits == digits
            ]
            if not found:
                raise ConfigurationError("it does not ask any more: it has to ask anew")
            return decided_words(self._home, DECISIONS[what](self._home, found[0]))

        return await trio.to_thread.run_sync(decide, limiter=self._reading)
