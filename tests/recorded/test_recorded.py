"""What peers of c554520 said is understood today, and what is said today they would understand.

Each story was recorded from real peers of that commit (see `record.py`). Here one side of it is
played, byte for byte, to today's peer of the other side; what that one says is read by the reader
of minor 0 (see `minor_zero.py`), and means what it meant.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from random import Random
from typing import Any

import attrs
import pytest
import trio
from recorded.minor_zero import Refused, read, read_registration, write
from recorded.replay import (
    MEET,
    SESSION,
    STORIES,
    Heard,
    Story,
    load,
    part_of,
    play,
)

from punch import ChatMessage, CommandRequest, Router, Sampling, Tool, open_router
from punch.backends import Backend, Emit, Generation, MockBackend, MockScript
from punch.capability import PeerId
from punch.exceptions import PunchError
from punch.testing import MemoryNetwork, ScriptedBackend, open_swarm
from punch.wire import Completion, Request, Timings, Usage, decode, encode

LIMIT = 3600
NAMESPACE = "testing"
DELAY = 0.01

# The longest join that a bootstrap of minor 0 takes.
MAX_AT_BOOTSTRAP = 4096

STEADY = MockScript(decode_rate=10.0)


def backend_of(story: str) -> Backend:
    """What the listeners of a story ran then."""
    if story == "long_answer":
        return ScriptedBackend(long_text)
    slots = 1 if story in ("refusal", "waiting") else STEADY.slots
    return MockBackend(attrs.evolve(STEADY, slots=slots))


async def long_text(request: CommandRequest, emit: Emit) -> Generation:
    """See `record.py`."""
    pieces = [f"{number:04}" + "ä" * 1998 for number in range(25)]
    for piece in pieces:
        await emit(piece, 1)
    return Generation(
        completion=Completion(text="".join(pieces), finish_reason="stop"),
        usage=Usage(prompt_tokens=2, completion_tokens=len(pieces)),
        timings=Timings(),
    )


each_story = pytest.mark.parametrize("name", STORIES)


def test_there_are_recordings_of_all_that_minor_0_says() -> None:
    """A message that none of the stories has would be believed to be understood."""
    kinds = {message["type"] for name in STORIES for message in load(name).said()}
    assert kinds == {
        "hello",
        "goodbye",
        "advert",
        "request",
        "started",
        "chunk",
        "response",
        "cancel",
        "credit",
        "progress",
        "join",
        "roster",
    }
    statuses = {
        message["response"]["status"]
        for name in STORIES
        for message in load(name).said()
        if message["type"] == "response"
    }
    assert statuses == {"success", "refused", "cancelled"}


@each_story
def test_the_codec_of_today_reads_every_recorded_frame(name: str) -> None:
    """And writes it again so that minor 0 reads the same in it."""
    for frame in load(name).frames:
        message = decode(frame.raw[4:])
        assert read(encode(message, minor=0)[4:]) == frame.message


@pytest.mark.parametrize(
    "message",
    [
        {"type": "load"},
        {"type": "ping"},
        {"type": "credit", "request_id": "r", "amount": 0},
        {"type": "started", "request_id": "r", "provenance": {"kind": "guessed", "backend": "b"}},
    ],
)
def test_the_reader_of_minor_0_refuses_what_it_refused(message: dict[str, Any]) -> None:
    """So that a frame it takes here was really taken then."""
    with pytest.raises(Refused):
        read(write(message)[4:])


# ---- today's dialer ----


def request_of(story: Story, outcome: Mapping[str, Any]) -> CommandRequest:
    """What was asked."""
    plain = dict(outcome["request"])
    if "command" not in plain:
        # A gateway made it: as it went out.
        (raw,) = (
            frame.raw
            for frame in story.frames
            if frame.message.get("request", {}).get("request_id") == plain["request_id"]
        )
        message = decode(raw[4:])
        assert isinstance(message, Request)
        return message.request
    messages = [{**one, "tool_calls": ()} for one in plain.pop("messages", ())]
    sampling = plain.pop("sampling", {})
    return CommandRequest(
        messages=tuple(ChatMessage(**one) for one in messages),
        sampling=Sampling(**{**sampling, "stop": tuple(sampling.get("stop", ()))}),
        tools=tuple(Tool(**one) for one in plain.pop("tools", ())),
        inputs=tuple(plain.pop("inputs", ())),
        **plain,
    )


def plainly(value: Any) -> Any:
    """A value as JSON has it, without what is absent."""
    kept = attrs.asdict(value, filter=lambda field, found: found is not None)
    return json.loads(json.dumps(kept, default=list))


class OldTown:
    """The bootstrap and the listeners of a recording, on a network of today."""

    def __init__(self, nursery: trio.Nursery, story: Story) -> None:
        self.story = story
        self.network = MemoryNetwork(nursery, delay=DELAY)
        self.heard: dict[int, Heard] = defaultdict(Heard)
        # In order: addresses are numbered, and stand in the recorded registrations.
        self.nodes = {peer: self.network.node(peer) for peer in story.peers}
        self._began = trio.current_time()
        self._begun: set[int] = set()
        self.nodes["bootstrap"].handle(MEET, self._meet)
        for listener in story.listeners:
            self.nodes[listener].handle(SESSION, self._session(listener))

    async def _play(self, number: int, us: str, stream: Any, most: int) -> None:
        heard = self.heard[number]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: heard.listen(stream, most=most))
            await play(self.story, number, us, stream, heard, began=self._began)

    def _recorded(self, protocol: str, us: str, other: str) -> int:
        """The next stream of the recording between these two."""
        both = (set(self.story.streams(protocol, of=peer)) for peer in (us, other))
        number: int = min(set.intersection(*both) - self._begun)
        self._begun.add(number)
        return number

    async def _meet(self, stream: Any) -> None:
        number = self._recorded(MEET, "bootstrap", stream.peer_id)
        await self._play(number, "bootstrap", stream, MAX_AT_BOOTSTRAP)

    def _session(self, listener: str) -> Any:
        async def serve(stream: Any) -> None:
            number = self._recorded(SESSION, listener, stream.peer_id)
            await self._wait_for_its_turn(listener)
            await self._play(number, listener, stream, 8 << 20)

        return serve

    async def _wait_for_its_turn(self, listener: str) -> None:
        """Where two were there, the one that was asked first then is alone at first."""
        if self.story.name != "continuation":
            return
        (first, *_) = (f.receiver for f in self.story.frames if f.message["type"] == "request")
        if listener != first:
            (number,) = self.story.streams(SESSION, of=first)
            heard = self.heard[number]
            await heard.until(lambda: heard.turns() >= 2)

    def said(self, dialer: str, protocol: str) -> list[list[dict[str, Any]]]:
        """What today's dialer said on each of its streams, in the order of the recording."""
        return [self.heard[n].messages for n in self.story.streams(protocol, of=dialer)]


