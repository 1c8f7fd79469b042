"""Splits that a gateway starts when a request is worth it: ``--split MODEL``.

They are made ready in the background, one after another: a machine takes its time to be measured,
and the gateway answers meanwhile. One that cannot be made ready is told in the log, and the others
go on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

from ..._background import open_background
from ..._logs import get_logger
from ...cluster.coordinator import (
    OnDemand,
    Split,
    SplitOnDemand,
    ask_build,
    open_on_demand,
    open_split,
    plan_once,
)
from ...events import Bus
from ...exceptions import PunchError
from ...listener import Listener
from ...settings import NetworkSettings, SplitOptions
from ._coordinator import open_lenders
from ._lenders import prepare
from ._split_settings import SplitSettings

log = get_logger(__name__)


@asynccontextmanager
async def open_splits_of(
    models: Sequence[str],
    *,
    network: NetworkSettings,
    options: SplitOptions,
    program: str | None = None,
    listener: Listener,
    events: Bus,
) -> AsyncIterator[OnDemand]:
    """Splits of *models*, for as long as the context lasts.

    Args:
      models: Files, or names of models that were pulled.
      network: Where the workers are met.
      options: How they are split.
      program: llama-server of a build with RPC; `None` for the fastest that works here.
      listener: The listener of this process; what is started is a lane of it.
      events: Where it publishes what happens to a split.

    """
    async with open_background() as nursery, open_on_demand(listener) as on_demand:
        for model in models:
            settings = SplitSettings(
                **attrs.asdict(options, recurse=False),
                model=model,
                network=network,
                program=program,
            )
            nursery.start_soon(_make_ready, settings, listener, events, on_demand)
        yield on_demand


async def _make_ready(
    settings: SplitSettings, listener: Listener, events: Bus, on_demand: OnDemand
) -> None:
    running: list[Split] = []

    def opened(split: Split) -> None:
        # Of the one before, nothing runs any more.
        running[:] = [split]

    def changed() -> None:
        for split in running:
            split.lenders_changed()

    try:
        prepared = await prepare(settings)
        build = await ask_build(prepared.program)
        async with open_lenders(settings, prepared, listener) as lenders:
            split = SplitOnDemand(
                offer=prepared.offer,
                plan=lambda: plan_once(
                    lenders(),
                    prepared.planner(),
                    here=prepared.here,
                    build=build,
                    is_forced=settings.force,
                ),
                open=lambda: open_split(
                    program=prepared.program,
                    model_path=prepared.path,
                    offer=prepared.offer,
                    lenders=lenders,
                    planner=prepared.planner(),
                    slots=settings.slots,
                    context_tokens=prepared.context_tokens,
                    here=prepared.here,
                    threads=settings.threads,
                    is_forced=settings.force,
                    events=events,
                    opened=opened,
                    lessons=prepared.lessons,
                ),
                is_forced=settings.force,
            )
            with listener.directory.watched(changed):
                await on_demand.add(split)
                await trio.sleep_forever()
    except PunchError as error:
        log.warning("a model cannot be split", model=settings.model, why=error.message)
