"""What a peer says of itself by mDNS, and what is made of what others say. No I/O.

1. A record has an identity, a port, a salt and a tag (`_tags`): no name of a namespace, of a
   machine or of a person. Its own name is drawn anew each time a peer starts.
2. On an interface a peer tells the addresses of that interface, and no other.
3. Whatever strangers send is bounded, and is dialled only where it is on the network of the
   interface on which it was heard: a record cannot have us knock at a door elsewhere.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping

import attrs

from ...capability import PeerId
from ...exceptions import ConfigurationError
from ...network import Address, parse_address
from ._tags import SALT_BYTES, TAG_BYTES, LanKey

SERVICE = "_punch._tcp.local."
"""The type that records are filed under (RFC 6763)."""

VERSION = b"1"

# Addresses of one record that are looked at, and kept. A machine has two or three on a network;
# with privacy extensions of IPv6 (RFC 8981) a few more.
MAX_HOSTS = 16
MAX_ADDRESSES = 8

# Names of interfaces as Linux and macOS have them.
_ZONE = re.compile(r"[A-Za-z0-9_.:-]{1,15}")

# An identity is 52 characters; tests have shorter ones.
MAX_PEER_ID_BYTES = 100


@attrs.frozen(kw_only=True)
class Interface:
    """A network interface of this machine that a LAN is behind."""

    name: str
    """Such as ``eth0``."""

    index: int
    """The number that the system has for it."""

    networks: tuple[str, ...]
    """Its addresses with the lengths of their prefixes, such as ``192.168.1.10/24``."""

    @property
    def hosts(self) -> tuple[str, ...]:
        """Its addresses."""
        return tuple(network.partition("/")[0] for network in self.networks)

    @property
    def zone(self) -> str:
        """What a link-local address behind it is written with (RFC 4007, section 11.2)."""
        # Names with blanks are Windows', which knows zones by numbers alone.
        return self.name if _ZONE.fullmatch(self.name) else str(self.index)

    @property
    def links(self) -> tuple[Address, ...]:
        """Its own link-local addresses, to listen on over TCP at any port."""
        return tuple(
            Address(
                kind="ip6" if ":" in host else "ip4",
                host=host,
                transport="tcp",
                port=0,
                zone=self.zone if ":" in host else "",
            )
            for host in self.hosts
            if ipaddress.ip_address(host).is_link_local
        )

    def has_on_link(self, host: str) -> bool:
        """True if *host* is an address of a machine on the network behind it."""
        address = ipaddress.ip_address(host)
        return not (address.is_multicast or address.is_unspecified or address.is_loopback) and any(
            address in network
            for network in (ipaddress.ip_interface(each).network for each in self.networks)
            if network.version == address.version
        )


@attrs.frozen(kw_only=True)
class Said:
    """What we say of ourselves on one interface."""

    instance: str
    """The name of the record, without `SERVICE`."""

    hosts: tuple[str, ...]
    """Our addresses on the interface."""

    port: int
    """Our TCP port there; 0 for none."""

    properties: Mapping[str, bytes]
    """The rest of the record, as it travels."""


@attrs.frozen(kw_only=True)
class Heard:
    """A record as it was heard, from whomever."""

    interface: str
    """Name of the interface."""

    instance: str
    """Name of the record, without `SERVICE`."""

    hosts: tuple[str, ...]
    """Addresses that it names, with or without zones."""

    port: int | None
    """Its port."""

    properties: Mapping[bytes, bytes | None]
    """The rest of it."""


@attrs.frozen(kw_only=True)
class Unheard:
    """A record that was taken back, or has expired."""

    interface: str
    """Name of the interface."""

    instance: str
    """Name of the record."""


@attrs.frozen(kw_only=True)
class Failed:
    """An interface on which nothing is said or heard."""

    interface: str
    """Name of the interface."""

    why: str
    """The system's reason, for a person."""


@attrs.frozen(kw_only=True)
class LanRecord:
    """A record of a punch peer, of whatever namespace; nothing of it is proved."""

    interface: str
    """Name of the interface where it was heard."""

    instance: str
    """Name of the record."""

    peer_id: PeerId
    """Who it says is there."""

    salt: bytes
    """What its tags are salted with."""

    tag: bytes
    """Fits the key of its namespace."""

    name_tag: bytes = b""
    """Of a closed namespace: fits the key of its name. Else empty."""

    joins: bool = False
    """True if newcomers may ask there to be let into a closed namespace."""

    addresses: tuple[Address, ...]
    """Where it says to be, on the network of the interface."""

    def is_of(self, key: LanKey) -> bool:
        """True if it was made by somebody who knows the namespace of *key*."""
        return key.fits(self.tag, "record", self.salt, self.peer_id)

    def is_named(self, name: str) -> bool:
        """True if it is of a closed namespace that is called *name*."""
        key = LanKey.of_name(name)
        return bool(self.name_tag) and key.fits(self.name_tag, "name", self.salt, self.peer_id)


