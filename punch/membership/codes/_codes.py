"""The two forms of an invite's code: a long line that holds everything, and a short one to type.

A long code has the namespace, its root's key, a secret of 128 bits and where to go; it is copied as
text, or scanned. A short one is a number and two words: it says which invite, and proves so little
that it is good for one guess. Neither is ever in a log: a code's `repr` hides what it proves.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
import secrets
from collections.abc import Callable
from hashlib import sha256

import attrs

from ...access import fault_of_name
from ...exceptions import ConfigurationError
from ...network import Address, parse_address
from ._words import WORDS

PREFIX = "punch1"
"""What a long code begins with; the digit is the version of its form."""

SECRET_BYTES = 16
ROOT_BYTES = 32
_CHECKSUM_BYTES = 4

MAX_CODE_ADDRESSES = 8
"""Addresses of a long code: as many as a peer announces."""

# A code with eight names of 253 letters each. What is longer is no code of ours.
MAX_CODE_CHARACTERS = 8192

MAX_SHORT_NUMBER = 9999

_SHORT = re.compile(r"([1-9][0-9]{0,3})[-\s]+([a-z]+)[-\s]+([a-z]+)")
_SPACE = re.compile(r"\s+")

_KINDS = ("ip4", "ip6", "dns", "dns4", "dns6")
_QUIC = 0x10

_REMEDY = "copy the whole line that `punch invite` has printed, or make another invite"


def new_secret() -> bytes:
    """The secret of a long code."""
    return secrets.token_bytes(SECRET_BYTES)


@attrs.frozen(kw_only=True)
class LongCode:
    """An invite as a line of text."""

    name: str
    """Name of the namespace."""

    root: bytes
    """The key that the namespace is closed with."""

    secret: bytes = attrs.field(repr=False)
    """What the holder of the code proves to know."""

    addresses: tuple[Address, ...] = ()
    """Where a member serves the invite, the best first; identities are proved by the root."""

    def text(self) -> str:
        """The line; in capitals it is the same code."""
        name = self.name.encode()
        places = b"".join(map(_packed, self.addresses[:MAX_CODE_ADDRESSES]))
        body = self.root + self.secret + bytes([len(name)]) + name + places
        body += sha256(body).digest()[:_CHECKSUM_BYTES]
        return PREFIX + base64.b32encode(body).decode("ascii").rstrip("=").lower()


@attrs.frozen(kw_only=True)
class ShortCode:
    """An invite as a number and two words."""

    number: int
    """Which invite of the machine it is; no secret."""

    words: str = attrs.field(repr=False)
    """What the holder of the code proves to know: ``apple-river``."""

    def text(self) -> str:
        """What is read out and typed."""
        return f"{self.number}-{self.words}"

    @property
    def secret(self) -> bytes:
        """The words as bytes."""
        return self.words.encode("ascii")


Code = LongCode | ShortCode


def new_short_code(is_free: Callable[[int], bool]) -> ShortCode:
    """A short code whose number *is_free*; there must be one."""
    words = f"{secrets.choice(WORDS)}-{secrets.choice(WORDS)}"
    while True:
        number = 1 + secrets.randbelow(MAX_SHORT_NUMBER)
        if is_free(number):
            return ShortCode(number=number, words=words)


def parse_code(text: str) -> Code:
    """The code that somebody has typed, pasted or scanned.

    Raises:
      ConfigurationError: with the rule, and without the code.

    """
    text = text.strip().lower()
    if not text:
        raise ConfigurationError("the code is empty: `punch invite`, on a member, prints one")
    if len(text) > MAX_CODE_CHARACTERS:
        raise ConfigurationError(f"a code has at most {MAX_CODE_CHARACTERS} characters: {_REMEDY}")
    match = _SHORT.fullmatch(text)
    if match is not None:
        for word in match[2], match[3]:
            if word not in WORDS:
                near = [each for each in WORDS if each[:3] == word[:3]]
                hint = f"did you mean {near[0]!r}?" if near else "listen again"
                raise ConfigurationError(f"{word[:20]!r} is no word of a short code: {hint}")
        return ShortCode(number=int(match[1]), words=f"{match[2]}-{match[3]}")
    # Mail programs cut long lines, and people indent them.
    text = _SPACE.sub("", text)
    if not text.startswith(PREFIX):
        raise ConfigurationError(
            f"this is no code: one begins with {PREFIX!r}, or is a number and two words as in "
            f"7-apple-river; {_REMEDY}"
        )
    return _of_bytes(_bytes_of(text.removeprefix(PREFIX)))


def _bytes_of(text: str) -> bytes:
    try:
        body = base64.b32decode(text.upper() + "=" * (-len(text) % 8))
    except (ValueError, binascii.Error):
        body = b""
    body, checksum = body[:-_CHECKSUM_BYTES], body[-_CHECKSUM_BYTES:]
    if not body or sha256(body).digest()[:_CHECKSUM_BYTES] != checksum:
        raise ConfigurationError(f"a part of the code is missing or wrong: {_REMEDY}")
    return body


def _of_bytes(body: bytes) -> LongCode:
    try:
        root, body = body[:ROOT_BYTES], body[ROOT_BYTES:]
        secret, body = body[:SECRET_BYTES], body[SECRET_BYTES:]
        length, body = body[0], body[1:]
        name, body = body[:length].decode(), body[length:]
        addresses = []
        while body:
            address, body = _unpacked(body)
            addresses.append(address)
        if fault_of_name(name) is not None:
            raise ValueError("a name that no namespace has")
    # Its checksum was right, so another version of punch made it, or somebody by hand.
    except (ValueError, IndexError, ConfigurationError):
        raise ConfigurationError(
            f"this code is of a form that is not known here: {_REMEDY}"
        ) from None
    return LongCode(
        name=name, root=root, secret=secret, addresses=tuple(addresses[:MAX_CODE_ADDRESSES])
    )


def _packed(address: Address) -> bytes:
    kind = _KINDS.index(address.kind)
    if address.is_name:
        name = address.host.encode("ascii")
        host = bytes([len(name)]) + name
    else:
        host = ipaddress.ip_address(address.host).packed
    head = kind | (_QUIC if address.transport == "quic" else 0)
    return bytes([head]) + host + address.port.to_bytes(2, "big")


def _unpacked(body: bytes) -> tuple[Address, bytes]:
    kind = _KINDS[body[0] & 0x0F]
    quic = bool(body[0] & _QUIC)
    if kind.startswith("dns"):
        end = 2 + body[1]
        host = body[2:end].decode("ascii")
    else:
        end = 5 if kind == "ip4" else 17
        host = str(ipaddress.ip_address(body[1:end]))
    port = int.from_bytes(body[end : end + 2], "big")
    if len(body) < end + 2:
        raise ValueError("a part of an address")
    how = f"udp/{port}/quic-v1" if quic else f"tcp/{port}"
    return parse_address(f"/{kind}/{host}/{how}"), body[end + 2 :]
