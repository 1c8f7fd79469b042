"""Random faults on a network in memory: whatever happens, each request ends exactly once.

A history is a few requests and a few faults, at times that Hypothesis draws. Afterwards the
network heals, and nothing may be left of any of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import attrs
import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from punch.backends import MockBackend, MockScript, mock_words
from punch.capability import PeerId
from punch.dialer import Router, chat_request
from punch.exceptions import PunchError
from punch.testing import Swarm, open_swarm
from punch.wire import CommandRequest, Sampling

# A handful by default; hundreds in CI and thousands outside it, see `tests/stages.py`.
HISTORIES = int(os.environ.get("PUNCH_TEST_HISTORIES", "30"))

pytestmark = pytest.mark.slow

LISTENERS = ("a", "b", "c")
BUSY = "whoever is busy"

# When the faults end, and what everything that waits for something waits at most.
FAULTS_END = 8.0
HEALING = 20.0

# Until a listener that was slow is timed, and seen well: some probes, half a minute apart.
PROBING = 300.0

SETTINGS = settings(
    max_examples=HISTORIES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

moments = st.floats(0.0, FAULTS_END)
# Whoever is answering at that moment is the one that a fault means most to.
names = st.sampled_from([*LISTENERS, BUSY, BUSY, BUSY])


@attrs.frozen
class Ask:
    """Ask a question at a moment, perhaps leave it early, perhaps ask it again meanwhile."""

    at: float
    number: int
    tokens: int
    stream: bool
    timeout: float
    leave_after: float | None
    again_after: float | None

    @property
    def request(self) -> CommandRequest:
        """The same each time it is asked."""
        return chat_request(
            f"question {self.number}",
            request_id=f"id-{self.number}",
            sampling=Sampling(max_tokens=self.tokens),
            stream=self.stream,
            timeout=self.timeout,
        )


@attrs.frozen
class Cut:
    """Every stream of a listener ends."""

    at: float
    name: str


@attrs.frozen
class Delay:
    """Bytes take longer from now on."""

    at: float
    seconds: float


@attrs.frozen
class Stall:
    """A listener neither sends nor receives for a while."""

    at: float
    name: str
    seconds: float


@attrs.frozen
class Restart:
    """A listener is killed, and comes back."""

    at: float
    name: str
    seconds: float


@attrs.frozen
class Jump:
    """The machine slept: the clock goes on from somewhere else."""

    at: float
    seconds: float


Fault = Cut | Delay | Stall | Restart | Jump

asks = st.builds(
    Ask,
    at=moments,
    number=st.integers(0, 9),
    tokens=st.integers(1, 60),
    stream=st.booleans(),
    timeout=st.floats(1.0, 12.0),
    leave_after=st.none() | st.floats(0.0, 3.0),
    again_after=st.none() | st.floats(0.0, 3.0),
)
faults = st.one_of(
    st.builds(Cut, at=moments, name=names),
    st.builds(Delay, at=moments, seconds=st.floats(0.0, 0.5)),
    st.builds(Stall, at=moments, name=names, seconds=st.floats(0.0, 8.0)),
    st.builds(Restart, at=moments, name=names, seconds=st.floats(0.0, 6.0)),
    st.builds(Jump, at=moments, seconds=st.floats(0.0, 30.0)),
)


@attrs.define
class Ending:
    """What became of one asking."""

    ask: Ask
    text: str = ""
    peers: int = 0
    ends: list[str] = attrs.field(factory=list)


class History:
    """Plays one history on a swarm."""

    def __init__(self, clock: trio.testing.MockClock, swarm: Swarm, router: Router) -> None:
        self.clock = clock
        self.swarm = swarm
        self.router = router
        self.endings: list[Ending] = []
        self.began = trio.current_time()

    async def play(self, asks: list[Ask], faults: list[Fault]) -> None:
        """Let everything happen at its moment, then let the network heal."""
        async with trio.open_nursery() as nursery:
            for ask in asks:
                nursery.start_soon(self.ask, ask, ask.at)
                if ask.again_after is not None:
                    nursery.start_soon(self.ask, ask, ask.at + ask.again_after)
            for fault in faults:
                nursery.start_soon(self.happen, fault)
        self.swarm.network.delay = 0.0
        await trio.sleep(HEALING)

    async def ask(self, ask: Ask, at: float) -> None:
        """Ask, take the text as it comes, and note how it ended."""
        await trio.sleep_until(self.began + at)
        ending = Ending(ask)
        self.endings.append(ending)
        scope = trio.CancelScope()
        if ask.leave_after is not None:
            scope.deadline = trio.current_time() + ask.leave_after
        with scope:
            try:
                async with self.router.answer(ask.request) as answer:
                    while (text := await answer.receive()) is not None:
                        ending.text += text
                    ending.ends.append(answer.response.status)
                    ending.peers = len(answer.segments)
                    assert answer.response.result is not None
                    assert answer.response.result.text == ending.text
            except PunchError as error:
                ending.ends.append(error.code)
        if scope.cancelled_caught:
            ending.ends.append("left")

    def busy(self) -> str:
        """A listener that is answering, if one is."""
        executors = self.swarm.listeners
        return next((n for n, e in executors.items() if e.statistics().busy), LISTENERS[0])

    async def happen(self, fault: Fault) -> None:
        """One fault, with its end."""
        await trio.sleep_until(self.began + fault.at)
        network = self.swarm.network
        if isinstance(fault, Cut | Stall | Restart) and fault.name == BUSY:
            fault = attrs.evolve(fault, name=self.busy())
        match fault:
            case Cut(name=name):
                network.cut(lambda dialer, listener: name in (dialer, listener))
            case Delay(seconds=seconds):
                network.delay = seconds
            case Stall(name=name, seconds=seconds):
                network.stall(PeerId(name))
                await trio.sleep(seconds)
                network.resume(PeerId(name))
            case Restart(name=name, seconds=seconds):
                if name in self.swarm.listeners:
                    self.swarm.kill(name)
                    await trio.sleep(seconds)
                    await start(self.swarm, name)
            case Jump(seconds=seconds):
                self.clock.jump(seconds)


async def start(swarm: Swarm, name: str) -> None:
    """A listener with two slots and a short queue."""
    await swarm.listener(name, MockBackend(MockScript(decode_rate=10.0, slots=2)), queue_limit=2)


def run_history(asks: list[Ask], faults: list[Fault], check: Callable[[History], None]) -> None:
    """Play it in a world of its own, and check what is left."""
    clock = trio.testing.MockClock(autojump_threshold=0)

    async def main() -> None:
        async with open_swarm() as swarm:
            for name in LISTENERS:
                await start(swarm, name)
            async with swarm.router() as router:
                await trio.sleep(2.0)
                tasks = trio.lowlevel.current_statistics().tasks_living
                history = History(clock, swarm, router)
                await history.play(asks, faults)
                assert {peer.peer_id for peer in router.peers} == set(LISTENERS)
                # A listener that was slow is asked by the router itself until it is seen well.
                with trio.move_on_after(PROBING):
                    while trio.lowlevel.current_statistics().tasks_living > tasks:
                        await trio.sleep(1.0)
                assert trio.lowlevel.current_statistics().tasks_living == tasks
                check(history)

    trio.run(main, clock=clock)


def nothing_is_left(history: History) -> None:
    """Slots, queues, streams, buffers and books are as they were."""
    for executor in history.swarm.listeners.values():
        statistics = executor.statistics()
        assert (statistics.busy, statistics.queued, statistics.sessions) == (0, 0, 1)
        load = executor.capability().load
        assert (load.queued_prompt_tokens, load.output_tokens_left) == (0, 0)
    dispatch = history.router._dispatch
    assert history.router._runs.under_way == 0
    for peer in history.router.peers:
        assert (peer.in_flight, peer.prompt_tokens_since_report) == (0, 0)
        session = dispatch.pool.session(peer.peer_id)
        assert session is not None
        held = session.statistics()
        assert (held.requests, held.client_calls, held.server_calls) == (0, 0, 0)


def each_ends_once(history: History) -> None:
    """In success, in one error, or because its caller left; and its text is right so far."""
    for ending in history.endings:
        assert len(ending.ends) == 1, ending
        right = " ".join(mock_words(ending.ask.request))
        assert right.startswith(ending.text), ending
        if ending.ends == ["success"]:
            assert ending.text == right
        assert ending.ends[0] != "internal"
        # What the histories reach: `pytest --hypothesis-show-statistics` counts them.
        event(f"ended {ending.ends[0]}, {ending.peers} peers")


def everything(history: History) -> None:
    each_ends_once(history)
    nothing_is_left(history)


@SETTINGS
@given(asks=st.lists(asks, min_size=1, max_size=5), faults=st.lists(faults, max_size=6))
def test_every_request_ends_once_with_a_prefix_of_the_right_answer(
    asks: list[Ask], faults: list[Fault]
) -> None:
    """Cuts, delays, stalls, restarts, jumps of the clock and requests asked twice."""
    run_history(asks, faults, everything)
