"""Who answers what, where several processes serve HTTP for one gateway, and how they tell."""

from __future__ import annotations

import logging
import os
import pickle
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from punch.capability import PeerId
from punch.dialer import new_request_id
from punch.events import (
    DEFAULT_LIMIT,
    STOPPED,
    Bus,
    RequestChanged,
    RequestEnded,
    RequestRecord,
    RequestRefused,
    RequestStarted,
)
from punch.exceptions import PeerUnreachable
from punch.gateway import Key
from punch.gateway.fronts import _link
from punch.gateway.fronts._link import Link, open_link, pickled
from punch.gateway.fronts._log_lines import log_lines_to, write_lines
from punch.gateway.fronts._messages import (
    Connection,
    Hello,
    Lines,
    Ready,
    Report,
    Start,
    Told,
    slim,
)
from punch.gateway.fronts._placing import GATEWAY, Placing
from punch.gateway.fronts._switchboard import Switchboard
from punch.gateway.fronts._telling import Retelling, open_telling
from punch.gateway.fronts._turns import Turns, turns_beside
from punch.routing import FailedAttempt, Presence
from punch.wire import MARK, mark_of

CHAT = "/v1/chat/completions"
COUNTS = st.integers(2, 16)


def home(placing: Placing, path: str = CHAT, *, key: Key | None = None, **headers: str) -> int:
    """Where a request with these headers is answered."""
    given = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return placing.home_of(path, given, asks=path.startswith("/v1/"), key=key)


@given(COUNTS, st.text("abcdefgh-0123456789", min_size=1))
def test_a_chosen_id_leads_to_the_same_front_from_everywhere(count: int, request_id: str) -> None:
    """Where its first request is under way, or its answer is kept."""
    homes = {
        home(Placing(number=number, count=count), x_request_id=request_id)
        for number in (GATEWAY, *range(count))
    }
    assert len(homes) == 1
    assert homes <= set(range(count))


@given(COUNTS, st.text("abcdefgh-0123456789", min_size=1), st.booleans())
def test_a_key_with_limits_has_one_front_whatever_it_sends(
    count: int, key_id: str, chooses: bool
) -> None:
    """Its quotas are counted there."""
    key = Key(key_id=key_id, name="ada", tokens_per_minute=100)
    headers = {"x_request_id": key_id} if chooses else {}
    homes = {
        home(Placing(number=number, count=count), path, key=key, **headers)
        for number in (GATEWAY, *range(count))
        for path in (CHAT, "/v1/responses")
    }
    assert len(homes) == 1


def test_what_nothing_binds_is_answered_where_it_came() -> None:
    """A request of no key, or of one without limits, goes nowhere else."""
    placing = Placing(number=3, count=5)
    free = Key(key_id="ada", name="ada")

    assert [home(placing), home(placing, key=free)] == [3, 3]
    assert placing.home_of("/v1/models", {}, asks=False, key=None) == 3


@pytest.mark.parametrize("path", ["/", "/metrics", "/dashboard/feed", "/api/pull", "/nothing"])
def test_what_a_front_has_no_route_for_goes_to_the_gateway(path: str) -> None:
    """The dashboard and the metrics are of all fronts together."""
    placing = Placing(number=1, count=2)
    assert placing.home_of(path, {}, asks=False, key=None) == GATEWAY


@given(COUNTS, st.data())
def test_a_request_that_has_gone_round_comes_to_the_front_that_made_it(
    count: int, data: st.DataObject
) -> None:
    """That one alone knows that it would wait for itself."""
    number = data.draw(st.integers(0, count - 1))
    request_id = Placing(number=number, count=count).own_id(new_request_id)
    headers = {MARK.lower().encode(): mark_of(request_id).encode()}

    for other in range(count):
        placing = Placing(number=other, count=count)
        assert placing.home_of(CHAT, headers, asks=True, key=None) == number


def test_a_mark_that_is_none_of_ours_binds_nothing() -> None:
    """Anybody may send such a header."""
    headers = {MARK.lower().encode(): b"it is none"}
    assert Placing(number=1, count=3).home_of(CHAT, headers, asks=True, key=None) == 1


# ---- the link ----


