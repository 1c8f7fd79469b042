"""Joining with a code, over a network in memory: what each side gets, and what a stranger does.

In real time: an exchange is computed in a thread, and virtual time would run on meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from punch.access import Member, remove
from punch.exceptions import ConfigurationError, NotPermitted, PeerUnreachable
from punch.libp2p import load_key
from punch.membership import (
    Code,
    DiskMembership,
    Door,
    Home,
    Joined,
    LongCode,
    ShortCode,
    create_home,
    homes,
    join_with,
    keep_joined,
    make_invite,
    parse_code,
    read_invites,
    read_members,
)
from punch.membership._folder import Folder, new_folder
from punch.membership._home import MACHINE_KEY
from punch.membership._invites import changed_invites
from punch.membership._messages import PROTOCOL, Opening, Outcome, Proof, Reply, Talk
from punch.membership._tries import MAX_TRIES_OF_HOST
from punch.membership.codes import Exchange, is_same
from punch.network import Stream, parse_address
from punch.testing import MemoryNetwork, MemoryNode


@attrs.define
class Admin:
    """The machine that lets others in, with a process that serves."""

    home: Home
    membership: DiskMembership
    node: MemoryNode
    door: Door
    network: MemoryNetwork
    folder: Path

    @property
    def at(self) -> str:
        return self.node.addresses[0]

    def invite(self, **words: Any) -> Code:
        where = [parse_address(self.at)]
        code, _ = make_invite(self.home, now=time.time(), addresses=where, **words)
        return code


@asynccontextmanager
async def open_admin(path: Path) -> AsyncIterator[Admin]:
    async with trio.open_nursery() as nursery:
        home = create_home("home", called="attic", now=time.time(), parent=path / "admin")
        membership = DiskMembership(home, path / "admin.key")
        network = MemoryNetwork(nursery)
        node = network.node(membership.process)
        door = Door(membership, node)
        node.handle(PROTOCOL, door.serve)
        yield Admin(home, membership, node, door, network, path)
        nursery.cancel_scope.cancel()


@contextmanager
def newcomer(admin: Admin) -> Iterator[tuple[MemoryNode, Folder]]:
    with new_folder(admin.folder / "new") as folder:
        yield admin.network.node(load_key(folder / MACHINE_KEY).peer_id), folder


async def join(admin: Admin, code: Code, *, called: str = "laptop", port: int = 0) -> Joined:
    at = () if isinstance(code, LongCode) else [parse_address(admin.at)]
    with newcomer(admin) as (node, _):
        return await join_with(node, code, called=called, now=time.time(), at=at, port=port)


async def rule(admin: Admin, code: Code) -> str | None:
    """Which rule forbids to join with *code*."""
    with pytest.raises(NotPermitted) as raised:
        await join(admin, code)
    return raised.value.rule


@pytest.mark.parametrize("short", [True, False])
async def test_a_code_makes_a_member(short: bool, tmp_path: Path) -> None:
    """With what the invite says, as both sides see it, and everything that it needs on disk."""
    async with open_admin(tmp_path) as admin:
        code = admin.invite(short=short, scopes=frozenset({"dial"}))
        with newcomer(admin) as (node, folder):
            at = [parse_address(admin.at)] if short else []
            joined = await join_with(
                node, parse_code(code.text()), called="laptop", now=time.time(), at=at, port=1
            )
            assert homes(admin.folder / "new") == ()
            home = keep_joined(joined, folder, now=time.time())
        assert homes(admin.folder / "new") == (home,)
        assert (home.namespace, home.name) == (admin.home.namespace, "laptop")
        assert home.grant.scopes == {"dial"}
        assert not home.is_admin
        assert joined.reached == node.addresses[0]
        known = read_members(admin.home.folder)
        assert known[home.machine].name == "laptop"
        assert {each.name for each in read_members(home.folder).values()} == {"attic", "laptop"}
        one = DiskMembership(home, tmp_path / "laptop.key")
        found = admin.membership.lock.judge(one.process, one.chain(), time.time())
        assert isinstance(found, Member)
        assert any(place == admin.at for place in one.bare_places())


async def test_an_invite_says_what_a_machine_is_called_and_whose_it_is(tmp_path: Path) -> None:
    """Whatever it calls itself."""
    async with open_admin(tmp_path) as admin:
        joined = await join(admin, admin.invite(name="kitchen", mine=True), called="evil\x1b[2J")
        assert joined.name == "kitchen"
        assert joined.member.owner == admin.home.machine
        assert "lend" in joined.member.scopes
        other = await join(admin, admin.invite(), called="evil\x1b[2J")
        assert other.name.isprintable()
        assert other.member.owner == other.member.machine


async def test_every_refusal_says_which(tmp_path: Path) -> None:
    """To who knows the code: used up, expired, revoked, wrong namespace; and unreachable."""
    async with open_admin(tmp_path) as admin:
        once = admin.invite()
        await join(admin, once)
        assert await rule(admin, once) == "used_up"
        expired = admin.invite(seconds=1.0)
        admin.membership.now = lambda: time.time() + 60
        assert await rule(admin, expired) == "expired"
        admin.membership.now = time.time
        revoked = admin.invite()
        with changed_invites(admin.home) as invites:
            for invite in invites.all:
                invites.withdraw(invite.identifier, now=time.time())
        assert await rule(admin, revoked) == "withdrawn"
        good = admin.invite()
        assert isinstance(good, LongCode)
        assert await rule(admin, attrs.evolve(good, name="office")) == "wrong_namespace"
        admin.network.take_down(admin.node.peer_id)
        with pytest.raises(PeerUnreachable, match="no member could be reached"):
            await join(admin, good)


async def test_an_invite_for_two_is_for_two(tmp_path: Path) -> None:
    """And who asks again, since the answer was lost, uses none."""
    async with open_admin(tmp_path) as admin:
        code = admin.invite(uses=2)
        with newcomer(admin) as (node, _):
            for _ in range(2):
                await join_with(node, code, called="", now=time.time())
        await join(admin, code)
        assert await rule(admin, code) == "used_up"


async def test_a_short_code_is_good_for_one_guess(tmp_path: Path) -> None:
    """Whoever made it, at once or one after another, before a restart or after it."""
    async with open_admin(tmp_path) as admin:
        code = admin.invite(short=True)
        assert isinstance(code, ShortCode)
        wrong = ShortCode(number=code.number, words="acorn-acorn")
        assert await rule(admin, wrong) == "wrong_code"
        assert await rule(admin, code) == "wrong_code"
        code = admin.invite(short=True)
        assert isinstance(code, ShortCode)
        # A guest that has seen whether its guess was right, and says nothing, has guessed.
        exchange, talk, stream = await opened(admin, code.number, b"acorn-acorn")
        await talk.receive(Reply, seconds=10)
        admin.door = Door(DiskMembership(admin.home, tmp_path / "admin.key"), admin.node)
        admin.node.handle(PROTOCOL, admin.door.serve)
        assert await rule(admin, code) == "wrong_code"
        await stream.aclose()
        del exchange


async def opened(admin: Admin, number: int, guess: bytes) -> tuple[Exchange, Talk, Stream]:
    """A conversation of a stranger that makes a *guess*."""
    peer_id = load_key(admin.folder / "stranger.key").peer_id
    node = admin.network.node(peer_id)
    stream = await node.open_stream(admin.node.peer_id, (admin.at,), PROTOCOL)
    exchange = Exchange(guess, newcomer=peer_id, member=admin.node.peer_id, is_member=False)
    talk = Talk(stream)
    await talk.send(Opening(do="code", invite=str(number), proof=exchange.message))
    return exchange, talk, stream


async def test_many_guesses_at_once_are_one(tmp_path: Path) -> None:
    """Of eight that guess right at the same moment, one is let in."""
    async with open_admin(tmp_path) as admin:
        code = admin.invite(short=True)
        came: list[str | None] = []

        async def guess() -> None:
            try:
                came.append((await join(admin, code)).name)
            except NotPermitted as error:
                came.append(error.rule)

        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(guess)
        assert came.count("laptop") == 1
        # The rest came while it was being tried, or after it was used.
        assert set(came) <= {"laptop", "wrong_code", "used_up"}
        assert len(read_members(admin.home.folder)) == 2


async def test_what_does_not_exist_looks_like_a_wrong_guess(tmp_path: Path) -> None:
    """Message for message, but for what is random."""
    async with open_admin(tmp_path) as admin:
        code = admin.invite(short=True)
        assert isinstance(code, ShortCode)
        heard = []
        for number in (code.number, code.number % 9999 + 1):
            exchange, talk, stream = await opened(admin, number, b"acorn-acorn")
            reply = await talk.receive(Reply, seconds=10)
            theirs, mine = exchange.finish(reply.proof)
            assert not is_same(reply.confirmation, theirs)
            await talk.send(Proof(confirmation=mine))
            outcome = await talk.receive(Outcome, seconds=10)
            heard.append((len(reply.proof), len(reply.confirmation), outcome))
            await stream.aclose()
        assert heard[0] == heard[1]
        assert heard[0][2].refused == "wrong_code"


async def test_a_host_has_a_dozen_tries_a_minute(tmp_path: Path) -> None:
    """And then hears that, whatever it tries."""
    async with open_admin(tmp_path) as admin:
        wrong = ShortCode(number=1, words="acorn-acorn")
        heard = set()
        node = admin.network.node(load_key(tmp_path / "stranger.key").peer_id)
        for _ in range(MAX_TRIES_OF_HOST):
            stream = await node.open_stream(admin.node.peer_id, (admin.at,), PROTOCOL)
            await stream.aclose()
            await trio.sleep(0.02)
        with pytest.raises(NotPermitted) as raised:
            await join_with(node, wrong, called="", now=time.time(), at=[parse_address(admin.at)])
        heard.add(raised.value.rule)
        assert heard == {"busy"}
        # Another host is let in meanwhile.
        await join(admin, admin.invite())


async def test_who_stands_in_between_gets_nothing(tmp_path: Path) -> None:
    """It passes every byte on, between two sessions of its own, and both ends notice."""
    async with open_admin(tmp_path) as admin:
        code = admin.invite(short=True)
        between = admin.network.node(load_key(tmp_path / "between.key").peer_id)

        async def pass_on(stream: Stream) -> None:
            onward = await between.open_stream(admin.node.peer_id, (admin.at,), PROTOCOL)

            async def pump(source: Stream, target: Stream) -> None:
                while data := await source.receive_some():
                    seen.append(data)
                    await target.send_all(data)
                await target.aclose()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(pump, stream, onward)
                nursery.start_soon(pump, onward, stream)

        seen: list[bytes] = []
        between.handle(PROTOCOL, pass_on)
        with newcomer(admin) as (node, _), pytest.raises(NotPermitted) as raised:
            await join_with(
                node, code, called="", now=time.time(), at=[parse_address(between.addresses[0])]
            )
        assert raised.value.rule == "wrong_code"
        assert code.secret not in b"".join(seen)
        assert b"home" not in b"".join(seen)
        assert len(read_members(admin.home.folder)) == 1


async def test_who_was_removed_comes_back_by_no_old_invite(tmp_path: Path) -> None:
    """Neither itself nor anybody else to whom it has told it."""
    async with open_admin(tmp_path) as admin:
        code = admin.invite(uses=3)
        joined = await join(admin, code)
        remove(
            admin.membership.lock,
            joined.member.machine,
            issuer=admin.home.machine,
            sign=admin.home.key().sign,
            chain=admin.home.chain(),
        )
        assert await rule(admin, code) == "withdrawn"


async def test_only_an_admin_lets_anybody_in(tmp_path: Path) -> None:
    """Nor can a machine promise what it has not itself."""
    async with open_admin(tmp_path) as admin:
        with newcomer(admin) as (node, folder):
            joined = await join_with(node, admin.invite(), called="x", now=time.time())
            home = keep_joined(joined, folder, now=time.time())
        with pytest.raises(NotPermitted, match="no admin"):
            make_invite(home, now=time.time())
        with pytest.raises(NotPermitted, match="has not the scopes"):
            make_invite(admin.home, now=time.time(), scopes=frozenset({"fly"}))
        assert len(read_invites(admin.home).all) == 1


async def test_a_member_without_a_grant_of_the_root_is_no_member(tmp_path: Path) -> None:
    """A hostile peer that knows the code cannot bring anybody into another namespace."""
    async with open_admin(tmp_path) as admin, open_admin(tmp_path / "other") as other:
        code = admin.invite()
        assert isinstance(code, LongCode)
        with changed_invites(admin.home) as mine, changed_invites(other.home) as theirs:
            theirs.add(mine.all[0], now=time.time())
        place = parse_address(other.at)
        with newcomer(other) as (node, _), pytest.raises(NotPermitted) as raised:
            await join_with(
                node, attrs.evolve(code, addresses=()), called="", now=time.time(), at=[place]
            )
        assert raised.value.rule == "wrong_namespace"


@pytest.mark.parametrize("proof", [b"", b"A", b"A" + bytes(32), b"B" * 33, b"A" + b"\xff" * 32])
async def test_an_exchange_that_is_none_ends_its_stream_only(proof: bytes, tmp_path: Path) -> None:
    """And the next guest is let in."""
    async with open_admin(tmp_path) as admin:
        node = admin.network.node(load_key(tmp_path / "stranger.key").peer_id)
        stream = await node.open_stream(admin.node.peer_id, (admin.at,), PROTOCOL)
        talk = Talk(stream)
        await talk.send(Opening(do="code", invite="1", proof=proof))
        with pytest.raises(PeerUnreachable):
            await talk.receive(Reply, seconds=10)
        await join(admin, admin.invite())


def test_a_code_that_is_none_is_told_and_not_shown() -> None:
    """Whether it was cut, mistyped or made up."""
    code = LongCode(name="home", root=b"r" * 32, secret=b"s" * 16)
    text = code.text()
    assert parse_code(text) == code
    assert parse_code(text.upper()) == code
    assert parse_code(f"  {text[:50]}\n  {text[50:]}\n") == code
    for wrong in (text[:-1], text + "a", text.replace(text[20], "7", 1), "punch1", "x", "7-a-b"):
        with pytest.raises(ConfigurationError) as raised:
            parse_code(wrong)
        assert wrong == "x" or len(wrong) < 7 or wrong not in str(raised.value)
    assert "73" not in repr(code) or b"s" not in repr(code).encode()
    assert "river" not in repr(ShortCode(number=1, words="apple-river"))
    assert parse_code(" 7-Apple-river ") == ShortCode(number=7, words="apple-river")
    assert parse_code("7 apple river") == ShortCode(number=7, words="apple-river")
