"""Who has the one lease of a worker, and until when. No I/O: the time is an argument.

1. One borrower at a time: a lease is given only while there is none, and the next one only when
   the server of the last one is gone.
2. Each lease has a server of its own, which no other lease has had.
3. A lease ends by either side, at its time, or by loss; whatever ends it ends it once.
4. A certificate serves one lease.

Who may ask at all is decided before, see `punch.access`; starting and ending servers is left to
`punch.cluster.worker`.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Collection
from typing import Literal

import attrs

from ...access import Refusal
from ...capability import PeerId
from ...exceptions import LocalProtocolError
from ._messages import MAX_LEASE_SECONDS, MIN_LEASE_SECONDS, Take

DeskState = Literal["free", "opening", "leased", "clearing", "closed"]
"""``opening``: the server of a lease is being started; ``clearing``: that of an ended lease is
being ended."""

MAX_CERTIFICATES = 1024
"""Certificates that are remembered, so that none serves two leases."""


CLOSING = Refusal(rule="closing", reason="this worker ends: ask another one")
"""What everybody hears who comes to a worker that ends."""


@attrs.frozen(kw_only=True)
class Tenancy:
    """A lease, as the worker has it."""

    lease: str
    """Its name."""

    borrower: PeerId
    """Who has it."""

    memory: int
    """Bytes that are lent."""

    devices: tuple[str, ...]
    """Devices that are lent, in the order in which the server lists them."""

    certificate: bytes
    """The borrower's, as PEM; may be empty where the bytes travel over a stream."""

    seconds: float
    """How long it lasts from when its server runs, or from when it was renewed."""

    ends_at: float = math.inf
    """When it ends unless it is renewed, by the clock that every call is given; it has no such time
    while its server is being started."""

    server: int = 0
    """The serial number of its server; 0 until that runs."""


@attrs.frozen(kw_only=True)
class Ending:
    """A lease that has ended."""

    tenancy: Tenancy
    why: str
    """One of `ENDINGS`."""
    reason: str = ""
    """The same in a sentence."""


