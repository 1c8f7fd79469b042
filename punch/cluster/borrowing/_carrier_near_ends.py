"""The near ends of a borrower's leases: TLS over TCP, by the carrier of this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from ...capability import PeerId
from ...exceptions import (
    ConfigurationError,
    NotPermitted,
    PeerFailed,
    PeerUnreachable,
    RemoteProtocolError,
)
from ...network import parse_address
from ...tunnels import Carrier, LeaseCertificate, NearEnd, Place
from ..leases import Leased


class CarrierNearEnds:
    """Opens near ends by the carrier of this process: `NearEnds`.

    Args:
      carrier: The carrier.

    """

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier

    @asynccontextmanager
    async def open_near_end(
        self,
        *,
        worker: PeerId,
        addresses: Sequence[str],
        leased: Leased,
        certificate: LeaseCertificate,
    ) -> AsyncIterator[NearEnd]:
        """Reach the server of a lease; see `NearEnds`."""
        places = places_of(leased.addresses, addresses)
        try:
            near = await self._carrier.open_near(
                places,
                certificate=certificate,
                trusted_pem=leased.certificate.decode("ascii", "replace"),
                frames=True,
            )
        except RemoteProtocolError as error:
            raise PeerFailed(f"has no tunnel: {error}", peer_id=worker) from None
        except (NotPermitted, PeerUnreachable) as error:
            said = ", ".join(map(str, places)) or "no address"
            raise PeerUnreachable(
                f"its tunnel is not reached at {said}: {error}; is its port open there?",
                peer_id=worker,
                why=getattr(error, "why", None),
            ) from None
        async with near:
            yield near


def places_of(tunnel: Sequence[str], addresses: Sequence[str]) -> list[Place]:
    """Where a far end is, of what a worker says: where the worker itself is, and nowhere else.

    Else it would have us knock at any door of our network, or at our own.

    Args:
      tunnel: Where the worker says that it listens, as ``HOST:PORT``.
      addresses: Multiaddresses at which the worker may be dialled.

    """
    hosts = set()
    for text in addresses:
        with suppress(ConfigurationError):
            hosts.add(parse_address(text).host)
    found = []
    for text in tunnel:
        host, _, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if host in hosts and port.isdecimal() and len(port) <= 5 and 0 < int(port) < 1 << 16:
            found.append(Place(host, int(port)))
    return found
