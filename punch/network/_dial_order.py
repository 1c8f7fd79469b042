"""Decides in which order the addresses of one peer are dialled. No I/O, no clock.

1. What leads to the peer itself goes before what leads through a relay.
2. TCP goes before QUIC: it is the faster one in py-libp2p, and where nothing listens it says so at
   once, while a datagram gets no answer.
3. A relay is dialled beside the peer itself, and not after it: an address behind somebody's router
   answers nothing for seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from ..exceptions import ConfigurationError
from ._address import Address, parse_address

# What happy eyeballs give the family that is preferred (RFC 8305, section 5). A connection through
# a relay takes more round trips than one without: it comes second wherever both work.
HEAD_START_SECONDS = 0.25

# A second relay, for when one ends; more bring nobody nearer.
CIRCUIT_PLACES = 2


@attrs.frozen(kw_only=True)
class DialOrder:
    """Two rows of addresses, which are dialled side by side, each one address after the other."""

    direct: tuple[Address, ...]
    """Of the peer itself."""

    relayed: tuple[Address, ...]
    """Of relays that lead to it."""

    @property
    def head_start(self) -> float:
        """Seconds by which the first row goes before the second, as long as it has not failed."""
        return HEAD_START_SECONDS if self.direct else 0.0


def dial_order(addresses: Iterable[Address]) -> DialOrder:
    """The order for *addresses*, which are in the order in which the peer has named them."""
    by_transport = sorted(addresses, key=lambda each: each.transport == "quic")
    return DialOrder(
        direct=tuple(each for each in by_transport if each.relay is None),
        relayed=tuple(each for each in by_transport if each.relay is not None),
    )


def dialled_together(addresses: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """What of *addresses* is tried at a time where each try is one turn of many.

    One address of the peer itself, and beside it one that leads through a relay, if there is one: a
    peer that names many makes no try longer.
    """
    everything = tuple(addresses)
    rows = [
        row
        for row in (
            [each for each in everything if not is_relayed(each)],
            [each for each in everything if is_relayed(each)],
        )
        if row
    ]
    tries = max(map(len, rows), default=0)
    return tuple(tuple(row[number % len(row)] for row in rows) for number in range(tries))


def announced(addresses: Sequence[str], most: int) -> tuple[str, ...]:
    """What a peer that may name *most* of its *addresses* names, in their order.

    Up to `CIRCUIT_PLACES` are kept for those that lead through a relay: a peer that others cannot
    dial needs them more than one more address of a network of its own. What only its own machine
    can dial comes last.
    """
    circuits = [each for each in addresses if is_relayed(each)]
    local = [each for each in addresses if each not in circuits and _is_loopback(each)]
    direct = [each for each in addresses if each not in circuits and each not in local]
    kept = min(len(circuits), CIRCUIT_PLACES, most)
    chosen = set([*direct[: most - kept], *circuits, *local][:most])
    return tuple(each for each in dict.fromkeys(addresses) if each in chosen)


def _is_loopback(address: str) -> bool:
    try:
        return parse_address(address).is_loopback()
    except ConfigurationError:
        return False


def is_relayed(address: str) -> bool:
    """Whether a multiaddress leads through a relay."""
    return "/p2p-circuit" in address
