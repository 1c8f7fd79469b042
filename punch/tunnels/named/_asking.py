"""Reaches a port of a peer by its name: over TLS connections of its own, or else over streams."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from ..._logs import get_logger
from ...capability import PeerId
from ...exceptions import NotPermitted, PeerUnreachable, RemoteProtocolError
from ...network import Node, Stream
from .._carrier import Carrier, NearEnd
from .._certificates import LeaseCertificate, make_certificate
from .._places import places_at
from ..streams import (
    NearStreams,
    TunnelOpening,
    TunnelOutcome,
    open_near_stream,
    open_tunnel_stream,
)

log = get_logger(__name__)


@asynccontextmanager
async def open_named_port(
    node: Node,
    carrier: Carrier,
    peer_id: PeerId,
    addresses: tuple[str, ...],
    name: str,
    *,
    namespace: str,
    chain: bytes = b"",
    listen: Sequence[int] = (0,),
) -> AsyncIterator[NearEnd | NearStreams]:
    """Lead a port of loopback to the one that *peer_id* calls *name*.

    Args:
      node: Our own node.
      carrier: Carries TLS connections.
      peer_id: The peer, as the directory has it.
      addresses: Where it may be dialled.
      name: What its settings call the port.
      namespace: Where both are members.
      chain: Our grants, in a closed namespace.
      listen: Ports of loopback to try, in order; 0 for any.

    Raises:
      NotPermitted: if the peer refuses it; `rule` has its word for why.
      PeerUnreachable: if the peer cannot be reached, or speaks no such protocol.
      PeerTimeout: if it does not answer.
      RemoteProtocolError: if it says what it should not.
      AddressUnavailable: if no port can be listened at.

    """
    own = make_certificate()
    opening = TunnelOpening(port=name, namespace=namespace, chain=chain)
    asked = TunnelOpening(
        wants="direct", port=name, namespace=namespace, chain=chain, certificate=own.pem
    )
    stream, outcome = await open_tunnel_stream(node, peer_id, addresses, asked)
    try:
        if outcome.refused not in ("", "stream_only"):
            error = NotPermitted(outcome.reason)
            error.rule = outcome.refused
            raise error
        near = await _direct(carrier, outcome, own, addresses, listen)
        if near is not None:
            # The far end lasts as long as the stream does.
            async with near:
                yield near
            return
    finally:
        await _close(stream)
    async with open_near_stream(node, peer_id, addresses, opening, listen=listen) as streams:
        yield streams


async def _close(stream: Stream) -> None:
    with trio.CancelScope(shield=True):
        await stream.aclose()


async def _direct(
    carrier: Carrier,
    outcome: TunnelOutcome,
    own: LeaseCertificate,
    addresses: tuple[str, ...],
    listen: Sequence[int],
) -> NearEnd | None:
    places = places_at(outcome.addresses, addresses)
    if outcome.refused or not places:
        return None
    try:
        return await carrier.open_near(
            places, certificate=own, trusted_pem=outcome.certificate, listen=listen
        )
    except (PeerUnreachable, NotPermitted, RemoteProtocolError) as error:
        log.info("no TLS connection reaches the peer: its stream carries", why=str(error))
        return None
