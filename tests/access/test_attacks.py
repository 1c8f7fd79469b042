"""What a member, a former member or a stranger tries with grants and removals, each a test."""

from __future__ import annotations

import attrs
import msgpack
import pytest
from made_up_members import ADMIN_SCOPES, DAY, NOW, MadeUpMember, MadeUpNamespace, RealKeys

from punch.access import (
    GRANT_CONTEXT,
    REVOCATION_CONTEXT,
    STRANGER,
    Introduction,
    Issuer,
    Lock,
    Member,
    Refusal,
    Remembered,
    SignedGrant,
    encode_chain,
    key_of,
    peer_of,
    read_revocation,
)
from punch.access._grant import digest_of
from punch.capability import PeerId
from punch.exceptions import LocalProtocolError, NotPermitted, RemoteProtocolError
from punch.wire import SIGNING_CONTEXT, encode_map

HOME = MadeUpNamespace("home", keys=RealKeys())
DESK = HOME.admin("desk")
LAPTOP = HOME.machine("laptop", by=DESK)
ROOT = HOME.namespace.root


def heard(
    chain: bytes | tuple[SignedGrant, ...],
    who: PeerId,
    *,
    lock: Lock | None = None,
    now: float = NOW,
) -> str:
    """The rule that is broken, or nothing."""
    encoded = chain if isinstance(chain, bytes) else encode_chain(chain)
    found = (lock or HOME.lock()).judge(who, encoded, now)
    return found.rule if isinstance(found, Refusal) else ""


def fields(member: MadeUpMember, **change: object) -> dict[str, object]:
    """The map of a member's grant, changed; `None` takes a field out."""
    found = msgpack.unpackb(member.chain[-1].encoded) | change
    return {name: value for name, value in found.items() if value is not None}


def packed(member: MadeUpMember, encoded: bytes, *, by: MadeUpMember | None = DESK) -> bytes:
    """A chain whose last grant is *encoded*, signed by *by* or the root."""
    sign = HOME.keys.signer(by.peer_id if by is not None else ROOT)
    above = [(link.encoded, link.signature) for link in member.chain[:-1]]
    links = [*above, (encoded, sign(GRANT_CONTEXT + encoded))]
    return encode_map({"grants": [{"grant": one, "signature": other} for one, other in links]})


def test_the_attacks_begin_with_a_member() -> None:
    """So that what is refused below is refused for what was changed."""
    assert heard(LAPTOP.chain, LAPTOP.peer_id) == ""
    assert heard(packed(LAPTOP, LAPTOP.chain[-1].encoded), LAPTOP.peer_id) == ""


# ---- who signs ----


@pytest.mark.parametrize("kind", ["admin", "machine", "process"])
def test_a_process_signs_nothing(kind: str) -> None:
    """A program that is taken over lets nobody in."""
    process = HOME.process("p", on=DESK)
    make = {"admin": HOME.admin, "machine": HOME.machine}
    if kind == "process":
        guest = HOME.process("guest", on=process)
    else:
        guest = make[kind]("guest", by=process)
    assert heard(guest.chain, guest.peer_id) == "chain"


@pytest.mark.parametrize("kind", ["admin", "machine"])
def test_a_machine_lets_in_no_machine(kind: str) -> None:
    """Only what runs on it, for a day."""
    make = {"admin": HOME.admin, "machine": HOME.machine}
    guest = make[kind]("guest", by=LAPTOP, scopes={"dial"} | ({"admin"} & {kind}))
    assert heard(guest.chain, guest.peer_id) == "chain"
    lasting = HOME.process("guest", on=LAPTOP, ends=NOW + 89 * DAY)
    assert heard(lasting.chain, lasting.peer_id) == "chain"


def test_a_machine_makes_no_admin_of_itself() -> None:
    """Not by its own word, not by another kind, not by another scope."""
    for change in (
        {"kind": "admin"},
        {"scopes": ["admin", "dial", "listen"]},
        {"kind": "admin", "scopes": ["admin", "dial", "listen"]},
    ):
        encoded = encode_map(fields(LAPTOP, **change))
        rule = heard(packed(LAPTOP, encoded, by=LAPTOP), LAPTOP.peer_id)
        assert rule in ("malformed", "bad_signature")


