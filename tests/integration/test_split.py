"""A model split over servers of this machine: the same text, and no end with a worker's.

The servers are llama.cpp's own on loopback, the head is its llama-server, and the listener and the
dialer are punch's over a network in memory. Where a worker is lost is tried at each stage.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import psutil
import pytest
import trio

from punch.backends import Backend, open_llama_server
from punch.capability import ModelOffer
from punch.cluster.coordinator import PlainLender, PlainSpeeds, Split, open_split
from punch.dialer import Router, chat_request
from punch.events import Bus, Event, PlanChanged, SplitLoading, SplitReady, WorkerLost
from punch.exceptions import BackendCrashed, NoPeerAvailable
from punch.llama_cpp import RpcServer, ask_program, find_rpc_server, open_rpc_server
from punch.model_store import describe
from punch.placement import Device, Parts, Plan, Prediction, Refused, Share
from punch.testing import open_swarm
from punch.wire import CommandRequest, Hints, Sampling

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")

LIMIT = 240

SPEEDS = PlainSpeeds(bandwidth=10e9, compute=50e9)
LAYERS = 30
CONTEXT = 1024
GIB = 1 << 30

PROMPTS = (
    "What is the capital of France?",
    "Write a short story about a dog.",
    "List three fruits.",
    "Explain how rain forms.",
    "What is two plus two?",
    "Name a planet.",
    "Translate 'good morning' into French.",
    "Why is the sky blue?",
    "Write a poem about the sea.",
    "Who wrote Hamlet?",
    "What do bees make?",
    "Describe a mountain.",
    "How do I boil an egg?",
    "What is a computer?",
    "Tell me a joke.",
    "What is the largest animal?",
    "Count from one to ten.",
    "What is snow?",
    "Give me a name for a cat.",
    "What is music?",
)

NO_PARTS = Parts()


def even(devices: Sequence[Device], *, most: int = 8, head: int = 0) -> Plan | Refused:
    """Equal shares for the first devices; *head* layers stay with the head's processor."""
    found = list(devices)[:most]
    if not found:
        return Refused(word="no_device", reason="nobody lends anything")
    first, shares = head, []
    if head:
        shares.append(Share(device="CPU", layers=range(head), weights=0, kv=0))
    for number, device in enumerate(found):
        count = (LAYERS - first) // (len(found) - number)
        layers = range(first, first + count)
        first += count
        is_last = number == len(found) - 1
        weights = count * 2_100_000 + is_last * 30_000_000
        shares.append(
            Share(
                device=device.id,
                holder=device.holder,
                layers=layers,
                weights=weights,
                kv=0,
                has_output=is_last,
            )
        )
    prediction = Prediction(
        token=0.02,
        first_token=0.1,
        prompt_rate=100.0,
        load=1.0,
        seconds=1.0,
        terms={},
        step=0.02,
        token_parts=NO_PARTS,
        prompt_parts=NO_PARTS,
        load_parts=NO_PARTS,
    )
    return Plan(
        shares=tuple(shares),
        output_on_head=False,
        is_tied=True,
        micro_batch=128,
        slots=1,
        context_tokens=CONTEXT,
        speculation=None,
        prediction=prediction,
    )


@attrs.define
class Lab:
    """Servers that lend, a split over them, a listener with it and a dialer."""

    servers: list[RpcServer]
    folder: Path
    offer: ModelOffer
    model: Path
    bus: Bus
    events: list[Event] = attrs.field(factory=list)
    addresses: list[str] = attrs.field(factory=list)
    split: Split | None = None
    pids: list[int] = attrs.field(factory=list)

    def lenders(self) -> list[PlainLender]:
        """Those of the servers, made once."""
        return self._lenders

    _lenders: list[PlainLender] = attrs.field(factory=list)

    def of(self, kind: type[Event]) -> list[Event]:
        """The events of one kind so far."""
        return [event for event in self.events if isinstance(event, kind)]

    @asynccontextmanager
    async def backend(
        self, planner: Callable[[Sequence[Device]], Plan | Refused] = even
    ) -> AsyncIterator[Backend]:
        """The split as a backend."""

        def opened(split: Split) -> None:
            self.split = split

        async with open_split(
            program=await ask_program(self.folder / "llama-server"),
            model_path=self.model,
            offer=self.offer,
            lenders=self.lenders,
            planner=planner,
            slots=1,
            context_tokens=CONTEXT,
            threads=1,
            events=self.bus,
            opened=opened,
        ) as backend:
            yield backend


