"""The best listener is chosen, load moves the choice, and whoever fails is replaced."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random

import attrs
import pytest
import trio
from integration.programs import Program, Programs, limit, off, open_programs

from punch import (
    Candidate,
    CommandRequest,
    DeadlineExceeded,
    NoPeerAvailable,
    PeerRecord,
    Policy,
    Router,
    RouteRequest,
    Sampling,
    chat_request,
    open_router,
)
from punch.backends import mock_words
from punch.listener.recordings import GRACE_SECONDS
from punch.routing import STANDARD_FILTERS

# The word: a peer that stopped is noticed within 5 s.
NOTICED_SECONDS = 5.0
# On machines that run other things at the same time, nothing happens on the dot.
NOISE_SECONDS = 1.0

# Long enough to time, and what the listeners of `three` then take for the usual length.
MEASURED_TOKENS = 40


@attrs.frozen
class InOrder:
    """Prefers peers in the order they are named in; whoever is not named comes last."""

    peers: tuple[str, ...]
    term_names: tuple[str, ...] = ("place",)
    unit: str = ""
    lowest_is_best: bool = True

    def terms(
        self, request: RouteRequest, candidates: Sequence[Candidate], rng: Random
    ) -> Sequence[tuple[float, ...]]:
        """The place in the order."""
        return [
            (float(self.peers.index(p.peer_id) if p.peer_id in self.peers else len(self.peers)),)
            for p in candidates
        ]


def in_order(*programs: Program, without: tuple[str, ...] = ()) -> Policy:
    """A policy that asks these, in this order, with the usual filters but those named."""
    return Policy(
        name="in-order",
        scorer=InOrder(tuple(program.peer_id for program in programs)),
        filters=tuple(step for step in STANDARD_FILTERS if step.name not in without),
        near=0.0,
    )


def text_of(request: CommandRequest) -> str:
    """What any mock answers to *request*."""
    return " ".join(mock_words(request))


def long_request(text: str, tokens: int = 400) -> CommandRequest:
    """A request that keeps a slot busy for long."""
    return chat_request(text, sampling=Sampling(max_tokens=tokens))


async def wait_for_listeners(router: Router, *programs: Program) -> None:
    """Wait until *router* has heard of all of these."""
    wanted = {program.peer_id for program in programs}
    await router.wait_for_peers(lambda peers: wanted <= {peer.peer_id for peer in peers})


async def wait_until(done: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    """Wait for something that a router's records will say."""
    with trio.move_on_after(seconds):
        while not done():
            await trio.sleep(0.02)
        return
    raise AssertionError(f"not within {seconds} s: {what}")


def record_of(router: Router, program: Program) -> PeerRecord | None:
    """What *router* knows of a listener."""
    return next((peer for peer in router.peers if peer.peer_id == program.peer_id), None)


def busy(router: Router, program: Program) -> int:
    """Requests that a listener says it is answering."""
    record = record_of(router, program)
    return -1 if record is None else record.capability.load.busy


@asynccontextmanager
async def asking(router: Router, request: CommandRequest) -> AsyncIterator[list[str]]:
    """Have *request* asked while the block runs; the texts as they come."""
    texts: list[str] = []

    async def ask() -> None:
        async with router.answer(request) as answer:
            while text := await answer.receive():
                texts.append(text)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        yield texts
        nursery.cancel_scope.cancel()


# ---- three unlike listeners ----


@attrs.frozen(kw_only=True)
class Three:
    """Listeners of very different speed, each measured by real answers."""

    programs: Programs
    fast: Program
    medium: Program
    slow: Program

    @property
    def all(self) -> tuple[Program, ...]:
        """From the fastest to the slowest."""
        return (self.fast, self.medium, self.slow)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Three]:
    """One slot each; 200, 100 and 20 tokens a second."""
    with open_programs(tmp_path_factory.mktemp("three")) as programs:
        programs.bootstrap()
        fast, medium, slow = programs.listeners(
            *(
                {"arguments": ("--slots", "1"), "environment": {"PUNCH_MOCK_DECODE_RATE": rate}}
                for rate in ("200", "100", "20")
            )
        )
        opened = Three(programs=programs, fast=fast, medium=medium, slow=slow)
        trio.run(_measure, opened)
        yield opened


