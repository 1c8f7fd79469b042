"""Which grants are made, and when and by whom they are renewed."""

from __future__ import annotations

import attrs
import pytest
from made_up_members import ADMIN_SCOPES, DAY, NOW, MadeUpMember, MadeUpNamespace

from punch.access import (
    Chain,
    Issuer,
    Lock,
    Member,
    Namespace,
    Refusal,
    encode_chain,
    hidden_name,
    is_name,
    is_rotation,
    renew_at,
    sign_rotation,
)
from punch.capability import PeerId
from punch.exceptions import NotPermitted

HOME = MadeUpNamespace("home")
LAPTOP = PeerId("laptop")


def issuer(member: MadeUpMember | None = None) -> Issuer:
    """The root, or a member."""
    if member is None:
        return Issuer(key=HOME.namespace.root, sign=HOME.keys.signer(HOME.namespace.root))
    return Issuer(key=member.peer_id, sign=member.sign, chain=member.chain)


def judged(chain: Chain, lock: Lock | None = None, *, now: float = NOW) -> Member | str:
    """What a lock makes of it."""
    found = (lock or HOME.lock()).judge(chain[-1].grant.subject, encode_chain(chain), now)
    return found.rule if isinstance(found, Refusal) else found


def test_what_is_issued_is_admitted() -> None:
    """From the root down to a process, with the usual times."""
    lock = HOME.lock()
    desk = issuer().issue(lock, PeerId("desk"), now=NOW + 0.7, kind="admin", scopes=ADMIN_SCOPES)
    by_desk = Issuer(key=PeerId("desk"), sign=HOME.keys.signer(PeerId("desk")), chain=desk)
    machine = by_desk.issue(lock, LAPTOP, now=NOW, name=hidden_name("Laptop", bytes(16)))
    on_laptop = Issuer(key=LAPTOP, sign=HOME.keys.signer(LAPTOP), chain=machine)
    process = on_laptop.issue_process(lock, PeerId("p"), now=NOW)

    found = judged(process)
    assert isinstance(found, Member)
    assert is_name("Laptop", found.name)
    assert (found.machine, found.owner) == (LAPTOP, LAPTOP)
    assert found.scopes == {"dial", "listen"}
    assert [link.grant.ends - NOW for link in process] == [3650 * DAY, 90 * DAY, DAY]
    assert [renew_at(link.grant) for link in process] == [
        NOW + 3620 * DAY,
        NOW + 60 * DAY,
        NOW + DAY // 2,
    ]


def test_a_grant_ends_no_later_than_its_issuers() -> None:
    """Whatever was asked for."""
    desk = HOME.admin("desk", ends=NOW + 10)
    chain = issuer(desk).issue(HOME.lock(), LAPTOP, now=NOW, seconds=1000)
    assert chain[-1].grant.ends == NOW + 10
    with pytest.raises(NotPermitted, match="renew it first"):
        issuer(desk).issue(HOME.lock(), LAPTOP, now=NOW + 10)


@pytest.mark.parametrize(
    ("who", "what", "said"),
    [
        (HOME.machine("m"), {}, "is no admin"),
        (HOME.admin("a", scopes={"admin", "dial"}), {"scopes": {"dial", "lend"}}, "lend are not"),
        (HOME.admin("a"), {"kind": "admin"}, "has the scope admin"),
        (HOME.admin("a"), {"scopes": {"admin"}}, "has the scope admin"),
        (HOME.admin("a"), {"seconds": 0}, "is none"),
        (HOME.machine("m"), {"kind": "process", "scopes": {"lend"}}, "lend are not"),
    ],
)
def test_nothing_is_signed_that_a_lock_would_refuse(
    who: MadeUpMember, what: dict[str, object], said: str
) -> None:
    """The signer hears why."""
    with pytest.raises(NotPermitted, match=said):
        issuer(who).issue(HOME.lock(), LAPTOP, now=NOW, **what)  # type: ignore[arg-type]  # of many types


def test_a_chain_that_would_be_too_long_is_not_made() -> None:
    """The third admin lets in machines, and no fourth admin."""
    third = HOME.admin("3", by=HOME.admin("2", by=HOME.admin("1")))
    issuer(third).issue(HOME.lock(), LAPTOP, now=NOW)
    with pytest.raises(NotPermitted, match="nearer to it"):
        issuer(third).issue(HOME.lock(), LAPTOP, now=NOW, kind="admin", scopes=ADMIN_SCOPES)


def test_a_grant_after_a_removal_has_a_greater_number() -> None:
    """Whoever it was that removed."""
    desk = HOME.admin("desk")
    lock = HOME.lock()
    numbers = []
    for by in (desk, None, desk):
        chain = issuer(desk).issue(lock, LAPTOP, now=NOW)
        numbers.append(chain[-1].grant.number)
        assert isinstance(judged(chain, lock), Member)
        HOME.remove(LAPTOP, by=by, lock=lock)
        assert judged(chain, lock) == "revoked"
    assert numbers == [1, 2, 3]


def test_a_renewed_grant_has_the_same_terms() -> None:
    """At whatever admin; the old one goes on counting until its end."""
    lock = HOME.lock()
    first, second = HOME.admin("1"), HOME.admin("2", scopes={"admin", "dial", "listen"})
    name = hidden_name("Laptop", bytes(16))
    old = issuer(first).issue(lock, LAPTOP, now=NOW, scopes={"dial", "lend"}, name=name)
    when = renew_at(old[-1].grant)
    assert when == NOW + 60 * DAY

    new = issuer(second).renew(lock, encode_chain(old), LAPTOP, now=when)

    assert isinstance(new, tuple)
    grant = new[-1].grant
    assert (grant.ends, grant.name) == (when + 90 * DAY, name)
    assert grant.scopes == {"dial"}
    assert isinstance(judged(new, lock, now=when), Member)
    assert isinstance(judged(old, lock, now=when), Member)


