"""Coming and going: clients that leave, wait, are slow, or ask twice; peers that die."""

from __future__ import annotations

import gc
import math
from itertools import pairwise
from typing import Any

import pytest
import trio
from gateway_client import BY_NAME, Connection, Seen, open_client
from trio.testing import MockClock

from punch.backends import Emit, Generation, MockBackend, MockScript
from punch.events import Event, RequestChanged
from punch.exceptions import PunchError
from punch.gateway import Quotas, Refusal
from punch.gateway._headers import what_is_waited_for
from punch.testing import ScriptedBackend
from punch.wire import CommandRequest, Completion, Progress, Timings, Usage

CHAT = "/v1/chat/completions"


def mock(**script: Any) -> MockBackend:
    return MockBackend(MockScript(**script))


def question(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "tell me"}]} | fields


class Talker:
    """A backend that talks on until it is cancelled, and notes when that was."""

    def __init__(self, *, gap: float = 0.1, size: int = 5) -> None:
        self.stopped_at: list[float] = []
        self.said = 0
        self._gap = gap
        self._size = size
        self.backend = ScriptedBackend(self.play)

    async def play(self, request: CommandRequest, emit: Emit) -> Generation:
        try:
            while True:
                await trio.sleep(self._gap)
                await emit("x" * self._size, 1)
                self.said += 1
        finally:
            self.stopped_at.append(trio.current_time())


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_stops_the_backend_at_once(
    stream: bool, autojump_clock: MockClock
) -> None:
    """Within 200 ms, all the way."""
    talker = Talker()
    async with open_client({"a": talker.backend}) as client:
        async with client.open("POST", CHAT, question(stream=stream)) as connection:
            await trio.sleep(3)
            left_at = trio.current_time()
            connection.leave()
        await trio.sleep(0.2)
        assert talker.stopped_at == [pytest.approx(left_at, abs=0.2)]
        assert client.seen.words.count("ended") == 1
        assert client.seen.last.error_code == "disconnected"
        assert client.swarm.listeners["a"].capability().load.busy == 0


async def test_a_client_that_leaves_several_answers_stops_them_all(
    autojump_clock: MockClock,
) -> None:
    """None is forgotten."""
    talker = Talker()
    async with open_client({"a": talker.backend}) as client:
        async with client.open("POST", CHAT, question(stream=True, n=3)) as connection:
            await connection.until(5)
            connection.leave()
        await trio.sleep(0.2)
        assert len(talker.stopped_at) == 3


async def test_a_client_that_leaves_before_its_body_is_complete_asks_nothing(
    autojump_clock: MockClock,
) -> None:
    """Nor is it an error of anybody's."""
    async with open_client({"a": mock()}) as client:
        async with client.open("POST", CHAT, [b"{", b"x"]) as connection:
            connection._parts = []
            connection.leave()
    assert connection.reply.status is None
    assert client.seen.last.error_code == "disconnected"
    assert client.seen.words == ["began", "ended"]


async def test_a_waiting_stream_is_told_what_for(autojump_clock: MockClock) -> None:
    """Every five seconds a comment, with the place in the queue."""
    backend = mock(decode_rate=1.0, slots=1)
    async with open_client({"a": backend}) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.post, CHAT, question(max_tokens=18))
        await trio.sleep(1)
        reply = await client.post(CHAT, question(max_tokens=2, stream=True))
    comments = reply.comments()
    assert reply.status == 200
    assert reply.events()[-1] == "[DONE]"
    assert 3 <= len(comments) <= 5
    assert comments[0].startswith("queued, ")
    assert reply.times[0] == pytest.approx(6, abs=1)


async def test_a_stream_that_waits_for_the_gateway_itself_is_told_so(
    autojump_clock: MockClock,
) -> None:
    """The gateway works on so many at a time; the others hear where they are."""
    backend = mock(decode_rate=1.0, slots=4)
    async with open_client({"a": backend}, quotas=Quotas(limit=1)) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.post, CHAT, question(max_tokens=12))
            await trio.sleep(1)
            reply = await client.post(CHAT, question(max_tokens=2, stream=True))
    assert len(reply.comments()) == 2
    assert reply.comments()[0].startswith("queued")
    assert reply.events()[-1] == "[DONE]"


