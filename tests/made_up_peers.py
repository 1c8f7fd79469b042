"""Registrations of peers that are not there, signed as the network in memory signs."""

from __future__ import annotations

from collections.abc import Iterable

from punch.capability import PeerId
from punch.testing._memory import _hash
from punch.testing._swarm import NAMESPACE
from punch.wire import SIGNING_CONTEXT, Join, Registration, encode_registration


def signed(name: str, addresses: Iterable[str], *, incarnation: int = 1) -> Join:
    """The registration of a listener, as itself would have signed it."""
    registration = Registration(
        peer_id=PeerId(name),
        namespace=NAMESPACE,
        roles=frozenset({"listener"}),
        addresses=tuple(addresses),
        incarnation=incarnation,
        sequence=0,
        lifetime=30.0,
    )
    encoded = encode_registration(registration)
    return Join(
        registration=encoded,
        signature=_hash(PeerId(name), SIGNING_CONTEXT + encoded),
        minor=1,
    )