def test_a_chain_has_no_gap() -> None:
    """Whoever has seen an admin's grant puts nothing of its own behind it."""
    thief = HOME.keys.peer_id("thief")
    encoded = encode_map(fields(LAPTOP, issuer=key_of(thief)))
    signature = HOME.keys.signer(thief)(GRANT_CONTEXT + encoded)
    links = [
        *({"grant": link.encoded, "signature": link.signature} for link in DESK.chain),
        {"grant": encoded, "signature": signature},
    ]
    assert heard(encode_map({"grants": links}), LAPTOP.peer_id) == "chain"
    other = HOME.machine("guest", by=HOME.admin("other"))
    assert heard((*DESK.chain, other.chain[-1]), other.peer_id) == "chain"
    assert heard((*DESK.chain, other.chain[-1], LAPTOP.chain[-1]), LAPTOP.peer_id) == "chain"


def test_nobody_lets_itself_in() -> None:
    """Neither as its own root, nor as its own issuer, nor in a circle."""
    one = HOME.keys.peer_id("one")
    selfmade = encode_map(
        fields(DESK, subject=key_of(one), issuer=key_of(one), owner=key_of(one), under=1)
    )
    assert heard(packed(DESK, selfmade), one) == "malformed"
    first = HOME.admin("first", by=DESK)
    second = HOME.admin("second", by=first)
    circle = HOME.admin("first", by=second)
    assert heard(circle.chain, circle.peer_id) == "chain"
    without_root = circle.chain[1:]
    assert heard(without_root, circle.peer_id) == "no_grant"
    back = HOME.admin("desk", by=second)
    assert heard(back.chain, back.peer_id) == "chain"


def test_the_root_key_is_no_member() -> None:
    """Whoever holds it signs grants for machines; a door never meets it."""
    encoded = encode_map(fields(LAPTOP, subject=key_of(ROOT), owner=key_of(ROOT)))
    assert heard(packed(LAPTOP, encoded), ROOT) == "malformed"
    assert heard(LAPTOP.chain, ROOT) == "wrong_key"


def test_a_signature_for_another_purpose_is_none() -> None:
    """Peers sign what others make, such as registrations: that is no grant and no removal."""
    last = LAPTOP.chain[-1]
    for context in (b"", SIGNING_CONTEXT, REVOCATION_CONTEXT):
        signature = DESK.sign(context + last.encoded)
        chain = (*DESK.chain, attrs.evolve(last, signature=signature))
        assert heard(chain, LAPTOP.peer_id) == "bad_signature"
    word = read_revocation(HOME.remove(LAPTOP, by=DESK))
    signature = DESK.sign(GRANT_CONTEXT + word.encoded)
    travelling = encode_map({"revocation": word.encoded, "signature": signature})
    assert HOME.lock().add([travelling]) == ()


@pytest.mark.parametrize("length", [0, 1, 63])
def test_a_part_of_a_signature_is_none(length: int) -> None:
    """And neither is one that is filled up."""
    for position in range(2):
        for is_filled in (False, True):
            links = list(LAPTOP.chain)
            signature = links[position].signature
            filler = bytes(byte ^ 1 for byte in signature[length:]) if is_filled else b""
            links[position] = attrs.evolve(links[position], signature=signature[:length] + filler)
            assert heard(tuple(links), LAPTOP.peer_id) in ("no_grant", "bad_signature")


def test_a_key_of_small_order_signs_nothing_of_others() -> None:
    """Some Ed25519 libraries take such a key's signature for any message."""
    for key in (b"\1" + bytes(31), bytes(32)):
        peer_id = peer_of(key)
        encoded = encode_map(fields(LAPTOP, subject=key, owner=key))
        machine = packed(LAPTOP, encoded)
        assert heard(machine, peer_id) in ("", "bad_signature")
        for signature in (b"\1" + bytes(63), bytes(64)):
            assert not HOME.keys.verify(peer_id, b"whatever", signature)


