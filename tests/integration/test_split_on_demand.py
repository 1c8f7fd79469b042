"""A slow peer, a split that runs and splits that would have to start: one real choice of each.

The engines are llama.cpp's own on loopback; the slow peer is one that is made to wait.
"""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio
from integration.test_split import LIMIT, Lab, even, laboratory, question

from punch.backends import Backend, Emit, Generation, Loading, open_llama_server
from punch.capability import Gpu, ModelOffer
from punch.cluster.coordinator import (
    Outlook,
    SplitOnDemand,
    ask_build,
    open_on_demand,
    plan_once,
)
from punch.dialer import open_router
from punch.events import PlanChanged, SplitReady
from punch.llama_cpp import ask_program
from punch.placement import Refused
from punch.testing import open_swarm
from punch.wire import CommandRequest, Hints

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")

# Tokens a second of the slow peer, and seconds that its splits are predicted to take.
SLOW, START, NEVER = 2.0, 6.0, 600.0


class Slow:
    """A backend that waits before each token."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.name, self.simulated, self.slots = backend.name, backend.simulated, backend.slots
        self.threads: int | None = None
        self.gpus: tuple[Gpu, ...] = ()
        self.offers: tuple[ModelOffer, ...] = tuple(
            attrs.evolve(one, decode_rate=SLOW, prefill_rate=100.0) for one in backend.offers
        )

    async def ready(self, loading: Loading) -> None:
        """As it is."""
        await self._backend.ready(loading)

    async def generate(self, request: CommandRequest, emit: Emit) -> Generation:
        """As it is, more slowly."""

        async def slowly(text: str, tokens: int) -> None:
            await trio.sleep(tokens / SLOW)
            await emit(text, tokens)

        found = await self._backend.generate(request, slowly)
        tokens = found.usage.completion_tokens or 0
        return attrs.evolve(found, timings=attrs.evolve(found.timings, decode=tokens / SLOW))


def on_demand(lab: Lab, seconds: float) -> SplitOnDemand:
    """The split of *lab*, that is predicted to start in so many *seconds*."""

    async def plan() -> Outlook:
        program = await ask_program(lab.folder / "llama-server")
        outlook = await plan_once(lab.lenders(), even, build=await ask_build(program))
        if isinstance(outlook.plan, Refused):
            return outlook
        prediction = attrs.evolve(outlook.plan.prediction, load=seconds)
        return attrs.evolve(outlook, plan=attrs.evolve(outlook.plan, prediction=prediction))

    return SplitOnDemand(offer=lab.offer, plan=plan, open=lab.backend, owner_of=lambda who: "me")


async def test_the_right_one_answers_of_a_slow_peer_and_splits_that_run_or_could(
    llama_cpp_folder: Path, model_path: Path, tmp_path: Path
) -> None:
    """Short answers are the slow peer's until a long one is worth a start; then they are not."""
    with trio.fail_after(LIMIT):
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            lab = await enter(laboratory(2, llama_cpp_folder, model_path, tmp_path))
            swarm = await enter(open_swarm())
            whole = await enter(
                open_llama_server(
                    program=llama_cpp_folder / "llama-server",
                    model_path=model_path,
                    offer=lab.offer,
                    threads=1,
                    no_mmap=False,
                    slots=1,
                    context_tokens=1024,
                )
            )
            await swarm.listener("solo", Slow(whole))
            head = await swarm.listener("head", ())
            never = attrs.evolve(on_demand(lab, NEVER), offer=attrs.evolve(lab.offer, digest=None))
            splits = await enter(open_on_demand(head, [on_demand(lab, START), never]))
            router = await enter(
                open_router(listener=head, startable=splits.startable, start=splits.start)
            )
            await router.wait_for_peers(partial(_has, "solo"))

            short = await router.ask(question("Name a planet.", tokens=5))
            assert (short.executor, lab.of(PlanChanged)) == ("solo", [])

            async with router.answer(question("Describe a mountain.", tokens=120)) as answer:
                while await answer.receive() is not None:
                    pass
                long = answer.response
                started, asked = answer.decisions
            assert (long.executor, len(lab.of(SplitReady))) == ("head", 1)
            told = [one for one in started.candidates() if one.removed_by is None]
            assert [one.peer_id for one in told] == ["head", "solo", "head"]
            assert [round(one.terms["start"]) for one in told] == [START, 0, NEVER]
            assert all(one.offer.own_workers for one in splits.startable())
            assert (told[0].score or 0.0) < (told[1].score or 0.0)
            assert told[0].start is not None
            assert told[0].start.offer.plan
            assert asked.starts == {} or asked.start_of(asked.order[0]) is None

            # The servers of both are on this machine, and so its owner's.
            hints = Hints(privacy="own")
            short = await router.ask(question("Name a planet.", tokens=5), hints=hints)
            assert short.executor == "head"
            assert short.provenance is not None
            assert len(lab.of(SplitReady)) == 1


def _has(peer_id: str, peers: object) -> bool:
    assert isinstance(peers, tuple)
    return any(peer.peer_id == peer_id for peer in peers)
