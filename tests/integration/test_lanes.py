"""A listener with two lanes, mock and a real engine: one fails and goes, the other answers on."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
from integration.programs import Program, Programs, limit, off

from punch.capability import Capability
from punch.dialer import Router, chat_request, open_router
from punch.wire import CommandResponse, Sampling

# A listener as a program of its own, whose lanes are changed by lines on its standard input.
SCRIPT = """
import json, sys

import trio

import punch
from punch.backends import MockScript, open_embedded, open_mock


def opened(name, kind):
    if kind == "mock":
        return open_mock(MockScript(model=name))
    return open_embedded(
        model_path=kind, threads=1, no_mmap=False, slots=1, context_tokens=512, alias=name
    )


async def main(bootstrap):
    async with punch.open_listener(bootstrap=bootstrap) as listener:
        await listener.wait_until_joined()
        print("listening", listener.peer_id, flush=True)
        while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            name, kind = json.loads(line)
            if kind is not None:
                lane = await listener.add(opened(name, kind), name=name, calibrate=False)
                pid = getattr(lane.backend, "pid", 0)
                print("added", name, lane.id, pid, flush=True)
            else:
                (lane,) = (lane for lane in listener.lanes if lane.name == name)
                await listener.remove(lane)
                print("removed", name, flush=True)
        await listener.drain()


trio.run(main, sys.argv[1])
"""


class Town:
    """A bootstrap, the listener, and a router that asks it."""

    def __init__(self, program: Program, router: Router) -> None:
        self.program = program
        self.router = router
        self._lines = 0

    async def said(self, word: str) -> list[str]:
        """The words of the next line of the listener, which must begin with *word*."""

        def line() -> str:
            lines = self.program.out.split("\n")[:-1]
            return lines[self._lines] if len(lines) > self._lines else ""

        words: list[str] = (await off(self.program.wait_until, line, word)).split()
        self._lines += 1
        assert words[0] == word
        return words[1:]

    async def add(self, name: str, kind: str) -> tuple[str, int]:
        """Add a lane; its id, and the process id of its engine."""
        self.program.write(json.dumps([name, kind]) + "\n")
        _, lane_id, pid = await self.said("added")
        return lane_id, int(pid)

    async def remove(self, name: str) -> None:
        """Remove a lane, and have its backend closed."""
        self.program.write(json.dumps([name, None]) + "\n")
        assert await self.said("removed") == [name]

    @property
    def capability(self) -> Capability:
        """What the listener says of itself, as the router knows it."""
        (peer,) = self.router.peers
        return peer.capability

    @property
    def states(self) -> dict[str, str]:
        """The state of each lane."""
        return {lane.id: lane.state for lane in self.capability.lanes}

    async def wait_for_states(self, **states: str) -> None:
        """Wait until the router knows these lanes, and no others, in these states."""
        await self.router.wait_for_peers(lambda _: self.states == states)

    async def ask(self, model: str) -> CommandResponse:
        """A short answer of *model*."""
        sampling = Sampling(max_tokens=8, temperature=0.0)
        return await self.router.ask(chat_request("Say hello.", model=model, sampling=sampling))


@asynccontextmanager
async def open_town(programs: Programs) -> AsyncIterator[Town]:
    """All three, with no lane yet."""
    await off(programs.bootstrap)
    program = programs.start_script(SCRIPT, programs.address)
    async with open_router(bootstrap=programs.address) as router:
        town = Town(program, router)
        await town.said("listening")
        await router.wait_for_peers()
        yield town


@limit(180)
async def test_one_lane_fails_restarts_goes_and_is_replaced_while_the_other_answers(
    programs: Programs, model_path: Path
) -> None:
    """The engine of the real lane is killed; the mock's lane notices nothing, at any time."""
    async with open_town(programs) as town:

        async def the_mock_answers() -> None:
            response = await town.ask("toy")
            assert response.provenance is not None
            assert (response.status, response.provenance.kind) == ("success", "simulated")

        await town.add("toy", "mock")
        first, pid = await town.add("real", str(model_path))
        await town.wait_for_states(toy="ready", real="ready")
        await the_mock_answers()
        answered = await town.ask("real")
        assert answered.provenance is not None
        assert (answered.provenance.backend, answered.provenance.kind) == ("embedded", "real")
        shown = await off(programs.punch, "peers", "--once")
        assert {"toy", "real", "mock", "embedded"} <= set(shown.out.split())

        # It dies.
        os.kill(pid, signal.SIGKILL)
        await town.wait_for_states(toy="ready", real="starting")
        await the_mock_answers()

        # It is back by itself, with another process.
        await town.wait_for_states(toy="ready", real="ready")
        assert (await town.ask("real")).status == "success"
        await the_mock_answers()

        # It goes, and takes its engine with it.
        engines = psutil.Process(town.program.pid).children(recursive=True)
        assert engines
        await town.remove("real")
        await town.wait_for_states(toy="ready")
        assert not [engine for engine in engines if engine.is_running()]
        await the_mock_answers()

        # Another one takes its place, under an id of its own.
        second, _ = await town.add("real", str(model_path))
        assert (first, second) == ("real", "real-2")
        await town.router.wait_for_peers(
            lambda _: town.states == {"toy": "ready", "real-2": "ready"}
        )
        assert (await town.ask("real")).status == "success"
        await the_mock_answers()
