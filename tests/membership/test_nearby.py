"""Joining without a code, over a network in memory: what both screens show, and what strangers do.

In real time, as the tests of codes: files are read in threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import trio
from membership.test_joining import Admin, join, newcomer, open_admin

from punch.exceptions import (
    ConfigurationError,
    NotPermitted,
    PeerUnreachable,
    RemoteProtocolError,
)
from punch.libp2p import load_key
from punch.membership import (
    Asked,
    Home,
    Joined,
    NearbyRequest,
    approve_request,
    ask_members,
    find_request,
    keep_joined,
    read_members,
    read_requests,
    refuse_request,
)
from punch.membership._messages import PROTOCOL, Opening, Outcome, Proof, Reply, Talk
from punch.membership.nearby import _reception as reception
from punch.membership.nearby import commitment_to, digits_of
from punch.membership.nearby._requests import (
    MAX_REQUESTS,
    MAX_REQUESTS_OF_HOST,
    REQUEST_SECONDS,
    add_request,
)
from punch.network import Stream, parse_address


def waiting(home: Home) -> tuple[NearbyRequest, ...]:
    found = read_requests(home, now=time.time())
    return tuple(each for each in found if each.state == "waiting")


def are_waiting(home: Home, count: int) -> bool:
    return len(waiting(home)) == count


async def until(check: Callable[[], object]) -> None:
    with trio.fail_after(10):
        while not check():
            await trio.sleep(0.02)


def add(home: Home, name: str = "laptop", digits: str = "123456", host: str = "h") -> bool:
    key = load_key(home.folder.path.parent / f"{digits}.key").peer_id
    now = time.time()
    return add_request(home, machine=key, name=name, digits=digits, host=host, now=now) is not None


async def ask(admin: Admin, at: str, shown: list[Asked], *, called: str = "laptop") -> Joined:
    with newcomer(admin) as (node, _):
        return await ask_members(
            node, called=called, now=time.time, at=[[parse_address(at)]], asked=shown.append
        )


async def test_both_screens_show_the_same_digits_and_who_is_approved_is_a_member(
    tmp_path: Path,
) -> None:
    """With what was approved; nothing is left of the request but that it was granted."""
    async with open_admin(tmp_path) as admin:
        shown: list[Asked] = []
        with newcomer(admin) as (node, folder):
            came: list[Joined] = []

            async def asks() -> None:
                at = [[parse_address(admin.at)]]

                async def confirm(joined: Joined, asked: Asked) -> bool:
                    return asked.digits == shown[0].digits and joined.by == asked.member

                came.append(
                    await ask_members(
                        node,
                        called="laptop",
                        now=time.time,
                        at=at,
                        port=1,
                        asked=shown.append,
                        confirm=confirm,
                    )
                )

            async with trio.open_nursery() as nursery:
                nursery.start_soon(asks)
                await until(lambda: waiting(admin.home))
                (request,) = waiting(admin.home)
                assert (request.name, request.digits) == ("laptop", shown[0].digits)
                assert request.machine == node.peer_id
                approve_request(
                    admin.home, request, now=time.time(), scopes=frozenset({"dial"}), name="kitchen"
                )
            home = keep_joined(came[0], folder, now=time.time())
        assert (home.namespace, home.name) == (admin.home.namespace, "kitchen")
        assert home.grant.scopes == {"dial"}
        assert came[0].reached == node.addresses[0]
        assert read_members(admin.home.folder)[home.machine].name == "kitchen"
        await until(lambda: [r.state for r in read_requests(admin.home, now=time.time())])
        assert waiting(admin.home) == ()


async def test_a_machine_that_is_refused_or_forgotten_hears_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is no member."""
    async with open_admin(tmp_path) as admin:
        heard: list[str | None] = []

        async def asks() -> None:
            with pytest.raises(NotPermitted) as raised:
                await ask(admin, admin.at, [])
            heard.append(raised.value.rule)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(asks)
            await until(lambda: waiting(admin.home))
            refuse_request(admin.home, waiting(admin.home)[0], now=time.time())
        monkeypatch.setattr(reception, "REQUEST_SECONDS", 0.1)
        await asks()
        assert heard == ["refused", "not_approved"]
        await until(lambda: not read_requests(admin.home, now=time.time()))
        assert len(read_members(admin.home.folder)) == 1


