"""The relay's side: who may have a reservation or a circuit, and the carrying of bytes.

1. Whom a relay serves is its owner's word, `permits`, which is asked for each reservation and each
   circuit, and every few seconds as long as it lasts.
2. A relay dials nobody: it leads only to who holds a stream to it.
3. Everything is bounded, for each peer and in all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

import attrs
import trio

from .._logs import get_logger
from ..capability import PeerId
from ..exceptions import PeerUnreachable
from ..network import Node, Stream
from ._lines import ACCEPT, CONNECT, OK, RESERVE, read_line, say
from ._shares import Shares

log = get_logger(__name__)

# For each line that a peer owes.
LINE_SECONDS = 5.0

CHECK_SECONDS = 10.0
"""How often it is asked anew whether what was given may go on. What is not permitted twice in a row
ends: a peer that only comes back to its meeting point is away for a moment."""

IDLE_SECONDS = 60.0
"""A circuit that carries nothing for so long ends: a session says something every second."""

Permits = Callable[[PeerId, PeerId], bool]
"""Whether the first peer may be led to the second; one that asks for a reservation is both."""


@attrs.frozen(kw_only=True)
class RelayLimits:
    """What a relay gives at most."""

    reservations: int = 1024
    """Peers that it leads to."""

    circuits: int = 1024
    """Circuits in all."""

    peer_circuits: int = 48
    """Circuits to one peer, and from one: a peer may have 64 streams open here."""

    pair_circuits: int = 4
    """Circuits from one peer to another: all that two say goes over one connection."""

    rate: float = 32 << 20
    """Bytes a second, of all circuits together."""


@attrs.frozen(kw_only=True)
class RelayStatistics:
    """What a relay has given."""

    reservations: int
    """Peers that it leads to now."""

    circuits: int
    """Circuits now."""

    carried: int
    """Bytes carried so far, both ways."""


class Relay:
    """Leads members to those that hold a reservation here.

    Args:
      node: Our own node, which serves the relay's protocols from now on.
      permits: Whom it serves.
      limits: What it gives at most.

    """

    def __init__(self, node: Node, *, permits: Permits, limits: RelayLimits | None = None) -> None:
        self._node = node
        self._permits = permits
        self._limits = RelayLimits() if limits is None else limits
        self._reserved: dict[PeerId, Stream] = {}
        self._circuits = 0
        self._to: Counter[PeerId] = Counter()
        self._from: Counter[PeerId] = Counter()
        self._between: Counter[tuple[PeerId, PeerId]] = Counter()
        self._shares = Shares(self._limits.rate)
        self._carried = 0
        node.handle(RESERVE, self._reserve)
        node.handle(CONNECT, self._connect)

    def statistics(self) -> RelayStatistics:
        """What it gives now."""
        return RelayStatistics(
            reservations=len(self._reserved), circuits=self._circuits, carried=self._carried
        )

    async def _reserve(self, stream: Stream) -> None:
        """Lead others to the peer at the other end, as long as *stream* lives."""
        peer_id = stream.peer_id
        is_full = len(self._reserved) >= self._limits.reservations
        if not self._permits(peer_id, peer_id):
            await _refuse(stream, "not_permitted")
        elif is_full and peer_id not in self._reserved:
            await _refuse(stream, "full")
        else:
            before, self._reserved[peer_id] = self._reserved.get(peer_id), stream
            if before is not None:
                await before.aclose()
            try:
                await say(stream, OK)
                log.debug("a peer is reached through this relay", peer=peer_id)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._watch, peer_id, peer_id, nursery.cancel_scope)
                    # Nothing is to come: whatever does is the end.
                    with suppress(PeerUnreachable):
                        await stream.receive_some()
                    nursery.cancel_scope.cancel()
            except PeerUnreachable:
                pass
            finally:
                if self._reserved.get(peer_id) is stream:
                    del self._reserved[peer_id]

    async def _connect(self, stream: Stream) -> None:
        """Lead the peer at the other end to the one that it names."""
        try:
            with trio.fail_after(LINE_SECONDS):
                line, early = await read_line(stream)
        except (trio.TooSlowError, PeerUnreachable):
            return
        source, target = stream.peer_id, PeerId(line)
        why_not = self._why_not(source, target)
        if why_not is not None:
            await _refuse(stream, why_not)
            return
        with self._counted(source, target):
            try:
                onward, rest = await self._led_to(target, source)
            except (trio.TooSlowError, PeerUnreachable) as error:
                log.debug("a circuit leads nowhere", peer=target, why=str(error))
                await _refuse(stream, "gone")
                return
            try:
                await say(stream, OK)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._watch, source, target, nursery.cancel_scope)
                    await self._carry((stream, early), (onward, rest))
                    nursery.cancel_scope.cancel()
            except PeerUnreachable:
                pass
            finally:
                await onward.aclose()

    def _why_not(self, source: PeerId, target: PeerId) -> str | None:
        # First: whom it does not serve does not learn either who has a reservation.
        if source == target or not self._permits(source, target):
            return "not_permitted"
        if target not in self._reserved:
            return "no_reservation"
        most = self._limits.peer_circuits
        if (
            self._circuits >= self._limits.circuits
            or self._from[source] >= most
            or self._to[target] >= most
            or self._between[source, target] >= self._limits.pair_circuits
        ):
            return "full"
        return None

    @contextmanager
    def _counted(self, source: PeerId, target: PeerId) -> Iterator[None]:
        self._circuits += 1
        self._from[source] += 1
        self._to[target] += 1
        self._between[source, target] += 1
        try:
            yield
        finally:
            self._circuits -= 1
            _give_back(self._from, source)
            _give_back(self._to, target)
            _give_back(self._between, (source, target))

    async def _watch(self, source: PeerId, target: PeerId, scope: trio.CancelScope) -> None:
        """End *scope* when *source* may be led to *target* no longer."""
        refusals = 0
        while refusals < 2:
            await trio.sleep(CHECK_SECONDS)
            refusals = 0 if self._permits(source, target) else refusals + 1
        log.debug("no longer permitted", source=source, target=target)
        scope.cancel()

    async def _led_to(self, target: PeerId, source: PeerId) -> tuple[Stream, bytes]:
        """A stream to *target* that has accepted *source*, and what came on it already."""
        # Without an address: over the connection that carries its reservation.
        onward = await self._node.open_stream(target, (), ACCEPT)
        try:
            await say(onward, source)
            with trio.fail_after(LINE_SECONDS):
                answer, rest = await read_line(onward)
            if answer != OK:
                raise PeerUnreachable("does not accept", peer_id=target)
        except BaseException:
            await onward.aclose()
            raise
        return onward, rest

    async def _carry(self, one: tuple[Stream, bytes], other: tuple[Stream, bytes]) -> None:
        """Carry bytes both ways, until either end hangs up or neither says anything."""
        source = one[0].peer_id

        async def carry(near: Stream, early: bytes, far: Stream, scope: trio.CancelScope) -> None:
            try:
                data = early or await near.receive_some()
                while data:
                    scope.deadline = trio.current_time() + IDLE_SECONDS
                    await far.send_all(data)
                    self._carried += len(data)
                    now = trio.current_time()
                    pause = self._shares.pause(source, len(data), now=now)
                    scope.deadline = now + pause + IDLE_SECONDS
                    await trio.sleep(pause)
                    data = await near.receive_some()
            except PeerUnreachable:
                pass
            scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.deadline = trio.current_time() + IDLE_SECONDS
            nursery.start_soon(carry, *one, other[0], nursery.cancel_scope)
            nursery.start_soon(carry, *other, one[0], nursery.cancel_scope)


Key = TypeVar("Key")


def _give_back(counter: Counter[Key], key: Key) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]


async def _refuse(stream: Stream, word: str) -> None:
    with suppress(PeerUnreachable):
        await say(stream, word)
