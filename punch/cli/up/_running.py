"""`RunningUp`: a listener, a gateway and a meeting point in one namespace, until it is told to end.

It opens what it is made of, and opens it anew where it is moved into another namespace or its
settings have changed: what was begun is finished first, and the address for programs stays.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs
import trio

from ..._background import open_background
from ..._logs import get_logger
from ...exceptions import PunchError
from ...membership import Home
from .._namespace import Place, namespaces_folder
from .._output import plain
from .._run import Shutdown
from ..adopting._wanted import wanted as wanted_servers
from ..serving import Serving
from ._lending import Lending
from ._namespaces import KnownMembers, drop_unused, find_place, mark_last
from ._next_machine import tell_next
from ._opened import Opened, Target, open_target
from ._own_lane import OwnLane
from ._status import State, Status
from ._status_of import status_of
from ._up_settings import UpSettings
from ._words import news, opening_lines

log = get_logger("punch.up")

# How often it is looked what has come and gone, for those who watch the terminal.
WATCH_SECONDS = 0.5


def say(line: str) -> None:
    """Print a line for people."""
    print(plain(line), flush=True)


@attrs.define(eq=False)
class Move:
    """A change of what `up` is, that somebody waits for."""

    target: Target
    """What it is to become."""

    done: trio.Event = attrs.field(factory=trio.Event)
    """Set once it is, or could not."""

    error: PunchError | None = None
    """Why it could not, and is what it was."""

    dropped: tuple[str, ...] = ()
    """Namespaces that were dropped, since nobody else was in them."""


class RunningUp:
    """A `punch up` that runs.

    Args:
      settings: Its settings.
      folder: Where the namespaces of this machine are kept.
      tell: Prints a line for people.

    """

    def __init__(
        self,
        settings: UpSettings,
        *,
        folder: Path | None = None,
        tell: Callable[[str], None] = say,
    ) -> None:
        self._settings = settings
        self._folder = folder or namespaces_folder()
        self._tell = tell
        self._state: State = "starting"
        self._own = OwnLane(settings.listener)
        self._lending = Lending()
        self._open: Opened | None = None
        self._known = KnownMembers()
        self._move: Move | None = None
        self._wanted = trio.Event()

    # ---- what it is ----

    @property
    def settings(self) -> UpSettings:
        """The settings that it goes by."""
        return self._settings

    @property
    def serving(self) -> Serving | None:
        """What serves; `None` while nothing does."""
        return None if self._open is None else self._open.serving

    @property
    def place(self) -> Place | None:
        """The namespace that it is in; `None` while it is in none."""
        return None if self._open is None else self._open.target.place

    @property
    def opened(self) -> Opened | None:
        """All that is open; `None` while nothing is."""
        return self._open

    def keep(self, settings: UpSettings) -> None:
        """Go by *settings* from now on, which all that is open does already."""
        self._settings = settings

    def status(self) -> Status:
        """What it is now."""
        return status_of(
            self._open,
            state=self._state,
            own=self._own,
            lending=self._lending,
            known=self._known.members,
            now=trio.current_time(),
        )

    # ---- what is asked of it ----

    async def reload(self, settings: UpSettings) -> None:
        """Go by other *settings*: engines and adopted servers change alone, all else opens anew.

        Raises:
          PunchError: if it cannot be done; it goes by those that it had then.

        """
        before, network = self._settings, settings.network
        backend, adopting = settings.listener.backend, settings.adopting
        listener = attrs.evolve(before.listener, backend=backend)
        if self._open is None or settings == attrs.evolve(
            before, listener=listener, adopting=adopting
        ):
            if self._open is not None:
                is_closed = self._open.target.place.home is not None
                given, places = wanted_servers(adopting, is_closed=is_closed)
                await self._open.adoption.update(given, places)
            self._settings = settings
            self._own.look_anew(settings.listener)
            return
        place = self._open.target.place
        is_new = self._open.target.is_new
        if network != before.network:
            place, is_new = find_place(network, folder=self._folder)
        await self._become(Target(settings=settings, place=place, is_new=is_new))

    async def join(self, home: Home) -> tuple[str, ...]:
        """Move into *home*, which this machine has joined.

        Returns:
          The namespaces that were dropped: `up` had made them, and nobody else was there.

        Raises:
          PunchError: if it cannot be opened; it is where it was then.

        """
        here = None if self.place is None else self.place.home
        if here is not None and here.namespace == home.namespace:
            return ()
        place = Place(name=home.namespace.name, home=home)
        move = await self._become(Target(settings=self._settings, place=place))
        return move.dropped

    async def _become(self, target: Target) -> Move:
        while self._move is not None:
            await self._move.done.wait()
        move = self._move = Move(target=target)
        self._wanted.set()
        await move.done.wait()
        if move.error is not None:
            raise move.error
        return move

    # ---- what it does ----

    async def run(self, shutdown: Shutdown, home: Home | None = None) -> None:
        """Serve until told to end.

        Args:
          shutdown: Says when.
          home: The namespace to be in, if another one was joined; by default as the settings say.

        Raises:
          PunchError: if it cannot start, or may be in its namespace no longer.

        """
        if home is not None:
            target = Target(
                settings=self._settings, place=Place(name=home.namespace.name, home=home)
            )
            move: Move | None = Move(target=target)
        else:
            place, is_new = find_place(self._settings.network, folder=self._folder)
            target = Target(settings=self._settings, place=place, is_new=is_new)
            # What was joined while none ran is moved into now, from what the last one had made.
            is_said = self._settings.network.origin("namespace").layer != "default"
            move = None if is_new or is_said else Move(target=target)
        before = None
        while True:
            try:
                wanted = await self._serve(target, shutdown, move)
            except PunchError as error:
                if before is None or move is None or move.done.is_set():
                    raise
                log.warning("it stays as it was", why=error.message)
                target, move.error, before = before, error, None
                self._finish(move)
                move = None
                continue
            if wanted is None:
                return
            before, target, move = target, wanted.target, wanted

    def _finish(self, move: Move) -> None:
        if self._move is move:
            self._move = None
        move.done.set()

    async def _serve(self, target: Target, shutdown: Shutdown, move: Move | None) -> Move | None:
        """Be *target* until told to end, or to become something else: that."""
        self._wanted = trio.Event()
        if self._move is not None and self._move is not move:
            # Asked for while nothing was open yet.
            self._wanted.set()
        async with open_target(target, self._own, self._lending) as now:
            self._known.follow(target.place.home)
            await self._known.look()
            # At one moment: whoever sees its addresses takes it for up.
            self._open, self._settings, self._state = now, target.settings, "serving"
            shutdown.drains = True
            if move is not None and target.place.home is not None:
                mark_last(target.place.home, folder=self._folder)
                move.dropped = await drop_unused(folder=self._folder, but=target.place.home)
            for line in opening_lines(self.status()):
                self._tell(line)
            if move is not None:
                for name in move.dropped:
                    self._tell(f"{name} was dropped: nobody else was in it")
                self._finish(move)
            try:
                async with open_background() as nursery:
                    nursery.start_soon(self._watch, now)
                    await self._until_wanted(shutdown)
            finally:
                self._open = None
            wanted = None if shutdown.requested.is_set() else self._move
            self._state = "draining" if wanted is None else "moving"
            # The stream of a dashboard's watcher never ends by itself, and would hold the drain up.
            now.serving.feed.close()
            log.info(
                "draining; interrupt again to stop at once",
                requests=now.serving.under_way,
            )
        return wanted

    async def _until_wanted(self, shutdown: Shutdown) -> None:
        async with trio.open_nursery() as nursery:

            async def watch(event: trio.Event) -> None:
                await event.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch, shutdown.requested)
            nursery.start_soon(watch, self._wanted)

    async def _watch(self, now: Opened) -> None:
        """Tell people what comes and goes, and what the next machine types once it can be told."""
        told, is_next_told = Status(state="serving", process=0, version=""), False
        while True:
            await self._known.look()
            status = self.status()
            if not is_next_told:
                is_next_told = await tell_next(
                    status, now.target.place, now.target.settings.network, self._tell
                )
            for line in news(told, status):
                self._tell(line)
            told = status
            await trio.sleep(WATCH_SECONDS)
