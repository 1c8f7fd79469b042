"""Reads and writes addresses of peers: the multiaddresses that punch understands.

Names are not looked up here, and nothing is dialled; the transports do that.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Literal

import attrs

from ..capability import PeerId
from ..exceptions import ConfigurationError

Transport = Literal["tcp", "quic"]

# A zone is the name or number of an interface (RFC 4007, section 11.2), of one machine's.
_FORM = re.compile(
    r"(?:/ip6zone/(?P<zone>[\w.:-]{1,64}))?"
    r"/(?P<kind>ip4|ip6|dns|dns4|dns6)/(?P<host>[^/\s]{1,253})"
    r"/(?P<transport>tcp|udp)/(?P<port>\d{1,5})(?P<quic>/quic-v1)?"
    r"(?:/p2p/(?P<relay>[1-9A-HJ-NP-Za-km-z]{40,64})(?P<circuit>/p2p-circuit))?"
    r"(?:/p2p/(?P<peer>[1-9A-HJ-NP-Za-km-z]{40,64}))?/?"
)


# RFC 1123, section 2.1: labels of letters, digits and hyphens.
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*\.?")


@attrs.frozen(kw_only=True)
class Address:
    """A place where a peer can be dialled, or may listen."""

    kind: str
    """``ip4``, ``ip6``, ``dns``, ``dns4`` or ``dns6``."""

    host: str
    """An IP address or a name."""

    transport: Transport
    """``tcp``, or ``quic`` over UDP."""

    port: int
    """TCP or UDP port; 0 lets the system choose one to listen on."""

    peer_id: PeerId | None = None
    """The peer that must be there, if the address names one."""

    zone: str = ""
    """Of a link-local address of IPv6: the interface of this machine behind which it is."""

    relay: PeerId | None = None
    """The peer at this place that leads to *peer_id*; `None` if that peer is there itself."""

    def __str__(self) -> str:
        how = f"tcp/{self.port}" if self.transport == "tcp" else f"udp/{self.port}/quic-v1"
        who = f"/p2p/{self.peer_id}" if self.peer_id is not None else ""
        if self.relay is not None:
            who = f"/p2p/{self.relay}/p2p-circuit{who}"
        where = f"/ip6zone/{self.zone}" if self.zone else ""
        return f"{where}/{self.kind}/{self.host}/{how}{who}"

    @property
    def place(self) -> str:
        """Host and port, whatever the transport: what a known identity is filed under."""
        return f"{self.scoped_host}:{self.port}"

    @property
    def scoped_host(self) -> str:
        """The host as the system is told it: a link-local address of IPv6 with its zone."""
        return f"{self.host}%{self.zone}" if self.zone else self.host

    def over(self, transport: Transport) -> Address:
        """The same place by another transport."""
        return attrs.evolve(self, transport=transport)

    def reached_by(self, transport: Literal["tcp", "quic", "dual"], *, setting: str) -> Address:
        """The same place, by what a peer dials with: QUIC listens at TCP's port number.

        Raises:
          ConfigurationError: if the address asks for QUIC by name and the peer dials TCP only;
            *setting* is where the address comes from.

        """
        if transport == "tcp" and self.transport == "quic":
            raise ConfigurationError(
                f"{setting} is {self}, an address of QUIC, and the transport is tcp: "
                "say --transport quic or dual, or give the address as /ip4/HOST/tcp/PORT"
            )
        return self if transport == "dual" else self.over(transport)

    @property
    def is_name(self) -> bool:
        """True if a name stands where an IP address could."""
        return self.kind.startswith("dns")

    def is_link_local(self) -> bool:
        """True if it is reached over one link only, which other machines may call otherwise."""
        try:
            return ipaddress.ip_address(self.host).is_link_local
        except ValueError:
            return False

    def is_loopback(self) -> bool:
        """True if only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def _has_zones(kind: str, host: str) -> bool:
    return kind == "ip6" and ipaddress.ip_address(host).is_link_local


def _version(host: str) -> int:
    return ipaddress.ip_address(host).version


def parse_address(text: str, *, setting: str = "address", relayed: bool = False) -> Address:
    """The address that *text* spells.

    Args:
      text: A multiaddress.
      setting: What it is, for the error.
      relayed: Whether it may lead through a relay. A relay's host and port are not the peer's, so
        that only code which knows of relays may read them.

    Raises:
      ConfigurationError: naming *setting*, the text and the forms there are.

    """
    match = _FORM.fullmatch(text)
    wrong = None if match else "it is not of this form"
    if match and match["circuit"] and not relayed:
        wrong = "it leads through a relay"
    elif match and int(match["port"]) > 65535:
        wrong = f"port {match['port']} is above 65535"
    elif match and (match["transport"] == "udp") != bool(match["quic"]):
        wrong = "udp goes with /quic-v1, and tcp without"
    elif match and match["kind"].startswith("dns"):
        if not _NAME.fullmatch(match["host"]):
            wrong = f"{match['host']} is not a host name"
    elif match:
        try:
            # A zone (`%eth0`) is written before it, as /ip6zone/eth0.
            kind = "no" if "%" in match["host"] else f"ip{_version(match['host'])}"
        except ValueError:
            kind = "no"
        if kind != match["kind"]:
            wrong = f"{match['host']} is not an {match['kind']} address"
    if match and match["zone"] and not wrong and not _has_zones(match["kind"], match["host"]):
        wrong = "a zone is only of a link-local address of IPv6, such as fe80::1"
    if match is None or wrong:
        raise ConfigurationError(
            f"{setting} is {text!r}: {wrong}; write /ip4/HOST/tcp/PORT or "
            "/ip4/HOST/udp/PORT/quic-v1, with or without /p2p/PEER_ID, as in "
            "/ip4/192.168.1.10/tcp/51820"
        )
    host = match["host"]
    return Address(
        kind=match["kind"],
        # In one spelling: an address of IPv6 has many, and is compared with those of interfaces.
        host=host if match["kind"].startswith("dns") else str(ipaddress.ip_address(host)),
        transport="tcp" if match["transport"] == "tcp" else "quic",
        port=int(match["port"]),
        peer_id=PeerId(match["peer"]) if match["peer"] else None,
        zone=match["zone"] or "",
        relay=PeerId(match["relay"]) if match["relay"] else None,
    )


def plain_ip(text: str) -> str:
    """An IP address without its zone, and as IPv4 if it is only that in IPv6's dress."""
    address = ipaddress.ip_address(text.split("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def site_of(host: str) -> str:
    """What stands for one machine or household: an IPv4 address, or 64 bits of an IPv6 address.

    A provider gives a household one of these and no choice (RFC 6177); an IPv6 address below it is
    anybody's to make up. All machines of all links share one for link-local addresses: there, as a
    name, an address stands for itself.
    """
    try:
        address = ipaddress.ip_address(plain_ip(host))
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address) or address.is_link_local:
        return str(address)
    return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