async def test_a_stream_with_nothing_to_say_says_so(autojump_clock: MockClock) -> None:
    """Once its peer works on it and is silent, the client still hears something."""
    async with open_client({"a": mock(delay=12.0)}) as client:
        reply = await client.post(CHAT, question(max_tokens=1, stream=True))
    assert len(reply.comments()) == 2
    assert reply.headers["x-punch-peer"] == "a"
    assert reply.headers["x-punch-provenance"].startswith("simulated; backend=mock")


async def test_a_stream_that_began_before_its_model_was_known_names_it_later(
    autojump_clock: MockClock,
) -> None:
    """Its first text already does, though a comment came before anybody was chosen."""
    backend = mock(decode_rate=1.0, slots=4)
    async with open_client({"a": backend}, quotas=Quotas(limit=1)) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.post, CHAT, question(max_tokens=12))
            await trio.sleep(1)
            reply = await client.post(CHAT, question(max_tokens=2, stream=True))
    assert reply.comments()
    assert {event["model"] for event in reply.events()[:-1]} == {"mock"}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, "7 s"), (0.0, "7 s"), (-3.0, "7 s"), (0.3, "less than 1 s"), (4.2, "about 4 s")],
)
def test_what_is_waited_for_has_a_time_that_means_something(
    seconds: float | None, words: str
) -> None:
    """A guess that is over is none; and nothing takes 0 s."""
    progress = Progress(request_id="one", state="queued", ahead=0, seconds=seconds)
    assert what_is_waited_for(progress, 7.0) == f"queued, {words}"


