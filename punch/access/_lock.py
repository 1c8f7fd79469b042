"""The lock of a closed namespace: who is let in, by the chain of grants that a peer shows.

Sans-I/O and without a secret: whoever knows name and root key judges as every member does. Three
rules:

1. A peer that shows no chain from our root hears the same words, whatever it has guessed.
2. Signatures come first. What a chain says is looked at, and spoken of, when its issuers have
   signed it. Only whether the chain is for this namespace and for the peer that shows it is
   looked at before, once the root has signed its first grant: a copy of another's chain costs
   no more than that.
3. A chain that was verified is remembered by what it says, however it is spelled; its end and what
   was removed are looked at each time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import attrs

from ..capability import PeerId
from ..exceptions import RemoteProtocolError
from ..wire import encode_map
from ._admit import Introduction, Refusal
from ._chain import Chain, Recent, Signatures, decode_chain, encode_chain, fault_of_chain
from ._grant import Grant, Verify, listed
from ._namespace import Namespace
from ._revocation import SignedRevocation
from ._revocations import Revocations

GRACE_SECONDS = 300
"""By how much the clocks of two machines may differ: the ends of grants are UTC, and machines
without a clock that is set are common."""

PROCESS_SECONDS = 24 * 3600
"""How long a process grant counts at most."""

MAX_REMEMBERED_CHAINS = 4096
"""Chains of all members of a large namespace, in some twenty megabytes."""

MAX_REMEMBERED_SIGNATURES = 8192
"""Of admins and machines, each once: some hundred bytes each."""

NEEDED = {
    "dialer": "dial",
    "listener": "listen",
    "worker": "lend",
    "borrower": "borrow",
    "relay": "relay",
}
"""The scope that each role needs; other roles need none. A borrower is one at a worker's door."""

STRANGER = Refusal(
    rule="no_grant",
    reason="this namespace is closed: ask a member for an invite, and redeem it with: punch join",
)
"""What everybody hears who shows no grant from this root, whether the name was right or not."""


@attrs.frozen(kw_only=True)
class Member:
    """A peer that holds a grant."""

    peer_id: PeerId
    """The peer."""

    machine: PeerId
    """The key of its machine: its own, for a machine."""

    owner: PeerId
    """The machine key that stands for its owner."""

    scopes: frozenset[str]
    """What it is allowed."""

    ends: int
    """UTC, in seconds since 1970."""

    number: int
    """The number of its machine's grant."""

    name: bytes
    """The salted digest of its machine's name for people, or empty."""

    is_admin: bool
    """Whether its machine may let others in and remove them."""

    chain: Chain
    """What it has shown."""


class Remembered:
    """What locks have verified: whatever the number of locks that share it, it has a bound."""

    def __init__(self) -> None:
        self.members: Recent[Member] = Recent(MAX_REMEMBERED_CHAINS)
        """Chains that hang together, by lock and bytes."""
        self.signatures: Recent[bool] = Recent(MAX_REMEMBERED_SIGNATURES)
        """Signatures that were made, in whatever namespace."""


