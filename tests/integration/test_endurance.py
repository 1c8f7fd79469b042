"""Many dialers, many cancels, many deaths: what is left afterwards is what was there before."""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Iterator
from functools import partial

import attrs
import pytest
import trio
from integration.programs import (
    Held,
    Program,
    Programs,
    held_by,
    limit,
    off,
    open_programs,
    settled,
)
from integration.test_choosing import (
    NOISE_SECONDS,
    NOTICED_SECONDS,
    busy,
    in_order,
    record_of,
    text_of,
    wait_for_listeners,
    wait_until,
)

from punch import (
    CommandRequest,
    KnownPeers,
    NoPeerAvailable,
    Router,
    Sampling,
    chat_request,
    open_router,
)
from punch.listener.recordings import GRACE_SECONDS
from punch.network import Transport

DIALERS = 300
CANCELS = 5000
RESTARTS = 20

# A file may be open for an instant while we look, a connection may be on its way out.
SPARE_DESCRIPTORS = 2

# Python and malloc give back objects, not pages: after 300 dialers either process is 3 MB larger
# than before and stays there. A leak grows with their number: 60 KB for each would be too much.
SPARE_MEMORY = 16 << 20

GONE_SECONDS = 30.0


@attrs.frozen(kw_only=True)
class Town:
    """A bootstrap and a quick listener, on TCP and QUIC, for everything in this file."""

    programs: Programs
    bootstrap: Program
    listener: Program

    @property
    def everybody(self) -> tuple[Program, Program]:
        """Who has to endure it."""
        return (self.bootstrap, self.listener)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """The same two processes for all of it."""
    with open_programs(tmp_path_factory.mktemp("town")) as programs:
        bootstrap = programs.bootstrap()
        listener = programs.listener(
            "--transport", "dual", "--slots", "16", "--queue", "64", PUNCH_MOCK_DECODE_RATE="2000"
        )
        opened = Town(programs=programs, bootstrap=bootstrap, listener=listener)
        # The first dialers make the processes load and allocate what they need once.
        trio.run(_come_and_go, opened, 8)
        yield opened
        for program in opened.everybody:
            assert program.process.poll() is None, program.err
            assert "Traceback" not in program.err


def question(number: int, tokens: int = 8) -> CommandRequest:
    """A question that nobody else asks."""
    return chat_request(f"question {number}", sampling=Sampling(max_tokens=tokens))


async def check(router: Router, request: CommandRequest) -> None:
    """Ask, and have the one answer there is to it."""
    response = await router.ask(request)
    assert response.request_id == request.request_id
    assert response.result is not None
    assert response.result.text == text_of(request)


async def _come_and_go(town: Town, count: int) -> None:
    """Dialers, one after the other: the next one comes while the last one is leaving."""
    known = KnownPeers(None)

    async def visit(number: int, *, task_status: trio.TaskStatus[None]) -> None:
        async with open_router(
            bootstrap=town.programs.address,
            transport="quic" if number % 4 == 3 else "tcp",
            known=known,
        ) as router:
            await check(router, question(number))
            task_status.started()

    async with trio.open_nursery() as nursery:
        for number in range(count):
            await nursery.start(visit, number)


async def gives_back(program: Program, before: Held) -> None:
    """Wait until *program* holds what it held *before*, and fail if it never does."""
    most = before.descriptors + SPARE_DESCRIPTORS
    held = await off(settled, program, lambda held: held.descriptors <= most, GONE_SECONDS)
    assert held.descriptors <= most, program.name
    assert held.memory <= before.memory + SPARE_MEMORY, program.name


@limit(180)
async def test_three_hundred_dialers_come_and_go(town: Town) -> None:
    """One after the other, each with an identity of its own, every fourth on QUIC."""
    before = [held_by(program) for program in town.everybody]
    await _come_and_go(town, DIALERS)
    for program, least in zip(town.everybody, before, strict=True):
        await gives_back(program, least)
    # And as real programs, to the last of which the town is as fresh as to the first.
    for number in range(3):
        asked = question(number)
        said = await off(
            town.programs.dial, "--ask", asked.messages[0].content, "--max-tokens", "8"
        )
        assert (said.code, said.out) == (0, text_of(asked) + "\n")


@limit(180)
async def test_five_thousand_requests_cancelled_at_random_moments(town: Town) -> None:
    """What arrives before the cancel is the beginning of the right answer; the rest is whole."""
    before = [held_by(program) for program in town.everybody]
    draw = random.Random(5)
    ended: Counter[str] = Counter()

    async def ask(router: Router, number: int) -> None:
        request = question(number, tokens=40)
        text = ""
        # Twenty milliseconds to the whole answer, if nobody else is there; with so many at a
        # time it is several times that.
        with trio.move_on_after(draw.choice((0.0, 0.005, 0.05, 0.5)) * draw.random()) as scope:
            try:
                async with router.answer(request) as answer:
                    async for part in answer:
                        text += part
            except NoPeerAvailable:
                # Until the next advert, a router counts as sent what it has just taken back.
                ended["refused"] += 1
                await trio.sleep(0.01)
                return
        expected = text_of(request)
        assert expected.startswith(text)
        if scope.cancelled_caught:
            ended["cancelled"] += 1
        else:
            ended["whole"] += 1
            assert text == expected

    async with (
        open_router(bootstrap=town.programs.address) as first,
        open_router(bootstrap=town.programs.address, transport="quic") as second,
    ):
        routers = (first, second)
        for router in routers:
            await wait_for_listeners(router, town.listener)
        numbers = iter(range(10**9))

        async def keep_asking(router: Router) -> None:
            while ended["cancelled"] < CANCELS:
                await ask(router, next(numbers))
                await trio.lowlevel.checkpoint()

        async def never_cancelled(router: Router) -> None:
            for number in range(200):
                await check_when_free(router, question(-number))

        async with trio.open_nursery() as nursery:
            for router in routers:
                nursery.start_soon(never_cancelled, router)
                for _ in range(10):
                    nursery.start_soon(keep_asking, router)
        # Every slot is free again, and the sessions that carried all of it still do.
        for router in routers:
            await wait_until(
                partial(is_idle, router, town.listener),
                "all slots free",
            )
            session = router._dispatch.pool.session(town.listener.peer_id)
            assert session is not None
            held = session.statistics()
            assert (held.requests, held.client_calls) == (0, 0)
            await check(router, question(1))
    assert ended["cancelled"] >= CANCELS
    assert ended["whole"] > 100, ended
    for program, least in zip(town.everybody, before, strict=True):
        await gives_back(program, least)


