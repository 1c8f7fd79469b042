"""A worker and its borrowers, honest and hostile, in virtual time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import pytest
import trio
from cluster.lending import GIB, FakeServer, open_bench
from trio.testing import MockClock

from punch.capability import PeerId
from punch.cluster import Borrower, Lease, LentDevice
from punch.cluster.leases import (
    MESSAGES_BURST,
    MIN_LEASE_SECONDS,
    PROTOCOL,
    Admitted,
    End,
    Leased,
    LeaseEnded,
    LeaseMessage,
    LeaseOpening,
    Look,
    Refused,
    Renewed,
    Survey,
    Surveyed,
    Take,
    decode_lease,
    encode_lease,
)
from punch.cluster.worker import _lending as lending
from punch.exceptions import PeerError, PeerFailed, PeerRefused, PeerTimeout, PeerUnreachable
from punch.llama_cpp import RpcVersion
from punch.network import Stream
from punch.testing import MemoryNetwork
from punch.tunnels import make_certificate
from punch.wire import FrameBuffer

OPENING = LeaseOpening(namespace="home", minor=1)


async def heard(stream: Stream) -> list[LeaseMessage]:
    """All that a worker says until it ends the stream."""
    buffer = FrameBuffer(1 << 20)
    while data := await stream.receive_some():
        buffer.feed(data)
    found = []
    while (body := buffer.next_body()) is not None:
        found.append(decode_lease(body))
    return found


async def test_a_survey_says_what_there_is(autojump_clock: MockClock) -> None:
    """And how far away it is, without a lease."""
    async with open_bench() as bench:
        borrower = bench.borrower("b1")
        facts = await borrower.survey(bench.node.peer_id, bench.addresses)
        assert facts.devices == bench.lender.said.devices
        assert (facts.memory, facts.bound, facts.build) == (12 * GIB, "limit", "b1")
        assert facts.rpc == RpcVersion(7, 0, 0)
        assert facts.carriers == {"direct"}
        assert not facts.is_leased
        assert facts.rtt == pytest.approx(0.002)
        # What is known for a second is not found out three times.
        assert bench.lender.surveys == 1
        async with bench.take(borrower):
            assert (await borrower.survey(bench.node.peer_id, bench.addresses)).is_leased


async def test_a_lease_has_a_server_of_its_own(autojump_clock: MockClock) -> None:
    """The next borrower gets another one, and the last one's is gone by then."""
    async with open_bench() as bench:
        one, two = bench.borrower("b1"), bench.borrower("b2")
        async with bench.take(one, memory=GIB, devices=("CUDA0",)) as lease:
            (server,) = bench.lender.running
            assert lease.endpoint == f"127.0.0.1:{server.port}"
            assert (lease.memory, lease.devices) == (GIB, ("CUDA0",))
            assert (server.tenancy.memory, server.tenancy.borrower) == (GIB, "b1")
        assert server.is_closed
        async with bench.take(two):
            (other,) = bench.lender.running
            assert other is not server
            assert other.tenancy.memory == 12 * GIB
        assert bench.ended == ["end", "end"]
        assert [near.is_closed for near in bench.tunnels.nears] == [True, True]


async def test_nobody_borrows_beside_another(autojump_clock: MockClock) -> None:
    """Whoever comes second is told so, and the first one loses nothing."""
    async with open_bench() as bench:
        one, two = bench.borrower("b1"), bench.borrower("b2")
        async with bench.take(one) as lease:
            with pytest.raises(PeerRefused, match="another borrower") as raised:
                async with bench.take(two):
                    pass
            assert (raised.value.rule, raised.value.peer_id) == ("leased", "worker")
            await trio.sleep(100)
            assert not lease.lost.is_set()
        assert len(bench.lender.servers) == 1


async def test_a_server_that_is_still_ended_is_waited_for(autojump_clock: MockClock) -> None:
    """A coordinator that starts anew at once gets its worker back."""
    async with open_bench() as bench:
        bench.lender.end_seconds = 5.0
        stream = await bench.stream("b1")
        await stream.send_all(encode_lease(OPENING))
        await stream.send_all(encode_lease(wish()))
        await trio.sleep(1)
        await stream.aclose()
        await trio.sleep(0.1)
        async with bench.take(bench.borrower("b2")):
            assert bench.lender.servers[0].is_closed
            bench.lender.end_seconds = 0.2
        assert bench.ended == ["lost", "end"]


