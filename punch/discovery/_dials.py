"""Decides when a listener that others told us of is dialled: few at a time, and fairly.

Anybody can sign any number of registrations, each with addresses of whatever it likes. So

* at most `MAX_DIALS` are under way at a time, each of one address until its listener was met;
* what fails is paid for: by the source that named the listener, by the machine that was dialled and
  by the port there. One that has nothing left waits; what succeeds costs nothing;
* a listener that was met before goes first, then the one that was tried the fewest times; of these
  the one whose machine and port have failed least, and then the oldest and the newest in turn: of
  a thousand that came at once, neither those before nor those after wait for all.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import attrs
import trio

from ..exceptions import ConfigurationError
from ..network import parse_address, site_of

# A connection that is being made is a descriptor and some 200 KB for at most 5 s.
MAX_DIALS = 64

# Failed dials at once, and a second in the long run: a process takes a millisecond or two for each
# that is refused. A thousand listeners that are away are all tried within a quarter of a minute.
SOURCE_BURST, SOURCE_RATE = 128.0, 64.0

# The same for one machine, whoever is said to be there: a household of listeners has a few dozen,
# and nobody becomes a flood for somebody else's machine by being announced a thousand times.
SITE_BURST, SITE_RATE = 64.0, 8.0

# The same for one port there. One listener that is away is dialled eight times in half a minute.
PLACE_BURST, PLACE_RATE = 8.0, 1.0

# Sources, machines and ports that are remembered; those that owe the least are forgotten first.
MAX_ACCOUNTS = 4096

# With many that wait, choosing takes milliseconds: then it is done so seldom, in seconds.
MANY = 64
PAUSE_SECONDS = 0.05


@attrs.define(eq=False)
class _Account:
    """What failed lately, of which *rate* a second is forgotten."""

    burst: float
    rate: float
    owed: float = 0.0
    at: float = -math.inf

    def owes(self, now: float) -> float:
        return max(0.0, self.owed - self.rate * (now - self.at))

    def charge(self, now: float, tries: float = 1.0) -> None:
        self.owed = max(0.0, self.owes(now) + tries)
        self.at = now

    def ready_at(self, now: float) -> float:
        """When the next one may fail."""
        return now + max(0.0, self.owes(now) + 1.0 - self.burst) / self.rate


class Pace:
    """So many at once, and so many a second. No clock: *now* is in seconds.

    Args:
      burst: What may happen at once.
      rate: What may happen a second in the long run.

    """

    def __init__(self, burst: float, rate: float) -> None:
        self._account = _Account(burst, rate)

    def wait(self, now: float) -> float:
        """Count one, and return the seconds to wait for it."""
        seconds = self._account.ready_at(now) - now
        self._account.charge(now)
        return seconds


class Accounts:
    """The accounts of all sources, or all machines, or all ports; bounded."""

    def __init__(self, burst: float, rate: float) -> None:
        self._burst, self._rate = burst, rate
        self._accounts: dict[str, _Account] = {}

    def __len__(self) -> int:
        return len(self._accounts)

    def owes(self, name: str, now: float) -> float:
        account = self._accounts.get(name)
        return 0.0 if account is None else account.owes(now)

    def ready_at(self, name: str, now: float) -> float:
        account = self._accounts.get(name)
        return now if account is None else account.ready_at(now)

    def charge(self, name: str, now: float, tries: float = 1.0) -> None:
        account = self._accounts.get(name)
        if account is None and tries < 0:
            return
        if account is None:
            if len(self._accounts) >= MAX_ACCOUNTS:
                owed = sorted(self._accounts, key=lambda each: self.owes(each, now))
                for each in owed[: MAX_ACCOUNTS // 2]:
                    del self._accounts[each]
            account = self._accounts[name] = _Account(self._burst, self._rate)
        account.charge(now, tries)


@attrs.define(eq=False, kw_only=True)
class Dial:
    """A dial that waits for its turn, or has it."""

    sources: tuple[str, ...]
    """Names of the sources that list the listener."""

    places: tuple[str, ...]
    """Host and port of each address that is to be tried."""

    sites: tuple[str, ...]
    """The machine of each, as far as an address tells."""

    tries: int
    """How often the listener was tried in vain; -1 if it was met before."""

    age: int
    """Grows with each listener that is found."""

    charged: str = ""
    """The source that answers for it."""

    has_failed: bool = False
    """Set by whoever dials: no session came of it."""

    turn: trio.Event = attrs.field(factory=trio.Event)
    """Set when the turn has come."""


class Dials:
    """The turns of all dials of a pool.

    Args:
      limit: Dials at a time.

    """

    def __init__(self, limit: int = MAX_DIALS) -> None:
        self.limit = limit
        self.running = 0
        """Dials under way."""
        self._waiting: set[Dial] = set()
        self._picks = 1
        self._changed = trio.Event()
        self._sources = Accounts(SOURCE_BURST, SOURCE_RATE)
        self._sites = Accounts(SITE_BURST, SITE_RATE)
        self._places = Accounts(PLACE_BURST, PLACE_RATE)

    @property
    def waiting(self) -> int:
        """Dials that wait for their turn."""
        return len(self._waiting)

    @asynccontextmanager
    async def turn(
        self, addresses: Collection[str], *, sources: Collection[str], tries: int, age: int = 0
    ) -> AsyncIterator[Dial]:
        """Wait until *addresses* may be dialled, and have the turn while the context lasts.

        Args:
          addresses: The multiaddresses that will be tried.
          sources: Names of the sources that list the listener.
          tries: How often it was tried in vain; -1 if it was met before.
          age: Grows with each listener that is found: the oldest has the least.

        """
        places, sites = _ends(addresses)
        dial = Dial(
            sources=tuple(sorted(sources)),
            places=places,
            sites=sites,
            tries=tries,
            age=age,
        )
        self._waiting.add(dial)
        self._wake()
        try:
            await dial.turn.wait()
            yield dial
        finally:
            if dial in self._waiting:
                self._waiting.discard(dial)
            else:
                self.running -= 1
                if not dial.has_failed:
                    self._charge(dial, trio.current_time(), tries=-1.0)
                self._wake()

    async def run(self) -> None:
        """Give the turns, for ever."""
        while True:
            self._changed = trio.Event()
            wake_at = self._choose(trio.current_time())
            with trio.move_on_at(wake_at):
                await self._changed.wait()
            if len(self._waiting) >= MANY:
                await trio.sleep(PAUSE_SECONDS)

    def _wake(self) -> None:
        self._changed.set()

    def _choose(self, now: float) -> float:
        """Give the turns that are free; when to look again if nothing happens before."""
        wake_at = math.inf
        ready: list[tuple[tuple[float, ...], Dial]] = []
        if not self._waiting or self.running >= self.limit:
            return wake_at
        for dial in self._waiting:
            ready_at = self._ready_at(dial, now)
            if ready_at > now:
                wake_at = min(wake_at, ready_at)
                continue
            owed = sum(self._sites.owes(site, now) for site in dial.sites)
            there = sum(self._places.owes(place, now) for place in dial.places)
            ready.append(((dial.tries, owed, there), dial))
        ready.sort(key=lambda pair: (pair[0], pair[1].age))
        for _, alike in itertools.groupby(ready, key=lambda pair: pair[0]):
            group = deque(dial for _, dial in alike)
            while group:
                if self.running >= self.limit:
                    return wake_at
                dial = group.popleft() if self._picks % 2 else group.pop()
                if (ready_at := self._ready_at(dial, now)) > now:
                    # What was begun just now has taken what was left.
                    wake_at = min(wake_at, ready_at)
                    continue
                self._picks += 1
                self._waiting.discard(dial)
                self.running += 1
                # Charged at once and given back if it succeeds: what runs may all fail.
                self._charge(dial, now)
                dial.turn.set()
        return wake_at

    def _ready_at(self, dial: Dial, now: float) -> float:
        if dial.tries < 0:
            return now
        ready_at = min((self._sources.ready_at(name, now) for name in dial.sources), default=now)
        for site in dial.sites:
            ready_at = max(ready_at, self._sites.ready_at(site, now))
        for place in dial.places:
            ready_at = max(ready_at, self._places.ready_at(place, now))
        return ready_at

    def _charge(self, dial: Dial, now: float, tries: float = 1.0) -> None:
        for site in dial.sites:
            self._sites.charge(site, now, tries)
        for place in dial.places:
            self._places.charge(place, now, tries)
        if dial.tries >= 0 and dial.sources:
            if tries > 0:
                # One of them answers for it: the one that has most left.
                dial.charged = min(dial.sources, key=lambda each: self._sources.owes(each, now))
            self._sources.charge(dial.charged, now, tries)


def _ends(addresses: Collection[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The places and the machines that *addresses* lead to, each once; loopback is no machine."""
    places: dict[str, None] = {}
    sites: dict[str, None] = {}
    for text in addresses:
        try:
            address = parse_address(text, relayed=True)
        except ConfigurationError:
            continue
        places[address.place] = None
        if not address.is_loopback():
            sites[site_of(address.host)] = None
    return tuple(places), tuple(sites)
