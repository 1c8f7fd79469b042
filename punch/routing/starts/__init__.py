"""What nobody runs yet and could be started: how it takes part in a choice. No I/O.

What a start is, and who does it, is not known here: a router is given values that say what could be
started, and something to call. See `open_router`.
"""

from ._offer import MAX_PLAN_CHARACTERS, Startable, StartableOffer
from ._starts import (
    APPEAR_SECONDS,
    FIRST_REST_SECONDS,
    MAX_REST_SECONDS,
    MAX_START_PATIENCE_SECONDS,
    MAX_STARTABLE,
    MAX_STARTS,
    Starts,
    patience_of,
    running,
)
from ._taking_part import (
    NO_STARTS,
    PREDICTED,
    START,
    apart,
    records_of,
    together,
    with_start_filters,
    with_start_terms,
)

__all__ = [
    # what could be started
    "StartableOffer",
    "Startable",
    "MAX_PLAN_CHARACTERS",
    # what is known of starts
    "Starts",
    "MAX_STARTS",
    "MAX_STARTABLE",
    "FIRST_REST_SECONDS",
    "MAX_REST_SECONDS",
    "APPEAR_SECONDS",
    "MAX_START_PATIENCE_SECONDS",
    "running",
    "patience_of",
    # in a decision
    "NO_STARTS",
    "START",
    "PREDICTED",
    "records_of",
    "with_start_filters",
    "with_start_terms",
    "apart",
    "together",
]
