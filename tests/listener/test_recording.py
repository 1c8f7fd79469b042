"""Exactly once: whoever asks again gets the answer that is there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

import attrs
import pytest
import trio
from answers import error_of, text_of
from trio.testing import MockClock, wait_all_tasks_blocked

from punch.backends import Emit, Generation, MockBackend, MockScript, mock_words
from punch.capability import PeerId
from punch.exceptions import GenerationFailed
from punch.listener import Executor, OneOrMore, open_executor
from punch.listener.recordings import (
    GRACE_SECONDS,
    KEPT_ANSWERS,
    KEPT_BYTES,
    KEPT_SECONDS,
    MAX_SECONDS,
    Reader,
    Recording,
    Recordings,
    _recording,
    key_of,
)
from punch.listener.recordings._parts import PIECE_CHARACTERS
from punch.session import ClientCall, PeerSession, ServerCall
from punch.testing import MemoryNetwork, MemoryNode, MemoryStream, ScriptedBackend
from punch.wire import (
    PROTOCOL,
    WINDOW,
    Advert,
    ChatMessage,
    Chunk,
    CommandRequest,
    CommandResponse,
    Completion,
    Hello,
    LoadReport,
    Progress,
    Provenance,
    Sampling,
    Session,
    Started,
    Thought,
    Timings,
    Usage,
    greeting,
)

LIMIT = 3600
ASK = CommandRequest(
    request_id="r",
    messages=(ChatMessage(role="user", content="go on"),),
    sampling=Sampling(max_tokens=20),
)
DIALER = PeerId("d")
WHOLE = " ".join(mock_words(ASK))


class Nobody:
    """A dialer that only asks."""

    peer_id = PeerId("dialer")

    def opened(self, session: PeerSession, hello: Hello) -> None:
        """Fine."""

    def advertised(self, session: PeerSession, advert: Advert | LoadReport) -> None:
        """Fine."""

    def round_trip(self, session: PeerSession, seconds: float) -> None:
        """Fine."""

    def serve_call(self, call: ServerCall) -> None:
        """Nobody asks it."""


class Counting(MockBackend):
    """A mock that counts how often it is asked, and how often it was stopped."""

    def __init__(self, **script: Any) -> None:
        super().__init__(MockScript(**script))
        self.asked = 0
        self.stopped_at: list[float] = []

    async def generate(self, request: CommandRequest, emit: Emit) -> Generation:
        self.asked += 1
        try:
            return await super().generate(request, emit)
        except trio.Cancelled:
            self.stopped_at.append(trio.current_time())
            raise


class Dial(Protocol):
    """Opens a session as the dialer of that name."""

    async def __call__(self, name: str = "dialer") -> tuple[PeerSession, MemoryStream]: ...


@asynccontextmanager
async def listening(backends: OneOrMore) -> AsyncIterator[tuple[Executor, Dial]]:
    """An executor, and a way to open sessions with it."""
    async with trio.open_nursery() as nursery:
        network = MemoryNetwork(nursery)
        node = network.node("listener")
        async with open_executor(
            node, backends, namespace="n", incarnation=1, calibrate=False
        ) as executor:
            nodes: dict[str, MemoryNode] = {}

            async def dial(name: str = "dialer") -> tuple[PeerSession, MemoryStream]:
                dialer = nodes.get(name) or nodes.setdefault(name, network.node(name))
                stream = await dialer.open_stream(node.peer_id, node.addresses, PROTOCOL)
                hello = greeting(namespace="n", incarnation=1, version="test")
                session = PeerSession(stream, Session("dialer", hello), Nobody())
                nursery.start_soon(session.run)
                while not session.is_open:
                    await trio.sleep(0.001)
                return session, stream

            yield executor, dial
        nursery.cancel_scope.cancel()


async def read(call: ClientCall) -> tuple[str, int, CommandResponse]:
    """The text, the tokens and the end of a call."""
    text, tokens = "", 0
    while True:
        part = await call.receive()
        if isinstance(part, Chunk):
            text, tokens = text + part.text, tokens + part.tokens
        elif isinstance(part, CommandResponse):
            return text, tokens, part


async def until_text(call: ClientCall) -> None:
    """Wait for the first text."""
    while not isinstance(await call.receive(), Chunk):
        pass


def is_empty(executor: Executor) -> bool:
    """Nothing runs and nothing waits."""
    found = executor.statistics()
    return (found.busy, found.queued, found.recordings.running) == (0, 0, 0)


class Spawned(trio.abc.Instrument):
    """Names the tasks that were started."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        self.names.append(task.name.rpartition(".")[2])