async def _measure(three: Three) -> None:
    """One answer from each: mocks are not calibrated at their start."""
    for program in three.all:
        async with open_router(
            bootstrap=three.programs.address, policy=in_order(program)
        ) as router:
            await wait_for_listeners(router, program)
            request = chat_request("measure", sampling=Sampling(max_tokens=MEASURED_TOKENS))
            assert (await router.ask(request)).executor == program.peer_id


def rows_of(explained: str) -> dict[str, dict[str, float]]:
    """Peer id to the numbers of its row by column, as ``--explain`` prints them."""
    names: list[str] = []
    found = {}
    for line in explained.splitlines():
        if line.split()[:3] == ["peer", "kind", "backend"]:
            names = line.split()[3:]
        elif match := re.match(r"\s+(12D3\w+)\s+\S+\s+\S+((?:\s+-?\d+\.\d+)+)", line):
            found[match[1]] = dict(zip(names, map(float, match[2].split()), strict=True))
    return found


@limit(60)
def test_the_predicted_best_is_chosen_and_the_numbers_are_shown(three: Three) -> None:
    """The fastest answers; `--explain` has a row of numbers for each, which add up."""
    said = three.programs.dial("--ask", "hi", "--explain", "--max-tokens", str(MEASURED_TOKENS))
    assert said.code == 0
    (chosen,) = [line for line in said.err.splitlines() if line.endswith("<- chosen")]
    assert three.fast.peer_id in chosen
    rows = rows_of(said.err)
    assert rows.keys() == {program.peer_id for program in three.all}
    for row in rows.values():
        terms = [number for name, number in row.items() if name != "score"]
        # Each is rounded to four digits.
        assert row["score"] == pytest.approx(sum(terms), abs=0.0005 * len(terms))
    order = sorted(three.all, key=lambda program: rows[program.peer_id]["score"])
    assert order == list(three.all)
    # The usual length at 200, 100 and 20 a second; the mock's clock is good to a few per cent.
    for program, rate in zip(three.all, (200, 100, 20), strict=True):
        decode = rows[program.peer_id]["decode"]
        assert decode == pytest.approx(MEASURED_TOKENS / rate, rel=0.5)


@limit(60)
async def test_load_moves_the_choice_and_its_end_moves_it_back(three: Three) -> None:
    """Others keep the fastest busy: a dialer that knows of it by adverts alone goes elsewhere."""

    def short() -> CommandRequest:
        # A new one each time: who asks the same one again gets the answer that is there.
        return long_request("short", 100)

    async with (
        open_router(bootstrap=three.programs.address) as router,
        open_router(bootstrap=three.programs.address, policy=in_order(three.fast)) as other,
    ):
        await wait_for_listeners(router, *three.all)
        await wait_for_listeners(other, *three.all)
        assert (await router.ask(short())).executor == three.fast.peer_id
        async with AsyncExitStack() as stack:
            for number in range(4):
                await stack.enter_async_context(asking(other, long_request(f"load {number}", 2000)))
            # Four of them: one in the slot, three waiting.
            await wait_until(
                lambda: (
                    (record := record_of(router, three.fast)) is not None
                    and record.capability.load.queued == 3
                ),
                "the load in the adverts",
            )
            response = await router.ask(short())
            assert response.executor == three.medium.peer_id
            assert response.decision is not None
            scores = {each["peer_id"]: each for each in response.decision["candidates"]}
            assert scores[three.fast.peer_id]["terms"]["queue"] > 0
            assert scores[three.medium.peer_id]["terms"]["queue"] == 0
        await wait_until(lambda: busy(router, three.fast) == 0, "the end of the load")
        last = await router.ask(short())
        assert last.executor == three.fast.peer_id, last.decision


