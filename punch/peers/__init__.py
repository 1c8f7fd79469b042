"""What we know of other peers: their claims, and what we measured ourselves. No I/O."""

from ._breaker import Breaker
from ._rates import ENOUGH_SAMPLES, USUAL_SLOWDOWN, Rates
from ._record import PeerRecord
from ._table import MAX_PEERS, PeerTable

__all__ = [
    "PeerTable",
    "MAX_PEERS",
    "PeerRecord",
    "Rates",
    "Breaker",
    "ENOUGH_SAMPLES",
    "USUAL_SLOWDOWN",
]
