"""Decides which caps a peer has: those that name its machine, then those of strangers.

1. A limit names a machine: by its identity, which is looked at first, or by its name. It holds for
   all processes of the machine, and for every machine of that name.
2. What a limit does not say is as it is for peers of the same owner (no caps), or for strangers.
3. The programs of the listener's own machine are never capped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime

from ..access import Member, is_name
from ..capability import PeerId
from ._caps import NO_CAPS, Caps

# Machines whose caps are remembered: to find them takes a digest for each limit.
MAX_REMEMBERED = 4096


class CapsByPeer:
    """What each peer may ask for.

    Args:
      strangers: What peers of other owners may, of whom nothing else is said.
      members: What single members of a closed namespace may, by the name of their machine or its
        identity; it goes before *strangers*.
      member_of: The member that a peer is, if it was let in as one.
      own: The member that this process is, if it is one.
      called: What people here call a machine.
      wall: The time, in seconds of UTC since 1970.

    """

    def __init__(
        self,
        strangers: Caps = NO_CAPS,
        members: Mapping[str, Caps] | None = None,
        *,
        member_of: Callable[[PeerId], Member | None] = lambda peer_id: None,
        own: Callable[[], Member | None] = lambda: None,
        called: Callable[[PeerId], str] = lambda machine: "",
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._strangers = strangers
        self._members = members or {}
        self._member_of = member_of
        self._own = own
        self._called = called
        self._wall = wall
        self.changes = 0
        """How often the caps were changed: whoever was told of them has to be told again."""
        self._found: dict[tuple[PeerId, bytes, str], Caps | None] = {}

    def change(self, strangers: Caps, members: Mapping[str, Caps]) -> None:
        """Take other caps from now on; what was begun goes on within those that it began with."""
        self._strangers, self._members = strangers, members
        self._found.clear()
        self.changes += 1

    def of(self, peer_id: PeerId, *, is_own: bool) -> Caps:
        """The caps of a peer; *is_own* says that it is of the same owner."""
        caps = NO_CAPS if is_own else self._strangers
        if not self._members:
            return caps
        member = self._member_of(peer_id)
        own = None if member is None else self._own()
        if member is None or (own is not None and own.machine == member.machine):
            return caps
        said = self._said_of(member)
        return caps if said is None else said.over(caps)

    def _said_of(self, member: Member) -> Caps | None:
        key = (member.machine, member.name, self._called(member.machine))
        if key not in self._found:
            if len(self._found) >= MAX_REMEMBERED:
                self._found.clear()
            self._found[key] = self._find(*key)
        return self._found[key]

    def _find(self, machine: PeerId, hidden: bytes, called: str) -> Caps | None:
        said = self._members.get(machine)
        if said is not None:
            return said
        for name, caps in self._members.items():
            if name == called or is_name(name, hidden):
                return caps
        return None

    def now(self) -> datetime:
        """The time on the clock of this machine's wall, by which hours go."""
        return datetime.fromtimestamp(self._wall()).astimezone()