@limit(60)
async def test_a_dialer_counts_what_it_has_just_sent_itself(three: Three) -> None:
    """Nine requests in one instant, before any advert can tell: they spread."""
    executors: list[str] = []
    async with open_router(bootstrap=three.programs.address) as router:
        await wait_for_listeners(router, *three.all)

        async def ask(number: int) -> None:
            request = chat_request(f"at once {number}", sampling=Sampling(max_tokens=50))
            response = await router.ask(request)
            assert response.result is not None
            assert response.result.text == text_of(request)
            executors.append(str(response.executor))

        async with trio.open_nursery() as nursery:
            for number in range(9):
                nursery.start_soon(ask, number)
    assert executors.count(three.fast.peer_id) > executors.count(three.medium.peer_id) > 0


@limit(60)
async def test_a_full_listener_refuses_and_the_next_one_answers(three: Three) -> None:
    """A dialer that does not look at loads is refused, and moves on without a fault."""
    full = await off(
        three.programs.listener, "--slots", "1", "--queue", "0", PUNCH_MOCK_DECODE_RATE="10"
    )
    try:
        policy = in_order(full, three.fast, without=("slots",))
        async with (
            open_router(bootstrap=three.programs.address, policy=policy) as router,
            open_router(bootstrap=three.programs.address, policy=policy) as other,
        ):
            await wait_for_listeners(router, full, three.fast)
            await wait_for_listeners(other, full, three.fast)
            async with asking(other, long_request("occupy")) as texts:
                await wait_until(lambda: bool(texts), "the first text of the long answer")
                response = await router.ask("hi")
                assert response.executor == three.fast.peer_id
                (attempt,) = response.attempts
                assert (attempt["peer_id"], attempt["error"]) == (full.peer_id, "refused")
                assert "all 1 slots are busy" in attempt["reason"]
                record = record_of(router, full)
                assert record is not None
                # Being full is no fault.
                assert (record.failures, record.reputation) == (0, 1.0)
    finally:
        await off(full.stop)


# ---- one that dies, or stops ----


@limit(90)
def test_the_next_one_answers_when_the_chosen_one_is_killed(three: Three) -> None:
    """SIGKILL before the first token, seen from the command line: the answer still comes."""
    programs = three.programs
    # It takes 3 s to its first token and is predicted to be the best by far, since the others
    # of its model need seconds for the answer.
    doomed, heir = programs.listeners(
        {
            "environment": {
                "PUNCH_MOCK_MODEL": "mortal",
                "PUNCH_MOCK_DELAY": "3",
                "PUNCH_MOCK_DECODE_RATE": "1000",
            }
        },
        {"environment": {"PUNCH_MOCK_MODEL": "mortal", "PUNCH_MOCK_DECODE_RATE": "10"}},
    )

    async def measure_and_kill() -> str:
        for program in (doomed, heir):
            policy = in_order(program)
            async with open_router(bootstrap=programs.address, policy=policy) as router:
                await wait_for_listeners(router, program)
                words = "with a long prompt, so that its prefill rate is good " * 20
                sampling = Sampling(max_tokens=8)
                await router.ask(chat_request(words, model="mortal", sampling=sampling))
        async with open_router(bootstrap=programs.address) as watcher:
            await wait_for_listeners(watcher, doomed, heir)
            dialer = programs.start(
                "dialer", "--ask", "hi", "--model", "mortal", "--explain", "--max-tokens", "30"
            )
            # Not before it works on the request: that would be another test.
            await wait_until(lambda: busy(watcher, doomed) == 1, "the request at the chosen one")
            assert dialer.out == ""
            doomed.kill()
            await wait_until(lambda: busy(watcher, heir) == 1, "the request at the next")
        ended = await off(dialer.wait, 40)
        assert ended.code == 0, ended
        assert ended.out == text_of(long_request("hi", 30)) + "\n"
        return ended.err

    explained = trio.run(measure_and_kill)
    assert f"{doomed.peer_id} failed after" in explained
    chosen = [line for line in explained.splitlines() if line.endswith("<- chosen")]
    assert doomed.peer_id in chosen[0]
    assert heir.peer_id in chosen[1]
    heir.stop()


