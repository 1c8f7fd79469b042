"""Removes a member: signs the word, and keeps it where running programs see it at once."""

from __future__ import annotations

from ..access import Chain, Lock, Member, remove
from ..capability import PeerId
from ..libp2p import verify
from ._home import Home, add_revocations, read_revocations
from ._letting_in import issuer_of
from ._members import read_members


def read_removals(home: Home) -> Lock:
    """A lock with every removal that this machine has heard of."""
    return Lock(home.namespace, verify, read_revocations(home))


def remove_machine(home: Home, machine: PeerId, *, keep: bool = True) -> None:
    """Remove *machine* for good; it comes back by a new invite only.

    Running programs of this machine end its sessions within a second and tell the other members.

    Args:
      home: The namespace, of which this machine is an admin.
      machine: The key of the machine. An admin is removed with the root's key, which must be here.
      keep: Whether those stay whom a removed admin has let in.

    Raises:
      NotPermitted: if this machine may not remove it.
      ConfigurationError: if the removal cannot be written.

    """
    lock = read_removals(home)
    records = read_members(home.folder)
    record = records.get(machine)
    is_admin = record is not None and "admin" in record.scopes
    issuer = issuer_of(home, "admin" if is_admin or not keep else "machine")
    known: list[Chain] = [home.chain()]
    for each in records.values():
        # As at the beginning of time: whom a machine has let in whose grant is over may come back.
        member = lock.judge(each.machine, each.chain or None, 0.0)
        if isinstance(member, Member):
            known.append(member.chain)
    word = remove(
        lock,
        machine,
        issuer=issuer.key,
        sign=issuer.sign,
        chain=issuer.chain,
        known=known,
        keep=keep,
    )
    add_revocations(home, [word])
