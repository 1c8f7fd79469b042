"""Members that find each other on a LAN, in memory and in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from trio.testing import MockClock

from punch.backends import MockBackend, MockScript
from punch.capability import PeerId
from punch.dialer import Router, open_router
from punch.discovery import Directory, Sighting
from punch.discovery._listed import Listed
from punch.discovery.lan import Heard, Interface, Lan, LanKey, open_nearby, watch_for_closed
from punch.discovery.lan._asking import MAX_ASKERS, PROOF_BYTES, PROTOCOL
from punch.discovery.lan._candidates import MAX_CANDIDATES
from punch.discovery.lan._records import said_on
from punch.exceptions import PeerUnreachable
from punch.listener import Listener, open_listener
from punch.network import Node
from punch.testing import Air, MemoryNetwork, Swarm
from punch.testing._swarm import NAMESPACE

LIMIT = 3600.0
NOBODY = "/ip4/10.99.9.9/tcp/1"


def lan_of(air: Air, node: Node) -> Lan:
    return air.lan(f"{node.addresses[0].split('/')[2]}/8")


@asynccontextmanager
async def listening(
    network: MemoryNetwork, air: Air, name: str = "alpha", namespace: str = NAMESPACE
) -> AsyncIterator[Listener]:
    node = network.node(name)
    async with open_listener(
        MockBackend(MockScript()),
        node=node,
        bootstrap=NOBODY,
        namespace=namespace,
        lan=lan_of(air, node),
    ) as listener:
        yield listener


@asynccontextmanager
async def dialing(
    network: MemoryNetwork, air: Air, name: str = "dialer", namespace: str = NAMESPACE
) -> AsyncIterator[Router]:
    node = network.node(name)
    async with open_router(
        node=node, bootstrap=NOBODY, namespace=namespace, lan=lan_of(air, node)
    ) as router:
        yield router


@pytest.fixture
async def network(autojump_clock: MockClock) -> AsyncIterator[MemoryNetwork]:
    """A network on which nobody is yet."""
    del autojump_clock
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            yield MemoryNetwork(nursery)
            nursery.cancel_scope.cancel()


async def test_two_machines_find_each_other_without_a_bootstrap(
    network: MemoryNetwork, autojump_clock: MockClock
) -> None:
    """The bootstrap is away; the dialer asks who is on its LAN, whoever came first."""
    air = Air()
    async with listening(network, air, "alpha"), dialing(network, air) as router:
        await router.wait_for_peers()
        assert (await router.ask("hello")).executor == "alpha"
        assert router.trouble is None
        async with listening(network, air, "beta"):
            await router.wait_for_peers(lambda peers: len(peers) == 2)
        await router.wait_for_peers(lambda peers: len(peers) == 1)
        states = {each.name: each.listeners for each in router.sources}
        assert states == {f"bootstrap {NOBODY}": 0, "LAN": 1}


async def test_being_asked_on_and_on_is_news_once(
    network: MemoryNetwork, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forty dialers that follow a listener are told each ten seconds: it puts nothing together."""
    reports: list[str] = []
    found = Directory._found

    def counted(self: Directory, listed: Listed, sighting: Sighting) -> None:
        if "listener" in self._announce.roles:
            reports.append(listed.source.name)
        found(self, listed, sighting)

    monkeypatch.setattr(Directory, "_found", counted)
    air = Air()
    async with listening(network, air), dialing(network, air) as router:
        await router.wait_for_peers()
        await trio.sleep(20)
        reports.clear()
        await trio.sleep(300)
        assert reports.count("LAN") == 0


async def test_a_peer_of_another_namespace_is_not_found(
    network: MemoryNetwork, autojump_clock: MockClock
) -> None:
    """It is a candidate of nobody, and is not even dialled."""
    air = Air()
    async with listening(network, air, namespace="other"), dialing(network, air) as router:
        await trio.sleep(60)
        assert router.peers == ()
        assert router.trouble is not None


async def test_that_nobody_is_heard_hides_no_trouble_with_the_bootstrap(
    network: MemoryNetwork, autojump_clock: MockClock
) -> None:
    """Alone on a LAN, a dialer says that its bootstrap is out of reach, as without one."""
    air = Air()
    async with dialing(network, air) as router:
        await trio.sleep(5)
        assert "the bootstrap is out of reach" in str(router.trouble)
        async with listening(network, air):
            await router.wait_for_peers()
            assert router.trouble is None


