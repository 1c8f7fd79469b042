"""Follows a backend whose engine is not ours, and times the models that it has in memory.

Nothing is loaded to be measured: a model that its server would have to load is offered without a
speed, and the first answers to dialers say it. One model is timed after the other, while the lane
has nothing else to do, and a model that fails at it rests.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from .._logs import get_logger
from ..backends import Adopted, Backend
from ..capability import ModelOffer
from ..exceptions import PunchError
from ..peers import Rates
from ._lane import RunningLane
from ._speeds import time_model

log = get_logger(__name__)

# A backend that changes all the time is looked at no more often, in seconds.
MIN_PAUSE_SECONDS = 0.1


async def follow(
    lane: RunningLane,
    *,
    calibrate: bool,
    changed: Callable[[], None],
    timed: Callable[[str, Rates], None],
) -> None:
    """Follow the backend of *lane*, which is `Adopted`, until cancelled.

    Args:
      lane: The lane, which the dialers are told of already.
      calibrate: Whether its models are timed.
      changed: Called after every change of what the lane says of itself.
      timed: Called with each model that was timed, and its rates.

    """
    backend = lane.backend
    assert isinstance(backend, Adopted)
    tried: set[str] = set()
    while True:
        change = backend.changed
        # A server may say late how many requests it answers side by side.
        lane.slots.resize(lane.backend.slots)
        changed()
        if calibrate:
            # One that was away is worth another try.
            tried &= {offer.name for offer in lane.backend.offers}
            while (offer := await _next(lane, backend, tried)) is not None:
                tried.add(offer.name)
                await _time(lane, backend, offer, timed)
                changed()
        await trio.sleep(MIN_PAUSE_SECONDS)
        await change.wait()


async def _next(lane: RunningLane, backend: Adopted, tried: set[str]) -> ModelOffer | None:
    """The next model to time, once the lane is idle."""
    if not _untimed(lane, tried):
        return None
    await lane.slots.idle()
    loaded = await backend.loaded()
    return next((offer for offer in _untimed(lane, tried) if offer.name in loaded), None)


def _untimed(lane: RunningLane, tried: set[str]) -> list[ModelOffer]:
    return [
        offer
        for offer in lane.backend.offers
        if "chat" in offer.features
        and offer.name not in tried
        and not lane.speeds.knows(offer.name)
    ]


async def _time(
    lane: RunningLane,
    backend: Adopted,
    offer: ModelOffer,
    timed: Callable[[str, Rates], None],
) -> None:
    engine: Backend = lane.backend
    try:
        await time_model(
            engine,
            offer,
            lane.speeds,
            timed=timed,
            busy_seconds=lambda: lane.slots.busy_seconds(trio.current_time()),
        )
    except PunchError as error:
        log.warning("a model does not answer", lane=lane.id, model=offer.name, why=str(error))
        backend.rest(offer.name)
    except Exception:
        # A bug about one model must not end the listener.
        log.exception("a model could not be timed", lane=lane.id, model=offer.name)
        backend.rest(offer.name)
