"""One place or named server: looked at until a server of models is there, then a lane of it.

The lane waits for its server, reads its models again and again, and rests while the server is
away, all by itself: see `punch.backends.open_openai`. A seat adds the lane, and removes it when the
server was away for long; then it looks again.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol

import attrs
import trio

from .._logs import get_logger
from ..backends.openai import OpenAIBackend, Server
from ..exceptions import PunchError
from ..listener import RunningLane
from ._given import Given
from ._places import Place
from ._same import Engine
from ._verdict import WORDS, Seen, pause_after

log = get_logger(__name__)

# A program that is restarted, or updated, is there again by then. Its lane rests meanwhile; one
# that rests for ever is a promise that nobody keeps.
GONE_SECONDS = 120.0

State = Literal["looking", "ready", "starting", "resting", "left alone"]

# What a lane is called by what its server says that it is; the address stays on this machine.
NAMES = {"llama_cpp": "llama-server", "lm_studio": "lm-studio", "other": "server", None: "server"}

Opened = AbstractAsyncContextManager[OpenAIBackend]


class Listens(Protocol):
    """What lanes are added to: a `punch.Listener`."""

    @property
    def lanes(self) -> tuple[RunningLane, ...]:
        """Its lanes."""
        ...

    async def add(self, backend: OpenAIBackend, *, name: str | None = None) -> RunningLane:
        """Answer with *backend* too."""
        ...

    async def remove(self, lane: RunningLane) -> None:
        """Answer with it no more."""
        ...


@attrs.frozen(kw_only=True)
class AdoptedServer:
    """A server that is not ours, and what became of it."""

    url: str
    """Its address; without user, password and key."""

    program: str
    """Which program it is: as it says itself, else those that are usually there."""

    how: Literal["found", "named"]
    """Whether punch has found it, or a person has named it."""

    state: State
    """``looking`` until it is there, ``left alone`` if it cannot be adopted; else its lane's."""

    reason: str | None
    """Why it is not ready."""

    models: tuple[str, ...]
    """Names of the models that are offered of it."""

    lane: str | None
    """Id of its lane; `None` while it has none."""

    seconds: float
    """Seconds for which the state has been this one."""


@attrs.frozen(kw_only=True)
class Tools:
    """What a seat works with."""

    listener: Listens
    """Where the lanes are."""

    reach: Callable[[str, int], Awaitable[bool]]
    """See `_look.Reach`."""

    look: Callable[[Server, bool], Awaitable[Seen]]
    """Says what answers at a server; the second argument is whether a person has named it."""

    open: Callable[[str, Given | None], Opened]
    """Opens the backend of a server."""

    rival: Callable[[Seat], Awaitable[str | None]]
    """Says who has the engine of a seat already, if anybody has."""

    name: Callable[[str], str]
    """Makes of a word the name of a lane that no other has."""

    changed: Callable[[], None]
    """Called after every change of what is told."""


