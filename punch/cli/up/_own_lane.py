"""Keeps the lane of this machine's own engine, whatever comes and goes.

It waits for a model or an engine that is not there yet, tries one that does not start again with
longer and longer pauses, and looks anew when it is told to: it never ends by itself.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import attrs
import trio

from ..._logs import get_logger
from ...exceptions import PunchError
from ...listener import Listener, Openable, RunningLane
from ...llama_cpp import check_engine, find_engines
from ...machine import Machine
from ...model_store import list_models
from ...settings import BackendSettings, ListenerSettings, cache_folder, data_folder
from .._listener import open_own_backend
from ._engine_choice import Found, NoEngine, OwnEngine, PulledModel, choose_engines

log = get_logger("punch.up")

# How often it is looked whether a model or an engine has come, and whether the lane is well.
LOOK_SECONDS = 2.0

# How often engines are looked for: building one takes ten minutes.
ENGINES_SECONDS = 30.0

# Pauses after an engine that did not start: its reason may take minutes to go away, and starting
# it takes most of a machine.
FIRST_PAUSE_SECONDS = 2.0
MAX_PAUSE_SECONDS = 60.0


class Surroundings:
    """Looks which engines and models are on this machine.

    Models are looked for each time. Engines take a walk through all Python packages, and come
    seldom: for these it is looked now and then, and when a model has come that needs one.
    """

    def __init__(self) -> None:
        self._machine = Machine(models_folder=data_folder())
        self._models: tuple[PulledModel, ...] = ()
        self._servers: tuple[Path, ...] = ()
        self._looked_at = -math.inf

    async def look(self, settings: BackendSettings, anew: bool) -> Found:
        """What there is. An engine beside others is tried once, for seconds, and remembered.

        Args:
          settings: What is said: a program that was named is the only one that counts.
          anew: Whether engines are to be looked for now.

        """
        models = await trio.to_thread.run_sync(_pulled)
        memory = self._machine.sample().memory_total_bytes
        if settings.program is not None:
            return Found(models=models, memory_bytes=memory)
        now = trio.current_time()
        if anew or models != self._models or now >= self._looked_at + ENGINES_SECONDS:
            tries = bool(models) or settings.model is not None
            self._models, self._servers = models, await _servers(tries=tries)
            self._looked_at = now
        return Found(
            models=models,
            memory_bytes=memory,
            servers=self._servers,
            is_embedded=find_spec("xllamacpp") is not None,
            has_binding=find_spec("llama_cpp") is not None,
        )


def _pulled() -> tuple[PulledModel, ...]:
    listed = list_models(data_folder() / "models", cache_folder=cache_folder())
    return tuple(
        PulledModel(
            path=each.path,
            file_bytes=each.model.file_bytes,
            chats="chat" in each.model.header.features,
        )
        for each in listed
        if each.model is not None
    )


async def _servers(*, tries: bool) -> tuple[Path, ...]:
    """The programs that serve a model, the fastest first if there are several and it matters."""
    found = partial(find_engines, cache_folder=cache_folder())
    engines = [one for one in await trio.to_thread.run_sync(found) if one.server is not None]
    if len(engines) < 2 or not tries:
        return tuple(one.server for one in engines if one.server is not None)
    rated: list[tuple[float, Path]] = []
    for one in engines:
        check = await check_engine(one, cache_folder=cache_folder(), is_kept=True)
        if check.makes_tokens and one.server is not None:
            rated.append((check.seconds or float("inf"), one.server))
    return tuple(server for _, server in sorted(rated))


class OwnLane:
    """The lane of this machine's own engine.

    Args:
      settings: What is said of it.
      look: Says what there is on this machine, as `Surroundings.look`.
      opens: Opens the backend of an engine.

    """

    def __init__(
        self,
        settings: ListenerSettings,
        *,
        look: Callable[[BackendSettings, bool], Awaitable[Found]] | None = None,
        opens: Callable[[ListenerSettings], Openable] = open_own_backend,
    ) -> None:
        self.settings = settings
        self._look = look or Surroundings().look
        self._opens = opens
        self._anew = trio.Event()
        self.lane: RunningLane | None = None
        """The lane; `None` while there is none."""
        self.engine: OwnEngine | None = None
        """What runs in it, or is being started."""
        self.missing: NoEngine | None = None
        """What this machine lacks to run a model itself."""
        self.troubles: tuple[str, ...] = ()
        """Why each engine that was tried does not run."""

    @property
    def is_starting(self) -> bool:
        """Whether an engine is being started now."""
        return self.engine is not None and self.lane is None

    def look_anew(self, settings: ListenerSettings | None = None) -> None:
        """Choose once more, by other *settings* if given; a lane that is still right stays."""
        if settings is not None:
            self.settings = settings
        self._anew.set()

    async def run(self, listener: Listener) -> None:
        """Give *listener* its lane, for as long as this is not cancelled."""
        pause = FIRST_PAUSE_SECONDS
        # A listener of its own: what the one before had went with it.
        self.lane = self.engine = None
        while True:
            anew, self._anew = self._anew.is_set(), trio.Event()
            backend = self.settings.backend
            chosen = choose_engines(backend, await self._look(backend, anew))
            if isinstance(chosen, NoEngine):
                self.missing, self.troubles = chosen, ()
                await self._wait(LOOK_SECONDS)
                continue
            self.missing = None
            if await self._start(listener, chosen):
                pause = FIRST_PAUSE_SECONDS
                await self._keep(listener)
            else:
                await self._wait(pause)
                pause = min(2 * pause, MAX_PAUSE_SECONDS)

    async def _start(self, listener: Listener, engines: tuple[OwnEngine, ...]) -> bool:
        """Open the first of *engines* that starts; whether one did."""
        troubles = []
        for engine in engines:
            self.engine = engine
            settings = attrs.evolve(self.settings, backend=engine.settings)
            try:
                self.lane = await listener.add(self._opens(settings))
            except PunchError as error:
                trouble = f"{engine.settings.name}: {error.message}"
                troubles.append(trouble)
                # Each try would say the same again.
                if trouble not in self.troubles:
                    backend = engine.settings.name
                    log.warning("an engine does not start", backend=backend, why=error.message)
            else:
                self.troubles = ()
                return True
        self.engine, self.troubles = None, tuple(troubles)
        return False

    async def _keep(self, listener: Listener) -> None:
        """Wait until the lane is over, or another one is to be chosen; then take it away."""
        lane, engine = self.lane, self.engine
        assert lane is not None
        while lane.state != "failed":
            if await self._wait(LOOK_SECONDS):
                self._anew = trio.Event()
                backend = self.settings.backend
                chosen = choose_engines(backend, await self._look(backend, True))
                if isinstance(chosen, NoEngine) or engine not in chosen:
                    break
        await listener.remove(lane)
        self.lane = self.engine = None

    async def _wait(self, seconds: float) -> bool:
        """Wait; whether it was cut short, since it is to be looked anew."""
        with trio.move_on_after(seconds):
            await self._anew.wait()
        return self._anew.is_set()
