"""Decides whether mDNS works here, and says what keeps it from working. No I/O, no clock.

That nobody is heard may mean that nobody is there. What can be told apart: an interface that cannot
be used, a machine that does not even hear itself, and members that are known to be on the same LAN
and are not heard.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Mapping

from ...capability import PeerId
from ...exceptions import ConfigurationError
from ...network import parse_address
from ._records import Interface, Said

# How long our own record takes at most to come back to us, and other members' to be heard, in
# seconds: three announcements, a second apart (RFC 6762, section 8.3), and answers within another.
ECHO_SECONDS = 10.0


class Hearing:
    """What is known of the interfaces since they were opened. *now* is in seconds.

    Args:
      said: The interfaces, with what we say on each.
      now: When they were opened.
      names: The interfaces that a person has named, if it was not left to us.

    """

    def __init__(
        self,
        said: Mapping[Interface, Said | None],
        *,
        now: float,
        names: Collection[str] = (),
    ) -> None:
        self._names = sorted(names)
        self.interfaces = {interface.name: interface for interface in said}
        """The interfaces, by their names."""
        self._opened_at = now
        self._said = {interface.name for interface, what in said.items() if what is not None}
        self._echoed: set[str] = set()
        self._failed: dict[str, str] = {}

    def failed(self, interface: str, why: str) -> None:
        """Note that *interface* cannot be used."""
        self._failed[interface] = why

    def echoed(self, interface: str) -> None:
        """Note that what we say on *interface* has come back to us."""
        self._echoed.add(interface)

    def trouble(
        self, members: Mapping[PeerId, tuple[str, ...]], *, hears_members: bool, now: float
    ) -> str | None:
        """What keeps us from hearing or being heard, for a person; `None` if nothing is known to.

        Args:
          members: The members that are known, however they were found, with their addresses.
          hears_members: True if some were found on the LAN.
          now: The time.

        """
        if not self.interfaces and self._names:
            return f"no interface of this machine is called {' or '.join(self._names)} and is up"
        if not self.interfaces:
            return "no interface of this machine has a LAN behind it"
        if self._failed:
            told = ", ".join(f"{name}: {why}" for name, why in sorted(self._failed.items()))
            return f"mDNS cannot be used ({told})"
        if hears_members or now - self._opened_at < ECHO_SECONDS:
            return None
        deaf = sorted(self._said - self._echoed)
        if deaf:
            return (
                f"what this machine says by mDNS on {', '.join(deaf)} does not come back to it: "
                "its firewall drops it; let UDP port 5353 in and out"
            )
        near = self._neighbours(members)
        if near:
            count = "a member is" if near == 1 else f"{near} members are"
            return (
                f"{count} on this LAN, and none is heard by mDNS: the network carries no multicast "
                "between its machines, or mDNS is switched off there"
            )
        return None

    def _neighbours(self, members: Mapping[PeerId, tuple[str, ...]]) -> int:
        """How many of *members* are other machines of our LANs."""
        own = {host for each in self.interfaces.values() for host in each.hosts}

        def is_near(addresses: Iterable[str]) -> bool:
            hosts = {str(ip) for ip in map(host_of, addresses) if ip is not None}
            return not hosts & own and any(
                interface.has_on_link(host)
                for host in hosts
                for interface in self.interfaces.values()
            )

        return sum(map(is_near, members.values()))


def host_of(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address in a multiaddress; `None` if there is none."""
    try:
        return ipaddress.ip_address(parse_address(address).host)
    except (ConfigurationError, ValueError):
        return None