def wish(**what: Any) -> Take:
    return attrs.evolve(Take(seconds=30.0, certificate=make_certificate().pem.encode()), **what)


async def test_a_lease_lasts_while_it_is_renewed(autojump_clock: MockClock) -> None:
    """And what its worker says of the server is asked for meanwhile."""
    async with open_bench() as bench:
        async with bench.take(bench.borrower("b1"), seconds=10.0) as lease:
            await trio.sleep(3600)
            assert not lease.lost.is_set()
            (server,) = bench.lender.running
            server.seconds = 1.5
            assert (await lease.look()).cpu_seconds == 1.5
            server.is_up = False
            assert not (await lease.look()).is_alive
            assert (await lease.measure()).rtt == 0.001
            assert lease.statistics().bytes_up == 1
        assert bench.ended == ["end"]


async def test_a_lease_that_nobody_renews_ends_at_its_time(autojump_clock: MockClock) -> None:
    """A borrower whose machine has vanished keeps nobody else away for longer."""
    async with open_bench() as bench:
        stream = await bench.stream("b1")
        await stream.send_all(encode_lease(OPENING))
        await stream.send_all(encode_lease(wish(seconds=20.0)))
        await trio.sleep(19)
        assert bench.lender.running
        await trio.sleep(2)
        assert not bench.lender.running
        assert bench.ended == ["time"]
        await trio.sleep(lending.IDLE_SECONDS + 1)
        said = await heard(stream)
        assert [type(each).__name__ for each in said] == ["Admitted", "Leased", "LeaseEnded"]
        assert isinstance(said[-1], LeaseEnded)
        assert said[-1].why == "time"


async def test_a_borrower_that_vanishes_loses_its_lease_at_once(
    autojump_clock: MockClock,
) -> None:
    """Where its stream ends the worker need not wait for the time."""
    async with open_bench() as bench:
        async with bench.take(bench.borrower("b1")) as lease:
            bench.network.cut()
            await lease.lost.wait()
            assert lease.why == "ended the conversation"
            await trio.sleep(0.3)
            assert not bench.lender.running
        assert bench.ended == ["lost"]


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.15, 5.0])
async def test_a_borrower_that_takes_and_goes_leaves_nothing(
    autojump_clock: MockClock, seconds: float
) -> None:
    """Before its server has started, while it starts, or afterwards."""
    async with open_bench() as bench:
        stream = await bench.stream("b1")
        await stream.send_all(encode_lease(OPENING))
        await stream.send_all(encode_lease(wish()))
        await trio.sleep(seconds)
        await stream.aclose()
        await trio.sleep(1)
        assert not bench.lender.running
        assert bench.lending.desk.state == "free"
        async with bench.take(bench.borrower("b2")):
            pass


async def test_a_server_that_ends_ends_its_lease(autojump_clock: MockClock) -> None:
    """The borrower hears it from the worker, and the next lease has another server."""
    async with open_bench() as bench:
        async with bench.take(bench.borrower("b1")) as lease:
            bench.lender.running[0].lost.set()
            await lease.lost.wait()
            assert lease.why == "the worker has ended the lease: the server has ended by itself"
            await trio.sleep(1)
        assert bench.ended == ["server"]
        async with bench.take(bench.borrower("b1")):
            assert len(bench.lender.servers) == 2


async def test_a_far_end_that_is_lost_ends_the_lease(autojump_clock: MockClock) -> None:
    """A worker whose carrier was killed does not keep a server that nobody reaches."""
    async with open_bench() as bench:
        async with bench.take(bench.borrower("b1")) as lease:
            bench.tunnels.fars[0].lost.set()
            await lease.lost.wait()
            await trio.sleep(1)
            assert not bench.lender.running
        assert bench.ended == ["tunnel"]


async def test_a_worker_says_why_before_the_tunnel_ends(autojump_clock: MockClock) -> None:
    """A lease is lost by what its worker says, and not by what follows from it."""
    async with open_bench() as bench, bench.take(bench.borrower("b1")) as lease:
        near = bench.tunnels.nears[0]
        near.why = "the other side has ended the lease"
        near.lost.set()
        await trio.sleep(0.1)
        bench.lender.running[0].lost.set()
        await lease.lost.wait()
        assert lease.why == "the worker has ended the lease: the server has ended by itself"


