"""Making grants: which number, which end, which scopes; when one is renewed, and by whom.

Whoever signs here signs nothing that a lock would refuse.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

import attrs

from ..capability import MAX_MACHINE_NAME_CHARACTERS, PeerId
from ..exceptions import NotPermitted
from ._admit import Refusal
from ._chain import MAX_ADMINS, Chain, fault_of_chain
from ._grant import (
    DIGEST_BYTES,
    MAX_ENDS,
    MAX_NUMBER,
    NAME_BYTES,
    NAME_SALT_BYTES,
    Grant,
    Kind,
    Sign,
    listed,
    sign_grant,
)
from ._lock import PROCESS_SECONDS, Lock

DAY_SECONDS = 86_400

GRANT_SECONDS = 90 * DAY_SECONDS
"""How long a grant lasts unless said: a machine that is off over a summer is still a member."""

ROOT_GRANT_SECONDS = 3650 * DAY_SECONDS
"""How long a grant lasts that the root signs: no grant below it ends later, and the root's key may
be in a drawer, or lost with the first machine."""

RENEW_SECONDS = 30 * DAY_SECONDS
"""How long before its end a grant is renewed, and no longer than a third of what it lasts."""


@attrs.frozen(kw_only=True)
class Issuer:
    """A key that signs grants, with the chain that lets it."""

    key: PeerId
    """The root's, an admin's or a machine's."""

    sign: Sign
    """Signs with the key."""

    chain: Chain = ()
    """What leads from the root to the key, without a process; empty for the root."""

    owner: PeerId | None = None
    """Of the root: who owns what it lets in as its own, `None` for nobody. Others say so in their
    chain."""

    def issue(
        self,
        lock: Lock,
        subject: PeerId,
        *,
        now: float,
        kind: Kind = "machine",
        scopes: Iterable[str] = ("dial", "listen"),
        seconds: int | None = None,
        renews: bool = True,
        is_mine: bool = False,
        name: bytes = b"",
    ) -> Chain:
        """A grant for *subject*, with all that leads to it.

        Args:
          lock: What was removed before decides the number.
          subject: The key that the grant is for.
          now: UTC, in seconds since 1970.
          kind: See `Grant`. Scopes and kind ``admin`` go together.
          scopes: What it allows; no more than the issuer has.
          seconds: How long it lasts; no longer than the issuer's own. `None` for what is usual.
          renews: Whether it may be renewed; a grant for a guest is not.
          is_mine: Whether the machine belongs to the issuer's owner.
          name: See `hidden_name`.

        Raises:
          NotPermitted: with the rule that the issuer would break.

        """
        asked = frozenset(scopes)
        above = self.chain[-1].grant if self.chain else None
        if above is not None and kind != "process" and above.kind != "admin":
            raise NotPermitted(f"{self.key} is no admin of {lock.namespace}: ask one")
        if above is not None and not asked <= above.scopes:
            raise NotPermitted(
                f"the scopes {listed(asked - above.scopes)} are not this machine's to give: it has "
                f"{listed(above.scopes)}"
            )
        if kind != "process" and (kind == "admin") != ("admin" in asked):
            raise NotPermitted("an admin has the scope admin, and no other machine has it")
        number = lock.removed_up_to(subject) + 1
        if number > MAX_NUMBER:
            raise NotPermitted(f"{subject} was removed for good: its machine needs another key")
        usual = {"process": PROCESS_SECONDS, "machine": GRANT_SECONDS, "admin": GRANT_SECONDS}
        if above is None:
            usual["admin"] = ROOT_GRANT_SECONDS
        lasts = usual[kind] if seconds is None else seconds
        if kind == "process":
            lasts = min(lasts, PROCESS_SECONDS)
        if lasts < 1:
            raise NotPermitted(f"a grant that lasts {lasts} s is none: give it a second at least")
        ends = min(int(now) + lasts, MAX_ENDS if above is None else above.ends)
        if ends <= now:
            raise NotPermitted(
                f"the grant of this machine in {lock.namespace} has ended: renew it first"
            )
        grant = Grant(
            namespace=lock.namespace.name,
            root=lock.namespace.root,
            subject=subject,
            issuer=self.key,
            kind=kind,
            scopes=asked,
            ends=ends,
            number=number,
            under=above.number if above is not None else 0,
            owner=(self._owner if is_mine or kind == "process" else None) or subject,
            lasts=lasts if renews and kind != "process" else 0,
            name=name,
        )
        chain = (*self.chain, sign_grant(grant, self.sign))
        fault = fault_of_chain(lock.namespace, chain)
        if fault is not None:
            raise NotPermitted(
                f"the chain of this grant {fault}; a chain has at most {MAX_ADMINS} admins: have "
                "the root or an admin nearer to it sign"
            )
        return chain

    @property
    def _owner(self) -> PeerId | None:
        return self.chain[-1].grant.owner if self.chain else self.owner

    def issue_process(self, lock: Lock, subject: PeerId, *, now: float) -> Chain:
        """A day's grant for a process on the issuer's machine, with all that the machine may do."""
        return self.issue(
            lock, subject, now=now, kind="process", scopes=self.chain[-1].grant.scopes
        )

    def renew(
        self,
        lock: Lock,
        shown: bytes,
        peer_id: PeerId,
        *,
        now: float,
        subject: PeerId | None = None,
    ) -> Chain | Refusal:
        """A new grant in the place of the one that *peer_id* shows, with the same terms.

        What the issuer has not, the new grant has not either. The owner stays if it is the machine
        itself or the issuer's, and by the root whoever it is. An admin of another owner cannot say
        so: by its word the machine is its own.

        Args:
          lock: Decides whether the old grant counts.
          shown: The machine's chain, encoded, without a process.
          peer_id: The machine's key, as the handshake or its signature has proved it.
          now: UTC, in seconds since 1970.
          subject: The key that the new grant is for, where the machine changes its key.

        """
        member = lock.judge(peer_id, shown, now)
        if isinstance(member, Refusal):
            return member
        old = member.chain[-1].grant
        if old.kind == "process":
            return Refusal(rule="chain", reason="a process is renewed by its own machine")
        if not old.lasts:
            return Refusal(
                rule="expired",
                reason="this grant was given for once and is not renewed: ask for another invite",
            )
        is_own = old.owner == old.subject
        by = self if self.chain else attrs.evolve(self, owner=old.owner)
        try:
            return by.issue(
                lock,
                subject or peer_id,
                now=now,
                kind=old.kind,
                scopes=old.scopes & self.chain[-1].grant.scopes if self.chain else old.scopes,
                seconds=old.lasts,
                is_mine=not is_own and old.owner == by._owner,
                name=old.name,
            )
        except NotPermitted as error:
            return Refusal(rule="chain", reason=str(error))


