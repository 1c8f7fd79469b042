"""What a newcomer and a member nearby commit to, and the digits that both show. No I/O.

1. The newcomer commits to a random number before it hears the member's, and the member tells its
   own before it hears the newcomer's: neither can look for a number that makes given digits.
2. The digits depend on both numbers, both identities as the connection has proved them, and the
   name that the member shows. Whoever stands in between has another identity on each side, so that
   the two screens differ, but for one chance in a million for each try.
"""

from __future__ import annotations

import re
from hashlib import sha256

from ...capability import PeerId

NONCE_BYTES = 32
COMMITMENT_BYTES = 32

DIGITS = 6
"""As many as people compare at a glance (Bluetooth's numeric comparison has six, too)."""

_DIGITS = re.compile(rf"[0-9]{{{DIGITS // 2}}}[ -]?[0-9]{{{DIGITS // 2}}}", re.ASCII)


def commitment_to(nonce: bytes, *, newcomer: PeerId, member: PeerId, name: str) -> bytes:
    """What the newcomer sends first: binds it to *nonce*, and tells nothing of it."""
    return _digest("commitment", nonce, newcomer.encode(), member.encode(), name.encode())


def digits_of(nonces: tuple[bytes, bytes], *, newcomer: PeerId, member: PeerId, name: str) -> str:
    """The digits that both sides show.

    Args:
      nonces: The random numbers of newcomer and member.
      newcomer: The newcomer, as the member knows it.
      member: The member, as the newcomer knows it.
      name: What the newcomer calls itself.

    """
    found = _digest("digits", *nonces, newcomer.encode(), member.encode(), name.encode())
    return f"{int.from_bytes(found, 'big') % 10**DIGITS:0{DIGITS}}"


def shown_digits(digits: str) -> str:
    """*digits* as people read them: in two groups."""
    return f"{digits[: DIGITS // 2]} {digits[DIGITS // 2 :]}"


def typed_digits(text: str) -> str | None:
    """The digits that *text* means, with or without a space or hyphen; `None` if it is a name."""
    text = text.strip()
    return re.sub("[ -]", "", text) if _DIGITS.fullmatch(text) else None


def is_digits(text: str) -> bool:
    """True if a person means digits by *text*, and not a name."""
    return typed_digits(text) is not None


def _digest(label: str, *parts: bytes) -> bytes:
    """A digest of *parts*, each with its length in front: no two lists of parts look alike."""
    found = sha256(f"punch nearby {label} 1\n".encode())
    for part in parts:
        found.update(len(part).to_bytes(4, "big") + part)
    return found.digest()