async def test_a_lease_that_is_lost_can_be_taken_anew_on_its_stream(
    autojump_clock: MockClock,
) -> None:
    """At once, while the last server is being ended: the new one is nobody else's to end."""
    async with open_bench() as bench:
        stream = await bench.stream("b1")
        await stream.send_all(encode_lease(OPENING))
        await stream.send_all(encode_lease(wish()))
        await trio.sleep(1)
        bench.lender.running[0].lost.set()
        await trio.sleep(0.1)
        await stream.send_all(encode_lease(wish()))
        await trio.sleep(0.2)
        await stream.send_all(encode_lease(wish()))
        await trio.sleep(1)
        await stream.send_all(encode_lease(Look()))
        await trio.sleep(0.1)
        assert bench.ended == ["server"]
        assert len(bench.lender.running) == 1
        await stream.aclose()
        names = [type(each).__name__ for each in await heard(stream)]
        assert names == ["Admitted", "Leased", "LeaseEnded", "Refused", "Leased", "Looked"]


async def test_a_tunnel_that_is_lost_loses_the_lease(autojump_clock: MockClock) -> None:
    """With what it says of itself."""
    async with open_bench() as bench, bench.take(bench.borrower("b1")) as lease:
        near = bench.tunnels.nears[0]
        near.why = "the other side said nothing for 3 s"
        near.lost.set()
        await lease.lost.wait()
        assert lease.why == "the tunnel is lost: the other side said nothing for 3 s"


async def test_a_worker_that_ends_ends_its_lease(autojump_clock: MockClock) -> None:
    """Its server is gone before the worker is, and no other lease is given."""
    async with open_bench() as bench:
        borrower = bench.borrower("b1")
        async with bench.take(borrower) as lease:
            await bench.lending.close()
            assert not bench.lender.running
            await lease.lost.wait()
            assert lease.why == "the worker has ended the lease: the worker ends"
        with pytest.raises(PeerRefused) as raised:
            async with bench.take(borrower):
                pass
        assert raised.value.rule == "closing"


@pytest.mark.parametrize(
    ("asked", "rule"),
    [
        ({"memory": 13 * GIB}, "memory"),
        ({"devices": ("Metal",)}, "device"),
    ],
)
async def test_what_is_not_lent_is_refused_by_its_rule(
    autojump_clock: MockClock, asked: dict[str, object], rule: str
) -> None:
    """And no server is started for it."""
    async with open_bench() as bench:
        with pytest.raises(PeerRefused) as raised:
            async with bench.take(bench.borrower("b1"), **asked):
                pass
        assert raised.value.rule == rule
        assert not bench.lender.servers


async def test_a_server_that_does_not_start_is_no_lease(autojump_clock: MockClock) -> None:
    """The borrower hears why, and the worker lends on."""
    async with open_bench() as bench:
        bench.lender.fault = "llama.cpp's rpc-server\nended with code 0"
        with pytest.raises(PeerRefused, match=r"rpc-server \| ended with code 0") as raised:
            async with bench.take(bench.borrower("b1")):
                pass
        assert raised.value.rule == "server"
        bench.lender.fault = None
        bench.lender.start_seconds = 1e6
        with pytest.raises(PeerRefused, match="within 30 s"):
            async with bench.take(bench.borrower("b1")):
                pass
        bench.lender.start_seconds = 0.1
        bench.tunnels.fault = "every port is taken"
        with pytest.raises(PeerRefused, match="every port is taken") as raised:
            async with bench.take(bench.borrower("b1")):
                pass
        assert raised.value.rule == "tunnel"
        bench.tunnels.fault = None
        async with bench.take(bench.borrower("b1")):
            pass


# ---- borrowers that are none ----


async def test_nobody_borrows_in_an_open_namespace_who_was_not_named(
    autojump_clock: MockClock,
) -> None:
    """A stranger learns that it is not lent to, and nothing of what is lent."""
    async with open_bench(lend_to=["b1"]) as bench:
        with pytest.raises(PeerRefused, match="--lend-to stranger") as raised:
            await bench.borrower("stranger").survey(bench.node.peer_id, bench.addresses)
        assert raised.value.rule == "not_lent"
        assert bench.lender.surveys == 0


