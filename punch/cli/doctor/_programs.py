"""Tries the programs of llama.cpp that this machine would run, where nothing of it answers yet."""

from __future__ import annotations

from functools import partial

import trio

from ...doctor import EngineTry
from ...exceptions import ConfigurationError
from ...llama_cpp import check_engine, find_engines, read_named
from ...settings import BackendSettings, cache_folder

# The first ones of PATH and what punch has built; each takes some seconds the first time.
MAX_TRIED = 2


async def try_programs(settings: BackendSettings) -> tuple[EngineTry, ...]:
    """What came of one token of each, on a model of zeros; an outcome that was kept will do."""
    try:
        named = None if settings.program is None else read_named(settings.program).path
    except ConfigurationError as error:
        return (EngineTry(name=settings.program or "", is_program=True, words=str(error)),)
    folder = cache_folder()
    engines = await trio.to_thread.run_sync(
        partial(find_engines, cache_folder=folder, named=named), abandon_on_cancel=True
    )
    tries = []
    for engine in [each for each in engines if each.server is not None][:MAX_TRIED]:
        outcome = await check_engine(engine, cache_folder=folder, is_kept=True)
        words = None if outcome.makes_tokens else "; ".join(outcome.troubles) or "no token came"
        tries.append(EngineTry(name=str(engine.server), is_program=True, words=words))
    return tuple(tries)
