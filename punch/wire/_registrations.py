"""Keeps the registrations of a bootstrap, and decides which changes the members must hear of.

No I/O. Signatures were checked and membership was decided before a registration comes here.
"""

from __future__ import annotations

import attrs

from ..capability import PeerId
from ..exceptions import BootstrapFull
from ._registration import Join, Registration

# A registration has at most 2 KB, and most have 400 bytes: 25 MB for all of them, 130 MB at the
# very worst.
MAX_NAMESPACES = 1024
MAX_PER_NAMESPACE = 2000
MAX_REGISTRATIONS = 64_000


@attrs.frozen(kw_only=True)
class _Entry:
    join: Join
    registration: Registration
    expires_at: float


class Registrations:
    """Registrations by namespace and peer, bounded in each way.

    There is no clock here: *now* is in seconds, of the same clock in every call.
    """

    def __init__(self) -> None:
        self._namespaces: dict[str, dict[PeerId, _Entry]] = {}
        self._total = 0

    def __len__(self) -> int:
        return self._total

    def join(self, join: Join, registration: Registration, *, now: float) -> bool:
        """Keep a registration whose signature was checked; True if the members must hear of it.

        They must if a peer that is shown is new, moved, started anew or has other roles, or if a
        peer that was shown is not shown any longer. An older registration than the one kept is
        ignored, so a replay changes nothing.

        Raises:
          BootstrapFull: if the namespace is full, or this bootstrap is.

        """
        entries = self._namespaces.get(registration.namespace)
        if entries is None:
            if len(self._namespaces) >= MAX_NAMESPACES:
                raise BootstrapFull(f"this bootstrap serves at most {MAX_NAMESPACES} namespaces")
            entries = {}
        known = entries.get(registration.peer_id)
        if known is not None:
            before = known.registration
            stamp = (registration.incarnation, registration.sequence)
            if stamp <= (before.incarnation, before.sequence):
                return False
        elif len(entries) >= MAX_PER_NAMESPACE or self._total >= MAX_REGISTRATIONS:
            raise BootstrapFull(
                f"namespace {registration.namespace!r} is full: at most {MAX_PER_NAMESPACE} peers "
                f"each and {MAX_REGISTRATIONS} in all"
            )
        else:
            self._total += 1
        self._namespaces[registration.namespace] = entries
        entries[registration.peer_id] = _Entry(
            join=join, registration=registration, expires_at=now + registration.lifetime
        )
        if known is None or not known.registration.is_shown:
            return registration.is_shown
        before = known.registration
        return (
            before.addresses != registration.addresses
            or before.incarnation != registration.incarnation
            or before.roles != registration.roles
        )

    def leave(self, namespace: str, peer_id: PeerId) -> bool:
        """Forget a peer; True if the members must hear of it."""
        entries = self._namespaces.get(namespace, {})
        entry = entries.pop(peer_id, None)
        if entry is None:
            return False
        self._total -= 1
        if not entries:
            del self._namespaces[namespace]
        return entry.registration.is_shown

    def expire(self, *, now: float) -> tuple[tuple[str, PeerId], ...]:
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

    def shown(self, namespace: str, *, minor: int) -> tuple[Join, ...]:
        """The peers of a namespace that a member of *minor* is told of."""
        return tuple(
            entry.join
            for entry in self._namespaces.get(namespace, {}).values()
            if is_told(entry.registration, minor=minor)
        )

    def told(self, namespace: str, peer_id: PeerId, *, minor: int) -> Join | None:
        """The registration of a peer, if a member of *minor* is told of it."""
        entry = self._namespaces.get(namespace, {}).get(peer_id)
        if entry is None or not is_told(entry.registration, minor=minor):
            return None
        return entry.join


def is_told(registration: Registration, *, minor: int) -> bool:
    """True if a member of *minor* is told of the peer: minor 0 knows listeners only."""
    return registration.is_shown if minor else registration.is_listener