async def test_a_peer_that_was_named_borrows_in_no_other_namespace(
    autojump_clock: MockClock,
) -> None:
    """The name is looked at as at every door."""
    async with open_bench() as bench:
        other = Borrower(bench.network.node("b1"), bench.tunnels, namespace="other")
        with pytest.raises(PeerRefused) as raised:
            await other.survey(bench.node.peer_id, bench.addresses)
        assert raised.value.rule == "wrong_namespace"


async def test_a_stranger_that_says_nothing_is_sent_away(autojump_clock: MockClock) -> None:
    """After some seconds; others are served meanwhile."""
    async with open_bench() as bench:
        stream = await bench.stream("b2")
        began = trio.current_time()
        await bench.borrower("b1").survey(bench.node.peer_id, bench.addresses)
        assert await heard(stream) == []
        assert trio.current_time() - began <= lending.OPENING_SECONDS + 1


async def test_streams_of_one_host_are_bounded(autojump_clock: MockClock) -> None:
    """At a time, and in a minute: the next one is told so and costs nothing."""
    async with open_bench() as bench:
        streams = [await bench.stream("b2") for _ in range(lending.MAX_AT_ONCE_OF_HOST)]
        said = await heard(await bench.stream("b2"))
        assert [each.rule for each in said if isinstance(each, Refused)] == ["too_many"]
        for stream in streams:
            await stream.aclose()
        await bench.borrower("b1").survey(bench.node.peer_id, bench.addresses)
        for _ in range(lending.MAX_OF_HOST):
            await (await bench.stream("b2")).aclose()
            await trio.sleep(0.01)
        said = await heard(await bench.stream("b2"))
        assert [each.rule for each in said if isinstance(each, Refused)] == ["too_many"]
        await trio.sleep(61)
        await bench.borrower("b2").survey(bench.node.peer_id, bench.addresses)


async def test_a_borrower_that_floods_loses_its_lease(autojump_clock: MockClock) -> None:
    """It is told why; the others are not."""
    async with open_bench() as bench:
        stream = await bench.stream("b1")
        await stream.send_all(encode_lease(OPENING))
        await stream.send_all(encode_lease(wish()))
        await trio.sleep(1)
        await stream.send_all(encode_lease(Look()) * (int(MESSAGES_BURST) + 9))
        said = await heard(stream)
        assert isinstance(said[-1], Refused)
        assert said[-1].rule == "protocol"
        assert "messages" in said[-1].reason
        await trio.sleep(1)
        assert bench.ended == ["protocol"]
        async with bench.take(bench.borrower("b2")):
            pass


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00\x00\x00\x05hello",
        b"\xff\xff\xff\xff",
        encode_lease(Survey()),
        encode_lease(OPENING) + encode_lease(OPENING),
        encode_lease(OPENING) + encode_lease(Admitted()),
        encode_lease(OPENING) + b"\x7f\xff\xff\xff",
    ],
)
async def test_what_is_no_conversation_ends_its_stream_alone(
    autojump_clock: MockClock, data: bytes
) -> None:
    """And is answered with a sentence."""
    async with open_bench() as bench, bench.take(bench.borrower("b2")) as lease:
        stream = await bench.stream("b1")
        await stream.send_all(data)
        said = await heard(stream)
        assert isinstance(said[-1], Refused)
        assert said[-1].rule == "protocol"
        await trio.sleep(60)
        assert not lease.lost.is_set()


async def test_a_certificate_of_another_lease_is_refused(autojump_clock: MockClock) -> None:
    """Also by the borrower that had it; and what is no certificate is none."""
    async with open_bench() as bench:
        for take, rule in (
            (wish(certificate=b"nonsense"), "certificate"),
            (wish(), None),
        ):
            stream = await bench.stream("b1")
            await stream.send_all(encode_lease(OPENING))
            await stream.send_all(encode_lease(take))
            await trio.sleep(1)
            await stream.aclose()
            said = await heard(stream)
            assert [each.rule for each in said if isinstance(each, Refused)] == (
                [rule] if rule else []
            )
            await trio.sleep(1)
        stream = await bench.stream("b2")
        await stream.send_all(encode_lease(OPENING))
        await stream.send_all(encode_lease(take))
        await trio.sleep(1)
        await stream.aclose()
        (refused,) = [each for each in await heard(stream) if isinstance(each, Refused)]
        assert refused.rule == "certificate"


