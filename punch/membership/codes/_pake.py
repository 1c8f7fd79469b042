"""Proves to each of two peers that the other knows a secret, and shows the secret to nobody.

SPAKE2 (RFC 9382) by the package `spake2`, over Ed25519. The identities that both peers proved when
they connected are part of what is hashed: who stands in between has other ones, and so another key,
whatever passes through. A peer that does not know the secret learns from one exchange whether one
guess was right, and nothing else.
"""

from __future__ import annotations

import hmac
from hashlib import sha256

from spake2 import SPAKE2_A, SPAKE2_B

from ...capability import PeerId
from ...exceptions import RemoteProtocolError

# A side's letter and a point of the curve, see the package.
MESSAGE_BYTES = 33

CONFIRMATION_BYTES = 32

_CONTEXT = b"punch join 1 "


class Exchange:
    """One exchange; each of its methods is called once. It takes tens of milliseconds in all.

    Args:
      secret: What both sides must know.
      newcomer: The identity of the peer that opened the stream.
      member: The identity of the peer that serves it.
      is_member: Which of the two this side is.

    """

    def __init__(self, secret: bytes, *, newcomer: PeerId, member: PeerId, is_member: bool) -> None:
        side = SPAKE2_B if is_member else SPAKE2_A
        self._side = side(
            _CONTEXT + secret,
            idA=_CONTEXT + newcomer.encode("utf-8"),
            idB=_CONTEXT + member.encode("utf-8"),
        )
        self.message: bytes = self._side.start()
        """What this side sends first."""

    def finish(self, message: bytes) -> tuple[bytes, bytes]:
        """What the member, and what the newcomer, sends to confirm that it has the same key.

        Raises:
          RemoteProtocolError: if *message* is none of the other side.

        """
        if len(message) != MESSAGE_BYTES:
            raise RemoteProtocolError(f"a key exchange of {len(message)} bytes")
        try:
            key: bytes = self._side.finish(message)
        # The package has no class for all that can be wrong with a point, some of its own beside
        # ValueError, and no I/O: whatever it says, the message was no good.
        except Exception:  # noqa: BLE001 - see above
            raise RemoteProtocolError("a key exchange that is none") from None
        return (
            hmac.digest(key, _CONTEXT + b"the member has the key", sha256),
            hmac.digest(key, _CONTEXT + b"the newcomer has the key", sha256),
        )


def is_same(confirmation: bytes, expected: bytes) -> bool:
    """True if they are the same; how long that takes tells nothing."""
    return hmac.compare_digest(confirmation, expected)
