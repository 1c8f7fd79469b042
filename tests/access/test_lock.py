"""Who a lock lets in, and what it says to all others."""

from __future__ import annotations

import attrs
import pytest
from made_up_members import DAY, NOW, Keys, MadeUpMember, MadeUpNamespace, RealKeys, StandIns

from punch.access import STRANGER, Introduction, Member, Refusal, encode_chain, sign_grant
from punch.capability import PeerId
from punch.exceptions import LocalProtocolError


@pytest.fixture(params=[StandIns, RealKeys], ids=["stand-ins", "real-keys"])
def home(request: pytest.FixtureRequest) -> MadeUpNamespace:
    """A namespace, with either kind of keys."""
    keys: Keys = request.param()
    return MadeUpNamespace("home", keys=keys)


def rule(home: MadeUpNamespace, shown: MadeUpMember, *, now: float = NOW, needs: str = "") -> str:
    """The rule that is broken, or nothing."""
    found = home.lock().judge(shown.peer_id, shown.encoded, now, frozenset(needs.split()))
    return found.rule if isinstance(found, Refusal) else ""


def test_every_link_of_a_chain_is_a_member(home: MadeUpNamespace) -> None:
    """Admin, machine and process each come in with what leads to them."""
    desk = home.admin("desk")
    laptop = home.machine("laptop", by=desk)
    process = home.process("listener", on=laptop)
    lock = home.lock()

    found = lock.judge(process.peer_id, process.encoded, NOW, frozenset({"listen"}))

    assert found == Member(
        peer_id=process.peer_id,
        machine=laptop.peer_id,
        owner=laptop.peer_id,
        scopes=frozenset({"dial", "listen"}),
        ends=NOW + DAY,
        number=1,
        name=b"",
        is_admin=False,
        chain=process.chain,
    )
    assert [rule(home, member) for member in (desk, laptop, process)] == ["", "", ""]


def test_a_root_lets_a_machine_in_by_itself(home: MadeUpNamespace) -> None:
    """An admin is a convenience, not a need."""
    assert rule(home, home.process("p", on=home.machine("m"))) == ""


def test_a_door_admits_a_member_for_the_roles_that_its_scopes_allow(home: MadeUpNamespace) -> None:
    """Each role needs a scope; unknown ones need none."""
    member = home.process("p", on=home.machine("m", scopes={"dial"}))
    lock = home.lock()

    def refused(*roles: str, namespace: str = "home", root: bytes | None = None) -> str:
        introduction = Introduction(
            namespace=namespace, roles=frozenset(roles), grant=member.encoded, root=root
        )
        found = lock.admit(member.peer_id, introduction, NOW)
        return found.rule if found is not None else ""

    assert refused("dialer", "oracle", root=home.namespace.key) == ""
    assert refused("dialer", "listener") == "scope"
    assert refused("dialer", namespace="work") == "wrong_namespace"
    assert refused("dialer", root=bytes(32)) == "no_grant"


def test_a_stranger_hears_the_same_words_whatever_it_guessed(home: MadeUpNamespace) -> None:
    """Neither the name nor the root's key is confirmed to anybody who shows no chain from it."""
    lock = home.lock()
    other = MadeUpNamespace("home", root="other", keys=home.keys)
    forged = attrs.evolve(home.admin("me").chain[0], signature=bytes(64))
    shown = [None, other.admin("me").encoded, encode_chain((forged,))]

    heard = {
        lock.admit(home.keys.peer_id("me"), Introduction(namespace=name, grant=grant), NOW)
        for name in ("home", "work")
        for grant in shown
    }

    assert heard == {STRANGER}


def test_a_grant_serves_no_other_key(home: MadeUpNamespace) -> None:
    """Whoever copies a chain from a roster has nothing."""
    member = home.machine("m", by=home.admin("a"))
    found = home.lock().judge(home.keys.peer_id("thief"), member.encoded, NOW)
    assert isinstance(found, Refusal)
    assert found.rule == "wrong_key"


def test_ends_have_five_minutes_of_grace(home: MadeUpNamespace) -> None:
    """Clocks differ; and nothing is remembered beyond its end."""
    member = home.machine("m", by=home.admin("a"), ends=NOW)
    lock = home.lock()
    assert isinstance(lock.judge(member.peer_id, member.encoded, NOW + 300), Member)
    late = lock.judge(member.peer_id, member.encoded, NOW + 301)
    assert isinstance(late, Refusal)
    assert late.rule == "expired"
    assert rule(home, member, now=float("inf")) == "expired"
    assert rule(home, member, now=float("nan")) == "expired"


