"""Who may register: in an open namespace whom `admit` lets in, in a closed one the members.

A bootstrap knows no secret of a closed namespace and needs none: its root key comes with every
registration, and a chain of grants from that key says who is a member. Removals come from members.
What comes from strangers is bounded: signatures that are checked by host and in all, locks and
removals that are kept.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence

import trio

from .._logs import get_logger
from ..access import (
    STRANGER,
    Admit,
    Introduction,
    Lock,
    Membership,
    Namespace,
    Refusal,
    Remembered,
    Verify,
    peer_of,
)
from ..discovery._dials import Accounts, Pace
from ..exceptions import ConfigurationError, RemoteProtocolError
from ..wire import Join, NamespaceId, Registration, namespace_of

log = get_logger(__name__)

# Closed namespaces whose removals are remembered; those of which nobody has come for the longest
# time are forgotten first, and learnt again from the first member that comes.
MAX_LOCKS = 1024

# Removals that are kept for strangers, of one namespace and of all: 8 KB each at the very worst.
MAX_REVOCATIONS_OF_ONE = 1024
MAX_REVOCATIONS_OF_ALL = 8192

# Registrations whose signatures are checked at once, and a second: of one host, which may be a
# household that starts together, and of all. Each takes up to six signatures, half a millisecond.
HOST_BURST, HOST_RATE = 512.0, 32.0
TOTAL_BURST, TOTAL_RATE = 2048.0, 400.0


class Turns:
    """Who may have signatures checked now, by host and in all."""

    def __init__(self) -> None:
        self._hosts = Accounts(HOST_BURST, HOST_RATE)
        self._total = Pace(TOTAL_BURST, TOTAL_RATE)

    async def turn(self, host: str | None, number: int = 1) -> None:
        """Wait until *host* may have *number* more checked; `None` is this very machine."""
        for _ in range(number if host is not None else 0):
            now = trio.current_time()
            ready_at = self._hosts.ready_at(str(host), now)
            self._hosts.charge(str(host), now)
            if ready_at > now:
                await trio.sleep_until(ready_at)
            # Whoever waits for its own host takes nothing from others meanwhile.
            seconds = self._total.wait(trio.current_time())
            if seconds > 0:
                await trio.sleep(seconds)


class Locks:
    """The locks of the namespaces that meet at one bootstrap.

    Args:
      verify: Checks a signature, as `Node.verify` does.
      admit: Decides for open namespaces.
      membership: Our own membership of a closed one.
      is_for_own: Whether only that one is let in.

    """

    def __init__(
        self,
        verify: Verify,
        *,
        admit: Admit,
        membership: Membership | None = None,
        is_for_own: bool = False,
    ) -> None:
        self.own: NamespaceId | None = None
        """The closed namespace that we are a member of."""
        if membership is not None:
            self.own = (membership.namespace.name, membership.namespace.key)
        self._verify = verify
        self._admit = admit
        self._membership = membership
        self._is_for_own = is_for_own
        # Made by strangers: whatever they make, what is remembered for them has one bound.
        self._locks: OrderedDict[NamespaceId, Lock] = OrderedDict()
        self._remembered = Remembered()

    def judge(self, join: Join, registration: Registration) -> Refusal | None:
        """Why a peer may not register, or not stay; `None` if it may."""
        namespace = namespace_of(join, registration)
        introduction = Introduction(
            namespace=registration.namespace,
            roles=registration.roles,
            grant=join.grant,
            root=join.root,
        )
        peer_id, now = registration.peer_id, time.time()
        if self._membership is not None and (namespace == self.own or self._is_for_own):
            if join.root is None:
                return STRANGER
            return self._membership.lock.admit(peer_id, introduction, now)
        if join.root is None:
            return self._admit(peer_id, introduction, now)
        lock = self._locks.get(namespace)
        if lock is None:
            lock = self._new(registration.namespace, join.root)
        if lock is None:
            return STRANGER
        refusal = lock.admit(peer_id, introduction, now)
        if refusal is None:
            self._locks[namespace] = lock
            self._locks.move_to_end(namespace)
            if len(self._locks) > MAX_LOCKS:
                self._locks.popitem(last=False)
        return refusal

    def _new(self, name: str, root: bytes) -> Lock | None:
        try:
            namespace = Namespace(name=name, root=peer_of(root))
            return Lock(namespace, self._verify, remembered=self._remembered)
        except (ConfigurationError, RemoteProtocolError):
            return None

    def known(self, namespace: NamespaceId) -> tuple[bytes, ...]:
        """The removals that are known of a namespace."""
        if self._membership is not None and namespace == self.own:
            return self._membership.lock.revocations
        lock = self._locks.get(namespace)
        return () if lock is None else lock.revocations

    def learn(self, namespace: NamespaceId, revocations: Sequence[bytes]) -> bool:
        """Take removals from a member; true if the caller is to reconsider who is in.

        Our own membership tells its watchers, the caller among them, by itself.
        """
        if self._membership is not None and namespace == self.own:
            self._membership.add_revocations(revocations)
            return False
        lock = self._locks.get(namespace)
        if lock is None:
            return False
        room = min(
            MAX_REVOCATIONS_OF_ONE - len(lock.revocations),
            MAX_REVOCATIONS_OF_ALL - sum(len(each.revocations) for each in self._locks.values()),
        )
        if len(revocations) > room:
            log.warning("too many removals to keep", namespace=lock.namespace.name)
        return room > 0 and bool(lock.add(revocations[:room]))
