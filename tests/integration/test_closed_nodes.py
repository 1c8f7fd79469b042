"""A closed namespace on real nodes, with real keys."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import trio
from answers import text_of
from made_up_members import FakeMembership, MadeUpMember, MadeUpNamespace, RealKeys

import punch
from punch import open_listener, open_router
from punch.access import decode_chain
from punch.backends import MockBackend, MockScript
from punch.libp2p import _identity, open_node
from punch.membership import DiskMembership, Door, Home, create_home, make_invite, redeem_invite
from punch.membership._home import fresh_key
from punch.membership._messages import PROTOCOL
from punch.membership.renewal import new_chain, renew
from punch.network import Node, Stream, parse_address


async def test_members_meet_at_each_other_and_a_removed_one_is_out(tmp_path: Path) -> None:
    """Three machines without a bootstrap; the removal is told over the session."""
    keys = RealKeys()
    home = MadeUpNamespace("home", keys=keys)
    desk = home.admin("desk")

    def member(name: str) -> tuple[MadeUpMember, FakeMembership]:
        found = home.machine(keys.adopt(_identity.load_or_create(tmp_path / name)), by=desk)
        return found, found.membership()

    (_, ours), (out, theirs), (_, asker) = member("a"), member("b"), member("c")
    with trio.fail_after(30):
        async with open_listener(
            MockBackend(MockScript()),
            bootstrap=None,
            namespace="home",
            identity=tmp_path / "a",
            membership=ours,
            calibrate=False,
        ) as first:
            theirs.extra_places = first.addresses
            async with open_listener(
                MockBackend(MockScript()),
                bootstrap=None,
                namespace="home",
                identity=tmp_path / "b",
                membership=theirs,
                calibrate=False,
            ) as second:
                asker.extra_places = second.addresses
                async with open_router(
                    bootstrap=None, namespace="home", identity=tmp_path / "c", membership=asker
                ) as router:
                    await router.wait_for_peers(lambda found: len(found) == 2)
                    assert text_of(await router.ask("hello"))
                    ours.add_revocations([home.remove(out, by=desk)])
                    with trio.fail_after(2):
                        while len(router.peers) == 2:
                            await trio.sleep(0.01)
                    assert [peer.peer_id for peer in router.peers] == [first.peer_id]
                    while second.trouble is None:
                        await trio.sleep(0.05)
                    assert "removed" in str(second.trouble)


async def test_another_admin_renews_and_another_key_is_taken(tmp_path: Path) -> None:
    """Over real nodes: the admin that let the machine in is there no more."""
    later = [0.0]

    def now() -> float:
        return time.time() + later[0]

    def admin_of(home: Home, name: str) -> DiskMembership:
        return DiskMembership(home, tmp_path / f"{name}.key", now=now)

    async with AsyncExitStack() as stack:
        stack.enter_context(trio.fail_after(30))

        async def at(membership: DiskMembership) -> Node:
            node = await stack.enter_async_context(
                open_node(identity=membership.identity, listen=["/ip4/127.0.0.1/tcp/0"])
            )
            node.handle(PROTOCOL, Door(membership, node).serve)
            return node

        attic = create_home("home", called="attic", now=now(), parent=tmp_path / "attic")
        first = await at(admin_of(attic, "attic"))
        places = [parse_address(each) for each in first.addresses]
        homes = []
        for name, scopes in (("desk", {"dial", "listen", "admin"}), ("laptop", {"dial"})):
            code, _ = make_invite(
                attic, now=now(), addresses=places, scopes=frozenset(scopes), name=name
            )
            homes.append(await redeem_invite(code.text(), called=name, folder=tmp_path / name))
        desk, laptop = homes
        second = admin_of(desk, "desk")
        node = await at(second)
        machine = admin_of(laptop, "laptop")
        own = await at(machine)
        machine.remember([])
        machine.found(node.peer_id, node.addresses[0].partition("/p2p/")[0])
        first.handle(PROTOCOL, _turn_away)
        later[0] = 70 * 86_400
        for each in (second, machine):
            each.look()
        assert await renew(machine, own)
        assert laptop.grant.issuer == desk.machine
        machine.look()
        async with open_node(identity=fresh_key(laptop)) as new:
            chain = await new_chain(machine, new)
        assert decode_chain(chain)[-1].grant.subject == new.peer_id


async def _turn_away(stream: Stream) -> None:
    await stream.aclose()


async def test_every_member_knows_all_by_name_and_who_is_connected(tmp_path: Path) -> None:
    """Two that were let in by the first, one of which only asks, and were told of nobody."""
    home = punch.create_namespace("home", called="desk", folder=tmp_path / "desk")
    loopback: dict[str, Any] = {
        "bootstrap": None,
        "listen": ["/ip4/127.0.0.1/tcp/0"],
        "calibrate": False,
    }
    with trio.fail_after(30):
        async with (
            punch.open_membership(home) as member,
            open_listener(MockBackend(MockScript()), membership=member, **loopback),
        ):
            lamp = await punch.join_namespace(
                punch.create_invite(home, name="lamp").code, folder=tmp_path / "lamp"
            )
            laptop = await punch.join_namespace(
                punch.create_invite(home, name="laptop").code, folder=tmp_path / "laptop"
            )
            # As if each had joined before the other, at somebody else's.
            for each in (lamp, laptop):
                each.folder.remove("members.json")
            async with (
                punch.open_membership(lamp) as second,
                open_listener(MockBackend(MockScript()), membership=second, **loopback),
                punch.open_membership(laptop) as third,
                open_router(bootstrap=None, membership=third) as router,
            ):
                await router.wait_for_peers(lambda found: len(found) == 2)
                for each in (home, lamp, laptop):
                    while {one.name for one in connected(each)} != {"desk", "lamp", "laptop"}:
                        await trio.sleep(0.1)
                while not punch.find_member(laptop, "lamp").addresses:
                    await trio.sleep(0.1)
            while [one.name for one in connected(home)] != ["desk"]:
                await trio.sleep(0.1)
    assert [one.is_connected for one in punch.list_members(laptop)] == [False, False, False]


def connected(home: punch.Home) -> list[punch.MemberStatus]:
    return [each for each in punch.list_members(home) if each.is_connected]