async def test_descriptors_come_with_the_value_that_they_were_sent_with() -> None:
    """A connection must not become another one's."""
    ours, theirs = socket.socketpair()
    pairs = [socket.socketpair() for _ in range(40)]
    async with open_link(ours) as near, open_link(theirs) as far:
        for number, (mine, _) in enumerate(pairs):
            assert near.send(number, [mine] * (number % 3))
            mine.close()
        for number, (_, yours) in enumerate(pairs):
            received = await far.receive()
            assert received is not None
            value, descriptors = received
            assert (value, len(descriptors)) == (number, number % 3)
            for each in descriptors:
                os.write(each, b"%d " % number)
                assert not os.get_inheritable(each)
                os.close(each)
            yours.settimeout(1.0)
            assert yours.recv(100) == b"%d " % number * (number % 3)
            yours.close()


async def test_a_link_ends_when_the_other_process_does() -> None:
    """However that comes."""
    ours, theirs = socket.socketpair()
    async with open_link(ours) as near:
        near.send("a word")
        theirs.close()
        assert await near.receive() is None


async def test_a_value_that_cannot_be_sent_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """It is said in the log, and the next one is sent."""
    ours, theirs = socket.socketpair()
    async with open_link(ours) as near, open_link(theirs) as far:
        near.send(lambda: None)
        near.send("a word")
        assert await far.receive() == ("a word", [])
    assert "cannot be sent" in caplog.text


async def test_a_value_that_is_too_long_ends_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other end would take it for nonsense and hang up, so it is not sent."""
    monkeypatch.setattr(_link, "MAX_FRAME_BYTES", 1000)
    ours, theirs = socket.socketpair()
    async with open_link(ours) as near, open_link(theirs) as far:
        near.send("long" * 300)
        near.send("a word")
        assert await far.receive() == ("a word", [])
    assert "too much to say" in caplog.text


async def test_a_connection_without_a_descriptor_for_it_is_not_sent() -> None:
    """Which is said to who wanted to pass it on, and ends nothing."""
    ours, theirs = socket.socketpair()
    closed = socket.socket()
    closed.close()
    async with open_link(ours) as near, open_link(theirs) as far:
        assert not near.send("a connection", [closed])
        assert near.send("a word")
        assert await far.receive() == ("a word", [])


async def test_flushing_waits_for_a_value_that_nobody_had_waited_for() -> None:
    """The writer has taken it and not written it: the last words of a front."""
    ours, theirs = socket.socketpair()
    async with open_link(theirs) as far:
        async with open_link(ours) as near:
            await trio.testing.wait_all_tasks_blocked()
            near.send("the last words")
            await near.flush(5.0)
        assert await far.receive() == ("the last words", [])


async def test_a_request_with_a_failed_attempt_is_told() -> None:
    """Its attempt failed in a session, which lives in the front alone; the error travels."""
    presence = Presence(incarnation=1, session=lambda: "no other process can have this")
    error = PeerUnreachable("the connection was lost", peer_id=PeerId("p1"), why="lost")
    attempt = FailedAttempt(peer_id=PeerId("p1"), error=error, seconds=1.0, presence=presence)
    (told,) = pickle.loads(pickled(slim(record(attempts=(attempt,))))).attempts
    assert (told.peer_id, str(told.error), told.seconds) == ("p1", str(error), 1.0)
    assert (told.error.peer_id, told.error.why) == (error.peer_id, error.why)


def test_frozen_mappings_travel() -> None:
    """Values of ours hold them, and Python does not pickle them by itself."""
    assert pickle.loads(pickled(MappingProxyType({"a": 1}))) == {"a": 1}


# ---- telling ----


def record(request_id: str = "one", **fields: Any) -> RequestRecord:
    """A request under way."""
    return RequestRecord(request_id=request_id, endpoint=CHAT, began_at=1.0, **fields)


@contextmanager
def heard(bus: Bus) -> Iterator[list[Any]]:
    """What is published."""
    found: list[Any] = []
    with bus.account(
        RequestStarted, RequestChanged, RequestEnded, RequestRefused, note=found.append
    ):
        yield found


async def next_of(link: Link) -> Any:
    """The next value of the other end."""
    received = await link.receive()
    assert received is not None
    return received[0]


async def test_the_gateway_publishes_what_a_front_tells_as_one_record() -> None:
    """Whoever holds the record of a request reads its newest state, as with the gateway's own."""
    here, there = Bus(), Bus()
    retelling = Retelling(here)
    ours, theirs = socket.socketpair()
    with heard(here) as found:
        async with open_link(ours) as near, open_link(theirs) as far:
            mine = record()
            async with open_telling(near, there):
                there.publish(RequestStarted(at=1.0, request=mine))
                retelling.hear(await next_of(far))
                assert retelling.under_way == 1
                mine.model, mine.ended_at = "tiny", 2.0
                there.publish(RequestChanged(at=1.5, request=mine))
                there.publish(RequestEnded(at=2.0, request=mine))
                there.publish(RequestRefused(at=2.0, status=401))
            retelling.hear(await next_of(far))

    assert [type(each).__name__ for each in found] == [
        "RequestStarted",
        "RequestChanged",
        "RequestEnded",
        "RequestRefused",
    ]
    assert found[0].request is found[1].request is found[2].request
    assert found[0].request is not mine
    assert found[0].request.model == "tiny"
    assert retelling.under_way == 0