@asynccontextmanager
async def laboratory(count: int, folder: Path, model: Path, tmp_path: Path) -> AsyncIterator[Lab]:
    """*count* servers that lend, and no process left when it ends."""
    program = find_rpc_server(folder)
    assert program is not None
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    described = describe(model, cache_folder=tmp_path)
    offer = attrs.evolve(described.offer, context_tokens=CONTEXT)
    async with AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(open_rpc_server(program, threads=1, memory=4 * GIB))
            for _ in range(count)
        ]
        lab = Lab(servers=servers, folder=folder, offer=offer, model=model, bus=Bus())
        lab._lenders = [
            PlainLender(f"127.0.0.1:{server.port}", speeds=SPEEDS) for server in servers
        ]
        lab.addresses = [lender.name for lender in lab._lenders]
        kinds = (PlanChanged, SplitLoading, SplitReady, WorkerLost)
        stack.enter_context(lab.bus.account(*kinds, note=lab.events.append))
        try:
            yield lab
        finally:
            for server in servers:
                if server.pid is not None:
                    os.kill(server.pid, signal.SIGCONT)
    children = [
        process
        for process in psutil.Process().children(recursive=True)
        if process.pid not in before
    ]
    _, left = psutil.wait_procs(children, timeout=5)
    assert left == []


@pytest.mark.long
async def test_twenty_answers_of_a_split_are_those_of_one_machine(
    llama_cpp_folder: Path, model_path: Path, tmp_path: Path
) -> None:
    """Word for word."""
    with trio.fail_after(LIMIT):
        async with laboratory(2, llama_cpp_folder, model_path, tmp_path) as lab:
            async with solo(lab) as router:
                expected = await texts(router, PROMPTS)
            async with lab.backend() as backend, dialed(backend) as router:
                assert await texts(router, PROMPTS) == expected


async def test_a_plan_that_nobody_can_fill_is_told_with_each_reason(
    llama_cpp_folder: Path, model_path: Path, tmp_path: Path
) -> None:
    """Which worker is missing, and why; nothing is started and nothing is left."""
    with trio.fail_after(LIMIT):
        async with laboratory(1, llama_cpp_folder, model_path, tmp_path) as lab:
            pid = lab.servers[0].pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(BackendCrashed, match=rf"nobody lends.*{lab.addresses[0]}: ."):
                async with lab.backend():
                    pass


def question(text: str, tokens: int = 24, timeout: float = 60.0) -> CommandRequest:
    """A request whose answer is the same each time."""
    return chat_request(
        text, sampling=Sampling(max_tokens=tokens, temperature=0.0, seed=1), timeout=timeout
    )


@asynccontextmanager
async def dialed(backend: Backend) -> AsyncIterator[Router]:
    """A dialer of a listener with *backend*."""
    async with open_swarm() as swarm:
        await swarm.listener("a", backend)
        async with swarm.router() as router:
            yield router


async def texts(router: Router, prompts: Sequence[str], tokens: int = 24) -> list[str]:
    """The answers to *prompts*."""
    return [(await router.ask(question(prompt, tokens))).text for prompt in prompts]


def whole_model(lab: Lab) -> AbstractAsyncContextManager[Backend]:
    """The model on one machine."""
    return open_llama_server(
        program=lab.folder / "llama-server",
        model_path=lab.model,
        offer=lab.offer,
        threads=1,
        no_mmap=False,
        slots=1,
        context_tokens=CONTEXT,
    )


@asynccontextmanager
async def solo(lab: Lab) -> AsyncIterator[Router]:
    """A dialer of a listener that has the model whole."""
    async with whole_model(lab) as backend, dialed(backend) as router:
        yield router