def renew_at(grant: Grant) -> int | None:
    """When *grant* is to be renewed, UTC in seconds since 1970; `None` if it never is.

    A process grant is renewed by its machine when half of it is over.
    """
    if grant.kind == "process":
        return grant.ends - PROCESS_SECONDS // 2
    if not grant.lasts:
        return None
    return grant.ends - min(RENEW_SECONDS, grant.lasts // 3)


def fault_of_member_name(name: str) -> str | None:
    """What is wrong with *name* as that of a machine, for a person; `None` if nothing is."""
    if not 1 <= len(name) <= MAX_MACHINE_NAME_CHARACTERS:
        return f"must have 1 to {MAX_MACHINE_NAME_CHARACTERS} characters, and has {len(name)}"
    return None if name.isprintable() else "must be one line of printable characters"


def hidden_name(name: str, salt: bytes) -> bytes:
    """What a grant holds of a machine's name: a salt of 16 random bytes, and a digest of both.

    Who knows the name sees that it is this one; who does not can only guess.
    """
    if len(salt) != NAME_SALT_BYTES:
        raise ValueError(f"a salt has {NAME_SALT_BYTES} bytes")
    return salt + hashlib.sha256(salt + name.encode()).digest()[:DIGEST_BYTES]


def is_name(name: str, hidden: bytes) -> bool:
    """Whether *hidden*, of a grant, stands for *name*."""
    if len(hidden) != NAME_BYTES:
        return False
    return hmac.compare_digest(hidden_name(name, hidden[:NAME_SALT_BYTES]), hidden)
