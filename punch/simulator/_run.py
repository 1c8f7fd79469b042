"""Runs a simulation: real listeners and routers on virtual time, from first request to last.

Everything is deterministic: the same arguments give the same outcome, to the last digit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial
from random import Random

import attrs
import trio
import trio.testing

from ..capability import PeerId
from ..dialer import Router
from ..events import Attempted, Bus, Event
from ..exceptions import ConfigurationError, PunchError
from ..routing import POLICIES, Policy
from ..testing import Rogue, Swarm, open_swarm
from ._cold import ColdMachines
from ._kinds import manner_of
from ._machine import PROVENANCE, SimulatedBackend, World, command_request
from ._oracle import CURRENT, oracle
from ._pool import MAX_PEERS, Pool, PoolPeer
from ._scheduler import fixed_order
from ._traces import Trace, TraceRequest

ORACLE = "oracle"

# Long enough that no request is refused: a policy that overloads a peer must not look better for
# the requests that it lost.
QUEUE_LIMIT = 100_000

# Seconds: as long as a listener holds a request at all.
TIMEOUT = 3600.0

# Seconds between a change of load and its report: a listener's default.
REPORT_DELAY = 0.05

# Seconds from one peer to another, as between the houses of a town.
DELAY = 0.005


# How long a router waits to hear what a cancelled try had made before it publishes the try, and a
# little more.
CONFIRM_SECONDS = 6.0


@attrs.frozen(kw_only=True)
class Served:
    """What became of one request."""

    arrival: float
    """When it was asked, in seconds from the first one."""

    first_text: float | None
    """Seconds from asking to the first text."""

    completion: float | None
    """Seconds from asking to the whole answer; `None` if it failed."""

    prompt_tokens: int
    """Tokens of the prompt."""

    cached_tokens: int
    """Of these, the ones that the peer had in its cache."""

    output_tokens: int
    """Tokens of the answer."""

    peer: str | None
    """The peer that completed the answer."""

    attempts: int
    """Tries that failed."""

    segments: int
    """Peers that delivered a part of it."""

    failure: str | None
    """Code of the error, if it failed."""


@attrs.frozen(kw_only=True)
class Asked:
    """One try of one request at one peer."""

    at: float
    """When the peer was asked, in seconds from the first request."""

    seconds: float
    """From then to the peer's last word, or to the end of waiting for it."""

    peer: str
    """The peer."""

    outcome: str
    """``success``, ``cancelled``, or the code of the error."""


@attrs.frozen(kw_only=True)
class Outcome:
    """What became of all requests of a run."""

    policy: str
    """Name of the policy that chose."""

    seed: int
    """Seed of everything that was drawn by lot."""

    requests: tuple[Served, ...]
    """In the order of arrival."""

    seconds: float
    """From the first request to the last answer."""

    usage: Mapping[str, float]
    """Peer to the share of its slots that was in use, 0 to 1."""

    asked: tuple[Asked, ...] = ()
    """Every try, in order, where a machine of the pool is of some kind."""


def at_load(trace: Trace, pool: Pool, load: float) -> Trace:
    """The same trace at such a pace that it is *load* times what *pool* can complete."""
    capacity = pool.requests_per_second(
        input_tokens=trace.mean_input_tokens, output_tokens=trace.mean_output_tokens
    )
    return trace.at_rate(load * capacity)


