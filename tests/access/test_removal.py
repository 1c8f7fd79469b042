"""Who may remove whom, what a removal takes away, and what it leaves."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import attrs
import pytest
from made_up_members import NOW, MadeUpMember, MadeUpNamespace, StandIns

from punch.access import (
    Lock,
    Member,
    Refusal,
    decode_chain,
    encode_chain,
    read_revocation,
    sign_revocation,
)
from punch.access import _revocations as revocations_module
from punch.capability import PeerId
from punch.exceptions import LocalProtocolError, NotPermitted


@pytest.fixture
def home() -> MadeUpNamespace:
    """A namespace."""
    return MadeUpNamespace("home")


def rule(known: Lock | tuple[Lock, ...], shown: MadeUpMember) -> str:
    """The rule that is broken, or nothing; the same for all locks."""
    locks = (known,) if isinstance(known, Lock) else known
    found = [lock.judge(shown.peer_id, shown.encoded, NOW) for lock in locks]
    (said,) = {each.rule if isinstance(each, Refusal) else "" for each in found}
    return said


def rules(lock: Lock | tuple[Lock, ...], *shown: MadeUpMember) -> list[str]:
    """The rule that each breaks."""
    return [rule(lock, member) for member in shown]


def knowing(home: MadeUpNamespace, *words: bytes) -> tuple[Lock, ...]:
    """Locks that have heard of *words*, each in another order."""
    found = []
    for order in itertools.islice(itertools.permutations(words), 24):
        lock = home.lock()
        for word in order:
            lock.add([word])
        found.append(lock)
    assert len({frozenset(lock.revocations) for lock in found}) == 1
    return tuple(found)


def test_a_removed_machine_is_out_with_all_its_processes(home: MadeUpNamespace) -> None:
    """And nobody else is."""
    desk = home.admin("desk")
    lost, other = home.machine("lost", by=desk), home.machine("other", by=desk)
    process = home.process("p", on=lost)
    lock = home.lock()
    before = lock.judge(process.peer_id, process.encoded, NOW)
    assert isinstance(before, Member)
    assert not lock.is_removed(before)

    assert lock.add([home.remove(lost, by=desk)]) != ()

    assert rules(lock, desk, lost, process, other) == ["", "revoked", "revoked", ""]
    assert lock.is_removed(before)


def test_a_removed_key_comes_back_by_a_greater_number_alone(home: MadeUpNamespace) -> None:
    """What it held before is worth nothing, however often it is shown."""
    desk = home.admin("desk")
    first = home.machine("m", by=desk)
    lock = home.lock()
    home.remove(first, by=desk, lock=lock)
    again = home.machine("m", by=desk, number=lock.removed_up_to(first.peer_id) + 1)
    assert rules(lock, first, again, home.process("p", on=first)) == ["revoked", "", "revoked"]
    assert rule(lock, home.process("p", on=again)) == ""

    home.remove(again, by=desk, lock=lock)
    assert rules(lock, first, again) == ["revoked", "revoked"]


def test_an_admin_removes_no_admin(home: MadeUpNamespace) -> None:
    """Only the root does; and a word that says otherwise changes nothing."""
    desk, server = home.admin("desk"), home.admin("server")
    with pytest.raises(NotPermitted, match="only the root key removes it"):
        home.remove(server, by=desk)
    # The remover does not know that it is an admin.
    word = home.remove(server.peer_id, by=desk)
    lock = knowing(home, word)
    assert rules(lock, server, home.process("p", on=server)) == ["", ""]
    # It does end what the key had as a plain machine.
    assert rule(lock, home.machine("server", by=desk)) == "revoked"
    assert rules(knowing(home, home.remove(server)), desk, server) == ["", "revoked"]


def test_a_machine_says_once_of_each_grant_that_it_leaves(home: MadeUpNamespace) -> None:
    """It can neither burn its key for good, nor keep everybody busy with ever new words."""
    laptop = home.machine("laptop", by=home.admin("desk"))
    renewed = home.machine("laptop", by=home.admin("other"), ends=NOW + 5)
    lock = home.lock()
    first = home.remove(laptop, by=laptop, lock=lock)
    assert lock.add([home.remove(renewed, by=renewed)]) == ()
    assert lock.revocations == (first,)
    with pytest.raises(NotPermitted, match="is removed from home@"):
        home.remove(laptop, by=laptop, lock=lock)
    with pytest.raises(LocalProtocolError, match="of another number"):
        sign_revocation(
            namespace="home",
            root=home.namespace.root,
            key=laptop.peer_id,
            number=2,
            issuer=laptop.peer_id,
            sign=laptop.sign,
            chain=laptop.chain,
        )
    again = home.machine("laptop", by=home.admin("desk"), number=2)
    assert rule(lock, again) == ""
    home.remove(again, by=again, lock=lock)
    assert rule(lock, again) == "revoked"
    assert len(lock.revocations) == 1


def test_a_machine_may_leave_and_remove_nobody(home: MadeUpNamespace) -> None:
    """Neither may a process, not even itself."""
    desk = home.admin("desk")
    laptop, other = home.machine("laptop", by=desk), home.machine("other", by=desk)
    assert rules(knowing(home, home.remove(laptop, by=laptop)), laptop, other) == ["revoked", ""]
    with pytest.raises(NotPermitted, match="is no admin"):
        home.remove(other, by=laptop)
    process = home.process("p", on=laptop)
    for signer, key in ((laptop, other), (process, process), (process, other)):
        with pytest.raises(LocalProtocolError, match="may not remove others"):
            sign_revocation(
                namespace="home",
                root=home.namespace.root,
                key=key.peer_id,
                number=1,
                issuer=signer.peer_id,
                sign=signer.sign,
                chain=signer.chain,
            )


def test_the_root_removes_everybody_but_itself(home: MadeUpNamespace) -> None:
    """It is no member."""
    machine = home.machine("m", by=home.admin("a"))
    assert rule(knowing(home, home.remove(machine)), machine) == "revoked"
    with pytest.raises(NotPermitted, match="no member"):
        home.remove(home.namespace.root)


def test_whom_a_removed_admin_let_in_stays(home: MadeUpNamespace) -> None:
    """As far as the remover knew of it; and what the admin signs later counts for nothing."""
    desk = home.admin("desk")
    friend = home.machine("friend", by=desk)
    second = home.admin("second", by=desk)
    guest = home.machine("guest", by=second)
    unknown = home.machine("unknown", by=desk)
    word = home.remove(desk, known=[friend, guest])
    lock = knowing(home, word)

    assert rules(lock, desk, home.process("p", on=desk)) == ["revoked", "revoked"]
    assert rules(lock, friend, home.process("q", on=friend), second, guest) == ["", "", "", ""]
    assert rule(lock, unknown) == "revoked"


def test_a_removal_can_end_whom_the_admin_let_in(home: MadeUpNamespace) -> None:
    """If the remover asks for it."""
    desk = home.admin("desk")
    friend = home.machine("friend", by=desk)
    guest = home.machine("guest", by=home.admin("second", by=desk))
    lock = knowing(home, home.remove(desk, known=[friend, guest], keep=False))
    assert rules(lock, desk, friend, guest) == ["revoked", "revoked", "revoked"]


def test_two_words_of_the_root_with_one_number_mean_the_same_everywhere(
    home: MadeUpNamespace,
) -> None:
    """Whichever came first; and the root's are told before all others."""
    desk = home.admin("desk")
    friend, other = home.machine("friend", by=desk), home.machine("other", by=desk)
    words = [home.remove(desk, known=[friend]), home.remove(desk, known=[other])]
    locks = knowing(home, *words)
    assert sorted([rule(locks, friend), rule(locks, other)]) == ["", "revoked"]
    by_admin = home.remove(other, by=home.admin("second"))
    for lock in knowing(home, by_admin, words[0]):
        assert lock.revocations == (words[0], by_admin)