# ---- whose grant ----


def test_a_grant_serves_its_key_alone() -> None:
    """A machine's chain, read off a roster, serves no process, no other machine and no admin."""
    process = HOME.process("p", on=LAPTOP)
    for thief in (DESK.peer_id, process.peer_id, HOME.keys.peer_id("thief")):
        assert heard(LAPTOP.chain, thief) == "wrong_key"
    assert heard(process.chain, LAPTOP.peer_id) == "wrong_key"
    assert heard(process.chain[:-1], process.peer_id) == "wrong_key"


def test_a_key_has_one_spelling() -> None:
    """A peer id with a space behind it verifies as the key in some libraries."""
    for spelled in (f"{LAPTOP.peer_id} ", f"{LAPTOP.peer_id}\n", LAPTOP.peer_id.lower()):
        assert heard(LAPTOP.chain, PeerId(spelled)) == "wrong_key"
        with pytest.raises(LocalProtocolError):
            key_of(PeerId(spelled))
        with pytest.raises(RemoteProtocolError):
            peer_of(spelled.encode())
    with pytest.raises(LocalProtocolError):
        # A name of as many bytes as a key has would be a key.
        key_of(PeerId("n" * 32))
    assert peer_of(key_of(LAPTOP.peer_id)) == LAPTOP.peer_id


def test_a_remembered_chain_is_judged_anew() -> None:
    """By whom it is shown, when, for what, and whether it was removed since."""
    lock = HOME.lock()
    assert heard(LAPTOP.chain, LAPTOP.peer_id, lock=lock) == ""
    assert heard(LAPTOP.chain, HOME.keys.peer_id("thief"), lock=lock) == "wrong_key"
    assert heard(LAPTOP.chain, LAPTOP.peer_id, lock=lock, now=NOW + 91 * DAY) == "expired"
    lock.add([HOME.remove(LAPTOP, by=DESK)])
    assert heard(LAPTOP.chain, LAPTOP.peer_id, lock=lock) == "revoked"


def test_a_lock_remembers_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine may make as many processes as it likes, and fills no memory."""
    from punch.access import _lock

    monkeypatch.setattr(_lock, "MAX_REMEMBERED_CHAINS", 3)
    monkeypatch.setattr(_lock, "MAX_REMEMBERED_SIGNATURES", 3)
    remembered = Remembered()
    lock = Lock(HOME.namespace, HOME.keys.verify, remembered=remembered)
    members = [HOME.machine(f"m{number}", by=DESK) for number in range(6)]
    for member in (*members, *members):
        assert heard(member.chain, member.peer_id, lock=lock) == ""
    assert len(remembered.members) == 3
    assert len(remembered.signatures) == 3


def counting() -> tuple[Lock, list[PeerId]]:
    """A lock, and whose signatures it has checked."""
    checked: list[PeerId] = []

    def verify(peer_id: PeerId, data: bytes, signature: bytes) -> bool:
        checked.append(peer_id)
        return HOME.keys.verify(peer_id, data, signature)

    return Lock(HOME.namespace, verify), checked


def spellings(chain: tuple[SignedGrant, ...], number: int) -> list[bytes]:
    """As many bytes that say the same: keys of a later version, anywhere, and in any order."""
    links: list[dict[str, object]] = [
        {"grant": link.encoded, "signature": link.signature} for link in chain
    ]
    turned = [dict(reversed(link.items())) for link in links]
    found = [encode_map({"grants": turned})]
    for each in range(number - 1):
        spelled = turned if each % 2 else links
        spelled = [*spelled[:-1], spelled[-1] | {"y": each}] if each % 3 else spelled
        found.append(encode_map({"x": each, "grants": spelled}))
    return found


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_thousand_spellings_of_one_chain_cost_its_signatures_once(length: int) -> None:
    """And fill one place in memory."""
    chain = HOME.process("p", on=LAPTOP).chain[:length]
    who = chain[-1].grant.subject
    lock, checked = counting()
    said = spellings(chain, 1000)
    assert len(set(said)) == 1000
    assert {heard(each, who, lock=lock) for each in said} == {""}
    assert len(checked) == length
    assert heard(chain, who, lock=lock) == ""
    assert len(lock.remembered) == 1


def test_a_copy_of_anothers_chain_costs_one_signature() -> None:
    """However it is spelled and whoever shows it: the first one's, which is remembered."""
    chain = HOME.process("p", on=LAPTOP).chain
    lock, checked = counting()
    for each, said in enumerate(spellings(chain, 300)):
        thief = HOME.keys.peer_id(f"thief {each % 3}")
        assert heard(said, thief, lock=lock) == "wrong_key"
    assert checked == [ROOT]
    assert lock.remembered == ()


