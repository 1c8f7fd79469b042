"""Grants over months and years: who renews them when somebody is gone, and a key that is changed.

The months are those of the clock that judges grants; what is computed is computed in real time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from members_on_disk import Household, Machine

from punch.access import (
    ROOT_GRANT_SECONDS,
    Member,
    decode_chain,
    encode_chain,
    renew_at,
    sign_rotation,
)
from punch.exceptions import ConfigurationError, NotPermitted, PeerUnreachable
from punch.libp2p import load_key
from punch.membership import export_root, homes, import_root, read_members, remove_member
from punch.membership._home import (
    MACHINE_KEY,
    NEXT_KEY,
    RETIRED,
    add_revocations,
    fresh_key,
    read_revocations,
    retire_key,
    switch_key,
)
from punch.membership._messages import Opening
from punch.membership.renewal import new_chain, renew
from punch.membership.renewal._renewing import ask_admin
from punch.membership.renewal._rotating import _removal
from punch.network import parse_address
from punch.testing import MemoryNetwork, MemoryNode

ADMIN = frozenset({"dial", "listen", "lend", "borrow", "relay", "admin"})


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Household]:
    async with trio.open_nursery() as nursery:
        yield Household(MemoryNetwork(nursery), tmp_path)
        nursery.cancel_scope.cancel()


async def three(house: Household) -> tuple[Machine, Machine, Machine]:
    """The first machine, which has the root's key no more; another admin; and a machine."""
    attic = house.first("attic")
    desk = await house.join("desk", by=attic, scopes=ADMIN)
    export_root(attic.home, house.path / "root.key", keeps=False)
    laptop = await house.join("laptop", by=attic)
    laptop.knows(desk)
    return attic, desk, laptop


def gone(*machines: Machine) -> None:
    """Destroy machines for good."""
    for machine in machines:
        machine.house.network.take_down(machine.node.peer_id)
        machine.house.machines.remove(machine)


async def renewed(machine: Machine) -> bool:
    """Renew a machine's grant if it is due, as a program of it does; whether it was."""
    due = renew_at(machine.membership.grant)
    if due is None or machine.house.now() < due:
        return False
    done = await renew(machine.membership, machine.node)
    machine.membership.look()
    return done


async def test_who_let_a_machine_in_may_be_gone_for_good(house: Household) -> None:
    """Another admin renews it, for as long as that admin's own grant is renewed."""
    attic, desk, laptop = await three(house)
    gone(attic)
    for _ in range(12):
        house.pass_days(8)
        if await renewed(laptop):
            break
    assert laptop.home.grant.issuer == desk.home.machine
    # The root had let the desk in for ten years, so this goes on.
    for _ in range(25):
        house.pass_days(40)
        await renewed(laptop)
        assert isinstance(laptop.member, Member)
        assert desk.judges(laptop) == ""


async def test_admins_renew_each_other_for_as_long_as_one_may(house: Household) -> None:
    """An admin that an admin has let in has ninety days, and more by any other."""
    attic = house.first("attic")
    export_root(attic.home, house.path / "root.key", keeps=False)
    desk = await house.join("desk", by=attic, scopes=ADMIN)
    shelf = await house.join("shelf", by=attic, scopes=ADMIN)
    desk.knows(attic, shelf)
    for _ in range(12):
        house.pass_days(40)
        await renewed(desk)
        await renewed(shelf)
        assert isinstance(desk.member, Member)
        assert desk.home.grant.kind == "admin"
        assert desk.home.grant.scopes == ADMIN
    # Where none is left that the root has signed, what they have ends; no two keep each other up.
    gone(attic)
    for _ in range(10):
        house.pass_days(10)
        await renewed(desk)
        await renewed(shelf)
    assert not isinstance(desk.member, Member)
    # The root's key, brought back to any of them, signs it anew, though it has ended.
    import_root(desk.home, house.path / "root.key")
    assert await renewed(desk)
    desk.restart()
    assert isinstance(desk.member, Member)
    assert desk.home.grant.issuer == desk.home.namespace.root
    assert desk.home.grant.ends == pytest.approx(house.now() + ROOT_GRANT_SECONDS, abs=60)