def test_no_process_of_a_removed_machine_is_kept(home: MadeUpNamespace) -> None:
    """What runs on a machine is the machine, even if a removal lists it."""
    desk = home.admin("desk")
    process = home.process("p", on=desk)
    word = sign_revocation(
        namespace="home",
        root=home.namespace.root,
        key=desk.peer_id,
        number=1,
        issuer=home.namespace.root,
        sign=home.keys.signer(home.namespace.root),
        kept=(process.chain[-1].digest,),
    )
    assert rules(knowing(home, word), desk, process) == ["revoked", "revoked"]


def test_the_newest_word_of_the_root_on_an_admin_counts(home: MadeUpNamespace) -> None:
    """It may end what an earlier one had kept."""
    desk = home.admin("desk")
    friend = home.machine("friend", by=desk)
    lock = home.lock()
    first = home.remove(desk, known=[friend], lock=lock)
    assert rule(lock, friend) == ""
    second = home.remove(desk, known=[friend], lock=lock, keep=False)
    assert rule(lock, friend) == "revoked"
    later = knowing(home, first, second)
    assert rule(later, friend) == "revoked"
    assert {lock.revocations for lock in later} == {(second,)}


def test_what_a_removed_admin_had_signed_before_it_came_back_stays_out(
    home: MadeUpNamespace,
) -> None:
    """Its new grant is no cover for what it signed under the old one."""
    desk = home.admin("desk")
    rogue = home.machine("rogue", by=desk)
    lock = home.lock()
    home.remove(desk, lock=lock, keep=False)
    back = home.admin("desk", number=lock.removed_up_to(desk.peer_id) + 1)
    assert rules(lock, back, home.machine("friend", by=back), rogue) == ["", "", "revoked"]
    mixed = (*back.chain, rogue.chain[-1])
    found = lock.judge(rogue.peer_id, encode_chain(mixed), NOW)
    assert isinstance(found, Refusal)
    assert found.rule == "chain"


