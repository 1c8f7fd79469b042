"""Checks the registrations that others list: who signed them, and in a closed namespace who is in.

Each is checked once for all sources of a directory. Whether a member that was let in still is one
can be asked at any time, and costs no signature.
"""

from __future__ import annotations

import time
from collections import OrderedDict

from ..._logs import get_logger
from ...access import Introduction, Membership, Refusal
from ...capability import PeerId
from ...exceptions import RemoteProtocolError
from ...network import Node
from ...wire import Join, Registration, decode_registration
from .._meeting import verified

log = get_logger(__name__)

# Joins whose signatures need not be checked again: more than a bootstrap keeps for one namespace.
MAX_VERIFIED = 4096

# Members of minor 2 and above know that namespaces of one name may differ.
CLOSED_MINOR = 2


class Checks:
    """What a directory's sources ask of each registration.

    Args:
      node: Our own node, which verifies signatures.
      namespace: The name of the namespace.
      membership: Our membership of it, if it is closed.

    """

    def __init__(self, node: Node, namespace: str, membership: Membership | None = None) -> None:
        self.membership = membership
        """Our membership of the namespace; `None` if it is open."""
        self._node = node
        self._namespace = namespace
        # The newest that was verified, by peer: a roster repeats what is known.
        self._verified: OrderedDict[PeerId, tuple[Join, Registration]] = OrderedDict()

    def known(self, join: Join) -> Registration | None:
        """The registration in *join*, if that very one was checked before.

        Raises:
          RemoteProtocolError: if it is malformed.

        """
        registration = decode_registration(join.registration)
        found = self._verified.get(registration.peer_id)
        if found is None or found[0].signed != join.signed or found[0].grant != join.grant:
            return None
        return found[1] if found[0].signature == join.signature else None

    def registration(self, join: Join) -> Registration | None:
        """The registration in *join*; `None` if its peer is no member of our closed namespace.

        Raises:
          RemoteProtocolError: if its peer has not signed it, or for another open namespace.

        """
        registration = self.known(join)
        if registration is not None:
            return None if self._why_not(join, registration) else registration
        if self.membership is not None and join.root != self.membership.namespace.key:
            # Not worth a signature.
            log.debug("a roster lists a peer of another namespace")
            return None
        registration = verified(self._node, join)
        if self.membership is None and (
            registration.namespace != self._namespace or join.root is not None
        ):
            raise RemoteProtocolError(f"{registration.peer_id} is no member of this namespace")
        refusal = self._why_not(join, registration)
        if refusal is not None:
            log.debug("a roster lists no member", peer=registration.peer_id, why=refusal.reason)
            return None
        self._keep(join, registration)
        return registration

    def _keep(self, join: Join, registration: Registration) -> None:
        before = self._verified.get(registration.peer_id)
        # A peer is registered at several places, with another sequence at each.
        if before is None or _stamp(before[1]) <= _stamp(registration):
            self._verified[registration.peer_id] = join, registration
        self._verified.move_to_end(registration.peer_id)
        if len(self._verified) > MAX_VERIFIED:
            self._verified.popitem(last=False)

    def shown(self, join: Join, registration: Registration) -> Refusal | None:
        """Why a registration that its peer has shown itself does not count; `None` if it does.

        Its signature was checked.
        """
        refusal = self._why_not(join, registration)
        if refusal is None:
            self._keep(join, registration)
        return refusal

    def is_barred(self, peer_id: PeerId) -> bool:
        """Whether a peer was a member and is none any longer, as far as we know."""
        if self.membership is None:
            return False
        found = self._verified.get(peer_id)
        if found is not None:
            return self._why_not(*found) is not None
        return self.membership.lock.removed_up_to(peer_id) > 0

    def is_member(self, registration: Registration) -> bool:
        """Whether a peer whose registration was let in is a member still."""
        if self.membership is None:
            return True
        found = self._verified.get(registration.peer_id)
        # One that is forgotten comes with the next roster.
        return found is not None and self._why_not(found[0], registration) is None

    def join_of(self, peer_id: PeerId) -> Join | None:
        """The newest join of a peer that was let in."""
        found = self._verified.get(peer_id)
        return None if found is None else found[0]

    def _why_not(self, join: Join, registration: Registration) -> Refusal | None:
        if self.membership is None:
            return None
        introduction = Introduction(
            namespace=registration.namespace,
            roles=registration.roles,
            grant=join.grant,
            root=join.root,
        )
        return self.membership.lock.admit(registration.peer_id, introduction, time.time())


def _stamp(registration: Registration) -> tuple[int, int]:
    return registration.incarnation, registration.sequence
