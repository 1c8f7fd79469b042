"""Who may use an invite, how often, and what a guest hears of one that is over."""

from __future__ import annotations

import attrs
import pytest
from made_up_members import DAY, NOW, MadeUpNamespace

from punch.access import MAX_INVITES, Invite, Invites, Use
from punch.capability import PeerId
from punch.exceptions import NotPermitted

HOME = MadeUpNamespace("home")
LOCK = HOME.lock()
DECOY = b"nobody knows"
GUEST, OTHER = PeerId("guest"), PeerId("other")


def long(**change: object) -> Invite:
    """An invite whose secret nobody guesses."""
    fields = {"identifier": "7", "secret": b"long secret", "ends": NOW + DAY}
    return Invite(**(fields | change))  # type: ignore[arg-type]  # of many types


def short(**change: object) -> Invite:
    """An invite whose secret is two words."""
    return long(secret=b"apple-river", is_short=True, **change)


def given(*invites: Invite) -> Invites:
    """A machine that has given out *invites*."""
    found = Invites()
    for invite in invites:
        found.add(invite, now=NOW)
    return found


def used(invites: Invites, guest: PeerId = GUEST, *, now: float = NOW) -> object:
    """What a guest hears that knows the secret."""
    found = invites.right(invites.begin("7", DECOY), guest, now=now, lock=LOCK)
    return found if isinstance(found, str) else found.used_by


def test_an_invite_is_used_as_often_as_it_says() -> None:
    """And its holder hears that it is used up."""
    invites = given(long(uses=2))
    first, second = Use(key=GUEST, number=1), Use(key=OTHER, number=1)
    assert used(invites) == (first,)
    assert used(invites, OTHER) == (first, second)
    assert used(invites, PeerId("third")) == "used_up"


def test_a_guest_that_lost_the_answer_asks_again() -> None:
    """It is the same use."""
    for invite in (long(), short()):
        invites = given(invite)
        assert used(invites) == used(invites) == (Use(key=GUEST, number=1),)
        assert used(invites, OTHER) == "used_up"
        assert used(invites, now=NOW + DAY + 1) == "used_up"


def test_an_invite_ends() -> None:
    """At the second that it names."""
    assert used(given(long()), now=NOW + DAY) == (Use(key=GUEST, number=1),)
    assert used(given(long()), now=NOW + DAY + 1) == "expired"


def test_an_invite_can_be_taken_back() -> None:
    """Once; who has used it stays."""
    invites = given(long())
    assert invites.withdraw("7", now=NOW)
    assert not invites.withdraw("7", now=NOW)
    assert not invites.withdraw("8", now=NOW)
    assert used(invites) == "withdrawn"


def test_a_short_code_has_one_guess() -> None:
    """After a wrong one its holder is too late, and nobody learns that it existed."""
    invites = given(short())
    assert invites.begin("7", DECOY).secret == b"apple-river"
    second = invites.begin("7", DECOY)
    assert second.secret == DECOY
    assert invites.right(second, GUEST, now=NOW, lock=LOCK) == "unknown"
    assert used(Invites(invites.all)) == "unknown"
    assert not invites.withdraw("7", now=NOW)


def test_a_guess_counts_from_its_beginning() -> None:
    """What is on disk while a guest guesses is a code that is dead."""
    invites = given(short())
    guess = invites.begin("7", DECOY)
    assert Invites(invites.all).begin("7", DECOY).secret == DECOY
    # The same guess, in the process that went on.
    again = Invites(invites.all)
    found = again.right(guess, GUEST, now=NOW, lock=LOCK)
    assert isinstance(found, Invite)
    assert again.right(guess, OTHER, now=NOW, lock=LOCK) == "unknown"


def test_a_used_short_code_is_no_oracle() -> None:
    """It too has one guess."""
    invites = given(short())
    used(invites)
    assert invites.begin("7", DECOY).secret == b"apple-river"
    assert invites.begin("7", DECOY).secret == DECOY


def test_an_invite_that_never_was_looks_like_a_wrong_guess() -> None:
    """The guest is asked for what nobody knows."""
    invites = given()
    guess = invites.begin("7", DECOY)
    assert guess.secret == DECOY
    assert invites.right(guess, GUEST, now=NOW, lock=LOCK) == "unknown"


def test_a_long_code_may_be_guessed_at() -> None:
    """With 128 bits nobody gets anywhere; and nobody takes it from its holder."""
    invites = given(long())
    for _ in range(100):
        assert invites.begin("7", DECOY).secret == b"long secret"
    assert used(invites) == (Use(key=GUEST, number=1),)