async def test_requests_of_a_front_that_is_gone_end() -> None:
    """The dashboard would show them for ever, and the metrics count them."""
    bus = Bus()
    retelling = Retelling(bus)
    with heard(bus) as found:
        first, second = record("one"), record("two")
        retelling.hear(
            Told(
                events=tuple(RequestStarted(at=1.0, request=each) for each in (first, second)),
                keys=(1, 2),
            )
        )
        second.ended_at = 2.0
        retelling.hear(Told(events=(RequestEnded(at=2.0, request=second),), keys=(2,)))
        retelling.end()
        retelling.end()

    ended = [each.request for each in found if isinstance(each, RequestEnded)]
    assert [(each.request_id, each.error_code) for each in ended] == [
        ("two", None),
        ("one", STOPPED),
    ]


async def test_an_end_that_a_front_had_no_room_for_is_told_once_it_has() -> None:
    """A gateway that stalls for a while must not show a request for ever, nor think it saw all."""
    here, there = Bus(), Bus()
    retelling = Retelling(here)
    ours, theirs = socket.socketpair()
    with heard(here) as found, here.subscribe(RequestEnded) as queue:
        async with open_link(ours) as near, open_link(theirs) as far, open_telling(near, there):
            lost_end, goes_on = record("lost-end"), record("goes-on")
            for each in (lost_end, goes_on):
                there.publish(RequestStarted(at=1.0, request=each))
            retelling.hear(await next_of(far))
            for _ in range(DEFAULT_LIMIT):
                there.publish(RequestRefused(at=2.0, status=401))
            lost_end.ended_at = 2.0
            there.publish(RequestEnded(at=2.0, request=lost_end))
            while retelling.under_way == 2:
                retelling.hear(await next_of(far))
        batch = queue.drain()

    ended = [each.request.request_id for each in found if isinstance(each, RequestEnded)]
    assert ended == ["lost-end"]
    assert (len(batch.events), batch.lost) == (1, 1)
    assert retelling.under_way == 1


