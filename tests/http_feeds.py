"""What the dashboard's feed looks at, without a network."""

from __future__ import annotations

import decision_logs as made
import trio

from punch.routing import POLICIES


class Peers:
    """As much of a router as the feed looks at."""

    def __init__(self) -> None:
        self.peers = made.PEERS
        self.policy = POLICIES["completion-time"]
        self.trouble = None
        self.strict = False


def wall() -> float:
    """The time of day, by the test's own clock."""
    return 1_700_000_000.0 + trio.current_time()
