"""How peers of a namespace find each other at a bootstrap.

A peer signs a `Registration` and sends it in a `Join`; the bootstrap keeps it until it
expires and pushes a `Roster` to every member of the same namespace. The signature travels
with the registration, so members need not trust the bootstrap: it can leave peers out, but
it cannot make any up.
"""

from __future__ import annotations

from typing import Literal

import attrs

from ..capability import PeerId

# Said before the registration when it is signed, so that a signature made for one purpose
# never serves another.
SIGNING_CONTEXT = b"punch registration 1\n"


@attrs.frozen(kw_only=True)
class Registration:
    """A peer says where it can be reached."""

    peer_id: PeerId
    """Who says so."""

    namespace: str
    """Among whom."""

    role: Literal["listener", "dialer"]
    """What it does there. Only listeners are shown to others."""

    addresses: tuple[str, ...] = ()
    """Multiaddresses where it can be dialled."""

    incarnation: int
    """Grows each time the peer starts."""

    sequence: int
    """Grows with each registration of one incarnation; 0 comes first."""

    lifetime: float
    """Seconds after which it no longer counts, unless renewed."""


@attrs.frozen(kw_only=True)
class Join:
    """A signed registration."""

    registration: bytes
    """A `Registration`, encoded."""

    signature: bytes
    """Ed25519 over `SIGNING_CONTEXT` and the encoded registration."""


@attrs.frozen(kw_only=True)
class Roster:
    """Who is in a namespace, from the bootstrap to a member."""

    namespace: str
    """Which one."""

    whole: bool = False
    """True if `present` is everybody; otherwise it is what changed."""

    present: tuple[Join, ...] = ()
    """Listeners that are there, new or renewed."""

    gone: tuple[PeerId, ...] = ()
    """Listeners that left or expired."""
