"""Keeps the registrations of a bootstrap, and decides which changes the members must hear of.

No I/O. Signatures were checked and membership was decided before a registration comes here.
"""

from __future__ import annotations

from collections import Counter

import attrs

from ..capability import PeerId
from ..exceptions import BootstrapFull
from ._registration import Join, Registration

# 400 bytes each and 2 KB at most: 25 MB for all of them, 130 MB at the very worst.
MAX_NAMESPACES = 1024
MAX_PER_NAMESPACE = 2000
MAX_REGISTRATIONS = 64_000

# The largest household that was heard of has some dozens.
MAX_PER_HOST = 256


NamespaceId = str | tuple[str, bytes]
"""A namespace at a bootstrap: its name if it is open, with the root's key if it is closed."""


def namespace_of(join: Join, registration: Registration) -> NamespaceId:
    """The namespace that a peer joins; *registration* is the one in *join*, decoded."""
    name = registration.namespace
    return name if join.root is None else (name, join.root)


def name_of(namespace: NamespaceId) -> str:
    """The name of a namespace, which need not be the only one of that name."""
    return namespace if isinstance(namespace, str) else namespace[0]


@attrs.frozen(kw_only=True)
class RegistrationLimits:
    """How many registrations a bootstrap keeps."""

    per_host: int = attrs.field(factory=lambda: MAX_PER_HOST)
    """Of one machine or household in one namespace: an IPv4 address, or 64 bits of IPv6. Those
    behind one NAT count together."""

    per_namespace: int = attrs.field(factory=lambda: MAX_PER_NAMESPACE)
    """Of one namespace."""

    total: int = attrs.field(factory=lambda: MAX_REGISTRATIONS)
    """Of all."""


@attrs.frozen(kw_only=True)
class _Entry:
    join: Join
    registration: Registration
    expires_at: float
    host: str | None = None


class Registrations:
    """Registrations by namespace and peer, bounded in each way.

    There is no clock here: *now* is in seconds, of the same clock in every call.

    Args:
      limits: How many are kept.

    """

    def __init__(self, limits: RegistrationLimits | None = None) -> None:
        self._limits = RegistrationLimits() if limits is None else limits
        self._hosts: Counter[tuple[NamespaceId, str | None]] = Counter()
        self._namespaces: dict[NamespaceId, dict[PeerId, _Entry]] = {}
        self._total = 0

    def __len__(self) -> int:
        return self._total

    def join(
        self,
        join: Join,
        registration: Registration,
        *,
        now: float,
        host: str | None = None,
        is_anew: bool = False,
    ) -> bool:
        """Keep a registration whose signature was checked; True if the members must hear of it.

        They must if a peer that is shown is new, moved, started anew or has other roles, or if a
        peer that was shown is not shown any longer. An older registration than the one kept is
        ignored, so a replay changes nothing. Only the peer itself, on a new stream, may say
        something that looks older: then its clock was set back, or it started anew with another.

        Args:
          join: The registration as it came.
          registration: The same, decoded.
          now: The time.
          host: The machine or household that it came from, if that is known.
          is_anew: True for the first one on a stream that proved who is at its other end.

        Raises:
          BootstrapFull: if the namespace is full, or this bootstrap is, or the host has enough.

        """
        namespace = namespace_of(join, registration)
        entries = self._namespaces.get(namespace)
        if entries is None:
            if len(self._namespaces) >= MAX_NAMESPACES:
                raise BootstrapFull(f"this bootstrap serves at most {MAX_NAMESPACES} namespaces")
            entries = {}
        known = entries.get(registration.peer_id)
        if known is not None:
            before = known.registration
            stamp = (registration.incarnation, registration.sequence)
            if stamp <= (before.incarnation, before.sequence) and not is_anew:
                return False
            self._forget_host(namespace, known.host)
        else:
            self._check_room(namespace, len(entries), host)
            self._total += 1
        self._namespaces[namespace] = entries
        entries[registration.peer_id] = _Entry(
            join=join, registration=registration, expires_at=now + registration.lifetime, host=host
        )
        self._hosts[namespace, host] += 1
        if known is None or not known.registration.is_shown:
            return registration.is_shown
        before = known.registration
        return (
            before.addresses != registration.addresses
            or before.incarnation != registration.incarnation
            or before.roles != registration.roles
            # A chain ends: who is told of its peer is told of the next one.
            or known.join.grant != join.grant
            or known.join.near != join.near
        )

    def _check_room(self, namespace: NamespaceId, members: int, host: str | None) -> None:
        limits = self._limits
        name = name_of(namespace)
        if members >= limits.per_namespace or self._total >= limits.total:
            raise BootstrapFull(
                f"namespace {name!r} is full: at most {limits.per_namespace} peers each and "
                f"{limits.total} in all"
            )
        if host is not None and self._hosts[namespace, host] >= limits.per_host:
            raise BootstrapFull(
                f"{host} has {limits.per_host} peers in namespace {name!r} already, and that "
                "is the limit of this bootstrap for one host: end some of them, or give the "
                "bootstrap a higher --per-host"
            )

    def _forget_host(self, namespace: NamespaceId, host: str | None) -> None:
        self._hosts[namespace, host] -= 1
        if not self._hosts[namespace, host]:
            del self._hosts[namespace, host]

    def leave(self, namespace: NamespaceId, peer_id: PeerId) -> bool:
        """Forget a peer; True if the members must hear of it."""
        entries = self._namespaces.get(namespace, {})
        entry = entries.pop(peer_id, None)
        if entry is None:
            return False
        self._total -= 1
        self._forget_host(namespace, entry.host)
        if not entries:
            del self._namespaces[namespace]
        return entry.registration.is_shown

    def expire(self, *, now: float) -> tuple[tuple[NamespaceId, PeerId], ...]:
        """Forget the peers that did not renew; (namespace, peer id) of those that were shown."""
        late = [
            (namespace, peer_id)
            for namespace, entries in self._namespaces.items()
            for peer_id, entry in entries.items()
            if entry.expires_at <= now
        ]
        return tuple(
            (namespace, peer_id) for namespace, peer_id in late if self.leave(namespace, peer_id)
        )

    def members(self, namespace: NamespaceId) -> int:
        """How many peers are registered in a namespace."""
        return len(self._namespaces.get(namespace, ()))

    def has(self, namespace: NamespaceId, peer_id: PeerId) -> bool:
        """Whether a peer is registered in a namespace."""
        return peer_id in self._namespaces.get(namespace, ())

    def kept(self, namespace: NamespaceId) -> tuple[tuple[Join, Registration], ...]:
        """Every registration of a namespace, as it came and decoded."""
        entries = self._namespaces.get(namespace, {})
        return tuple((entry.join, entry.registration) for entry in entries.values())

    def shown(self, namespace: NamespaceId, *, minor: int) -> tuple[Join, ...]:
        """The peers of a namespace that a member of *minor* is told of."""
        return tuple(
            entry.join
            for entry in self._namespaces.get(namespace, {}).values()
            if is_told(entry.registration, minor=minor)
        )

    def told(self, namespace: NamespaceId, peer_id: PeerId, *, minor: int) -> Join | None:
        """The registration of a peer, if a member of *minor* is told of it."""
        entry = self._namespaces.get(namespace, {}).get(peer_id)
        if entry is None or not is_told(entry.registration, minor=minor):
            return None
        return entry.join


def is_told(registration: Registration, *, minor: int) -> bool:
    """True if a member of *minor* is told of the peer: minor 0 knows listeners only."""
    return registration.is_shown if minor else registration.is_listener
