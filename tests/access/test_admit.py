"""Every door asks who may come in, before it says a word of its own."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

import pytest
import trio
from trio.testing import MockClock

from punch.access import Introduction, Refusal, admit_everybody
from punch.bootstrap import open_bootstrap
from punch.capability import PeerId
from punch.discovery import Directory, join_namespace
from punch.exceptions import NotPermitted
from punch.network import Stream, parse_address
from punch.session import PeerSession, ServerCall
from punch.testing import MemoryNetwork
from punch.wire import PROTOCOL, Advert, Goodbye, Hello, LoadReport, Session, greeting

LIMIT = 60


def turn_away(peer_id: PeerId, introduction: Introduction, now: float) -> Refusal | None:
    """Nobody but `friend` comes in."""
    if peer_id == "friend":
        return None
    return Refusal(rule="list", reason=f"{peer_id} is on no list of {introduction.namespace}")


def test_an_open_namespace_admits_everybody() -> None:
    """Its name is all there is to know."""
    assert admit_everybody(PeerId("x"), Introduction(namespace="n"), 0.0) is None


class Handler:
    """Notes who was let in."""

    peer_id = PeerId("host")

    def __init__(self) -> None:
        self.met: list[Hello] = []

    def opened(self, session: PeerSession, hello: Hello) -> None:
        self.met.append(hello)

    def advertised(self, session: PeerSession, advert: Advert | LoadReport) -> None: ...

    def round_trip(self, session: PeerSession, seconds: float) -> None: ...

    def serve_call(self, call: ServerCall) -> None: ...


class Overheard:
    """A stream that notes what it receives."""

    def __init__(self, stream: Stream, heard: bytearray) -> None:
        self.peer_id = stream.peer_id
        self.room = 0  # Every write takes its turn.
        self.send_all, self.send_now = stream.send_all, stream.send_now
        self.aclose = stream.aclose
        self._receive = stream.receive_some
        self._heard = heard

    async def receive_some(self) -> bytes:
        data = await self._receive()
        self._heard.extend(data)
        return data


@pytest.mark.parametrize(("name", "welcome"), [("friend", True), ("stranger", False)])
async def test_a_session_is_opened_only_to_whom_the_listener_admits(
    autojump_clock: MockClock, name: str, welcome: bool
) -> None:
    """A stranger hears why, and neither version nor namespace of ours."""
    host, guest = Handler(), Handler()
    heard = bytearray()
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            network = MemoryNetwork(nursery)
            server, client = network.node("host"), network.node(name)
            hello = greeting(namespace="home", incarnation=1, version="secret-version")

            async def serve(stream: Stream) -> None:
                session = Session("listener", hello)
                await PeerSession(stream, session, host, admit=turn_away).run()

            server.handle(PROTOCOL, serve)
            stream = await client.open_stream(server.peer_id, server.addresses, PROTOCOL)
            session = PeerSession(Overheard(stream, heard), Session("dialer", hello), guest)
            nursery.start_soon(session.run)
            await trio.sleep(3)
            ended = session.ended
            nursery.cancel_scope.cancel()

    assert bool(host.met) == bool(guest.met) == welcome
    assert (ended is None) == welcome
    if not welcome:
        assert "stranger is on no list of home" in str(ended)
        assert b"secret-version" not in heard
        assert len(heard) < 200


async def test_a_dialer_hangs_up_on_a_listener_that_it_does_not_admit(
    autojump_clock: MockClock,
) -> None:
    """Both sides of a session are doors."""
    host, guest = Handler(), Handler()
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            network = MemoryNetwork(nursery)
            server, client = network.node("host"), network.node("friend")
            hello = greeting(namespace="home", incarnation=1, version="1")

            async def serve(stream: Stream) -> None:
                await PeerSession(stream, Session("listener", hello), host).run()

            server.handle(PROTOCOL, serve)
            stream = await client.open_stream(server.peer_id, server.addresses, PROTOCOL)
            session = PeerSession(stream, Session("dialer", hello), guest, admit=turn_away)
            await session.run()
            nursery.cancel_scope.cancel()

    assert guest.met == []
    assert "host is on no list" in str(session.ended)


async def test_a_bootstrap_registers_only_whom_it_admits(autojump_clock: MockClock) -> None:
    """The refused one is told which rule it broke, and waits in vain for nothing."""
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            network = MemoryNetwork(nursery)
            node = network.node("bootstrap")
            address = parse_address(node.addresses[0])
            async with open_bootstrap(node, admit=turn_away) as server:

                def join(name: str) -> AbstractAsyncContextManager[Directory]:
                    return join_namespace(
                        network.node(name),
                        address,
                        namespace="home",
                        roles={"listener"},
                        incarnation=1,
                    )

                async with join("stranger") as outside:
                    await outside.refused.wait()
                    none = server.statistics().registrations
                async with join("friend") as inside:
                    await inside.joined.wait()
                    one = server.statistics().registrations
            nursery.cancel_scope.cancel()

    assert isinstance(outside.trouble, NotPermitted)
    assert "stranger is on no list of home" in str(outside.trouble)
    assert (none, one) == (0, 1)


def test_a_goodbye_before_hello_ends_the_session() -> None:
    """What a refused dialer gets instead of a greeting is understood by every version."""
    session = Session("dialer", greeting(namespace="n", incarnation=1, version="1"))
    other = Session("listener", greeting(namespace="n", incarnation=1, version="1"))
    other.admit = lambda hello: (_ for _ in ()).throw(NotPermitted("no"))
    other.receive_data(session.data_to_send())
    with pytest.raises(NotPermitted):
        other.next_event()
    session.receive_data(other.data_to_send())

    assert session.next_event() == Goodbye(code="not_permitted", message="no")
