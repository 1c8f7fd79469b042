"""The far ends of a worker's leases: TLS over TCP, and streams of the node for where that fails."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from ..._logs import get_logger
from ...capability import PeerId
from ...exceptions import AddressUnavailable, RemoteProtocolError
from ...network import Node
from ...tunnels import TUNNEL_PORTS, Carrier, Place, door_of, hosts_of, make_certificate
from ..leases import MAX_TUNNEL_ADDRESSES
from ._parts import FarEnd

log = get_logger(__name__)


class CarrierFarEnds:
    """Opens far ends by the carrier of this process: `FarEnds`.

    Args:
      carrier: The carrier.
      node: The node of this process, at whose addresses they listen.
      ports: Ports to try, in order.

    """

    def __init__(
        self, carrier: Carrier, node: Node, *, ports: Sequence[int] = TUNNEL_PORTS
    ) -> None:
        self._carrier = carrier
        self._node = node
        self._ports = tuple(ports)

    @property
    def carriers(self) -> frozenset[str]:
        """How bytes may travel."""
        return frozenset({"direct", "stream"})

    @asynccontextmanager
    async def open_far_end(
        self, *, lease: str, borrower: PeerId, certificate: bytes, port: int
    ) -> AsyncIterator[FarEnd]:
        """Lead the borrower to *port*; see `FarEnds`."""
        try:
            trusted = certificate.decode("ascii")
        except UnicodeDecodeError:
            raise RemoteProtocolError("the certificate is no PEM") from None
        own = make_certificate()
        async with AsyncExitStack() as stack:
            # Where no port can be reached from outside, the bytes go where the lease was agreed.
            await stack.enter_async_context(
                door_of(self._node).lend(
                    lease, borrower=borrower, port=port, is_allowed=lambda asked: asked == port
                )
            )
            self._carrier.allow(port)
            stack.callback(self._carrier.forbid, port)
            hosts, forwarded = hosts_of(self._node)
            try:
                far = await self._carrier.open_far(
                    hosts, self._ports, certificate=own, trusted_pem=trusted, target=port
                )
            except AddressUnavailable as error:
                log.warning(
                    "no port for the tunnel: its bytes go over streams of the node, slower",
                    ports=f"{self._ports[0]} to {self._ports[-1]}",
                    why=str(error),
                )
                yield FarEnd(carriers=frozenset({"stream"}))
                return
            await stack.enter_async_context(far)
            places = [*far.addresses]
            # A router's address that forwards to this machine forwards this port too, or the
            # borrower finds that it does not.
            places += [Place(host, places[0].port) for host in forwarded if places]
            yield FarEnd(
                certificate=own.pem.encode("ascii"),
                addresses=tuple(map(str, places[:MAX_TUNNEL_ADDRESSES])),
                carriers=self.carriers,
                lost=far.lost,
            )
