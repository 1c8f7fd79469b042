"""The far ends of a node, ``/punch/tunnel/1``: a lease, or a port by its name, is asked for.

A peer is authenticated by the node, so what is asked is whether it may: the target of a lease is
for the peer that has the lease, and a port that the settings name is for whom a judge admits. What
is asked for and not there is refused by name, in the same words as what is not for that peer.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

import attrs
import trio

from ..._logs import get_logger
from ...capability import PeerId
from ...exceptions import PeerError, PeerUnreachable, RemoteProtocolError
from ...network import Node, Stream, ip_of, site_of
from .._framing import FAILED, FILL, OPEN, PING, PONG, TAKEN
from ._messages import PROTOCOL, TunnelOpening, TunnelOutcome, hear, say
from ._relay import FramedStream, Relay

log = get_logger(__name__)

MAX_STREAMS: Final = 32
"""Of one peer to one target, at a time."""

MAX_FAR_ENDS: Final = 4
"""For TLS connections, of one peer: each takes one of the few ports that a firewall lets in, which
leases need too. A further tunnel of that peer goes over streams."""

MAX_OPENINGS: Final = 64
MAX_OPENINGS_OF_SITE: Final = 16
"""Streams whose first words are not over, in all and of one host."""

OPENING_SECONDS: Final = 3.0
CONNECT_SECONDS: Final = 3.0

NOT_ALLOWED: Final = "not_allowed"
"""The rule of a judge whose port is for others; its peer hears that there is none."""

_LOOPBACK: Final = "127.0.0.1"
_TAKEN_STEP: Final = 64 << 10

Judge = Callable[[PeerId, TunnelOpening], TunnelOutcome | None]
"""Whether a peer may have a port that it names: `None`, or the outcome that refuses it."""

Direct = Callable[[TunnelOpening, int], Awaitable[tuple[TunnelOutcome, Callable[[], None]]]]
"""Opens a far end for TLS connections to a port: what is said of it, and what closes it."""


@attrs.frozen(kw_only=True)
class TunnelTarget:
    """What a stream may lead to. Made by `TunnelDoor`."""

    name: str
    """For the log: the lease or the port's name."""

    port: int
    """Port of loopback."""

    judge: Judge
    """Who may have it."""

    direct: Direct | None = None
    """Opens a far end for TLS connections, where that is possible."""

    is_allowed: Callable[[int], bool] = lambda port: True
    """Asked again before each connection."""

    scopes: dict[trio.CancelScope, tuple[PeerId, TunnelOpening]] = attrs.field(
        factory=dict, eq=False
    )
    """Of the streams that lead there now, with who opened each."""

    counts: Counter[PeerId] = attrs.field(factory=Counter, eq=False)
    """How many of these each peer has."""


