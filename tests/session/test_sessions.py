"""A session carried over a stream in memory, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from punch.capability import Capability, PeerId
from punch.exceptions import PeerError, PeerTimeout, PeerUnreachable
from punch.network import Stream
from punch.session import ClientCall, PeerSession, ServerCall
from punch.testing import MemoryNetwork
from punch.wire import (
    Advert,
    Chunk,
    CommandRequest,
    CommandResponse,
    Completion,
    Hello,
    LoadReport,
    Ping,
    Provenance,
    Reasoning,
    Response,
    Session,
    Started,
    Thought,
    encode,
    greeting,
)

LIMIT = 3600
PROTOCOL = "/test/1"
REAL = Provenance(kind="real", backend="test")


Serve = Callable[[ServerCall], Awaitable[None]]


async def never(call: ServerCall) -> None:
    """Leave a call without an answer."""
    await trio.sleep_forever()


class Handler:
    """Records what it is told, and answers as the test says."""

    peer_id = PeerId("us")

    def __init__(self, nursery: trio.Nursery, serve_call: Serve = never) -> None:
        self.opened_with: list[Hello] = []
        self.adverts: list[Advert | LoadReport] = []
        self.round_trips: list[float] = []
        self.asked: list[str] = []
        self._nursery = nursery
        self._serve_call = serve_call

    def opened(self, session: PeerSession, hello: Hello) -> None:
        self.opened_with.append(hello)

    def advertised(self, session: PeerSession, advert: Advert | LoadReport) -> None:
        self.adverts.append(advert)

    def round_trip(self, session: PeerSession, seconds: float) -> None:
        self.round_trips.append(seconds)

    def serve_call(self, call: ServerCall) -> None:
        self.asked.append(call.request.request_id)
        self._nursery.start_soon(self._serve, call)

    async def _serve(self, call: ServerCall) -> None:
        with trio.CancelScope() as scope:
            call.left = scope.cancel
            await self._serve_call(call)


def hello(namespace: str = "home", minor: int = 1) -> Hello:
    return attrs.evolve(greeting(namespace=namespace, incarnation=1, version="test"), minor=minor)


def ask(request_id: str = "r1") -> CommandRequest:
    return CommandRequest(request_id=request_id, prompt="p", command="complete")


@asynccontextmanager
async def pair(
    serve_call: Serve = never,
    *,
    delay: float = 0.0,
    namespaces: tuple[str, str] = ("home", "home"),
    minors: tuple[int, int] = (1, 1),
) -> AsyncIterator[tuple[PeerSession, PeerSession, MemoryNetwork, tuple[Handler, Handler]]]:
    """A dialer's and a listener's end, both running; and the network, for faults."""
    ends: list[PeerSession] = []
    async with trio.open_nursery() as nursery:
        network = MemoryNetwork(nursery, delay=delay)
        dialer, listener = network.node("dialer"), network.node("listener")

        async def serve(stream: Stream) -> None:
            session = PeerSession(
                stream, Session("listener", hello(namespaces[1], minors[1])), there
            )
            ends.append(session)
            await session.run()

        here, there = Handler(nursery), Handler(nursery, serve_call)
        listener.handle(PROTOCOL, serve)
        stream = await dialer.open_stream(listener.peer_id, listener.addresses, PROTOCOL)
        session = PeerSession(stream, Session("dialer", hello(namespaces[0], minors[0])), here)
        nursery.start_soon(session.run)
        await trio.sleep(4 * delay + 0.001)
        yield session, ends[0], network, (here, there)
        nursery.cancel_scope.cancel()


async def response_of(call: ClientCall) -> CommandResponse:
    """The response of a call that nothing else comes of."""
    response = await call.receive()
    assert isinstance(response, CommandResponse)
    return response


async def raw(data: bytes) -> tuple[PeerSession, ClientCall]:
    """A listener that greets properly and then sends *data*; the dialer's end of it."""
    async with trio.open_nursery() as nursery:
        network = MemoryNetwork(nursery)
        dialer, listener = network.node("dialer"), network.node("listener")

        async def serve(stream: Stream) -> None:
            await stream.receive_some()
            await stream.send_all(encode(hello()))
            # The dialer's request comes first, so that the answers find it.
            await trio.sleep(1)
            await stream.send_all(data)
            await trio.sleep(60)

        listener.handle(PROTOCOL, serve)
        stream = await dialer.open_stream(listener.peer_id, listener.addresses, PROTOCOL)
        session = PeerSession(stream, Session("dialer", hello()), Handler(nursery))
        nursery.start_soon(session.run)
        await trio.sleep(0.1)
        call = session.ask(ask())
        await trio.sleep(2)
        nursery.cancel_scope.cancel()
    return session, call