async def test_who_stands_in_between_makes_the_screens_differ(tmp_path: Path) -> None:
    """It passes on what it can: it has another identity on each side."""
    async with open_admin(tmp_path) as admin:
        between = admin.network.node(load_key(tmp_path / "between.key").peer_id)
        seen: list[bytes] = []

        async def pass_on(stream: Stream) -> None:
            """Take the newcomer's words, and say the same in its own name, as far as it can."""
            near, onward = Talk(stream), None
            opening = await near.receive(Opening, seconds=5)
            own = b"x" * 32
            onward = await between.open_stream(admin.node.peer_id, (admin.at,), PROTOCOL)
            far = Talk(onward)
            mine = commitment_to(
                own, newcomer=between.peer_id, member=admin.node.peer_id, name=opening.name
            )
            await far.send(Opening(do="nearby", name=opening.name, proof=mine))
            reply = await far.receive(Reply, seconds=5)
            await near.send(reply)
            await near.receive(Proof, seconds=5)
            await far.send(Proof(confirmation=own))
            with trio.move_on_after(5):
                seen.append(await onward.receive_some())

        between.handle(PROTOCOL, pass_on)
        shown: list[Asked] = []
        async with trio.open_nursery() as nursery:

            async def asks() -> None:
                with pytest.raises((NotPermitted, PeerUnreachable)):
                    await ask(admin, between.addresses[0], shown)

            nursery.start_soon(asks)
            await until(lambda: waiting(admin.home) and shown)
            (request,) = waiting(admin.home)
            assert request.digits != shown[0].digits
            with pytest.raises(ConfigurationError, match="somebody else is asking"):
                find_request(admin.home, shown[0].digits, now=time.time())
            refuse_request(admin.home, request, now=time.time())
        assert b"home" not in b"".join(seen)
        assert len(read_members(admin.home.folder)) == 1


async def talks(admin: Admin, key: str, commitment: bytes, name: str) -> tuple[Talk, Stream]:
    node = admin.network.node(load_key(admin.folder / key).peer_id)
    stream = await node.open_stream(admin.node.peer_id, (admin.at,), PROTOCOL)
    talk = Talk(stream)
    await talk.send(Opening(do="nearby", name=name, proof=commitment))
    return talk, stream


async def test_a_number_other_than_the_committed_one_ends_the_request(tmp_path: Path) -> None:
    """Chosen after the member's, or replayed of another machine's conversation."""
    async with open_admin(tmp_path) as admin:
        victim = load_key(tmp_path / "victim.key").peer_id
        nonce = b"n" * 32
        theirs = commitment_to(nonce, newcomer=victim, member=admin.node.peer_id, name="laptop")
        for key, word in (("victim.key", b"m" * 32), ("other.key", nonce), ("victim.key", b"")):
            talk, stream = await talks(admin, key, theirs, "laptop")
            await talk.receive(Reply, seconds=5)
            await talk.send(Proof(confirmation=word))
            with pytest.raises((PeerUnreachable, RemoteProtocolError)):
                await talk.receive(Outcome, seconds=5)
            await stream.aclose()
        assert read_requests(admin.home, now=time.time()) == ()


async def test_a_replayed_conversation_shows_other_digits(tmp_path: Path) -> None:
    """The member draws its own number each time, and tells it after the commitment only."""
    async with open_admin(tmp_path) as admin:
        me = load_key(tmp_path / "me.key").peer_id
        member, nonce = admin.node.peer_id, b"n" * 32
        mine = commitment_to(nonce, newcomer=me, member=member, name="laptop")
        replies = []
        for count in (1, 2):
            talk, stream = await talks(admin, "me.key", mine, "laptop")
            replies.append((await talk.receive(Reply, seconds=5)).proof)
            await talk.send(Proof(confirmation=nonce))
            await until(partial(are_waiting, admin.home, count))
            del stream
        assert replies[0] != replies[1]
        expected = {
            digits_of((nonce, reply), newcomer=me, member=member, name="laptop")
            for reply in replies
        }
        assert {each.digits for each in waiting(admin.home)} == expected


async def test_a_stranger_hears_a_random_number_and_nothing_else(tmp_path: Path) -> None:
    """No name, no root, no chain, until a person has approved."""
    async with open_admin(tmp_path) as admin:
        me = load_key(tmp_path / "me.key").peer_id
        mine = commitment_to(b"n" * 32, newcomer=me, member=admin.node.peer_id, name="x")
        talk, stream = await talks(admin, "me.key", mine, "x")
        reply = await talk.receive(Reply, seconds=5)
        assert reply == Reply(proof=reply.proof)
        await talk.send(Proof(confirmation=b"n" * 32))
        await until(lambda: waiting(admin.home))
        refuse_request(admin.home, waiting(admin.home)[0], now=time.time())
        assert await talk.receive(Outcome, seconds=5) == reception.REFUSED
        await stream.aclose()