def test_a_chain_that_is_not_for_its_peer_is_compared_before_it_is_checked() -> None:
    """A stranger that puts made-up grants behind a real one has none of them checked."""
    thief = HOME.keys.peer_id("thief")
    lock, checked = counting()
    for number in range(100):
        forged = attrs.evolve(LAPTOP.chain[-1], signature=number.to_bytes(64, "big"))
        assert heard((*DESK.chain, forged), thief, lock=lock) == "wrong_key"
        assert (
            heard((attrs.evolve(DESK.chain[0], signature=bytes(64)), forged), thief) == "no_grant"
        )
    assert checked == [ROOT]
    assert heard((*DESK.chain, forged), LAPTOP.peer_id, lock=lock) == "bad_signature"


def test_a_lock_trusts_no_other_locks_verdict() -> None:
    """What a bootstrap remembers for all namespaces of strangers makes a member of one alone."""
    remembered = Remembered()
    work = MadeUpNamespace("work", keys=HOME.keys)
    member = work.machine("laptop", by=work.admin("desk"))
    locks = [
        Lock(namespace, HOME.keys.verify, remembered=remembered)
        for namespace in (work.namespace, HOME.namespace)
    ]
    said = [heard(member.chain, member.peer_id, lock=lock) for lock in (*locks, *locks)]
    assert said == ["", "wrong_namespace", "", "wrong_namespace"]


# ---- which namespace ----


def test_a_namespace_of_the_same_name_is_another_one() -> None:
    """Its root decides."""
    other = MadeUpNamespace("home", root="other", keys=HOME.keys)
    member = other.machine("laptop", by=other.admin("desk"))
    assert heard(member.chain, LAPTOP.peer_id) == "no_grant"
    mixed = (*DESK.chain, member.chain[-1])
    assert heard(mixed, LAPTOP.peer_id) == "chain"
    assert heard((*member.chain[:1], LAPTOP.chain[-1]), LAPTOP.peer_id) == "no_grant"


def test_one_root_with_two_namespaces_has_two_locks() -> None:
    """A member of one is no member of the other, and a removal counts in one."""
    work = MadeUpNamespace("work", keys=HOME.keys)
    member = work.machine("laptop", by=work.admin("desk"))
    assert heard(member.chain, member.peer_id) == "wrong_namespace"
    assert heard((*DESK.chain, member.chain[-1]), member.peer_id) == "chain"
    lock = HOME.lock()
    assert lock.add([work.remove(member, by=work.admin("desk")), work.remove(member)]) == ()
    assert heard(LAPTOP.chain, LAPTOP.peer_id, lock=lock) == ""


def test_the_name_in_a_forged_chain_tells_a_guesser_nothing() -> None:
    """The root's key is no secret, its namespace's name should not be confirmed to a stranger."""
    lock = HOME.lock()
    thief = HOME.keys.peer_id("thief")
    said = set()
    for name in ("home", "work", "office"):
        encoded = encode_map(fields(DESK, namespace=name, subject=key_of(thief)))
        chain = packed(DESK, encoded, by=LAPTOP)
        for spoken in ("home", name):
            introduction = Introduction(namespace=spoken, grant=chain, root=key_of(ROOT))
            said.add(lock.admit(thief, introduction, NOW))
    assert said == {STRANGER}


