"""Reads what a request wishes of the choice of a peer: in ``punch`` of its body, or in headers.

What its body says of a wish counts more than a header.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...wire import NO_HINTS, Hints, Naming
from ._fields import PunchOptions

# Each wish that names peers, and the header that may name them, apart by commas.
_PEERS = {"prefer": b"x-punch-prefer", "avoid": b"x-punch-avoid", "only": b"x-punch-only"}
_PRIVACY = b"x-punch-privacy"
_HEADERS = frozenset({*_PEERS.values(), _PRIVACY})


def hints_in(headers: Mapping[bytes, bytes], naming: Naming) -> Hints:
    """The wishes in *headers*, for a model that is named so exactly."""
    if _HEADERS.isdisjoint(headers):
        return NO_HINTS if naming == NO_HINTS.naming else Hints(naming=naming)
    said: dict[str, Any] = {
        name: _split(headers[header].decode("latin-1"))
        for name, header in _PEERS.items()
        if header in headers
    }
    if _PRIVACY in headers:
        said["privacy"] = headers[_PRIVACY].decode("latin-1").strip().lower()
    return Hints(naming=naming, **said)


def with_wishes(hints: Hints, wishes: PunchOptions) -> Hints:
    """*hints* with those that a body has instead."""
    if not wishes.model_fields_set:
        return hints
    said: dict[str, Any] = {}
    for name in _PEERS:
        peers: str | Sequence[str] | None = getattr(wishes, name)
        if peers is not None:
            said[name] = _split(peers) if isinstance(peers, str) else tuple(peers)
    if wishes.privacy is not None:
        said["privacy"] = wishes.privacy
    if not said:
        return hints
    kept = {name: getattr(hints, name) for name in (*_PEERS, "privacy", "naming")}
    return Hints(**kept | said)


def _split(text: str) -> tuple[str, ...]:
    return tuple(name for part in text.split(",") if (name := part.strip()))
