"""Who is in which namespace: what a bootstrap keeps."""

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
    """Registrations by namespace and peer. Knows no clock: *now* is in seconds."""

    def __init__(self) -> None:
        self._namespaces: dict[str, dict[PeerId, _Entry]] = {}
        self._total = 0

    def __len__(self) -> int:
        return self._total

    def join(self, join: Join, registration: Registration, *, now: float) -> bool:
        """Keep a registration whose signature was checked. True if a listener is new or moved.

        An older registration than the one kept is ignored, so a replay changes nothing.

        Raises:
          BootstrapFull: if there is no room.

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
        if registration.role != "listener":
            return False
        return (
            known is None
            or known.registration.addresses != registration.addresses
            or known.registration.incarnation != registration.incarnation
        )

    def leave(self, namespace: str, peer_id: PeerId) -> bool:
        """Forget a peer. True if a listener is gone."""
        entries = self._namespaces.get(namespace, {})
        entry = entries.pop(peer_id, None)
        if entry is None:
            return False
        self._total -= 1
        if not entries:
            del self._namespaces[namespace]
        return entry.registration.role == "listener"

    def expire(self, *, now: float) -> tuple[tuple[str, PeerId], ...]:
        """Forget whoever did not renew; returns the (namespace, peer id) of listeners that went."""
        late = [
            (namespace, peer_id)
            for namespace, entries in self._namespaces.items()
            for peer_id, entry in entries.items()
            if entry.expires_at <= now
        ]
        return tuple(
            (namespace, peer_id) for namespace, peer_id in late if self.leave(namespace, peer_id)
        )

    def listeners(self, namespace: str) -> tuple[Join, ...]:
        """The listeners of a namespace."""
        return tuple(
            entry.join
            for entry in self._namespaces.get(namespace, {}).values()
            if entry.registration.role == "listener"
        )
