"""A machine that changes its key: the old key's signed word on the new one.

The word lets nobody in by itself: an admin gives the new key a grant of the terms of the old one's,
if the old one still counts, to whoever proves to have the new key. A process cannot say it, since
its own key signs nothing.
"""

from __future__ import annotations

from ..capability import PeerId
from ..wire import encode_map
from ._grant import Sign, Verify
from ._keys import key_of
from ._namespace import Namespace

ROTATION_CONTEXT = b"punch rotation 1\n"
"""Put before the word when it is signed."""


def sign_rotation(namespace: Namespace, *, old: PeerId, new: PeerId, sign: Sign) -> bytes:
    """The signature of *old* under that its machine has the key *new* from now on."""
    return sign(_words(namespace, old, new))


def is_rotation(
    namespace: Namespace, *, old: PeerId, new: PeerId, signature: bytes, verify: Verify
) -> bool:
    """Whether *signature* is that of *old* under that its machine has the key *new*."""
    return verify(old, _words(namespace, old, new), signature)


def _words(namespace: Namespace, old: PeerId, new: PeerId) -> bytes:
    fields = {
        "namespace": namespace.name,
        "root": namespace.key,
        "old": key_of(old),
        "new": key_of(new),
    }
    return ROTATION_CONTEXT + encode_map(fields)
