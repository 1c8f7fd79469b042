"""When an engine is taken for stuck, on virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from punch.backends.llama._vigil import (
    MAX_PATIENCE_SECONDS,
    PATIENCE_SECONDS,
    QUIET_SECONDS,
    UNKNOWN_BATCH_SECONDS,
    Vigil,
)


class Engine:
    """An engine that answers as it is told."""

    def __init__(self) -> None:
        self.stuck = False
        self.busy: int | None = 0
        self.asked = 0
        self.killed: list[tuple[float, str]] = []
        self.vigil = Vigil(ask=self.ask, kill=self.kill)
        # A token a millisecond: a batch takes two seconds, or eight on a bad day.
        self.vigil.learn(1000, 1.0)

    async def ask(self) -> int | None:
        """Say how busy it is, unless it is stuck."""
        self.asked += 1
        while self.stuck:
            await trio.sleep(1)
        return self.busy

    def kill(self, why: str) -> None:
        """Note the time; it lives again."""
        self.killed.append((trio.current_time(), why))
        self.stuck = False
        self.busy = 0


@asynccontextmanager
async def watched() -> AsyncIterator[Engine]:
    """An engine under watch."""
    engine = Engine()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(engine.vigil.run)
        yield engine
        nursery.cancel_scope.cancel()


async def cancelled(engine: Engine, after: float = 1.0, prompt_tokens: int = 2048) -> None:
    """A request that is cancelled."""
    with trio.move_on_after(after), engine.vigil.request(prompt_tokens):
        await trio.sleep_forever()


async def test_one_that_is_stuck_in_a_request_is_killed(autojump_clock: MockClock) -> None:
    """Within its patience, though nobody has cancelled anything."""
    async with watched() as engine:
        engine.stuck = True
        began = trio.current_time()
        with trio.move_on_after(100), engine.vigil.request(2048):
            await trio.sleep_forever()
    (at, why), *more = engine.killed
    assert QUIET_SECONDS + PATIENCE_SECONDS + 8 < at - began < 30
    assert "gave no answer" in why
    assert not more


async def test_one_that_is_stuck_after_a_cancel_is_killed(autojump_clock: MockClock) -> None:
    """Also if nobody asks it anything any more."""
    async with watched() as engine:
        engine.stuck = True
        await cancelled(engine)
        began = trio.current_time()
        await trio.sleep(100)
    (at, why), *more = engine.killed
    assert PATIENCE_SECONDS + 8 < at - began < PATIENCE_SECONDS + 8.2 + QUIET_SECONDS
    assert "after a request was cancelled" in why
    assert not more


async def test_one_that_ignores_a_cancel_is_killed(autojump_clock: MockClock) -> None:
    """It answers, and says that it is busy with what nobody wants."""
    async with watched() as engine:
        engine.busy = 1
        await cancelled(engine)
        began = trio.current_time()
        await trio.sleep(100)
    (at, why), *more = engine.killed
    assert PATIENCE_SECONDS + 8 < at - began < PATIENCE_SECONDS + 8.2 + QUIET_SECONDS
    assert "was busy for" in why
    assert not more


async def test_one_that_is_rid_of_a_request_in_time_lives(autojump_clock: MockClock) -> None:
    """It was in the middle of a batch, which cannot be broken off."""
    async with watched() as engine:
        engine.stuck = True
        await cancelled(engine)
        await trio.sleep(PATIENCE_SECONDS + 6)
        engine.stuck, engine.busy = False, 1
        await trio.sleep(1)
        engine.busy = 0
        await trio.sleep(1000)
    assert engine.killed == []
    assert engine.asked < 10


@pytest.mark.parametrize("busy", [2, 1, None])
async def test_other_requests_are_no_reason(busy: int | None, autojump_clock: MockClock) -> None:
    """One of two was cancelled, and the engine goes on with the other, without a token for long."""
    async with watched() as engine:
        engine.busy = 1 if busy == 2 else busy
        with trio.move_on_after(2000), engine.vigil.request(2048):
            await cancelled(engine)
            await trio.sleep_forever()
    assert engine.killed == []


async def test_tokens_are_a_sign_of_life(autojump_clock: MockClock) -> None:
    """An engine that makes some is not even asked."""
    async with watched() as engine:
        engine.stuck = True
        with engine.vigil.request(2048):
            for _ in range(100):
                await trio.sleep(QUIET_SECONDS - 3)
                engine.vigil.sign()
    assert (engine.asked, engine.killed) == (0, [])


async def test_an_idle_one_is_left_alone(autojump_clock: MockClock) -> None:
    """Nobody asks it anything, and it need not say anything."""
    async with watched() as engine:
        engine.stuck = True
        await trio.sleep(1000)
        assert engine.asked == 0
        engine.stuck = False
        with engine.vigil.request(2048):
            await trio.sleep(1)
        await trio.sleep(1000)
    assert (engine.asked, engine.killed) == (0, [])


async def test_it_is_killed_each_time_that_it_is_stuck(autojump_clock: MockClock) -> None:
    """Once is not enough for a request that comes again and again."""
    async with watched() as engine:
        for number in range(3):
            engine.stuck = True
            await cancelled(engine, 10)
            await trio.sleep(60)
            assert len(engine.killed) == number + 1


async def test_one_caller_after_the_other_is_no_sign_of_life(autojump_clock: MockClock) -> None:
    """Each gives up before the engine's patience ends, and the next begins at once."""
    async with watched() as engine:
        engine.stuck = True
        while not engine.killed:
            await cancelled(engine, 10, 20)
        assert trio.current_time() < 30


