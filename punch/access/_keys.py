"""Keys as bytes and as peer ids: each key has one spelling of either kind.

A peer id is the base58 of its Ed25519 key with what libp2p writes around it (libp2p specs,
peer-ids). Many libraries read more than one spelling of it, with spaces at its end for instance;
a key that is removed would come back under another. Here a peer id is made of the bytes, always.
"""

from __future__ import annotations

import functools

from ..capability import PeerId
from ..exceptions import LocalProtocolError, RemoteProtocolError

KEY_BYTES = 32
"""RFC 8032: an Ed25519 public key."""

MAX_STAND_IN_BYTES = 40
"""A name in place of a key, as the network in memory has them. A real peer id has 52 letters, so
that no name is one; and no name has 32 bytes."""

_PREFIX = bytes.fromhex("002408011220")
_LETTERS = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_VALUE = {letter: value for value, letter in enumerate(_LETTERS)}
_PEER_ID_LETTERS = 52

# Keys of a few large namespaces; each entry is some 200 bytes.
_REMEMBERED = 8192


@functools.lru_cache(_REMEMBERED)
def key_of(peer_id: PeerId) -> bytes:
    """The bytes of a peer's public key; a name that stands for none is its own text.

    Raises:
      LocalProtocolError: if it is neither.

    """
    if len(peer_id) == _PEER_ID_LETTERS:
        number = 0
        for letter in peer_id:
            number = number * 58 + _VALUE.get(letter, 1 << 400)
        # The leading zero of the prefix is the leading 1 of the text.
        if number >> (8 * (KEY_BYTES + len(_PREFIX))) == 0 and peer_id[0] == _LETTERS[0]:
            data = number.to_bytes(KEY_BYTES + len(_PREFIX), "big")
            if data.startswith(_PREFIX) and peer_id[1] != _LETTERS[0]:
                return data[len(_PREFIX) :]
    name = peer_id.encode(errors="surrogatepass")
    if not _is_stand_in(name):
        raise LocalProtocolError(f"{peer_id[:80]!r} is no id of an Ed25519 key")
    return name


@functools.lru_cache(_REMEMBERED)
def peer_of(key: bytes) -> PeerId:
    """The peer id of a public key.

    Raises:
      RemoteProtocolError: if these bytes are no key.

    """
    if len(key) != KEY_BYTES:
        if not _is_stand_in(key):
            raise RemoteProtocolError(f"{len(key)} bytes are no Ed25519 key, which has {KEY_BYTES}")
        return PeerId(key.decode())
    number = int.from_bytes(_PREFIX + key, "big")
    letters = []
    while number:
        number, value = divmod(number, 58)
        letters.append(_LETTERS[value])
    return PeerId(_LETTERS[0] + "".join(reversed(letters)))


def _is_stand_in(name: bytes) -> bool:
    if not 1 <= len(name) <= MAX_STAND_IN_BYTES or len(name) == KEY_BYTES:
        return False
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return False
    return text.isprintable() and not any(letter.isspace() for letter in text)
