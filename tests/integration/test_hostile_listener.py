"""A listener of the namespace that breaks the rules: the dialer takes no harm, others answer."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress

import attrs
import pytest
import trio
from integration.programs import Program, Programs, limit, open_programs
from integration.test_choosing import InOrder, in_order, text_of, wait_for_listeners
from integration.test_hostile import NAMESPACE, answers, framed, hello

from punch import CommandRequest, PeerId, Router, chat_request, open_router
from punch.capability import Capability, ModelOffer
from punch.discovery import KnownPeers, join_namespace, new_incarnation
from punch.exceptions import PeerUnreachable
from punch.libp2p import open_node
from punch.network import Stream, parse_address
from punch.wire import (
    PROTOCOL,
    Advert,
    Chunk,
    CommandResponse,
    Completion,
    Progress,
    Provenance,
    Request,
    Response,
    Started,
    decode,
    encode,
)

TCP = "/ip4/127.0.0.1/tcp/0"


@attrs.frozen(kw_only=True)
class Town:
    """A bootstrap and an honest listener."""

    programs: Programs
    listener: Program


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """They live through all of it."""
    with open_programs(tmp_path_factory.mktemp("town")) as programs:
        programs.bootstrap()
        yield Town(programs=programs, listener=programs.listener())


Behave = Callable[[Stream, CommandRequest, PeerId], Awaitable[None]]

REAL = Provenance(kind="simulated", backend="liar", model="mock")


def response(request_id: str, executor: PeerId, text: str = "") -> bytes:
    """The end of an answer."""
    return encode(
        Response(
            response=CommandResponse(
                request_id=request_id,
                status="success",
                result=Completion(text=text),
                executor=executor,
                provenance=REAL,
            )
        )
    )


async def unknown_request(stream: Stream, asked: CommandRequest, me: PeerId) -> None:
    """Answers what nobody asked."""
    await stream.send_all(response("nobody-asked-this", me, "poison"))


async def text_before_its_start(stream: Stream, asked: CommandRequest, me: PeerId) -> None:
    """Sends text before it says where it comes from."""
    await stream.send_all(encode(Chunk(request_id=asked.request_id, text="poison")))


async def in_anothers_name(stream: Stream, asked: CommandRequest, me: PeerId) -> None:
    """Says that somebody else answers."""
    await stream.send_all(response(asked.request_id, PeerId("12D3KooWsomebodyelse"), "poison"))


async def no_provenance(stream: Stream, asked: CommandRequest, me: PeerId) -> None:
    """Does not say where its answer comes from."""
    naked = CommandResponse(
        request_id=asked.request_id,
        status="success",
        result=Completion(text="poison"),
        executor=me,
    )
    await stream.send_all(encode(Response(response=naked)))


async def a_huge_frame(stream: Stream, asked: CommandRequest, me: PeerId) -> None:
    """Promises 4 GiB."""
    await stream.send_all(b"\xff\xff\xff\xff")


async def noise(stream: Stream, asked: CommandRequest, me: PeerId) -> None:
    """Says nothing that means anything."""
    await stream.send_all(framed(os.urandom(200)))


async def hang_up(stream: Stream, asked: CommandRequest, me: PeerId) -> None:
    """Leaves without a word."""
    await stream.aclose()


@asynccontextmanager
async def evil_listener(town: Town, behave: Behave) -> AsyncIterator[PeerId]:
    """A registered listener that is fine until it is asked."""
    incarnation = new_incarnation()

    async with open_node(listen=[TCP]) as node:

        async def serve(stream: Stream) -> None:
            await stream.send_all(hello())
            offer = ModelOffer(name="mock", features=frozenset({"chat"}))
            capability = Capability.of_one_lane(backend="liar", simulated=True, models=(offer,))
            await stream.send_all(
                encode(Advert(incarnation=incarnation, sequence=1, age=0.0, capability=capability))
            )
            received = b""
            while data := await stream.receive_some():
                received += data
                while len(received) >= 4 and len(received) >= 4 + int.from_bytes(
                    received[:4], "big"
                ):
                    length = int.from_bytes(received[:4], "big")
                    message = decode(received[4 : 4 + length])
                    received = received[4 + length :]
                    if isinstance(message, Request):
                        with suppress(PeerUnreachable):
                            await behave(stream, message.request, node.peer_id)

        node.handle(PROTOCOL, serve)
        async with join_namespace(
            node,
            parse_address(town.programs.address),
            known=KnownPeers(None),
            namespace=NAMESPACE,
            roles={"listener"},
            incarnation=incarnation,
        ) as membership:
            await membership.joined.wait()
            yield node.peer_id


@asynccontextmanager
async def preferring(town: Town, liar: PeerId) -> AsyncIterator[Router]:
    """An honest router that asks *liar* first and the honest listener next."""
    policy = attrs.evolve(in_order(), scorer=InOrder((liar, town.listener.peer_id)))
    async with open_router(bootstrap=town.programs.address, policy=policy) as router:
        await router.wait_for_peers(
            lambda peers: {liar, town.listener.peer_id} <= {peer.peer_id for peer in peers}
        )
        yield router


@pytest.mark.parametrize(
    "behave",
    [
        unknown_request,
        text_before_its_start,
        in_anothers_name,
        no_provenance,
        a_huge_frame,
        noise,
        hang_up,
    ],
    ids=lambda behave: behave.__name__,
)
@limit(60)
async def test_a_listener_that_breaks_the_rules_is_passed_over(town: Town, behave: Behave) -> None:
    """The honest one answers; of what the liar said nothing arrives, and it is noted why."""
    async with evil_listener(town, behave) as liar, preferring(town, liar) as router:
        asked = chat_request("hi")
        said = await router.ask(asked)
        assert said.executor == town.listener.peer_id
        assert said.result is not None
        assert said.result.text == text_of(asked)
        (attempt,) = said.attempts
        assert attempt["peer_id"] == liar


async def two_responses(stream: Stream, asked: CommandRequest, me: PeerId) -> None:
    """Answers twice."""
    await stream.send_all(response(asked.request_id, me, "once"))
    await stream.send_all(response(asked.request_id, me, "twice"))


async def chunks_after_the_response(stream: Stream, asked: CommandRequest, me: PeerId) -> None:
    """Goes on talking after the end."""
    await stream.send_all(encode(Started(request_id=asked.request_id, provenance=REAL)))
    await stream.send_all(encode(Chunk(request_id=asked.request_id, text="once")))
    await stream.send_all(response(asked.request_id, me))
    await stream.send_all(encode(Chunk(request_id=asked.request_id, text=" and more")))


async def progress_after_the_response(stream: Stream, asked: CommandRequest, me: PeerId) -> None:
    """Reports on what is over."""
    await stream.send_all(response(asked.request_id, me, "once"))
    await stream.send_all(encode(Progress(request_id=asked.request_id, state="queued")))


@pytest.mark.parametrize(
    "behave",
    [two_responses, chunks_after_the_response, progress_after_the_response],
    ids=lambda behave: behave.__name__,
)
@limit(60)
async def test_what_comes_after_the_end_is_not_taken(town: Town, behave: Behave) -> None:
    """The answer is the first one, whole and once; the session then ends, and others answer."""
    async with evil_listener(town, behave) as liar, preferring(town, liar) as router:
        session = router._dispatch.pool.session(liar)
        assert session is not None
        said = await router.ask(chat_request("hi"))
        assert said.executor == liar
        assert said.result is not None
        assert said.result.text == "once"
        with trio.fail_after(10):
            while session.ended is None:
                await trio.sleep(0.01)
        assert "broke the protocol" in str(session.ended)
        # It may connect again; asked again, it is the same.
        await answers_or_once(router)


async def answers_or_once(router: Router) -> None:
    """A further question has one whole answer, whoever gives it."""
    asked = chat_request("and now?")
    said = await router.ask(asked)
    assert said.result is not None
    assert said.result.text in (text_of(asked), "once")


async def never_ends(stream: Stream, asked: CommandRequest, me: PeerId) -> None:
    """Sends more text than the dialer has said it can take."""
    await stream.send_all(encode(Started(request_id=asked.request_id, provenance=REAL)))
    for _ in range(200):
        await stream.send_all(encode(Chunk(request_id=asked.request_id, text="flood " * 1000)))


@limit(60)
async def test_a_flood_ends_at_the_window(town: Town) -> None:
    """A reader that takes its time is not drowned: 64 KiB ahead of it, the session ends."""
    async with evil_listener(town, never_ends) as liar, preferring(town, liar) as router:
        session = router._dispatch.pool.session(liar)
        assert session is not None
        async with router.answer(chat_request("hi")) as answer:
            assert (await answer.receive() or "").startswith("flood")
            with trio.fail_after(10):
                while session.ended is None:
                    await trio.sleep(0.01)
        assert "ahead of its reader" in str(session.ended)
    async with open_router(
        bootstrap=town.programs.address, policy=in_order(town.listener)
    ) as other:
        await wait_for_listeners(other, town.listener)
        await answers(other)