async def test_waiting_requests_do_not_lengthen_its_patience_for_ever(
    autojump_clock: MockClock,
) -> None:
    """Everybody who asks a stuck engine waits, and the next one comes soon."""
    async with watched() as engine:
        engine.stuck = True
        with trio.move_on_after(100):
            async with trio.open_nursery() as nursery:
                while not engine.killed:
                    nursery.start_soon(cancelled, engine, 10)
                    await trio.sleep(1)
                assert trio.current_time() < 60
                nursery.cancel_scope.cancel()
        assert len(engine.killed) == 1


async def test_patience_follows_what_was_measured() -> None:
    """And what there is to read; an unknown engine gets as much as the slowest."""
    vigil = Engine().vigil
    assert vigil.patience == PATIENCE_SECONDS
    with vigil.request(100) as short:
        assert vigil.patience == pytest.approx(PATIENCE_SECONDS + 0.4)
        with vigil.request(100_000):
            assert vigil.patience == pytest.approx(PATIENCE_SECONDS + 8.192)
        # A shorter prompt says less of the speed than the one of before.
        vigil.learn(10, 10.0)
        assert vigil.patience == pytest.approx(PATIENCE_SECONDS + 0.4)
        vigil.learn(1000, 20.0)
        assert vigil.patience == pytest.approx(PATIENCE_SECONDS + 8.0)
        vigil.learn(1000, 20_000.0)
        assert vigil.patience == MAX_PATIENCE_SECONDS
        # It is being answered, and so it was read.
        short.sign()
        assert vigil.patience == PATIENCE_SECONDS
    unknown = Vigil(ask=Engine().ask, kill=print)
    unknown.learn(None, None)
    unknown.learn(0, 0.0)
    assert unknown.patience == PATIENCE_SECONDS + UNKNOWN_BATCH_SECONDS


async def test_a_long_prompt_that_comes_meanwhile_gets_its_time(autojump_clock: MockClock) -> None:
    """The engine was asked when there was little to read."""
    async with watched() as engine:
        engine.vigil.learn(1000, 10.0)
        with trio.move_on_after(1000):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancelled, engine, 1.0, 10)
                await trio.sleep(5)
                engine.stuck = True
                with engine.vigil.request(2000):
                    await trio.sleep(60)
                    engine.stuck = False
                    engine.vigil.sign()
                    await trio.sleep(3)
    assert engine.killed == []