def test_a_name_that_looks_the_same_is_another_name() -> None:
    """Bytes decide, whatever two letters look like."""
    lock = MadeUpNamespace("hôme", keys=HOME.keys).lock()
    other = MadeUpNamespace("ho\u0302me", keys=HOME.keys)
    member = other.admin("desk")
    assert heard(member.chain, member.peer_id, lock=lock) == "wrong_namespace"


# ---- what it allows ----


def test_no_kind_is_taken_for_another() -> None:
    """The kind is signed: whoever changes it, up or down, has no signature."""
    process = HOME.process("p", on=LAPTOP)
    for member, by in ((DESK, None), (LAPTOP, DESK), (process, LAPTOP)):
        for kind, scopes in (("admin", ["admin"]), ("machine", ["dial"]), ("process", ["dial"])):
            if kind == member.chain[-1].grant.kind:
                continue
            encoded = encode_map(fields(member, kind=kind, scopes=scopes))
            signature = member.chain[-1].signature
            links = [
                *(
                    {"grant": link.encoded, "signature": link.signature}
                    for link in member.chain[:-1]
                ),
                {"grant": encoded, "signature": signature},
            ]
            rule = heard(encode_map({"grants": links}), member.peer_id)
            assert rule == ("no_grant" if by is None else "bad_signature")


def test_a_process_grant_in_a_machines_place_counts_for_a_day() -> None:
    """An admin that signs one for another machine gives that machine nothing to give on."""
    stranger = HOME.process("stranger", on=DESK)
    assert heard(stranger.chain, stranger.peer_id) == ""
    child = HOME.process("child", on=stranger)
    assert heard(child.chain, child.peer_id) == "chain"
    lock = HOME.lock()
    lock.add([HOME.remove(DESK, known=[stranger])])
    assert heard(stranger.chain, stranger.peer_id, lock=lock) == "revoked"


def test_an_admin_is_no_deputy_for_what_it_has_not() -> None:
    """Nobody gets through an admin what the root has not given it."""
    small = HOME.admin("small", scopes={"admin", "dial"})
    guest = HOME.machine("guest", by=small, scopes={"dial", "lend"})
    assert heard(guest.chain, guest.peer_id) == "chain"
    issuer = Issuer(key=small.peer_id, sign=small.sign, chain=small.chain)
    with pytest.raises(NotPermitted):
        issuer.issue(HOME.lock(), guest.peer_id, now=NOW, scopes={"lend"})
    # A renewal is asked for with the terms of another admin: what both have is given.
    rich = HOME.machine("guest", by=DESK, scopes={"dial", "lend"})
    lasting = attrs.evolve(rich.chain[-1].grant, lasts=DAY)
    shown = packed(rich, encode_map(fields(rich, lasts=lasting.lasts)))
    renewed = issuer.renew(HOME.lock(), shown, guest.peer_id, now=NOW)
    assert isinstance(renewed, tuple)
    assert renewed[-1].grant.scopes == {"dial"}


def test_nobody_is_made_owner_of_a_strangers_machine() -> None:
    """What an owner keeps to its own machines goes to none that says it is one."""
    victim = HOME.machine("victim", by=DESK)
    fake = HOME.machine("fake", by=HOME.admin("other"), owner=victim.peer_id)
    assert heard(fake.chain, fake.peer_id) == "chain"
    stolen = HOME.process("p", on=LAPTOP)
    encoded = encode_map(fields(stolen, owner=key_of(victim.peer_id)))
    assert heard(packed(stolen, encoded, by=LAPTOP), stolen.peer_id) == "chain"
    own = encode_map(fields(stolen, owner=key_of(stolen.peer_id)))
    assert heard(packed(stolen, own, by=LAPTOP), stolen.peer_id) == "chain"


# ---- bytes ----