@limit(60)
async def test_a_stopped_listener_is_noticed_and_its_requests_move(three: Three) -> None:
    """SIGSTOP: within 5 s it is gone from the table, and what it was asked is answered."""
    asleep = await off(three.programs.listener, PUNCH_MOCK_DELAY="0.5")
    policy = in_order(asleep, three.fast)
    async with open_router(bootstrap=three.programs.address, policy=policy) as router:
        await wait_for_listeners(router, asleep, three.fast)
        asleep.send(signal.SIGSTOP)
        stopped = trio.current_time()
        try:
            requests = [chat_request(f"asked a sleeper {number}") for number in range(3)]
            answers = []

            async def ask(request: CommandRequest) -> None:
                response = await router.ask(request)
                answers.append((request, response))

            async with trio.open_nursery() as nursery:
                for request in requests:
                    nursery.start_soon(ask, request)
                await wait_until(lambda: record_of(router, asleep) is None, "its absence")
                assert trio.current_time() - stopped <= NOTICED_SECONDS + NOISE_SECONDS
            for request, response in answers:
                assert response.executor == three.fast.peer_id
                assert response.result is not None
                assert response.result.text == text_of(request)
                # Another one was asked beside it, or after it was found to be silent.
                for attempt in response.attempts:
                    assert (attempt["peer_id"], attempt["error"]) == (asleep.peer_id, "silent")
            assert len(answers) == 3
        finally:
            asleep.send(signal.SIGCONT)
        # Awake again, it is met again, and answers.
        await wait_for_listeners(router, asleep)
        await wait_until(
            lambda: (
                (record := record_of(router, asleep)) is not None
                and all(b.until <= trio.current_time() for b in record.breakers.values())
            ),
            "its pardon",
        )
        response = await router.ask("awake?")
        assert response.executor == asleep.peer_id
    await off(asleep.stop)


@limit(60)
def test_when_nobody_is_left_everybody_is_listed(programs: Programs) -> None:
    """Two that fail and one that is gone: exit code 3, each of them with its reason."""
    programs.bootstrap()
    failing = programs.listeners(*[{"environment": {"PUNCH_MOCK_FAIL_AFTER": "0"}}] * 2)
    gone = programs.listener()
    gone.kill()
    said = programs.dial("--ask", "hi")
    assert (said.code, said.out) == (3, "")
    for program in failing:
        (line,) = [line for line in said.err.splitlines() if f"  {program.peer_id}:" in line]
        assert "told to fail after 0" in line
    (line,) = [line for line in said.err.splitlines() if f"  {gone.peer_id}:" in line]
    # Another test's listener may have taken its port meanwhile.
    assert "refused" in line or "wrong identity" in line


@limit(60)
async def test_a_failure_after_the_first_text_is_made_good_by_another(programs: Programs) -> None:
    """The answer goes on where it stopped, and is the one that a single peer would have given."""
    await off(programs.bootstrap)
    starts = [{"environment": {"PUNCH_MOCK_FAIL_AFTER": "3"}}, {}]
    failing, well = await off(programs.listeners, *starts)
    policy = in_order(failing, well)
    async with open_router(bootstrap=programs.address, policy=policy) as router:
        await wait_for_listeners(router, failing, well)
        request = chat_request("hi")
        response = await router.ask(request)
    assert response.result is not None
    assert response.result.text == text_of(request)
    assert [(part.peer_id, part.tokens) for part in response.segments] == [
        (failing.peer_id, 3),
        (well.peer_id, len(mock_words(request)) - 3),
    ]


@limit(60)
def test_when_nobody_can_go_on_the_error_says_how_far_it_came(programs: Programs) -> None:
    """Both add their three words, which stand; nothing is repeated or made up; code 3."""
    programs.bootstrap()
    programs.listeners(*[{"environment": {"PUNCH_MOCK_FAIL_AFTER": "3"}}] * 2)
    said = programs.dial("--ask", "hi")
    delivered = " ".join(mock_words(chat_request("hi"))[:6])
    assert (said.code, said.out) == (3, f"{delivered}\n")
    assert f"after 6 tokens ({len(delivered)} characters) of the answer" in said.err
    assert said.err.count("told to fail after 3") == 2


