"""What a machine tells of members: of each its chain of grants, and the name that goes with it.

A chain proves itself, whoever tells it, and a name is proved by the digest in the grant. So members
may tell of each other; what is believed of nobody else is the name of a machine whose grant has
none.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

import attrs

from ...access import Member, decode_chain
from ...capability import PeerId
from ...exceptions import RemoteProtocolError
from .._home import record_of
from .._members import FILE, MAX_MEMBERS, MemberRecord, add_members, named, read_members
from .._membership import DiskMembership

# Of a card, by which two machines see whether they know the same.
STAMP_BYTES = 8

MAX_CARDS = 48
"""Cards in one message: with chains of four grants and long names these are some 150 KB."""

MAX_STAMPS_BYTES = STAMP_BYTES * MAX_MEMBERS


@attrs.frozen(kw_only=True)
class Card:
    """What is told of a machine."""

    chain: bytes
    """What leads from the root to the machine, encoded."""

    name: str
    """What it is called; empty if that is not known."""


class Cards:
    """The cards of one program, from the files that all programs of its machine share.

    Args:
      membership: Whose lock judges what is told.

    """

    def __init__(self, membership: DiskMembership) -> None:
        self._membership = membership
        self._read_at: object = None
        self._own = b""
        self._records: dict[bytes, MemberRecord] = {}
        self._named: frozenset[PeerId] = frozenset()

    def refresh(self) -> None:
        """Read the files anew if they have changed; it blocks.

        Raises:
          ConfigurationError: if they cannot be read or written.

        """
        home = self._membership.home
        own = record_of(home.chain(), called=home.name, now=0)
        if own.chain != self._own:
            # A grant that was renewed is told like the first one.
            add_members(home.folder, [own])
            self._own = own.chain
        stamp = home.folder.stamp(FILE)
        if stamp == self._read_at:
            return
        records = [each for each in read_members(home.folder).values() if each.chain]
        self._records = {_stamp_of(each): each for each in records}
        self._named = frozenset(each.machine for each in records if each.name)
        self._read_at = stamp

    @property
    def stamps(self) -> bytes:
        """What tells another machine which cards are here."""
        return b"".join(self._records)

    @property
    def named(self) -> frozenset[PeerId]:
        """Machines whose names are known."""
        return self._named

    def has(self, record: MemberRecord) -> bool:
        """Whether this was known before."""
        return _stamp_of(record) in self._records

    def lacking(self, stamps: bytes) -> tuple[tuple[Card, ...], bool]:
        """Cards that a machine with *stamps* has not, and whether there are more of them."""
        lock = self._membership.lock
        theirs = {
            stamps[start : start + STAMP_BYTES]
            for start in range(0, min(len(stamps), MAX_STAMPS_BYTES), STAMP_BYTES)
        }
        found: list[Card] = []
        for stamp, record in reversed(self._records.items()):
            if stamp in theirs or record.number <= lock.removed_up_to(record.machine):
                continue
            if len(found) == MAX_CARDS:
                return tuple(found), True
            found.append(Card(chain=record.chain, name=record.name))
        return tuple(found), False

    def believed(self, cards: Iterable[Card], by: Member) -> tuple[MemberRecord, ...]:
        """What is true of *cards*, which the member *by* has told; the others are left out."""
        membership, found = self._membership, []
        for card in cards:
            try:
                chain = decode_chain(card.chain)
            except RemoteProtocolError:
                continue
            grant = chain[-1].grant
            member = membership.lock.judge(grant.subject, card.chain, membership.now())
            if not isinstance(member, Member) or grant.kind == "process":
                continue
            is_proved = bool(grant.name) or by.machine == grant.subject
            called = named(card.name) if is_proved else ""
            record = record_of(chain, called=called, now=0)
            found.append(record.merged(record))
        return tuple(found)

    def keep(self, records: Iterable[MemberRecord]) -> None:
        """Write what was believed; it blocks.

        Raises:
          ConfigurationError: if it cannot be written.

        """
        add_members(self._membership.home.folder, records)


def _stamp_of(record: MemberRecord) -> bytes:
    # The same wherever a card is, however it came there.
    text = f"{record.machine} {record.number} {record.ends} {bool(record.name)}"
    return sha256(text.encode()).digest()[:STAMP_BYTES]