@each_story
async def test_a_dialer_of_today_gets_from_old_listeners_what_an_old_one_got(
    name: str, autojump_clock: Any
) -> None:
    """The old bootstrap's and listeners' bytes mean the same, and are answered in their words."""
    story = load(name)
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            town = OldTown(nursery, story)
            for dialer in dialers(story):
                # At once: a story with two is about one in the other's way.
                nursery.start_soon(ask_as_then, town, story, dialer)
            while sum(len(heard.messages) for heard in town.heard.values()) == 0:
                await trio.sleep(0.1)
            await finished(town)
            nursery.cancel_scope.cancel()
    for dialer in dialers(story):
        check_what_was_said(town, story, dialer)


def dialers(story: Story) -> list[str]:
    """Those who asked."""
    askers = dict.fromkeys(frame.sender for frame in story.frames if frame.protocol == SESSION)
    return [peer for peer in askers if peer not in story.listeners]


async def finished(town: OldTown) -> None:
    """Wait until all of today's dialers have left the bootstrap."""
    for dialer in dialers(town.story):
        (number,) = town.story.streams(MEET, of=dialer)
        heard = town.heard[number]
        await heard.until(lambda: False)


async def ask_as_then(town: OldTown, story: Story, dialer: str) -> None:
    """Today's dialer asks what the old one asked, and gets the same."""
    own = [
        frame.message["request"]["request_id"]
        for frame in story.frames
        if frame.sender == dialer and frame.message["type"] == "request"
    ]
    (incarnation,) = {m["incarnation"] for m in story.said(dialer) if m["type"] == "hello"}
    async with open_router(
        node=town.nodes[dialer],
        bootstrap=town.nodes["bootstrap"].addresses[0],
        namespace=NAMESPACE,
        incarnation=incarnation,
        rng=Random(0),
    ) as router:
        await router.wait_for_peers()
        if story.name == "departure":
            await router.wait_for_peers(lambda peers: len(peers) == 2)
            await trio.sleep(2)
        async with trio.open_nursery() as nursery:
            for outcome in story.outcomes:
                if outcome["request"]["request_id"] not in own:
                    continue
                if story.name == "waiting":
                    nursery.start_soon(ask_one, router, story, outcome)
                    await trio.sleep(0.5)
                else:
                    await ask_one(router, story, outcome)
        # Acknowledgements are on their way.
        await trio.sleep(1)


