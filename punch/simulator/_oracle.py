"""A policy that nobody can have: it knows what is true."""

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
"""Id of the request that the present task asks for. A policy is not told, an oracle knows."""


# Seconds after which an answer would be complete that never will be.
NEVER = float(1 << 40)


@attrs.frozen
class Oracle:
    """Where this very answer would be complete first.

    It runs every machine forward from its true state, with the true length of every answer, the
    true content of its cache and everything that was sent there, until the new request is done.
    It is greedy: it asks what is best for this request, not for those that are yet to come. What it
    has sent somewhere stays there: it knew what it did.
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
        """See the class."""
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
    """The policy."""
    return Policy(name="oracle", scorer=Oracle(world), near=0.0)
