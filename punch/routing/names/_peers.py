"""Which peers a caller's hints mean: by identity, by an end of it, or by the name of a machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from ...capability import PeerId
from ...exceptions import InvalidRequest
from ...peers import PeerRecord
from ...wire import Hints, Privacy

# Peers that an error names.
MAX_NAMED_PEERS = 8


@attrs.frozen(kw_only=True)
class Wishes:
    """What hints mean for the peers that are there: ids of peers."""

    only: frozenset[str] | None = None
    """The peers that may be asked; `None` for all."""

    avoid: frozenset[str] = frozenset()
    """Those that are asked only where no other can be."""

    prefer: frozenset[str] = frozenset()
    """Those that are asked before any other, if they can be."""

    privacy: Privacy = "any"
    """See `Hints.privacy`."""

    own: frozenset[str] = frozenset()
    """Those of the same owner, where only these may be asked."""

    min_rate: float = 0.0
    """See `Hints.min_rate`."""

    max_load: float | None = None
    """See `Hints.max_load`."""


NO_WISHES = Wishes()
"""None."""


def wishes_of(
    hints: Hints, peers: Sequence[PeerRecord], own: Callable[[PeerId], bool] = lambda peer: False
) -> Wishes:
    """What *hints* mean for these *peers*. A name that no peer has means none of them.

    Args:
      hints: As a caller has said them.
      peers: A snapshot of the peer table.
      own: Whether a peer is of the same owner as this one.

    Raises:
      InvalidRequest: if one is the end of several identities.

    """
    names_peers = hints.only or hints.avoid or hints.prefer or hints.privacy != "any"
    if not names_peers and not hints.min_rate and hints.max_load is None:
        return NO_WISHES
    return Wishes(
        only=_meant(hints.only, "only", peers) if hints.only else None,
        avoid=_meant(hints.avoid, "avoid", peers),
        prefer=_meant(hints.prefer, "prefer", peers),
        privacy=hints.privacy,
        own=frozenset(
            peer.peer_id for peer in peers if hints.privacy == "own" and own(peer.peer_id)
        ),
        min_rate=hints.min_rate,
        max_load=hints.max_load,
    )


def _meant(said: Sequence[str], field: str, peers: Sequence[PeerRecord]) -> frozenset[str]:
    found: set[str] = set()
    for place, name in enumerate(said):
        found |= _peers_called(name, f"{field}[{place}]", peers)
    return frozenset(found)


def _peers_called(name: str, param: str, peers: Sequence[PeerRecord]) -> set[str]:
    """The peers that *name* means; an identity first, then a machine, then the end of one."""
    ids = {str(peer.peer_id) for peer in peers}
    if name in ids:
        return {name}
    small = name.casefold()
    of_machine = {
        str(peer.peer_id)
        for peer in peers
        if (peer.capability.machine_name or "").casefold() == small
    }
    if of_machine:
        return of_machine
    ends = sorted(peer_id for peer_id in ids if peer_id.endswith(name))
    if len(ends) > 1:
        shown = ", ".join(ends[:MAX_NAMED_PEERS])
        raise InvalidRequest.about(
            param, f"is {name!r}, the end of {len(ends)} peers: {shown}; give more of it"
        )
    return set(ends)
