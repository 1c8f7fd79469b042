"""`Borrower`: asks workers what they lend, and takes their leases.

A worker is believed no further than it can be checked: what it says is bounded and must make sense,
each step has its time, and what goes wrong is told with the worker's name. Which workers to ask,
and what to do with their memory, is left to the coordinator.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from ..._background import open_background
from ..._logs import get_logger
from ...access import Member, Membership, Refusal
from ...capability import PeerId
from ...exceptions import PeerFailed, PeerRefused
from ...network import Node, is_own
from ...tunnels import make_certificate, open_carrier
from .._lease_stream import LeaseStream
from ..leases import (
    LEASE_MINOR,
    PROTOCOL,
    Admitted,
    Leased,
    LeaseOpening,
    Survey,
    Surveyed,
    Take,
)
from ._carrier_near_ends import CarrierNearEnds
from ._conversation import Conversation
from ._lease import Lease
from ._parts import NearEnds
from ._values import WorkerFacts, facts_of

log = get_logger(__name__)

# A worker that is well answers in a round trip; one whose machine swaps takes seconds.
ADMIT_SECONDS = 5.0
SURVEY_SECONDS = 10.0

# A worker takes 30 s at most to start a server, CUDA's start included.
TAKE_SECONDS = 35.0

# Surveys of one conversation, by which its round trip is measured.
SURVEYS = 3

# A worker whose last server is still being ended is asked again, for so long.
BUSY_SECONDS = 10.0
BUSY_PAUSE_SECONDS = 0.5

DEFAULT_LEASE_SECONDS = 30.0


class Borrower:
    """Borrows of workers in one namespace.

    Args:
      node: Our own node.
      near_ends: Opens the near ends of tunnels.
      namespace: The namespace.
      membership: Our membership of it, if it is closed.
      wall: UTC, in seconds since 1970.

    """

    def __init__(
        self,
        node: Node,
        near_ends: NearEnds,
        *,
        namespace: str,
        membership: Membership | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._node = node
        self._near_ends = near_ends
        self._namespace = namespace
        self._membership = membership
        self._wall = wall

    async def survey(self, peer_id: PeerId, addresses: Sequence[str]) -> WorkerFacts:
        """Ask a worker what it lends, and how far away it is.

        Args:
          peer_id: The worker, as the directory has it.
          addresses: Where it is.

        Raises:
          PeerRefused: if it does not lend to us; `rule` is its word for why.
          PeerError: if it cannot be reached, says nothing in time, or what it says is none or
            cannot be true.

        """
        async with self._conversation(peer_id, addresses) as conversation:
            rtt, said = math.inf, None
            for _ in range(SURVEYS):
                began = trio.current_time()
                said = await conversation.ask(Survey(), Surveyed, seconds=SURVEY_SECONDS)
                rtt = min(rtt, trio.current_time() - began)
            assert said is not None
            try:
                return facts_of(peer_id, said, rtt, is_own=conversation.is_own)
            except ValueError as error:
                raise PeerFailed(f"lends nothing that can be: {error}", peer_id=peer_id) from None

    @asynccontextmanager
    async def take(
        self,
        peer_id: PeerId,
        addresses: Sequence[str],
        *,
        seconds: float = DEFAULT_LEASE_SECONDS,
        memory: int = 0,
        devices: Sequence[str] = (),
    ) -> AsyncIterator[Lease]:
        """Take a worker's lease, for as long as the context lasts; it is renewed meanwhile.

        ::

            async with borrower.take(peer_id, addresses, memory=4 << 30) as lease:
                ...  # llama-server --rpc {lease.endpoint}
                await lease.lost.wait()

        Args:
          peer_id: The worker.
          addresses: Where it is.
          seconds: For how long the lease lasts if we vanish.
          memory: Bytes; 0 for all that it lends.
          devices: Its devices, in the order in which the head is to see them; by default all.

        Raises:
          PeerRefused: if it does not lend, or not so much; `rule` is its word for why.
          PeerError: as `survey`.
          PunchError: if the tunnel cannot be opened.

        """
        certificate = make_certificate()
        wish = Take(
            seconds=seconds,
            memory=memory,
            devices=tuple(devices),
            certificate=certificate.pem.encode("ascii"),
        )
        async with AsyncExitStack() as stack:
            conversation = await stack.enter_async_context(self._conversation(peer_id, addresses))
            leased = await self._taken(conversation, wish)
            fault = _fault_of(wish, leased)
            if fault is not None:
                raise PeerFailed(f"lends other than it was asked for: {fault}", peer_id=peer_id)
            reached = await stack.enter_async_context(
                self._near_ends.open_near_end(
                    worker=peer_id,
                    addresses=tuple(addresses),
                    leased=leased,
                    certificate=certificate,
                )
            )
            lease = Lease(peer_id, leased, reached, conversation, self._membership)
            nursery = await stack.enter_async_context(open_background())
            nursery.start_soon(lease.keep)
            stack.push_async_callback(lease.end)
            if self._membership is not None:
                stack.enter_context(self._membership.watch(lease.reconsider))
            yield lease

    async def _taken(self, conversation: Conversation, wish: Take) -> Leased:
        give_up_at = trio.current_time() + BUSY_SECONDS
        while True:
            try:
                return await conversation.ask(wish, Leased, seconds=TAKE_SECONDS)
            except PeerRefused as error:
                if error.rule != "busy" or trio.current_time() >= give_up_at:
                    raise
            await trio.sleep(BUSY_PAUSE_SECONDS)

    @asynccontextmanager
    async def _conversation(
        self, peer_id: PeerId, addresses: Sequence[str]
    ) -> AsyncIterator[Conversation]:
        """A stream to a worker on which both were judged."""
        member = self._membership
        stream = await self._node.open_stream(peer_id, tuple(addresses), PROTOCOL)
        talk = LeaseStream(stream, is_trusted=True)
        try:
            async with open_background() as nursery:
                conversation = Conversation(talk)
                nursery.start_soon(conversation.listen)
                admitted = await conversation.ask(
                    LeaseOpening(
                        namespace=self._namespace,
                        minor=LEASE_MINOR,
                        chain=b"" if member is None else member.chain(),
                        root=b"" if member is None else member.namespace.key,
                    ),
                    Admitted,
                    seconds=ADMIT_SECONDS,
                )
                conversation.chain = admitted.chain
                if member is None:
                    conversation.is_own = is_own(stream)
                else:
                    conversation.is_own = self._judged(member, peer_id, admitted.chain)
                yield conversation
        finally:
            with trio.move_on_after(1.0, shield=True):
                await talk.aclose()

    def _judged(self, membership: Membership, peer_id: PeerId, chain: bytes) -> bool:
        """Whether a worker with *chain* is of our own owner.

        Raises:
          PeerRefused: if it may not lend in our namespace.

        """
        lock, now = membership.lock, self._wall()
        worker = lock.judge(peer_id, chain or None, now, frozenset({"lend"}))
        if isinstance(worker, Refusal):
            error = PeerRefused(f"may not lend: {worker.reason}", peer_id=peer_id)
            error.rule = worker.rule
            raise error
        ours = lock.judge(self._node.peer_id, membership.chain(), now)
        return isinstance(ours, Member) and ours.owner == worker.owner


def _fault_of(wish: Take, leased: Leased) -> str | None:
    if wish.memory and leased.memory < wish.memory:
        return f"{leased.memory} bytes instead of {wish.memory}"
    if wish.devices and leased.devices != wish.devices:
        return f"devices {', '.join(leased.devices)} instead of {', '.join(wish.devices)}"
    if not leased.devices:
        return "no device"
    if leased.seconds <= 0:
        return f"for {leased.seconds:g} s"
    return None


@asynccontextmanager
async def open_borrower(
    node: Node, *, namespace: str, membership: Membership | None = None
) -> AsyncIterator[Borrower]:
    """A `Borrower` whose tunnels are carried by a process of their own, while the context lasts.

    ::

        async with punch.open_borrower(node, namespace="home") as borrower:
            for peer_id, worker in directory.workers.items():
                print(await borrower.survey(peer_id, worker.addresses))

    Args:
      node: Our own node; in a closed namespace its grant needs the scope ``borrow``.
      namespace: The namespace.
      membership: Our membership of it, if it is closed.

    Raises:
      NetworkError: if the process that carries tunnels cannot start.

    """
    async with open_carrier() as carrier:
        yield Borrower(
            node, CarrierNearEnds(carrier, node), namespace=namespace, membership=membership
        )
