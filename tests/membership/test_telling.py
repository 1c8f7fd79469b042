"""What members tell each other of members: names reach all of them, and nobody else.

In real time, as the tests of codes: files are read in threads.
"""

from __future__ import annotations

import time
from pathlib import Path
from random import Random

import attrs
import pytest
import trio
import trio.lowlevel
from membership.test_calls import member
from membership.test_nearby import until

import punch
from punch.access import STRANGER, Lock, Member, encode_chain, key_of
from punch.capability import PeerId
from punch.exceptions import PeerUnreachable
from punch.libp2p import load_key, verify
from punch.membership import DiskMembership, Home, remove_machine
from punch.membership._folder import new_folder
from punch.membership._home import (
    CHAIN,
    MACHINE_KEY,
    home_in,
    record_of,
    write_info,
)
from punch.membership._members import add_members
from punch.membership._messages import Opening, Outcome, Talk, Told
from punch.membership._running import SEEING, running, running_now, seen_now
from punch.membership._tries import Tries
from punch.membership.telling import PROTOCOL, Card, Cards, Teller
from punch.membership.telling import _exchange as exchange
from punch.testing import MemoryNetwork, MemoryNode
from punch.wire import Registration


@attrs.define
class Machine:
    """A machine with one program, which serves if it is dialled."""

    home: Home
    membership: DiskMembership
    node: MemoryNode
    teller: Teller

    def names(self) -> set[str]:
        return {each.name for each in punch.list_members(self.home)}

    def hears_of(self, other: Machine) -> None:
        """As from a roster."""
        found = self.membership.lock.judge(
            other.membership.process, other.membership.chain(), time.time()
        )
        assert isinstance(found, Member)
        self.membership.remember(
            [
                Registration(
                    peer_id=other.membership.process,
                    namespace="home",
                    roles=frozenset({"listener"}),
                    incarnation=1,
                    sequence=1,
                    lifetime=30.0,
                    addresses=tuple(
                        f"{each}/p2p/{other.membership.process}" for each in other.node.addresses
                    ),
                )
            ]
        )

    async def asks(self, other: Machine) -> bool:
        return await self.teller.ask(
            self.node, other.membership.process, tuple(other.node.addresses)
        )


def machine(home: Home, network: MemoryNetwork, path: Path) -> Machine:
    membership = DiskMembership(home, path)
    node = network.node(membership.process)
    teller = Teller(membership, rng=Random(1))
    node.handle(PROTOCOL, teller.serve)
    return Machine(home, membership, node, teller)


def joined(home: Home, name: str, path: Path) -> Home:
    """What a machine has that was let in by *home*, and knows nobody else."""
    key, chain = member(home, name)
    with new_folder(path / name) as folder:
        folder.write(MACHINE_KEY, key_file(home, name).read_bytes())
        folder.write(CHAIN, encode_chain(chain))
        write_info(folder, home.namespace, machine=key_of(key.peer_id), called=name)
        target = path / name / str(home.namespace)
        folder.path.rename(target)
    return home_in(attrs.evolve(folder, path=target))


def key_file(home: Home, name: str) -> Path:
    (found,) = home.folder.path.parent.glob(f"{name}-*.key")
    return found


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return punch.create_namespace("home", called="attic", folder=tmp_path / "attic")


async def test_a_name_reaches_those_who_have_only_heard_of_the_machine(
    home: Home, tmp_path: Path
) -> None:
    """From one to the next: neither of them has let the other in, and neither has met the third."""
    async with trio.open_nursery() as nursery:
        network = MemoryNetwork(nursery)
        attic = machine(home, network, tmp_path / "a.key")
        desk = machine(joined(home, "desk", tmp_path), network, tmp_path / "d.key")
        lamp = machine(joined(home, "lamp", tmp_path), network, tmp_path / "l.key")
        home.folder.remove("members.json")
        assert (attic.names(), desk.names(), lamp.names()) == ({"attic"}, {"desk"}, {"lamp"})
        assert not await desk.asks(attic)
        assert (attic.names(), desk.names()) == ({"attic", "desk"}, {"attic", "desk"})
        await lamp.asks(desk)
        assert lamp.names() == desk.names() == {"attic", "desk", "lamp"}
        await lamp.asks(attic)
        assert attic.names() == lamp.names()
        found = {each.name: each for each in punch.list_members(lamp.home)}
        assert found["attic"].is_admin
        assert found["desk"].scopes == {"dial", "listen"}
        assert (found["desk"].seen, found["desk"].is_connected) == (0, False)
        nursery.cancel_scope.cancel()


