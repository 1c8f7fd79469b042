"""The interface of a multicast: says records on the interfaces of this machine, and hears others'.

`_zeroconf` does it for real, by mDNS; `punch.testing.Air` in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import attrs
import trio

from ...network import Address
from ._records import Failed, Heard, Interface, Said, Unheard

Event = Heard | Unheard | Failed

# Events that wait to be looked at; further ones are dropped, as packets are.
MAX_WAITING = 1024


class Multicast(Protocol):
    """Says and hears records, on some interfaces, while it is open."""

    @property
    def events(self) -> trio.MemoryReceiveChannel[Event]:
        """What is heard, our own records included."""
        ...

    @property
    def lost(self) -> int:
        """How many events were dropped, because too many waited to be looked at."""
        ...


OpenMulticast = Callable[[Mapping[Interface, Said | None]], AbstractAsyncContextManager[Multicast]]
"""Opens a multicast on interfaces, with what is to be said on each; `None` to hear only."""


@attrs.frozen(kw_only=True)
class Lan:
    """How a peer looks for others on its LANs. Made by `real_lan`, and by `punch.testing.Air`."""

    # For this room alone: whoever is given one hands it on.
    _open: OpenMulticast
    _interfaces: Callable[[], tuple[Interface, ...]]
    _names: frozenset[str] = frozenset()

    def links(self) -> tuple[Address, ...]:
        """Our link-local addresses on the interfaces as they are now, to listen on."""
        return tuple(address for each in self._interfaces() for address in each.links)
