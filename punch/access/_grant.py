"""A grant: membership of one key, signed.

What a grant may say by itself is checked here; how grants hang together is the business of
`_chain`, and whether they still count is decided by `Lock`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import attrs

from ..capability import PeerId
from ..exceptions import LocalProtocolError, RemoteProtocolError
from ..wire import BadValue, decode_map, encode_map, integer, label, one_of, record, set_of
from ._keys import key_of, peer_of
from ._namespace import fault_of_name

Kind = Literal["admin", "machine", "process"]

SCOPES = frozenset({"dial", "listen", "lend", "borrow", "relay", "admin"})
"""What a grant may allow: to ask, to answer, to lend memory, to borrow it, to carry others'
traffic, to let others in and to command. A grant may hold further scopes, which mean nothing to
this version."""

GRANT_CONTEXT = b"punch grant 1\n"
"""Put before a grant when it is signed, so that a signature made for one purpose never serves
another."""

MAX_SCOPES = 16
MAX_SCOPE_CHARACTERS = 32

MAX_NUMBER = (1 << 32) - 1
"""A key that was removed this often has to be replaced by another key."""

MAX_ENDS = 1 << 40
"""Seconds since 1970: far beyond what anybody means, and an integer in every language."""

SIGNATURE_BYTES = 64
"""RFC 8032, section 5.1.6."""

DIGEST_BYTES = 16
"""Of SHA-256. Nobody finds a second grant with the digest of a given one."""

NAME_SALT_BYTES = 16
NAME_BYTES = NAME_SALT_BYTES + DIGEST_BYTES

# With the longest names and all scopes of today a grant has some 400 bytes.
MAX_ENCODED_BYTES = 1024

Sign = Callable[[bytes], bytes]
"""Signs bytes with one key."""

Verify = Callable[[PeerId, bytes, bytes], bool]
"""``verify(peer_id, data, signature)``: whether *peer_id* has signed *data*. As `Node.verify`."""


@attrs.frozen(kw_only=True)
class Grant:
    """Membership of one key in a closed namespace."""

    namespace: str
    """The name of the namespace."""

    root: PeerId
    """The root key of the namespace."""

    subject: PeerId
    """The key that the grant is for."""

    issuer: PeerId
    """The key that signs it."""

    kind: Kind
    """``admin``: a machine that may let others in; ``machine``; ``process``: one punch process on a
    machine, which signs nothing."""

    scopes: frozenset[str]
    """What it allows: of `SCOPES` and others."""

    ends: int
    """UTC, in seconds since 1970, when it stops to count."""

    number: int
    """One more than the number up to which its subject was removed before; 1 for a key that never
    was."""

    under: int
    """The number of the issuer's own grant; 0 if the root signs."""

    owner: PeerId
    """The machine key that stands for the owner of the machine."""

    lasts: int = 0
    """Seconds that each renewal lasts; 0 if it is not renewed."""

    name: bytes = b""
    """A salted digest of the machine's name for people, see `punch.access.hidden_name`; empty if it
    has none."""

    def allows(self, scopes: frozenset[str]) -> bool:
        """Whether all of *scopes* are in the grant."""
        return scopes <= self.scopes


@attrs.frozen(kw_only=True)
class Signed:
    """A statement as it travels: a grant, or a removal."""

    context: ClassVar[bytes]
    """Put before the map when it is signed."""

    encoded: bytes
    """The map that was signed. Keys that this version does not know are signed and ignored."""

    signature: bytes
    """Of its issuer, over the context and the map."""

    digest: bytes = attrs.field(init=False)
    """What tells it from every other statement, whatever its signature looks like."""

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "digest", digest_of(self.context, self.encoded))

    @property
    def issuer(self) -> PeerId:
        """The key that must have signed it."""
        raise NotImplementedError

    def is_signed(self, verify: Verify) -> bool:
        """Whether its issuer has signed it; whether the issuer may is another question."""
        return verify(self.issuer, self.context + self.encoded, self.signature)


