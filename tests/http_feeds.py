"""What the dashboard's feed looks at, without a network."""

from __future__ import annotations

import decision_logs as made
import trio

from punch.capability import PeerId
from punch.exceptions import PunchError
from punch.peers import PeerRecord
from punch.routing import POLICIES, Policy


class Peers:
    """As much of a router as the feed looks at."""

    def __init__(self) -> None:
        self.peers: tuple[PeerRecord, ...] = made.PEERS
        self.policy: Policy = POLICIES["completion-time"]
        self.trouble: PunchError | None = None
        self.strict = False
        self.unreachable: dict[PeerId, str] = {}


def wall() -> float:
    """The time of day, by the test's own clock."""
    return 1_700_000_000.0 + trio.current_time()