@pytest.mark.parametrize(
    "change",
    [
        {"scopes": [f"s{number}" for number in range(17)]},
        {"scopes": ["s" * 33]},
        {"scopes": ["dial\n"]},
        {"scopes": [""]},
        {"scopes": "dial"},
        {"scopes": [1]},
        {"scopes": None},
        {"scopes": {"dial": True}},
        {"ends": -1},
        {"ends": (1 << 40) + 1},
        {"ends": (1 << 64) - 1},
        {"ends": float(NOW)},
        {"ends": float("inf")},
        {"ends": True},
        {"ends": str(NOW)},
        {"number": 0},
        {"number": 1 << 32},
        {"number": -1},
        {"number": True},
        {"under": -1},
        {"under": 0},
        {"under": 1 << 32},
        {"lasts": -1},
        {"lasts": 1 << 41},
        {"kind": "root"},
        {"kind": b"machine"},
        {"kind": None},
        {"subject": b""},
        {"subject": bytes(31)},
        {"subject": bytes(33)},
        {"subject": "name"},
        {"subject": b"\xff" * 20},
        {"owner": None},
        {"name": b"short"},
        {"name": "text" * 8},
        {"namespace": "ho/me"},
        {"namespace": ""},
        {"namespace": "h" * 65},
        {"namespace": b"home"},
        {"root": None},
    ],
    ids=str,
)
def test_a_value_that_no_grant_has_is_refused(change: dict[str, object]) -> None:
    """Even if an admin has signed it."""
    encoded = msgpack.packb(fields(LAPTOP, **change))
    assert heard(packed(LAPTOP, encoded), LAPTOP.peer_id) == "malformed"


def test_what_is_allowed_at_most_is_read() -> None:
    """The limits themselves are within them."""
    scopes = ["admin", *(f"{number:032d}" for number in range(15))]
    encoded = encode_map(
        fields(DESK, scopes=scopes, ends=1 << 40, number=(1 << 32) - 1, lasts=1 << 40)
    )
    assert heard(packed(DESK, encoded, by=None), DESK.peer_id) == ""


@pytest.mark.parametrize("now", [float("nan"), float("inf"), 1e308, 2.0**63])
def test_no_clock_makes_a_grant_last(now: float) -> None:
    """A time that makes no sense is later than every end."""
    assert heard(LAPTOP.chain, LAPTOP.peer_id, now=now) == "expired"


@pytest.mark.parametrize("now", [-1e308, float("-inf"), 0.0])
def test_a_clock_that_is_far_behind_lets_no_process_in(now: float) -> None:
    """Machines without a battery wake up in 1970: their members come in, and hear of the clock."""
    assert heard(LAPTOP.chain, LAPTOP.peer_id, now=now) == ""
    process = HOME.process("p", on=LAPTOP)
    assert heard(process.chain, process.peer_id, now=now) == "chain"


def variants(encoded: bytes) -> dict[str, bytes]:
    """Other spellings of a grant's map."""
    whole = msgpack.unpackb(encoded)
    size = len(whole)
    ends = msgpack.packb("ends") + msgpack.packb(whole["ends"])
    wide = msgpack.packb("ends") + b"\xcf" + whole["ends"].to_bytes(8, "big")
    kind = msgpack.packb("kind") + msgpack.packb(whole["kind"])
    long_text = msgpack.packb("kind") + b"\xd9\x07machine"
    admin = msgpack.packb("kind") + msgpack.packb("admin")
    return {
        "a wide integer": encoded.replace(ends, wide),
        "a long text": encoded.replace(kind, long_text),
        "a wide map": b"\xde" + size.to_bytes(2, "big") + encoded[1:],
        "a key twice": bytes([0x80 | size + 1]) + encoded[1:] + kind,
        "a key twice, the first one better": bytes([0x80 | size + 1]) + admin + encoded[1:],
        "more behind it": encoded + b"\xc0",
        "less": encoded[:-1],
        "a list": msgpack.packb(list(whole.items())),
        "an extension": msgpack.packb(whole | {"x": msgpack.ExtType(1, b"x")}),
        "a date": msgpack.packb(whole | {"x": msgpack.Timestamp(1)}),
        "a key that is no text": msgpack.packb(whole | {1: 1}, strict_types=True),
        "a short float": msgpack.packb(whole | {"x": 1.5}, use_single_float=True),
    }


