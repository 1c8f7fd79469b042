"""A lease that we have: kept up while it lasts, and lost when either end of it is."""

from __future__ import annotations

import time
from contextlib import suppress

import trio

from ..._logs import get_logger
from ...access import Membership, Refusal
from ...capability import PeerId
from ...exceptions import PeerError, PeerRefused
from ...tunnels import Measured, TunnelStatistics
from ...wire import quoted
from ..leases import End, Leased, LeaseEnded, Look, Looked, Renew, Renewed, seconds_given
from ._conversation import Conversation
from ._parts import Reached

log = get_logger(__name__)

# A lease is renewed three times before it would end.
RENEWALS = 3

RENEW_SECONDS = 5.0

# For the worker's word of why a tunnel has ended, which goes another way than its bytes.
WHY_SECONDS = 0.25
LOOK_SECONDS = 2.0

# For the worker to end its server; a lease that is not ended so ends with its stream.
END_SECONDS = 3.0


class Lease:
    """Memory of a worker, until it is lost. Made by `Borrower.take`."""

    def __init__(
        self,
        worker: PeerId,
        leased: Leased,
        reached: Reached,
        conversation: Conversation,
        membership: Membership | None,
    ) -> None:
        self.worker = worker
        """Who lends."""
        self.id = leased.lease
        """The lease's name, in the worker's log too."""
        self.memory = leased.memory
        """Bytes that are lent."""
        self.devices = leased.devices
        """The worker's devices, in the order in which the head sees them."""
        self.carrier = reached.carrier
        """How the bytes travel: ``direct``, or ``stream`` where no port of it is reached."""
        self.is_own = conversation.is_own
        """Whether the worker is of our own owner."""
        self.endpoint = f"127.0.0.1:{reached.near.port}"
        """What `llama-server --rpc` connects to."""
        self.lost = trio.Event()
        """Set when the lease is lost: the worker has ended it, or it or its tunnel is gone."""
        self.why: str | None = None
        """Why it is lost, in a sentence; `None` until then."""
        self._seconds = leased.seconds
        self._near = reached.near
        self._conversation = conversation
        self._membership = membership
        self._chain = b"" if membership is None else membership.chain()
        self._is_ending = False

    def statistics(self) -> TunnelStatistics:
        """What went through the tunnel until now."""
        return self._near.statistics()

    async def measure(self) -> Measured:
        """What the tunnel costs, measured through it in half a second.

        Raises:
          NetworkError: if nothing could be measured.

        """
        return await self._near.measure()

    async def look(self) -> Looked:
        """How the server is, by the word of the worker that runs it.

        Raises:
          PeerError: if the worker does not say; `PeerTimeout` if it says nothing for 2 s.

        """
        return await self._conversation.ask(Look(), Looked, seconds=LOOK_SECONDS)

    # ---- while it lasts ----

    async def keep(self) -> None:
        """Renew the lease, and notice when it is lost, for as long as it is not."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_conversation)
            nursery.start_soon(self._watch_tunnel)
            nursery.start_soon(self._renew)
            await self.lost.wait()
            nursery.cancel_scope.cancel()

    async def _watch_conversation(self) -> None:
        await self._conversation.over.wait()
        self._lose(self._conversation.why)

    async def _watch_tunnel(self) -> None:
        await self._near.lost.wait()
        # A worker that ends a lease says why, and closes the tunnel.
        with trio.move_on_after(WHY_SECONDS):
            await self._conversation.over.wait()
            return
        self._lose(f"the tunnel is lost: {self._near.why or 'nobody says why'}")

    async def _renew(self) -> None:
        while True:
            # Whatever the worker says: not all the time, and not never.
            await trio.sleep(seconds_given(self._seconds) / RENEWALS)
            try:
                renewed = await self._conversation.ask(
                    Renew(seconds=self._seconds, chain=self._newer_chain()),
                    Renewed,
                    seconds=RENEW_SECONDS,
                )
            except PeerRefused as error:
                self._lose(f"the lease was not renewed: {error.message}")
                return
            except PeerError:
                return  # The conversation is over, and says so.
            if renewed.seconds <= 0:
                self._lose("the worker renews the lease for no time at all")
                return
            self._seconds = renewed.seconds

    def _newer_chain(self) -> bytes:
        """Our chain, if it is another one than the worker has."""
        if self._membership is None:
            return b""
        chain = self._membership.chain()
        is_news, self._chain = chain != self._chain, chain
        return chain if is_news else b""

    def reconsider(self) -> None:
        """Lose the lease if its worker may lend no longer."""
        member = self._membership
        if member is None or self.lost.is_set():
            return
        found = member.lock.judge(
            self.worker, self._conversation.chain or None, time.time(), frozenset({"lend"})
        )
        # Its grant may have ended meanwhile, and it has a newer one: its stream says so.
        if isinstance(found, Refusal) and found.rule == "revoked":
            self._lose(f"the worker may lend no longer: {quoted(found.reason)}")

    def _lose(self, why: str) -> None:
        if self._is_ending or self.lost.is_set():
            return
        self.why = why
        log.warning("a lease is lost", lease=self.id, worker=self.worker, why=why)
        self.lost.set()

    async def end(self) -> None:
        """End the lease, and wait a while until the worker says that its server is gone."""
        self._is_ending = True
        if not self._conversation.over.is_set():
            with trio.CancelScope(shield=True), suppress(PeerError):
                await self._conversation.ask(End(), LeaseEnded, seconds=END_SECONDS)