async def test_a_split_of_two_says_what_one_machine_says(
    llama_cpp_folder: Path, model_path: Path, tmp_path: Path
) -> None:
    """And each of the two has had its part of the work."""
    with trio.fail_after(LIMIT):
        async with laboratory(2, llama_cpp_folder, model_path, tmp_path) as lab:
            async with solo(lab) as router:
                expected = await texts(router, PROMPTS[:2], tokens=12)
            async with lab.backend() as backend, dialed(backend) as router:
                assert await texts(router, PROMPTS[:2], tokens=12) == expected
                assert backend.offers[0].split
            (planned,) = lab.of(PlanChanged)
            assert isinstance(planned, PlanChanged)
            assert [one.worker for one in planned.layers] == lab.addresses
            assert len(lab.of(SplitReady)) == 1
            told = [one.progress for one in lab.of(SplitLoading) if isinstance(one, SplitLoading)]
            assert told == sorted(told)


async def kill_mid_answer(router: Router, lab: Lab, number: int, victim: int) -> str:
    """Ask, and send *victim* the signal *number* in the middle of the answer; the whole text."""
    async with router.answer(question(PROMPTS[1], tokens=30)) as answer:
        heard = ""
        began = None
        while (part := await answer.receive()) is not None:
            heard += part
            if began is None and len(heard) > 30:
                pid = lab.servers[victim].pid
                assert pid is not None
                os.kill(pid, number)
                began = trio.current_time()
        print("the rest took", trio.current_time() - (began or 0.0))
        assert answer.text.startswith(heard)
        return answer.text


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_an_answer_finishes_whose_worker_is_lost(
    number: int, llama_cpp_folder: Path, model_path: Path, tmp_path: Path
) -> None:
    """Text delivered stays delivered, and the rest is what would have come anyway."""
    with trio.fail_after(LIMIT):
        async with laboratory(2, llama_cpp_folder, model_path, tmp_path) as lab:
            async with lab.backend() as backend, dialed(backend) as router:
                whole = (await router.ask(question(PROMPTS[1], tokens=30))).text
                began = trio.current_time()
                assert await kill_mid_answer(router, lab, number, 1) == whole
                assert trio.current_time() - began < 20
                assert (await router.ask(question(PROMPTS[2], tokens=4))).text
                (lost,) = lab.of(WorkerLost)
                assert isinstance(lost, WorkerLost)
                assert lost.worker == lab.addresses[1]
                plans = [one for one in lab.of(PlanChanged) if isinstance(one, PlanChanged)]
                assert [len(one.layers) for one in plans] == [2, 1]


STAGES = ("hello", "load", "prompt", "mid", "idle")

# A mute server is found after two seconds without a reply, and one that says nothing to a hello
# after two more; what is left is the load of a small model and the answer.
BOUND_SECONDS = 60.0


@attrs.define
class Signals:
    """Sends a worker a signal once the split has come so far."""

    lab: Lab
    number: int
    victim: int
    stage: str
    is_sent: bool = False

    def send(self) -> None:
        """Send it, the first time."""
        pid = self.lab.servers[self.victim].pid
        if not self.is_sent and pid is not None:
            self.is_sent = True
            os.kill(pid, self.number)

    def note(self, event: Event) -> None:
        """Hear what becomes of the split."""
        if self.stage == "hello" and isinstance(event, PlanChanged):
            self.send()
        if self.stage == "load" and isinstance(event, SplitLoading) and event.progress > 0:
            self.send()


async def lose(signals: Signals) -> None:
    """Lose a worker at the stage, with a request under way or after it; then all is well."""
    lab, stage = signals.lab, signals.stage
    with lab.bus.account(PlanChanged, SplitLoading, note=signals.note):
        async with lab.backend() as backend, dialed(backend) as router:
            began = trio.current_time()
            if stage == "idle":
                signals.send()
                await trio.sleep(1.0)
            text = " ".join(PROMPTS) * 3 if stage == "prompt" else PROMPTS[1]
            async with trio.open_nursery() as nursery:
                if stage == "prompt":

                    async def soon() -> None:
                        await trio.sleep(0.5)
                        signals.send()

                    nursery.start_soon(soon)
                async with router.answer(question(text, tokens=30)) as answer:
                    while (part := await answer.receive()) is not None:
                        if stage == "mid" and part:
                            signals.send()
                    assert answer.text
            assert signals.is_sent or stage == "load"
            assert trio.current_time() - began < BOUND_SECONDS
            assert (await router.ask(question(PROMPTS[2], tokens=4))).text
            lost = [one.worker for one in lab.of(WorkerLost) if isinstance(one, WorkerLost)]
            if signals.is_sent:
                assert lost == [lab.addresses[signals.victim]]


