"""Finds and publishes what a listener's advert says of its lanes that the one before did not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import trio

from ..capability import Capability, Lane, PeerId
from ..events import Bus, PeerLaneChanged
from ..peers import PeerRecord
from ..wire import quoted, short_word

REMOVED = "removed"
"""`PeerLaneChanged.state` of a lane that the peer names no more."""


def publish_lane_changes(
    events: Bus, peer_id: PeerId, before: PeerRecord | None, after: Capability
) -> None:
    """Publish how a listener's lanes differ from what it said before, if anybody asks for that."""
    if not events.wants(PeerLaneChanged):
        return
    lanes = () if before is None else before.capability.lanes
    for event in lane_changes(peer_id, lanes, after.lanes, at=trio.current_time()):
        events.publish(event)


def lane_changes(
    peer_id: PeerId, before: Sequence[Lane], after: Sequence[Lane], *, at: float
) -> Iterator[PeerLaneChanged]:
    """The lanes that came, changed their state or went, in the peer's own words."""
    known = {lane.id: lane for lane in before}
    for lane in after:
        was = known.pop(lane.id, None)
        if was is None or was.state != lane.state:
            yield _changed(peer_id, lane, lane.state, was, at)
    for gone in known.values():
        yield _changed(peer_id, gone, REMOVED, gone, at)


def _changed(
    peer_id: PeerId, lane: Lane, state: str, was: Lane | None, at: float
) -> PeerLaneChanged:
    return PeerLaneChanged(
        at=at,
        peer_id=peer_id,
        lane=short_word(lane.id),
        backend=short_word(lane.backend),
        state=short_word(state),
        before=None if was is None else short_word(was.state),
        reason=None if lane.reason is None or state == REMOVED else quoted(lane.reason),
    )
