"""The identity of a node: makes an Ed25519 key pair, keeps it in a file, signs and verifies.

Which file a process uses is decided by the command line.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import stat
from pathlib import Path

import attrs
from libp2p.crypto.ed25519 import Ed25519PrivateKey, Ed25519PublicKey, create_new_key_pair
from libp2p.crypto.keys import KeyPair
from libp2p.peer.id import ID

from ..capability import PeerId
from ..exceptions import ConfigurationError

_SEED_BYTES = 32
"""RFC 8032: an Ed25519 private key is 32 random bytes."""

_SIGNATURE_BYTES = 64
"""RFC 8032, section 5.1.6."""

_ID_PREFIX = bytes.fromhex("002408011220")
"""What precedes the public key in the id of an Ed25519 peer: identity multihash (0x00) of
36 bytes, which are a protobuf with the key's type and length (libp2p specs, peer-ids)."""

_FORMAT = "punch-identity-1"
_MAX_FILE_BYTES = 4096


def new_key_pair() -> KeyPair:
    """A fresh identity."""
    return create_new_key_pair(secrets.token_bytes(_SEED_BYTES))


def peer_id_of(key_pair: KeyPair) -> PeerId:
    """The peer id that belongs to a key pair."""
    return PeerId(str(ID.from_pubkey(key_pair.public_key)))


def load_or_create(path: Path) -> KeyPair:
    """The identity kept in a file, created there if there is none.

    The file holds a format name, the peer id and the private key. The peer id is there
    for people to read and for us to notice a damaged key: any 32 bytes are a valid one.

    Args:
      path: The file. Missing folders are created with mode 0700, the file with 0600.

    Raises:
      ConfigurationError: if the file is damaged, others can read it, or it cannot be
        read or written. An existing file is never written to.

    """
    try:
        return _load(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the identity file {path}: {error.strerror}"
        ) from error
    key_pair = new_key_pair()
    try:
        _create(path, key_pair)
        return _load(path)
    except OSError as error:
        raise ConfigurationError(
            f"cannot write the identity file {path}: {error.strerror}. "
            "Make its folder writable and see that the disk has room, or name another file."
        ) from error


def _load(path: Path) -> KeyPair:
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        content = file.read(_MAX_FILE_BYTES)
    if os.name == "posix" and mode & 0o077:
        raise ConfigurationError(
            f"the identity file {path} has mode {mode:04o}: others on this machine can read it. "
            f"Run: chmod 600 {path}"
        )
    return _decode(path, content)


def _decode(path: Path, content: bytes) -> KeyPair:
    remedy = "Restore it from a backup, or move it away to get a new identity."
    try:
        name, peer_id, secret = content.decode("ascii").split()
        seed = base64.b64decode(secret, validate=True)
    except (ValueError, binascii.Error):
        name = peer_id = ""
        seed = b""
    if name != _FORMAT or len(seed) != _SEED_BYTES:
        raise ConfigurationError(
            f"the identity file {path} is damaged: found {len(content)} bytes that are not the "
            f"three words '{_FORMAT} PEER_ID KEY'. {remedy}"
        )
    key_pair = create_new_key_pair(seed)
    if peer_id_of(key_pair) != peer_id:
        raise ConfigurationError(
            f"the identity file {path} is damaged: its key belongs to {peer_id_of(key_pair)}, "
            f"not to {peer_id}. {remedy}"
        )
    return key_pair


def _create(path: Path, key_pair: KeyPair) -> None:
    missing = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)
    seed = base64.b64encode(key_pair.private_key.to_bytes()).decode("ascii")
    content = f"{_FORMAT} {peer_id_of(key_pair)}\n{seed}\n".encode("ascii")
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            # Unlike a rename, a link never replaces the file that another process of ours
            # created in the meantime.
            path.hardlink_to(temporary)
        except FileExistsError:
            pass
        except OSError:  # A file system without links, such as exFAT.
            temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)


@attrs.frozen
class LibP2PKey:
    """A `punch.libp2p.Key`."""

    key_pair: KeyPair = attrs.field(repr=False)

    @property
    def peer_id(self) -> PeerId:
        """The identity that belongs to it."""
        return peer_id_of(self.key_pair)

    def sign(self, data: bytes) -> bytes:
        """The signature (64 bytes) of *data*."""
        return sign(self.key_pair, data)


def load(path: Path) -> LibP2PKey:
    """The key in a file, as `load_or_create` has it."""
    return LibP2PKey(load_or_create(path))


def sign(key_pair: KeyPair, data: bytes) -> bytes:
    """The Ed25519 signature (64 bytes) of *data*."""
    assert isinstance(key_pair.private_key, Ed25519PrivateKey)
    return key_pair.private_key.sign(data)


def verify(peer_id: str, data: bytes, signature: bytes) -> bool:
    """True if *signature* over *data* was made by *peer_id*; False for anything malformed."""
    if len(signature) != _SIGNATURE_BYTES:
        return False
    try:
        encoded = ID.from_base58(peer_id).to_bytes()
        if encoded[: len(_ID_PREFIX)] != _ID_PREFIX:
            return False
        # The constructor checks that there are 32 bytes.
        key = Ed25519PublicKey.from_bytes(encoded[len(_ID_PREFIX) :])
        return key.verify(data, signature)
    except (ValueError, TypeError):
        return False