def test_nobody_who_was_removed_comes_back_by_an_invite_that_it_used() -> None:
    """Nor does another key to which it told the code."""
    desk = HOME.admin("desk")
    guest = HOME.machine("guest", by=desk)
    for uses in (1, 10):
        lock = HOME.lock()
        invites = given(long(uses=uses))
        assert used(invites) == (Use(key=GUEST, number=1),)
        HOME.remove(guest, by=desk, lock=lock)
        for key in (GUEST, OTHER):
            found = invites.right(invites.begin("7", DECOY), key, now=NOW, lock=lock)
            assert found == "withdrawn"


def test_a_guest_that_left_closes_no_invite() -> None:
    """It was removed by nobody; to come back is another use."""
    lock = HOME.lock()
    invites = given(long(uses=2))
    used(invites)
    guest = HOME.machine("guest", by=HOME.admin("desk"))
    HOME.remove(guest, by=guest, lock=lock)
    found = invites.right(invites.begin("7", DECOY), GUEST, now=NOW, lock=lock)
    assert isinstance(found, Invite)
    assert found.used_by == (Use(key=GUEST, number=1), Use(key=GUEST, number=2))
    assert invites.right(invites.begin("7", DECOY), OTHER, now=NOW, lock=lock) == "used_up"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ends": NOW}, "counts never"),
        ({"ends": 1 << 41}, "counts never"),
        ({"uses": 0}, "1 to 256 uses"),
        ({"uses": 257}, "1 to 256 uses"),
        ({"uses": 2, "is_short": True}, "has one use"),
        ({"kind": "admin"}, "the scope admin"),
        ({"scopes": frozenset({"admin"})}, "the scope admin"),
        ({"kind": "process"}, "the scope admin"),
        ({"seconds": 0}, "is none"),
        ({"secret": b""}, "a secret"),
        ({"identifier": ""}, "a secret"),
    ],
)
def test_an_invite_that_could_not_be_used_is_not_made(change: dict[str, object], said: str) -> None:
    """Whoever makes it hears why."""
    with pytest.raises(NotPermitted, match=said):
        given(long(**change))


def test_a_machine_keeps_so_many_invites() -> None:
    """Those that are over make room, the oldest first; those that are open do not."""
    invites = Invites()
    for number in range(MAX_INVITES):
        invites.add(long(identifier=str(number)), now=NOW)
    with pytest.raises(NotPermitted, match="withdraw some"):
        invites.add(long(identifier="x"), now=NOW)
    with pytest.raises(NotPermitted, match="choose another"):
        invites.add(long(identifier="5"), now=NOW)
    invites.withdraw("3", now=NOW)
    invites.withdraw("2", now=NOW)
    invites.add(long(identifier="x"), now=NOW)
    assert invites.find("2") is None
    assert invites.find("3") is not None
    assert len(invites.all) == MAX_INVITES


def test_how_an_invite_ended_is_kept_for_a_month() -> None:
    """Then it never was."""
    invites = given(long())
    invites.tidy(NOW + 31 * DAY)
    assert invites.find("7") is not None
    invites.tidy(NOW + 31 * DAY + 1)
    assert invites.find("7") is None


def test_no_secret_is_shown() -> None:
    """Neither in an invite's text, nor in that of a guess."""
    invite = long()
    guess = given(invite).begin("7", DECOY)
    assert "secret" not in f"{invite!r} {guess!r} {attrs.evolve(invite, uses=2)}"


@pytest.mark.parametrize("invite", [long(uses=2), short()])
def test_a_guest_that_got_no_grant_has_used_nothing(invite: Invite) -> None:
    """Nor is a short code dead: its guest has shown to know it."""
    invites = given(invite)
    guess = invites.begin("7", DECOY)
    assert isinstance(invites.right(guess, GUEST, now=NOW, lock=LOCK), Invite)
    invites.not_given(guess)
    assert invites.all == (invite,)
    wrong = invites.begin("7", DECOY)
    invites.not_given(wrong)
    assert (used(invites) == "unknown") is invite.is_short


def test_what_became_of_an_invite_is_the_same_for_its_maker_and_its_holder() -> None:
    """Who used it and was removed since has withdrawn it, whether somebody has tried it or not."""
    lock = HOME.lock()
    invites = given(long(uses=2))
    guest = HOME.machine("guest", by=HOME.admin("desk"))
    invites.right(invites.begin("7", DECOY), guest.peer_id, now=NOW, lock=lock)
    found = invites.find("7")
    assert found is not None
    assert (found.outcome(NOW), found.outcome(NOW, lock)) == ("open", "open")
    HOME.remove(guest, by=HOME.admin("desk"), lock=lock)
    assert found.outcome(NOW, lock) == "withdrawn"
