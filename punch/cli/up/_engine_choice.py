"""Decides which engine of this machine's own `punch up` runs, and with which model.

What the settings say is taken as it is, the mock only where it is named. Otherwise the best real
engine runs the largest model that was pulled and fits; without one, what is missing is said with
the command that gets it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs

from ...settings import BackendSettings

# The share of this machine's memory that the file of a model may have: its context, and what else
# runs here, take the rest.
MAX_MEMORY_SHARE = 0.7


@attrs.frozen(kw_only=True)
class PulledModel:
    """A model file that can be used."""

    path: Path
    """The file."""

    file_bytes: int
    """Its size, in bytes."""

    chats: bool
    """Whether it answers chats; others continue texts, or embed."""


@attrs.frozen(kw_only=True)
class Found:
    """What there is on this machine."""

    models: tuple[PulledModel, ...] = ()
    """The models that were pulled."""

    memory_bytes: int | None = None
    """Main memory in all; `None` if it cannot be measured."""

    servers: tuple[Path, ...] = ()
    """The programs llama-server, the fastest first."""

    is_embedded: bool = False
    """Whether the engine inside this Python is installed."""

    has_binding: bool = False
    """Whether llama-cpp-python is installed."""

    @property
    def has_engine(self) -> bool:
        """Whether anything could run a model."""
        return bool(self.servers) or self.is_embedded or self.has_binding


@attrs.frozen(kw_only=True)
class OwnEngine:
    """An engine to open."""

    settings: BackendSettings
    """What to open."""

    why: str
    """What made it this one, for people."""


@attrs.frozen(kw_only=True)
class NoEngine:
    """Nothing that this machine could run itself."""

    what: str
    """What is missing."""

    remedy: str
    """The command that brings it."""


PULL = "punch models pull smollm2"
"""Brings a small model."""

INSTALL = "punch engine install"
"""Brings an engine."""


def choose_engines(settings: BackendSettings, found: Found) -> tuple[OwnEngine, ...] | NoEngine:
    """The engines to try, the best first, or what is missing for there to be any.

    Args:
      settings: What is said.
      found: What there is.

    """
    if settings.origin("name").layer != "default":
        said = settings.said("name")
        return (OwnEngine(settings=settings, why=f"{said} says {settings.name}"),)
    if settings.program is not None:
        named = attrs.evolve(settings, name="llama_cpp")
        if named.model is None:
            model = best_model(found.models, found.memory_bytes)
            if model is None:
                return NoEngine(what="a model", remedy=PULL)
            named = attrs.evolve(named, model=str(model.path))
        why = f"{settings.said('program')} names the program"
        return (OwnEngine(settings=named, why=why),)
    if settings.model is None and settings.openai_url is not None:
        server = attrs.evolve(settings, name="openai")
        return (OwnEngine(settings=server, why=f"{settings.said('openai_url')} names a server"),)
    if settings.model is None:
        model = best_model(found.models, found.memory_bytes)
        if model is None or not found.has_engine:
            return _nothing(found)
        settings = attrs.evolve(settings, model=str(model.path))
    elif not found.has_engine:
        return _nothing(found, is_model_said=True)
    return tuple(_engines(settings, found))


def _engines(settings: BackendSettings, found: Found) -> list[OwnEngine]:
    engines = [
        OwnEngine(
            settings=attrs.evolve(settings, name="llama_cpp", program=str(server)),
            why=f"{server} is there",
        )
        for server in found.servers
    ]
    if found.is_embedded:
        engine = attrs.evolve(settings, name="embedded")
        engines.append(OwnEngine(settings=engine, why="the embedded engine is installed"))
    if found.has_binding:
        engine = attrs.evolve(settings, name="llama_cpp_python")
        engines.append(OwnEngine(settings=engine, why="llama-cpp-python is installed"))
    return engines


def best_model(models: Sequence[PulledModel], memory_bytes: int | None) -> PulledModel | None:
    """The largest that chats and fits; where none fits, the smallest."""
    wanted = [each for each in models if each.chats] or list(models)
    if not wanted:
        return None
    by_size = sorted(wanted, key=lambda each: (each.file_bytes, each.path.name))
    most = None if memory_bytes is None else memory_bytes * MAX_MEMORY_SHARE
    fitting = [each for each in by_size if most is None or each.file_bytes <= most]
    return fitting[-1] if fitting else by_size[0]


def _nothing(found: Found, *, is_model_said: bool = False) -> NoEngine:
    has_model = is_model_said or bool(found.models)
    if found.has_engine:
        return NoEngine(what="a model", remedy=PULL)
    if has_model:
        return NoEngine(what="an engine for its model", remedy=INSTALL)
    return NoEngine(what="an engine and a model", remedy=f"{INSTALL} && {PULL}")
