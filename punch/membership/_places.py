"""Where the members of a namespace were, for the next start: a few addresses of each.

An address is another peer's word. Who answers there has to show a grant like everybody else. A
machine may have any number of programs, and makes grants for them by itself: a few of one are kept,
so that none takes the places of all others.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import attrs

from ..capability import PeerId
from ..exceptions import ConfigurationError
from ..network import is_this_machine, parse_address, unfit
from ..wire import MAX_ADDRESSES
from ._folder import Folder

FILE = "places.json"

# Peers of one namespace whose addresses are kept: more than anybody tries at a start.
MAX_PEERS = 256

MAX_PEERS_OF_MACHINE = 8
"""Programs of one machine: it runs two or three."""

MAX_PLACES = 64
"""Addresses that are given out at once."""

MAX_ADDRESS_CHARACTERS = 512


@attrs.frozen
class Place:
    """What is known of one peer."""

    addresses: tuple[str, ...]
    """Where it was."""

    machine: str | None = None
    """The machine whose grant it has shown; `None` if it was found by its address."""


class Places:
    """The addresses that are known of the members, in memory and in a file.

    Args:
      folder: Where the file is.

    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        # Peer to its addresses, the last that was heard of at the end.
        self._peers = read_places(folder)
        self._is_changed = False

    def remember(self, peer: str, addresses: Iterable[str], machine: str | None = None) -> None:
        """Keep where *peer*, a program of *machine*, is; nothing is written yet."""
        kept = Place(dialled(addresses), machine)
        if not kept.addresses:
            return
        before = self._peers.pop(peer, None)
        self._peers[peer] = kept
        self._peers = bounded(self._peers)
        # That somebody was heard of again is no reason to write a file every second.
        self._is_changed = self._is_changed or before != kept

    def machine_of(self, peer: str) -> PeerId | None:
        """The machine of a peer; `None` if it was found by its address."""
        place = self._peers.get(peer)
        return None if place is None or place.machine is None else PeerId(place.machine)

    def all(self) -> tuple[str, ...]:
        """Addresses with identities, those of the peer that was heard of last first."""
        newest = reversed(self._peers.values())
        found = (each for kept in newest for each in kept.addresses if "/p2p/" in each)
        return tuple(dict.fromkeys(found))[:MAX_PLACES]

    def bare(self) -> tuple[str, ...]:
        """All addresses without identities: another program may be there than before."""
        newest = reversed(self._peers.values())
        found = (each.partition("/p2p/")[0] for kept in newest for each in kept.addresses)
        return tuple(dict.fromkeys(found))[:MAX_PLACES]

    def flush(self) -> None:
        """Write the file, if there is news; raises `ConfigurationError`."""
        if self._is_changed:
            self._is_changed = False
            add_places(self._folder, self._peers)


def bounded(peers: dict[str, Place]) -> dict[str, Place]:
    """Those of *peers* that are kept, the last ones: not too many of one machine, and in all."""
    kept: dict[str, Place] = {}
    programs: Counter[str] = Counter()
    for peer, place in reversed(peers.items()):
        if place.machine is not None:
            programs[place.machine] += 1
            if programs[place.machine] > MAX_PEERS_OF_MACHINE:
                continue
        kept[peer] = place
        if len(kept) == MAX_PEERS:
            break
    return dict(reversed(kept.items()))


def read_places(folder: Folder) -> dict[str, Place]:
    """What is kept in *folder*; what is damaged is left out."""
    try:
        found: Any = json.loads(folder.read(FILE) or b"{}")
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    peers = {peer: _place(each) for peer, each in found.items() if isinstance(each, dict)}
    return {peer: place for peer, place in peers.items() if place.addresses}


def _place(found: dict[str, Any]) -> Place:
    addresses, machine = found.get("addresses"), found.get("machine")
    texts = [each for each in addresses if isinstance(each, str)] if type(addresses) is list else []
    return Place(dialled(texts), machine if isinstance(machine, str) else None)


def add_places(folder: Folder, news: dict[str, Place]) -> None:
    """Write *news*, with what other processes of this machine have written meanwhile."""
    with folder.locked():
        before = read_places(folder)
        kept = bounded({peer: place for peer, place in before.items() if peer not in news} | news)
        plain = {peer: attrs.asdict(place) for peer, place in kept.items()}
        folder.write(FILE, json.dumps(plain, indent=0).encode() + b"\n")


def dialled(addresses: Iterable[str]) -> tuple[str, ...]:
    """Those of *addresses* that are dialled at all; a few."""
    return _dialled(tuple(addresses))


@lru_cache(maxsize=MAX_PEERS)
def _dialled(addresses: tuple[str, ...]) -> tuple[str, ...]:
    """The same; cached, since the same members are heard of again and again."""
    found: dict[str, None] = {}
    for text in addresses:
        try:
            address = parse_address(text[:MAX_ADDRESS_CHARACTERS])
        except ConfigurationError:
            continue
        # A loopback address is that of a process of this very machine, and so is a name that a
        # person has typed; neither comes from a registration, whose source has refused both.
        if unfit(address) is None or address.is_loopback() or address.is_name:
            found[text] = None
    return tuple(found)[:MAX_ADDRESSES]


def told_places(addresses: Iterable[str], *, at: str) -> tuple[str, ...]:
    """Those of *addresses* that are kept of a member which has told them itself.

    Its loopback addresses and names count if it was reached on this very machine, which *at* says.
    """
    place = parse_address(at)
    is_here = not place.is_name and is_this_machine(place.host)
    return tuple(
        text for text in dialled(addresses) if is_here or unfit(parse_address(text)) is None
    )
