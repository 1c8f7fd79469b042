"""A revocation: the signed word that a key is no member any more, up to a number.

The word holds for ever and is spread by everybody. It says nothing of later grants: a key that was
removed comes back with a grant of a greater number, and with nothing that it held before.
"""

from __future__ import annotations

from typing import Any

import attrs

from ..capability import PeerId
from ..exceptions import LocalProtocolError, RemoteProtocolError
from ..wire import (
    MAX_GRANT_BYTES,
    BadValue,
    binary,
    decode_map,
    encode_map,
    integer,
    many,
    record,
)
from ._chain import Chain, decode_chain, encode_chain
from ._grant import (
    DIGEST_BYTES,
    MAX_NUMBER,
    SIGNATURE_BYTES,
    Sign,
    Signed,
    namespace_name,
    peer_key,
)
from ._keys import key_of

REVOCATION_CONTEXT = b"punch revocation 1\n"
"""Put before a revocation when it is signed."""

MAX_KEPT = 384
"""What a removed admin had signed and what stays: as many digests as fit a revocation."""

MAX_REVOCATION_BYTES = 8192
"""A revocation as it travels, with the chain of its signer or with what the root keeps."""

MAX_OTHERS_REVOCATION_BYTES = 3072
"""One that is not by the root, and keeps nothing: the longest chain, and some keys."""


@attrs.frozen(kw_only=True)
class Revocation:
    """The removal of one key."""

    namespace: str
    """The name of the namespace."""

    root: PeerId
    """The root key of the namespace."""

    key: PeerId
    """The key that is removed: a machine's, an admin's or a process's."""

    number: int
    """Grants for the key with this number or a smaller one count no longer."""

    issuer: PeerId
    """The key that signs the removal: the root, an admin, or the removed machine itself."""

    chain: bytes = b""
    """The issuer's own chain, encoded; empty for the root. Part of what is signed: nobody else can
    say under which grants it was signed."""

    kept: tuple[bytes, ...] = ()
    """Of a removal by the root: digests of what the removed admin had signed that stays."""


@attrs.frozen(kw_only=True)
class SignedRevocation(Signed):
    """A revocation as it travels."""

    context = REVOCATION_CONTEXT

    revocation: Revocation
    """What it says."""

    chain: Chain
    """The issuer's chain; empty for the root."""

    @property
    def issuer(self) -> PeerId:
        """The key that must have signed it."""
        return self.revocation.issuer

    @property
    def is_by_root(self) -> bool:
        """Whether the root has signed it."""
        return self.revocation.issuer == self.revocation.root

    @property
    def is_by_itself(self) -> bool:
        """Whether the removed key has signed it: a machine that leaves."""
        return self.revocation.issuer == self.revocation.key


def _digest(value: Any) -> bytes:
    if type(value) is not bytes or len(value) != DIGEST_BYTES:
        raise BadValue(f"a digest of {DIGEST_BYTES} bytes")
    return value


_revocation = record(
    Revocation,
    namespace=namespace_name,
    root=peer_key,
    key=peer_key,
    number=integer(1, MAX_NUMBER),
    issuer=peer_key,
    chain=binary(MAX_GRANT_BYTES),
    kept=many(_digest, MAX_KEPT),
)


@attrs.frozen(kw_only=True)
class _Signed:
    revocation: bytes
    signature: bytes


_signed = record(
    _Signed, revocation=binary(MAX_REVOCATION_BYTES), signature=binary(SIGNATURE_BYTES)
)


def _fault(revocation: Revocation, chain: Chain, size: int) -> str | None:
    """What is wrong with a revocation by itself, for a person; `None` if nothing is."""
    if revocation.key == revocation.root:
        return "is of the root key, which is no member"
    if revocation.issuer == revocation.root:
        return "shows a chain for the root" if chain else None
    if size > MAX_OTHERS_REVOCATION_BYTES:
        return f"has {size} bytes; at most {MAX_OTHERS_REVOCATION_BYTES} are allowed"
    if revocation.kept:
        return "keeps what another has signed, which only the root does"
    if not chain or chain[-1].grant.subject != revocation.issuer:
        return "shows no chain of its signer"
    kind = chain[-1].grant.kind
    if kind == "process" or (kind == "machine" and revocation.issuer != revocation.key):
        return f"was signed by a {kind} that may not remove others"
    if revocation.issuer == revocation.key and revocation.number != chain[-1].grant.number:
        # A machine says so once of each grant, and cannot keep everybody busy with it.
        return "is by the machine itself, of another number than that of its grant"
    return None


def sign_revocation(
    *,
    namespace: str,
    root: PeerId,
    key: PeerId,
    number: int,
    issuer: PeerId,
    sign: Sign,
    chain: Chain = (),
    kept: tuple[bytes, ...] = (),
) -> bytes:
    """A revocation as it travels; see `Revocation` for the arguments.

    Raises:
      LocalProtocolError: if nobody would read it.

    """
    fields: dict[str, Any] = {
        "namespace": namespace,
        "root": key_of(root),
        "key": key_of(key),
        "number": number,
        "issuer": key_of(issuer),
    }
    if chain:
        fields["chain"] = encode_chain(chain)
    if kept:
        fields["kept"] = list(kept)
    encoded = encode_map(fields)
    signature = sign(REVOCATION_CONTEXT + encoded)
    travelling = encode_map({"revocation": encoded, "signature": signature})
    try:
        read_revocation(travelling)
    except RemoteProtocolError as error:
        raise LocalProtocolError(str(error)) from None
    return travelling


def read_revocation(data: bytes) -> SignedRevocation:
    """The revocation in *data*, of which nothing was verified.

    Raises:
      RemoteProtocolError: if it is none.

    """
    if len(data) > MAX_REVOCATION_BYTES:
        raise RemoteProtocolError(
            f"a revocation of {len(data)} bytes; at most {MAX_REVOCATION_BYTES} are allowed"
        )
    signed: _Signed = decode_map(data, _signed, what="revocation")
    revocation: Revocation = decode_map(signed.revocation, _revocation, what="revocation")
    chain = decode_chain(revocation.chain) if revocation.chain else ()
    fault = _fault(revocation, chain, len(data))
    if fault is not None:
        raise RemoteProtocolError(f"a revocation that {fault}")
    return SignedRevocation(
        encoded=signed.revocation,
        signature=signed.signature,
        revocation=revocation,
        chain=chain,
    )
