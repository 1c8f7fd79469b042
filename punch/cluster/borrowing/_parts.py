"""What a borrower reaches a server with: the near ends of tunnels, as interfaces.

The real ones are of `punch.tunnels`; tests have others.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import attrs
import trio

from ...capability import PeerId
from ...tunnels import LeaseCertificate, Measured, TunnelStatistics
from ..leases import Leased


class NearEnd(Protocol):
    """The near end of a lease's tunnel, while it is open."""

    @property
    def port(self) -> int:
        """The port on loopback that leads to the server."""
        ...

    @property
    def lost(self) -> trio.Event:
        """Set when the other end is gone."""
        ...

    @property
    def why(self) -> str | None:
        """Why it is lost, in a sentence; `None` while it is not."""
        ...

    def statistics(self) -> TunnelStatistics:
        """What went through it until now."""
        ...

    async def measure(self) -> Measured:
        """What a round trip through it costs, and how many bytes go through it in a second.

        Raises:
          NetworkError: if nothing could be measured.

        """
        ...


@attrs.frozen(kw_only=True)
class Reached:
    """The server of a lease, reached."""

    near: NearEnd
    """The near end of its tunnel."""

    carrier: str
    """How the bytes travel: ``direct`` or ``stream``."""


class NearEnds(Protocol):
    """Opens the near ends of tunnels."""

    def open_near_end(
        self,
        *,
        worker: PeerId,
        addresses: Sequence[str],
        leased: Leased,
        certificate: LeaseCertificate,
    ) -> AbstractAsyncContextManager[Reached]:
        """Reach the server of a lease.

        Args:
          worker: Who lends.
          addresses: Where it is.
          leased: What it says of its end of the tunnel.
          certificate: Ours, for this lease alone.

        Raises:
          PunchError: if it is not reached.

        """
        ...
