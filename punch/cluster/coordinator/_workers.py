"""Workers of the namespace as lenders: a lease of each, reached through its tunnel."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import trio

from ...capability import PeerId
from ...exceptions import NetworkError, PeerFailed, PeerRefused
from ...llama_cpp import Speeds
from ...placement import Link
from ..borrowing import Borrower, Lease, WorkerFacts
from ._lending import Lendable, LentDevice, LoanLook

# Of a tunnel that nobody has measured yet: a gigabit without its headers. It is measured as soon
# as there is a lease, and planned once more.
UNMEASURED_RATE = 117e6

# A worker that has measured nothing: a slow processor of today.
UNMEASURED = Speeds(bandwidth=10e9, compute=50e9)

# A link is measured anew after so long, in seconds; it takes half a second of each start.
MEASURED_FOR_SECONDS = 600.0


class WorkerLender:
    """One worker.

    Args:
      borrower: Talks to workers.
      peer_id: The worker.
      addresses: Where it is, as the directory has it now.
      rescaled: Makes of the speeds that it tells those with the weights of the model.

    """

    def __init__(
        self,
        borrower: Borrower,
        peer_id: PeerId,
        addresses: Callable[[], Sequence[str]],
        *,
        rescaled: Callable[[Speeds], Speeds] = lambda told: told,
    ) -> None:
        self._rescaled = rescaled
        self.name = str(peer_id)
        """Its identity."""
        self._borrower = borrower
        self._peer_id = peer_id
        self._addresses = addresses
        self._link: Link | None = None
        self._lists: tuple[str, ...] = ()
        self._measured_at = 0.0

    async def survey(self) -> Lendable:
        """What it lends, by its word, and how far away it is."""
        facts = await self._borrower.survey(self._peer_id, self._addresses())
        if facts.is_leased:
            raise PeerRefused("another borrower has its lease", peer_id=self._peer_id)
        if facts.rpc is None:
            raise PeerFailed("it does not say which RPC protocol it speaks", peer_id=self._peer_id)
        self._lists = tuple(device.name for device in facts.devices)
        return Lendable(
            devices=_devices(facts, self._rescaled),
            version=facts.rpc,
            build=facts.build,
            link=self._link or Link(rtt=facts.rtt, rate=UNMEASURED_RATE),
            is_own=facts.is_own,
        )

    @asynccontextmanager
    async def take(self) -> AsyncIterator[WorkerLoan]:
        """Take its lease; the link is measured through the tunnel."""
        async with self._borrower.take(self._peer_id, self._addresses()) as lease:
            if self._lists and lease.devices != self._lists:
                # The head counts the devices of all its workers through, so those of others would
                # be taken for this one's.
                raise PeerFailed(
                    f"lends {', '.join(lease.devices)}, and said {', '.join(self._lists)}",
                    peer_id=self._peer_id,
                )
            now = trio.current_time()
            if self._link is None or now >= self._measured_at + MEASURED_FOR_SECONDS:
                with suppress(NetworkError):
                    found = await lease.measure()
                    self._link = Link(rtt=found.rtt, rate=found.rate, carrier=found.carrier)
                    self._measured_at = now
            yield WorkerLoan(lease, self._link)


def _devices(facts: WorkerFacts, rescaled: Callable[[Speeds], Speeds]) -> tuple[LentDevice, ...]:
    free = sum(device.free for device in facts.devices)
    # What it lends in all may be less than what is free of each.
    share = min(1.0, facts.memory / free) if free else 0.0
    found = []
    for device in facts.devices:
        speeds = UNMEASURED
        if device.bandwidth and device.compute:
            speeds = rescaled(Speeds(bandwidth=device.bandwidth, compute=device.compute))
        found.append(
            LentDevice(
                name=device.name,
                memory=int(device.free * share),
                bandwidth=speeds.bandwidth,
                compute=speeds.compute,
            )
        )
    return tuple(found)


class WorkerLoan:
    """A lease, as a split has it.

    Args:
      lease: The lease.
      link: The way to its server, as measured through the tunnel; `None` if that failed.

    """

    def __init__(self, lease: Lease, link: Link | None) -> None:
        self._lease = lease
        self.link = link
        """The way there."""

    @property
    def endpoint(self) -> str:
        """Where the head reaches the server: the near end of the tunnel."""
        return self._lease.endpoint

    @property
    def devices(self) -> int:
        """How many devices the server lists."""
        return len(self._lease.devices)

    @property
    def is_own(self) -> bool:
        """Whether the worker is of our own owner."""
        return self._lease.is_own

    @property
    def lost(self) -> trio.Event:
        """Set when the lease or its tunnel has ended."""
        return self._lease.lost

    @property
    def why(self) -> str:
        """Why."""
        return self._lease.why or ""

    @property
    def bytes_up(self) -> int:
        """Bytes that the head has sent through the tunnel."""
        return self._lease.statistics().bytes_up

    @property
    def oldest_reply_age(self) -> float | None:
        """Seconds for which the head waits for a reply."""
        return self._lease.statistics().oldest_reply_age

    @property
    def memory(self) -> int:
        """Bytes that are lent."""
        return self._lease.memory

    @property
    def fault(self) -> str | None:
        """What the server did that a head does not survive."""
        return self._lease.statistics().fault

    async def look(self) -> LoanLook | None:
        """How the server is, by the worker's word."""
        found = await self._lease.look()
        return LoanLook(cpu_seconds=found.cpu_seconds, is_alive=found.is_alive)
