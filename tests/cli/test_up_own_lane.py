"""The lane of this machine's own engine: it comes when its parts do, and never ends `punch up`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import MockClock

from punch.backends import Backend, MockBackend, MockScript
from punch.cli.up import _own_lane
from punch.cli.up._engine_choice import Found, PulledModel
from punch.cli.up._own_lane import ENGINES_SECONDS, OwnLane, Surroundings
from punch.exceptions import BackendError
from punch.listener import Listener, open_listener
from punch.llama_cpp import Engine
from punch.settings import BackendSettings, ListenerSettings, Origin
from punch.testing import MemoryNetwork

MOCK = attrs.evolve(
    ListenerSettings(),
    backend=attrs.evolve(
        BackendSettings(), name="mock", origins={"name": Origin(layer="flag", name="X")}
    ),
)
GONE = PulledModel(path=Path("/nowhere/model.gguf"), file_bytes=1, chats=True)


@asynccontextmanager
async def running(own: OwnLane) -> AsyncIterator[Listener]:
    """A listener in memory whose only lanes are those of *own*."""
    async with trio.open_nursery() as nursery:
        network = MemoryNetwork(nursery)
        async with open_listener(
            (), node=network.node("desk"), bootstrap=None, calibrate=False
        ) as listener:
            nursery.start_soon(own.run, listener)
            yield listener
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def broken(settings: ListenerSettings) -> AsyncIterator[Backend]:
    """An engine that does not start."""
    if settings.backend.name:
        raise BackendError("it does not start")
    yield MockBackend(MockScript())


class Machine:
    """What there is on a machine, look by look; the last one stays."""

    def __init__(self, *looks: Found) -> None:
        self.looks = list(looks)
        self.times: list[float] = []

    async def __call__(self, settings: BackendSettings, anew: bool) -> Found:
        self.times.append(trio.current_time())
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]


async def names(listener: Listener, least: int = 1) -> Sequence[str]:
    """The lanes, once there are enough."""
    while len(listener.lanes) < least:
        await trio.sleep(0.1)
    return [lane.name for lane in listener.lanes]


async def test_what_is_missing_is_known_and_looked_for(autojump_clock: MockClock) -> None:
    """A model that is pulled meanwhile would be found."""
    machine = Machine(Found(is_embedded=True))
    own = OwnLane(ListenerSettings(), look=machine)
    async with running(own) as here:
        await trio.sleep(30)
        assert own.missing is not None
        assert len(machine.times) > 10
        assert not here.lanes


async def test_an_engine_that_does_not_start_is_tried_seldomer(autojump_clock: MockClock) -> None:
    """Its reason is told, and the other lanes answer meanwhile."""
    machine = Machine(Found(models=(GONE,), servers=(Path("/nowhere/llama-server"),)))
    own = OwnLane(ListenerSettings(), look=machine, opens=broken)
    async with running(own):
        await trio.sleep(300)
        assert own.troubles == ("llama_cpp: it does not start",)
        assert own.engine is None
        assert 5 <= len(machine.times) <= 12


async def test_other_settings_change_the_lane_alone(autojump_clock: MockClock) -> None:
    """The same ones leave it as it is."""
    own = OwnLane(ListenerSettings(), look=Machine(Found()))
    async with running(own) as here:
        await trio.sleep(1)
        own.look_anew(MOCK)
        assert await names(here) == ["mock"]
        lane = own.lane
        own.look_anew(MOCK)
        await trio.sleep(5)
        assert own.lane is lane
        own.look_anew(ListenerSettings())
        await trio.sleep(5)
        assert not here.lanes
        assert own.missing is not None


async def test_engines_are_looked_for_seldom(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A walk through all Python packages every two seconds would never let the machine rest."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    looks: list[float] = []

    def counted(*, cache_folder: Path) -> tuple[Engine, ...]:
        looks.append(0.0)
        return ()

    monkeypatch.setattr(_own_lane, "find_engines", counted)
    around = Surroundings()
    for _ in range(3):
        await around.look(BackendSettings(), anew=False)
    assert len(looks) == 1
    await around.look(BackendSettings(), anew=True)
    assert len(looks) == 2
    await trio.sleep(2 * ENGINES_SECONDS)
    await around.look(BackendSettings(), anew=False)
    assert len(looks) == 3
