"""The LAN of real programs: mDNS on the interfaces of this machine."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractAsyncContextManager

from ._interfaces import lan_interfaces
from ._multicast import Lan, Multicast
from ._records import Interface, Said


def real_lan(names: Collection[str] = ()) -> Lan:
    """MDNS on the interfaces called *names*; by default on all with a LAN behind them."""
    chosen = frozenset(names)
    return Lan(open=_open, interfaces=lambda: lan_interfaces(chosen), names=chosen)


def _open(said: Mapping[Interface, Said | None]) -> AbstractAsyncContextManager[Multicast]:
    # Late: programs that look for nobody on a LAN need not load it.
    from ._zeroconf import open_multicast

    return open_multicast(said)
