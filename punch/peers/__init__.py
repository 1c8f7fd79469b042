"""What we know of other peers: their claims, and what we measured ourselves. No I/O."""

from ._belief import Belief
from ._breaker import Breaker
from ._names import checked_name, short_id, shown_names
from ._rates import (
    DEFAULT_SLOWDOWN,
    ENOUGH_SAMPLES,
    FAR_FACTOR,
    MIN_TOKENS,
    Rates,
    Sample,
    is_far_slower,
    with_sample,
)
from ._record import (
    ANSWERING,
    IN_PROCESS,
    NO_OFFER,
    ON_MACHINE,
    OVER_NETWORK,
    OVER_RELAY,
    RESTS,
    STARTING,
    Candidate,
    LaneRecord,
    PeerRecord,
    candidate_id,
    candidates_of,
)
from ._table import MAX_PEERS, PeerTable
from ._twins import Twins

__all__ = [
    # what peers are called
    "checked_name",
    "short_id",
    "shown_names",
    # what is known of them
    "Twins",
    "PeerTable",
    "MAX_PEERS",
    "PeerRecord",
    "LaneRecord",
    "Belief",
    "Candidate",
    "candidate_id",
    "candidates_of",
    "NO_OFFER",
    "IN_PROCESS",
    "ON_MACHINE",
    "OVER_NETWORK",
    "OVER_RELAY",
    "ANSWERING",
    "RESTS",
    "STARTING",
    "Rates",
    "Sample",
    "Breaker",
    "ENOUGH_SAMPLES",
    "MIN_TOKENS",
    "DEFAULT_SLOWDOWN",
    "FAR_FACTOR",
    "is_far_slower",
    "with_sample",
]
