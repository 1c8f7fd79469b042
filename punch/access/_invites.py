"""Invites: rights to a grant, kept by the machine that gives them out.

How a guest proves that it knows the secret is the business of `punch.membership`, which asks here
for what to prove against, and says how it went. Five rules:

1. One guess for a short code. After a wrong one the code is dead, for whoever has it.
2. Whoever holds the secret of an invite that is over hears how it ended; nobody else does. An
   invite that does not exist looks like a wrong guess.
3. A guest that asks again, since the answer was lost, uses the invite no second time.
4. Whoever was removed comes back by no invite that it has used, nor does anybody else to whom it
   has told it.
5. There is an end to everything: invites, uses, and what is kept of those that are over.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import attrs

from ..capability import PeerId
from ..exceptions import NotPermitted
from ._grant import MAX_ENDS, Kind
from ._lock import Lock

MAX_INVITES = 1024
"""Of one machine, those that are over included: the oldest of these make room."""

MAX_USES = 256
"""Of one invite: the keys that used it are kept, see rule 3."""

TOMBSTONE_SECONDS = 30 * 86_400
"""How long a guest hears how an invite ended; after that it never was."""

Outcome = Literal["open", "used_up", "expired", "withdrawn", "unknown"]
"""What has become of an invite. ``unknown`` is a wrong guess too."""


@attrs.frozen(kw_only=True)
class Use:
    """A machine that has used an invite."""

    key: PeerId
    """Its key."""

    number: int
    """Of the grant that it was given."""


@attrs.frozen(kw_only=True)
class Invite:
    """A right to a grant."""

    identifier: str
    """How guest and machine name it to each other; no secret."""

    secret: bytes = attrs.field(repr=False)
    """What a guest proves to know."""

    is_short: bool = False
    """Whether the secret is one that people type, good for one guess."""

    ends: int
    """UTC, in seconds since 1970, when it stops to count."""

    uses: int = 1
    """How many machines may use it."""

    kind: Kind = "machine"
    """Of the grant: ``machine`` or ``admin``."""

    scopes: frozenset[str] = frozenset({"dial", "listen"})
    """Of the grant."""

    seconds: int | None = None
    """How long the grant lasts; `None` for as long as is usual."""

    renews: bool = True
    """Whether the grant is renewed."""

    is_mine: bool = False
    """Whether the guest's machine belongs to the inviting admin's owner."""

    name: str = ""
    """What the guest's machine is to be called; empty if the guest may say."""

    used_by: tuple[Use, ...] = ()
    """Machines that have used it."""

    guesses: int = 0
    """Of a short code: guesses that were wrong, or that have not ended yet."""

    withdrawn_at: int | None = None
    """When it was withdrawn, UTC in seconds since 1970; `None` if it was not."""

    def outcome(self, now: float, lock: Lock | None = None) -> Outcome:
        """What has become of it, as its holder may hear.

        Args:
          now: UTC, in seconds since 1970.
          lock: Knows whether somebody who used it was removed since, which withdraws it.

        """
        if self.is_short and self.guesses:
            return "unknown"
        if self.withdrawn_at is not None or (lock is not None and self._is_spoilt(lock)):
            return "withdrawn"
        if len(self.used_by) >= self.uses:
            return "used_up"
        return "open" if now <= self.ends else "expired"

    def _is_spoilt(self, lock: Lock) -> bool:
        """Whether somebody has used it who was removed since: see rule 4."""
        return any(
            use.number <= lock.removed_up_to(use.key, by_others=True) for use in self.used_by
        )


class Guess:
    """One try of a guest to prove that it knows a secret; made by `Invites.begin`."""

    def __init__(self, identifier: str, secret: bytes, *, is_real: bool) -> None:
        self.identifier = identifier
        """The invite that the guest has named."""
        self.secret = secret
        """What the guest must know; of an invite that cannot be used, something nobody knows."""
        self._is_real = is_real
        self._is_over = False
        self._before: Invite | None = None

    def __repr__(self) -> str:
        return f"Guess({self.identifier!r})"