async def ask_one(router: Router, story: Story, outcome: Mapping[str, Any]) -> None:
    """One question of a story, and the same answer."""
    texts: list[str] = []
    response = None
    try:
        async with router.answer(request_of(story, outcome)) as answer:
            while (text := await answer.receive()) is not None:
                texts.append(text)
                if story.name == "cancel" and len(texts) == len(outcome["texts"]):
                    break
            else:
                response = plainly(answer.response)
        failed = None
    except PunchError as error:
        failed = error.code
    assert failed == outcome.get("error")
    assert "".join(texts) == "".join(outcome["texts"])
    if expected := outcome.get("response"):
        assert response is not None
        rest = {k: v for k, v in expected.items() if k not in ("timings", "segments")}
        assert part_of(rest, response), (rest, response)
        segments = [(one["peer_id"], one["tokens"]) for one in expected["segments"]]
        if not segments:
            # Then nobody was named for an answer without text.
            segments = [(expected["executor"], expected["usage"]["completion_tokens"] or 0)]
        assert [(one["peer_id"], one["tokens"]) for one in response["segments"]] == segments


def check_what_was_said(town: OldTown, story: Story, dialer: str) -> None:
    """What today's dialer said means what the old one said."""
    ((join, *_),) = town.said(dialer, MEET)
    ((then, *_),) = [story.said(dialer, stream=n) for n in story.streams(MEET, of=dialer)]
    mine, its = (read_registration(one["registration"]) for one in (join, then))
    assert mine == its
    now = [m for said in town.said(dialer, SESSION) for m in said]
    before = story.said(dialer, protocol=SESSION)
    hellos = [m for m in now if m["type"] == "hello"]
    assert len(hellos) == len(story.streams(SESSION, of=dialer))
    for hello in hellos:
        assert hello["namespace"] == NAMESPACE
        assert hello["incarnation"] == its["incarnation"]
    assert requests(now) == requests(before)
    assert [m for m in now if m["type"] == "cancel"] == [m for m in before if m["type"] == "cancel"]
    for request_id in requests(before):
        # Acknowledged is what was sent, in bytes of UTF-8, and never more.
        received = sum(
            len(m["text"].encode())
            for m in story.said(protocol=SESSION)
            if m["type"] == "chunk" and m["request_id"] == request_id
        )
        assert credit(now, request_id) <= received
        assert bool(credit(now, request_id)) == bool(credit(before, request_id))


def requests(messages: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """What was asked under each id, the beginning first; but for the seconds that were left."""
    found = defaultdict(list)
    for message in messages:
        if message["type"] == "request":
            asked = {k: v for k, v in message["request"].items() if k != "timeout"}
            found[asked["request_id"]].append(asked)
    return {name: sorted(asked, key=lambda a: "continuation" in a) for name, asked in found.items()}


def credit(messages: list[dict[str, Any]], request_id: str) -> int:
    """Bytes that were acknowledged."""
    return sum(
        m["amount"] for m in messages if m["type"] == "credit" and m["request_id"] == request_id
    )


# ---- today's listener ----


@pytest.mark.parametrize("name", [name for name in STORIES if name != "departure"])
async def test_a_listener_of_today_answers_old_dialers_as_an_old_one_did(
    name: str, autojump_clock: Any
) -> None:
    """The old dialers' bytes mean the same, and are answered in their words."""
    story = load(name)
    heard: dict[int, Heard] = {}
    with trio.fail_after(LIMIT):
        async with open_swarm(delay=DELAY) as swarm:
            queue_limit = 0 if name == "refusal" else 16
            for listener in story.listeners:
                await swarm.listener(listener, backend_of(name), queue_limit=queue_limit)
            began = trio.current_time()
            async with trio.open_nursery() as nursery:
                for listener in story.listeners:
                    for number in story.streams(SESSION, of=listener):
                        heard[number] = Heard()
                        nursery.start_soon(
                            dial, swarm.network, story, number, listener, heard[number], began
                        )
    for number, found in heard.items():
        (listener,) = (
            peer for peer in story.listeners if number in story.streams(SESSION, of=peer)
        )
        before = story.said(listener, stream=number)
        check_hello_and_adverts(found.messages, before)
        check_answers(story, found.messages, before)


async def dial(
    network: MemoryNetwork,
    story: Story,
    number: int,
    listener: str,
    heard: Heard,
    began: float,
) -> None:
    """Be an old dialer in one of its sessions."""
    (us, *_) = (frame.sender for frame in story.frames if frame.stream == number)
    node = network.node(f"{us}-{number}")
    # In order of their coming: the bootstrap was the first.
    address = f"/ip4/10.0.0.{2 + story.listeners.index(listener)}/tcp/1"
    stream = await node.open_stream(PeerId(listener), (address,), SESSION)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: heard.listen(stream, most=8 << 20))
        await play(story, number, us, stream, heard, began=began)