@attrs.define(eq=False, kw_only=True)
class Seat:
    """A place or a named server, and how it is there."""

    place: Place
    """Where it is looked for."""

    server: Server
    """The address, with what the server wants to see."""

    given: Given | None
    """What a person has said of it; `None` if it is only looked for."""

    engines: frozenset[Engine]
    """The ways of saying which engine it is."""

    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    ended: trio.Event = attrs.field(factory=trio.Event)
    wanted: trio.Event = attrs.field(factory=trio.Event)
    """Set to look at once."""

    lane: RunningLane | None = None
    backend: OpenAIBackend | None = None
    seen: Seen = "nothing"
    times: int = 0
    rival: str | None = None
    trouble: str | None = None
    since: float = attrs.field(factory=trio.current_time)
    _told: tuple[object, ...] = ()

    def is_like(self, other: Seat) -> bool:
        """Whether the other one is looked for at the same place, in the same way."""
        return self.place == other.place and self.given == other.given

    # ---- what is told of it ----

    @property
    def state(self) -> State:
        """See `AdoptedServer.state`."""
        if self.backend is None:
            is_known = self.seen in ("other", "locked", "gateway") or self.rival or self.trouble
            return "left alone" if is_known else "looking"
        state = self.backend.state
        return "ready" if state == "ready" else "starting" if state == "starting" else "resting"

    @property
    def reason(self) -> str | None:
        """See `AdoptedServer.reason`."""
        if self.backend is not None:
            return self.backend.reason
        if self.rival is not None:
            return f"it is the engine of {self.rival}"
        return self.trouble or WORDS[self.seen]

    @property
    def is_worth_telling(self) -> bool:
        """Whether people want to hear of it: of a usual port where nobody is they do not."""
        return self.given is not None or self.backend is not None or self.seen != "nothing"

    def told(self, now: float) -> AdoptedServer:
        """The seat, as others are told of it at *now*."""
        program = self.backend.program if self.backend is not None else None
        return AdoptedServer(
            url=self.server.url,
            program=self.place.program if program is None else NAMES.get(program, program),
            how="found" if self.given is None else "named",
            state=self.state,
            reason=self.reason,
            models=() if self.backend is None else tuple(o.name for o in self.backend.offers),
            lane=None if self.lane is None else self.lane.id,
            seconds=now - self.since,
        )

    # ---- what it does ----

    async def keep(self, tools: Tools) -> None:
        """Look, adopt, and let go again, until cancelled."""
        try:
            with self.scope:
                while True:
                    if await self._look(tools):
                        await self._adopt(tools)
                    pause = pause_after(self.seen, self.times, is_given=self.given is not None)
                    self.wanted = trio.Event()
                    with trio.move_on_after(pause):
                        await self.wanted.wait()
        finally:
            self.ended.set()

    async def _look(self, tools: Tools) -> bool:
        """Look once; whether a server is there that is to be adopted."""
        rival = await tools.rival(self)
        if rival is None:
            seen: Seen = "nothing"
            for host in self.place.hosts:
                if await tools.reach(host, self.place.port):
                    if self.given is None:
                        self.server = Server(url=self.place.url(host))
                    seen = await tools.look(self.server, self.given is not None)
                    break
            self.times = self.times + 1 if seen == self.seen else 0
            self.seen = seen
        self.rival = rival
        self._tell(tools)
        return rival is None and self.seen == "models"

    async def _adopt(self, tools: Tools) -> None:
        """Have a lane of the server until it was away for long."""
        try:
            async with tools.open(self.server.url, self.given) as backend:
                word = NAMES.get(backend.program, backend.program or "server")
                lane = await tools.listener.add(backend, name=tools.name(word))
                self.lane, self.backend, self.trouble = lane, backend, None
                log.info(
                    "adopted a server", url=self.server.url, lane=lane.id, how=self.told(0.0).how
                )
                await self._answer(backend, lane, tools)
        except PunchError as error:
            self.trouble, self.seen, self.times = error.message, "other", self.times + 1
        else:
            self.seen, self.times = "nothing", 0
        self._tell(tools)

    async def _answer(self, backend: OpenAIBackend, lane: RunningLane, tools: Tools) -> None:
        """Keep *lane* while its server is there, or may come back soon; then remove it."""
        try:
            await self._until_gone(backend, tools)
        finally:
            self.lane = self.backend = None
            # Where all ends at once the listener does that, and waits for nobody.
            if self.scope.cancel_called or trio.current_effective_deadline() > -math.inf:
                with trio.CancelScope(shield=True):
                    await tools.listener.remove(lane)
                log.info("let go of a server", url=self.server.url, lane=lane.id)

    async def _until_gone(self, backend: OpenAIBackend, tools: Tools) -> None:
        while True:
            change = backend.changed
            self._tell(tools)
            if backend.is_there:
                await change.wait()
                continue
            with trio.move_on_after(GONE_SECONDS) as patience:
                while not backend.is_there:
                    await backend.changed.wait()
                    self._tell(tools)
            if patience.cancelled_caught:
                return

    def _tell(self, tools: Tools) -> None:
        """Say what has changed, once."""
        models = () if self.backend is None else self.backend.offers
        before, self._told = self._told, (self.state, self.reason, self.lane, models)
        if before == self._told:
            return
        if before[:1] != self._told[:1]:
            self.since = trio.current_time()
        if self.state == "left alone" and before[:2] != self._told[:2]:
            log.warning("left a server alone", url=self.server.url, why=self.reason)
        tools.changed()