@pytest.mark.parametrize("stream", [True, False], ids=["in parts", "whole"])
async def test_an_answer_is_made_and_passed_on_in_one_task(
    stream: bool, autojump_clock: MockClock
) -> None:
    """A reader that keeps up needs none of its own; one that gathers text has one, once."""
    spawned = Spawned()
    with trio.fail_after(LIMIT):
        async with listening(Counting(decode_rate=10)) as (_, dial):
            session, _ = await dial()
            trio.lowlevel.add_instrument(spawned)
            await read(session.ask(attrs.evolve(ASK, stream=stream)))
            alone, spawned.names = spawned.names, []
            gathered = attrs.evolve(ASK, request_id="g", stream=stream, stream_interval=0.5)
            await read(session.ask(gathered))
            trio.lowlevel.remove_instrument(spawned)
    assert alone == ["_make"]
    assert spawned.names == (["_make", "_follow"] if stream else ["_make"])


async def test_a_request_that_comes_back_joins_the_running_answer(
    autojump_clock: MockClock,
) -> None:
    """After its connection broke it gets every word from the beginning, made once."""
    backend = Counting(decode_rate=10)
    with trio.fail_after(LIMIT):
        async with listening(backend) as (executor, dial):
            first, stream = await dial()
            await until_text(first.ask(ASK))
            stream.end()
            await trio.sleep(GRACE_SECONDS / 5)
            second, _ = await dial()
            text, tokens, response = await read(second.ask(ASK))
            empty = is_empty(executor)
    assert (text, tokens, response.status) == (WHOLE, 20, "success")
    assert response.timings.total == pytest.approx(2.0)
    assert backend.asked == 1
    assert empty


async def test_two_sessions_of_one_dialer_read_the_same_answer(autojump_clock: MockClock) -> None:
    """Each from its beginning; one of them whole, at the end."""
    backend = Counting(decode_rate=10)
    ends = []
    with trio.fail_after(LIMIT):
        async with listening(backend) as (_, dial):
            first, _ = await dial()
            second, _ = await dial()
            async with trio.open_nursery() as nursery:

                async def ask(session: PeerSession, request: CommandRequest) -> None:
                    ends.append(await read(session.ask(request)))

                nursery.start_soon(ask, first, ASK)
                await trio.sleep(1)
                nursery.start_soon(ask, second, attrs.evolve(ASK, stream=False, timeout=50))
    (text, tokens, streamed), (nothing, _, whole) = sorted(ends, key=lambda end: -len(end[0]))
    assert (text, tokens, text_of(streamed)) == (WHOLE, 20, "")
    assert (nothing, text_of(whole)) == ("", WHOLE)
    assert streamed.usage == whole.usage
    assert backend.asked == 1


async def test_another_dialer_may_use_the_same_id(autojump_clock: MockClock) -> None:
    """Ids are each dialer's own."""
    backend = Counting()
    with trio.fail_after(LIMIT):
        async with listening(backend) as (_, dial):
            for name in ("dialer", "other"):
                session, _ = await dial(name)
                await read(session.ask(ASK))
    assert backend.asked == 2


async def test_a_finished_answer_is_kept_for_a_while(autojump_clock: MockClock) -> None:
    """Asked again it is the same; after its time it is made anew."""
    backend = Counting(decode_rate=10)
    with trio.fail_after(LIMIT):
        async with listening(backend) as (_, dial):
            session, _ = await dial()
            made = await read(session.ask(ASK))
            await trio.sleep(KEPT_SECONDS - 1)
            again = await read(session.ask(ASK))
            plain = await read(session.ask(attrs.evolve(ASK, stream=False, priority=3)))
            asked = backend.asked
            await trio.sleep(KEPT_SECONDS)
            await read(session.ask(ASK))
    assert again[:2] == made[:2] == (WHOLE, 20)
    assert attrs.evolve(again[2], load=None) == attrs.evolve(made[2], load=None)
    assert text_of(plain[2]) == WHOLE
    assert (asked, backend.asked) == (1, 2)


@pytest.mark.parametrize("rate", [None, 10], ids=["kept", "running"])
async def test_another_body_with_the_same_id_is_a_conflict(
    autojump_clock: MockClock, rate: int | None
) -> None:
    """While the first is made and after; the first is not disturbed."""
    backend = Counting(decode_rate=rate)
    other = attrs.evolve(ASK, messages=(ChatMessage(role="user", content="stop"),))
    with trio.fail_after(LIMIT):
        async with listening(backend) as (_, dial):
            first, _ = await dial()
            second, _ = await dial()
            call = first.ask(ASK)
            await trio.sleep(1)
            refused = (await read(second.ask(other)))[2]
            text, _, _ = await read(call)
    assert (refused.status, error_of(refused).code, error_of(refused).retryable) == (
        "error",
        "conflict",
        False,
    )
    assert text == WHOLE


