"""Who may borrow of a worker: in a closed namespace by scope, in an open one by name."""

from __future__ import annotations

from collections.abc import Collection

from ...access import Introduction, Member, Membership, Refusal
from ...capability import PeerId
from ..leases import LeaseOpening


class LendingDoor:
    """Decides who may borrow.

    Args:
      namespace: The name of the namespace.
      membership: Our membership of it, if it is closed.
      lend_to: Who may borrow: in an open namespace nobody else does, and in a closed one these
        alone if there are any. Of a closed one they may also be keys of machines.

    """

    def __init__(
        self,
        namespace: str,
        membership: Membership | None = None,
        lend_to: Collection[PeerId] = (),
    ) -> None:
        self._namespace = namespace
        self._membership = membership
        self._lend_to = frozenset(lend_to)

    def chain(self) -> bytes:
        """What we show who was let in; empty in an open namespace."""
        return b"" if self._membership is None else self._membership.chain()

    def judge(self, peer_id: PeerId, opening: LeaseOpening, now: float) -> Refusal | None:
        """Let a borrower in, or say why not.

        Args:
          peer_id: Who it is, as the handshake has proved.
          opening: What it says of itself.
          now: UTC, in seconds since 1970.

        """
        if self._membership is None:
            return self._judge_by_name(peer_id, opening)
        lock = self._membership.lock
        refusal = lock.admit(
            peer_id,
            Introduction(
                namespace=opening.namespace,
                roles=frozenset({"borrower"}),
                grant=opening.chain or None,
                root=opening.root or None,
            ),
            now,
        )
        if refusal is not None or not self._lend_to:
            return refusal
        member = lock.judge(peer_id, opening.chain, now)
        known = {peer_id, member.machine} if isinstance(member, Member) else {peer_id}
        return None if known & self._lend_to else _not_lent(peer_id)

    def _judge_by_name(self, peer_id: PeerId, opening: LeaseOpening) -> Refusal | None:
        if peer_id not in self._lend_to:
            return _not_lent(peer_id)
        if opening.root or opening.namespace != self._namespace:
            return Refusal(
                rule="wrong_namespace",
                reason=f"this worker is in the open namespace {self._namespace[:64]!r}",
            )
        return None


def _not_lent(peer_id: PeerId) -> Refusal:
    return Refusal(
        rule="not_lent",
        reason=f"this worker lends to others only; it would with: --lend-to {peer_id[:64]}",
    )
