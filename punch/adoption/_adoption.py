"""Adopts the servers of models that run already: a lane of the listener for each, once.

Known ports of this machine are looked at again and again, and so is what a person has named. What
is adopted is decided by `_verdict`, which addresses are one engine by `_same`, and how a server's
lane comes and goes is left to its `_seat`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import trio

from .._background import open_background
from .._logs import get_logger
from ..backends.openai import Server, open_openai, read_server
from ..exceptions import ConfigurationError
from ..network import own_hosts
from ._given import Given
from ._look import Reach, accepts, look
from ._places import Place
from ._same import engines_at
from ._seat import AdoptedServer, Listens, Opened, Seat, Tools
from ._verdict import Seen

if TYPE_CHECKING:
    from ..backends.openai._client import Transport

log = get_logger(__name__)

# Of one listener, which has at most 64 lanes.
MAX_GIVEN = 48

# A name server that is away answers nothing.
RESOLVE_SECONDS = 3.0

SETTING = "--adopt"


Resolve = Callable[[str], Awaitable[tuple[str, ...]]]
"""``await resolve(host)`` gives the IP addresses of a host; none if it has none now."""


async def addresses_of(host: str) -> tuple[str, ...]:
    """The IP addresses that *host* is looked up to; none if it cannot be."""
    with suppress(OSError, UnicodeError), trio.move_on_after(RESOLVE_SECONDS):
        found = await trio.socket.getaddrinfo(host, None, type=trio.socket.SOCK_STREAM)
        return tuple({str(entry[4][0]) for entry in found})
    return ()


class Adoption:
    """The servers that are adopted, and those that are looked for. Made by `open_adoption`."""

    def __init__(
        self,
        listener: Listens,
        nursery: trio.Nursery,
        *,
        ours: Callable[[], Iterable[str]],
        own: Callable[[], Collection[str]],
        resolve: Resolve,
        reach: Reach,
        transport: Transport | None,
    ) -> None:
        self._listener = listener
        self._nursery = nursery
        self._ours = ours
        self._own = own
        self._resolve = resolve
        self._transport = transport
        self._seats: list[Seat] = []
        self._updating = trio.Lock()
        self._changed = trio.Event()
        self._tools = Tools(
            listener=listener,
            reach=reach,
            look=self._look,
            open=self._open,
            rival=self._rival,
            name=self._name,
            changed=self._tell,
        )

    @property
    def adopted(self) -> tuple[AdoptedServer, ...]:
        """What a person has named, and what was found, whether it could be adopted or not."""
        now = trio.current_time()
        return tuple(seat.told(now) for seat in self._seats if seat.is_worth_telling)

    @property
    def changed(self) -> trio.Event:
        """Set at the next change of `adopted`, seconds left out; another one from then on."""
        return self._changed

    async def update(self, given: Sequence[Given], places: Sequence[Place] = ()) -> None:
        """Adopt *given* and what is found at *places*, and nothing else, from now on.

        What stays as it was is not disturbed, and what is not adopted yet is looked at at once. The
        lanes of what is gone finish what they have begun, for at most 10 s.

        Raises:
          ConfigurationError: if an address makes no sense, or there are too many.

        """
        if len(given) > MAX_GIVEN:
            raise ConfigurationError(
                f"there are {len(given)} servers to adopt; {MAX_GIVEN} are the most: run another "
                "listener for the others"
            )
        servers = [
            read_server(each.url, each.key, url_setting=SETTING, key_setting=f"{SETTING} key")
            for each in given
        ]
        async with self._updating:
            named = [
                await self._named(each, server) for each, server in zip(given, servers, strict=True)
            ]
            wanted = _once([*named, *map(self._found, places)])
            kept = [seat for seat in self._seats if any(map(seat.is_like, wanted))]
            fresh = [seat for seat in wanted if not any(map(seat.is_like, kept))]
            await self._let_go([seat for seat in self._seats if seat not in kept])
            self._seats = [*kept, *fresh]
            self._seats.sort(key=lambda seat: seat.given is None)
            for seat in fresh:
                self._nursery.start_soon(seat.keep, self._tools)
            self.look_now()
            self._tell()

    def look_now(self) -> None:
        """Look at every place at once, also at those that are asked seldom."""
        for seat in self._seats:
            seat.times = 0
            seat.wanted.set()

    async def close(self) -> None:
        """Let go of all servers: their lanes finish what they have begun, for at most 10 s."""
        async with self._updating:
            seats, self._seats = self._seats, []
            await self._let_go(seats)

    async def _let_go(self, seats: Iterable[Seat]) -> None:
        seats = list(seats)
        for seat in seats:
            seat.scope.cancel()
        for seat in seats:
            await seat.ended.wait()

    # ---- which there are ----

    async def _named(self, given: Given, server: Server) -> Seat:
        parts = urlsplit(server.url)
        host = parts.hostname or ""
        engines = engines_at(server.url, own=self._own(), addresses=await self._resolve(host))
        port = parts.port or (443 if parts.scheme == "https" else 80)
        place = Place(port=port, hosts=(host,), program="server")
        return Seat(place=place, server=server, given=given, engines=engines)

    def _found(self, place: Place) -> Seat:
        url = place.url(place.hosts[0])
        engines = engines_at(url, own=self._own())
        return Seat(place=place, server=Server(url=url), given=None, engines=engines)

    async def _rival(self, seat: Seat) -> str | None:
        """Who has the engine of *seat* already, as a person would say it."""
        own = self._own()
        if seat.given is not None and seat.backend is None:
            # A name may be looked up to something else by now.
            host = urlsplit(seat.server.url).hostname or ""
            if addresses := await self._resolve(host):
                seat.engines = engines_at(seat.server.url, own=own, addresses=addresses)
        for url in self._ours():
            if engines_at(url, own=own) & seat.engines:
                return "this punch, or of a lane of its own"
        is_before = True
        for other in self._seats:
            if other is seat:
                # Those behind it give way to it, unless they were first.
                is_before = False
            elif other.engines & seat.engines and (is_before or other.lane is not None):
                return other.server.url
        return None

    # ---- what the seats work with ----

    async def _look(self, server: Server, is_given: bool) -> Seen:
        return await look(server, is_given=is_given, transport=self._transport)

    def _open(self, url: str, given: Given | None) -> Opened:
        given = given or Given(url=url)
        return open_openai(
            url=url,
            api_key=given.key,
            model=given.model,
            slots=given.slots,
            context_tokens=given.context,
            features=given.features,
            gateways=False,
            url_setting=SETTING,
            key_setting=f"{SETTING} key",
            transport=self._transport,
        )

    def _name(self, word: str) -> str:
        taken = {lane.name for lane in self._listener.lanes}
        number = 1
        while (name := word if number == 1 else f"{word}-{number}") in taken:
            number += 1
        return name

    def _tell(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()


def _once(seats: Iterable[Seat]) -> list[Seat]:
    """*seats* without those whose engine another one before them has."""
    kept: list[Seat] = []
    for seat in seats:
        rival = next((other for other in kept if other.engines & seat.engines), None)
        if rival is None:
            kept.append(seat)
        elif seat.given is not None:
            log.warning(
                "two addresses of one server; the first counts",
                url=seat.server.url,
                first=rival.server.url,
            )
    return kept


@asynccontextmanager
async def open_adoption(
    listener: Listens,
    *,
    given: Sequence[Given] = (),
    places: Sequence[Place] = (),
    ours: Callable[[], Iterable[str]] = tuple,
    own: Callable[[], Collection[str]] = own_hosts,
    resolve: Resolve = addresses_of,
    reach: Reach = accepts,
    transport: Transport | None = None,
) -> AsyncIterator[Adoption]:
    """Adopt servers of models for as long as the context lasts; each is a lane of *listener*.

    Returns at once: who is there is found out meanwhile.

    Args:
      listener: Gets the lanes, and loses them when the context ends.
      given: Servers that a person has named, on any machine.
      places: Where to look on this machine, see `places_of`; none to find nothing.
      ours: Gives the addresses that are never adopted: what this process serves itself, and the
        servers that its other lanes use. Asked before each look.
      own: Gives the IP addresses of this machine.
      resolve: Looks up the name of a host.
      reach: Says whether anybody accepts connections.
      transport: In place of the network, for tests.

    Raises:
      ConfigurationError: if an address makes no sense, or there are too many.

    """
    async with open_background() as nursery:
        adoption = Adoption(
            listener,
            nursery,
            ours=ours,
            own=own,
            resolve=resolve,
            reach=reach,
            transport=transport,
        )
        await adoption.update(given, places)
        yield adoption
        await adoption.close()
