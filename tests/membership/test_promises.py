"""What an invite promises can be given; which invites there are, and taking one back."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from members_on_disk import DAY, Household, Machine

from punch.access import SCOPES, encode_chain, remove
from punch.exceptions import ConfigurationError, NotPermitted
from punch.libp2p import load_key
from punch.membership import (
    approve_request,
    export_root,
    find_invite,
    join_with,
    make_invite,
    read_invites,
    read_removals,
    read_requests,
    withdraw_invite,
)
from punch.membership._home import CHAIN, add_revocations
from punch.membership._letting_in import issuer_of
from punch.membership.nearby._requests import add_request
from punch.network import parse_address
from punch.testing import MemoryNetwork

ADMIN = frozenset({"dial", "listen", "admin"})


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Household]:
    async with trio.open_nursery() as nursery:
        yield Household(MemoryNetwork(nursery), tmp_path)
        nursery.cancel_scope.cancel()


async def deputies(house: Household, number: int) -> list[Machine]:
    """The first machine, without the root's key, and admins that let each other in."""
    first = house.first("attic")
    export_root(first.home, house.path / "root.key", keeps=False)
    found = [first]
    for each in range(number):
        found.append(await house.join(f"deputy {each}", by=found[-1], scopes=ADMIN))
    return found


def refused(machine: Machine, **words: object) -> str:
    """Why an invite is not made, and no code is left behind."""
    with pytest.raises(NotPermitted) as raised:
        make_invite(machine.home, now=machine.house.now(), **words)  # type: ignore[arg-type]  # of many types
    assert [each for each in read_invites(machine.home).all if not each.used_by] == []
    return str(raised.value)


@pytest.mark.parametrize("short", [True, False])
async def test_no_invite_is_made_that_nobody_could_use(short: bool, house: Household) -> None:
    """Its maker hears the rule, and not the guest who types the code."""
    chain = await deputies(house, 2)
    first, last = chain[0], chain[-1]
    # A fourth admin in one chain, an admin's scope that it has not, and one that nobody has.
    assert "at most 3 admins" in refused(last, short=short, scopes=ADMIN)
    assert "lend" in refused(last, short=short, mine=True)
    assert "fly" in refused(first, short=short, scopes=frozenset({"dial", "fly"}))
    make_invite(last.home, now=house.now(), short=short)
    make_invite(first.home, now=house.now(), short=short, scopes=ADMIN)


async def test_no_invite_outlives_what_it_would_be_given_from(house: Household) -> None:
    """One that says no end ends with the inviting machine's grant at the latest."""
    first, deputy = await deputies(house, 1)
    assert "ends before the invite would" in refused(deputy, seconds=91.0 * DAY)
    make_invite(first.home, now=house.now(), seconds=91.0 * DAY)
    house.pass_days(89.9)
    _, invite = make_invite(deputy.home, now=house.now())
    assert invite.ends == deputy.home.grant.ends
    house.pass_days(1)
    withdraw_invite(deputy.home, invite.identifier, now=invite.ends - 1)
    with pytest.raises(NotPermitted, match=r"ended 2\d hours ago"):
        make_invite(deputy.home, now=house.now())
    with pytest.raises(NotPermitted, match=r"ended 2\d hours ago"):
        make_invite(deputy.home, now=house.now(), short=True, seconds=60.0)


async def test_who_was_removed_invites_nobody(house: Household) -> None:
    """Where the removal is known."""
    _, deputy = await deputies(house, 1)
    word = remove(
        read_removals(deputy.home),
        deputy.home.machine,
        issuer=deputy.home.machine,
        sign=deputy.home.key().sign,
        chain=deputy.home.chain(),
    )
    add_revocations(deputy.home, [word])
    assert "was removed" in refused(deputy)


