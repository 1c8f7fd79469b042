"""What a door asks, what it answers, and the answer of a namespace that has no lock."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from ..capability import PeerId

RULES = frozenset(
    {
        "no_grant",
        "malformed",
        "wrong_namespace",
        "wrong_key",
        "bad_signature",
        "chain",
        "expired",
        "revoked",
        "scope",
        "stranger_minor",
    }
)
"""Every rule that a `Refusal` of a lock may name."""


@attrs.frozen(kw_only=True)
class Introduction:
    """What a peer says of itself at a door, whichever door it is."""

    namespace: str
    """Where it wants to be let in."""

    roles: frozenset[str] = frozenset()
    """What it wants to be there; empty where the door does not ask."""

    grant: bytes | None = None
    """The chain of grants that it shows, encoded; `None` if it shows none."""

    root: bytes | None = None
    """The public key that it says its namespace is closed with; `None` for an open one."""


@attrs.frozen(kw_only=True)
class Refusal:
    """Why a peer is not let in."""

    rule: str
    """The rule that was broken, in one word: of a lock one of `RULES`."""

    reason: str
    """What is wrong and which side must act, for a person."""


Admit = Callable[[PeerId, Introduction, float], Refusal | None]
"""``admit(peer_id, introduction, now)`` lets a peer in (`None`) or says why not.

*peer_id* is proved by the handshake; *now* is UTC, in seconds since 1970, since the ends of grants
are. A door calls it before it tells the peer anything.
"""


def admit_everybody(peer_id: PeerId, introduction: Introduction, now: float) -> Refusal | None:
    """Let in whoever knows the name: an open namespace has no other rule."""
    del peer_id, introduction, now
    return None