async def test_a_machine_of_an_owner_that_is_gone_stays_a_member(house: Household) -> None:
    """As its own, and not before the last moment: the owner's admin may be back until then."""
    attic = house.first("attic")
    desk = await house.join("desk", by=attic, scopes=ADMIN)
    phone = await house.join("phone", by=attic, mine=True)
    phone.knows(attic, desk)
    house.pass_days(65)
    assert await renewed(phone)
    assert phone.home.grant.owner == attic.home.machine
    gone(attic)
    house.pass_days(65)
    assert not await renewed(phone)
    house.pass_days(20)
    assert await renewed(phone)
    assert phone.home.grant.owner == phone.home.machine
    assert isinstance(phone.member, Member)


async def test_a_narrower_admin_takes_nothing_away_while_there_is_time(house: Household) -> None:
    """And something is better than nothing at the end."""
    attic = house.first("attic")
    desk = await house.join("desk", by=attic, scopes=frozenset({"dial", "admin"}))
    laptop = await house.join("laptop", by=attic)
    laptop.knows(desk)
    gone(attic)
    house.pass_days(65)
    assert not await renewed(laptop)
    house.pass_days(20)
    assert await renewed(laptop)
    assert laptop.home.grant.scopes == {"dial"}


async def test_a_machine_that_was_off_for_too_long_hears_what_to_do(house: Household) -> None:
    """Its grant has ended, and nothing renews it: a new invite does, with all that it had known."""
    attic, desk, laptop = await three(house)
    house.pass_days(100)
    laptop.restart()
    with pytest.raises(NotPermitted) as raised:
        laptop.membership.check()
    assert "ended 10 days ago" in raised.value.message
    assert "punch join" in raised.value.message
    assert not await renewed(laptop)
    assert desk.judges(laptop) == "expired"
    code_by = await house.join("laptop", by=attic)
    assert homes(house.path / "laptop") == (code_by.home,)
    assert isinstance(code_by.member, Member)
    # A program that has run all the while takes the new key and the new grant.
    laptop.membership.look()
    assert isinstance(laptop.member, Member)
    assert attic.judges(laptop) == ""


async def test_the_root_key_signs_from_where_it_was_brought_back_to(house: Household) -> None:
    """Nothing of it stays on the disk it was taken off; who removes an admin hears to bring it."""
    attic = house.first("attic")
    desk = await house.join("desk", by=attic, scopes=ADMIN)
    secret = (attic.home.folder / "root.key").read_bytes().split()[-1]
    export_root(attic.home, house.path / "root.key", keeps=False)
    left = [path for path in (house.path / "attic").rglob("*") if path.is_file()]
    assert not [path for path in left if secret in path.read_bytes()]
    with pytest.raises(NotPermitted, match="punch namespace root import FILE"):
        remove_member(attic.home, desk.home.machine)
    import_root(attic.home, house.path / "root.key")
    remove_member(attic.home, desk.home.machine)
    attic.membership.look()
    assert attic.judges(desk) == "revoked"


@pytest.mark.parametrize("days", [0, 100])
async def test_a_copy_of_the_root_key_goes_on_without_any_admin(
    days: int, house: Household
) -> None:
    """The only admin is lost: on an ordinary member, the key makes that one the next admin."""
    attic = house.first("attic")
    laptop = await house.join("laptop", by=attic)
    tv = await house.join("tv", by=attic)
    export_root(attic.home, house.path / "root.key", keeps=True)
    gone(attic)
    owner = laptop.home.grant.owner
    house.pass_days(days)
    assert import_root(laptop.home, house.path / "root.key", now=house.now())
    assert not import_root(laptop.home, house.path / "root.key", now=house.now())
    grant = laptop.home.grant
    assert (grant.kind, grant.issuer, grant.owner) == ("admin", laptop.home.namespace.root, owner)
    laptop.membership.look()
    assert tv.judges(laptop) == ""
    phone = await house.join("phone", by=laptop)
    assert laptop.judges(phone) == ""
    # The lost machine is removed from there, too; it was an admin.
    remove_member(laptop.home, attic.home.machine)
    laptop.membership.look()
    assert laptop.judges(attic) == "revoked"
    assert laptop.judges(phone) == ""


async def test_the_root_key_brings_no_removed_machine_back(house: Household) -> None:
    """The key is there; the machine, which has heard of its removal, joins by an invite only."""
    attic = house.first("attic")
    laptop = await house.join("laptop", by=attic)
    export_root(attic.home, house.path / "root.key", keeps=True)
    remove_member(attic.home, laptop.home.machine)
    add_revocations(laptop.home, read_revocations(attic.home))
    chain = laptop.home.chain()
    assert not import_root(laptop.home, house.path / "root.key", now=house.now())
    assert laptop.home.chain() == chain


