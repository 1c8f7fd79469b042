"""A policy for comparison that no dialer could have: it decides by the truth, not by claims."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from random import Random
from typing import Any

import attrs
import trio

from ..capability import PeerId
from ..peers import Candidate
from ..routing import Policy, RouteRequest
from ._engine import Engine, Job, PrefixCache, forecast, job_of
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
        truth = world.requests[key]
        found: list[tuple[float, ...]] = []
        best = None
        for peer in candidates:
            engine, cache, delay, start = self._machine(peer.peer_id, now)
            if engine is None:
                found.append((NEVER,))
                continue
            job = job_of(key, truth, cache)
            ahead = [other.copy() for other in self._before(key, peer.peer_id)]
            seconds = forecast(engine, ahead, job) - now + 2 * delay
            # The policy adds what a start takes.
            found.append((seconds,))
            if best is None or seconds + start < best[0]:
                best = (seconds + start, peer.peer_id, job_of(key, truth, cache))
        if best is not None and key not in world.waiting.get(best[1], {}):
            world.forget(key)
            world.waiting.setdefault(best[1], {})[key] = best[2]
        return found

    def _machine(
        self, peer_id: PeerId, now: float
    ) -> tuple[Engine | None, PrefixCache, float, float]:
        """A machine's engine, cache and delay, and the seconds until it is up."""
        machine = self.world.machines.get(peer_id)
        if machine is not None:
            machine.engine.advance(now)
            return machine.engine, machine.cache, machine.peer.delay, 0.0
        peer, up_at = self.world.cold.get(peer_id, (None, None))
        if peer is None:
            return None, PrefixCache(0), 0.0, 0.0
        engine = Engine(peer)
        engine.now = now
        left = peer.start_seconds if up_at is None else max(0.0, up_at - now)
        return engine, PrefixCache(peer.cache_tokens), peer.delay, left

    def _before(self, key: str, peer_id: PeerId) -> Iterator[Job]:
        """What was sent to a machine before the request that is *key*."""
        for other, job in self.world.waiting.get(peer_id, {}).items():
            if other == key:
                return
            yield job


def oracle(world: World) -> Policy:
    """The oracle as a policy."""
    return Policy(name="oracle", scorer=Oracle(world), near=0.0)
