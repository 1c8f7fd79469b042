"""The library's calls on a closed namespace: whom a name means, and what each of them refuses."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import trio
from membership.test_joining import Admin, open_admin
from membership.test_nearby import add, ask, until, waiting

import punch
from punch.access import Chain, Issuer, Lock, encode_chain, peer_of
from punch.exceptions import ConfigurationError, NotPermitted
from punch.libp2p import Key, load_key, verify
from punch.membership import Asked, Home, MemberRecord, join_with, keep_joined, read_invites
from punch.membership._folder import new_folder
from punch.membership._home import MACHINE_KEY, record_of, salted
from punch.membership._members import add_members, read_members


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return punch.create_namespace("home", called="attic", folder=tmp_path / "namespaces")


def member(
    home: Home, name: str, *, kind: str = "machine", ends_in: int = 90 * 86_400
) -> tuple[Key, Chain]:
    """A machine that the first one has let in, known to it."""
    key = load_key(home.folder.path.parent / f"{name or 'nameless'}-{time.monotonic_ns()}.key")
    scopes = {"dial", "listen", *({"admin"} if kind == "admin" else ())}
    now = time.time()
    chain = Issuer(key=home.machine, sign=home.key().sign, chain=home.chain()).issue(
        Lock(home.namespace, verify),
        key.peer_id,
        now=now if ends_in > 0 else now + ends_in - 60,
        kind="admin" if kind == "admin" else "machine",
        scopes=scopes,
        seconds=ends_in if ends_in > 0 else 1,
        name=salted(name),
    )
    add_members(home.folder, [record_of(chain, called=name, now=now)])
    return key, chain


async def test_a_namespace_is_made_found_and_left(tmp_path: Path) -> None:
    """As by the commands of the same names."""
    folder = tmp_path / "namespaces"
    made = punch.create_namespace("home", folder=folder)
    assert punch.joined_namespaces(folder=folder) == (made,)
    assert punch.find_namespace(folder=folder) == made
    assert punch.find_namespace(str(made.namespace), folder=folder) == made
    with pytest.raises(ConfigurationError, match=r"'hoome'.*joined home@"):
        punch.find_namespace("hoome", folder=folder)
    await punch.leave_namespace(made)
    with pytest.raises(ConfigurationError, match="namespace create"):
        punch.find_namespace(folder=folder)


def test_this_machine_is_listed_whatever_was_written(home: Home) -> None:
    """Its grant says that it is a member."""
    home.folder.remove("members.json")
    assert [each.name for each in punch.list_members(home)] == ["attic"]
    assert punch.list_members(home)[0].is_this_machine


def test_each_machine_is_listed_with_whether_its_grant_counts(home: Home) -> None:
    """The machine that lists them first, and those that are out last."""
    member(home, "desk")
    member(home, "bed", ends_in=-1000)
    gone, _ = member(home, "cellar")
    punch.remove_member(home, gone.peer_id)
    found = [(each.name, each.state) for each in punch.list_members(home)]
    assert found == [
        ("attic", "member"),
        ("desk", "member"),
        ("bed", "ended"),
        ("cellar", "removed"),
    ]


def test_a_name_means_one_machine_or_an_error_says_which_there_are(home: Home) -> None:
    """By name, in any case, by key, and by the end of a key; never one that was removed."""
    desk, _ = member(home, "desk")
    for said in ("desk", "DESK", desk.peer_id, desk.peer_id[-8:], f"..{desk.peer_id[-8:]}"):
        assert punch.find_member(home, said).machine == desk.peer_id
    with pytest.raises(ConfigurationError, match="is it desk"):
        punch.find_member(home, "dekc")
    with pytest.raises(ConfigurationError, match="members list"):
        punch.find_member(home, "")
    other, _ = member(home, "desk")
    with pytest.raises(ConfigurationError, match=r"2 machines.*desk") as raised:
        punch.find_member(home, "desk")
    assert desk.peer_id in str(raised.value)
    assert other.peer_id in str(raised.value)
    punch.remove_member(home, other.peer_id[-8:])
    assert punch.find_member(home, "desk").machine == desk.peer_id
    assert punch.find_member(home, other.peer_id).state == "removed"


def test_a_machine_is_renamed_here_alone_and_to_no_name_that_is_taken(home: Home) -> None:
    """Its own name brings the old one back, and what others say of it does not undo it."""
    desk, chain = member(home, "desk")
    member(home, "lamp")
    assert punch.rename_member(home, "desk", "tower").name == "tower"
    add_members(home.folder, [record_of(chain, called="desk", now=time.time())])
    assert punch.find_member(home, "tower").machine == desk.peer_id
    assert punch.find_member(home, "desk").own_name == "desk"
    for taken in ("lamp", "LAMP", "attic"):
        with pytest.raises(ConfigurationError, match="already"):
            punch.rename_member(home, "tower", taken)
    for wrong in ("", "  x", "a\nb", "x" * 65, desk.peer_id):
        with pytest.raises(ConfigurationError, match="the name is"):
            punch.rename_member(home, "lamp", wrong)
    punch.rename_member(home, "lamp", "l" * 64)
    assert punch.rename_member(home, "tower", "desk").name == "desk"
    assert read_members(home.folder)[desk.peer_id].called == ""


def test_no_name_is_believed_that_the_grant_was_not_given_for(home: Home) -> None:
    """Grants hold a digest of it: whoever tells a name can be checked."""
    desk, chain = member(home, "desk")
    add_members(home.folder, [MemberRecord(machine=desk.peer_id, name="lamp")])
    assert read_members(home.folder)[desk.peer_id].name == "desk"
    key = load_key(home.folder / "new.key").peer_id
    add_members(home.folder, [MemberRecord(machine=key, name="told")])
    assert read_members(home.folder)[key].name == "told"
    assert encode_chain(chain) == read_members(home.folder)[desk.peer_id].chain


def test_a_machine_is_removed_by_name_and_never_this_one(home: Home) -> None:
    """And an admin with the root key alone."""
    member(home, "desk")
    member(home, "boss", kind="admin")
    for said in ("attic", home.machine, home.machine[-10:]):
        with pytest.raises(ConfigurationError, match="punch leave"):
            punch.remove_member(home, said)
    removed = punch.remove_member(home, "desk")
    assert [each.state for each in punch.list_members(home) if each.machine == removed] == [
        "removed"
    ]
    with pytest.raises(ConfigurationError, match="no member"):
        punch.remove_member(home, "desk")
    drawer = home.folder.path.parent / "drawer"
    home.folder.path.joinpath("root.key").rename(drawer)
    with pytest.raises(NotPermitted, match="root key"):
        punch.remove_member(home, "boss")


async def test_an_invite_says_where_it_is_redeemed(tmp_path: Path) -> None:
    """Nowhere, as long as nothing of this machine serves; and the code is in no text of it."""
    home = punch.create_namespace("home", called="attic", folder=tmp_path)
    invite = punch.create_invite(home, uses=2, at=["192.0.2.7:9"])
    assert invite.addresses == ("192.0.2.7:9",)
    assert invite.code not in repr(invite)
    assert read_invites(home).find(invite.identifier) is not None
    with pytest.raises(NotPermitted, match="scopes paint"):
        punch.create_invite(home, scopes={"dial", "paint"})
    with pytest.raises(ConfigurationError, match="--at"):
        punch.create_invite(home, at=["a b"])


async def test_invites_are_listed_without_their_codes(tmp_path: Path) -> None:
    """Those first that can still be used; one that was withdrawn is of no use to anybody."""
    home = punch.create_namespace("home", called="attic", folder=tmp_path)
    first = punch.create_invite(home, uses=2, name="desk", at=["192.0.2.7:9"])
    second = punch.create_invite(home, short=True, seconds=60, at=["192.0.2.7:9"])
    assert punch.withdraw_invite(home, first.identifier).identifier == first.identifier
    shown = punch.list_invites(home)
    assert [(each.identifier, each.state, each.uses_left, each.short) for each in shown] == [
        (second.identifier, "open", 1, True),
        (first.identifier, "withdrawn", 0, False),
    ]
    assert (shown[1].name, shown[1].uses, shown[1].used_by) == ("desk", 2, ())
    for code in (first.code, second.code):
        assert code not in repr(shown)
    with pytest.raises(ConfigurationError, match="withdrawn"):
        punch.withdraw_invite(home, "desk")


async def test_a_machine_nearby_is_approved_by_its_digits_alone(tmp_path: Path) -> None:
    """Its name is its own word; a machine nearby could call itself like another."""
    async with open_admin(tmp_path) as admin:
        shown: list[Asked] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, admin, admin.at, shown)
            await until(lambda: waiting(admin.home))
            (request,) = punch.list_newcomers(admin.home)
            for wrong in ("laptop", "", "12345", "1234567"):
                with pytest.raises(ConfigurationError, match="is not what a screen shows"):
                    punch.approve_newcomer(admin.home, wrong)
            other = f"{(int(request.digits) + 1) % 10**6:06}"
            with pytest.raises(ConfigurationError, match="If the digits differ"):
                punch.approve_newcomer(admin.home, other)
            punch.approve_newcomer(admin.home, f"{request.digits[:3]}-{request.digits[3:]}")
            with pytest.raises(ConfigurationError, match="does not ask any more"):
                punch.refuse_newcomer(admin.home, request)
        assert punch.list_newcomers(admin.home) == ()
        assert punch.find_member(admin.home, "laptop").state == "member"


async def test_a_machine_that_asks_is_refused_by_its_digits(tmp_path: Path) -> None:
    """Of several the one that shows them."""
    async with open_admin(tmp_path) as admin:
        assert add(admin.home, digits="123456")
        assert add(admin.home, digits="654321")
        assert punch.refuse_newcomer(admin.home, "123 456").state == "refused"
        assert [each.digits for each in punch.list_newcomers(admin.home)] == ["654321"]


async def test_who_has_joined_joins_no_second_time(tmp_path: Path) -> None:
    """And a second namespace of the same name is another one, told apart by its fingerprint."""
    async with open_admin(tmp_path) as admin:
        laptop = await kept(admin, tmp_path)
        code = admin.invite()
        with pytest.raises(ConfigurationError, match="already"):
            await punch.join_namespace(code.text(), folder=tmp_path / "laptop")
        with pytest.raises(ConfigurationError, match="already"):
            punch.create_namespace("home", folder=tmp_path / "laptop")
    async with open_admin(tmp_path / "neighbour") as other:
        second = await kept(other, tmp_path)
        assert second.namespace.name == laptop.namespace.name
    folder = tmp_path / "laptop"
    assert set(punch.joined_namespaces(folder=folder)) == {laptop, second}
    with pytest.raises(ConfigurationError, match="several namespaces are called 'home'") as raised:
        punch.find_namespace("home", folder=folder)
    assert str(laptop.namespace) in str(raised.value)
    assert str(second.namespace) in str(raised.value)
    with pytest.raises(ConfigurationError, match="several namespaces"):
        punch.find_namespace(folder=folder)
    assert punch.find_namespace(str(second.namespace), folder=folder) == second


async def kept(admin: Admin, path: Path) -> Home:
    """What the machine ``laptop`` has after joining."""
    with new_folder(path / "laptop") as folder:
        node = admin.network.node(load_key(folder / MACHINE_KEY).peer_id)
        joined = await join_with(node, admin.invite(), called="laptop", now=time.time())
        return keep_joined(joined, folder, now=time.time())


async def test_many_members_with_long_names_keep_nobody_from_joining(tmp_path: Path) -> None:
    """A newcomer is told of as many as fit, those first that were heard of last."""
    async with open_admin(tmp_path) as admin:
        longest = "\U0001f600" * 63
        add_members(
            admin.home.folder,
            [
                MemberRecord(
                    machine=peer_of(number.to_bytes(32)),
                    owner=peer_of(bytes(32)),
                    name=f"{longest}{number % 10}",
                    scopes=frozenset({"dial", "listen", "lend", "borrow", "relay"}),
                    ends=2**40,
                    number=1,
                )
                for number in range(300)
            ],
        )
        laptop = await kept(admin, tmp_path)
        names = {each.name for each in punch.list_members(laptop)}
        assert f"{longest}9" in names
        assert "laptop" in names
        assert len(punch.list_members(laptop)) > 50
