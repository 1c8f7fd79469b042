"""All removals of a namespace that are known: a set that only grows, and what follows from it.

Removals come from anywhere, in any order, and all who know the same ones judge alike. That is why
nothing here depends on time, on what else is known of a key, or on who told it:

1. The root's word counts always. Of its words on one key the one with the greatest number counts.
2. A removal by the root bars the grants for the key, up to its number, and with them what the key
   had signed under them, except what the removal keeps.
3. An admin's word counts as long as nothing of 2. takes it away, and bars no grant of an admin.
4. A machine's word on itself counts always, and bars its own grants alone: what an admin that
   leaves had signed goes on.

The ends of a signer's grants are not looked at: a removal must outlive them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ..capability import PeerId
from ..exceptions import RemoteProtocolError
from ._chain import Chain, Signatures, fault_of_chain
from ._grant import Grant
from ._namespace import Namespace
from ._revocation import SignedRevocation, read_revocation

MAX_REMOVED_KEYS = 4096
"""Removals by the root, and as many by all others: a few megabytes."""

MAX_REMOVED_BELOW = 1024
"""Removals by one admin and by all that it let in, itself or through others: an admin that goes
astray leaves room for the others' removals."""

MAX_BYTES = 4 << 20
MAX_BYTES_BELOW = 1 << 20
"""The same limits in bytes: a removal has some 600, and a hostile one 3,072."""