def test_a_process_grant_is_for_a_day(home: MadeUpNamespace) -> None:
    """A machine that was removed or stolen leaves no process behind that lasts for a year."""
    laptop = home.machine("m", by=home.admin("a"))
    assert rule(home, home.process("p", on=laptop, ends=NOW + DAY + 300)) == ""
    assert rule(home, home.process("p", on=laptop, ends=NOW + DAY + 301)) == "chain"


def test_a_scope_that_is_not_granted_is_refused(home: MadeUpNamespace) -> None:
    """The member keeps what it has."""
    member = home.machine("m", by=home.admin("a"), scopes={"dial"})
    assert rule(home, member, needs="dial") == ""
    assert rule(home, member, needs="dial lend") == "scope"


def test_no_step_of_a_chain_allows_more_than_the_one_before(home: MadeUpNamespace) -> None:
    """Neither scopes nor time."""
    admin = home.admin("a", scopes={"admin", "dial"}, ends=NOW + DAY)
    machine = home.machine("m", by=admin, scopes={"dial"}, ends=NOW + DAY)
    assert rule(home, machine) == ""
    assert rule(home, home.machine("m", by=admin, scopes={"dial", "lend"}, ends=NOW)) == "chain"
    assert rule(home, home.machine("m", by=admin, scopes={"dial"}, ends=NOW + DAY + 1)) == "chain"
    assert rule(home, home.process("p", on=machine, scopes={"dial", "x"})) == "chain"


def test_a_broken_signature_below_the_root_is_told(home: MadeUpNamespace) -> None:
    """Whose grant was signed by the root is no stranger, and can do something about it."""
    process = home.process("p", on=home.machine("m", by=home.admin("a")))
    for position, expected in enumerate(("no_grant", "bad_signature", "bad_signature")):
        links = list(process.chain)
        links[position] = attrs.evolve(links[position], signature=bytes(64))
        found = home.lock().judge(process.peer_id, encode_chain(tuple(links)), NOW)
        assert isinstance(found, Refusal)
        assert found.rule == expected


def test_five_grants_fit_a_greeting() -> None:
    """Three admins, a machine and a process, with the longest name and every scope."""
    home = MadeUpNamespace("n" * 64, keys=RealKeys())
    first = home.admin("1")
    third = home.admin("3", by=home.admin("2", by=first))
    machine = home.machine("m", by=third, scopes={"dial", "listen", "lend", "borrow", "relay"})
    process = home.process("p", on=machine)
    assert rule(home, process) == ""
    assert len(process.encoded) < 2560
    fourth = home.admin("4", by=third)
    assert rule(home, fourth) == "chain"
    with pytest.raises(LocalProtocolError):
        home.process("p", on=home.machine("m", by=fourth)).encoded  # noqa: B018


def test_unknown_scopes_and_keys_are_carried(home: MadeUpNamespace) -> None:
    """A later version may say more; it is signed all the same."""
    admin = home.admin("a", scopes={"admin", "dial", "teleport"})
    found = home.lock().judge(
        PeerId(home.keys.peer_id("m")),
        home.machine("m", by=admin, scopes={"teleport"}).encoded,
        NOW,
        frozenset({"teleport"}),
    )
    assert isinstance(found, Member)
    assert found.scopes == {"teleport"}


def test_what_nobody_would_read_is_not_signed(home: MadeUpNamespace) -> None:
    """A fault of ours shows where it is made."""
    good = home.machine("m", by=home.admin("a")).chain[-1].grant
    for wrong in (
        attrs.evolve(good, scopes=frozenset({"admin"})),
        attrs.evolve(good, kind="admin"),
        attrs.evolve(good, subject=good.root),
        attrs.evolve(good, subject=good.issuer),
        attrs.evolve(good, number=0),
        attrs.evolve(good, under=0),
        attrs.evolve(good, ends=-1),
        attrs.evolve(good, ends=1 << 65),
        attrs.evolve(good, name=b"x"),
        attrs.evolve(good, namespace="a/b"),
        attrs.evolve(good, subject=PeerId("x" * 60)),
    ):
        with pytest.raises(LocalProtocolError):
            sign_grant(wrong, home.keys.signer(good.issuer))