async def test_who_goes_away_or_speaks_out_of_turn_asks_no_more(tmp_path: Path) -> None:
    """At once: nobody approves what is not there."""
    async with open_admin(tmp_path) as admin:
        me = load_key(tmp_path / "me.key").peer_id
        mine = commitment_to(b"n" * 32, newcomer=me, member=admin.node.peer_id, name="x")
        for speaks in (True, False):
            talk, stream = await talks(admin, "me.key", mine, "x")
            await talk.receive(Reply, seconds=5)
            await talk.send(Proof(confirmation=b"n" * 32))
            await until(lambda: waiting(admin.home))
            (request,) = waiting(admin.home)
            if speaks:
                await talk.send(Proof(confirmation=b"n" * 32))
            else:
                await stream.aclose()
            await until(lambda: not waiting(admin.home))
            with pytest.raises(ConfigurationError, match="ask anew"):
                approve_request(admin.home, request, now=time.time())


async def test_a_flood_is_bounded_by_host_and_keeps_no_code_from_working(tmp_path: Path) -> None:
    """The flooder hears that there are too many; whoever has a code is let in meanwhile."""
    async with open_admin(tmp_path) as admin:
        me = load_key(tmp_path / "me.key").peer_id
        mine = commitment_to(b"n" * 32, newcomer=me, member=admin.node.peer_id, name="x")
        heard = []
        for count in range(1, MAX_REQUESTS_OF_HOST + 2):
            talk, _ = await talks(admin, "me.key", mine, "x")
            await talk.receive(Reply, seconds=5)
            await talk.send(Proof(confirmation=b"n" * 32))
            if count > MAX_REQUESTS_OF_HOST:
                heard.append((await talk.receive(Outcome, seconds=5)).refused)
            else:
                await until(partial(are_waiting, admin.home, count))
        assert heard == ["busy"]
        code = admin.invite()
        assert (await join(admin, code)).name == "laptop"


async def test_requests_are_bounded_in_all_and_end_by_themselves(tmp_path: Path) -> None:
    """Also those of a program that was killed."""
    async with open_admin(tmp_path) as admin:
        digits = [f"{100000 + number}" for number in range(MAX_REQUESTS + 1)]
        taken = [add(admin.home, digits=each, host=each) for each in digits]
        assert taken == [True] * MAX_REQUESTS + [False]
        later = time.time() + REQUEST_SECONDS + 1
        assert read_requests(admin.home, now=later) == ()
        (admin.home.folder / "nearby.json").write_bytes(b"{damaged")
        assert read_requests(admin.home, now=time.time()) == ()
        assert add(admin.home)


async def test_of_two_with_one_name_the_digits_say_which(tmp_path: Path) -> None:
    """And a machine that calls itself like another's digits is never meant by them."""
    async with open_admin(tmp_path) as admin:
        add(admin.home, "laptop", "111222")
        add(admin.home, "laptop", "333444")
        add(admin.home, "555666", "777888")
        find = partial(find_request, admin.home, now=time.time())
        with pytest.raises(ConfigurationError, match="111 222 from h, 333 444 from h"):
            find("laptop")
        assert find("333-444").digits == find("333 444").digits == find("333444").digits == "333444"
        for wrong in ("555666", "555 666", "kitchen", ""):
            with pytest.raises(ConfigurationError, match="no machine that asks"):
                find(wrong)
        assert find("777888").name == "555666"
        wrong_one = find("111222")
        approve_request(admin.home, wrong_one, now=time.time())
        # The other one still waits, and nobody is approved twice.
        assert find("laptop").digits == "333444"
        with pytest.raises(ConfigurationError, match="ask anew"):
            approve_request(admin.home, wrong_one, now=time.time())


async def test_only_what_this_machine_has_can_be_approved(tmp_path: Path) -> None:
    """As with invites."""
    async with open_admin(tmp_path) as admin:
        add(admin.home)
        (request,) = waiting(admin.home)
        with pytest.raises(NotPermitted, match="has not the scopes fly"):
            approve_request(admin.home, request, now=time.time(), scopes=frozenset({"fly"}))
        assert waiting(admin.home) == (request,)


@pytest.mark.parametrize("name", ["", "a\x1b[2J", "x" * 65])
async def test_a_name_that_cannot_be_shown_is_refused(name: str, tmp_path: Path) -> None:
    """The digits depend on the very name that people see."""
    async with open_admin(tmp_path) as admin:
        talk, stream = await talks(admin, "me.key", b"c" * 32, name)
        assert (await talk.receive(Outcome, seconds=5)).refused == "malformed"
        await stream.aclose()
        assert waiting(admin.home) == ()