async def test_heartbeats_measure_the_round_trip(autojump_clock: MockClock) -> None:
    """A tenth of a second each way is two tenths there and back."""
    with trio.fail_after(LIMIT):
        async with pair(delay=0.1) as (_, _, _, (here, _)):
            await trio.sleep(5)

    assert len(here.round_trips) >= 4
    assert here.round_trips == pytest.approx([0.2] * len(here.round_trips), abs=0.01)


async def test_an_idle_session_lives(autojump_clock: MockClock) -> None:
    """Nothing but heartbeats for an hour is no reason to end."""
    with trio.fail_after(2 * LIMIT):
        async with pair() as (dialer, listener, _, _):
            await trio.sleep(LIMIT)
            alive = (dialer.is_open, listener.is_open)

    assert alive == (True, True)


async def test_a_stalled_peer_is_gone_within_five_seconds_on_both_sides(
    autojump_clock: MockClock,
) -> None:
    """The silence is noticed, and every call fails with it."""
    with trio.fail_after(LIMIT):
        async with pair(serve_call=never) as (dialer, listener, net, _):
            call = dialer.ask(ask())
            await trio.sleep(0.5)
            net.stall(PeerId("listener"))
            began = trio.current_time()
            with pytest.raises(PeerTimeout, match="silent for"):
                await call.receive()
            took = trio.current_time() - began
            await trio.sleep(1)

    assert took <= 5
    assert isinstance(listener.ended, PeerError)


async def test_a_lost_connection_fails_every_call_at_once(autojump_clock: MockClock) -> None:
    """No call waits for a heartbeat when the stream says that it ended."""
    with trio.fail_after(LIMIT):
        async with pair(serve_call=never) as (dialer, _, net, _):
            calls = [dialer.ask(ask(f"r{i}")) for i in range(3)]
            began = trio.current_time()
            net.cut()
            for call in calls:
                with pytest.raises(PeerUnreachable, match="connection was lost"):
                    await call.receive()

    assert trio.current_time() - began < 0.1


async def test_another_namespace_is_told_apart(autojump_clock: MockClock) -> None:
    """Both sides end, and neither learns the other's namespace from the reason."""
    with trio.fail_after(LIMIT):
        async with pair(namespaces=("home", "work")) as (dialer, listener, _, _):
            await trio.sleep(1)

    assert "another namespace" in str(dialer.ended)
    assert "another namespace" in str(listener.ended)
    assert "work" not in str(dialer.ended)


async def test_a_cancel_is_acknowledged_with_the_tokens_made(autojump_clock: MockClock) -> None:
    """The listener's task is cancelled, and the response says how far it came."""
    sent: list[int] = []

    async def serve_call(call: ServerCall) -> None:
        call.started(REAL)
        try:
            for _ in range(100):
                await call.send_text("x", 1)
                await trio.sleep(1)
        finally:
            sent.append(call.tokens)

    with trio.fail_after(LIMIT):
        async with pair(serve_call=serve_call) as (dialer, listener, _, _):
            call = dialer.ask(ask())
            await trio.sleep(3.5)
            call.cancel()
            await trio.sleep(0.1)
            left = (dialer.statistics().requests, listener.statistics().requests)

    assert sent == [4]
    assert left == (0, 0)