@pytest.mark.parametrize("words", [1, 1000], ids=["short", "long"])
async def test_a_kept_answer_knows_its_question_however_long(
    words: int, autojump_clock: MockClock
) -> None:
    """And a long prompt is not kept for that."""
    turn = ChatMessage(role="user", content="go on " * words)
    other = ChatMessage(role="user", content="go on " * (words - 1) + "go up ")
    backend, request = Counting(), attrs.evolve(ASK, messages=(turn,))
    with trio.fail_after(LIMIT):
        async with listening(backend) as (executor, dial):
            session, _ = await dial()
            first, again, refused = [
                (await read(session.ask(attrs.evolve(ASK, messages=(message,)))))[2].status
                for message in (turn, turn, other)
            ]
            (kept,) = executor._recordings._kept.values()
    assert (first, again, refused) == ("success", "success", "error")
    assert backend.asked == 1
    assert kept[2].asked == (request.fingerprint if words > 1 else request)


async def test_an_error_is_not_kept(autojump_clock: MockClock) -> None:
    """Who asks again wants another try."""
    tries = 0

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise GenerationFailed("once")
        await emit("ok", 1)
        return Generation(completion=Completion(text="ok"), usage=Usage(), timings=Timings())

    with trio.fail_after(LIMIT):
        async with listening(ScriptedBackend(play)) as (executor, dial):
            session, _ = await dial()
            failed = (await read(session.ask(ASK)))[2]
            text, _, response = await read(session.ask(ASK))
            kept = executor.statistics().recordings.kept
    assert failed.status == "error"
    assert (text, response.status, kept) == ("ok", "success", 1)


async def test_a_cancel_frees_the_slot_at_once_and_says_what_was_made(
    autojump_clock: MockClock,
) -> None:
    """Nobody else wants the answer: within 100 ms the backend stops."""
    backend = Counting(decode_rate=10, slots=1)
    with trio.fail_after(LIMIT):
        async with listening(backend) as (executor, dial):
            session, _ = await dial()
            call = session.ask(attrs.evolve(ASK, stream=False))
            await trio.sleep(1.05)
            call.cancel()
            cancelled_at = trio.current_time()
            tokens = await call.confirmed()
            await trio.sleep(0.1)
            empty = is_empty(executor)
            # The id is free again, and the answer is made anew.
            text, _, _ = await read(session.ask(ASK))
    assert tokens == 10
    assert backend.stopped_at[0] - cancelled_at < 0.1
    assert empty
    assert (text, backend.asked) == (WHOLE, 2)


async def test_a_cancel_by_one_reader_leaves_the_answer_to_the_other(
    autojump_clock: MockClock,
) -> None:
    """It ends its own reading only."""
    backend = Counting(decode_rate=10)
    with trio.fail_after(LIMIT):
        async with listening(backend) as (_, dial):
            first, _ = await dial()
            second, _ = await dial()
            gone = first.ask(ASK)
            await trio.sleep(0.5)
            call = second.ask(ASK)
            await trio.sleep(0.5)
            gone.cancel()
            text, tokens, _ = await read(call)
    assert (text, tokens) == (WHOLE, 20)
    assert backend.stopped_at == []


async def test_an_answer_whose_dialer_does_not_come_back_is_given_up(
    autojump_clock: MockClock,
) -> None:
    """After the grace, and everything returns to zero."""
    backend = Counting(decode_rate=1)
    with trio.fail_after(LIMIT):
        async with listening(backend) as (executor, dial):
            session, stream = await dial()
            await until_text(session.ask(ASK))
            broken_at = trio.current_time()
            stream.end()
            await trio.sleep(GRACE_SECONDS - 0.1)
            during = executor.statistics()
            await trio.sleep(0.2)
            empty = is_empty(executor)
            second, _ = await dial()
            text, _, _ = await read(second.ask(ASK))
    assert during.busy == 1
    assert empty
    assert backend.stopped_at == [pytest.approx(broken_at + GRACE_SECONDS)]
    assert (text, backend.asked) == (WHOLE, 2)


async def test_a_lost_request_keeps_its_place_in_the_queue_for_the_grace(
    autojump_clock: MockClock,
) -> None:
    """Who comes back is where it was; who does not leaves the queue, and nothing remains."""
    backend = Counting(decode_rate=1, slots=1)
    with trio.fail_after(LIMIT):
        async with listening(backend) as (executor, dial):
            busy, _ = await dial("other")
            running = busy.ask(ASK)
            await trio.sleep(0.1)
            session, stream = await dial()
            session.ask(attrs.evolve(ASK, request_id="one"))
            await trio.sleep(0.1)
            session.ask(attrs.evolve(ASK, request_id="two"))
            await trio.sleep(0.1)
            stream.end()
            await trio.sleep(1)
            during = executor.statistics().queued
            second, _ = await dial()
            back = second.ask(attrs.evolve(ASK, request_id="two"))
            told = await back.receive()
            await trio.sleep(GRACE_SECONDS)
            after = executor.statistics().queued
            text, _, _ = await read(back)
            await read(running)
            empty = is_empty(executor)
    assert (during, after) == (2, 1)
    assert isinstance(told, Progress)
    assert (told.state, told.ahead) == ("queued", 1)
    assert text == WHOLE
    assert empty