# ---- workers that are none ----


Says = Callable[[Stream, LeaseMessage], Awaitable[None]]


async def lend_badly(network: MemoryNetwork, says: Says) -> tuple[PeerId, tuple[str, ...]]:
    """A worker that answers each message as *says* does."""
    node = network.node("liar")

    async def serve(stream: Stream) -> None:
        buffer = FrameBuffer(1 << 20)
        while data := await stream.receive_some():
            buffer.feed(data)
            while (body := buffer.next_body()) is not None:
                await says(stream, decode_lease(body))

    node.handle(PROTOCOL, serve)
    return node.peer_id, node.addresses


DEVICE = LentDevice(name="CPU", total=8 * GIB, free=4 * GIB)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (Surveyed(devices=()), "lends no device"),
        (Surveyed(devices=(DEVICE, DEVICE)), "two devices of one name"),
        (Surveyed(devices=(attrs.evolve(DEVICE, free=9 * GIB),)), "bytes are free of CPU"),
        (Surveyed(devices=(DEVICE,), memory=9 * GIB), "may be borrowed of"),
        (Surveyed(devices=(attrs.evolve(DEVICE, bandwidth=1e18),)), "bytes of weights a second"),
        (Surveyed(devices=(attrs.evolve(DEVICE, bandwidth=5e-324),)), "bytes of weights a second"),
        (Surveyed(devices=(attrs.evolve(DEVICE, compute=1e18),)), "multiply-adds a second"),
        (Renewed(seconds=1.0), "answers survey with renewed"),
        (Refused(rule="server", reason="no\nprogram \x1b[2J"), "says what is no lease"),
    ],
)
async def test_a_worker_that_lies_is_told_of_by_name(
    autojump_clock: MockClock, said: LeaseMessage, why: str
) -> None:
    """What cannot be true is not believed."""
    async with open_bench() as bench:

        async def says(stream: Stream, message: LeaseMessage) -> None:
            answer = Admitted() if isinstance(message, LeaseOpening) else said
            await stream.send_all(encode_lease(answer))

        liar = await lend_badly(bench.network, says)
        with pytest.raises(PeerError) as raised:
            await bench.borrower("b1").survey(*liar)
        assert raised.value.peer_id == "liar"
        assert why in raised.value.message
        assert raised.value.message.isprintable()


@pytest.mark.parametrize("until", [LeaseOpening, Survey])
async def test_a_worker_that_hangs_is_told_of_by_name(
    autojump_clock: MockClock, until: type[LeaseMessage]
) -> None:
    """Within a bounded time, wherever it hangs."""
    async with open_bench() as bench:

        async def says(stream: Stream, message: LeaseMessage) -> None:
            if not isinstance(message, until):
                await stream.send_all(encode_lease(Admitted()))

        liar = await lend_badly(bench.network, says)
        began = trio.current_time()
        with pytest.raises(PeerTimeout) as raised:
            await bench.borrower("b1").survey(*liar)
        assert raised.value.peer_id == "liar"
        assert trio.current_time() - began <= 16


@pytest.mark.parametrize(
    "data", [b"\x00\x00\x00\x05hello", b"\x7f\xff\xff\xff", b"HTTP/1.1 400 Bad Request\r\n"]
)
async def test_a_worker_that_answers_garbage_is_told_of_by_name(
    autojump_clock: MockClock, data: bytes
) -> None:
    """At once."""
    async with open_bench() as bench:

        async def says(stream: Stream, message: LeaseMessage) -> None:
            await stream.send_all(data)

        liar = await lend_badly(bench.network, says)
        with pytest.raises(PeerFailed, match="says what is no lease") as raised:
            await bench.borrower("b1").survey(*liar)
        assert raised.value.peer_id == "liar"


async def test_a_worker_that_takes_and_never_replies_is_told_of_by_name(
    autojump_clock: MockClock,
) -> None:
    """It says nothing to a wish; a worker that is well starts a server meanwhile."""
    async with open_bench() as bench:

        async def says(stream: Stream, message: LeaseMessage) -> None:
            if isinstance(message, LeaseOpening):
                await stream.send_all(encode_lease(Admitted()))

        peer_id, addresses = await lend_badly(bench.network, says)
        began = trio.current_time()
        with pytest.raises(PeerTimeout, match="has not answered take") as raised:
            async with bench.borrower("b1").take(peer_id, addresses):
                pass
        assert raised.value.peer_id == "liar"
        assert trio.current_time() - began <= 40


