"""Where the members of a namespace were, for the next start: a few addresses of each.

An address is another peer's word. Who answers there has to show a grant like everybody else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ..exceptions import ConfigurationError
from ..network import parse_address, unfit
from ..wire import MAX_ADDRESSES
from ._folder import Folder

FILE = "places.json"

# Peers of one namespace whose addresses are kept: more than anybody tries at a start.
MAX_PEERS = 256

MAX_PLACES = 64
"""Addresses that are given out at once."""

MAX_ADDRESS_CHARACTERS = 512


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

    def remember(self, peer: str, addresses: Iterable[str]) -> None:
        """Keep where *peer* is; nothing is written yet."""
        kept = dialled(addresses)
        if not kept:
            return
        before = self._peers.pop(peer, None)
        self._peers[peer] = kept
        while len(self._peers) > MAX_PEERS:
            del self._peers[next(iter(self._peers))]
        # That somebody was heard of again is no reason to write a file every second.
        self._is_changed = self._is_changed or before != kept

    def all(self) -> tuple[str, ...]:
        """Addresses with identities, those of the peer that was heard of last first."""
        newest = reversed(self._peers.values())
        found = (each for kept in newest for each in kept if "/p2p/" in each)
        return tuple(dict.fromkeys(found))[:MAX_PLACES]

    def bare(self) -> tuple[str, ...]:
        """All addresses without identities: another program may be there than before."""
        newest = reversed(self._peers.values())
        found = (each.partition("/p2p/")[0] for kept in newest for each in kept)
        return tuple(dict.fromkeys(found))[:MAX_PLACES]

    def flush(self) -> None:
        """Write the file, if there is news; raises `ConfigurationError`."""
        if self._is_changed:
            self._is_changed = False
            add_places(self._folder, self._peers)


def read_places(folder: Folder) -> dict[str, tuple[str, ...]]:
    """What is kept in *folder*; what is damaged is left out."""
    try:
        found: Any = json.loads(folder.read(FILE) or b"{}")
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    peers = {
        peer: dialled(each for each in addresses if isinstance(each, str))
        for peer, addresses in found.items()
        if isinstance(addresses, list)
    }
    return {peer: addresses for peer, addresses in peers.items() if addresses}


def add_places(folder: Folder, news: dict[str, tuple[str, ...]]) -> None:
    """Write *news*, with what other processes of this machine have written meanwhile."""
    with folder.locked():
        kept = {
            peer: addresses for peer, addresses in read_places(folder).items() if peer not in news
        } | news
        last = dict(list(kept.items())[-MAX_PEERS:])
        folder.write(FILE, json.dumps(last, indent=0).encode() + b"\n")


def dialled(addresses: Iterable[str]) -> tuple[str, ...]:
    """Those of *addresses* that are dialled at all; a few."""
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