async def test_the_time_of_one_reader_is_not_the_time_of_another(autojump_clock: MockClock) -> None:
    """The first one's deadline ends its own reading."""
    backend = Counting(decode_rate=10)
    with trio.fail_after(LIMIT):
        async with listening(backend) as (executor, dial):
            first, _ = await dial()
            second, _ = await dial()
            hurried = first.ask(attrs.evolve(ASK, timeout=1.0))
            await trio.sleep(0.5)
            text, _, response = await read(second.ask(ASK))
            late = (await read(hurried))[2]
            empty = is_empty(executor)
    assert late.status == "timeout"
    assert (text, response.status) == (WHOLE, "success")
    assert empty


async def test_a_slow_joiner_does_not_hold_up_the_first(autojump_clock: MockClock) -> None:
    """The backend follows the most advanced reader, and waits when that is a window behind."""
    made = 0
    piece = "x" * 8192

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        nonlocal made
        for _ in range(32):
            await emit(piece, 1)
            made += 1
        completion = Completion(text=piece * 32)
        return Generation(completion=completion, usage=Usage(), timings=Timings())

    with trio.fail_after(LIMIT):
        async with listening(ScriptedBackend(play)) as (_, dial):
            first, _ = await dial()
            second, _ = await dial()
            call = first.ask(ASK)
            await trio.sleep(1)
            before = made
            slow = second.ask(ASK)
            text, tokens, _ = await read(call)
            slow_text, slow_tokens, _ = await read(slow)
    assert before * len(piece) <= WINDOW + len(piece)
    assert text == slow_text == piece * 32
    assert tokens == slow_tokens == 32


async def chunks(call: ClientCall) -> tuple[list[int], list[float], CommandResponse]:
    """The tokens of each message, and the seconds from the first one to it."""
    found = []
    while not isinstance(part := await call.receive(), CommandResponse):
        if isinstance(part, Chunk):
            found.append((part.tokens, trio.current_time()))
    return [tokens for tokens, _ in found], [at - found[0][1] for _, at in found], part


async def test_who_reads_nothing_before_the_end_gets_fewer_messages(
    autojump_clock: MockClock,
) -> None:
    """The first text at once, then one message an interval, and the rest with the end."""
    with trio.fail_after(LIMIT):
        async with listening(Counting(decode_rate=10)) as (_, dial):
            session, _ = await dial()
            tokens, times, response = await chunks(
                session.ask(attrs.evolve(ASK, stream_interval=0.45))
            )
            text, *_ = await read(session.ask(attrs.evolve(ASK, stream_interval=0.45)))
    assert tokens == [1, 5, 5, 5, 4]
    assert times == pytest.approx([0.0, 0.5, 1.0, 1.5, 1.9], abs=0.01)
    assert (response.status, response.usage.completion_tokens) == ("success", 20)
    assert text == WHOLE


async def test_what_was_gathered_comes_before_what_went_wrong(autojump_clock: MockClock) -> None:
    """It need not be made again."""

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        for word in ("a", "b", "c"):
            await emit(word, 1)
        raise GenerationFailed("out of memory")

    with trio.fail_after(LIMIT):
        async with listening(ScriptedBackend(play)) as (_, dial):
            session, _ = await dial()
            text, tokens, response = await read(session.ask(attrs.evolve(ASK, stream_interval=1.0)))
    assert (text, tokens, response.status) == ("abc", 3, "error")


@pytest.mark.parametrize("timeout", [50.0, 200.0])
async def test_nothing_is_held_for_long_by_a_backend_that_makes_nothing(
    timeout: float, autojump_clock: MockClock
) -> None:
    """However it goes on: that may be a peer's end, or the time's."""

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        for word in "abcdef":
            await emit(word, 1)
        await trio.sleep(100)
        await emit("g", 1)
        return Generation(completion=Completion(text="abcdefg"), usage=Usage(), timings=Timings())

    with trio.fail_after(LIMIT):
        async with listening(ScriptedBackend(play)) as (_, dial):
            session, _ = await dial()
            ask = attrs.evolve(ASK, stream_interval=0.5, timeout=timeout)
            tokens, times, response = await chunks(session.ask(ask))
    late = timeout > 100
    assert tokens == [1, 5] + [1] * late
    assert times == pytest.approx([0.0, 1.0] + [100.0] * late, abs=0.01)
    assert response.status == ("success" if late else "timeout")


