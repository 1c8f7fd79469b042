"""Decides which caps a peer has: as its owner has none, as a member its own, else a stranger's."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..access import Member, is_name
from ..capability import PeerId
from ._caps import NO_CAPS, Caps


class CapsByPeer:
    """What each peer may ask for.

    Args:
      strangers: What peers of other owners may, of whom nothing else is said.
      members: What single members of a closed namespace may, by the name of their machine or its
        identity; in place of *strangers*.
      member_of: The member that a peer is, if it was let in as one.

    """

    def __init__(
        self,
        strangers: Caps,
        members: Mapping[str, Caps] | None = None,
        member_of: Callable[[PeerId], Member | None] = lambda peer_id: None,
    ) -> None:
        self._strangers = strangers
        self._members = members or {}
        self._member_of = member_of

    def of(self, peer_id: PeerId, *, is_own: bool) -> Caps:
        """The caps of a peer."""
        if is_own or (self._strangers == NO_CAPS and not self._members):
            return NO_CAPS
        member = self._member_of(peer_id) if self._members else None
        if member is not None:
            for name, caps in self._members.items():
                if name == member.machine or (member.name and is_name(name, member.name)):
                    return caps
        return self._strangers
