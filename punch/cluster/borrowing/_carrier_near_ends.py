"""The near ends of a borrower's leases: TLS over TCP, or streams of the node where that fails."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from ..._logs import get_logger
from ...capability import PeerId
from ...exceptions import (
    NotPermitted,
    PeerFailed,
    PeerUnreachable,
    RemoteProtocolError,
)
from ...network import Node
from ...tunnels import (
    Carrier,
    LeaseCertificate,
    NearEnd,
    TunnelOpening,
    open_near_stream,
    places_at,
)
from ..leases import Leased
from ._parts import Reached

log = get_logger(__name__)


class CarrierNearEnds:
    """Opens near ends by the carrier of this process: `NearEnds`.

    Args:
      carrier: The carrier.
      node: Our own node, over whose streams the bytes go where no direct connection is possible.

    """

    def __init__(self, carrier: Carrier, node: Node) -> None:
        self._carrier = carrier
        self._node = node

    @asynccontextmanager
    async def open_near_end(
        self,
        *,
        worker: PeerId,
        addresses: Sequence[str],
        leased: Leased,
        certificate: LeaseCertificate,
    ) -> AsyncIterator[Reached]:
        """Reach the server of a lease; see `NearEnds`."""
        try:
            near, why = await self._direct(addresses, leased, certificate)
            if near is not None:
                async with near:
                    yield Reached(near=near, carrier="direct")
                return
            if "stream" not in leased.carriers:
                raise PeerUnreachable(f"its tunnel is not reached: {why}", peer_id=worker)
            log.warning(
                "a worker's tunnel is not reached, so its bytes go over a stream, which is slower",
                worker=worker,
                why=why,
                remedy="let its port in on the worker's machine, see docs/lending.md",
            )
            opening = TunnelOpening(lease=leased.lease)
            async with open_near_stream(
                self._node, worker, tuple(addresses), opening, frames=True
            ) as streams:
                yield Reached(near=streams, carrier="stream")
        except RemoteProtocolError as error:
            raise PeerFailed(f"has no tunnel: {error}", peer_id=worker) from None
        except NotPermitted as error:
            raise PeerFailed(f"refuses its own tunnel: {error}", peer_id=worker) from None

    async def _direct(
        self, addresses: Sequence[str], leased: Leased, certificate: LeaseCertificate
    ) -> tuple[NearEnd | None, str]:
        """The near end of a direct tunnel, or why there is none."""
        places = places_at(leased.addresses, addresses)
        if "direct" not in leased.carriers or not places:
            return None, "it names no port at its own addresses"
        try:
            near = await self._carrier.open_near(
                places,
                certificate=certificate,
                trusted_pem=leased.certificate.decode("ascii", "replace"),
                frames=True,
            )
        except (NotPermitted, PeerUnreachable) as error:
            return None, f"at {', '.join(map(str, places))}: {error}"
        return near, ""