async def test_an_id_can_be_used_again_after_its_response(autojump_clock: MockClock) -> None:
    """Even if the cancel for its first use is still on its way."""

    async def serve_call(call: ServerCall) -> None:
        call.respond(
            CommandResponse(
                request_id=call.request.request_id, status="success", result=Completion()
            )
        )

    with trio.fail_after(LIMIT):
        async with pair(serve_call=serve_call, delay=0.05) as (dialer, listener, _, _):
            first = dialer.ask(ask())
            response = await response_of(first)
            first.cancel()
            second = dialer.ask(ask())
            again = await response_of(second)
            alive = (dialer.is_open, listener.is_open)

    assert (response.status, again.status) == ("success", "success")
    assert alive == (True, True)


async def test_an_advert_reaches_the_dialer(autojump_clock: MockClock) -> None:
    """What a listener pushes is handed on as it was said."""
    advert = Advert(
        incarnation=1,
        sequence=1,
        age=0.0,
        capability=Capability.of_one_lane(backend="x", simulated=True),
    )
    with trio.fail_after(LIMIT):
        async with pair() as (_, listener, _, (here, _)):
            listener.advertise(advert)
            await trio.sleep(1)

    assert here.adverts == [advert]


@pytest.mark.parametrize(
    ("frames", "why"),
    [
        pytest.param(b"\xff" * 64, "a frame of 4294967295 bytes", id="4 GiB length"),
        pytest.param(b"\0\0\0\4" + b"\x91" * 3 + b"\xc0", "not a message", id="not a map"),
        pytest.param(
            encode(Response(response=CommandResponse(request_id="other", status="success"))),
            "not in flight",
            id="a response for an unknown request",
        ),
        pytest.param(
            encode(Response(response=CommandResponse(request_id="r1", status="success"))) * 2,
            "not in flight",
            id="two responses",
        ),
        pytest.param(
            encode(Response(response=CommandResponse(request_id="r1", status="success")))
            + encode(Chunk(request_id="r1", text="late")),
            "not in flight",
            id="a chunk after the response",
        ),
        pytest.param(
            encode(Chunk(request_id="r1", text="early")), "which is asked", id="a chunk too early"
        ),
        pytest.param(
            encode(Started(request_id="r1", provenance=REAL))
            + encode(Chunk(request_id="r1", text="x" * 60_000)) * 2,
            "ahead of its reader",
            id="more than the window",
        ),
    ],
)
async def test_a_listener_that_breaks_the_rules_loses_its_session(
    frames: bytes, why: str, autojump_clock: MockClock
) -> None:
    """The session ends with a reason that says what was wrong."""
    with trio.fail_after(LIMIT):
        session, _ = await raw(frames)

    assert "broke the protocol" in str(session.ended)
    assert why in str(session.ended)


async def test_a_peer_that_never_greets_is_given_up(autojump_clock: MockClock) -> None:
    """An open stream is not yet a session; it has five seconds to become one."""
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            network = MemoryNetwork(nursery)
            dialer, listener = network.node("dialer"), network.node("listener")
            listener.handle(PROTOCOL, lambda stream: trio.sleep(600))
            stream = await dialer.open_stream(listener.peer_id, listener.addresses, PROTOCOL)
            session = PeerSession(stream, Session("dialer", hello()), Handler(nursery))
            began = trio.current_time()
            await session.run()
            took = trio.current_time() - began
            nursery.cancel_scope.cancel()

    assert took <= 7
    assert isinstance(session.ended, PeerTimeout)


async def test_a_listener_may_not_ask(autojump_clock: MockClock) -> None:
    """The roles of a session are fixed: only the side that opened it asks."""
    with trio.fail_after(LIMIT):
        session, _ = await raw(encode(Ping(nonce=1)) + _a_request())

    assert "a listener may not say Request" in str(session.ended)


def _a_request() -> bytes:
    from punch.wire import Request

    return encode(Request(request=ask("theirs")))