@pytest.mark.long
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("victim", [0, 1])
async def test_a_worker_may_be_lost_at_any_stage(
    victim: int,
    number: int,
    stage: str,
    llama_cpp_folder: Path,
    model_path: Path,
    tmp_path: Path,
) -> None:
    """The request is answered, nothing is left running, and the next request works."""
    with trio.fail_after(LIMIT):
        async with laboratory(2, llama_cpp_folder, model_path, tmp_path) as lab:
            await lose(Signals(lab, number, victim, stage))


async def test_an_answer_outlives_the_coordinator_of_a_split(
    llama_cpp_folder: Path, model_path: Path, tmp_path: Path
) -> None:
    """Another listener that has the model whole goes on where it was."""
    with trio.fail_after(LIMIT):
        async with (
            laboratory(2, llama_cpp_folder, model_path, tmp_path) as lab,
            whole_model(lab) as whole,
            lab.backend() as split,
            open_swarm() as swarm,
        ):
            await swarm.listener("split", split)
            await swarm.listener("whole", whole)
            async with swarm.router() as router:
                asked = question(PROMPTS[1], tokens=24)
                only = attrs.evolve(asked, request_id="one", hints=Hints(only=("whole",)))
                expected = (await router.ask(only)).text
                heard = ""
                async with router.answer(
                    attrs.evolve(asked, hints=Hints(prefer=("split",)))
                ) as answer:
                    while (part := await answer.receive()) is not None:
                        heard += part
                        if len(heard) > 20 and "split" in swarm.listeners:
                            swarm.kill("split")
                assert heard == answer.text == expected
                assert [one.peer_id for one in answer.response.segments] == ["split", "whole"]


@pytest.mark.long
async def test_a_split_that_cannot_be_started_again_says_so_until_it_can(
    llama_cpp_folder: Path, model_path: Path, tmp_path: Path
) -> None:
    """Its state is `failed` then, with the reason; a worker that comes back ends that."""
    with trio.fail_after(LIMIT):
        async with (
            laboratory(1, llama_cpp_folder, model_path, tmp_path) as lab,
            lab.backend() as backend,
            dialed(backend) as router,
        ):
            (server,), asked = lab.servers, question(PROMPTS[0], tokens=4)
            assert (await router.ask(asked)).text
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            with trio.fail_after(60):
                await router.wait_for_peers(
                    lambda peers: peers[0].capability.lanes[0].state == "failed"
                )
            (lane,) = router.peers[0].capability.lanes
            assert lane.reason is not None
            assert "nobody lends anything" in lane.reason
            began = trio.current_time()
            with pytest.raises(NoPeerAvailable, match="nobody lends anything"):
                await router.ask(question(PROMPTS[1], tokens=4))
            assert trio.current_time() - began < 5
            await server.restart()
            assert lab.split is not None
            lab._lenders[0] = PlainLender(f"127.0.0.1:{server.port}", speeds=SPEEDS)
            lab.split.lenders_changed()
            await router.wait_for_peers(lambda peers: bool(peers[0].capability.models))
            assert (await router.ask(question(PROMPTS[2], tokens=4))).text


@pytest.mark.long
async def test_two_models_at_a_time_over_four_workers(
    llama_cpp_folder: Path, model_path: Path, tmp_path: Path
) -> None:
    """Each has workers of its own, and both answer."""
    with trio.fail_after(LIMIT):
        async with laboratory(4, llama_cpp_folder, model_path, tmp_path) as lab:
            two = partial(even, most=2)
            async with lab.backend(two) as one, lab.backend(two) as other:
                plans = [event for event in lab.of(PlanChanged) if isinstance(event, PlanChanged)]
                workers = [{layer.worker for layer in event.layers} for event in plans]
                assert len(workers) == 2
                assert workers[0] | workers[1] == set(lab.addresses)
                async with dialed(one) as first, dialed(other) as second:
                    assert await texts(first, PROMPTS[:1]) == await texts(second, PROMPTS[:1])
