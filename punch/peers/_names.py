"""Decides under which name a peer is shown: its machine's, where that means one peer only.

A name is a peer's word for itself, checked by nobody. The identity is what a peer is: headers,
logs and rules go by that, and names never stand in for it.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable

from ..capability import MAX_MACHINE_NAME_CHARACTERS, PeerId

# The end of a peer id tells peers apart; all of them begin alike.
TAIL = 8

# What the end of an identity begins with where it is shown; a name may not look like one.
_MARKS = ("..", "\u2026")


def short_id(peer_id: PeerId) -> str:
    """The end of a peer id, as tables show it."""
    return peer_id if len(peer_id) <= TAIL + 4 else f"..{peer_id[-TAIL:]}"


def checked_name(text: str) -> str:
    """*text* as the name of a machine, without the space around it.

    Raises:
      ValueError: if it is none, with the rule.

    """
    name = text.strip()
    if not 0 < len(name) <= MAX_MACHINE_NAME_CHARACTERS or not name.isprintable():
        raise ValueError(f"a name has 1 to {MAX_MACHINE_NAME_CHARACTERS} printable characters")
    if name.startswith(_MARKS):
        raise ValueError("a name does not begin as the end of an identity does, with two dots")
    return name


def shown_names(peers: Iterable[tuple[PeerId, str | None]]) -> dict[PeerId, str]:
    """What to call each of *peers*: its name if it has one, else the end of its id.

    Peers whose names look alike, and those whose name could be an identity, are told apart by the
    ends of their ids.
    """
    named = {peer_id: (name or "").strip() for peer_id, name in peers}
    alike = Counter(_as_read(name) for name in named.values())
    ids = {_as_read(short_id(peer_id)) for peer_id in named}
    shown = {}
    for peer_id, name in named.items():
        if not name or name.startswith(_MARKS):
            shown[peer_id] = short_id(peer_id)
        elif alike[_as_read(name)] > 1 or _as_read(name) in ids:
            shown[peer_id] = f"{name} {short_id(peer_id)}"
        else:
            shown[peer_id] = name
    return shown


def _as_read(name: str) -> str:
    """*name* as an eye takes it: large and small letters, and wide ones, are the same."""
    return unicodedata.normalize("NFKC", name).casefold()