class Invites:
    """The invites of one machine.

    Args:
      kept: What `all` was when it was kept.

    """

    def __init__(self, kept: Iterable[Invite] = ()) -> None:
        self._invites = {invite.identifier: invite for invite in kept}

    @property
    def all(self) -> tuple[Invite, ...]:
        """Every invite, the oldest first; to be kept whenever something here was called."""
        return tuple(self._invites.values())

    def find(self, identifier: str) -> Invite | None:
        """The invite of that name, whatever has become of it."""
        return self._invites.get(identifier)

    def add(self, invite: Invite, *, now: float) -> None:
        """Give out an invite.

        Raises:
          NotPermitted: if it could never be used, its identifier is taken, or there is no room.

        """
        fault = _fault(invite, now)
        if fault is not None:
            raise NotPermitted(f"an invite {fault}")
        self.tidy(now)
        if invite.identifier in self._invites:
            raise NotPermitted("there is an invite of that number: choose another")
        if len(self._invites) >= MAX_INVITES:
            over = [one for one in self.all if one.outcome(now) != "open"]
            if not over:
                raise NotPermitted(
                    f"there are {MAX_INVITES} invites that nobody has used: withdraw some"
                )
            self._forget(over[0])
        self._invites[invite.identifier] = invite

    def withdraw(self, identifier: str, *, now: float) -> bool:
        """Take an invite back; false if there is none that could still be used."""
        invite = self._invites.get(identifier)
        if invite is None or invite.outcome(now) != "open":
            return False
        self._invites[identifier] = attrs.evolve(invite, withdrawn_at=int(now))
        return True

    def tidy(self, now: float) -> None:
        """Forget what has been over for long."""
        for invite in self.all:
            ended = invite.ends if invite.withdrawn_at is None else invite.withdrawn_at
            if now > ended + TOMBSTONE_SECONDS:
                self._forget(invite)

    def _forget(self, invite: Invite) -> None:
        del self._invites[invite.identifier]

    # ---- a guest ----

    def begin(self, identifier: str, decoy: bytes) -> Guess:
        """What a guest has to know that names an invite; to be kept before the guest is answered.

        Only `right` makes a guess a right one: a guest that goes away has guessed wrong, since it
        may have seen that it did, and so has one in whose midst this machine is switched off.

        Args:
          identifier: As the guest has said it.
          decoy: Fresh random bytes, which nobody knows.

        """
        invite = self._invites.get(identifier)
        if invite is None or invite.guesses:
            return Guess(identifier, decoy, is_real=False)
        if invite.is_short:
            self._invites[identifier] = attrs.evolve(invite, guesses=1)
        return Guess(identifier, invite.secret, is_real=True)

    def right(self, guess: Guess, guest: PeerId, *, now: float, lock: Lock) -> Invite | Outcome:
        """The guest knew the secret: the invite, which it has now used; or how the invite ended.

        Args:
          guess: Of `begin`.
          guest: The key of the guest's machine, as the handshake has proved it.
          now: UTC, in seconds since 1970.
          lock: Knows whether somebody who used the invite was removed since.

        """
        invite = self._invites.get(guess.identifier)
        if guess._is_over or not guess._is_real or invite is None:
            return "unknown"
        guess._is_over = True
        invite = attrs.evolve(invite, guesses=0)
        if invite.outcome(now) in ("open", "used_up") and invite._is_spoilt(lock):
            invite = attrs.evolve(invite, withdrawn_at=int(now))
        self._invites[guess.identifier] = guess._before = invite
        outcome = invite.outcome(now)
        use = Use(key=guest, number=lock.removed_up_to(guest) + 1)
        if use in invite.used_by and outcome in ("open", "used_up") and now <= invite.ends:
            return invite
        if outcome != "open":
            return outcome
        used = attrs.evolve(invite, used_by=(*invite.used_by, use))
        self._invites[guess.identifier] = used
        return used

    def not_given(self, guess: Guess) -> None:
        """The guest of a right guess got no grant after all: the invite is as it was before.

        A short code is not dead by that: its guest has shown to know it, and may come again.
        """
        if guess._before is not None:
            self._invites[guess.identifier] = guess._before


def _fault(invite: Invite, now: float) -> str | None:
    """What is wrong with an invite that is made, for a person; `None` if nothing is."""
    if not now < invite.ends <= MAX_ENDS:
        return f"that ends at {invite.ends} counts never: it is {now:.0f} now"
    if not 1 <= invite.uses <= MAX_USES:
        return f"has 1 to {MAX_USES} uses, not {invite.uses}"
    if invite.is_short and invite.uses > 1:
        return "with a short code has one use: a code that people say aloud is heard"
    if invite.kind == "process" or (invite.kind == "admin") != ("admin" in invite.scopes):
        return "to kind admin has the scope admin, and no other has it"
    if invite.seconds is not None and not 1 <= invite.seconds <= MAX_ENDS:
        return f"to a grant of {invite.seconds} s is none: give it a second at least"
    if not invite.secret or not invite.identifier:
        return "has an identifier and a secret"
    return None