def is_idle(router: Router, listener: Program) -> bool:
    """Whether a router knows of nothing that a listener has to do."""
    record = record_of(router, listener)
    if record is None:
        return False
    load = record.capability.load
    return (load.busy, load.queued, record.in_flight) == (0, 0, 0)


async def check_when_free(router: Router, request: CommandRequest) -> None:
    """As `check`; a full queue is waited for."""
    while True:
        try:
            await check(router, request)
            return
        except NoPeerAvailable as error:
            if not ("full" in str(error) or "slots are busy" in str(error)):
                raise
        await trio.sleep(0.02)


@limit(240)
async def test_a_listener_killed_and_restarted_twenty_times(town: Town) -> None:
    """SIGKILL and a new start, again and again: it is met each time, and nobody else suffers."""
    before = [held_by(program) for program in town.everybody]
    done = False
    asked = 0

    async def go_on_asking(router: Router) -> None:
        nonlocal asked
        while not done:
            asked += 1
            # If one dies in the middle of it, the other goes on with it.
            await check(router, question(asked))
            await trio.sleep(0.01)

    victim = await off(town.programs.listener)
    peer_id = victim.peer_id
    async with (
        open_router(bootstrap=town.programs.address, policy="round-robin") as asker,
        open_router(bootstrap=town.programs.address, policy=in_order(victim)) as seeker,
        trio.open_nursery() as nursery,
    ):
        await wait_for_listeners(asker, town.listener, victim)
        await wait_for_listeners(seeker, town.listener, victim)
        nursery.start_soon(go_on_asking, asker)
        for _ in range(RESTARTS):
            record = record_of(seeker, victim)
            assert record is not None
            incarnation = record.incarnation
            await off(victim.kill)
            victim = await off(town.programs.listener)
            assert victim.peer_id == peer_id
            with trio.fail_after(30):
                while (record := record_of(seeker, victim)) is None or (
                    record.incarnation <= incarnation
                ):
                    await trio.sleep(0.02)
            assert (await seeker.ask("back?")).executor == peer_id
        done = True
    assert asked > RESTARTS
    await off(victim.stop)
    for program, least in zip(town.everybody, before, strict=True):
        await gives_back(program, least)


@pytest.mark.parametrize("transport", ["tcp", "quic"])
@limit(60)
async def test_a_stopped_listener_is_noticed_and_nobody_else_suffers(
    town: Town, transport: Transport
) -> None:
    """SIGSTOP, on either transport: gone within 5 s, while the other one answers all along."""
    asleep = await off(town.programs.listener, "--transport", transport)
    async with open_router(
        bootstrap=town.programs.address,
        transport=transport,
        policy=in_order(town.listener),
    ) as router:
        await wait_for_listeners(router, town.listener, asleep)
        asleep.send(signal.SIGSTOP)
        stopped = trio.current_time()
        try:
            number = 0
            while record_of(router, asleep) is not None:
                number += 1
                await check(router, question(number))
                await trio.sleep(0.02)
                assert trio.current_time() - stopped <= NOTICED_SECONDS + NOISE_SECONDS
        finally:
            asleep.send(signal.SIGCONT)
        await wait_for_listeners(router, asleep)
    await off(asleep.stop)


@pytest.mark.parametrize("goes_on", [True, False])
@limit(90)
async def test_a_stopped_dialer_is_let_go(town: Town, goes_on: bool) -> None:
    """SIGSTOP in the middle of its answer: noticed, waited for a moment, and the slot is free.

    Awake again it goes on with the answer, unless it was told not to.
    """
    model = f"slow-{goes_on}"
    slow = await off(town.programs.listener, PUNCH_MOCK_MODEL=model, PUNCH_MOCK_DECODE_RATE="5")
    # More than are made until nobody waits for them any more.
    tokens = 100
    async with open_router(bootstrap=town.programs.address) as watcher:
        await wait_for_listeners(watcher, slow)
        dialer = town.programs.start(
            *("dialer", "--ask", "hi", "--model", model, "--max-tokens", str(tokens)),
            "--continuation" if goes_on else "--no-continuation",
        )
        await off(dialer.wait_out)
        await wait_until(lambda: busy(watcher, slow) == 1, "the request")
        dialer.send(signal.SIGSTOP)
        stopped = trio.current_time()
        await wait_until(lambda: busy(watcher, slow) == 0, "a free slot")
        most = NOTICED_SECONDS + GRACE_SECONDS + NOISE_SECONDS
        assert trio.current_time() - stopped <= most
        dialer.send(signal.SIGCONT)
        said = await off(dialer.wait)
    whole = text_of(chat_request("hi", sampling=Sampling(max_tokens=tokens)))
    if goes_on:
        assert (said.code, said.out) == (0, whole + "\n"), said
    else:
        assert said.code == 3
        assert whole.startswith(said.out.rstrip("\n"))
        assert said.out != whole + "\n"
    await off(slow.stop)