@pytest.mark.parametrize("minors", [(1, 1), (0, 1), (1, 0)])
async def test_the_longest_texts_of_the_widest_characters_arrive(
    minors: tuple[int, int], autojump_clock: MockClock
) -> None:
    """Four bytes each: a piece never needs more room than a reader leaves that keeps up."""
    text = "\N{GRINNING FACE}" * 40_000

    async def serve_call(call: ServerCall) -> None:
        call.started(REAL)
        await call.send_text("a", 1)
        await call.send_text(text, 3)
        call.respond(CommandResponse(request_id="r1", status="success", result=Completion()))

    got = ""
    with trio.fail_after(20):
        async with pair(serve_call, minors=minors) as (session, *_):
            call = session.ask(ask())
            while not isinstance(part := await call.receive(), CommandResponse):
                got += part.text if isinstance(part, Chunk) else ""
    assert got == "a" + text


THOUGHT = "hm, " * 10_000


@pytest.mark.parametrize(
    ("minors", "kept"),
    [((1, 1), THOUGHT * 3), ((0, 1), ""), ((1, 0), "")],
    ids=["both know it", "dialer", "listener"],
)
async def test_what_a_model_thinks_is_kept_aside_and_credited(
    minors: tuple[int, int], kept: str, autojump_clock: MockClock
) -> None:
    """More of it than a window holds; minor 0 knows no such thing."""
    thought, got = THOUGHT, ""

    async def serve_call(call: ServerCall) -> None:
        call.started(REAL)
        for _ in range(3):
            await call.send_text(Thought(thought), 1)
        await call.send_text("so", 1)
        call.respond(CommandResponse(request_id="r1", status="success", result=Completion()))

    with trio.fail_after(20):
        async with pair(serve_call, minors=minors) as (session, *_):
            call = session.ask(ask())
            while not isinstance(part := await call.receive(), CommandResponse):
                if isinstance(part, Chunk):
                    assert part.text == "so"
                elif isinstance(part, Reasoning):
                    got += part.text
    assert got == kept


async def test_a_request_alone_is_sent_at_once_and_several_are_gathered(
    autojump_clock: MockClock,
) -> None:
    """Without a turn of the writer's task, or in one write with what others say meanwhile."""
    async with pair() as (session, _, _, _):
        greeted = session.statistics().sent
        session.ask(ask("r1"))
        alone = session.statistics().sent
        assert alone > greeted
        session.ask(ask("r2"))
        session.ask(ask("r3"))
        assert session.statistics().sent == alone
        await trio.testing.wait_all_tasks_blocked()
        assert session.statistics().sent > alone


async def test_of_several_answers_a_text_that_comes_alone_is_sent_at_once(
    autojump_clock: MockClock,
) -> None:
    """What others say in the same moment is gathered: they would be packets of their own."""
    calls: dict[str, ServerCall] = {}

    async def begin(call: ServerCall) -> None:
        call.started(REAL)
        calls[call.request.request_id] = call

    async with pair(begin) as (session, listener, _, _):
        asked = [session.ask(ask(name)) for name in ("r1", "r2", "r3")]
        await trio.sleep(1)
        for each in asked:
            assert isinstance(await each.receive(), Started)
        before = listener.statistics().sent
        assert calls["r1"].send_now("one", 1)
        alone = listener.statistics().sent
        assert alone > before
        assert calls["r2"].send_now("two", 1)
        assert calls["r3"].send_now("three", 1)
        assert listener.statistics().sent == alone
        assert [await each.receive() for each in asked] == [
            Chunk(request_id=name, text=text, tokens=1)
            for name, text in (("r1", "one"), ("r2", "two"), ("r3", "three"))
        ]


async def test_a_request_that_the_stream_has_no_room_for_keeps_its_place(
    autojump_clock: MockClock,
) -> None:
    """It waits for the writer, and what is said after it comes after it."""

    async def answer(call: ServerCall) -> None:
        call.respond(CommandResponse(request_id=call.request.request_id, status="success"))

    async with pair(answer) as (session, _, network, (_, listener)):
        network.stall(PeerId("listener"))
        long = attrs.evolve(ask("r1"), prompt="p" * (1 << 20))
        calls = [session.ask(long), session.ask(ask("r2"))]
        await trio.sleep(1)
        calls[1].cancel()
        calls.append(session.ask(ask("r3")))
        network.resume(PeerId("listener"))
        with trio.fail_after(5):
            await response_of(calls[0])
            await response_of(calls[2])
    assert listener.asked == ["r1", "r2", "r3"]
