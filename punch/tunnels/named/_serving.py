"""Lets peers reach ports of this machine that its settings name: who may, and by which carrier."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import attrs

from ..._logs import get_logger
from ...access import Introduction, Membership
from ...capability import PeerId
from ...exceptions import AddressUnavailable, NetworkError, RemoteProtocolError
from ...network import Node
from .._carrier import Carrier, open_carrier
from .._certificates import make_certificate
from .._places import Place, hosts_of
from ..streams import NOT_ALLOWED, TunnelDoor, TunnelOpening, TunnelOutcome, door_of

log = get_logger(__name__)

TUNNEL_PORTS: Final = range(21840, 21856)
"""Where far ends listen: ports that stay, since a firewall has a rule for a port."""


@attrs.frozen(kw_only=True)
class NamedPort:
    """A port of loopback that peers may reach by its name."""

    name: str
    """What peers call it."""

    port: int
    """The port."""

    peers: frozenset[PeerId] = frozenset()
    """The only peers that may reach it. Empty for all members of a closed namespace; in an open
    one, where anybody may be a member, nobody else than these may."""


Judge = Callable[[PeerId, TunnelOpening], TunnelOutcome | None]


@asynccontextmanager
async def open_named_ports(
    ports: Sequence[NamedPort],
    node: Node,
    *,
    namespace: str,
    membership: Membership | None = None,
    listen_ports: Sequence[int] = TUNNEL_PORTS,
    wall: Callable[[], float] = time.time,
) -> AsyncIterator[None]:
    """Let peers reach *ports* through *node*, while the context lasts.

    Args:
      ports: Which, each name once.
      node: The node of this process, where peers ask.
      namespace: Whose members may ask.
      membership: Ours, if it is closed.
      listen_ports: Where TLS connections may be listened for, in order; 0 for any.
      wall: UTC, in seconds since 1970.

    Raises:
      NetworkError: if what carries the bytes cannot start.

    """
    if not ports:
        yield
        return
    async with AsyncExitStack() as stack:
        carrier = await stack.enter_async_context(open_carrier())
        door = door_of(node)
        for each in ports:
            carrier.allow(each.port)
            direct = _Direct(carrier, node, listen_ports)
            judge = _judge_of(each, namespace, membership, wall)
            await stack.enter_async_context(
                door.name(each.name, each.port, judge=judge, direct=direct.open)
            )
        if membership is not None:
            stack.enter_context(membership.watch(lambda: _end_removed(door)))
        log.info(
            "peers may reach ports of this machine",
            ports={each.name: each.port for each in ports},
            who="members" if membership is not None else "named peers",
        )
        yield


def _end_removed(door: TunnelDoor) -> None:
    """End the tunnels of members that were removed; a grant that was renewed is another matter."""
    door.judge_again(lambda outcome: outcome.refused == "revoked")


def _judge_of(
    port: NamedPort, namespace: str, membership: Membership | None, wall: Callable[[], float]
) -> Judge:
    def judge(peer_id: PeerId, opening: TunnelOpening) -> TunnelOutcome | None:
        if membership is not None:
            introduction = Introduction(namespace=opening.namespace, grant=opening.chain or None)
            refusal = membership.lock.admit(peer_id, introduction, wall())
            if refusal is not None:
                return TunnelOutcome(refused=refusal.rule, reason=refusal.reason)
        elif opening.namespace != namespace:
            return _OTHERS
        if (port.peers or membership is None) and peer_id not in port.peers:
            return _OTHERS
        return None

    return judge


_OTHERS = TunnelOutcome(refused=NOT_ALLOWED, reason="the port is open to other peers")


class _Direct:
    """Opens far ends for TLS connections."""

    def __init__(self, carrier: Carrier, node: Node, ports: Sequence[int]) -> None:
        self._carrier = carrier
        self._node = node
        self._ports = tuple(ports)

    async def open(
        self, opening: TunnelOpening, target: int
    ) -> tuple[TunnelOutcome, Callable[[], None]]:
        own = make_certificate()
        hosts, others = hosts_of(self._node)
        try:
            far = await self._carrier.open_far(
                hosts, self._ports, certificate=own, trusted_pem=opening.certificate, target=target
            )
        except RemoteProtocolError as error:
            return TunnelOutcome(refused="malformed", reason=str(error)), lambda: None
        except (AddressUnavailable, NetworkError) as error:
            log.warning("no TLS connections for a tunnel, only streams", why=str(error))
            return TunnelOutcome(refused="stream_only", reason="no port is free"), lambda: None
        places = [*far.addresses, *(Place(host, far.addresses[0].port) for host in others)]
        outcome = TunnelOutcome(certificate=own.pem, addresses=tuple(map(str, places[:16])))
        return outcome, far.close
