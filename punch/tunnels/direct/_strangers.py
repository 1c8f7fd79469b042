"""Connections at a far end that have not shown the lease's certificate: how many, and for how long.

Each costs a place for a few seconds. Where there is none left, the oldest of the busiest host makes
room: a handshake takes milliseconds, so who has the certificate is through before its turn to go.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from ._channel import Channel

MAX_STRANGERS: Final = 64
MAX_STRANGERS_OF_SITE: Final = 16

HANDSHAKE_SECONDS: Final = 3.0

_REPORT_SECONDS: Final = 1.0  # How often it is told that they came.


class Strangers:
    """Those of one far end."""

    def __init__(self) -> None:
        # Host, and when it is late; oldest first.
        self._known: dict[Channel, tuple[str, float]] = {}
        self._refused: dict[str, int] = {}
        self._report_at = 0.0

    def make_room(self, site: str) -> None:
        """Close the oldest of *site* if it has too many, or of the host that has most."""
        counts = Counter(other for other, _ in self._known.values())
        if counts[site] >= MAX_STRANGERS_OF_SITE:
            crowded = site
        elif len(self._known) >= MAX_STRANGERS:
            crowded = counts.most_common(1)[0][0]
        else:
            return
        self.refuse(next(each for each, (other, _) in self._known.items() if other == crowded))

    def add(self, channel: Channel, site: str, now: float) -> None:
        """Take in a connection from *site*."""
        self._known[channel] = (site, now + HANDSHAKE_SECONDS)

    def know(self, channel: Channel) -> None:
        """Let a connection go that has shown the certificate."""
        self._known.pop(channel, None)

    def refuse(self, channel: Channel) -> bool:
        """Close a connection that is no good; False if it is no stranger's."""
        if channel not in self._known:
            return False
        site, _ = self._known.pop(channel)
        channel.close()
        if site in self._refused or len(self._refused) < MAX_STRANGERS:
            self._refused[site] = self._refused.get(site, 0) + 1
        return True

    def look(self, now: float) -> dict[str, int] | None:
        """Refuse who is late; how many of each host were refused, where it is time to say so."""
        for channel, (_, until) in list(self._known.items()):
            if now >= until:
                self.refuse(channel)
        if not self._refused or now < self._report_at:
            return None
        self._report_at = now + _REPORT_SECONDS
        found, self._refused = self._refused, {}
        return found

    def close(self) -> None:
        """Close all of them."""
        for channel in self._known:
            channel.close()
        self._known.clear()