class Desk:
    """Gives the one lease of a worker, and ends it."""

    def __init__(self) -> None:
        self._state: DeskState = "free"
        self._tenancy: Tenancy | None = None
        self._last_server = 0
        self._certificates: OrderedDict[bytes, None] = OrderedDict()
        self._is_closing = False

    @property
    def state(self) -> DeskState:
        """What the desk does now."""
        return self._state

    @property
    def tenancy(self) -> Tenancy | None:
        """The lease; `None` if there is none, or the last one has ended."""
        return self._tenancy

    @property
    def is_closing(self) -> bool:
        """Whether no lease is given any more."""
        return self._is_closing

    def take(
        self,
        lease: str,
        borrower: PeerId,
        take: Take,
        *,
        free: int,
        lent: Collection[str],
    ) -> Tenancy | Refusal:
        """Give the lease, or say which rule forbids it. Its server is to be started then.

        Args:
          lease: The name that it gets.
          borrower: Who asks.
          take: What for.
          free: Bytes that may be lent now.
          lent: Names of the devices that are lent.

        """
        refusal = self._fault_of_state() or _fault_of(take, free=free, lent=lent)
        if refusal is not None:
            return refusal
        digest = hashlib.sha256(take.certificate).digest()
        if take.certificate:
            if digest in self._certificates:
                return Refusal(
                    rule="certificate",
                    reason="another lease had this certificate: the borrower must make one for "
                    "this lease alone",
                )
            self._certificates[digest] = None
            if len(self._certificates) > MAX_CERTIFICATES:
                self._certificates.popitem(last=False)
        self._state = "opening"
        self._tenancy = Tenancy(
            lease=lease,
            borrower=borrower,
            memory=take.memory or free,
            devices=take.devices or tuple(lent),
            certificate=take.certificate,
            seconds=seconds_given(take.seconds),
        )
        return self._tenancy

    def _fault_of_state(self) -> Refusal | None:
        if self._is_closing:
            return CLOSING
        if self._state in ("opening", "leased"):
            return Refusal(
                rule="leased",
                reason="another borrower has the lease: ask again when it has ended",
            )
        if self._state == "clearing":
            return Refusal(
                rule="busy",
                reason="the server of the last lease is still being ended: ask again in a second",
            )
        return None

    def opened(self, lease: str, *, server: int, now: float) -> Tenancy:
        """Note that the server of *lease* runs; its time begins now.

        Args:
          lease: The lease, which must not have ended meanwhile.
          server: The serial number of its server, higher than that of any server before.
          now: The time.

        Raises:
          LocalProtocolError: if the lease is not being opened, or the server is not a new one.

        """
        tenancy = self._tenancy
        if self._state != "opening" or tenancy is None or tenancy.lease != lease:
            raise LocalProtocolError(f"lease {lease} is not being opened")
        if server <= self._last_server:
            raise LocalProtocolError(f"server {server} has served another lease")
        self._last_server = server
        self._state = "leased"
        self._tenancy = attrs.evolve(tenancy, server=server, ends_at=now + tenancy.seconds)
        return self._tenancy

    def renew(self, lease: str, seconds: float, *, now: float) -> float | Refusal:
        """Let *lease* last from *now* on; the seconds that it is given."""
        tenancy = self._tenancy
        if tenancy is None or tenancy.lease != lease or tenancy.ends_at <= now:
            return Refusal(
                rule="too_late", reason="the lease has ended: the borrower must take another one"
            )
        if self._state == "opening":
            return Refusal(rule="busy", reason="the server of the lease is still being started")
        given = seconds_given(seconds)
        self._tenancy = attrs.evolve(tenancy, seconds=given, ends_at=now + given)
        return given

    def end(self, lease: str, why: str, reason: str = "") -> Ending | None:
        """End *lease*; `None` if it has ended already. Its server is to be ended then."""
        tenancy = self._tenancy
        if tenancy is None or tenancy.lease != lease:
            return None
        self._state, self._tenancy = "clearing", None
        return Ending(tenancy=tenancy, why=why, reason=reason)

    def expire(self, now: float) -> Ending | None:
        """End the lease if its time is over."""
        tenancy = self._tenancy
        if tenancy is None or now < tenancy.ends_at:
            return None
        return self.end(tenancy.lease, "time", "the lease was not renewed")

    def cleared(self) -> None:
        """Note that the server of the ended lease is gone.

        Raises:
          LocalProtocolError: if no lease has ended since.

        """
        if self._state != "clearing":
            raise LocalProtocolError(f"no server is being ended: {self._state}")
        self._state = "closed" if self._is_closing else "free"

    def close(self) -> Ending | None:
        """Give no lease any more, and end the one that there is."""
        self._is_closing = True
        if self._tenancy is not None:
            return self.end(self._tenancy.lease, "closing", "the worker ends")
        if self._state == "free":
            self._state = "closed"
        return None


def seconds_given(seconds: float) -> float:
    """How long a lease lasts for which a borrower has asked for so many *seconds*."""
    return min(max(seconds, MIN_LEASE_SECONDS), MAX_LEASE_SECONDS)


def _fault_of(take: Take, *, free: int, lent: Collection[str]) -> Refusal | None:
    """The rule that a wish breaks, whoever has it; `None` if it breaks none."""
    unknown = [name for name in take.devices if name not in lent]
    if unknown:
        return Refusal(
            rule="device",
            reason=f"{unknown[0][:64]!r} is not lent here; lent are {', '.join(lent)[:128]}",
        )
    if len(set(take.devices)) < len(take.devices):
        return Refusal(rule="device", reason="a device was asked for twice")
    if take.memory > free:
        return Refusal(
            rule="memory",
            reason=f"{take.memory} bytes were asked for, and {free} may be lent now",
        )
    if free <= 0:
        return Refusal(rule="memory", reason="no memory may be lent now")
    return None