def test_nobody_renews_what_counts_no_longer() -> None:
    """Each hears the rule."""
    lock = HOME.lock()
    desk = HOME.admin("desk")
    old = issuer(desk).issue(lock, LAPTOP, now=NOW)
    guest = issuer(desk).issue(lock, PeerId("guest"), now=NOW, seconds=DAY, renews=False)
    process = HOME.process("p", on=HOME.machine("m", by=desk))

    def renewed(chain: Chain, *, now: float = NOW, key: PeerId | None = None) -> str:
        key = key or chain[-1].grant.subject
        found = issuer(desk).renew(lock, encode_chain(chain), key, now=now)
        return found.rule if isinstance(found, Refusal) else ""

    assert renew_at(guest[-1].grant) is None
    assert renewed(old) == ""
    assert renewed(old, now=NOW + 91 * DAY) == "expired"
    assert renewed(old, key=PeerId("thief")) == "wrong_key"
    assert renewed(guest) == "expired"
    assert renewed(process.chain) == "chain"
    HOME.remove(LAPTOP, by=desk, lock=lock)
    assert renewed(old) == "revoked"


def test_a_machine_of_an_owner_is_renewed_by_that_owners_admin() -> None:
    """No admin says of a machine that it is another's: by another's word it is its own."""
    lock = HOME.lock()
    desk, other = HOME.admin("desk"), HOME.admin("other")
    mine = issuer(desk).issue(lock, LAPTOP, now=NOW, is_mine=True)
    assert mine[-1].grant.owner == desk.peer_id
    others = issuer(other).renew(lock, encode_chain(mine), LAPTOP, now=NOW)
    assert isinstance(others, tuple)
    assert others[-1].grant.owner == LAPTOP
    kept = issuer(desk).renew(lock, encode_chain(mine), LAPTOP, now=NOW)
    assert isinstance(kept, tuple)
    assert kept[-1].grant.owner == desk.peer_id
    by_root = issuer().renew(lock, encode_chain(mine), LAPTOP, now=NOW)
    assert isinstance(by_root, tuple)
    assert by_root[-1].grant.owner == desk.peer_id
    claimed = HOME.machine("m", by=other, owner=desk.peer_id)
    assert judged(claimed.chain) == "chain"


def test_the_root_says_whose_an_admin_is() -> None:
    """Where its key is kept: an admin that is let in as one's own is one's own."""
    root = attrs.evolve(issuer(), owner=PeerId("desk"))
    for is_mine, owner in ((True, PeerId("desk")), (False, LAPTOP)):
        chain = root.issue(
            HOME.lock(), LAPTOP, now=NOW, kind="admin", scopes=ADMIN_SCOPES, is_mine=is_mine
        )
        assert chain[-1].grant.owner == owner
        assert isinstance(judged(chain), Member)


def test_a_new_key_gets_the_terms_of_the_old_one() -> None:
    """By an admin or by the root, in a chain that counts; an owner of its own moves with it."""
    lock, new = HOME.lock(), PeerId("new-laptop")
    desk, other = HOME.admin("desk"), HOME.admin("other")
    for is_mine, by, owner in (
        (False, other, new),
        (True, desk, desk.peer_id),
        (True, None, desk.peer_id),
        (True, other, new),
    ):
        old = issuer(desk).issue(
            lock,
            LAPTOP,
            now=NOW,
            scopes={"dial"},
            is_mine=is_mine,
            name=hidden_name("m", bytes(16)),
        )
        chain = issuer(by).renew(lock, encode_chain(old), LAPTOP, now=NOW + DAY, subject=new)
        assert isinstance(chain, tuple)
        grant = chain[-1].grant
        assert (grant.subject, grant.owner, grant.scopes) == (new, owner, frozenset({"dial"}))
        assert (grant.ends, grant.name) == (NOW + 91 * DAY, old[-1].grant.name)
        assert isinstance(judged(chain, now=NOW + DAY), Member)
    HOME.remove(LAPTOP, by=desk, lock=lock)
    refused = issuer(other).renew(lock, encode_chain(old), LAPTOP, now=NOW, subject=new)
    assert isinstance(refused, Refusal)
    assert refused.rule == "revoked"


def test_an_old_key_signs_for_one_new_key_alone() -> None:
    """In one namespace, and for no other purpose."""
    namespace, sign = HOME.namespace, HOME.keys.signer(LAPTOP)
    new, other = PeerId("new-laptop"), PeerId("other")
    signature = sign_rotation(namespace, old=LAPTOP, new=new, sign=sign)
    work = MadeUpNamespace("work").namespace

    def holds(where: Namespace = namespace, *, old: PeerId = LAPTOP, to: PeerId = new) -> bool:
        return is_rotation(where, old=old, new=to, signature=signature, verify=HOME.keys.verify)

    assert holds()
    assert not holds(to=other)
    assert not holds(old=other)
    assert not holds(work)


def test_a_name_is_not_read_off_a_grant() -> None:
    """Two grants of one name look different; who knows it sees that it is the same."""
    one, two = (hidden_name("Laptop", bytes([salt] * 16)) for salt in (1, 2))
    assert one[16:] != two[16:]
    assert b"Laptop" not in one
    assert is_name("Laptop", one)
    assert is_name("Laptop", two)
    assert not is_name("laptop", one)
    assert not is_name("Laptop", b"")
    with pytest.raises(ValueError, match="16 bytes"):
        hidden_name("Laptop", b"")