def check_hello_and_adverts(now: list[dict[str, Any]], before: list[dict[str, Any]]) -> None:
    """The vector says what it said, peer-wide fields and all, and its load goes up and down."""
    assert now[0]["type"] == before[0]["type"] == "hello"
    assert now[0]["namespace"] == before[0]["namespace"]
    assert now[1]["type"] == "advert"
    adverts, then = ([m for m in each if m["type"] == "advert"] for each in (now, before))
    stamps = [(m["incarnation"], m["sequence"]) for m in adverts]
    assert stamps == sorted(set(stamps))
    for key in ("backend", "simulated"):
        assert {m["capability"][key] for m in adverts} == {m["capability"][key] for m in then}
    assert part_of(then[0]["capability"]["models"], adverts[0]["capability"]["models"])
    loads = [one["capability"].get("load", {}) for one in (then[0], adverts[0])]
    assert part_of(*loads)
    if not any(m["type"] == "response" for m in before):
        return  # It broke off, sooner or later.
    busy, was = (
        {m["capability"].get("load", {}).get("busy", 0) for m in each} for each in (adverts, then)
    )
    assert was <= busy


def check_answers(story: Story, now: list[dict[str, Any]], before: list[dict[str, Any]]) -> None:
    """The same text, end and numbers, and where it is from is said before it comes."""
    answers, then = (
        {m["response"]["request_id"]: m["response"] for m in each if m["type"] == "response"}
        for each in (now, before)
    )
    assert list(answers) == list(then)
    for request_id, expected in then.items():
        actual = answers[request_id]
        for key in ("status", "result", "usage", "provenance", "executor"):
            assert part_of(expected.get(key), actual.get(key)), (key, expected, actual)
        for key in ("code", "retryable"):
            assert actual.get("error", {}).get(key) == expected.get("error", {}).get(key)
    for request_id in {m["request_id"] for m in before if m["type"] == "chunk"}:
        said = "".join(
            m["text"] for m in now if m["type"] == "chunk" and m["request_id"] == request_id
        )
        was = "".join(
            m["text"] for m in before if m["type"] == "chunk" and m["request_id"] == request_id
        )
        # A session that broke off may have got a word more or less.
        assert said == was if request_id in then else said.startswith(was) or was.startswith(said)
        kinds = [m["type"] for m in now if m.get("request_id") == request_id]
        assert "started" in kinds[: kinds.index("chunk")]


# ---- today's bootstrap ----


@each_story
async def test_a_bootstrap_of_today_lets_old_peers_meet(name: str, autojump_clock: Any) -> None:
    """What they signed is passed on as it was, and a dialer hears of who comes and who goes."""
    story = load(name)
    heard: dict[int, Heard] = {}
    numbers = story.streams(MEET, of="bootstrap")
    with trio.fail_after(LIMIT):
        async with open_swarm(delay=DELAY) as swarm:
            address = (str(swarm.bootstrap),)
            nodes = {peer: swarm.network.node(peer) for peer in story.peers if peer != "bootstrap"}
            async with trio.open_nursery() as nursery:
                for number in numbers:
                    heard[number] = Heard()
                    (us, *_) = (f.sender for f in story.frames if f.stream == number)
                    nursery.start_soon(join, nodes[us], address, story, number, heard[number])
    for number in numbers:
        before = story.said("bootstrap", stream=number)
        now, then = rosters(heard[number].messages), rosters(before)
        assert now[: len(then)] == then
        # At the end all leave at once, and in whatever order.
        assert all(not present for _, present, _ in now[len(then) :])


async def join(
    node: Any, address: tuple[str, ...], story: Story, number: int, heard: Heard
) -> None:
    """Be an old member, from when it came to when it left."""
    began = trio.current_time()
    await trio.sleep(next(frame.at for frame in story.frames if frame.stream == number))
    stream = await node.open_stream("bootstrap", address, MEET)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: heard.listen(stream, most=8 << 20))
        await play(story, number, node.peer_id, stream, heard, began=began)


def rosters(messages: list[dict[str, Any]]) -> list[tuple[bool, set[bytes], list[str]]]:
    """Who was there and who was gone, roster by roster."""
    return [
        (
            message.get("whole", False),
            {one["registration"] + one["signature"] for one in message.get("present", ())},
            message.get("gone", []),
        )
        for message in messages
        if message["type"] == "roster"
    ]