class TunnelDoor:
    """What a node's streams may lead to. Made by `door_of`."""

    def __init__(self) -> None:
        self._targets: dict[tuple[str, str], TunnelTarget] = {}
        self._openings: Counter[str] = Counter()
        self._far_ends: Counter[PeerId] = Counter()

    @asynccontextmanager
    async def lend(
        self,
        lease: str,
        *,
        borrower: PeerId,
        port: int,
        is_allowed: Callable[[int], bool] = lambda port: True,
    ) -> AsyncIterator[None]:
        """Lead *borrower* to the target of its lease, and end that at once on the way out."""

        def judge(peer_id: PeerId, opening: TunnelOpening) -> TunnelOutcome | None:
            return None if peer_id == borrower else _unknown(opening)

        target = TunnelTarget(name=lease, port=port, judge=judge, is_allowed=is_allowed)
        async with self._offer(("lease", lease), target):
            yield

    @asynccontextmanager
    async def name(
        self, name: str, port: int, *, judge: Judge, direct: Direct | None = None
    ) -> AsyncIterator[None]:
        """Lead whom *judge* admits to *port*, by its *name*."""
        target = TunnelTarget(name=name, port=port, judge=judge, direct=direct)
        async with self._offer(("port", name), target):
            yield

    @asynccontextmanager
    async def _offer(self, key: tuple[str, str], target: TunnelTarget) -> AsyncIterator[None]:
        self._targets[key] = target
        try:
            yield
        finally:
            if self._targets.get(key) is target:
                del self._targets[key]
            for scope in target.scopes:
                scope.cancel()

    def judge_again(self, ends: Callable[[TunnelOutcome], bool]) -> None:
        """End the streams of whom the judge refuses now, where *ends* says so of the refusal."""
        for target in self._targets.values():
            for scope, (peer_id, opening) in target.scopes.items():
                refused = target.judge(peer_id, opening)
                if refused is not None and ends(refused):
                    log.warning("a tunnel is ended", peer=peer_id, rule=refused.refused)
                    scope.cancel()

    # ---- a stream ----

    async def serve(self, stream: Stream) -> None:
        """Serve one stream: a `Handler`."""
        site = site_of(ip_of(stream) or "")
        if self._openings[site] >= MAX_OPENINGS_OF_SITE or self._openings.total() >= MAX_OPENINGS:
            return
        self._openings[site] += 1
        try:
            opening = await hear(stream, TunnelOpening, seconds=OPENING_SECONDS)
        except (PeerError, RemoteProtocolError):
            return
        finally:
            self._openings[site] -= 1
            if not self._openings[site]:
                del self._openings[site]
        with suppress(PeerError, RemoteProtocolError):
            await self._answer(stream, opening)

    async def _answer(self, stream: Stream, opening: TunnelOpening) -> None:
        peer_id = stream.peer_id
        target, refused = self._judged(peer_id, opening)
        if target is None or refused is not None:
            assert refused is not None
            log.warning(
                "a tunnel was refused", peer=peer_id, port=opening.port or "of a lease",
                rule=refused.refused,
            )  # fmt: skip
            # Whether a port is there is told to nobody who may not have it.
            await say(stream, _unknown(opening) if refused.refused == NOT_ALLOWED else refused)
            return
        with trio.CancelScope() as scope:
            target.scopes[scope] = (peer_id, opening)
            target.counts[peer_id] += 1
            try:
                if opening.wants == "direct":
                    await self._hold(stream, opening, target)
                else:
                    await say(stream, TunnelOutcome())
                    await self._carry(FramedStream(stream), target)
            finally:
                del target.scopes[scope]
                target.counts[peer_id] -= 1
                if not target.counts[peer_id]:
                    del target.counts[peer_id]

    def _judged(
        self, peer_id: PeerId, opening: TunnelOpening
    ) -> tuple[TunnelTarget | None, TunnelOutcome | None]:
        """What is asked for, if it is there, and why it is refused, if it is."""
        kind, name = ("lease", opening.lease) if opening.lease else ("port", opening.port)
        target = self._targets.get((kind, name))
        if target is None:
            # A stranger hears the same of a name that is there and of one that is not.
            for (other, _), each in self._targets.items():
                if kind == other == "port":
                    refused = each.judge(peer_id, opening)
                    if refused is not None and refused.refused != NOT_ALLOWED:
                        return None, refused
            return None, _unknown(opening)
        if (refused := target.judge(peer_id, opening)) is not None:
            return target, refused
        if target.counts[peer_id] >= MAX_STREAMS:
            return target, TunnelOutcome(refused="busy", reason="there are too many connections")
        return target, None

    async def _hold(self, stream: Stream, opening: TunnelOpening, target: TunnelTarget) -> None:
        """Have a far end for as long as the stream is open."""
        peer_id = stream.peer_id
        if target.direct is None or self._far_ends[peer_id] >= MAX_FAR_ENDS:
            outcome = TunnelOutcome(
                refused="stream_only", reason="there is no port for TLS connections"
            )
            await say(stream, outcome)
            return
        self._far_ends[peer_id] += 1
        try:
            outcome, close = await target.direct(opening, target.port)
            try:
                await say(stream, outcome)
                log.info("a tunnel is open", peer=peer_id, port=target.name, carrier="direct")
                while await stream.receive_some():
                    pass
            finally:
                close()
        finally:
            self._far_ends[peer_id] -= 1
            if not self._far_ends[peer_id]:
                del self._far_ends[peer_id]

    async def _carry(self, framed: FramedStream, target: TunnelTarget) -> None:
        """Do what the stream is for: pings, bytes that measure, or a connection."""
        filled = 0
        while found := await framed.receive():
            for at, (kind, payload) in enumerate(found):
                if kind == PING:
                    await framed.send(PONG, payload)
                elif kind == FILL:
                    before, filled = filled, filled + len(payload)
                    if filled // _TAKEN_STEP > before // _TAKEN_STEP:
                        await framed.send(TAKEN, filled.to_bytes(8, "big"))
                elif kind == OPEN:
                    await self._connect(framed, target, found[at + 1 :])
                    return

    async def _connect(
        self,
        framed: FramedStream,
        target: TunnelTarget,
        first: list[tuple[int, bytes | memoryview]],
    ) -> None:
        if not target.is_allowed(target.port):
            log.warning("a tunnel to a port that is not allowed was refused", port=target.port)
            await framed.send(FAILED, b"the target is not allowed any more")
            return
        plain: trio.SocketStream | None = None
        with trio.move_on_after(CONNECT_SECONDS), suppress(OSError):
            plain = await trio.open_tcp_stream(_LOOPBACK, target.port)
        if plain is None:
            await framed.send(FAILED, b"the target cannot be reached")
            return
        why = await Relay(plain, framed).run(first)
        if why is not None:
            log.debug("a connection of a tunnel broke off", target=target.name, why=why)


def _unknown(opening: TunnelOpening) -> TunnelOutcome:
    what = "no such lease" if opening.lease else f"no port {opening.port!r} is open to this peer"
    return TunnelOutcome(refused="unknown", reason=what)


_doors: weakref.WeakKeyDictionary[Node, TunnelDoor] = weakref.WeakKeyDictionary()


def door_of(node: Node) -> TunnelDoor:
    """The one door of *node*, which serves its streams from now on."""
    if (found := _doors.get(node)) is None:
        found = _doors[node] = TunnelDoor()
        node.handle(PROTOCOL, found.serve)
    return found


async def open_tunnel_stream(
    node: Node, peer_id: PeerId, addresses: tuple[str, ...], opening: TunnelOpening
) -> tuple[Stream, TunnelOutcome]:
    """Ask a peer for a tunnel; the stream is the caller's to close, also where it is refused.

    Raises:
      PeerUnreachable: if it cannot be reached, or speaks no such protocol.
      PeerTimeout: if it does not answer.
      RemoteProtocolError: if it says what it should not.

    """
    stream = await node.open_stream(peer_id, addresses, PROTOCOL)
    try:
        await say(stream, opening)
        return stream, await hear(stream, TunnelOutcome, seconds=CONNECT_SECONDS + OPENING_SECONDS)
    except (PeerUnreachable, RemoteProtocolError, PeerError):
        await stream.aclose()
        raise
    except BaseException:
        with trio.CancelScope(shield=True):
            await stream.aclose()
        raise
