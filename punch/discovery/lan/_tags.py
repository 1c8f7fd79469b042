"""Decides whether a record on a LAN is of our namespace, which the record does not name. No I/O.

A record holds a salt and a tag: a digest of the salt and the peer's identity, keyed with what
members know of their namespace. A closed namespace is known by its root's public key, an open one
by its name. So

* who knows neither learns nothing of a record but that a punch peer is there;
* who guesses a name can try the guess, as with any salted digest: an open namespace has no secret;
* who knows the name of a closed one recognises it, by a tag of its own that is keyed with the name,
  and can be warned to be in the open one of that name. Who guesses it can try that, too, at some
  milliseconds of work for each guess;
* a tag fits no other identity, so that nobody is found in the place of another by a copied record.
"""

from __future__ import annotations

import hashlib
import hmac
from functools import lru_cache
from typing import Literal

import attrs

from ...capability import PeerId

SALT_BYTES = 16
TAG_BYTES = 16

# What a guess of the name of a closed namespace costs: some milliseconds, and 2 MB (RFC 7914).
SCRYPT_COST, SCRYPT_BLOCK = 1 << 11, 8

Purpose = Literal["record", "ask", "name"]
"""What a tag is made for: ``record`` to be found, ``ask`` to be told a registration, ``name`` to be
recognised as a closed namespace by somebody who knows its name. One serves for no other."""


@attrs.frozen(kw_only=True)
class LanKey:
    """What the members of a namespace make their tags with."""

    secret: bytes = attrs.field(repr=False)
    """Thirty-two bytes. Of an open namespace no secret: a digest of its name."""

    @classmethod
    def of_open(cls, name: str) -> LanKey:
        """The key of the open namespace *name*."""
        return cls(secret=hashlib.sha256(b"punch lan open\n" + name.encode()).digest())

    @classmethod
    def of_closed(cls, root: bytes) -> LanKey:
        """The key of the closed namespace with the public key *root*."""
        return cls(secret=hashlib.sha256(b"punch lan closed\n" + root).digest())

    @classmethod
    def of_name(cls, name: str) -> LanKey:
        """The key by which a closed namespace is recognised by its *name* alone."""
        return cls(secret=_stretched(name))

    def tag(self, purpose: Purpose, salt: bytes, *peers: PeerId) -> bytes:
        """The tag of *peers* with *salt*, `TAG_BYTES` long."""
        # Identities have no zero byte, so that no two lists of them are one text.
        text = b"\0".join((b"punch lan 1", purpose.encode(), salt, *(p.encode() for p in peers)))
        return hmac.digest(self.secret, text, "sha256")[:TAG_BYTES]

    def fits(self, tag: bytes, purpose: Purpose, salt: bytes, *peers: PeerId) -> bool:
        """True if *tag* was made with this key for exactly this."""
        return len(salt) == SALT_BYTES and hmac.compare_digest(tag, self.tag(purpose, salt, *peers))


@lru_cache(maxsize=16)
def _stretched(name: str) -> bytes:
    """A digest of *name* that takes some work. A program knows one name, or a few."""
    return hashlib.scrypt(
        name.encode(),
        # Not drawn by chance: whoever knows the name has to come to the same.
        salt=b"punch lan name\n",
        n=SCRYPT_COST,
        r=SCRYPT_BLOCK,
        p=1,
        dklen=32,
    )
