"""``punch tunnel``: leads a port of this machine to one that a peer's settings allow."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack

import attrs
import trio

from ..._background import open_background
from ..._logs import get_logger
from ...access import Membership
from ...capability import PeerId
from ...discovery import Directory, KnownMember, join_namespace, new_incarnation
from ...exceptions import ConfigurationError, NoPeerAvailable, NotPermitted, PeerError, PunchError
from ...libp2p import open_node
from ...network import Node
from ...settings import (
    DIALER_IDENTITY,
    LOG_LEVEL,
    WORD,
    NetworkSettings,
    ProgramSettings,
    count,
    group,
    of,
    optional,
)
from ...tunnels import Carrier, NearEnd, NearStreams, open_carrier, open_named_port
from .._exits import ExitCode
from .._identity import claim_identity
from .._namespace import Place, open_membership_of, place_of
from .._output import plain
from .._run import Shutdown, run_program
from .._shared import bootstraps, known_peers, lan_of

log = get_logger("punch.tunnel")

ABOUT = "Lead a port of this machine to a port of a peer that its settings allow."

TO = optional(
    "to",
    WORD,
    variable="",
    metavar="PEER",
    help="the peer: its machine's name in a closed namespace, its identity, or the end of that",
)
PORT_NAME = optional(
    "port",
    WORD,
    variable="",
    metavar="NAME",
    help="what the peer's settings (tunnel_ports) call the port",
)
LISTEN_PORT = optional(
    "listen",
    count(1, most=65535),
    variable="",
    metavar="PORT",
    help="port of loopback to listen at",
    shown_default="any that is free",
)


@attrs.frozen(kw_only=True)
class TunnelSettings(ProgramSettings):
    """Settings of ``punch tunnel``."""

    to: str | None = of(TO)
    port: str | None = of(PORT_NAME)
    listen: int | None = of(LISTEN_PORT)
    network: NetworkSettings = group(NetworkSettings)
    identity: str | None = of(DIALER_IDENTITY)
    log_level: str = of(LOG_LEVEL, default="warning")


# How long the peer is looked for, in seconds.
FIND_SECONDS = 10.0

# An end of an identity that is no accident.
MIN_END_CHARACTERS = 6

# Of the peers that are there, in an error.
MAX_NAMED = 8

# After a tunnel was lost, until it is opened again: longer each time, as long as nobody answers.
PAUSE_SECONDS = 1.0
MAX_PAUSE_SECONDS = 15.0


class _Peer:
    """The processes that *who* means; of one machine there may be several."""

    def __init__(
        self, directory: Directory, membership: Membership | None, who: str, place: Place
    ) -> None:
        self.who = who.strip()
        self.place = place
        self.membership = membership
        self._directory = directory

    def _known(self) -> list[KnownMember]:
        members, who = self._directory.members, self.who
        if (exact := members.get(PeerId(who))) is not None:
            return [exact]
        end = who.lstrip(".")
        if len(end) >= MIN_END_CHARACTERS:
            found = [each for peer_id, each in members.items() if peer_id.endswith(end)]
            if len(found) == 1:
                return found
        if self.membership is None:
            return []
        called = who.casefold()
        return [
            members[known.peer_id]
            for known in self.membership.lock.remembered
            if known.peer_id in members
            and (known.machine == who or self.membership.called(known.machine).casefold() == called)
        ]

    async def find(self) -> list[KnownMember]:
        """Wait until one is known.

        Raises:
          NoPeerAvailable: if none is, within `FIND_SECONDS`.
          PunchError: if no source of the namespace works.

        """
        until = trio.current_time() + FIND_SECONDS
        while not (found := self._known()):
            if trio.current_time() >= until:
                members = self._directory.members
                if self._directory.trouble is not None and not members:
                    raise self._directory.trouble
                seen = ", ".join(sorted(members)[:MAX_NAMED]) or "nobody"
                raise NoPeerAvailable(
                    f"no peer of {self.place} is called {self.who!r}, as far as was heard here; "
                    f"there is: {seen}"
                )
            await trio.sleep(0.1)
        return found


async def carry(settings: TunnelSettings, shutdown: Shutdown) -> ExitCode:
    """Carry the port until a signal."""
    if settings.to is None or settings.port is None:
        raise ConfigurationError(
            "say which port of which peer: punch tunnel --to PEER --port NAME, where NAME is what "
            "the peer's tunnel_ports call it"
        )
    shutdown.drains = True
    place = place_of(settings.network)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        nursery = await enter(open_background())

        async def end() -> None:
            await shutdown.requested.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(end)
        identity = stack.enter_context(claim_identity("dialer", settings.identity))
        membership = await enter(open_membership_of(place, identity, settings.network))
        node = await enter(open_node(identity=identity, transport=settings.network.transport))
        if membership is not None:
            await enter(membership.kept_up(node, serves=False))
        directory = await enter(
            join_namespace(
                node,
                bootstraps(settings.network),
                lan=lan_of(settings.network, is_closed=membership is not None),
                known=known_peers(settings.network),
                namespace=place.name,
                roles={"dialer"},
                incarnation=new_incarnation(),
                membership=membership,
            )
        )
        carrier = await enter(open_carrier())
        peer = _Peer(directory, membership, settings.to, place)
        await _Port(settings, settings.port, peer, node, carrier).keep()
    return ExitCode.OK


class _Port:
    """The port of this machine, which leads to the peer's for as long as that is possible."""

    def __init__(
        self, settings: TunnelSettings, name: str, peer: _Peer, node: Node, carrier: Carrier
    ) -> None:
        self._name = name
        self._peer = peer
        self._node = node
        self._carrier = carrier
        # The same again after the tunnel was lost.
        self._listen = settings.listen or 0

    async def keep(self) -> None:
        """Open the tunnel, and again after it was lost; raises what the first time raises."""
        is_first, pause = True, PAUSE_SECONDS
        while True:
            try:
                async with AsyncExitStack() as stack:
                    near = await self._open(stack)
                    self._say(near, is_first=is_first)
                    is_first, pause = False, PAUSE_SECONDS
                    await near.lost.wait()
                    log.warning("the tunnel is lost and is opened again", why=near.why)
            except PunchError as error:
                if is_first:
                    raise
                log.warning("the tunnel cannot be opened yet", why=str(error))
            await trio.sleep(pause)
            pause = min(2 * pause, MAX_PAUSE_SECONDS)

    async def _open(self, stack: AsyncExitStack) -> NearEnd | NearStreams:
        """Ask each process that is meant, until one has the port; raises what the last one does."""
        trouble: PunchError | None = None
        membership = self._peer.membership
        for peer in await self._peer.find():
            try:
                return await stack.enter_async_context(
                    open_named_port(
                        self._node,
                        self._carrier,
                        peer.peer_id,
                        peer.addresses,
                        self._name,
                        namespace=self._peer.place.name,
                        chain=b"" if membership is None else membership.chain(),
                        listen=(self._listen,),
                    )
                )
            except NotPermitted as error:
                trouble = NotPermitted(f"{peer.peer_id} refuses: {error}")
            except PeerError as error:
                trouble = trouble or error
        assert trouble is not None
        raise trouble

    def _say(self, near: NearEnd | NearStreams, *, is_first: bool) -> None:
        self._listen = near.port
        how = "a connection of its own" if isinstance(near, NearEnd) else "a stream of the node"
        text = f"127.0.0.1:{near.port} leads to {self._name} of {self._peer.who}, over "
        if is_first:
            print(plain(text + how), flush=True)
            print("Ctrl-C ends", file=sys.stderr, flush=True)
        else:
            log.warning("the tunnel is open again", port=near.port)


def tunnel(arguments: Sequence[str]) -> int:
    """Run ``punch tunnel``; its exit code."""
    return run_program("punch tunnel", ABOUT, TunnelSettings, carry, arguments, stays=True)
