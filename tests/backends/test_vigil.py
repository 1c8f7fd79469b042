"""When an engine is taken for stuck, on virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from punch.backends.llama._vigil import (
    BATCH_TOKENS,
    MAX_PATIENCE_SECONDS,
    PATIENCE_SECONDS,
    QUIET_SECONDS,
    UNKNOWN_BATCH_SECONDS,
    Look,
    Pace,
    Vigil,
)


class Engine:
    """An engine that answers as it is told."""

    def __init__(self) -> None:
        self.stuck = False
        self.busy: int | None = 0
        self.made = 0
        self.moves = False
        self.computes = False
        self.asked = 0
        self.killed: list[tuple[float, str]] = []
        self.vigil = Vigil(ask=self.ask, kill=self.kill, cpu_seconds=self.cpu_seconds)
        # A token a millisecond: a batch takes two seconds, or eight on a bad day.
        self.vigil.learn(1000, 1.0)

    async def ask(self) -> Look:
        """Say how busy it is, unless it is stuck."""
        self.asked += 1
        while self.stuck:
            await trio.sleep(1)
        self.made += self.moves
        return Look(busy=self.busy, work=((self.made,),) if self.busy and self.moves else ())

    def cpu_seconds(self) -> float:
        """One processor, all the time, or none."""
        return trio.current_time() if self.computes else 0.0

    async def death(self) -> None:
        """Wait until it is killed, which ends its requests."""
        with trio.fail_after(1000):
            while not self.killed:
                await trio.sleep(0.1)

    def kill(self, why: str) -> None:
        """Note the time; it lives again."""
        self.killed.append((trio.current_time(), why))
        self.stuck = False
        self.busy = 0
        self.computes = False


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
        with engine.vigil.request(2048):
            await engine.death()
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


async def test_other_requests_are_no_reason(autojump_clock: MockClock) -> None:
    """One of two was cancelled, and the engine goes on with the other, without a token for long."""
    async with watched() as engine:
        engine.busy, engine.moves = 1, True
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
    # Three tokens that were not in the cache, on a machine that does other things beside.
    unknown.learn(3, 3.0)
    with unknown.request(100):
        assert unknown.patience == pytest.approx(PATIENCE_SECONDS + 2.93, abs=0.01)
    unknown = Vigil(ask=Engine().ask, kill=print)
    unknown.learn(None, None)
    unknown.learn(0, 0.0)
    assert unknown.patience == PATIENCE_SECONDS
    with unknown.request(BATCH_TOKENS):
        assert unknown.patience == PATIENCE_SECONDS + UNKNOWN_BATCH_SECONDS
    # An engine that has not computed anything yet may still have to read its model.
    cold = Pace(is_warm=False)
    assert cold.time_for(1) == PATIENCE_SECONDS + UNKNOWN_BATCH_SECONDS


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


@pytest.mark.parametrize("busy", [0, 1, None])
async def test_one_that_answers_and_makes_nothing_is_killed(
    busy: int | None, autojump_clock: MockClock
) -> None:
    """Whatever it says of its slots, or does not say: neither tokens nor counts of them move."""
    async with watched() as engine:
        engine.busy = busy
        began = trio.current_time()
        with engine.vigil.request(500):
            await engine.death()
    (at, why), *more = engine.killed
    assert PATIENCE_SECONDS + 2 <= at - began < PATIENCE_SECONDS + 4
    assert "it answered, and made nothing for 10 s" in why
    assert not more


async def test_counts_that_move_are_a_sign_of_life(autojump_clock: MockClock) -> None:
    """A long prompt is read in many batches, and no token is made meanwhile."""
    async with watched() as engine:
        engine.busy, engine.moves = 1, True
        with trio.move_on_after(1000), engine.vigil.request(100):
            await trio.sleep_forever()
    assert engine.killed == []


async def test_a_mute_one_gets_the_time_of_all_its_prompts(autojump_clock: MockClock) -> None:
    """An engine that does not say how far it is has them all to read, batch after batch."""
    async with watched() as engine:
        engine.busy = None
        began = trio.current_time()
        with engine.vigil.request(20_000):
            await engine.death()
    ((at, _),) = engine.killed
    assert PATIENCE_SECONDS + 80 <= at - began < PATIENCE_SECONDS + 83


async def test_impatient_callers_do_not_hide_a_mute_one(autojump_clock: MockClock) -> None:
    """Each gives up after six seconds, and the next comes much later."""
    async with watched() as engine:
        for _ in range(2):
            await cancelled(engine, 6, 10)
            await trio.sleep(100)
        assert len(engine.killed) == 1
        # Callers who give up before an engine that works has made anything are no reason.
        engine.busy, engine.moves = 1, True
        for _ in range(20):
            engine.busy = 1
            await cancelled(engine, 6, 10)
            engine.busy = 0
            await trio.sleep(100)
    assert len(engine.killed) == 1


async def test_a_slow_reader_is_not_taken_for_a_mute_engine(autojump_clock: MockClock) -> None:
    """The engine may have made everything; nobody takes it."""
    async with watched() as engine:
        with engine.vigil.request(100) as one:
            one.sign()
            with one.delivering():
                await trio.sleep(1000)
    assert engine.killed == []


async def test_one_that_computes_on_after_a_cancel_is_killed(autojump_clock: MockClock) -> None:
    """It does not say what it works at, or says nothing: its processor time does."""
    async with watched() as engine:
        engine.busy, engine.computes = None, True
        await cancelled(engine, prompt_tokens=100)
        began = trio.current_time()
        await trio.sleep(100)
        ((at, why),) = engine.killed
        assert PATIENCE_SECONDS <= at - began < PATIENCE_SECONDS + 3
        assert "computed on for 8 s after a request was cancelled" in why
        # It is idle, and lives.
        await cancelled(engine, prompt_tokens=100)
        await trio.sleep(100)
    assert len(engine.killed) == 1


async def test_who_is_accused_of_a_death() -> None:
    """All that the engine had; of these only the ones with a grammar, if there are any."""
    vigil = Engine().vigil
    with vigil.request(1) as one, vigil.request(1) as other:
        assert vigil.may_have_killed(one)
        assert vigil.may_have_killed(other)
    with vigil.request(1) as one, vigil.request(1, has_grammar=True) as other:
        assert not vigil.may_have_killed(one)
        assert vigil.may_have_killed(other)
    # The next run begins with its first request.
    with vigil.request(1) as one:
        assert vigil.may_have_killed(one)


async def test_a_request_beside_one_that_was_cancelled_is_not_accused(
    autojump_clock: MockClock,
) -> None:
    """The engine went on with what nobody wants: that took it."""
    async with watched() as engine:
        engine.busy, engine.moves = 2, True
        with trio.move_on_after(100), engine.vigil.request(1) as one:
            await cancelled(engine, prompt_tokens=1)
            while not engine.killed:
                await trio.sleep(1)
            assert not engine.vigil.may_have_killed(one)
    assert "was busy for" in engine.killed[0][1]


async def test_computing_for_others_is_no_computing_on(autojump_clock: MockClock) -> None:
    """Short requests, again and again, with rests in which there is time to look."""
    async with watched() as engine:
        engine.computes = True
        await cancelled(engine, prompt_tokens=100)
        for _ in range(100):
            with engine.vigil.request(10) as one:
                await trio.sleep(0.2)
                one.sign()
            await trio.sleep(1.7)
        assert engine.killed == []
        # Nobody asks anything any more.
        await trio.sleep(20)
    assert len(engine.killed) == 1