@pytest.mark.parametrize("seconds", [1e-9, 0.5, 1e17])
async def test_a_worker_has_its_borrower_renew_neither_always_nor_never(
    autojump_clock: MockClock, seconds: float
) -> None:
    """Whatever it says of how long the lease lasts."""
    async with open_bench() as bench:
        renewals: list[float] = []
        leases: list[str] = []

        async def says(stream: Stream, message: LeaseMessage) -> None:
            answer: LeaseMessage = Renewed(seconds=seconds)
            if isinstance(message, LeaseOpening):
                answer = Admitted()
            elif isinstance(message, Take):
                leases.append("far")
                bench.tunnels.open["far"] = message.certificate, 21000
                answer = Leased(lease="far", seconds=seconds, devices=("CPU",), certificate=b"far")
            elif isinstance(message, End):
                bench.tunnels.open.clear()
                answer = LeaseEnded()
            else:
                renewals.append(trio.current_time())
            await stream.send_all(encode_lease(answer))

        liar = await lend_badly(bench.network, says)
        async with bench.borrower("b1").take(*liar) as lease:
            await trio.sleep(3600)
            assert not lease.lost.is_set()
        assert 1 <= len(renewals) <= 3600 / (MIN_LEASE_SECONDS / 3)


async def test_a_worker_that_says_its_end_for_ever_is_heard_a_few_times(
    autojump_clock: MockClock,
) -> None:
    """And no longer: its stream is ended."""
    async with open_bench() as bench:

        async def says(stream: Stream, message: LeaseMessage) -> None:
            await stream.send_all(encode_lease(Admitted()) + encode_lease(LeaseEnded()) * 100)

        liar = await lend_badly(bench.network, says)
        with pytest.raises(PeerFailed, match="nobody has asked for"):
            async with bench.borrower("b1").take(*liar):
                pass


async def test_a_worker_that_renews_no_more_loses_its_borrower(
    autojump_clock: MockClock,
) -> None:
    """A worker that is stopped while a lease lasts is noticed by the next renewal at the latest."""
    async with open_bench() as bench, bench.take(bench.borrower("b1"), seconds=9.0) as lease:
        began = trio.current_time()
        bench.network.stall(bench.node.peer_id)
        await lease.lost.wait()
        assert lease.why == "has not answered renew for 5 s"
        assert trio.current_time() - began <= 9
        with pytest.raises(PeerTimeout):
            await lease.look()
        bench.network.resume(bench.node.peer_id)


async def test_a_worker_that_does_not_look_is_told_of_within_two_seconds(
    autojump_clock: MockClock,
) -> None:
    """So a coordinator does not wait long to know whether a reply will come."""
    async with open_bench() as bench, bench.take(bench.borrower("b1")) as lease:
        bench.network.stall(bench.node.peer_id)
        with trio.fail_after(2.1), pytest.raises(PeerTimeout, match="has not answered look"):
            await lease.look()
        bench.network.resume(bench.node.peer_id)


async def test_a_worker_that_cannot_be_reached_is_told_of_by_name(
    autojump_clock: MockClock,
) -> None:
    """As with any peer; and one that knows no leases."""
    async with open_bench() as bench:
        other = bench.network.node("other")
        with pytest.raises(PeerUnreachable, match="does not speak") as raised:
            await bench.borrower("b1").survey(other.peer_id, other.addresses)
        assert raised.value.peer_id == "other"


async def test_a_borrower_whose_body_fails_ends_its_lease(autojump_clock: MockClock) -> None:
    """What it raises comes out bare."""
    async with open_bench() as bench:
        held: list[Lease] = []
        with pytest.raises(ZeroDivisionError):
            async with bench.take(bench.borrower("b1")) as lease:
                held.append(lease)
                raise ZeroDivisionError
        assert bench.ended == ["end"]
        assert not held[0].lost.is_set()


def test_a_fake_server_is_one() -> None:
    """The interface of the real one and of these tests'."""
    assert {"port", "lost", "cpu_seconds", "is_running"} <= set(dir(FakeServer))
