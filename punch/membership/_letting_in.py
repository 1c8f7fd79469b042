"""Signs the grant of a machine that may join, and says what it needs to know. It blocks.

What could never be given is refused when it is promised: see `check_promise`.
"""

from __future__ import annotations

import json
import os

import attrs

from ..access import (
    Chain,
    Grant,
    Invite,
    Issuer,
    Kind,
    Lock,
    Refusal,
    encode_chain,
    peer_of,
)
from ..capability import PeerId
from ..exceptions import LocalProtocolError, NotPermitted
from ..libp2p import verify
from ._home import Home, read_revocations, record_of, salted
from ._members import add_members, named, read_members
from ._membership import DiskMembership
from ._messages import Outcome
from ._places import MAX_PLACES

# Of what a newcomer is told: bytes of removals and as many of members, and members. The first
# roster and what members tell each other have the rest.
MAX_TOLD_BYTES = 64 << 10
MAX_TOLD_MEMBERS = 256


def issuer_of(home: Home, kind: Kind) -> Issuer:
    """Who signs a grant of *kind*: for an admin the root, where its key is here."""
    root = home.root_key() if kind == "admin" else None
    if root is not None:
        return Issuer(key=root.peer_id, sign=root.sign, owner=home.grant.owner)
    return Issuer(key=home.machine, sign=home.key().sign, chain=home.chain())


def renewer_of(home: Home, old: Grant) -> Issuer:
    """Who renews the grant *old*: the root, where its key is here, only what the root has signed.

    Nobody is asked about a renewal, and an admin that went astray says itself how long its own
    guests' grants last: by the root's signature they would outlive the admin.
    """
    return issuer_of(home, old.kind if old.issuer == home.namespace.root else "machine")


def grant_by(
    home: Home, lock: Lock, guest: PeerId, invite: Invite, called: str, *, now: float
) -> Chain:
    """The chain of *guest*, by an invite that it has used.

    Raises:
      NotPermitted: if this machine may not give what the invite promises.

    """
    return issuer_of(home, invite.kind).issue(
        lock,
        guest,
        now=now,
        kind=invite.kind,
        scopes=invite.scopes,
        seconds=invite.seconds,
        renews=invite.renews,
        is_mine=invite.is_mine,
        name=salted(invite.name or called),
    )


def check_promise(home: Home, invite: Invite, *, now: float) -> None:
    """Raise if this machine could not let anybody in by *invite*: it is tried with a made-up key.

    Whoever holds the code of such an invite would be refused, and a short code would be dead.

    Raises:
      NotPermitted: with the rule, and what to do.

    """
    lock = Lock(home.namespace, verify, read_revocations(home))
    own = lock.judge(home.machine, encode_chain(home.chain()), now)
    if isinstance(own, Refusal):
        raise NotPermitted(
            f"this machine may let nobody in to {home.namespace}: {own.reason}. Make the invite on "
            "another admin"
        )
    guest = peer_of(os.urandom(32))
    chain = grant_by(home, lock, guest, invite, "a guest", now=now)
    process = Issuer(key=guest, sign=lambda data: bytes(64), chain=chain)
    try:
        # What the guest's programs would have to show.
        encode_chain(process.issue_process(lock, peer_of(os.urandom(32)), now=now))
    except LocalProtocolError as error:
        raise NotPermitted(f"nobody could use this invite: {error}") from None
    found = lock.judge(guest, encode_chain(chain), now)
    if isinstance(found, Refusal):
        raise NotPermitted(f"nobody could use this invite: {found.reason}")


def welcome(
    membership: DiskMembership,
    chain: Chain,
    *,
    called: str,
    addresses: tuple[str, ...],
    reached: str = "",
    trouble: str = "",
) -> Outcome:
    """What a machine is told that has just become a member; it is remembered here, too."""
    home = membership.home
    called = named(called)
    add_members(home.folder, [record_of(chain, called=called, now=membership.now())])
    told, size = [], 0
    for revocation in membership.lock.revocations:
        size += len(revocation)
        if size > MAX_TOLD_BYTES:
            break
        told.append(revocation)
    # Without their chains, which come by `telling`.
    members: list[str] = []
    size = 0
    for each in reversed(read_members(home.folder).values()):
        if each.number <= membership.lock.removed_up_to(each.machine):
            continue
        known = attrs.evolve(each, chain=b"", called="", seen=0, addresses=()).encode()
        size += len(json.dumps(known))
        if size > MAX_TOLD_BYTES or len(members) == MAX_TOLD_MEMBERS:
            break
        members.append(known)
    return Outcome(
        namespace=home.namespace.name,
        root=home.namespace.root,
        chain=encode_chain(chain),
        member_chain=membership.chain(),
        name=called,
        revocations=tuple(told),
        members=tuple(members),
        places=(*addresses, *membership.places())[:MAX_PLACES],
        reached=reached,
        trouble=trouble,
    )


def refused(error: NotPermitted) -> Outcome:
    """What a guest is told whom this machine may not let in."""
    return Outcome(refused="not_permitted", reason=error.message)