async def test_the_log_of_a_front_is_written_by_the_gateway(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With its fields and its levels; of a fault, with where it came from."""
    ours, theirs = socket.socketpair()
    async with open_link(ours) as near, open_link(theirs) as far:
        with log_lines_to(near, "info"):
            logging.getLogger("punch.one").info("hello %s", "you")
            try:
                raise ValueError("a bug")
            except ValueError:
                logging.getLogger("punch.two").exception("a request met a bug")
            logging.getLogger("another").info("not ours")
        received = await far.receive()
    assert received is not None
    lines = received[0]
    assert isinstance(lines, Lines)
    with caplog.at_level(logging.INFO):
        write_lines(lines)

    assert [(each.name, each.levelname) for each in caplog.records] == [
        ("punch.one", "INFO"),
        ("punch.two", "ERROR"),
    ]
    assert "hello you" in caplog.text
    assert "raise ValueError" in caplog.text


# ---- turns ----


async def test_a_front_gives_way_only_to_one_that_has_fewer(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A moment is enough for one that rests; one that is gone is not waited for."""
    path = turns_beside(tmp_path / "fronts")
    Turns.make(path, 3)
    first, second = Turns(path, 0), Turns(path, 1)

    async def waited(turns: Turns, connections: int) -> bool:
        before = trio.current_time()
        await turns.give_way(connections)
        return trio.current_time() > before

    assert [await waited(first, 5), await waited(second, 4)] == [False, False]
    assert [await waited(first, 5), await waited(second, 5)] == [True, False]
    assert await waited(first, 5) is False
    assert await waited(second, 9) is True
    first.close()
    assert await waited(second, 9) is False
    second.close()


# ---- the switchboard ----


@asynccontextmanager
async def open_front_of(
    switchboard: Switchboard, number: int, *, is_ready: bool = True
) -> AsyncIterator[Link]:
    """The front's end of a link to *switchboard*."""
    ours, theirs = socket.socketpair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(switchboard.serve, ours)
        async with open_link(theirs) as link:
            link.send(Hello(number=number))
            assert isinstance(await next_of(link), Start)
            if is_ready:
                link.send(Ready())
                await switchboard.places[number].came.wait()
            yield link


REFUSED = RequestRefused(at=1.0, status=401)


async def until_taken(link: Link, bus: Bus) -> None:
    """Wait until the gateway has taken all that *link* has sent."""
    taken = trio.Event()
    with bus.account(RequestRefused, note=lambda _: taken.set()):
        link.send(Told(events=(REFUSED,), keys=(None,)))
        await taken.wait()


async def test_a_connection_waits_for_its_front_and_comes_with_what_was_read() -> None:
    """From one front to another, which was not there yet."""
    bus = Bus()
    switchboard = Switchboard(2, settings=None, events=bus, peers=lambda: 0)
    client, connection = socket.socketpair()
    async with open_front_of(switchboard, 0) as first:
        first.send(Connection(home=1, ahead=b"GET /"), [connection])
        connection.close()
        await until_taken(first, bus)
        assert len(switchboard.places[1].waiting) == 1
        async with open_front_of(switchboard, 1) as second:
            received = await second.receive()
    assert received is not None
    value, (number,) = received
    assert value == Connection(home=1, ahead=b"GET /")
    with client, socket.socket(fileno=number) as found:
        found.sendall(b"an answer")
        assert client.recv(100) == b"an answer"


async def test_what_leads_to_a_front_that_ends_waits_for_the_next_one() -> None:
    """It finishes what it has begun, and would lose what it is given."""
    bus = Bus()
    switchboard = Switchboard(2, settings=None, events=bus, peers=lambda: 0)
    client, connection = socket.socketpair()
    with client:
        async with open_front_of(switchboard, 0) as first, open_front_of(switchboard, 1) as second:
            second.send(Ready(accepts=False))
            await until_taken(second, bus)
            first.send(Connection(home=1, ahead=b"GET /"), [connection])
            connection.close()
            await until_taken(first, bus)
            assert len(switchboard.places[1].waiting) == 1
        switchboard.close()
        assert client.recv(100).startswith(b"HTTP/1.1 503 ")


async def test_a_front_that_says_nothing_for_long_is_stuck() -> None:
    """One that has just spoken is not, and neither is one that is not there."""
    switchboard = Switchboard(2, settings=None, events=Bus(), peers=lambda: 0)
    async with open_front_of(switchboard, 0):
        now = trio.current_time()
        assert switchboard.sweep(now) == []
        assert switchboard.sweep(now + 60.0) == [switchboard.places[0]]


async def test_what_a_front_says_wrongly_ends_that_front_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The gateway and the other fronts go on."""
    bus = Bus()
    switchboard = Switchboard(2, settings=None, events=bus, peers=lambda: 0)
    async with open_front_of(switchboard, 0) as good, open_front_of(switchboard, 1) as bad:
        bad.send(Told(events=(REFUSED,), keys=()))
        assert await bad.receive() is None
        good.send(Report(running=3))
        await until_taken(good, bus)
        assert switchboard.statistics().running == 3
    assert "met a bug" in caplog.text


async def test_a_connection_for_a_front_that_starts_again_is_refused_in_time() -> None:
    """Nobody else may answer it; but nobody waits for ever."""
    switchboard = Switchboard(2, settings=None, events=Bus(), peers=lambda: 0)
    ours, theirs = socket.socketpair()
    with theirs:
        switchboard._pass_on(1, ours, b"GET / HTTP/1.1\r\n\r\n")
        switchboard.sweep(trio.current_time())
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)
        switchboard.sweep(trio.current_time() + 60.0)
        head, _, body = theirs.recv(4096).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 503 ")
    assert head.endswith(b"content-length: %d" % len(body))
