"""What we know of other peers: their claims, and what we measured ourselves. No I/O."""

from ._rates import Rates
from ._record import PeerRecord
from ._table import PeerTable

__all__ = [
    "PeerTable",
    "PeerRecord",
    "Rates",
]