@limit(60)
def test_without_continuation_a_failure_after_the_first_text_is_an_error(
    programs: Programs,
) -> None:
    """`--no-continuation`: the first peer's words and no others; code 3, and the reason."""
    programs.bootstrap()
    programs.listeners(*[{"environment": {"PUNCH_MOCK_FAIL_AFTER": "3"}}] * 2)
    said = programs.dial("--ask", "hi", "--no-continuation")
    delivered = " ".join(mock_words(chat_request("hi"))[:3])
    assert (said.code, said.out) == (3, f"{delivered}\n")
    assert f"after 3 tokens ({len(delivered)} characters) of the answer" in said.err
    assert said.err.count("told to fail after 3") == 1


@limit(60)
def test_a_deadline_is_kept(programs: Programs) -> None:
    """`--timeout`: exit code 5 soon after it, whether silent or in the middle of the answer."""
    programs.listener(PUNCH_MOCK_DELAY="30", PUNCH_MOCK_MODEL="silent")
    programs.listener(PUNCH_MOCK_DECODE_RATE="2", PUNCH_MOCK_MODEL="slow")
    for model in ("silent", "slow"):
        said = programs.dial("--ask", "hi", "--timeout", "2", "--model", model)
        assert said.code == 5, said
        # Two seconds, and the start of a Python program on a busy machine.
        assert 2 <= said.seconds < 15
        assert bool(said.out) == (model == "slow")


@limit(60)
async def test_a_deadline_covers_every_try(three: Three) -> None:
    """Two sleepers, one after the other, have the time of one request between them."""
    starts = [{"environment": {"PUNCH_MOCK_DELAY": "60", "PUNCH_MOCK_MODEL": "sleepy"}}] * 2
    sleepers = await off(three.programs.listeners, *starts)
    async with open_router(bootstrap=three.programs.address) as router:
        await wait_for_listeners(router, *sleepers)
        began = trio.current_time()
        with pytest.raises(DeadlineExceeded):
            await router.ask(chat_request("hi", model="sleepy", timeout=2))
        assert 2 <= trio.current_time() - began < 4
        # Its time is over for the listener, too.
        await wait_until(lambda: [busy(router, s) for s in sleepers] == [0, 0], "free slots")
        for sleeper in sleepers:
            await off(sleeper.stop)
        with pytest.raises(NoPeerAvailable):
            await router.ask(chat_request("hi", model="sleepy", timeout=20))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@limit(60)
async def test_a_dialer_that_leaves_frees_its_slot(three: Three, number: signal.Signals) -> None:
    """Ctrl-C, SIGTERM or killed in the middle of an answer: the listener stops working on it."""
    programs = three.programs
    target = await off(
        programs.listener, PUNCH_MOCK_DECODE_RATE="5", PUNCH_MOCK_MODEL=f"only-{number}"
    )
    async with open_router(bootstrap=programs.address) as watcher:
        await wait_for_listeners(watcher, target)
        dialer = programs.start(
            "dialer", "--ask", "hi", "--model", f"only-{number}", "--max-tokens", "1000"
        )
        await off(dialer.wait_out)
        await wait_until(lambda: busy(watcher, target) == 1, "the request")
        began = time.monotonic()
        ended = await off(dialer.stop, number)
        await wait_until(lambda: busy(watcher, target) == 0, "a free slot")
        # Who says that he goes frees the slot within 0.1 s, which says so 0.05 s later; the rest
        # is leaving, and noise. Of who was killed the listener knows only that he was lost: he
        # might come back.
        grace = GRACE_SECONDS if number == signal.SIGKILL else 0.0
        assert time.monotonic() - began < grace + 5
        assert ended.code == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number]
        assert ended.out.split() == mock_words(long_request("hi", 1000))[: len(ended.out.split())]
        assert "Traceback" not in ended.err
    await off(target.stop)
