"""Registrations of peers that are not there, signed as the network in memory signs."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from punch.capability import PeerId
from punch.testing._memory import _hash
from punch.testing._swarm import NAMESPACE
from punch.wire import Join, Registration, encode_registration


def signed(
    name: str,
    addresses: Iterable[str],
    *,
    incarnation: int = 1,
    namespace: str = NAMESPACE,
    minor: int = 1,
    grant: bytes | None = None,
    root: bytes | None = None,
    roles: Iterable[str] = ("listener",),
) -> Join:
    """The registration of a peer, by default a listener, as itself would have signed it."""
    registration = Registration(
        peer_id=PeerId(name),
        namespace=namespace,
        roles=frozenset(roles),
        addresses=tuple(addresses),
        incarnation=incarnation,
        sequence=0,
        lifetime=30.0,
    )
    join = Join(
        registration=encode_registration(registration),
        signature=b"",
        minor=minor,
        grant=grant,
        root=root,
    )
    return attrs.evolve(join, signature=_hash(PeerId(name), join.signed))