def test_a_removal_outlives_its_signer_only_if_the_root_keeps_it(home: MadeUpNamespace) -> None:
    """An admin that went astray cannot remove anybody after its own removal."""
    desk = home.admin("desk")
    thief, victim = (home.machine(name, by=home.admin("second")) for name in ("thief", "victim"))
    lock = home.lock()
    justly = home.remove(thief, by=desk, lock=lock)
    end = home.remove(desk, lock=lock)
    late = home.remove(victim, by=desk)

    assert rules(knowing(home, justly, end, late), thief, victim) == ["revoked", ""]


def test_a_removed_admin_takes_none_of_its_removals_back(home: MadeUpNamespace) -> None:
    """Not by leaving, not by a greater number that counts for nothing."""
    desk = home.admin("desk")
    thief = home.machine("thief", by=desk)
    lock = home.lock()
    justly = home.remove(thief, by=desk, lock=lock)
    end = home.remove(desk, lock=lock, known=[thief])
    greater = home.remove(thief.peer_id, by=desk, lock=knowing(home, justly)[0])
    leaves = home.remove(desk, by=desk)
    assert rule(knowing(home, justly, end, greater, leaves), thief) == "revoked"


def test_an_admin_that_leaves_takes_nobody_along(home: MadeUpNamespace) -> None:
    """Neither those whom it let in, nor its removals."""
    desk = home.admin("desk")
    friend, thief = home.machine("friend", by=desk), home.machine("thief", by=desk)
    lock = knowing(home, home.remove(thief, by=desk), home.remove(desk, by=desk))
    assert rules(lock, desk, friend, thief) == ["revoked", "", "revoked"]


def test_a_removal_signed_by_nobody_who_may_changes_nothing(home: MadeUpNamespace) -> None:
    """Forged, of another namespace, or under a chain that is none."""
    desk = home.admin("desk")
    friend = home.machine("friend", by=desk)
    good = home.remove(friend, by=desk)
    other = MadeUpNamespace("work", keys=StandIns())
    parts = read_revocation(good)

    def signed(**change: object) -> bytes:
        fields = {
            "namespace": "home",
            "root": home.namespace.root,
            "key": friend.peer_id,
            "number": 1,
            "issuer": desk.peer_id,
            "sign": desk.sign,
            "chain": desk.chain,
        }
        return sign_revocation(**(fields | change))  # type: ignore[arg-type]  # of many types

    forged_chain = (attrs.evolve(desk.chain[0], signature=bytes(32)),)
    lock = home.lock()
    for bad in (
        good[:-1],
        good + b"\0",
        b"",
        signed(sign=friend.sign),
        signed(namespace="work"),
        signed(chain=forged_chain),
        signed(chain=other.admin("desk").chain),
        other.remove(other.machine("friend")),
        signed(issuer=home.namespace.root, chain=()),
    ):
        assert lock.add([bad]) == ()
    assert rule(lock, friend) == ""
    assert lock.add([good, good]) == (good,)
    assert lock.add([good]) == ()
    assert parts.revocation.number == 1