async def test_a_last_byte_that_never_leaves_holds_nothing_once_the_client_is_gone(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that says so and goes on sending has a second for it."""
    usual = Connection.send

    async def stuck(self: Connection, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.leave()
            await trio.sleep_forever()
        await usual(self, message)

    monkeypatch.setattr(Connection, "send", stuck)
    async with open_client({"a": mock()}) as client:
        with trio.fail_after(60):
            await client.post(CHAT, question())
    assert client.seen.words[-1] == "ended"
    assert client.seen.last.error_code == "disconnected"


async def test_a_line_delimited_stream_has_no_comments(autojump_clock: MockClock) -> None:
    """Ollama's clients would choke on them."""
    async with open_client({"a": mock(delay=12.0)}) as client:
        body = {"model": "mock", "prompt": "x", "options": {"num_predict": 1}}
        reply = await client.post("/api/generate", body)
    assert [line["done"] for line in reply.lines()] == [False, True]


async def test_a_slow_client_holds_the_backend_back(autojump_clock: MockClock) -> None:
    """What it does not take is not made, beyond a window: memory does not grow."""
    talker = Talker(gap=0.001, size=1000)
    async with open_client({"a": talker.backend}) as client:
        async with client.open("POST", CHAT, question(stream=True)) as connection:
            connection.takes = 3
            await trio.sleep(5)
            held = talker.said
            await trio.sleep(5)
            assert talker.said == held
            # The window of the session, and what one write and one read hold.
            assert held < 400
            connection.take(math.inf)
            await trio.sleep(5)
            assert talker.said > held
            connection.leave()


async def test_the_same_id_joins_the_running_answer(autojump_clock: MockClock) -> None:
    """Two clients, one generation, the same text."""
    async with open_client({"a": mock(decode_rate=10.0)}) as client:
        replies = []

        async def ask(delay: float) -> None:
            await trio.sleep(delay)
            body = question(max_tokens=20, stream=True)
            replies.append(await client.post(CHAT, body, x_request_id="one"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, 0.0)
            nursery.start_soon(ask, 1.0)
        served = client.swarm.listeners["a"].statistics().served
    assert served == 1
    assert replies[0].events() == replies[1].events()


@pytest.mark.parametrize("stream", [True, False])
async def test_the_same_id_afterwards_gets_the_same_answer(
    stream: bool, autojump_clock: MockClock
) -> None:
    """At once, and nobody is asked."""
    async with open_client({"a": mock(decode_rate=10.0)}) as client:
        body = question(max_tokens=20, stream=stream)
        first = await client.post(CHAT, body, x_request_id="one")
        at = trio.current_time()
        again = await client.post(CHAT, body, x_request_id="one")
        assert trio.current_time() == at
        served = client.swarm.listeners["a"].statistics().served
    assert served == 1
    if stream:
        assert again.text() == first.text()
    else:
        assert again.json() == first.json()
        assert again.headers["x-punch-decision"] == "replayed"


async def test_a_peers_death_is_invisible_but_for_the_last_chunk(autojump_clock: MockClock) -> None:
    """The text is whole, and `punch.segments` says who made which part."""
    backends = {name: mock(decode_rate=10.0) for name in "ab"}
    async with open_client(backends) as client:
        alone = await client.post(CHAT, question(max_tokens=40))
        async with client.open("POST", CHAT, question(max_tokens=40, stream=True)) as connection:
            await connection.until(15)
            client.swarm.kill(connection.reply.headers["x-punch-peer"])
        reply = connection.reply
    assert reply.text() == alone.json()["choices"][0]["message"]["content"]
    segments = reply.events()[-2]["punch"]["segments"]
    assert {segment["peer_id"] for segment in segments} == {"a", "b"}
    assert sum(segment["tokens"] for segment in segments) == 40
    exchange = client.seen.last
    assert exchange.error_code is None
    assert len(exchange.segments) == 2
    assert exchange.peer_id == segments[-1]["peer_id"]
    # Somebody was chosen, and then somebody else went on.
    assert client.seen.words.count("changed") >= 2


async def test_what_a_dying_peer_had_made_is_not_made_again(autojump_clock: MockClock) -> None:
    """Not for a client that wants the answer whole, either."""
    backends = {name: mock(decode_rate=10.0) for name in "ab"}
    async with open_client(backends) as client:
        alone = await client.post(CHAT, question(max_tokens=40))
        async with trio.open_nursery() as nursery:

            async def kill() -> None:
                await trio.sleep(2.0)
                peer_id = client.seen.last.peer_id
                assert peer_id is not None
                client.swarm.kill(peer_id)

            nursery.start_soon(kill)
            reply = await client.post(CHAT, question(max_tokens=40))
    body = reply.json()
    assert body["choices"] == alone.json()["choices"]
    assert len(body["punch"]["segments"]) == 2
    assert reply.headers["x-punch-segments"] == "2"
    assert body["usage"]["completion_tokens"] == 40


async def test_an_answer_that_breaks_ends_in_an_error_event(autojump_clock: MockClock) -> None:
    """The status is out already; the official client raises what is in the event."""
    backends = {name: mock(decode_rate=10.0) for name in "ab"}
    async with open_client(backends) as client:
        body = question(max_tokens=40, stream=True, punch={"continuation": False})
        async with client.open("POST", CHAT, body) as connection:
            await connection.until(15)
            client.swarm.kill(connection.reply.headers["x-punch-peer"])
        reply = connection.reply
    assert reply.status == 200
    assert reply.events()[-1]["error"]["code"] == "answer_interrupted"
    assert client.seen.last.error_code == "interrupted"
    assert client.seen.words.count("ended") == 1


async def test_one_of_several_answers_that_breaks_ends_them_all(autojump_clock: MockClock) -> None:
    """Half of what was asked for is nothing that a client could use."""
    stopped = []

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        try:
            await emit("some", 1)
            await trio.sleep(1 if request.request_id.endswith("#1") else 1000)
            if request.request_id.endswith("#1"):
                raise RuntimeError("a bug")
            return Generation(completion=Completion(), usage=Usage(), timings=Timings())
        finally:
            stopped.append(trio.current_time())

    async with open_client({"a": ScriptedBackend(play)}) as client:
        reply = await client.post(CHAT, question(n=2, stream=True))
        await trio.sleep(0.2)
    assert "error" in reply.events()[-1]
    assert len(stopped) == 2
    assert max(stopped) < 60


async def test_the_tokens_of_a_whole_answer_are_counted_while_they_are_made(
    autojump_clock: MockClock,
) -> None:
    """As those of a stream are, however many come in one part: a watcher sees what is made now."""

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        for _ in range(8):
            await trio.sleep(1.0)
            await emit("ten words of one part, one after the other, ", 10)
        return Generation(
            completion=Completion(text=""), usage=Usage(completion_tokens=80), timings=Timings()
        )

    async with open_client({"a": ScriptedBackend(play)}) as client:
        counts = []

        async def watch() -> None:
            await trio.sleep(1.5)
            for _ in range(7):
                counts.append(client.seen.last.tokens)
                await trio.sleep(1.0)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await client.post(CHAT, question(max_tokens=80))
    assert [after - before for before, after in pairwise(counts)] == [10] * 6, counts


async def test_observers_hear_the_beginning_the_change_and_the_end(
    autojump_clock: MockClock,
) -> None:
    """With the tokens, at the end."""
    async with open_client({"a": mock(decode_rate=10.0)}) as client:
        await client.post(CHAT, question(max_tokens=10, stream=True, model="mock"))
    exchange = client.seen.last
    assert client.seen.words == ["began", "changed", "ended"]
    assert (exchange.endpoint, exchange.model, exchange.stream) == (CHAT, "mock", True)
    assert exchange.status == 200
    assert exchange.error_code is None
    assert exchange.tokens == 10
    assert exchange.usage.completion_tokens == 10
    assert exchange.peer_id == "a"
    assert exchange.provenance is not None
    assert exchange.first_text_at is not None
    assert exchange.ended_at is not None
    assert exchange.began_at < exchange.first_text_at < exchange.ended_at
    assert len(exchange.decisions) == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", 400), (question(model="no"), 404), (question(), 200)],
    ids=["bad JSON", "no model", "fine"],
)
async def test_every_exchange_ends_exactly_once(
    body: Any, status: int, autojump_clock: MockClock
) -> None:
    """Whatever becomes of it."""
    async with open_client({"a": mock()}, settings=BY_NAME) as client:
        await client.post(CHAT, body)
    assert client.seen.words.count("began") == 1
    assert client.seen.words.count("ended") == 1
    assert client.seen.last.status == status
    assert not client.app.service.live.under_way


async def test_an_observer_with_a_bug_takes_nothing_from_the_client(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and the answer goes on."""
    hear = Seen.hear

    def broken(self: Seen, event: Event) -> None:
        if isinstance(event, RequestChanged):
            raise RuntimeError("a bug")
        hear(self, event)

    monkeypatch.setattr(Seen, "hear", broken)
    async with open_client({"a": mock()}) as client:
        reply = await client.post(CHAT, question())
    assert reply.status == 200
    assert client.seen.words == ["began", "ended"]
    assert "a subscriber has a bug" in caplog.text


async def test_a_gateway_that_ends_cuts_its_exchanges_off(autojump_clock: MockClock) -> None:
    """They end, too, and say why."""
    talker = Talker()
    async with open_client({"a": talker.backend}) as client:
        with trio.move_on_after(3):
            async with client.open("POST", CHAT, question(stream=True)):
                await trio.sleep_forever()
        assert client.seen.words[-1] == "ended"
        assert client.seen.last.error_code == "stopped"


async def test_a_bug_in_the_last_words_is_told(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """The stream has an error and an end, and does not just stop."""
    monkeypatch.setattr(
        "punch.gateway.openai._shapes.TextShape.ended", lambda self, responses: 1 / 0
    )
    async with open_client({"a": mock()}) as client:
        reply = await client.post(CHAT, question(stream=True, max_tokens=2))
    assert reply.ended
    assert b'"error"' in reply.body


@pytest.mark.parametrize(
    ("fields", "status"), [({"junk": 1}, 400), ({"model": "nobody-has-it"}, 404)]
)
async def test_what_is_refused_leaves_nothing_for_the_collector(
    fields: dict[str, Any], status: int, autojump_clock: MockClock
) -> None:
    """It comes seldom in the programs, and a body would stay until then."""
    async with open_client({"a": mock()}, settings=BY_NAME) as client:
        gc.collect()
        # What is there now is not looked at, which would take a second.
        gc.freeze()
        gc.disable()
        try:
            for _ in range(3):
                assert (await client.post(CHAT, question(**fields))).status == status
            await trio.sleep(1)
            left = [each for each in gc.get_objects() if isinstance(each, PunchError | Refusal)]
        finally:
            gc.enable()
            gc.unfreeze()
    assert not left