async def test_who_is_slow_does_not_undo_what_another_gathers(autojump_clock: MockClock) -> None:
    """Being woken for one is no reason to send to the other."""
    piece = "x" * (WINDOW // 16)

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        for _ in range(24):
            await emit(piece, 1)
            await trio.sleep(0.1)
        text = piece * 24
        return Generation(completion=Completion(text=text), usage=Usage(), timings=Timings())

    with trio.fail_after(LIMIT):
        async with listening(ScriptedBackend(play)) as (_, dial):
            first, _ = await dial()
            second, _ = await dial()
            idle = first.ask(ASK)
            tokens, *_ = await chunks(second.ask(attrs.evolve(ASK, stream_interval=0.25)))
            assert idle.has_news
    assert sum(tokens) == 24
    assert max(tokens[1:]) <= 4
    assert len(tokens) <= 11


async def test_who_reads_along_is_not_held_up_by_who_does_not(autojump_clock: MockClock) -> None:
    """Each has its own pace in one answer."""
    with trio.fail_after(LIMIT):
        async with listening(Counting(decode_rate=10)) as (_, dial):
            first, _ = await dial()
            second, _ = await dial()
            found = {}
            async with trio.open_nursery() as nursery:

                async def ask(session: PeerSession, interval: float) -> None:
                    call = session.ask(attrs.evolve(ASK, stream_interval=interval))
                    found[interval] = (await chunks(call))[0]

                nursery.start_soon(ask, first, 0.0)
                nursery.start_soon(ask, second, 1.0)
    assert found[0.0] == [1] * 20
    assert found[1.0] == [1, 10, 9]


async def test_no_more_is_gathered_than_one_message_takes(autojump_clock: MockClock) -> None:
    """However much comes within an interval; and who takes none of it holds the backend up."""
    made = 0
    piece = "x" * 8192

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        nonlocal made
        for _ in range(64):
            await emit(piece, 1)
            made += 1
        return Generation(completion=Completion(text=piece * 64), usage=Usage(), timings=Timings())

    with trio.fail_after(LIMIT):
        async with listening(ScriptedBackend(play)) as (_, dial):
            session, _ = await dial()
            call = session.ask(attrs.evolve(ASK, stream_interval=1.0))
            await trio.sleep(3)
            before = made
            text, tokens, _ = await read(call)
    assert before * len(piece) <= WINDOW + 2 * PIECE_CHARACTERS
    assert (text, tokens) == (piece * 64, 64)


async def test_an_answer_that_nobody_takes_is_given_up(autojump_clock: MockClock) -> None:
    """A slot is not kept for a dialer that has stopped reading."""
    piece = "x" * 8192

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        while True:
            await emit(piece, 1)

    with trio.fail_after(LIMIT):
        async with listening(ScriptedBackend(play)) as (executor, dial):
            session, _ = await dial()
            call = session.ask(ASK)
            await trio.sleep(60)
            empty = is_empty(executor)
            _, _, response = await read(call)
    assert empty
    assert error_of(response).code == "cancelled"


async def test_draining_lets_a_joined_reader_finish(autojump_clock: MockClock) -> None:
    """And one that comes back meanwhile is still let in."""
    backend = Counting(decode_rate=10)
    with trio.fail_after(LIMIT):
        async with listening(backend) as (executor, dial):
            first, stream = await dial()
            await until_text(first.ask(ASK))
            second, _ = await dial()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(executor.drain)
                await trio.sleep(0.2)
                stream.end()
                text, _, response = await read(second.ask(ASK))
                refused = (await read(second.ask(attrs.evolve(ASK, request_id="new"))))[2]
    assert (text, response.status) == (WHOLE, "success")
    assert refused.status == "refused"


async def test_a_stored_answer_starts_with_where_it_comes_from(autojump_clock: MockClock) -> None:
    """A strict dialer must know before it takes any text."""
    with trio.fail_after(LIMIT):
        async with listening(Counting()) as (_, dial):
            session, _ = await dial()
            await read(session.ask(ASK))
            call = session.ask(ASK)
            began = await call.receive()
            _, _, response = await read(call)
    assert isinstance(began, Started)
    assert began.provenance == response.provenance


def ended(recordings: Recordings, name: str, size: int, now: float, dialer: str = "d") -> None:
    """A recording of so much text, which has ended."""
    request = attrs.evolve(ASK, request_id=name)
    recording = recordings.open(PeerId(dialer), request)
    completion = Completion(text="x" * size)
    recording.end(CommandResponse(request_id=name, status="success", result=completion))
    recordings.finish(recording, now=now)


def is_kept(recordings: Recordings, name: str, now: float, dialer: str = "d") -> bool:
    """Whether there is an answer for this id."""
    request = attrs.evolve(ASK, request_id=name)
    return recordings.find(PeerId(dialer), request, now=now) is not None


async def test_the_number_of_kept_answers_is_bounded() -> None:
    """Those that ended first are dropped first."""
    recordings = Recordings()
    for number in range(KEPT_ANSWERS + 2):
        ended(recordings, f"{number}", 1, now=0.0)
    assert recordings.statistics().kept == KEPT_ANSWERS
    assert [is_kept(recordings, f"{number}", 0.0) for number in range(4)] == [
        False,
        False,
        True,
        True,
    ]


async def test_the_text_of_kept_answers_is_bounded() -> None:
    """However long each of them is."""
    recordings = Recordings()
    for number in range(5):
        ended(recordings, f"{number}", KEPT_BYTES // 3, now=float(number))
    found = recordings.statistics()
    assert (found.kept, found.kept_bytes) == (3, 3 * (KEPT_BYTES // 3))
    assert is_kept(recordings, "4", 4.0)
    assert not is_kept(recordings, "4", 4.0 + KEPT_SECONDS)
    assert recordings.statistics().kept_bytes == 0


@pytest.mark.parametrize(
    ("number", "size"), [(KEPT_ANSWERS + 9, 1), (9, KEPT_BYTES // 4)], ids=["number", "size"]
)
async def test_who_keeps_the_most_loses_the_oldest(number: Any, size: Any) -> None:
    """A flood of one dialer drops nothing of another."""
    recordings = Recordings()
    ended(recordings, "mine", 9, now=0.0, dialer="modest")
    for index in range(number):
        ended(recordings, f"{index}", size, now=0.0, dialer="greedy")
    assert is_kept(recordings, "mine", 0.0, "modest")
    assert is_kept(recordings, f"{number - 1}", 0.0, "greedy")
    assert not is_kept(recordings, "0", 0.0, "greedy")


async def test_what_is_kept_for_a_dialer_is_forgotten_with_its_answers() -> None:
    """After many have come and gone, only those of today are counted."""
    recordings = Recordings()
    for index in range(5):
        ended(recordings, f"{index}", 9, now=KEPT_SECONDS * index, dialer=f"d{index}")
    assert len(recordings._holdings) == 1


# ---- how long an answer is made for ----


class Listening(ServerCall):
    """A call that is only joined with."""

    minor = 1

    def __init__(self, *, timeout: float | None) -> None:
        self.request = attrs.evolve(ASK, timeout=timeout)


class Alone:
    """A listener that has readers, and a nursery for those that need a task if the test has one."""

    def __init__(self, nursery: trio.Nursery | None) -> None:
        self.nursery = nursery

    def follow(self, reader: Reader) -> None:
        if self.nursery is not None:
            self.nursery.start_soon(reader.recording.follow, reader)

    def ended(self, reader: Reader, response: CommandResponse | None) -> None:
        """Tell nobody."""


def joined(recording: Recording, call: ServerCall, nursery: trio.Nursery | None = None) -> Reader:
    """A reader of *recording* for *call*."""
    reader = Reader(call, Alone(nursery), arrived_at=trio.current_time())
    recording.join(reader)
    return reader


async def test_a_recording_lives_as_long_as_its_readers_gave_it(autojump_clock: MockClock) -> None:
    """The one who waits longest counts; without any there is the grace for coming back."""
    recording = Recording(DIALER, ASK)
    began = trio.current_time()
    readers = [joined(recording, Listening(timeout=timeout)) for timeout in (100.0, 10.0)]
    assert recording.scope.deadline == began + 100.0
    await trio.sleep(50.0)
    readers.append(joined(recording, Listening(timeout=80.0)))
    assert recording.scope.deadline == began + 130.0
    for reader in readers:
        recording.leave(reader, comes_back=True)
    assert recording.scope.deadline == began + 50.0 + GRACE_SECONDS


async def test_nobody_holds_a_slot_for_ever_by_coming_back(autojump_clock: MockClock) -> None:
    """However often, and however long it says that it waits."""
    recording = Recording(DIALER, ASK)
    began = trio.current_time()
    while trio.current_time() < began + MAX_SECONDS - 5.0:
        reader = joined(recording, Listening(timeout=None))
        assert recording.scope.deadline <= began + MAX_SECONDS
        await trio.sleep(100.0)
        recording.leave(reader, comes_back=True)
        assert recording.scope.deadline <= trio.current_time() + GRACE_SECONDS
    joined(recording, Listening(timeout=10.0))
    assert recording.scope.deadline == began + MAX_SECONDS


async def test_who_joined_an_answer_that_takes_too_long_is_told_so(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backend is stopped, and whoever still waits gets an error and not silence."""
    monkeypatch.setattr(_recording, "MAX_SECONDS", 60.0)
    backend = Counting(decode_rate=0.1)
    with trio.fail_after(LIMIT):
        async with listening(backend) as (executor, dial):
            began = trio.current_time()
            session, stream = await dial()
            session.ask(ASK)
            await trio.sleep(30.0)
            stream.end()
            session, _ = await dial()
            _, _, response = await read(session.ask(ASK))
            took = trio.current_time() - began
            empty = is_empty(executor)
    assert took == pytest.approx(60.0, abs=0.1)
    assert (response.status, error_of(response).retryable) == ("error", True)
    assert "takes too long" in error_of(response).message
    assert len(backend.stopped_at) == 1
    assert empty


# ---- who gets no text ----


async def progress_of(call: ClientCall) -> tuple[list[float], CommandResponse]:
    """When it was said that tokens are made, and the end of a call."""
    told: list[float] = []
    began = trio.current_time()
    while not isinstance(part := await call.receive(), CommandResponse):
        if isinstance(part, Progress):
            assert part.state == "working"
            if part.prompt_tokens is not None:
                # It is not said again, and to nobody else.
                assert call.request.stream
                assert not told
                continue
            told.append(trio.current_time() - began)
    return told, part


@pytest.mark.parametrize(("stream", "expected"), [(False, [5, 10, 15]), (True, [])])
async def test_who_takes_the_answer_whole_is_told_that_it_is_made(
    stream: bool, expected: list[Any] | list[int], autojump_clock: MockClock
) -> None:
    """Who takes it in parts hears that anyway."""
    with trio.fail_after(LIMIT):
        async with listening(Counting(decode_rate=1)) as (_, dial):
            session, _ = await dial()
            told, response = await progress_of(session.ask(attrs.evolve(ASK, stream=stream)))
    assert response.status == "success"
    assert told == pytest.approx(expected, abs=1.5)


@pytest.mark.parametrize(("interval", "expected"), [(0.0, 1), (0.1, 0)])
async def test_the_length_of_a_prompt_is_told_early_to_whom_it_is_shown(
    interval: float, expected: int, autojump_clock: MockClock
) -> None:
    """Who gathers text shows nothing before the end, and a message costs as much as a text."""
    counts = 0
    with trio.fail_after(LIMIT):
        async with listening(MockBackend(MockScript())) as (_, dial):
            session, _ = await dial()
            call = session.ask(attrs.evolve(ASK, stream_interval=interval))
            while not isinstance(part := await call.receive(), CommandResponse):
                counts += isinstance(part, Progress) and part.prompt_tokens is not None
    assert counts == expected


async def test_who_waits_for_a_model_that_thinks_is_told_so(autojump_clock: MockClock) -> None:
    """Its thoughts are no text; they come with the first word, as tokens."""

    async def think(request: CommandRequest, emit: Emit) -> Generation:
        for _ in range(12):
            await trio.sleep(1.0)
            await emit("", 2)
        await emit("so", 1)
        return Generation(completion=Completion(text="so"), usage=Usage(), timings=Timings())

    with trio.fail_after(LIMIT):
        async with listening(ScriptedBackend(think)) as (_, dial):
            session, _ = await dial()
            told, _ = await progress_of(session.ask(ASK))
            text, tokens, _ = await read(session.ask(ASK))
    assert told == pytest.approx([5, 10], abs=1.5)
    assert (text, tokens) == ("so", 25)


async def test_a_backend_that_makes_nothing_gives_no_sign(autojump_clock: MockClock) -> None:
    """A sign of life that does not mean anything would keep a dialer waiting for ever."""

    async def hang(request: CommandRequest, emit: Emit) -> Generation:
        for _ in range(20):
            await trio.sleep(1.0)
            await emit("", 0)
        return Generation(completion=Completion(), usage=Usage(), timings=Timings())

    with trio.fail_after(LIMIT):
        async with listening(ScriptedBackend(hang)) as (_, dial):
            session, _ = await dial()
            told, _ = await progress_of(session.ask(attrs.evolve(ASK, stream=False)))
    assert told == []


async def test_who_takes_the_answer_whole_waits_for_no_other_reader(
    autojump_clock: MockClock,
) -> None:
    """One had stopped reading, and held the backend up."""
    piece = "x" * 8192

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        for _ in range(32):
            await emit(piece, 1)
        return Generation(completion=Completion(text="y"), usage=Usage(), timings=Timings())

    with trio.fail_after(LIMIT):
        async with listening(ScriptedBackend(play)) as (executor, dial):
            first, _ = await dial()
            first.ask(ASK)
            await trio.sleep(1.0)
            blocked = executor.statistics().busy
            second, _ = await dial()
            began = trio.current_time()
            _, _, response = await read(second.ask(attrs.evolve(ASK, stream=False)))
            took = trio.current_time() - began
    assert blocked == 1
    assert response.status == "success"
    assert took < 0.1


async def test_no_more_tokens_are_counted_than_an_answer_can_have(
    autojump_clock: MockClock,
) -> None:
    """A backend that claims more would make its dialers close the session."""

    async def boast(request: CommandRequest, emit: Emit) -> Generation:
        await emit("a", 1 << 60)
        await emit("b", 1 << 60)
        return Generation(completion=Completion(text="ab"), usage=Usage(), timings=Timings())

    with trio.fail_after(LIMIT):
        async with listening(ScriptedBackend(boast)) as (_, dial):
            session, _ = await dial()
            text, tokens, response = await read(session.ask(ASK))
    assert (text, tokens, response.status) == ("ab", 1 << 20, "success")


def test_what_others_delivered_is_known_by_its_text() -> None:
    """Two continuations of equal length are two pieces of work, and none is a third."""
    keys = {key_of(DIALER, attrs.evolve(ASK, continuation=text)) for text in (None, "one", "two")}
    assert len(keys) == 3
    assert key_of(DIALER, attrs.evolve(ASK, continuation="")) == key_of(DIALER, ASK)
    key_of(DIALER, attrs.evolve(ASK, continuation="half a pair: \ud83d"))


async def test_the_offer_that_was_asked_for_is_served_or_none(autojump_clock: MockClock) -> None:
    """Never another in its place: a dialer has chosen this one, and may choose anew."""
    with trio.fail_after(LIMIT):
        async with listening([MockBackend(MockScript()), Counting()]) as (executor, dial):
            _, second = executor.capability().models
            session, _ = await dial()
            _, _, got = await read(session.ask(attrs.evolve(ASK, offer=second.id)))
            other = attrs.evolve(ASK, request_id="other", offer="gone")
            _, _, missed = await read(session.ask(other))
    assert (got.status, got.lane) == ("success", second.lane)
    assert missed.status == "refused"
    assert (error_of(missed).code, error_of(missed).retryable) == ("unavailable", True)


class Taking(ServerCall):
    """A call that keeps what it is sent; of minor 0 it is told no thoughts."""

    def __init__(self, minor: int, *, interval: float = 0.0) -> None:
        self.request = attrs.evolve(ASK, stream=True, stream_interval=interval)
        self._minor = minor
        self.sent: list[tuple[str, int]] = []

    @property
    def minor(self) -> int:
        return self._minor

    def started(self, provenance: Provenance) -> None:
        pass

    def send_now(self, text: str, tokens: int) -> bool:
        self.sent.append((text, tokens))
        return True

    async def send_text(self, text: str, tokens: int) -> None:
        self.sent.append((text, tokens))


@pytest.mark.parametrize("minor", [0, 1])
@pytest.mark.parametrize("interval", [0.0, 0.5])
async def test_a_reader_of_minor_0_is_told_no_thoughts_and_all_their_tokens(
    minor: int, interval: float, autojump_clock: MockClock
) -> None:
    """And whoever makes them never waits for it."""
    recording = Recording(DIALER, ASK)
    call = Taking(minor, interval=interval)
    async with trio.open_nursery() as nursery:
        joined(recording, call, nursery)
        recording.begin(Provenance(kind="simulated", backend="test"), trio.current_time())
        for part in (Thought("a"), Thought("b"), "c", Thought("d"), "e"):
            await recording.add(part, 1)
        recording.end(CommandResponse(request_id=ASK.request_id, status="success"))
    thoughts = "".join(text for text, _ in call.sent if type(text) is Thought)
    assert thoughts == ("abd" if minor else "")
    assert "".join(text for text, _ in call.sent if type(text) is not Thought) == "ce"
    assert sum(tokens for _, tokens in call.sent) == 5


async def test_text_after_long_thoughts_reaches_a_reader_of_minor_0(
    autojump_clock: MockClock,
) -> None:
    """However many come first, and though it joins after them: they are not sent to it."""
    recording = Recording(DIALER, ASK)
    call = Taking(0)
    async with trio.open_nursery() as nursery:
        recording.begin(Provenance(kind="simulated", backend="test"), trio.current_time())
        await recording.add(Thought("a" * 2 * PIECE_CHARACTERS), 1)
        await recording.add(Thought("b" * 2 * PIECE_CHARACTERS), 1)
        await recording.add("c", 1)
        joined(recording, call, nursery)
        await wait_all_tasks_blocked()
        recording.end(CommandResponse(request_id=ASK.request_id, status="success"))
    assert call.sent == [("c", 3)]


async def test_who_makes_thoughts_does_not_wait_for_a_reader_that_is_told_none(
    autojump_clock: MockClock,
) -> None:
    """Also where that reader has not looked yet, and so seems to be behind."""
    recording = Recording(DIALER, ASK)
    call = Taking(0)
    recording.begin(Provenance(kind="simulated", backend="test"), trio.current_time())
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            reader = joined(recording, call, nursery)
            reader.is_catching_up = True
            await recording.add(Thought("a"), 1)
            nursery.start_soon(recording.add, Thought("b"), 1)
            await wait_all_tasks_blocked()
            reader.follow()
            await wait_all_tasks_blocked()
            await recording.add("c", 1)
            recording.end(CommandResponse(request_id=ASK.request_id, status="success"))
    assert call.sent == [("c", 3)]


async def test_a_reader_that_is_told_no_thoughts_does_not_look_at_each(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look goes through all of them: a thousand would be half a million steps."""
    looks = 0
    pass_on = Reader.pass_on

    async def counted(reader: Reader, parts: list[tuple[str, int]]) -> None:
        nonlocal looks
        looks += 1
        await pass_on(reader, parts)

    monkeypatch.setattr(Reader, "pass_on", counted)
    recording = Recording(DIALER, ASK)
    call = Taking(0)
    recording.begin(Provenance(kind="simulated", backend="test"), trio.current_time())
    async with trio.open_nursery() as nursery:
        reader = joined(recording, call, nursery)
        reader.follow()
        for _ in range(1000):
            await recording.add(Thought("a"), 1)
            await wait_all_tasks_blocked()
        assert looks == 1
        await recording.add("c", 1)
        recording.end(CommandResponse(request_id=ASK.request_id, status="success"))
    assert call.sent == [("c", 1001)]