async def test_a_listener_that_vanishes_is_missed_though_its_record_stays(
    network: MemoryNetwork, autojump_clock: MockClock
) -> None:
    """No goodbye on the LAN: its stream has ended, and it is listed no more."""
    air = Air()
    async with trio.open_nursery() as nursery, dialing(network, air) as router:
        with trio.CancelScope():

            async def listen() -> None:
                async with listening(network, air):
                    await trio.sleep_forever()

            nursery.start_soon(listen)
            await router.wait_for_peers()
            network.take_down(next(iter(router.peers)).peer_id)
            await router.wait_for_peers(lambda peers: not peers)
            await trio.sleep(1)
            assert [each.listeners for each in router.sources] == [0, 0]
            nursery.cancel_scope.cancel()


async def test_with_multicast_blocked_all_else_works_and_says_so(
    swarm: Swarm, autojump_clock: MockClock
) -> None:
    """Found by the bootstrap, on the same LAN, and unheard: that is said, and is no trouble."""
    air = Air()
    air.is_blocked = True
    node, other = swarm.network.node("near"), swarm.network.node("asker")
    async with (
        open_listener(
            MockBackend(MockScript()),
            node=node,
            bootstrap=swarm.bootstrap,
            namespace=NAMESPACE,
            lan=lan_of(air, node),
        ),
        open_router(
            node=other,
            bootstrap=swarm.bootstrap,
            namespace=NAMESPACE,
            lan=lan_of(air, other),
        ) as router,
    ):
        await router.wait_for_peers()
        await trio.sleep(30)
        assert (await router.ask("hello")).executor == "near"
        assert router.trouble is None
        (warning,) = router.warnings
        assert "none is heard by mDNS" in warning


async def test_a_machine_that_does_not_hear_itself_is_told_of_its_firewall(
    network: MemoryNetwork, autojump_clock: MockClock
) -> None:
    """What a listener says does not come back to it: nobody else will hear it either."""
    air = Air()
    node = network.node("alpha")
    air.deaf.add(node.addresses[0].split("/")[2])
    async with open_listener(
        MockBackend(MockScript()),
        node=node,
        bootstrap=NOBODY,
        namespace=NAMESPACE,
        lan=lan_of(air, node),
    ) as listener:
        await trio.sleep(30)
        assert "does not come back to it" in listener.directory.warnings[0]


async def test_an_interface_that_cannot_be_used_is_named(
    network: MemoryNetwork, autojump_clock: MockClock
) -> None:
    """With the reason that the system gives."""
    air, node = Air(), network.node("alpha")
    lan = air.lan("10.0.0.1/8", fails="address already in use")
    async with open_listener(
        MockBackend(MockScript()), node=node, bootstrap=NOBODY, namespace=NAMESPACE, lan=lan
    ) as listener:
        await trio.sleep(30)
        assert listener.directory.warnings == (
            "LAN: mDNS cannot be used (eth0: address already in use)",
        )


async def test_a_listener_on_loopback_says_nothing_on_a_lan(
    network: MemoryNetwork, autojump_clock: MockClock
) -> None:
    """Whoever listens for this machine only is nobody else's business."""
    air, node = Air(), network.node("alpha")
    node.addresses = ("/ip4/127.0.0.1/tcp/1",)
    async with open_listener(
        MockBackend(MockScript()),
        node=node,
        bootstrap=NOBODY,
        namespace=NAMESPACE,
        lan=air.lan("10.0.0.1/8"),
    ):
        await trio.sleep(60)
        assert air.said == ()


async def test_a_stranger_who_asks_is_told_nothing(
    network: MemoryNetwork, autojump_clock: MockClock
) -> None:
    """Silence, garbage, another namespace's key, and a member's own words replayed: no byte."""
    air = Air()
    async with listening(network, air) as listener:
        await trio.sleep(1)
        stranger = network.node("stranger")
        addresses = listener.addresses
        salt = b"s" * 16
        tries = {
            "garbage": b"x" * PROOF_BYTES,
            "short": b"x",
            "long": b"x" * 100_000,
            "other key": salt
            + LanKey.of_open("guess").tag("ask", salt, stranger.peer_id, listener.peer_id),
            "a member's": salt
            + LanKey.of_open(NAMESPACE).tag(
                "ask", salt, network.node("m").peer_id, listener.peer_id
            ),
            "its own record": salt
            + LanKey.of_open(NAMESPACE).tag("record", salt, stranger.peer_id, listener.peer_id),
        }
        for what, proof in tries.items():
            stream = await stranger.open_stream(listener.peer_id, addresses, PROTOCOL)
            await stream.send_all(proof)
            heard = b""
            while data := await stream.receive_some():
                heard += data
            assert heard == b"", what