async def test_names_come_by_themselves_in_seconds(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a machine that only asks, which nobody can dial."""
    monkeypatch.setattr(exchange, "LOOK_SECONDS", 0.02)
    async with trio.open_nursery() as nursery:
        network = MemoryNetwork(nursery)
        attic = machine(home, network, tmp_path / "a.key")
        desk = machine(joined(home, "desk", tmp_path), network, tmp_path / "d.key")
        laptop = machine(joined(home, "laptop", tmp_path), network, tmp_path / "l.key")
        home.folder.remove("members.json")
        for one, other in ((attic, desk), (desk, attic), (laptop, attic), (laptop, desk)):
            one.hears_of(other)
        for each in (attic, desk, laptop):
            nursery.start_soon(each.teller.run, each.node)
        everybody = {"attic", "desk", "laptop"}
        await until(lambda: attic.names() == desk.names() == laptop.names() == everybody)
        nursery.cancel_scope.cancel()


async def test_many_members_are_told_page_by_page(home: Home, tmp_path: Path) -> None:
    """However long their names are; a stamp tells what both have."""
    wide = "漢" * 60
    for number in range(110):
        member(home, f"{wide}{number:03}")
    async with trio.open_nursery() as nursery:
        network = MemoryNetwork(nursery)
        attic = machine(home, network, tmp_path / "a.key")
        desk = machine(joined(home, "desk", tmp_path), network, tmp_path / "d.key")
        pages = 1
        while await desk.asks(attic):
            pages += 1
        assert pages == 3
        assert desk.names() == attic.names()
        assert len(desk.names()) == 112
        nursery.cancel_scope.cancel()


async def test_a_stranger_and_who_was_removed_are_told_nothing(home: Home, tmp_path: Path) -> None:
    """A stranger hears what every door says; a removed machine which rule it breaks."""
    async with trio.open_nursery() as nursery:
        network = MemoryNetwork(nursery)
        attic = machine(home, network, tmp_path / "a.key")
        desk = machine(joined(home, "desk", tmp_path), network, tmp_path / "d.key")
        stranger = network.node(load_key(tmp_path / "s.key").peer_id)
        stolen = desk.membership.chain()
        remove_machine(home, desk.home.machine)
        attic.membership.look()
        heard = {}
        for name, node, chain in (
            ("nobody", stranger, b""),
            ("thief", stranger, stolen),
            ("junk", stranger, b"\xff" * 99),
            ("removed", desk.node, stolen),
        ):
            stream = await node.open_stream(
                attic.membership.process, tuple(attic.node.addresses), PROTOCOL
            )
            talk = Talk(stream)
            await talk.send(Opening(do="members", chain=chain))
            outcome = await talk.receive(Outcome, seconds=5)
            heard[name] = (outcome.refused, outcome.reason)
            with pytest.raises(PeerUnreachable):
                await talk.receive(Told, seconds=5)
            await stream.aclose()
        assert heard["nobody"] == (STRANGER.rule, STRANGER.reason)
        assert [heard[each][0] for each in ("thief", "junk", "removed")] == [
            *("wrong_key", "malformed"),
            "revoked",
        ]
        assert not [name for name in attic.names() if name in str(heard)]
        assert not await attic.asks(desk)
        nursery.cancel_scope.cancel()


async def test_strangers_that_come_too_often_hear_nothing(home: Home, tmp_path: Path) -> None:
    """Those of one host, whatever others do."""
    async with trio.open_nursery() as nursery:
        network = MemoryNetwork(nursery)
        attic = machine(home, network, tmp_path / "a.key")
        attic.teller._tries = Tries(of_host=2)
        stranger = network.node(load_key(tmp_path / "s.key").peer_id)

        async def heard() -> bool:
            stream = await stranger.open_stream(
                attic.membership.process, tuple(attic.node.addresses), PROTOCOL
            )
            talk = Talk(stream)
            await talk.send(Opening(do="members", chain=b"\xff"))
            try:
                return bool((await talk.receive(Outcome, seconds=5)).refused)
            except PeerUnreachable:
                return False
            finally:
                await stream.aclose()

        assert [await heard(), await heard(), await heard()] == [True, True, False]
        nursery.cancel_scope.cancel()


def test_no_lie_about_a_member_is_believed(home: Home, tmp_path: Path) -> None:
    """Neither a chain that no admin has signed, nor a name that the grant was not given for."""
    key, chain = member(home, "desk")
    nobody, nameless = member(home, "")
    membership = DiskMembership(home, tmp_path / "a.key")
    cards = Cards(membership)
    lock = Lock(home.namespace, verify)
    teller = lock.judge(key.peer_id, encode_chain(chain), time.time())
    own = lock.judge(nobody.peer_id, encode_chain(nameless), time.time())
    assert isinstance(teller, Member)
    assert isinstance(own, Member)
    good = encode_chain(chain)
    told = [
        Card(chain=good, name="lamp"),
        Card(chain=good[:-1] + bytes([good[-1] ^ 1]), name="desk"),
        Card(chain=b"", name="desk"),
        Card(chain=membership.chain(), name="process"),
        Card(chain=encode_chain(nameless), name="mine now"),
    ]
    found = cards.believed(told, teller)
    assert [(each.machine, each.name) for each in found] == [
        (key.peer_id, ""),
        (nobody.peer_id, ""),
    ]
    assert cards.believed([Card(chain=good, name="desk")], own)[0].name == "desk"
    assert cards.believed(told[-1:], own)[0].name == "mine now"


async def test_who_is_there_is_known_to_the_other_programs_of_the_machine(
    home: Home, tmp_path: Path
) -> None:
    """As long as the program runs; when a machine was heard of last outlives it."""
    key, chain = member(home, "desk")
    add_members(home.folder, [attrs.evolve(record_of(chain, called="desk", now=0), seen=5)])
    there: set[PeerId] = set()
    async with punch.open_membership(home, identity=tmp_path / "a.key") as membership:
        assert running_now(home) == 1
        assert punch.list_members(home)[0].is_connected
        found = membership.lock.judge(key.peer_id, encode_chain(chain), time.time())
        assert isinstance(found, Member)
        with membership.seeing(lambda: there):
            there.add(key.peer_id)
            await until(lambda: seen_now(home) == {key.peer_id})
            assert punch.find_member(home, "desk").is_connected
            there.clear()
            await until(lambda: not seen_now(home))
            # Written by the program itself, within seconds.
            await until(lambda: punch.find_member(home, "desk").seen > 5)
        desk = punch.find_member(home, "desk")
        assert not desk.is_connected
        assert time.time() - desk.seen < 30
        there.add(key.peer_id)
        await trio.lowlevel.checkpoint()
    assert running_now(home) == 0
    assert seen_now(home) == frozenset()
    with running(home, membership.process, SEEING) as program:
        program.say([key.peer_id])
        assert seen_now(home) == {key.peer_id}
    assert seen_now(home) == frozenset()


def test_what_a_machine_said_of_its_addresses_is_listed(home: Home, tmp_path: Path) -> None:
    """The last that can be dialled."""
    key, chain = member(home, "desk")
    membership = DiskMembership(home, tmp_path / "a.key")
    assert isinstance(membership.lock.judge(key.peer_id, encode_chain(chain), time.time()), Member)
    heard = Registration(
        peer_id=key.peer_id,
        namespace="home",
        roles=frozenset({"listener"}),
        incarnation=1,
        sequence=1,
        lifetime=30.0,
        addresses=("/ip4/192.168.7.9/tcp/21820", "nonsense"),
    )

    async def hear() -> None:
        membership.remember([heard])

    trio.run(hear)
    membership.flush()
    assert punch.find_member(home, "desk").addresses == ("/ip4/192.168.7.9/tcp/21820",)