class Revocations:
    """What is removed.

    Args:
      namespace: The closed namespace.
      signatures: Checks those of grants, and remembers them.

    """

    def __init__(self, namespace: Namespace, signatures: Signatures) -> None:
        self._namespace = namespace
        self._signatures = signatures
        self._held: dict[bytes, tuple[SignedRevocation, bytes]] = {}
        self._by_root: dict[PeerId, SignedRevocation] = {}
        self._by_itself: dict[PeerId, SignedRevocation] = {}
        self._by_admins: dict[PeerId, int] = {}
        self._below: Counter[PeerId] = Counter()
        self._bytes: Counter[PeerId] = Counter()
        self._all: tuple[bytes, ...] | None = ()

    @property
    def all(self) -> tuple[bytes, ...]:
        """Every removal, as it travels: those by the root first, since they decide of others."""
        if self._all is None:
            held = sorted(self._held.values(), key=lambda entry: not entry[0].is_by_root)
            self._all = tuple(data for _, data in held)
        return self._all

    def up_to(self, key: PeerId, *, by_others: bool = False) -> int:
        """The number up to which *key* is removed, by whomever or by others; 0 if it is not."""
        words = [self._by_root.get(key)]
        if not by_others:
            words.append(self._by_itself.get(key))
        numbers = [word.revocation.number for word in words if word is not None]
        return max([*numbers, self._by_admins.get(key, 0)])

    def by(self, issuer: PeerId) -> tuple[SignedRevocation, ...]:
        """The removals that *issuer* has signed and that count."""
        return tuple(
            word
            for word, _ in tuple(self._held.values())
            if word.revocation.issuer == issuer and self._cut(word.chain, word.digest) is None
        )

    def barred(self, chain: Chain) -> Grant | None:
        """The grant in *chain* that counts no longer; `None` if the chain does count."""
        if not self._held:
            return None
        cut = self._cut(chain, b"")
        if cut is not None:
            return cut
        for link in chain[-2:] if chain[-1].grant.kind == "process" else chain[-1:]:
            grant = link.grant
            left = self._by_itself.get(grant.subject)
            if left is not None and grant.number <= left.revocation.number:
                return grant
            if grant.kind != "admin" and grant.number <= self._by_admins.get(grant.subject, 0):
                return grant
        return None

    def _cut(self, chain: Chain, statement: bytes) -> Grant | None:
        """The grant in *chain* that the root took away without keeping what follows it.

        What follows the last one is a removal with the digest *statement*, or nothing.
        """
        for position, link in enumerate(chain):
            word = self._by_root.get(link.grant.subject)
            if word is None or link.grant.number > word.revocation.number:
                continue
            following = chain[position + 1] if position + 1 < len(chain) else None
            if following is None:
                digest = statement
            elif following.grant.kind == "process":
                # What a machine runs is the machine: a removal keeps other machines only.
                return link.grant
            else:
                digest = following.digest
            if digest not in word.revocation.kept:
                return link.grant
        return None

    # ---- learning ----

    def add(self, revocations: Iterable[bytes]) -> tuple[bytes, ...]:
        """Take in what is one of this namespace and signed by a key that may; returns the news."""
        news = []
        by_root = False
        for data in revocations:
            word = self._read(data)
            if word is None or not self._take(word, data):
                continue
            news.append(data)
            by_root = by_root or word.is_by_root
            if not word.is_by_root and not word.is_by_itself:
                self._note(word)
        if by_root:
            self._by_admins.clear()
            for word in self._of_admins():
                self._note(word)
        return tuple(news)

    def _of_admins(self) -> list[SignedRevocation]:
        return [
            word
            for word, _ in tuple(self._held.values())
            if not word.is_by_root and not word.is_by_itself
        ]

    def _note(self, word: SignedRevocation) -> None:
        """Let an admin's removal count, if its signer may say so."""
        if self._cut(word.chain, word.digest) is None:
            said = word.revocation
            self._by_admins[said.key] = max(said.number, self._by_admins.get(said.key, 0))

    def _read(self, data: bytes) -> SignedRevocation | None:
        """A removal that is news and that its signer may say; `None` for anything else."""
        try:
            word = read_revocation(data)
        except RemoteProtocolError:
            return None
        said = word.revocation
        if (said.namespace, said.root) != (self._namespace.name, self._namespace.root):
            return None
        if word.digest in self._held:
            return None
        if word.chain and (
            fault_of_chain(self._namespace, word.chain) is not None
            or self._signatures.forged(word.chain) is not None
        ):
            return None
        return word if word.is_signed(self._signatures.verify) else None

    def _take(self, word: SignedRevocation, data: bytes) -> bool:
        """Keep a removal, unless a greater one is there or there is no room."""
        if word.is_by_root or word.is_by_itself:
            words = self._by_root if word.is_by_root else self._by_itself
            before = words.get(word.revocation.key)
            if before is not None and _rank(before) >= _rank(word):
                return False
            old = self._forget(before) if before is not None else b""
            if not self._has_room(word, len(data)):
                if before is not None:
                    self._hold(before, old)
                return False
            words[word.revocation.key] = word
        elif not self._has_room(word, len(data)):
            return False
        self._hold(word, data)
        return True

    def _has_room(self, word: SignedRevocation, size: int) -> bool:
        if self._is_full(word, size):
            # What the root took away from an admin that went astray.
            for old in self._of_admins():
                if self._cut(old.chain, old.digest) is not None:
                    self._forget(old)
        return not self._is_full(word, size)

    def _is_full(self, word: SignedRevocation, size: int) -> bool:
        root, above = self._namespace.root, _above(word)
        if word.is_by_root:
            return self._below[root] >= MAX_REMOVED_KEYS or self._bytes[root] + size > MAX_BYTES
        others = len(self._held) - self._below[root]
        size_of_others = self._bytes.total() - self._bytes[root]
        return (
            others >= MAX_REMOVED_KEYS
            or size_of_others + size > MAX_BYTES
            or self._below[above] >= MAX_REMOVED_BELOW
            or self._bytes[above] + size > MAX_BYTES_BELOW
        )

    def _hold(self, word: SignedRevocation, data: bytes) -> None:
        self._held[word.digest] = (word, data)
        self._count(word, 1, len(data))

    def _forget(self, word: SignedRevocation) -> bytes:
        _, data = self._held.pop(word.digest)
        self._count(word, -1, -len(data))
        return data

    def _count(self, word: SignedRevocation, number: int, size: int) -> None:
        above = _above(word)
        self._below[above] += number
        self._bytes[above] += size
        if not self._below[above]:
            del self._below[above], self._bytes[above]
        self._all = None


def _rank(word: SignedRevocation) -> tuple[int, bytes]:
    """Which of two words of one signer on one key counts.

    Of two by the root it is the same one everywhere, since they may keep different things. A
    machine's words on one grant all mean the same: the first one that is heard stays, so that no
    machine can tell more and more of them.
    """
    return (word.revocation.number, word.digest if word.is_by_root else b"")


def _above(word: SignedRevocation) -> PeerId:
    """Whose room a removal takes: the root's, or that of the key which the root has let in."""
    return word.chain[0].grant.subject if word.chain else word.revocation.root