async def test_strangers_that_hang_hold_nobody_up(
    network: MemoryNetwork, autojump_clock: MockClock
) -> None:
    """More streams without a word than there may be: they end, and a member is told as ever."""
    air = Air()
    async with listening(network, air) as listener:
        await trio.sleep(1)
        stranger = network.node("stranger")
        for _ in range(MAX_ASKERS + 10):
            await stranger.open_stream(listener.peer_id, listener.addresses, PROTOCOL)
        async with dialing(network, air) as router:
            await router.wait_for_peers()


async def test_a_host_that_hangs_for_ever_holds_nobody_up(
    network: MemoryNetwork, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes back as soon as a stream ends: it takes its own places, and a member is told."""
    monkeypatch.setattr("punch.discovery.lan._asking.MAX_ASKERS", 64)
    air = Air()
    async with listening(network, air) as listener, trio.open_nursery() as nursery:
        stranger = network.node("stranger")
        await trio.sleep(1)

        async def hang() -> None:
            while True:
                stream = await stranger.open_stream(listener.peer_id, listener.addresses, PROTOCOL)
                await stream.receive_some()
                await trio.sleep(0.01)

        for _ in range(100):
            nursery.start_soon(hang)
        await trio.sleep(1)
        async with dialing(network, air) as router:
            with trio.fail_after(5):
                await router.wait_for_peers()
        nursery.cancel_scope.cancel()


async def test_made_up_records_of_our_namespace_hide_nobody(
    network: MemoryNetwork, autojump_clock: MockClock
) -> None:
    """Thousands of records with fitting tags, of peers that are nowhere: the real one is found."""
    air = Air()
    key, salt = LanKey.of_open(NAMESPACE), b"s" * 16
    async with dialing(network, air) as router:
        for number in range(4 * MAX_CANDIDATES):
            peer = f"madeup{number}"
            air.say(
                Heard(
                    interface="",
                    instance=peer,
                    hosts=(f"10.9.{number >> 8}.{number & 255}",),
                    port=7,
                    properties={
                        b"v": b"1",
                        b"p": peer.encode(),
                        b"s": salt.hex().encode(),
                        b"t": key.tag("record", salt, PeerId(peer)).hex().encode(),
                    },
                )
            )
            if number % 256 == 0:
                await trio.sleep(1)
        async with listening(network, air):
            began = trio.current_time()
            await router.wait_for_peers()
            assert trio.current_time() - began < 60


async def test_a_record_in_the_name_of_another_peer_changes_nothing(
    network: MemoryNetwork, autojump_clock: MockClock
) -> None:
    """A member says where another is, falsely: the other stays as it was, and is asked."""
    air = Air()
    async with listening(network, air), dialing(network, air) as router:
        await router.wait_for_peers()
        (said,) = air.said
        air.say(
            Heard(
                interface="",
                instance="forged",
                hosts=("10.66.6.6",),
                port=1,
                properties={name.encode(): value for name, value in said.properties.items()},
            )
        )
        await trio.sleep(120)
        assert (await router.ask("hello")).executor == "alpha"


async def test_a_newcomer_sees_who_is_nearby_and_nothing_of_them(
    network: MemoryNetwork, autojump_clock: MockClock
) -> None:
    """Records of whatever namespace; whose it is only who knows it can tell."""
    air = Air()
    async with listening(network, air), open_nearby(air.lan("10.1.1.1/8")) as nearby:
        (found,) = await nearby.wait_for(lambda record: True, 5.0)
        assert found.peer_id == "alpha"
        assert found.is_of(LanKey.of_open(NAMESPACE))
        assert not found.joins
        assert NAMESPACE not in repr(attrs.asdict(found))
        assert await nearby.wait_for(lambda record: record.joins, 5.0) == ()


async def test_who_is_barred_is_told_nothing_though_it_knows_the_namespace(
    network: MemoryNetwork, autojump_clock: MockClock
) -> None:
    """A removed member knows the root for ever; its key is shown no registration."""
    from punch.discovery.lan._asking import Teller, ask

    key = LanKey.of_closed(b"r" * 32)
    node, removed = network.node("alpha"), network.node("removed")

    class Announced:
        altered = trio.Event()

        def __call__(self, *, as_dialer: bool = False) -> object:
            raise AssertionError("it was told")

    teller = Teller(
        node,
        key,
        Announced(),  # type: ignore[arg-type]  # as much of one as is used
        is_barred=lambda peer_id: peer_id == "removed",
    )
    node.handle(PROTOCOL, teller.serve)
    with pytest.raises(PeerUnreachable, match="ended the stream"):
        await ask(removed, key, node.peer_id, node.addresses, lambda join, registration: None)


# ---- a closed namespace of the same name ----


@asynccontextmanager
async def speaking(
    air: Air, *, closed_name: str | None, peer: str = "member", key: LanKey | None = None
) -> AsyncIterator[None]:
    """A member of a closed namespace on the LAN, as far as it is heard; `None`: of an open one."""
    host = "10.3.3.3"
    lan = air.lan(f"{host}/8")
    (interface,) = lan._interfaces()
    said = said_on(
        interface,
        [f"/ip4/{host}/tcp/1"],
        peer_id=PeerId(peer),
        instance=peer,
        key=key or LanKey.of_closed(b"r" * 32),
        salt=b"s" * 16,
        closed_name=closed_name,
    )
    async with lan._open({interface: said}):
        yield


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The namespaces that programs were warned of."""
    return [
        each.msg["namespace"]
        for each in caplog.records
        if isinstance(each.msg, dict) and "a closed namespace of this name" in each.msg["event"]
    ]


@pytest.mark.parametrize("comes", ["before", "after"])
async def test_a_program_in_the_open_namespace_hears_of_the_closed_one_of_that_name(
    network: MemoryNetwork,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
    comes: str,
) -> None:
    """Once, whoever comes first; and it says nothing of itself."""
    air = Air()
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            if comes == "after":
                nursery.start_soon(watch_for_closed, air.lan("10.1.1.1/8"), "home")
                await trio.sleep(5)
            async with speaking(air, closed_name="home"), speaking(air, closed_name="home"):
                assert len(air.said) == 2
                if comes == "before":
                    nursery.start_soon(watch_for_closed, air.lan("10.1.1.1/8"), "home")
                await trio.sleep(5)
        # The watch has ended by itself.
    assert warned(caplog) == ["home"]


async def test_nobody_is_warned_of_other_namespaces(
    network: MemoryNetwork, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Of another name, of an open one, and of a tag that was copied from another peer's record."""
    air = Air()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_for_closed, air.lan("10.1.1.1/8"), "home")
        async with (
            speaking(air, closed_name="Home"),
            speaking(air, closed_name="home2", peer="b"),
            speaking(air, closed_name=None, peer="c", key=LanKey.of_open("home")),
        ):
            await trio.sleep(5)
            tag = LanKey.of_name("home").tag("name", b"s" * 16, PeerId("somebody"))
            (first, *_) = air.said
            properties = {k.encode(): v for k, v in first.properties.items()}
            copied = {**properties, b"n": tag.hex().encode()}
            air.say(
                Heard(interface="", instance="x", hosts=("10.4.4.4",), port=1, properties=copied)
            )
            await trio.sleep(60)
        nursery.cancel_scope.cancel()
    assert warned(caplog) == []


async def test_a_lan_that_comes_later_is_listened_to(
    network: MemoryNetwork, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A laptop starts without a network, and is carried to one where the closed namespace is."""
    air, found = Air(), list[Interface]()
    later = air.lan("10.1.1.1/8")
    lan = Lan(open=later._open, interfaces=lambda: tuple(found))
    async with trio.open_nursery() as nursery, speaking(air, closed_name="home"):
        nursery.start_soon(watch_for_closed, lan, "home")
        await trio.sleep(100)
        assert warned(caplog) == []
        found.extend(later._interfaces())
        await trio.sleep(100)
        assert warned(caplog) == ["home"]


async def test_who_looks_for_members_of_an_open_namespace_is_warned_too(
    network: MemoryNetwork, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, though many members of the closed one are heard; the open ones are found as ever."""
    air = Air()
    async with (
        listening(network, air),
        speaking(air, closed_name=NAMESPACE),
        speaking(air, closed_name=NAMESPACE, peer="other"),
        dialing(network, air) as router,
    ):
        await router.wait_for_peers()
        await trio.sleep(60)
        assert [peer.peer_id for peer in router.peers] == ["alpha"]
    # The listener, which was there before, and the dialer.
    assert warned(caplog) == [NAMESPACE, NAMESPACE]


async def test_an_interface_that_was_named_and_is_not_there_is_named(
    network: MemoryNetwork, autojump_clock: MockClock
) -> None:
    """Not that this machine has no LAN."""
    air, node = Air(), network.node("alpha")
    lan = Lan(open=air.lan()._open, interfaces=tuple, names=frozenset({"wlan7", "eth9"}))
    async with open_listener(
        MockBackend(MockScript()), node=node, bootstrap=NOBODY, namespace=NAMESPACE, lan=lan
    ) as listener:
        await trio.sleep(30)
        assert listener.directory.warnings == (
            "LAN: no interface of this machine is called eth9 or wlan7 and is up",
        )
