"""A policy for comparison that no dialer could have: it decides by the truth, not by claims."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from random import Random
from typing import Any

import attrs
import trio

from ..peers import Candidate
from ..routing import Policy, RouteRequest
from ._engine import forecast, job_of
from ._machine import World

CURRENT: ContextVar[str] = ContextVar("CURRENT")
"""Id of the request that the present task asks for; no real policy is given it."""


# The score, in seconds, of a peer that will never complete the answer.
NEVER = float(1 << 40)


@attrs.frozen
class Oracle:
    """Scores peers by when this very answer would be complete there.

    The oracle runs every machine forward from its true state, with the true length of every answer,
    the true content of its cache and everything that was sent there, until the new request is done.
    A greedy choice: what is best for this request, not for those that are yet to come. An answer
    stays where it was sent: no other peer could be better by the truth.
    """

    world: World
    term_names: tuple[str, ...] = ("completion",)
    unit: str = "s"
    lowest_is_best: bool = True

    def terms(
        self,
        request: RouteRequest,
        candidates: Sequence[Candidate],
        rng: Random,
        *_: Any,
        **__: Any,
    ) -> Sequence[tuple[float, ...]]:
        """The seconds until the answer would be complete, for each of *candidates*."""
        if request.alternative:
            return [(NEVER,)] * len(candidates)
        world, key, now = self.world, CURRENT.get(), trio.current_time()
        world.forget(key)
        truth = world.requests[key]
        found: list[tuple[float, ...]] = []
        best = None
        for peer in candidates:
            machine = world.machines.get(peer.peer_id)
            if machine is None:
                found.append((NEVER,))
                continue
            job = job_of(key, truth, machine.cache)
            ahead = [other.copy() for other in world.waiting.get(peer.peer_id, {}).values()]
            engine = machine.engine
            engine.advance(now)
            seconds = forecast(engine, ahead, job) - now + 2 * machine.peer.delay
            found.append((seconds,))
            if best is None or seconds < best[0]:
                best = (seconds, peer.peer_id, job_of(key, truth, machine.cache))
        if best is not None:
            world.waiting.setdefault(best[1], {})[key] = best[2]
        return found


def oracle(world: World) -> Policy:
    """The oracle as a policy."""
    return Policy(name="oracle", scorer=Oracle(world), near=0.0)