def said_on(
    interface: Interface,
    addresses: Iterable[str],
    *,
    peer_id: PeerId,
    instance: str,
    key: LanKey,
    salt: bytes,
    closed_name: str | None = None,
    joins: bool = False,
) -> Said | None:
    """What a peer says on *interface*; `None` if nobody can dial it there.

    Args:
      interface: The interface.
      addresses: Multiaddresses of the peer, all that it has.
      peer_id: Its identity.
      instance: Name of the record: another each time the peer starts.
      key: The key of its namespace.
      salt: `SALT_BYTES` of chance, another each time the peer starts.
      closed_name: Name of its namespace, if that is closed.
      joins: Whether newcomers may ask it to be let in.

    """
    ours = [
        each
        for each in _parsed(addresses)
        if each.host in interface.hosts and each.zone in ("", interface.zone)
    ]
    ports = {each.transport: each.port for each in reversed(ours)}
    if not ports:
        return None
    properties = {
        "v": VERSION,
        "p": peer_id.encode(),
        "s": salt.hex().encode(),
        "t": key.tag("record", salt, peer_id).hex().encode(),
    }
    if closed_name is not None:
        tag = LanKey.of_name(closed_name).tag("name", salt, peer_id)
        properties["n"] = tag.hex().encode()
    if joins:
        properties["j"] = b"1"
    if "quic" in ports:
        properties["q"] = str(ports["quic"]).encode()
    return Said(
        instance=instance,
        hosts=tuple(dict.fromkeys(each.host for each in ours))[:MAX_ADDRESSES],
        port=ports.get("tcp", 0),
        properties=properties,
    )


def _parsed(addresses: Iterable[str]) -> Iterable[Address]:
    for text in addresses:
        try:
            address = parse_address(text)
        except ConfigurationError:
            continue
        if not address.is_name:
            yield address


def parse(heard: Heard, interface: Interface) -> LanRecord | None:
    """What *heard* says; `None` if it is no record of punch, or not one that we understand."""
    properties = heard.properties
    peer = properties.get(b"p") or b""
    salt, tag = _bytes(properties, b"s", SALT_BYTES), _bytes(properties, b"t", TAG_BYTES)
    if properties.get(b"v") != VERSION or not salt or not tag:
        return None
    # Signs such as `-` are in no identity of libp2p, and in those of the network in memory.
    if len(peer) > MAX_PEER_ID_BYTES or not peer.translate(None, b"-_").isalnum():
        return None
    addresses = tuple(_places(heard, interface))
    if not addresses:
        return None
    return LanRecord(
        interface=heard.interface,
        instance=heard.instance,
        peer_id=PeerId(peer.decode("ascii")),
        salt=salt,
        tag=tag,
        name_tag=_bytes(properties, b"n", TAG_BYTES),
        joins=properties.get(b"j") == b"1",
        addresses=addresses[:MAX_ADDRESSES],
    )


def _places(heard: Heard, interface: Interface) -> Iterable[Address]:
    ports = (("tcp", heard.port or 0), ("quic", _port(heard.properties.get(b"q"))))
    for text in heard.hosts[:MAX_HOSTS]:
        host, _, zone = text.partition("%")
        try:
            version = ipaddress.ip_address(host).version
        except ValueError:
            continue
        if not interface.has_on_link(host):
            continue
        # No record has a zone: it is of the interface that the packet came in by, and on Linux that
        # may be another than the one that we listen on.
        if zone and zone not in (interface.name, str(interface.index)):
            continue
        for transport, port in ports:
            if not 0 < port < 65536:
                continue
            place = Address(
                kind=f"ip{version}",
                host=str(ipaddress.ip_address(host)),
                transport="tcp" if transport == "tcp" else "quic",
                port=port,
            )
            if version == 4 or not place.is_link_local():
                yield place
            elif transport == "tcp":
                # QUIC cannot be told an interface, see `punch.libp2p`.
                yield attrs.evolve(place, zone=interface.zone)


def _bytes(properties: Mapping[bytes, bytes | None], name: bytes, length: int) -> bytes:
    """The value of a property of so many bytes in hexadecimal; empty if it is none."""
    text = properties.get(name) or b""
    if len(text) != 2 * length:
        return b""
    try:
        return bytes.fromhex(text.decode("ascii"))
    except ValueError:
        return b""


def _port(text: bytes | None) -> int:
    return int(text) if text and len(text) <= 5 and text.isdigit() else 0