class Lock:
    """Judges who shows a chain of grants.

    Args:
      namespace: The closed namespace.
      verify: Checks a signature, as `Node.verify` does.
      revocations: What was removed, as far as it is known; see `add`.
      remembered: Shared with other locks, whose namespaces are strangers' and may be many; `None`
        for its own.

    """

    def __init__(
        self,
        namespace: Namespace,
        verify: Verify,
        revocations: Iterable[bytes] = (),
        *,
        remembered: Remembered | None = None,
    ) -> None:
        self.namespace = namespace
        self._context = encode_map({"root": namespace.key, "name": namespace.name})
        self._remembered = Remembered() if remembered is None else remembered
        self._signatures = Signatures(verify, self._remembered.signatures)
        self._removed = Revocations(namespace, self._signatures)
        self._removed.add(revocations)

    @property
    def revocations(self) -> tuple[bytes, ...]:
        """Every removal that is known, as it travels: those by the root first."""
        return self._removed.all

    def add(self, revocations: Iterable[bytes]) -> tuple[bytes, ...]:
        """Learn of removals from whomever; returns those that were news.

        What is no revocation of this namespace, or is not signed by somebody who may, is left out.
        The order in which removals come makes no difference.
        """
        return self._removed.add(revocations)

    def is_removed(self, member: Member) -> bool:
        """Whether a member that was let in before has been removed since, or its machine."""
        return self._removed.barred(member.chain) is not None

    @property
    def remembered(self) -> tuple[Member, ...]:
        """Members whose chains were verified, those last that were judged last; a bounded number.

        Some of them may have been removed since, or their grants may have ended.
        """
        return tuple(
            member
            for member in self._remembered.members.all
            if member.chain[0].grant.root == self.namespace.root
            and member.chain[0].grant.namespace == self.namespace.name
        )

    def removals_by(self, issuer: PeerId) -> tuple[SignedRevocation, ...]:
        """The removals that *issuer* has signed and that count."""
        return self._removed.by(issuer)

    def removed_up_to(self, key: PeerId, *, by_others: bool = False) -> int:
        """The number up to which *key* was removed; 0 if it never was. A new grant has one more.

        Args:
          key: Of a machine, an admin or a process.
          by_others: Whether what the key has signed itself, since it left, is not counted.

        """
        return self._removed.up_to(key, by_others=by_others)

    def admit(self, peer_id: PeerId, introduction: Introduction, now: float) -> Refusal | None:
        """Let a member in, or say why not: an `Admit`.

        Each role that it wants needs its scope; see `NEEDED`.
        """
        needs = frozenset({NEEDED[role] for role in introduction.roles & NEEDED.keys()})
        if introduction.root is not None and introduction.root != self.namespace.key:
            return STRANGER
        found = self.judge(peer_id, introduction.grant, now, needs)
        if isinstance(found, Refusal):
            return found
        if introduction.namespace != self.namespace.name:
            return Refusal(
                rule="wrong_namespace",
                reason=f"the grant is for {self.namespace}, not for {introduction.namespace!r}: "
                "the peer that shows it must name its namespace",
            )
        return None

    def judge(
        self,
        peer_id: PeerId,
        chain: bytes | None,
        now: float,
        needs: frozenset[str] = frozenset(),
    ) -> Member | Refusal:
        """What *peer_id* may do with the encoded *chain* that it shows.

        Args:
          peer_id: Proved by the handshake, or by a signature.
          chain: As `encode_chain` writes it; `None` if the peer shows none.
          now: UTC, in seconds since 1970.
          needs: Scopes that it must have.

        """
        if chain is None:
            return STRANGER
        found = self._known(peer_id, chain)
        if isinstance(found, Refusal):
            return found
        return self._as_of_now(peer_id, found, now, needs) or found

    def _known(self, peer_id: PeerId, encoded: bytes) -> Member | Refusal:
        """The member that a chain makes, at whatever time; or the rule that it breaks."""
        digest = self._digest(encoded)
        member = self._remembered.members.get(digest)
        if member is not None:
            return member
        try:
            chain = decode_chain(encoded)
        except RemoteProtocolError as error:
            return Refusal(rule="malformed", reason=f"{error}: its peer must send another")
        spelled = encode_chain(chain)
        if spelled != encoded:
            # With keys of a later version, or keys in another order: whoever has a chain can write
            # any number of these, and no number of them costs another signature.
            digest = self._digest(spelled)
            member = self._remembered.members.get(digest)
            if member is not None:
                return member
        found = self._verified(peer_id, chain)
        if isinstance(found, Member):
            self._remembered.members.add(digest, found)
        return found

    def _digest(self, encoded: bytes) -> bytes:
        # One chain makes members of one namespace alone: a lock trusts no other lock's verdict.
        return hashlib.sha256(self._context + encoded).digest()

    def _as_of_now(
        self, peer_id: PeerId, member: Member, now: float, needs: frozenset[str]
    ) -> Refusal | None:
        """The rule that a verified chain breaks today; `None` if it breaks none."""
        if member.peer_id != peer_id:
            return _wrong_key(member.peer_id, peer_id)
        removed = self._removed.barred(member.chain)
        if removed is not None:
            return Refusal(rule="revoked", reason=_revoked(removed, member))
        last = member.chain[-1].grant
        if not now <= last.ends + GRACE_SECONDS:
            # Of a process whose machine's grant has ended, too, that one is what can be mended.
            above = member.chain[-2:][0].grant
            ended = last if now <= above.ends + GRACE_SECONDS else above
            return Refusal(rule="expired", reason=_expired(ended, now))
        if last.kind == "process" and last.ends > now + PROCESS_SECONDS + GRACE_SECONDS:
            return Refusal(
                rule="chain",
                reason=f"the process grant ends in {last.ends - now:.0f} s; its machine may give "
                f"{PROCESS_SECONDS} s at most. See that the clocks of both machines are right.",
            )
        if not needs <= member.scopes:
            return Refusal(
                rule="scope",
                reason=f"the grant allows {listed(member.scopes)}, and this needs "
                f"{listed(needs - member.scopes)}: ask an admin for another invite",
            )
        return None

    def _verified(self, peer_id: PeerId, chain: Chain) -> Member | Refusal:
        """The member that a chain makes whose signatures are checked; or the rule that it breaks.

        What costs a signature comes after what costs none, as far as a stranger hears no more by
        that.
        """
        first, last = chain[0].grant, chain[-1].grant
        if first.root != self.namespace.root or first.issuer != self.namespace.root:
            return STRANGER
        if not self._signatures.is_signed(chain[0]):
            # Whoever has the root key's bytes can write this.
            return STRANGER
        if first.namespace != self.namespace.name:
            return Refusal(
                rule="wrong_namespace",
                reason=f"the grant is for another namespace of this root, not for "
                f"{self.namespace}: its peer must show another",
            )
        if last.subject != peer_id:
            return _wrong_key(last.subject, peer_id)
        forged = self._signatures.forged(chain[1:])
        if forged is not None:
            return Refusal(
                rule="bad_signature",
                reason=f"the {forged.kind} grant was not signed by {forged.issuer}: "
                "its peer must get another",
            )
        fault = fault_of_chain(self.namespace, chain)
        if fault is not None:
            return Refusal(rule="chain", reason=f"the chain {fault}: its peer must get another")
        machine = chain[-2].grant if last.kind == "process" else last
        return Member(
            peer_id=last.subject,
            machine=machine.subject,
            owner=last.owner,
            scopes=last.scopes,
            ends=last.ends,
            number=machine.number,
            name=machine.name,
            is_admin=machine.kind == "admin",
            chain=chain,
        )


def _wrong_key(holder: PeerId, peer_id: PeerId) -> Refusal:
    return Refusal(
        rule="wrong_key",
        reason=f"the grant is for {holder}, and {peer_id} shows it: a grant serves no other key",
    )


def _expired(grant: Grant, now: float) -> str:
    ago = f"the {grant.kind} grant ended {_span(now - grant.ends)} ago"
    if grant.kind == "process":
        return f"{ago}: its machine makes another one each day, if its clock is right"
    return f"{ago}, and a grant that has ended is not renewed: an admin must invite its machine"


def _span(seconds: float) -> str:
    for unit, name in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"


def _revoked(removed: Grant, member: Member) -> str:
    who = "this peer" if removed.subject == member.peer_id else "its machine"
    if removed.subject not in (member.peer_id, member.machine):
        who = "the admin that let this peer in"
    return f"{who} was removed from the namespace: an admin must invite it again"
