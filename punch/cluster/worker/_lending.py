"""Lends: answers borrowers on ``/punch/lend/1``.

1. Nothing is said to a borrower before it was judged, and it is judged again whenever removals or
   the time may have changed the verdict.
2. All that borrowers can make is bounded: streams by host and in all, messages by stream, the time
   of each step.
3. Whatever ends a borrower's stream ends its lease.

What a lease is, is decided by `punch.cluster.leases`; its server and its tunnel are held by
`_holding`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import attrs
import trio

from ..._logs import get_logger
from ...access import Refusal
from ...exceptions import PeerError, PeerTimeout, PunchError, RemoteProtocolError
from ...membership import Tries, host_of
from ...network import Stream
from ...wire import MAX_REASON_CHARACTERS, quoted
from .._lease_stream import LeaseStream
from ..leases import (
    CLOSING,
    LEASE_MINOR,
    Admitted,
    Desk,
    End,
    Ending,
    Leased,
    LeaseEnded,
    LeaseMessage,
    LeaseOpening,
    Look,
    Looked,
    Order,
    Refused,
    Renew,
    Renewed,
    Survey,
    Surveyed,
    Take,
    Tenancy,
)
from ._door import LendingDoor
from ._holding import Holding, Tenure
from ._parts import FarEnds, Lender

log = get_logger(__name__)

# For a borrower to say who it is; it has nothing to wait for.
OPENING_SECONDS = 10.0

# Without a lease and without a word: a borrower that surveys is gone in a second.
IDLE_SECONDS = 60.0

# The ends of grants are looked at so often; removals at once.
LOOK_SECONDS = 15.0

# Streams of one host in a minute, of all, and at a time: a coordinator has one to each worker, and
# one more while it surveys. A household of several that start anew all the time stays below it.
MAX_OF_HOST = 60
MAX_IN_ALL = 300
MAX_AT_ONCE = 32
MAX_AT_ONCE_OF_HOST = 8


@attrs.define(eq=False)
class _Visit:
    """A borrower's stream."""

    talk: LeaseStream
    opening: LeaseOpening
    """What it has said of itself; with its newest chain."""
    order: Order
    tenure: Tenure | None = None
    """Its lease, until that has ended."""
    refusal: Refusal | None = None
    """Why it must leave."""
    leaving: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    """Ends its reading when it is cancelled."""

    async def over(self, ending: Ending) -> None:
        """Tell the borrower that its lease has ended, if it was told that it has one."""
        self.tenure = None
        if self.order.state == "leased":
            self.order.ended()
            with suppress(PeerError):
                await self.talk.send(_ended(ending))


