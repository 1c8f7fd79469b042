"""Looks for RPC servers in this machine's own networks: slowly, and only when somebody asks.

Which addresses are looked at is decided first, and is bounded. A port that is open is asked who it
is, once, and what was asked is never abandoned.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from contextlib import suppress

import attrs
import trio

from ...exceptions import BackendError, ConfigurationError
from ...llama_cpp import RpcFacts, rpc_hello
from ...network import OwnNetwork

DEFAULT_RPC_PORT = 50052
"""Where llama.cpp's RPC server listens unless told otherwise."""

# Addresses of one search: four times what a home network has.
MAX_ADDRESSES = 1024

# A home's router and its cheapest machine notice nothing of so few, and 254 take 13 seconds.
LOOKS_PER_SECOND = 20.0

# A machine of the same network answers in milliseconds; one that sleeps may need a while.
CONNECT_SECONDS = 1.0
HELLO_SECONDS = 3.0


@attrs.frozen(kw_only=True)
class Search:
    """What a search looks at."""

    addresses: tuple[str, ...] = ()
    """IP addresses, in order."""

    skipped: tuple[OwnNetwork, ...] = ()
    """Networks that are too big to look at as a whole."""


@attrs.frozen(kw_only=True)
class Seen:
    """A server that was asked."""

    place: str
    """Its address with its port."""

    facts: RpcFacts | None = None
    """What it says of itself; `None` if it is no RPC server, or says nothing."""

    why: str = ""
    """Why it says nothing of itself."""


def search_of(
    named: Sequence[OwnNetwork], own: Sequence[OwnNetwork], hosts: Sequence[str]
) -> Search:
    """What is looked at: the *named* networks, or all of this machine's *own*.

    Args:
      named: Networks that the user named; none for all.
      own: The private networks that this machine is in.
      hosts: The addresses of this machine itself, which are looked at as 127.0.0.1.

    Raises:
      ConfigurationError: if a network is not this machine's own, or has too many addresses.

    """
    for network in named:
        if not any(network.version == one.version and _is_in(network, one) for one in own):
            raise ConfigurationError(
                f"{network} is in no private network of this machine, and others' are not "
                f"searched; there are {', '.join(map(str, own)) or 'none'}"
            )
        if network.num_addresses > MAX_ADDRESSES + 2:
            raise ConfigurationError(
                f"{network} has {network.num_addresses:,} addresses, and {MAX_ADDRESSES:,} are "
                "the most of one search; name a part of it"
            )
    # Addresses of IPv6 are found by nobody who looks at one after another.
    wanted = named or [each for each in own if each.version == 4 and not each.is_loopback]
    skipped = tuple(each for each in wanted if each.num_addresses > MAX_ADDRESSES + 2)
    found = [
        str(host)
        for network in wanted
        if network not in skipped
        for host in network.hosts()
        if str(host) not in hosts
    ]
    addresses = tuple(dict.fromkeys(["127.0.0.1", *found]))
    if len(addresses) > 2 * MAX_ADDRESSES:
        raise ConfigurationError(
            f"this machine's networks have {len(addresses):,} addresses together, which is too "
            f"many for one search; name one: {', '.join(map(str, wanted))}"
        )
    return Search(addresses=addresses, skipped=skipped)


def _is_in(network: OwnNetwork, own: OwnNetwork) -> bool:
    # Both are of one version of IP, which the types do not say: hence the two exceptions.
    return (
        own.network_address <= network.network_address  # type: ignore[operator]
        and network.broadcast_address <= own.broadcast_address  # type: ignore[operator]
    )


async def look(
    search: Search, port: int, *, told: Callable[[Seen], None] = lambda seen: None
) -> list[Seen]:
    """Look at each address of *search*, and ask what listens at *port* there who it is.

    Args:
      search: What to look at.
      port: The port.
      told: Called with each server as soon as it has answered.

    """
    found: list[Seen] = []

    async def one(host: str) -> None:
        if await _is_open(host, port):
            seen = await ask(place_of(host, port))
            found.append(seen)
            told(seen)

    async with trio.open_nursery() as nursery:
        for host in search.addresses:
            nursery.start_soon(one, host)
            await trio.sleep(1 / LOOKS_PER_SECOND)
    return found


async def _is_open(host: str, port: int) -> bool:
    """Whether anything takes a connection; it is closed without a byte, which disturbs nobody."""
    with suppress(OSError), trio.move_on_after(CONNECT_SECONDS):
        await (await trio.open_tcp_stream(host, port)).aclose()
        return True
    return False


async def ask(place: str) -> Seen:
    """Ask the server at *place* who it is."""
    host, _, port = place.rpartition(":")
    try:
        facts = await rpc_hello(host.strip("[]"), int(port), patience=HELLO_SECONDS, outlives=True)
    except BackendError as error:
        return Seen(place=place, why=error.message)
    return Seen(place=place, facts=facts)


def place_of(host: str, port: int) -> str:
    """How the address and the port of a server are written."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def network_of(text: str) -> OwnNetwork:
    """The network that *text* names.

    Raises:
      ValueError: with the rule that it breaks.

    """
    with suppress(ValueError):
        return ipaddress.ip_network(text.strip(), strict=False)
    raise ValueError("write a network such as 192.168.1.0/24, or one address")