def simulate(
    trace: Trace,
    pool: Pool,
    policy: Policy | str,
    seed: int,
    *,
    dialers: int = 1,
    delay: float = DELAY,
    jitter: float = 0.0,
    loss: float = 0.0,
    staleness: float | None = None,
    queue_limit: int = QUEUE_LIMIT,
    timeout: float = TIMEOUT,
    limited: bool = False,
) -> Outcome:
    """Run *trace* on *pool*, with *policy* choosing.

    Args:
      trace: What is asked, and when.
      pool: Who answers.
      policy: A `Policy`, the name of one in `POLICIES`, or ``oracle``.
      seed: Of everything that is drawn: ties, jitter, losses, machines that come and go.
      dialers: Routers that share nothing. All turns of a conversation go to the same one.
      delay: Seconds that bytes take between any two peers.
      jitter: Seconds by which they may take longer.
      loss: Share of the pieces that are lost, and arrive late.
      staleness: Seconds by which reports of load lag behind; `None` is as it really is.
      queue_limit: Requests that may wait at one peer.
      timeout: Seconds after which a request is given up.
      limited: Requests say how long their answers may be.

    Raises:
      ConfigurationError: if an argument makes no sense.

    """
    if isinstance(policy, str) and policy not in (*POLICIES, ORACLE):
        raise ConfigurationError(
            f"policy is {policy!r}; there are {', '.join((*POLICIES, ORACLE))}"
        )
    if len(pool.peers) + dialers > MAX_PEERS:
        raise ConfigurationError(
            f"{len(pool.peers)} peers and {dialers} dialers are more than a namespace takes, "
            f"which is {MAX_PEERS}: leave some out"
        )
    simulation = _Simulation(trace, pool, policy, seed, queue_limit, timeout, limited, staleness)
    with fixed_order(seed):
        return trio.run(
            simulation.run,
            dialers,
            delay,
            jitter,
            loss,
            clock=trio.testing.MockClock(autojump_threshold=0),
        )


