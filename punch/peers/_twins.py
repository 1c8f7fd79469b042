"""Notices that two processes have one identity. No I/O, no clock.

A peer's new stream ends its old one, so two processes with a copy of one key file take turns: each
comes back with its own incarnation. A process that started anew never has that of an earlier one.
"""

from __future__ import annotations

from collections import OrderedDict

import attrs

from ..capability import PeerId

# Two processes take turns every few seconds; what was there a minute ago is another story.
TURN_SECONDS = 60.0

# Peers whose incarnations are remembered: twice as many as are served.
MAX_PEERS = 8192


@attrs.define
class _Seen:
    incarnation: int
    at: float
    before: int | None = None
    shared_until: float = float("-inf")


class Twins:
    """The incarnations that peers came with lately."""

    def __init__(self) -> None:
        self._seen: OrderedDict[PeerId, _Seen] = OrderedDict()

    def came(self, peer_id: PeerId, incarnation: int, now: float) -> bool:
        """Note that a peer came on a new stream; True if another process has its identity too."""
        seen = self._seen.get(peer_id)
        if seen is None:
            self._seen[peer_id] = _Seen(incarnation, now)
            if len(self._seen) > MAX_PEERS:
                self._seen.popitem(last=False)
            return False
        self._seen.move_to_end(peer_id)
        if seen.incarnation != incarnation:
            if seen.before == incarnation and now - seen.at <= TURN_SECONDS:
                seen.shared_until = now + TURN_SECONDS
            seen.before, seen.incarnation = seen.incarnation, incarnation
        seen.at = now
        return now < seen.shared_until