@attrs.frozen(kw_only=True)
class SignedGrant(Signed):
    """A grant as it travels."""

    context = GRANT_CONTEXT

    grant: Grant
    """What it says."""

    @property
    def issuer(self) -> PeerId:
        """The key that must have signed it."""
        return self.grant.issuer


def digest_of(context: bytes, encoded: bytes) -> bytes:
    """The digest of something signed, without its signature.

    The context is in it: one map could be read as a grant and as a revocation.
    """
    return hashlib.sha256(context + encoded).digest()[:DIGEST_BYTES]


def peer_key(value: Any) -> PeerId:
    """The peer id of a key in a map; a decoder."""
    if type(value) is not bytes:
        raise BadValue("a public key, in bytes")
    try:
        return peer_of(value)
    except RemoteProtocolError as error:
        raise BadValue(f"a public key: {error}") from None


def namespace_name(value: Any) -> str:
    """The name of a closed namespace in a map; a decoder."""
    if type(value) is not str:
        raise BadValue("the name of a namespace")
    fault = fault_of_name(value)
    if fault is not None:
        raise BadValue(f"the name of a namespace, which {fault}")
    return value


def _hidden_name(value: Any) -> bytes:
    if type(value) is not bytes or len(value) != NAME_BYTES:
        raise BadValue(f"a salted digest of {NAME_BYTES} bytes")
    return value


_grant = record(
    Grant,
    namespace=namespace_name,
    root=peer_key,
    subject=peer_key,
    issuer=peer_key,
    kind=one_of("admin", "machine", "process"),
    scopes=set_of(label(MAX_SCOPE_CHARACTERS), MAX_SCOPES),
    ends=integer(0, MAX_ENDS),
    number=integer(1, MAX_NUMBER),
    under=integer(0, MAX_NUMBER),
    owner=peer_key,
    lasts=integer(0, MAX_ENDS),
    name=_hidden_name,
)


def fault_of_grant(grant: Grant) -> str | None:
    """What is wrong with a grant by itself, for a person; `None` if nothing is."""
    if grant.subject == grant.root:
        return "is for the root key, which only signs"
    if grant.subject == grant.issuer:
        return "is signed by the key that it is for"
    if grant.kind != "process" and (grant.kind == "admin") != ("admin" in grant.scopes):
        return f"is of kind {grant.kind} and has the scopes {listed(grant.scopes)}"
    if (grant.issuer == grant.root) != (grant.under == 0):
        return "does not name the grant under which it was signed"
    return None


def listed(scopes: frozenset[str]) -> str:
    """Scopes, for a person."""
    return ", ".join(sorted(scopes)) or "none"


def sign_grant(grant: Grant, sign: Sign) -> SignedGrant:
    """*grant*, signed with the key of its issuer.

    Raises:
      LocalProtocolError: if nobody would read it.

    """
    fields: dict[str, Any] = {
        "namespace": grant.namespace,
        "root": key_of(grant.root),
        "subject": key_of(grant.subject),
        "issuer": key_of(grant.issuer),
        "kind": grant.kind,
        "scopes": sorted(grant.scopes),
        "ends": grant.ends,
        "number": grant.number,
        "under": grant.under,
        "owner": key_of(grant.owner),
    }
    if grant.lasts:
        fields["lasts"] = grant.lasts
    if grant.name:
        fields["name"] = grant.name
    encoded = encode_map(fields)
    try:
        read = read_grant(encoded)
    except RemoteProtocolError as error:
        raise LocalProtocolError(str(error)) from None
    return SignedGrant(encoded=encoded, signature=sign(GRANT_CONTEXT + encoded), grant=read)


def read_grant(encoded: bytes) -> Grant:
    """The grant in *encoded*, whose signature the caller checks.

    Raises:
      RemoteProtocolError: if it is none.

    """
    if len(encoded) > MAX_ENCODED_BYTES:
        raise RemoteProtocolError(
            f"a grant of {len(encoded)} bytes; at most {MAX_ENCODED_BYTES} are allowed"
        )
    grant: Grant = decode_map(encoded, _grant, what="grant")
    fault = fault_of_grant(grant)
    if fault is not None:
        raise RemoteProtocolError(f"a grant that {fault}")
    return grant
