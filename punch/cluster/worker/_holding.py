"""Holds the one lease of a worker: its server, its tunnel, and the end of both.

A lease has a task of its own, which starts its server, opens its tunnel and ends both, whatever
becomes of the borrower's stream. The tunnel ends first. Who may have a lease, and when it ends, is
decided by the `Desk`.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import attrs
import trio

from ..._logs import get_logger
from ...access import Refusal
from ...capability import PeerId
from ...exceptions import PunchError, RemoteProtocolError
from ..leases import Desk, Ending, Surveyed, Take, Tenancy
from ._parts import FarEnd, FarEnds, Lender, RunningServer

log = get_logger(__name__)

# What came of a survey serves all who ask within so long.
SURVEY_SECONDS = 1.0

# For a server to be ready, CUDA's start included, and its tunnel to listen.
START_SECONDS = 30.0

Over = Callable[[Ending], Awaitable[None]]
"""Is told once that a lease has ended; if its borrower has ended it, when its server is gone."""


@attrs.define(eq=False)
class Tenure:
    """A lease that is being opened, lasts, or is being ended."""

    tenancy: Tenancy
    over: Over
    begun: trio.Event = attrs.field(factory=trio.Event)
    """Set when its server runs, and when it is plain that none will."""
    server: RunningServer | None = None
    far: FarEnd | None = None
    fault: Refusal | None = None
    """Why it could not be opened."""
    ending: Ending | None = None
    ended: trio.Event = attrs.field(factory=trio.Event)
    """Set when it is to end."""
    cleared: trio.Event = attrs.field(factory=trio.Event)
    """Set when its server is gone, and its borrower was told."""

    is_told: bool = False
    """Whether its borrower was told of its end."""

    @property
    def is_given_back(self) -> bool:
        """Whether its borrower has ended it."""
        return self.ending is not None and self.ending.why == "end"

    def end(self, ending: Ending | None) -> None:
        """Have it end, if the desk has ended it."""
        if ending is not None:
            self.ending = ending
            self.ended.set()

    async def tell(self) -> None:
        """Tell its borrower that it has ended, unless that was told."""
        if not self.is_told and self.ending is not None:
            self.is_told = True
            await self.over(self.ending)


class Holding:
    """Gives leases, one at a time; see `Lending` for the arguments."""

    def __init__(
        self,
        lender: Lender,
        far_ends: FarEnds,
        nursery: trio.Nursery,
        *,
        took: Callable[[Tenancy], None],
        ended: Callable[[Ending], None],
    ) -> None:
        self.desk = Desk()
        self._lender = lender
        self._far_ends = far_ends
        self._nursery = nursery
        self._took, self._ended = took, ended
        self._tenure: Tenure | None = None
        self._servers = 0
        self._surveying = trio.Lock()
        self._surveyed: tuple[float, Surveyed] | None = None

    async def survey(self) -> Surveyed:
        """What there is to lend, at most `SURVEY_SECONDS` old; raises as `Lender.survey`."""
        return attrs.evolve(
            await self._known(),
            carriers=self._far_ends.carriers,
            is_leased=self.desk.tenancy is not None,
        )

    async def _known(self) -> Surveyed:
        async with self._surveying:
            now = trio.current_time()
            if self._surveyed is None or self._surveyed[0] + SURVEY_SECONDS <= now:
                self._surveyed = now, await self._lender.survey()
            return self._surveyed[1]

    async def take(self, borrower: PeerId, take: Take, over: Over) -> Tenure | Refusal:
        """Give the lease, which is being opened then; raises as `Lender.survey`."""
        found = await self._known()
        tenancy = self.desk.take(
            secrets.token_hex(8),
            borrower,
            take,
            free=found.memory,
            lent=[device.name for device in found.devices],
        )
        if isinstance(tenancy, Refusal):
            return tenancy
        tenure = self._tenure = Tenure(tenancy, over)
        self._nursery.start_soon(self._hold, tenure)
        return tenure

    def finish(self, tenure: Tenure | None, why: str, reason: str) -> None:
        """End the lease of *tenure*, if it has not ended already."""
        if tenure is not None:
            tenure.end(self.desk.end(tenure.tenancy.lease, why, reason))

    async def close(self) -> None:
        """End the lease that there is, give no other, and wait until its server is gone."""
        tenure = self._tenure
        ending = self.desk.close()
        if tenure is not None:
            tenure.end(ending)
            await tenure.cleared.wait()

    async def _hold(self, tenure: Tenure) -> None:
        """Open a lease, and end it when it is to end."""
        try:
            # Around all that is opened, since what is opened has nurseries of its own.
            with trio.CancelScope(deadline=trio.current_time() + START_SECONDS) as patience:
                await self._open(tenure, patience)
            if patience.cancelled_caught:
                self._fail(tenure, "server", f"it was not ready within {START_SECONDS:.0f} s")
        except RemoteProtocolError as error:
            self._fail(tenure, "certificate", str(error))
        except PunchError as error:
            self._fail(tenure, "server" if tenure.server is None else "tunnel", str(error))
        finally:
            self.finish(tenure, "closing", "the worker ends")
            self._tenure = None
            self.desk.cleared()
            if tenure.far is not None and tenure.ending is not None:
                self._ended(tenure.ending)
            tenure.begun.set()
        await tenure.tell()
        tenure.cleared.set()

    async def _open(self, tenure: Tenure, patience: trio.CancelScope) -> None:
        """Start the server, open the tunnel, and keep both until the lease is to end.

        Both are closed shielded: whatever ends the lease, no server is left.
        """
        tenancy = tenure.tenancy
        async with AsyncExitStack() as stack:
            tenure.server = await stack.enter_async_context(self._lender.open_server(tenancy))
            far = await stack.enter_async_context(
                self._far_ends.open_far_end(
                    lease=tenancy.lease,
                    borrower=tenancy.borrower,
                    certificate=tenancy.certificate,
                    port=tenure.server.port,
                )
            )
            if tenure.ending is not None:
                return
            patience.deadline = math.inf
            self._servers += 1
            tenure.tenancy = self.desk.opened(
                tenancy.lease, server=self._servers, now=trio.current_time()
            )
            tenure.far = far
            tenure.begun.set()
            self._took(tenure.tenancy)
            await self._watch(tenure)
            if not tenure.is_given_back:
                # At once, so that it is known why the tunnel ends.
                self._nursery.start_soon(tenure.tell)

    def _fail(self, tenure: Tenure, rule: str, why: str) -> None:
        """Note that a lease could not be opened, or that its parts broke."""
        log.warning("a lease could not be held", what=rule, why=why)
        if tenure.far is None:
            tenure.fault = Refusal(rule=rule, reason=why)
        self.finish(tenure, "tunnel" if rule == "tunnel" else "server", why)

    # ---- while it lasts ----

    async def _watch(self, tenure: Tenure) -> None:
        """Wait until the lease is to end: by whichever side, at its time, or by loss."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_server, tenure)
            nursery.start_soon(self._watch_tunnel, tenure)
            nursery.start_soon(self._watch_time, tenure)
            await tenure.ended.wait()
            nursery.cancel_scope.cancel()

    async def _watch_server(self, tenure: Tenure) -> None:
        assert tenure.server is not None
        await tenure.server.lost.wait()
        self.finish(tenure, "server", "the server has ended by itself")

    async def _watch_tunnel(self, tenure: Tenure) -> None:
        assert tenure.far is not None
        await tenure.far.lost.wait()
        self.finish(tenure, "tunnel", "the tunnel's far end has ended by itself")

    async def _watch_time(self, tenure: Tenure) -> None:
        while (tenancy := self.desk.tenancy) is not None:
            await trio.sleep_until(tenancy.ends_at)
            tenure.end(self.desk.expire(trio.current_time()))