def test_there_is_an_end_to_how_much_can_be_removed(
    home: MadeUpNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The remover hears it; the root has room of its own, and so has every other admin."""
    monkeypatch.setattr(revocations_module, "MAX_REMOVED_KEYS", 6)
    monkeypatch.setattr(revocations_module, "MAX_REMOVED_BELOW", 4)
    lock = home.lock()
    rogue, desk = home.admin("rogue"), home.admin("desk")

    def fill(by: MadeUpMember | None, names: Iterable[str]) -> int:
        done = 0
        for name in names:
            home.remove(PeerId(name), by=by, lock=lock)
            done += 1
        return done

    with pytest.raises(NotPermitted, match="no room for another removal"):
        fill(rogue, map(str, range(9)))
    assert len(lock.revocations) == 4
    with pytest.raises(NotPermitted, match="no room"):
        fill(home.admin("helper", by=rogue), ["x"])
    assert fill(desk, ["a", "b"]) == 2
    with pytest.raises(NotPermitted, match="no room"):
        fill(desk, ["c"])
    # What the root takes away from an admin that went astray makes room.
    home.remove(rogue, lock=lock, keep=False)
    assert fill(desk, ["c", "d"]) == 2
    assert fill(None, "efghi") == 5
    with pytest.raises(NotPermitted, match="no room"):
        fill(None, ["j"])


def test_there_is_an_end_to_the_bytes_of_removals(
    home: MadeUpNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A word may be long; what replaces a longer one finds room where a new one does not."""
    desk = home.admin("desk")
    guests = [home.machine(f"guest{number}", by=desk) for number in range(100)]
    lock = home.lock()
    word = home.remove(desk, known=guests, lock=lock)
    monkeypatch.setattr(revocations_module, "MAX_BYTES", len(word))
    with pytest.raises(NotPermitted, match="no room"):
        home.remove(PeerId("x"), lock=lock)
    with pytest.raises(NotPermitted, match="no room"):
        home.remove(desk, known=[*guests, home.machine("one", by=desk)], lock=lock)
    assert lock.revocations == (word,)
    assert rules(lock, desk, guests[0]) == ["revoked", ""]
    home.remove(desk, known=guests[1:], lock=lock)
    assert rules(lock, desk, guests[0], guests[1]) == ["revoked", "revoked", ""]
    home.remove(PeerId("y"), by=home.admin("other"), lock=lock)
    monkeypatch.setattr(revocations_module, "MAX_BYTES_BELOW", 100)
    with pytest.raises(NotPermitted, match="no room"):
        home.remove(PeerId("z"), by=home.admin("third"), lock=lock)


def test_a_remover_hears_how_many_can_stay(home: MadeUpNamespace) -> None:
    """Beyond that it has to choose."""
    desk = home.admin("desk")
    guests = [home.machine(f"guest{number}", by=desk) for number in range(385)]
    with pytest.raises(NotPermitted, match="keeps at most 384"):
        home.remove(desk, known=guests)
    word = home.remove(desk, known=guests[1:])
    assert len(word) <= 8192
    lock = home.lock()
    lock.add([word])
    assert rules(lock, guests[0], guests[1], guests[384]) == ["revoked", "", ""]


def test_a_root_shows_no_chain_and_an_admin_keeps_nothing(home: MadeUpNamespace) -> None:
    """There is one form of each removal."""
    desk = home.admin("desk")
    common = {"namespace": "home", "root": home.namespace.root, "key": PeerId("m"), "number": 1}
    for wrong in (
        {"issuer": home.namespace.root, "chain": desk.chain},
        {"issuer": desk.peer_id, "chain": desk.chain, "kept": (bytes(16),)},
        {"issuer": desk.peer_id},
        {"issuer": desk.peer_id, "chain": home.admin("other").chain},
        {"issuer": home.namespace.root, "key": home.namespace.root},
        {"issuer": home.namespace.root, "number": 0},
        {"issuer": home.namespace.root, "number": 1 << 32},
        {"issuer": home.namespace.root, "kept": (bytes(15),)},
    ):
        with pytest.raises(LocalProtocolError):
            sign_revocation(**(common | {"sign": desk.sign} | wrong))  # type: ignore[arg-type]  # of many types


def test_a_removal_carries_the_chain_that_its_signer_had(home: MadeUpNamespace) -> None:
    """Nobody can pack it into another."""
    second = home.admin("second", by=home.admin("desk"))
    word = read_revocation(home.remove(home.machine("m"), by=second))
    assert encode_chain(word.chain) == second.encoded
    assert decode_chain(word.revocation.chain) == second.chain