class Lending:
    """Lends one server at a time.

    Args:
      lender: Knows what there is, and starts servers.
      far_ends: Opens the far ends of tunnels.
      door: Decides who may borrow.
      nursery: Where leases live.
      took: Called when a lease was taken.
      ended: Called when a lease has ended.
      wall: UTC, in seconds since 1970.

    """

    def __init__(
        self,
        lender: Lender,
        far_ends: FarEnds,
        door: LendingDoor,
        nursery: trio.Nursery,
        *,
        took: Callable[[Tenancy], None] = lambda tenancy: None,
        ended: Callable[[Ending], None] = lambda ending: None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._holding = Holding(lender, far_ends, nursery, took=took, ended=ended)
        self._door = door
        self._wall = wall
        self._visits: set[_Visit] = set()
        self._tries = Tries(
            of_host=MAX_OF_HOST,
            in_all=MAX_IN_ALL,
            at_once=MAX_AT_ONCE,
            of_host_at_once=MAX_AT_ONCE_OF_HOST,
        )

    @property
    def desk(self) -> Desk:
        """Who has the lease."""
        return self._holding.desk

    # ---- a borrower's stream ----

    async def serve(self, stream: Stream) -> None:
        """Serve one stream: a `Handler`."""
        talk = LeaseStream(stream, is_trusted=False)
        host = host_of(stream)
        with suppress(PeerError):
            if not self._tries.begin(host, now=trio.current_time()):
                await talk.send(_refused("too_many", "too many streams: try again in a minute"))
                return
            try:
                await self._greet(talk)
            except RemoteProtocolError as error:
                log.warning("a borrower breaks the protocol", peer=talk.peer_id, why=str(error))
                await talk.send(_refused("protocol", str(error)))
            finally:
                self._tries.end(host)

    async def _greet(self, talk: LeaseStream) -> None:
        """Judge who has come, and let it borrow."""
        order = Order(trio.current_time())
        opening = await talk.receive(seconds=OPENING_SECONDS)
        if opening is None:
            return
        order.heard(opening, now=trio.current_time())
        assert isinstance(opening, LeaseOpening)
        refusal = self._door.judge(talk.peer_id, opening, self._wall())
        if refusal is None and self.desk.is_closing:
            refusal = CLOSING
        if refusal is not None:
            log.info("refused to lend", peer=talk.peer_id, rule=refusal.rule)
            await talk.send(_refused(refusal.rule, refusal.reason))
            return
        talk.trust()
        order.admitted()
        visit = _Visit(talk, opening, order)
        self._visits.add(visit)
        try:
            await talk.send(Admitted(minor=LEASE_MINOR, chain=self._door.chain()))
            with visit.leaving:
                await self._converse(visit)
            if visit.refusal is not None:
                await talk.send(_refused(visit.refusal.rule, visit.refusal.reason))
        except RemoteProtocolError as error:
            self._holding.finish(visit.tenure, "protocol", str(error))
            raise
        finally:
            self._visits.discard(visit)
            self._holding.finish(visit.tenure, "lost", "the borrower's stream has ended")

    async def _converse(self, visit: _Visit) -> None:
        """Answer what the borrower says, one after the other, until its stream ends."""
        while True:
            try:
                message = await visit.talk.receive(seconds=IDLE_SECONDS)
            except PeerTimeout:
                if visit.tenure is None:
                    raise
                # Whoever has a lease must renew it: that is bound enough.
                continue
            if message is None:
                return
            visit.order.heard(message, now=trio.current_time())
            answer = await self._answer(visit, message)
            if answer is not None:
                await visit.talk.send(answer)

    async def _answer(self, visit: _Visit, message: LeaseMessage) -> LeaseMessage | None:
        match message:
            case Survey():
                return await self._survey()
            case Take():
                return await self._take(visit, message)
            case Renew():
                return self._renew(visit, message)
            case Look():
                return self._look(visit)
            case End():
                tenure = visit.tenure
                self._holding.finish(tenure, "end", "the borrower has ended it")
                if tenure is not None:
                    # Its end is told by its own task, once the server is gone.
                    await tenure.cleared.wait()
                    return None
                return _TOO_LATE
        raise AssertionError(message)

    async def _survey(self) -> Surveyed | Refused:
        try:
            return await self._holding.survey()
        except PunchError as error:
            return _refused("server", str(error))

    async def _take(self, visit: _Visit, take: Take) -> Leased | Refused | LeaseEnded:
        try:
            tenure = await self._holding.take(visit.talk.peer_id, take, visit.over)
        except PunchError as error:
            return _refused("server", str(error))
        if isinstance(tenure, Refusal):
            return _refused(tenure.rule, tenure.reason)
        visit.tenure = tenure
        await tenure.begun.wait()
        if tenure.fault is not None:
            return _refused(tenure.fault.rule, tenure.fault.reason)
        far, given = tenure.far, tenure.tenancy
        if far is None or tenure.ending is not None:
            return _ended(tenure.ending)
        visit.order.leased()
        return Leased(
            lease=given.lease,
            seconds=given.seconds,
            memory=given.memory,
            devices=given.devices,
            certificate=far.certificate,
            addresses=far.addresses,
            carriers=far.carriers,
        )

    def _renew(self, visit: _Visit, renew: Renew) -> LeaseMessage:
        tenure = visit.tenure
        if tenure is None:
            return _TOO_LATE
        if renew.chain:
            opening = attrs.evolve(visit.opening, chain=renew.chain)
            refusal = self._door.judge(visit.talk.peer_id, opening, self._wall())
            if refusal is not None:
                return _refused(refusal.rule, refusal.reason)
            visit.opening = opening
        given = self.desk.renew(tenure.tenancy.lease, renew.seconds, now=trio.current_time())
        if isinstance(given, Refusal):
            return _refused(given.rule, given.reason)
        return Renewed(seconds=given)

    def _look(self, visit: _Visit) -> LeaseMessage:
        tenure = visit.tenure
        if tenure is None or tenure.server is None:
            return _TOO_LATE
        return Looked(
            cpu_seconds=max(0.0, tenure.server.cpu_seconds()),
            is_alive=tenure.server.is_running(),
        )

    # ---- who may borrow no longer ----

    def reconsider(self) -> None:
        """Judge all who are here anew, and end what one has that is let in no longer."""
        now = self._wall()
        for visit in tuple(self._visits):
            if visit.refusal is not None:
                continue
            refusal = self._door.judge(visit.talk.peer_id, visit.opening, now)
            if refusal is None:
                continue
            log.info("lends no longer", peer=visit.talk.peer_id, rule=refusal.rule)
            visit.refusal = refusal
            self._holding.finish(visit.tenure, "removed", refusal.reason)
            visit.leaving.cancel()

    async def keep_reconsidering(self) -> None:
        """Look at the ends of grants now and then, for ever."""
        while True:
            await trio.sleep(LOOK_SECONDS)
            self.reconsider()

    async def close(self) -> None:
        """End the lease that there is, give no other, and wait until its server is gone."""
        await self._holding.close()
        for visit in tuple(self._visits):
            visit.refusal = visit.refusal or CLOSING
            visit.leaving.cancel()


def _refused(rule: str, reason: str) -> Refused:
    return Refused(rule=rule, reason=quoted(reason, MAX_REASON_CHARACTERS) or rule)


def _ended(ending: Ending | None) -> LeaseEnded:
    if ending is None:
        return _TOO_LATE
    return LeaseEnded(
        why=ending.why, reason=quoted(ending.reason, MAX_REASON_CHARACTERS) or ending.why
    )


_TOO_LATE = LeaseEnded(why="end", reason="there is no lease on this stream")
