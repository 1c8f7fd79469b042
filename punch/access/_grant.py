"""A grant: membership of one key, signed; and a chain of them, from the root's side to a peer.

What a grant may say is checked here, and what a chain may be: each step is signed by the one
before it and allows no more than that. Whether a chain still counts is decided by `Lock`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Literal

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
    label,
    many,
    one_of,
    record,
    set_of,
)
from ._keys import key_of, peer_of
from ._namespace import Namespace, fault_of_name

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

MAX_ADMINS = 3
"""In one chain. Each admin may let in another one; each adds a signature to every greeting of those
that the last one lets in."""

MAX_CHAIN = MAX_ADMINS + 2
"""Admins, the machine, the process."""

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

# What is left of a chain for one grant: with the longest names and all scopes of today a grant has
# some 440 bytes.
_MAX_ENCODED_BYTES = 1024

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

    name: bytes = b""
    """A salted digest of the machine's name for people, see `punch.access.hidden_name`; empty if it
    has none."""

    def allows(self, scopes: frozenset[str]) -> bool:
        """Whether all of *scopes* are in the grant."""
        return scopes <= self.scopes


@attrs.frozen(kw_only=True)
class SignedGrant:
    """A grant as it travels."""

    encoded: bytes
    """The map that was signed. Keys that this version does not know are signed and ignored."""

    signature: bytes
    """Of its issuer, over `GRANT_CONTEXT` and the map."""

    grant: Grant
    """What it says."""

    digest: bytes = attrs.field(init=False)
    """What tells it from every other grant, whatever its signature looks like."""

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "digest", digest_of(self.encoded))

    def is_signed(self, verify: Verify) -> bool:
        """Whether its issuer has signed it."""
        return verify(self.grant.issuer, GRANT_CONTEXT + self.encoded, self.signature)


Chain = tuple[SignedGrant, ...]
"""Grants from the root's side to a peer: admins, the machine, the process."""


def digest_of(encoded: bytes) -> bytes:
    """The digest of something signed, without its signature."""
    return hashlib.sha256(encoded).digest()[:DIGEST_BYTES]


def peer_key(value: Any) -> PeerId:
    """The peer id of a key in a map; a decoder."""
    if type(value) is not bytes:
        raise BadValue("a public key, in bytes")
    try:
        return peer_of(value)
    except RemoteProtocolError as error:
        raise BadValue(f"a public key: {error}") from None


def _namespace_name(value: Any) -> str:
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
    namespace=_namespace_name,
    root=peer_key,
    subject=peer_key,
    issuer=peer_key,
    kind=one_of("admin", "machine", "process"),
    scopes=set_of(label(MAX_SCOPE_CHARACTERS), MAX_SCOPES),
    ends=integer(0, MAX_ENDS),
    number=integer(1, MAX_NUMBER),
    under=integer(0, MAX_NUMBER),
    owner=peer_key,
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
    if len(encoded) > _MAX_ENCODED_BYTES:
        raise RemoteProtocolError(
            f"a grant of {len(encoded)} bytes; at most {_MAX_ENCODED_BYTES} are allowed"
        )
    grant: Grant = decode_map(encoded, _grant, what="grant")
    fault = fault_of_grant(grant)
    if fault is not None:
        raise RemoteProtocolError(f"a grant that {fault}")
    return grant


@attrs.frozen(kw_only=True)
class _Link:
    """A grant in a chain, as it travels."""

    grant: bytes
    signature: bytes


@attrs.frozen(kw_only=True)
class _Links:
    grants: tuple[_Link, ...]


_links = record(
    _Links,
    grants=many(
        record(_Link, grant=binary(_MAX_ENCODED_BYTES), signature=binary(SIGNATURE_BYTES)),
        MAX_CHAIN,
    ),
)


def encode_chain(chain: Chain) -> bytes:
    """The bytes of *chain*, as a greeting or a registration carries them.

    Raises:
      LocalProtocolError: if they are more than a greeting has room for.

    """
    links = [{"grant": link.encoded, "signature": link.signature} for link in chain]
    encoded = encode_map({"grants": links})
    if len(encoded) > MAX_GRANT_BYTES or len(chain) > MAX_CHAIN:
        raise LocalProtocolError(
            f"a chain of {len(chain)} grants in {len(encoded)} bytes; at most {MAX_CHAIN} in "
            f"{MAX_GRANT_BYTES} bytes are read. Have the root sign the admin, or give fewer scopes."
        )
    return encoded


def decode_chain(encoded: bytes) -> Chain:
    """The chain in *encoded*: each grant is one, and nothing was verified.

    Raises:
      RemoteProtocolError: if it is none.

    """
    if len(encoded) > MAX_GRANT_BYTES:
        raise RemoteProtocolError(
            f"a chain of {len(encoded)} bytes; at most {MAX_GRANT_BYTES} are allowed"
        )
    links: _Links = decode_map(encoded, _links, what="chain")
    if not links.grants:
        raise RemoteProtocolError("chain.grants: expected a grant, got none")
    return tuple(
        SignedGrant(encoded=link.grant, signature=link.signature, grant=read_grant(link.grant))
        for link in links.grants
    )


def fault_of_chain(namespace: Namespace, chain: Chain) -> str | None:
    """What is wrong with how *chain* hangs together, for a person; `None` if nothing is.

    Signatures and ends are not looked at.
    """
    admins = sum(link.grant.kind == "admin" for link in chain)
    kinds = [link.grant.kind for link in chain]
    if kinds not in (
        ["admin"] * admins,
        ["admin"] * admins + ["machine"],
        ["admin"] * admins + ["machine", "process"],
        ["admin"] * admins + ["process"],
    ):
        return f"has grants in the wrong order: {', '.join(kinds)}"
    if admins > MAX_ADMINS:
        return f"has {admins} admins; at most {MAX_ADMINS} are allowed"
    if len({link.grant.subject for link in chain}) < len(chain):
        return "has two grants for one key"
    above: Grant | None = None
    for link in chain:
        fault = _fault_of_step(namespace, above, link.grant)
        if fault is not None:
            return fault
        above = link.grant
    return None


def _fault_of_step(namespace: Namespace, above: Grant | None, grant: Grant) -> str | None:
    """What is wrong with *grant* below *above*, or below the root."""
    what = f"the {grant.kind} grant"
    if above is None:
        if grant.issuer != namespace.root:
            return "does not begin at the root"
        if grant.kind == "process":
            return "has a process that no machine vouches for"
        return None
    if (grant.namespace, grant.root) != (above.namespace, above.root):
        return "has grants of two namespaces"
    if grant.issuer != above.subject:
        return f"breaks: {what} was not signed by the key before it"
    if grant.under != above.number:
        return f"breaks: {what} was signed under number {grant.under}, not {above.number}"
    if not grant.scopes <= above.scopes:
        return f"widens: {what} allows {listed(grant.scopes - above.scopes)} beyond its issuer's"
    if grant.ends > above.ends:
        return f"widens: {what} ends after its issuer's"
    owners = (above.owner,) if grant.kind == "process" else (above.owner, grant.subject)
    if grant.owner not in owners:
        return f"breaks: {what} names an owner that is neither its own nor its issuer's"
    return None