# ---- another key ----


def rotating(machine: Machine) -> MemoryNode:
    """A node with the new key of a machine."""
    return machine.house.network.node(load_key(fresh_key(machine.home)).peer_id)


@pytest.mark.parametrize("mine", [True, False])
async def test_a_key_is_changed_while_the_old_one_counts(mine: bool, house: Household) -> None:
    """At no moment is a program of the machine refused, and the old key is worth nothing then."""
    attic = house.first("attic")
    desk = await house.join("desk", by=attic, scopes=ADMIN)
    laptop = await house.join("laptop", by=attic, mine=mine)
    laptop.knows(attic, desk)
    if not mine:
        gone(attic)
        attic = desk
    old, grant, shown = laptop.home.machine, laptop.home.grant, laptop.membership.chain()
    old_chain = encode_chain(laptop.home.chain())
    chain = await new_chain(laptop.membership, rotating(laptop))
    assert attic.judges(laptop) == ""
    word = _removal(laptop.home)
    laptop.home = switch_key(laptop.home, chain, word=word, now=house.now())
    assert attic.judges(laptop) == ""
    laptop.membership.look()
    assert laptop.membership.chain() != shown
    assert attic.judges(laptop) == ""
    retire_key(laptop.home)
    laptop.membership.look()
    attic.membership.add_revocations(laptop.membership.lock.revocations)
    assert attic.judges(laptop) == ""
    now, lock = house.now(), attic.membership.lock
    assert not isinstance(lock.judge(old, old_chain, now), Member)
    assert not isinstance(lock.judge(laptop.membership.process, shown, now), Member)
    after = laptop.home.grant
    assert (after.kind, after.scopes, after.lasts) == (grant.kind, grant.scopes, grant.lasts)
    assert after.owner == (grant.owner if mine else laptop.home.machine)
    assert load_key(laptop.home.folder / MACHINE_KEY).peer_id == laptop.home.machine != old
    assert not laptop.home.folder.exists(NEXT_KEY)
    assert read_members(attic.home.folder)[laptop.home.machine].name == "laptop"
    # Again, and its grant is renewed as ever.
    chain = await new_chain(laptop.membership, rotating(laptop))
    laptop.home = switch_key(laptop.home, chain, word=_removal(laptop.home), now=house.now())
    laptop.restart()
    house.pass_days(65)
    assert await renewed(laptop)


async def test_the_first_machine_changes_its_key_with_the_roots(house: Household) -> None:
    """Whom it has let in stays; without the root's key it hears to bring it back."""
    attic = house.first("attic")
    laptop = await house.join("laptop", by=attic)
    desk = await house.join("desk", by=attic, scopes=frozenset({"dial", "admin"}))
    export_root(attic.home, house.path / "root.key", keeps=False)
    node = rotating(attic)
    with pytest.raises(ConfigurationError, match="punch namespace root import FILE"):
        await new_chain(attic.membership, node)
    import_root(attic.home, house.path / "root.key")
    chain = await new_chain(attic.membership, node)
    attic.home = switch_key(attic.home, chain, word=_removal(attic.home), now=house.now())
    retire_key(attic.home)
    attic.membership.look()
    assert attic.home.grant.ends == pytest.approx(house.now() + ROOT_GRANT_SECONDS, abs=60)
    for other in (laptop, desk):
        other.membership.add_revocations(attic.membership.lock.revocations)
        assert (other.judges(attic), attic.judges(other)) == ("", "")
    assert isinstance((await house.join("tv", by=attic)).member, Member)


@pytest.mark.parametrize("stage", ["before", "between", "after"])
async def test_a_machine_that_is_switched_off_meanwhile_has_one_key(
    stage: str, house: Household
) -> None:
    """The old one, or the new one; and nothing that would remove the one that it has."""
    _, desk, laptop = await three(house)
    old = laptop.home.machine
    chain = await new_chain(laptop.membership, rotating(laptop))
    folder, word = laptop.home.folder, _removal(laptop.home)
    if stage == "before":
        folder.write(RETIRED, word)
    elif stage == "between":
        folder.write(RETIRED, word)
        folder.write("chain", chain)
    else:
        switch_key(laptop.home, chain, word=word, now=house.now())
    laptop.home = homes(house.path / "laptop")[0]
    assert (laptop.home.machine == old) is (stage == "before")
    assert laptop.home.key().peer_id == laptop.home.machine
    laptop.restart()
    assert isinstance(laptop.member, Member)
    assert desk.judges(laptop) == ""
    assert not folder.exists(RETIRED)
    removed = laptop.membership.lock.removed_up_to(old)
    assert removed == (0 if stage == "before" else 1)
    assert rotating(laptop).peer_id not in (old, laptop.home.machine)
    assert laptop.home.key().peer_id == laptop.home.machine


