"""What a split needs of whoever lends memory to it: a survey, a loan, and how the loan is.

A lender may be a worker of the namespace or a server that the user started on this machine: the
split treats both alike, and knows neither streams nor certificates.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

import attrs
import trio

from ...llama_cpp import RpcVersion
from ...placement import Link


@attrs.frozen(kw_only=True)
class LentDevice:
    """A device that is lent."""

    name: str
    """Its name on its machine, such as ``CPU`` or ``CUDA0``."""

    memory: int
    """Bytes that may be used of it."""

    bandwidth: float
    """Bytes of weights that it goes through a second."""

    compute: float
    """Multiply-adds a second."""


@attrs.frozen(kw_only=True)
class Lendable:
    """What one lender has to lend, as it says itself."""

    devices: tuple[LentDevice, ...]
    """In the order in which its server lists them."""

    version: RpcVersion
    """The RPC protocol that its server speaks."""

    build: str = ""
    """Its server's build, in the program's words; empty where nobody knows."""

    link: Link
    """The way there, as it was measured."""

    is_own: bool = False
    """Whether its machine is of the head's own owner."""

    is_authenticated: bool = True
    """Whether it is known who lends; of a server that is reached by plain RPC nobody knows."""


def within(lendable: Lendable, memory: int) -> Lendable:
    """What there is to lend, if no more than *memory* bytes of it are lent."""
    whole = sum(device.memory for device in lendable.devices)
    if memory >= whole:
        return lendable
    devices = tuple(
        attrs.evolve(device, memory=device.memory * memory // whole) for device in lendable.devices
    )
    return attrs.evolve(lendable, devices=devices)


@attrs.frozen(kw_only=True)
class LoanLook:
    """How the server of a loan is, by the word of the machine that runs it."""

    cpu_seconds: float
    """Processor time that it has used until now, in seconds."""

    is_alive: bool
    """Whether it runs; one that was stopped does not."""


class Loan(Protocol):
    """Borrowed memory, while it lasts."""

    @property
    def endpoint(self) -> str:
        """``127.0.0.1:PORT``, where the head reaches the server."""
        ...

    @property
    def link(self) -> Link | None:
        """The way to the server, if that was measured since the survey."""
        ...

    @property
    def devices(self) -> int:
        """How many devices its server lists."""
        ...

    @property
    def is_own(self) -> bool:
        """Whether its machine is of the head's own owner."""
        ...

    @property
    def lost(self) -> trio.Event:
        """Set when it has ended, by whatever but ourselves."""
        ...

    @property
    def why(self) -> str:
        """Why it has ended, in a sentence; empty while it lasts."""
        ...

    @property
    def bytes_up(self) -> int:
        """Bytes that the head has sent there."""
        ...

    @property
    def oldest_reply_age(self) -> float | None:
        """Seconds for which the head has waited for a reply; `None` while it waits for none."""
        ...

    @property
    def memory(self) -> int | None:
        """Bytes that are lent, where the loan says so; may be less than the survey said."""
        ...

    @property
    def fault(self) -> str | None:
        """What the server did that a head does not survive, in words; `None` if nothing."""
        ...

    async def look(self) -> LoanLook | None:
        """How the server is; `None` if that cannot be known.

        Raises:
          PunchError: if whoever runs it says nothing.

        """
        ...


class Lender(Protocol):
    """One machine that may lend, or one server."""

    @property
    def name(self) -> str:
        """What it is called, by people and in plans; no other lender is called so."""
        ...

    async def survey(self) -> Lendable:
        """What it has to lend now.

        Raises:
          PunchError: if it lends nothing now; the text says why.

        """
        ...

    def take(self) -> AbstractAsyncContextManager[Loan]:
        """Borrow all that it has, until the context ends.

        Raises:
          PunchError: if it does not lend.

        """
        ...
