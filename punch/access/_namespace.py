"""A closed namespace: a name and the key that its lock is made of."""

from __future__ import annotations

import base64
import hashlib
import re

import attrs

from ..capability import PeerId
from ..exceptions import ConfigurationError
from ._keys import key_of

MAX_NAME_BYTES = 64
"""Of a closed namespace. It stands in each grant, of which a greeting carries a few."""

FINGERPRINT_LETTERS = 8
"""Forty bits: enough to tell the namespaces of a person apart, and no proof of anything: the whole
key decides wherever something depends on it."""

# A folder has this name too, on every system, so no separators, no dot in front and none at the
# end; an at sign would be read as the beginning of a fingerprint.
_NAME = re.compile(r"[^\s./\\:@<>\"|?*](?:[^\n\t/\\:@<>\"|?*]*[^\s./\\:@<>\"|?*])?")
_FINGERPRINT = re.compile(rf"[a-z2-7]{{{FINGERPRINT_LETTERS}}}")


def fingerprint_of(root: PeerId) -> str:
    """Eight letters of base32 of the SHA-256 of the root's public key."""
    digest = hashlib.sha256(key_of(root)).digest()
    return base64.b32encode(digest)[:FINGERPRINT_LETTERS].decode("ascii").lower()


def fault_of_name(name: str) -> str | None:
    """What is wrong with *name* as that of a closed namespace, for a person; or `None`."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "is no Unicode text"
    if not 1 <= size <= MAX_NAME_BYTES:
        return f"must have 1 to {MAX_NAME_BYTES} bytes, and has {size}"
    if not name.isprintable() or not _NAME.fullmatch(name):
        return (
            'must be one line without / \\ : @ < > " | ? *, '
            "with no dot or space as its first or last character"
        )
    return None


@attrs.frozen(kw_only=True)
class Namespace:
    """A closed namespace."""

    name: str
    """What people call it; others may have the same."""

    root: PeerId
    """The key that signs its admins, as a peer id. Two namespaces are the same if name and root
    are."""

    fingerprint: str = attrs.field(init=False)
    """Short for the root, where people tell namespaces of one name apart; not a proof."""

    def __attrs_post_init__(self) -> None:
        fault = fault_of_name(self.name)
        if fault is not None:
            raise ConfigurationError(f"the name {self.name[:80]!r} of a closed namespace {fault}")
        object.__setattr__(self, "fingerprint", fingerprint_of(self.root))

    @property
    def key(self) -> bytes:
        """The root's public key as it travels."""
        return key_of(self.root)

    def __str__(self) -> str:
        return f"{self.name}@{self.fingerprint}"

    def is_meant_by(self, text: str) -> bool:
        """Whether *text*, ``NAME`` or ``NAME@FINGERPRINT``, may mean this namespace."""
        name, fingerprint = parse_namespace(text)
        return name == self.name and fingerprint in (None, self.fingerprint)


def parse_namespace(text: str) -> tuple[str, str | None]:
    """The name in ``NAME`` or ``NAME@FINGERPRINT``, and the fingerprint if there is one."""
    name, at, fingerprint = text.rpartition("@")
    if at and name and _FINGERPRINT.fullmatch(fingerprint.lower()):
        return name, fingerprint.lower()
    return text, None
