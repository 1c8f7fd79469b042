"""What a worker lends with, as interfaces: servers, the far ends of tunnels, and what there is.

The real ones are of `punch.llama_cpp` and `punch.tunnels`; tests have others.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

import attrs
import trio

from ...capability import PeerId
from ..leases import Surveyed, Tenancy


class RunningServer(Protocol):
    """A server of llama.cpp's RPC that runs on loopback, for one lease."""

    @property
    def port(self) -> int:
        """The port on loopback where it listens."""
        ...

    @property
    def lost(self) -> trio.Event:
        """Set when its process has ended, whatever its exit code."""
        ...

    def cpu_seconds(self) -> float:
        """What it has computed since its start, in seconds of one core."""
        ...

    def is_running(self) -> bool:
        """True if its process is there and was not stopped."""
        ...


class Lender(Protocol):
    """Knows what a machine lends, and starts a server for each lease."""

    async def survey(self) -> Surveyed:
        """What there is to lend now.

        Raises:
          BackendError: if that cannot be said, such as where the program is gone.

        """
        ...

    def open_server(self, tenancy: Tenancy) -> AbstractAsyncContextManager[RunningServer]:
        """A server that nobody has used, within the memory and with the devices of *tenancy*.

        It is gone, with all that it was given, when the context ends.

        Raises:
          BackendError: if it cannot be started.

        """
        ...


@attrs.frozen(kw_only=True)
class FarEnd:
    """The far end of a lease's tunnel, while it is open."""

    certificate: bytes = b""
    """What it shows, as PEM; made for this lease alone."""

    addresses: tuple[str, ...] = ()
    """Where it listens, as ``HOST:PORT``."""

    carriers: frozenset[str] = frozenset()
    """How its bytes may travel."""

    lost: trio.Event = attrs.field(factory=trio.Event)
    """Set when it carries nothing any more and was not closed."""


class FarEnds(Protocol):
    """Opens the far ends of tunnels."""

    @property
    def carriers(self) -> frozenset[str]:
        """How bytes may travel."""
        ...

    def open_far_end(
        self, *, lease: str, borrower: PeerId, certificate: bytes, port: int
    ) -> AbstractAsyncContextManager[FarEnd]:
        """Lead whoever has *certificate* to *port* on loopback, and nobody else.

        Args:
          lease: The name of the lease.
          borrower: Who has it.
          certificate: The borrower's, as PEM.
          port: The port of the lease's own server, and no other.

        Raises:
          RemoteProtocolError: if the certificate is none.
          PunchError: if no port can be listened on.

        """
        ...
