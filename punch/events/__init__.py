"""Events: frozen values of what happened, and the bus that hands them to any subscriber.

A room that does something publishes what it did and knows no subscriber; logs, metrics, spans, the
decision log, the usage book, the dashboard and the console subscribe and know no publisher. No
I/O and no clock: an event's time is an argument, and a subscriber waits by its own means (under
trio: `punch._subscribers`).

Publishing, on a path where it must cost nothing without subscribers::

    if events.wants(Attempted):
        events.publish(Attempted(at=now, ...))

A new subscriber names the kinds it wants::

    with events.subscribe(PeerJoined, PeerLeft, wake=news.set) as subscription:
        batch = subscription.drain()  # at most `limit` events, and how many were lost

A new kind that derives from `Lifecycle` appears in the live feeds of a gateway by itself.
"""

from ._bus import DEFAULT_LIMIT, Batch, Bus, BusStatistics, Subscription
from ._cluster import (
    CoordinatorStarted,
    HeldLayers,
    LeaseEnded,
    LeaseTaken,
    MemoryLent,
    MemoryReturned,
    PlanChanged,
    SplitFailed,
    SplitLoading,
    SplitReady,
    WorkerConnected,
    WorkerLost,
)
from ._event import Event, Lifecycle
from ._listening import (
    AttemptServed,
    BackendRestarted,
    Calibrated,
    LaneChanged,
    LoadProgress,
)
from ._process import Logged
from ._requests import (
    DISCONNECTED,
    STOPPED,
    Cost,
    PromptRead,
    RequestChanged,
    RequestEnded,
    RequestRecord,
    RequestRefused,
    RequestStarted,
)
from ._routing import Answered, Attempted, Decided, PeerJoined, PeerLaneChanged, PeerLeft

__all__ = [
    # the bus
    "Bus",
    "BusStatistics",
    "Subscription",
    "Batch",
    "DEFAULT_LIMIT",
    "Event",
    "Lifecycle",
    # a gateway's requests
    "RequestStarted",
    "RequestChanged",
    "RequestEnded",
    "RequestRefused",
    "PromptRead",
    "RequestRecord",
    "Cost",
    "DISCONNECTED",
    "STOPPED",
    # a dialer's
    "Decided",
    "Attempted",
    "Answered",
    "PeerJoined",
    "PeerLeft",
    "PeerLaneChanged",
    # a listener's
    "AttemptServed",
    "Calibrated",
    "LoadProgress",
    "LaneChanged",
    "BackendRestarted",
    # a coordinator's
    "CoordinatorStarted",
    "PlanChanged",
    "HeldLayers",
    "SplitLoading",
    "SplitReady",
    "SplitFailed",
    "WorkerConnected",
    "WorkerLost",
    "LeaseTaken",
    "LeaseEnded",
    # a worker's
    "MemoryLent",
    "MemoryReturned",
    # any process's
    "Logged",
]
