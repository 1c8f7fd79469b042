"""Lending in a closed namespace: both sides are judged, and whoever is removed loses at once."""

from __future__ import annotations

import time

import pytest
import trio
from cluster.lending import open_bench
from made_up_members import DAY, MadeUpMember, MadeUpNamespace
from trio.testing import MockClock

from punch.cluster.leases import Admitted, LeaseOpening, Refused, decode_lease, encode_lease
from punch.cluster.worker import _lending as lending
from punch.exceptions import PeerRefused
from punch.network import Stream
from punch.wire import FrameBuffer

HOME = MadeUpNamespace("home")
DESK = HOME.admin("desk")
WORKER = HOME.machine("worker", by=DESK, scopes={"dial", "lend"})
BORROWER = HOME.machine("b1", by=DESK, scopes={"dial", "borrow"})


async def test_members_borrow_by_scope(autojump_clock: MockClock) -> None:
    """Whoever may, without being named; and not whoever may only dial."""
    async with open_bench(lend_to=(), membership=WORKER.membership()) as bench:
        async with bench.take(bench.borrower("b1", BORROWER.membership())) as lease:
            assert lease.worker == "worker"
        poor = HOME.machine("b2", by=DESK)
        with pytest.raises(PeerRefused, match="this needs borrow") as raised:
            async with bench.take(bench.borrower("b2", poor.membership())):
                pass
        assert raised.value.rule == "scope"


async def test_a_stranger_learns_nothing(autojump_clock: MockClock) -> None:
    """Neither who knows the name, nor who shows the grant of another, nor one of another root."""
    async with open_bench(lend_to=(), membership=WORKER.membership()) as bench:
        other = MadeUpNamespace("home", root="other-root")
        lone = other.admin("b1")
        with pytest.raises(PeerRefused) as raised:
            await bench.borrower("b1").survey(bench.node.peer_id, bench.addresses)
        assert raised.value.rule == "no_grant"
        with pytest.raises(PeerRefused) as raised:
            await bench.borrower("b1", lone.membership()).survey(
                bench.node.peer_id, bench.addresses
            )
        assert raised.value.rule == "no_grant"
        with pytest.raises(PeerRefused) as raised:
            await bench.borrower("thief", BORROWER.membership()).survey(
                bench.node.peer_id, bench.addresses
            )
        assert raised.value.rule == "wrong_key"
        assert bench.lender.surveys == 0


async def test_a_worker_needs_its_scope_too(autojump_clock: MockClock) -> None:
    """What a member offers that may not lend is not taken, whatever it says."""
    poor = HOME.machine("worker", by=DESK, number=2)
    async with open_bench(lend_to=(), membership=poor.membership()) as bench:
        borrower = bench.borrower("b1", BORROWER.membership())
        with pytest.raises(PeerRefused, match="may not lend") as raised:
            await borrower.survey(bench.node.peer_id, bench.addresses)
        assert (raised.value.rule, raised.value.peer_id) == ("scope", "worker")


async def test_whoever_is_named_borrows_alone(autojump_clock: MockClock) -> None:
    """By the key of the process or of its machine, in a closed namespace as in an open one."""
    process = HOME.process("p1", on=BORROWER, ends=int(time.time()) + DAY // 2)
    async with open_bench(lend_to=["b1"], membership=WORKER.membership()) as bench:
        async with bench.take(bench.borrower("p1", process.membership())):
            pass
        rich = HOME.machine("b2", by=DESK, scopes={"borrow"})
        with pytest.raises(PeerRefused) as raised:
            async with bench.take(bench.borrower("b2", rich.membership())):
                pass
        assert raised.value.rule == "not_lent"


@pytest.mark.parametrize("who", [BORROWER, WORKER], ids=["borrower", "worker"])
async def test_a_removed_member_loses_its_lease_within_two_seconds(
    autojump_clock: MockClock, who: MadeUpMember
) -> None:
    """Whichever side is removed, and whichever side hears of it."""
    for hears in ("worker", "borrower"):
        ours, theirs = WORKER.membership(), BORROWER.membership()
        async with open_bench(lend_to=(), membership=ours) as bench:
            async with bench.take(bench.borrower("b1", theirs)) as lease:
                removal = HOME.remove(who, by=DESK)
                if (hears == "worker") == (who is BORROWER):
                    (ours if hears == "worker" else theirs).add_revocations([removal])
                    with trio.fail_after(2.0):
                        await lease.lost.wait()
                        while bench.lender.running and who is BORROWER:
                            await trio.sleep(0.1)
                    assert lease.why is not None
                    assert "removed from the namespace" in lease.why
                    if who is BORROWER:
                        assert bench.ended == ["removed"]
            assert not bench.lender.running
            if hears == "worker" and who is BORROWER:
                with pytest.raises(PeerRefused) as raised:
                    await bench.borrower("b1", theirs).survey(bench.node.peer_id, bench.addresses)
                assert raised.value.rule == "revoked"


async def test_a_borrower_whose_grant_ends_is_sent_away(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless it shows a newer one with a renewal."""
    short = HOME.process("p1", on=BORROWER, ends=int(time.time()) + 3600)
    ours, theirs = WORKER.membership(), short.membership()
    async with open_bench(lend_to=(), membership=ours) as bench:
        wall = time.time()
        bench.lending._wall = lambda: wall + trio.current_time()
        borrower = bench.borrower("p1", theirs)
        async with bench.take(borrower) as lease:
            await trio.sleep(3500)
            newer = HOME.process("p1", on=BORROWER, ends=int(wall) + 7200, number=2)
            theirs.renew(newer.encoded)
            await trio.sleep(3500)
            assert not lease.lost.is_set()
            await trio.sleep(600)
            assert lease.lost.is_set()
            assert lease.why is not None
            assert "ended" in lease.why


async def test_a_worker_shows_its_chain_to_nobody_that_it_has_not_let_in(
    autojump_clock: MockClock,
) -> None:
    """A stranger's opening is answered with the rule alone."""
    async with open_bench(lend_to=(), membership=WORKER.membership()) as bench:
        stream: Stream = await bench.stream("stranger")
        await stream.send_all(encode_lease(LeaseOpening(namespace="home")))
        buffer = FrameBuffer(1 << 16)
        while data := await stream.receive_some():
            buffer.feed(data)
        body = buffer.next_body()
        assert body is not None
        said = decode_lease(body)
        assert isinstance(said, Refused)
        assert not isinstance(said, Admitted)
        assert buffer.next_body() is None
    assert lending.OPENING_SECONDS < 60