async def test_an_admin_that_is_ones_own_is_ones_own(house: Household) -> None:
    """Also where the root signs, whose key says nothing of an owner."""
    first = house.first("attic")
    for name, scopes in (("one", SCOPES), ("two", None)):
        machine = await house.join(name, by=first, mine=True, scopes=scopes)
        assert machine.home.grant.owner == first.home.machine
    other = await house.join("three", by=first, scopes=ADMIN)
    assert other.home.grant.owner == other.home.machine


async def test_nobody_nearby_is_approved_for_what_cannot_be_given(house: Household) -> None:
    """By the same rule; and may be approved for less."""
    chain = await deputies(house, 2)
    last = chain[-1]
    request = add_request(
        last.home,
        machine=load_key(house.path / "guest.key").peer_id,
        name="guest",
        digits="123456",
        host="192.0.2.1",
        now=house.now(),
    )
    assert request is not None
    for words in ({"scopes": ADMIN}, {"mine": True}):
        with pytest.raises(NotPermitted):
            approve_request(last.home, request, now=house.now(), **words)
    assert [each.state for each in read_requests(last.home, now=house.now())] == ["waiting"]
    approve_request(last.home, request, now=house.now())


async def test_a_short_code_lives_on_if_its_maker_had_nothing_to_give(house: Household) -> None:
    """Since it was made the machine has come to have less, and then has more again."""
    first, deputy = await deputies(house, 1)
    code, _ = make_invite(deputy.home, now=house.now(), short=True)
    whole = deputy.home.folder.read(CHAIN) or b""
    lesser = issuer_of(first.home, "machine").issue(
        first.membership.lock,
        deputy.home.machine,
        now=house.now(),
        kind="admin",
        scopes={"dial", "admin"},
    )
    for written, rule in ((encode_chain(lesser), "not_permitted"), (whole, None)):
        deputy.home.folder.write(CHAIN, written)
        deputy.membership.look()
        if rule is None:
            await join(house, "guest", code, at=deputy)
            continue
        with pytest.raises(NotPermitted, match="listen") as raised:
            await join(house, "guest", code, at=deputy)
        assert raised.value.rule == rule


async def test_an_invite_is_found_and_taken_back(house: Household) -> None:
    """By its number, its beginning or its name; its holder hears that it was withdrawn."""
    attic = house.first("attic")
    now = house.now()
    short, _ = make_invite(attic.home, now=now, short=True, name="phone")
    code, long = make_invite(
        attic.home, now=now, uses=3, name="lab", addresses=[parse_address(attic.at)]
    )
    assert find_invite(attic.home, long.identifier[:6], now=now) == long
    assert find_invite(attic.home, "lab", now=now) == long
    number = short.text().partition("-")[0]
    assert find_invite(attic.home, number, now=now).name == "phone"
    for which in ("", long.identifier[:2], "nobody"):
        with pytest.raises(ConfigurationError, match="punch invite list"):
            find_invite(attic.home, which, now=now)
    await join(house, "one", code)
    taken = withdraw_invite(attic.home, "lab", now=now)
    assert (len(taken.used_by), taken.outcome(now)) == (1, "withdrawn")
    withdraw_invite(attic.home, number, now=now)
    for each in (code, short):
        with pytest.raises(NotPermitted) as raised:
            await join(house, "two", each, at=attic)
        assert raised.value.rule == "withdrawn"
    with pytest.raises(ConfigurationError, match="was withdrawn"):
        withdraw_invite(attic.home, "lab", now=now)
    make_invite(attic.home, now=now, name="lab")
    assert find_invite(attic.home, "lab", now=now).outcome(now) == "open"
    make_invite(attic.home, now=now, name="lab")
    with pytest.raises(ConfigurationError, match="several"):
        find_invite(attic.home, "lab", now=now)


async def join(house: Household, name: str, code: object, *, at: Machine | None = None) -> None:
    """Redeem a code, and keep nothing of it."""
    node = house.network.node(load_key(house.path / f"{name}.guest").peer_id)
    places = [parse_address(at.at)] if at is not None else []
    await join_with(node, code, called=name, now=time.time(), at=places)  # type: ignore[arg-type]  # of two types