@pytest.mark.parametrize("name", sorted(variants(LAPTOP.chain[-1].encoded)))
def test_a_grant_has_one_spelling(name: str) -> None:
    """Two programs that read it differently would judge differently."""
    spelled = variants(LAPTOP.chain[-1].encoded)[name]
    assert spelled != LAPTOP.chain[-1].encoded
    assert heard(packed(LAPTOP, spelled), LAPTOP.peer_id) == "malformed"


def test_nesting_ends_nothing_but_the_chain() -> None:
    """As deep as there is room."""
    for deep in (b"\x91" * 900 + b"\xc0", b"\x81\xa1x" * 300 + b"\xc0"):
        whole = LAPTOP.chain[-1].encoded
        spelled = bytes([whole[0] + 1]) + whole[1:] + b"\xa1x" + deep
        assert heard(packed(LAPTOP, spelled[:1024]), LAPTOP.peer_id) == "malformed"
        assert heard(deep, LAPTOP.peer_id) == "malformed"
        assert HOME.lock().add([deep]) == ()


def test_keys_of_a_later_version_are_ignored_but_signed() -> None:
    """In whatever order."""
    later = encode_map(fields(LAPTOP) | {"x": {"y": [1.5, "z", b"", None, True]}})
    assert heard(packed(LAPTOP, later), LAPTOP.peer_id) == ""
    unsigned = packed(LAPTOP, LAPTOP.chain[-1].encoded).replace(b"\xa4kind", b"\xa4kinc")
    assert heard(unsigned, LAPTOP.peer_id) == "malformed"
    turned = encode_map(dict(reversed(fields(LAPTOP).items())))
    assert heard(packed(LAPTOP, turned), LAPTOP.peer_id) == ""
    chain = (*DESK.chain, attrs.evolve(LAPTOP.chain[-1], encoded=turned))
    assert heard(chain, LAPTOP.peer_id) == "bad_signature"


def test_a_chain_that_is_too_long_is_not_read() -> None:
    """In grants, or in bytes."""
    links = [{"grant": link.encoded, "signature": link.signature} for link in LAPTOP.chain]
    assert heard(encode_map({"grants": links * 3}), LAPTOP.peer_id) == "malformed"
    assert heard(encode_map({"grants": []}), LAPTOP.peer_id) == "malformed"
    assert heard(encode_map({"grants": links, "x": bytes(2560)}), LAPTOP.peer_id) == "malformed"
    assert heard(b"", LAPTOP.peer_id) == "malformed"


# ---- removal ----


def test_an_old_number_is_worth_nothing_again() -> None:
    """Not from the key's own drawer, and not signed anew by another admin with the same number."""
    lock = HOME.lock()
    HOME.remove(LAPTOP, by=DESK, lock=lock)
    other = HOME.admin("other")
    for again in (LAPTOP, HOME.machine("laptop", by=other), HOME.machine("laptop")):
        assert heard(again.chain, again.peer_id, lock=lock) == "revoked"
    new = HOME.machine("laptop", by=other, number=2)
    assert heard(new.chain, new.peer_id, lock=lock) == ""


def test_an_admin_that_removes_itself_is_out_and_stays_out() -> None:
    """With what it runs; it can come back by another admin's grant alone."""
    lock = HOME.lock()
    HOME.remove(DESK, by=DESK, lock=lock)
    process = HOME.process("p", on=DESK)
    assert heard(DESK.chain, DESK.peer_id, lock=lock) == "revoked"
    assert heard(process.chain, process.peer_id, lock=lock) == "revoked"
    by_itself = HOME.admin("desk", by=HOME.admin("helper", by=DESK), number=2)
    assert heard(by_itself.chain, DESK.peer_id, lock=lock) == "chain"
    assert heard(HOME.admin("desk", number=2).chain, DESK.peer_id, lock=lock) == ""