async def test_a_program_cannot_make_itself_a_machine(house: Household) -> None:
    """What signs the new key is the machine's key: a process's own is worth nothing here."""
    attic, _, laptop = await three(house)
    process = load_key(Path(laptop.membership.identity))
    thief = house.network.node(load_key(house.path / "thief.key").peer_id)
    chain = laptop.home.chain()
    whole = laptop.membership.chain()
    words = {"old": laptop.home.machine, "new": thief.peer_id}
    by_machine = sign_rotation(laptop.home.namespace, sign=laptop.home.key().sign, **words)
    by_process = sign_rotation(laptop.home.namespace, sign=process.sign, **words)
    of_itself = sign_rotation(
        laptop.home.namespace, old=process.peer_id, new=thief.peer_id, sign=process.sign
    )
    for node, shown, signature, rule in (
        (thief, encode_chain(chain), by_process, "bad_signature"),
        (thief, encode_chain(chain), b"", "bad_signature"),
        (laptop.node, encode_chain(chain), by_machine, "bad_signature"),
        (thief, whole, of_itself, "chain"),
        (thief, b"nothing", by_machine, "malformed"),
        (thief, encode_chain(decode_chain(whole)[:1]), by_machine, "bad_signature"),
    ):
        opening = Opening(do="rotate", chain=shown, proof=signature)
        outcome = await ask_admin(node, parse_address(attic.at), opening)
        assert (outcome.refused, outcome.chain) == (rule, b"")
    # Who was removed has no new key either.
    remove_member(attic.home, laptop.home.machine)
    attic.membership.look()
    opening = Opening(do="rotate", chain=encode_chain(chain), proof=by_machine)
    assert (await ask_admin(thief, parse_address(attic.at), opening)).refused == "revoked"


async def test_a_thief_hides_no_key_under_another_name(house: Household) -> None:
    """What it changes the key to stays known by the machine's name: both keys are removed by it."""
    attic, _, laptop = await three(house)
    old = laptop.home.machine
    thief = house.network.node(load_key(house.path / "thief.key").peer_id)
    signature = sign_rotation(
        laptop.home.namespace, old=old, new=thief.peer_id, sign=laptop.home.key().sign
    )
    shown = encode_chain(laptop.home.chain())
    for name in ("desk", "", "laptop"):
        opening = Opening(do="rotate", chain=shown, proof=signature, name=name)
        outcome = await ask_admin(thief, parse_address(attic.at), opening)
        assert (outcome.refused, outcome.name) == ("", "laptop")
        assert read_members(attic.home.folder)[thief.peer_id].name == "laptop"
    # Nobody is removed by a name that two keys have: the error names both.
    with pytest.raises(ConfigurationError, match=f"2 machines.*{old}") as raised:
        remove_member(attic.home, "laptop")
    assert thief.peer_id in raised.value.message
    remove_member(attic.home, old)
    attic.membership.look()
    assert attic.judges(laptop) == "revoked"
    # The other key is a machine of its own, and the only one of the name from now on.
    chain = outcome.chain
    assert isinstance(attic.membership.lock.judge(thief.peer_id, chain, house.now()), Member)
    assert remove_member(attic.home, "laptop") == thief.peer_id
    attic.membership.look()
    assert not isinstance(attic.membership.lock.judge(thief.peer_id, chain, house.now()), Member)


async def test_no_key_is_changed_for_less(house: Household) -> None:
    """An admin that would give less, and nobody that can be reached: the old key stays."""
    attic = house.first("attic")
    desk = await house.join("desk", by=attic, scopes=frozenset({"dial", "admin"}))
    laptop = await house.join("laptop", by=attic)
    phone = await house.join("phone", by=attic, mine=True)
    for machine in (laptop, phone):
        machine.knows(desk)
    gone(attic)
    for machine, why in ((laptop, "other things"), (phone, "other things")):
        with pytest.raises(NotPermitted, match=why):
            await new_chain(machine.membership, rotating(machine))
        machine.restart()
        assert isinstance(machine.member, Member)
    gone(desk)
    with pytest.raises(PeerUnreachable, match="only one can give"):
        await new_chain(laptop.membership, rotating(laptop))