class _Simulation:
    """A run under way."""

    def __init__(
        self,
        trace: Trace,
        pool: Pool,
        policy: Policy | str,
        seed: int,
        queue_limit: int,
        timeout: float,
        limited: bool,
        staleness: float | None,
    ) -> None:
        self._trace = trace
        self._pool = pool
        self._world = World()
        self._policy = oracle(self._world) if policy == ORACLE else policy
        self._seed = seed
        self._queue_limit = queue_limit
        self._timeout = timeout
        self._limited = limited
        self._report_delay = REPORT_DELAY if staleness is None else staleness
        self._served: dict[int, Served] = {}
        self._asked: list[Asked] = []
        self._rogues: dict[str, Rogue] = {}
        self._began = 0.0

    async def run(self, dialers: int, delay: float, jitter: float, loss: float) -> Outcome:
        """Run from the first listener to the last answer."""
        async with AsyncExitStack() as stack:
            swarm = await stack.enter_async_context(open_swarm(delay=delay))
            network = swarm.network
            async with trio.open_nursery() as nursery:
                for peer in self._pool.peers:
                    network.move_away(PeerId(peer.name), peer.delay)
                    if not peer.start_seconds:
                        nursery.start_soon(self._listen, swarm, peer, 0)
            routers = []
            events = self._books(stack)
            cold = ColdMachines(self._pool, self._world, partial(self._listen, swarm))
            startable = cold.offers
            for number in range(dialers):
                opened = swarm.router(
                    f"dialer-{number}",
                    policy=self._policy,
                    seed=self._seed * 1000 + number,
                    events=events,
                    startable=startable,
                    start=cold.start if startable else None,
                )
                routers.append(await stack.enter_async_context(opened))
            # Not before: that the swarm comes together is not what is simulated.
            network.jitter, network.loss = jitter, loss
            network.rng = Random(f"network {self._seed}")
            began = self._began = trio.current_time()
            async with trio.open_nursery() as nursery:
                for peer in self._pool.peers:
                    if peer.up_seconds:
                        nursery.start_soon(self._come_and_go, swarm, peer)
                    if peer.mended_at < math.inf:
                        nursery.start_soon(self._mend, peer)
                async with trio.open_nursery() as asking:
                    for index, request in enumerate(self._trace.requests):
                        await trio.sleep_until(began + request.arrival)
                        router = routers[request.conversation % dialers]
                        asking.start_soon(self._ask, router, index, request)
                seconds = trio.current_time() - began
                if events is not None:
                    await trio.sleep(CONFIRM_SECONDS)
                nursery.cancel_scope.cancel()
            return self._outcome(max(seconds, 1e-9))

    async def _listen(self, swarm: Swarm, peer: PoolPeer, incarnation: int) -> None:
        rng = Random(f"{peer.name} {incarnation} {self._seed}")
        machine = SimulatedBackend(peer, self._world, rng)
        if incarnation and trio.current_time() - self._began >= peer.mended_at:
            machine.mend()
        manner = manner_of(peer.kind, PROVENANCE)
        if manner is not None and peer.name not in self._rogues:
            self._rogues[peer.name] = Rogue(manner)
        await swarm.listener(
            peer.name,
            machine,
            queue_limit=self._queue_limit,
            report_delay=self._report_delay,
            rogue=self._rogues.get(peer.name),
        )
        self._world.machines[PeerId(peer.name)] = machine

    async def _come_and_go(self, swarm: Swarm, peer: PoolPeer) -> None:
        rng = Random(f"comes and goes {peer.name} {self._seed}")
        incarnation = 0
        while True:
            await trio.sleep(rng.expovariate(1 / peer.up_seconds))
            machine = self._world.machines.pop(PeerId(peer.name))
            worked = self._world.worked
            worked[peer.name] = worked.get(peer.name, 0.0) + machine.engine.worked
            self._world.waiting.pop(PeerId(peer.name), None)
            swarm.kill(peer.name)
            await trio.sleep(rng.expovariate(1 / peer.down_seconds))
            incarnation += 1
            await self._listen(swarm, peer, incarnation)

    async def _mend(self, peer: PoolPeer) -> None:
        await trio.sleep(peer.mended_at)
        if (rogue := self._rogues.get(peer.name)) is not None:
            rogue.manner = None
        if (machine := self._world.machines.get(PeerId(peer.name))) is not None:
            machine.mend()

    def _books(self, stack: AsyncExitStack) -> Bus | None:
        """A bus on which every try is noted, if a machine is of some kind."""
        # Where all are well the figures of the requests are enough, and a run is as it ever was.
        if not any(peer.kind for peer in self._pool.peers):
            return None
        events = Bus()
        stack.enter_context(events.account(Attempted, note=self._note))
        return events

    def _note(self, event: Event) -> None:
        assert isinstance(event, Attempted)
        at = trio.current_time() - self._began - event.seconds
        self._asked.append(
            Asked(at=at, seconds=event.seconds, peer=event.peer_id, outcome=event.outcome)
        )

    async def _ask(self, router: Router, index: int, request: TraceRequest) -> None:
        key = f"request-{index}"
        CURRENT.set(key)
        self._world.requests[key] = request
        began = trio.current_time()
        first: float | None = None
        fields: dict[str, object] = {"completion": None, "cached_tokens": 0, "peer": None}
        fields |= {"segments": 0, "failure": None}
        asked = command_request(key, request, timeout=self._timeout, limited=self._limited)
        async with router.answer(asked) as answer:
            try:
                async for _ in answer:
                    first = trio.current_time() - began if first is None else first
                response = answer.response
                fields["completion"] = trio.current_time() - began
                fields["cached_tokens"] = response.usage.cached_tokens or 0
                fields["peer"] = str(response.executor)
                fields["segments"] = max(1, len(response.segments))
            except PunchError as error:
                fields["failure"] = error.code
        self._world.forget(key)
        self._served[index] = Served(
            arrival=request.arrival,
            first_text=first,
            prompt_tokens=request.input_tokens,
            output_tokens=request.output_tokens,
            attempts=len(answer.attempts),
            **fields,  # type: ignore[arg-type]  # what they are is seen above
        )

    def _outcome(self, seconds: float) -> Outcome:
        world = self._world
        usage = {}
        for peer in self._pool.peers:
            machine = world.machines.get(PeerId(peer.name))
            worked = world.worked.get(peer.name, 0.0) + (machine.engine.worked if machine else 0.0)
            usage[peer.name] = worked / peer.slots / seconds
        return Outcome(
            policy=self._policy if isinstance(self._policy, str) else self._policy.name,
            seed=self._seed,
            requests=tuple(self._served[index] for index in sorted(self._served)),
            seconds=seconds,
            usage=usage,
            asked=tuple(sorted(self._asked, key=lambda one: one.at)),
        )