def test_a_root_removes_no_root() -> None:
    """Neither does anybody else."""
    encoded = encode_map(
        {
            "namespace": "home",
            "root": key_of(ROOT),
            "key": key_of(ROOT),
            "number": 1,
            "issuer": key_of(ROOT),
        }
    )
    sign = HOME.keys.signer(ROOT)
    travelling = encode_map(
        {"revocation": encoded, "signature": sign(REVOCATION_CONTEXT + encoded)}
    )
    with pytest.raises(RemoteProtocolError, match="no member"):
        read_revocation(travelling)
    lock = HOME.lock()
    assert lock.add([travelling]) == ()
    assert heard(LAPTOP.chain, LAPTOP.peer_id, lock=lock) == ""


def test_a_map_that_is_grant_and_removal_at_once_is_kept_as_one_of_them() -> None:
    """A removed admin smuggles no removal along with a grant that the remover keeps."""
    victim = HOME.machine("victim", by=HOME.admin("other"))
    both = encode_map(
        fields(LAPTOP) | {"key": key_of(victim.peer_id), "chain": encode_chain(DESK.chain)}
    )
    assert len(both) < 1024
    machine = packed(LAPTOP, both)
    word = encode_map({"revocation": both, "signature": DESK.sign(REVOCATION_CONTEXT + both)})
    lock = HOME.lock()
    friend = MadeUpMember(
        home=HOME,
        peer_id=LAPTOP.peer_id,
        chain=(
            *DESK.chain,
            SignedGrant(
                encoded=both,
                signature=DESK.sign(GRANT_CONTEXT + both),
                grant=LAPTOP.chain[-1].grant,
            ),
        ),
    )
    HOME.remove(DESK, known=[friend], lock=lock)
    lock.add([word])
    assert heard(machine, LAPTOP.peer_id, lock=lock) == ""
    assert heard(victim.chain, victim.peer_id, lock=lock) == ""
    assert digest_of(GRANT_CONTEXT, both) != digest_of(REVOCATION_CONTEXT, both)


def test_a_removed_admin_packs_no_removal_anew() -> None:
    """The chain under which a removal was signed is signed with it."""
    first = HOME.admin("first")
    second = HOME.admin("second", by=first)
    thief = HOME.machine("thief", by=DESK)
    lock = HOME.lock()
    word = HOME.remove(thief, by=second, lock=lock)
    end = HOME.remove(first, known=[second], lock=lock)
    assert heard(thief.chain, thief.peer_id, lock=lock) == "revoked"
    # `first` signs another grant for `second`, which nobody keeps, and packs the removal into it.
    again = HOME.admin("second", by=first, scopes=ADMIN_SCOPES - {"relay"})
    said = msgpack.unpackb(msgpack.unpackb(word)["revocation"]) | {"chain": again.encoded}
    encoded = encode_map(said)
    signature = msgpack.unpackb(word)["signature"]
    repacked = encode_map({"revocation": encoded, "signature": signature})
    for order in ([word, end, repacked], [repacked, end, word]):
        other = HOME.lock()
        other.add(order)
        assert heard(thief.chain, thief.peer_id, lock=other) == "revoked"
        assert repacked not in other.revocations


def test_a_flood_of_a_members_removals_leaves_room_for_others() -> None:
    """A machine may say of itself that it left, as often as it likes: one word is kept."""
    lock = HOME.lock()
    for number in range(1, 9):
        laptop = HOME.machine("laptop", by=DESK, number=number)
        HOME.remove(laptop, by=laptop, lock=lock)
        assert lock.removed_up_to(LAPTOP.peer_id) == number
    assert len(lock.revocations) == 1


def test_a_door_that_forgets_what_it_needs_is_asked_by_role() -> None:
    """A listener's scope is not implied by that of a dialer, nor by being an admin."""
    only = HOME.admin("only", scopes={"admin"})
    lock = HOME.lock()
    found = lock.judge(only.peer_id, only.encoded, NOW)
    assert isinstance(found, Member)
    for role in ("dialer", "listener", "worker", "borrower", "relay"):
        refusal = lock.admit(
            only.peer_id,
            Introduction(namespace="home", roles=frozenset({role}), grant=only.encoded),
            NOW,
        )
        assert refusal is not None
        assert refusal.rule == "scope"
