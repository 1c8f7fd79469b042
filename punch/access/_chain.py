"""A chain of grants, from the root's side to a peer: each signed by the one before it.

No step allows more than the one before it, in scopes or in time. Whether a chain still counts is
decided by `Lock`.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from contextlib import suppress
from typing import Generic, TypeVar

import attrs

from ..exceptions import LocalProtocolError, RemoteProtocolError
from ..wire import MAX_GRANT_BYTES, binary, decode_map, encode_map, many, record
from ._grant import (
    MAX_ENCODED_BYTES,
    SIGNATURE_BYTES,
    Grant,
    SignedGrant,
    Verify,
    listed,
    read_grant,
)
from ._namespace import Namespace

MAX_ADMINS = 3
"""In one chain. Each admin may let in another one; each adds a signature to every greeting of those
that the last one lets in."""

MAX_CHAIN = MAX_ADMINS + 2
"""Admins, the machine, the process."""

Chain = tuple[SignedGrant, ...]
"""Grants from the root's side to a peer: admins, the machine, the process."""


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
        record(_Link, grant=binary(MAX_ENCODED_BYTES), signature=binary(SIGNATURE_BYTES)),
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
        if (grant.namespace, grant.root) != (namespace.name, namespace.root):
            return "is of another namespace"
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


_Value = TypeVar("_Value")


class Recent(Generic[_Value]):
    """The values that were asked for last, by digests.

    Args:
      limit: How many are kept.

    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._values: OrderedDict[bytes, _Value] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    @property
    def all(self) -> tuple[_Value, ...]:
        """Every value that is kept, the one that was asked for last at the end."""
        return tuple(self._values.values())

    def get(self, digest: bytes) -> _Value | None:
        """The value, which stays for longer now; `None` if there is none."""
        value = self._values.get(digest)
        if value is not None:
            # A thread that signs grants may have dropped it just now.
            with suppress(KeyError):
                self._values.move_to_end(digest)
        return value

    def add(self, digest: bytes, value: _Value) -> None:
        """Keep a value, and drop the one that was not asked for for the longest time."""
        self._values[digest] = value
        if len(self._values) > self.limit:
            with suppress(KeyError):
                self._values.popitem(last=False)


class Signatures:
    """Checks signatures of grants, those of admins and machines once: they are in many chains.

    Args:
      verify: Checks one signature.
      good: Those that were made, as far as they are remembered.

    """

    def __init__(self, verify: Verify, good: Recent[bool]) -> None:
        self.verify = verify
        self._good = good

    def is_signed(self, link: SignedGrant) -> bool:
        """Whether the issuer of a grant has signed it."""
        if link.grant.kind == "process":
            return link.is_signed(self.verify)
        size = len(link.signature).to_bytes(1, "big")
        key = hashlib.sha256(size + link.signature + link.encoded).digest()
        if self._good.get(key) is None:
            if not link.is_signed(self.verify):
                return False
            self._good.add(key, True)
        return True

    def forged(self, chain: Chain) -> Grant | None:
        """The first grant in *chain* that its issuer has not signed."""
        return next((link.grant for link in chain if not self.is_signed(link)), None)
