"""The values by which peers of a namespace find each other at a bootstrap.

A peer signs a `Registration` and sends it in a `Join`; the bootstrap keeps it until it
expires and pushes a `Roster` to every member of the same namespace. The signature travels
with the registration, so members need not trust the bootstrap: it can leave peers out, but
it cannot make any up.
"""

from __future__ import annotations

import attrs

from ..capability import PeerId

# Put before the registration when it is signed, so that a signature made for one purpose never
# serves another.
SIGNING_CONTEXT = b"punch registration 1\n"

# In a closed namespace the root's public key and its length stand between the two: what a member
# has signed there cannot be shown in the open namespace of that name, nor the other way round.
CLOSED_SIGNING_CONTEXT = b"punch registration 2\n"

SHARED_IDENTITY = "shared_identity"
"""A notice: two processes have the member's identity, and take turns at the bootstrap."""


@attrs.frozen(kw_only=True)
class Registration:
    """A peer's word on where it can be reached and what it does."""

    peer_id: PeerId
    """The peer that registers, and that must have signed this."""

    namespace: str
    """The namespace that the peer is a member of."""

    roles: frozenset[str]
    """Roles of the peer: ``listener``, ``dialer``, ``worker``, ``bootstrap``, ``relay``; may grow,
    and roles that are not known are ignored. A peer that only dials is not shown to others."""

    addresses: tuple[str, ...] = ()
    """Multiaddresses where it can be dialled."""

    incarnation: int
    """Grows each time the peer starts."""

    sequence: int
    """Grows with each registration of one incarnation; 0 comes first."""

    lifetime: float
    """Seconds after which it no longer counts, unless renewed."""

    @property
    def is_listener(self) -> bool:
        """True if the peer can be asked; minor 0 knows only such peers."""
        return "listener" in self.roles

    @property
    def is_shown(self) -> bool:
        """True if others are told of the peer: it does something that they may want of it."""
        return not self.roles <= {"dialer"}

    @property
    def role(self) -> str:
        """The one role that minor 0 is told: ``listener``, or else ``dialer``."""
        return "listener" if self.is_listener else "dialer"


@attrs.frozen(kw_only=True)
class Reach:
    """Whether a listener could be dialled. Nobody signs it: it is shown, and decides nothing."""

    peer_id: PeerId
    """The listener."""

    ok: bool
    """True if it answered where it was dialled."""

    address: str = ""
    """Where it was dialled, without its identity."""

    why: str = ""
    """A word for what happened instead: see `PeerUnreachable.why`; words may be added."""

    by: str = "bootstrap"
    """Who dialled: ``bootstrap`` or ``member``; may grow."""


@attrs.frozen(kw_only=True)
class Join:
    """A signed registration."""

    registration: bytes
    """A `Registration`, encoded."""

    signature: bytes
    """Ed25519 over `signed`, by the peer's key."""

    minor: int = 0
    """Minor version of the protocol that its peer speaks."""

    grant: bytes | None = None
    """The chain of grants of its peer's key, in a closed namespace."""

    root: bytes | None = None
    """The root's public key, in a closed namespace."""

    reach: tuple[Reach, ...] = ()
    """Listeners that its peer, a dialer, could not dial."""

    relayed: bool = False
    """True if who lists it has it from another meeting point, and not from its peer."""

    near: bool = False
    """True if its peer is on the machine of who lists it, as far as that can tell. To somebody on
    the same machine the peer's loopback addresses mean what they mean to the peer."""

    @property
    def signed(self) -> bytes:
        """The bytes that the signature is over."""
        if self.root is None:
            return SIGNING_CONTEXT + self.registration
        return (
            CLOSED_SIGNING_CONTEXT
            + len(self.root).to_bytes(1, "big")
            + self.root
            + self.registration
        )


@attrs.frozen(kw_only=True)
class Roster:
    """The peers of a namespace, from the bootstrap to a member."""

    namespace: str
    """The namespace, which is the member's own."""

    whole: bool = False
    """True if `present` is everybody; otherwise it is what changed."""

    present: tuple[Join, ...] = ()
    """Peers that are there, new or renewed; to a member of minor 0 only listeners."""

    gone: tuple[PeerId, ...] = ()
    """Peers that left or expired."""

    minor: int = 0
    """Minor version of the protocol that the bootstrap speaks."""

    notices: frozenset[str] = frozenset()
    """What the bootstrap has noticed of the member: `SHARED_IDENTITY`; may grow, and what is not
    known is ignored."""

    reach: tuple[Reach, ...] = ()
    """What is news of how peers of the namespace, or the member itself, could be dialled."""
