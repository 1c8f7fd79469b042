"""Removing a key: who may, which number the removal has, and what of an admin stays."""

from __future__ import annotations

from collections.abc import Iterable

from ..capability import PeerId
from ..exceptions import NotPermitted
from ._chain import Chain
from ._grant import Sign
from ._lock import Lock
from ._revocation import MAX_KEPT, sign_revocation
from ._revocations import MAX_REMOVED_KEYS


def remove(
    lock: Lock,
    key: PeerId,
    *,
    issuer: PeerId,
    sign: Sign,
    chain: Chain = (),
    known: Iterable[Chain] = (),
    keep: bool = True,
) -> bytes:
    """Sign the removal of *key*, and add it to *lock*; returns it as it travels.

    Args:
      lock: What was removed before decides the number.
      key: Of a machine, an admin or a process; no grant for it that was made before counts after
        this.
      issuer: The key that signs: the root's, an admin's, or *key* itself.
      sign: Signs with the issuer's key.
      chain: The issuer's chain, without a process; empty for the root.
      known: Chains of members, as rosters have shown them: a greater number among those for *key*
        is removed too, and what *key* has signed is found there.
      keep: Whether those stay whom the removed admin has let in, and the removals that it has
        signed. Only what is *known* can stay.

    Raises:
      NotPermitted: if the issuer may not remove the key, as far as it is known, or if there is no
        room for another removal.

    """
    grants = {link.digest: link.grant for member in known for link in member}
    mine = [grant for grant in grants.values() if grant.subject == key]
    is_root = issuer == lock.namespace.root
    if key == lock.namespace.root:
        raise NotPermitted("the root key is no member: whoever has it ends the namespace instead")
    may = bool(chain) and (chain[-1].grant.kind == "admin" or issuer == key)
    if not is_root and not may:
        raise NotPermitted(
            f"{issuer} is no admin of {lock.namespace} and may not remove {key}: ask an admin"
        )
    admin = any(grant.kind == "admin" and not _is_over(lock, grant.number, key) for grant in mine)
    if admin and not is_root and issuer != key:
        raise NotPermitted(
            f"{key} is an admin of {lock.namespace}: only the root key removes it. Run this where "
            "the root key is, or bring it back: punch namespace root import FILE"
        )
    kept: tuple[bytes, ...] = ()
    if is_root and keep:
        stays = {
            digest
            for digest, grant in grants.items()
            if grant.issuer == key and grant.kind != "process"
        }
        stays |= {word.digest for word in lock.removals_by(key)}
        if len(stays) > MAX_KEPT:
            raise NotPermitted(
                f"{key} has let in or removed {len(stays)} members, and a removal keeps at most "
                f"{MAX_KEPT}: have other admins renew some of them first, or end them all"
            )
        kept = tuple(sorted(stays))
    number = max([lock.removed_up_to(key) + 1, *(grant.number for grant in mine)])
    if issuer == key:
        number = chain[-1].grant.number
        if number <= lock.removed_up_to(key):
            raise NotPermitted(f"{key} is removed from {lock.namespace} already")
    signed = sign_revocation(
        namespace=lock.namespace.name,
        root=lock.namespace.root,
        key=key,
        number=number,
        issuer=issuer,
        sign=sign,
        chain=chain,
        kept=kept,
    )
    if not lock.add([signed]):
        raise NotPermitted(
            f"{lock.namespace} has no room for another removal: it holds {MAX_REMOVED_KEYS} by the "
            "root and as many by its admins. Sign with the root key, or make a new namespace."
        )
    return signed


def _is_over(lock: Lock, number: int, key: PeerId) -> bool:
    return number <= lock.removed_up_to(key)
