"""One front: its end of the link, through which it gets its work and tells what becomes of it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from ...dialer import new_request_id
from ...exceptions import NotRunning
from .._app import Application
from .._gateway import Gateway, Shared
from ..keys import Quotas
from ..server import Request
from ._link import Link, open_link
from ._messages import Connection, Hello, Ready, Report, Start
from ._placing import Placing
from ._switchboard import home_of
from ._turns import Turns, turns_beside

# The gateway answers at once, unless it is very busy or gone.
HELLO_SECONDS = 10.0

# How often it is said how busy a front is, in seconds.
REPORT_SECONDS = 1.0

# What was told last is sent within this time at the end, in seconds.
FLUSH_SECONDS = 1.0


class SharedClock(trio.abc.Clock):
    """trio's clock of another process of this machine: moments mean the same in both.

    Args:
      offset: What the other one adds to the machine's steady clock, see `offset_here`.

    """

    def __init__(self, offset: float) -> None:
        self._offset = offset

    def start_clock(self) -> None:
        """Do nothing: the clock runs."""

    def current_time(self) -> float:
        """The time, in seconds."""
        return time.perf_counter() + self._offset

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Seconds until *deadline*."""
        return deadline - self.current_time()


def offset_here() -> float:
    """What trio's clock of this process adds to the machine's steady clock."""
    return trio.current_time() - time.perf_counter()


class Front:
    """The front that this process is. Made by `open_front`."""

    def __init__(
        self,
        link: Link,
        number: int,
        start: Start,
        *,
        sockets: list[socket.socket],
        turns: Turns,
    ) -> None:
        self.link = link
        """Leads to the gateway."""
        self.start = start
        """What it is to be."""
        self._placing = Placing(number=number, count=start.count)
        self.shared = Shared(
            sockets=tuple(sockets),
            hand_over=self._hand_over,
            give_way=turns.give_way,
            new_id=lambda: self._placing.own_id(new_request_id),
        )
        """What its gateway shares with the others."""

    async def _hand_over(
        self,
        application: Application,
        request: Request,
        stream: trio.SocketStream,
        raw: bytes | None,
    ) -> bool:
        home, _ = await home_of(self._placing, application, request)
        if home == self._placing.number:
            return False
        if raw is not None:
            self.link.send(Connection(home=home, ahead=raw), [stream.socket])
        return True

    async def report(self, gateway: Gateway, quotas: Quotas) -> None:
        """Say every second how busy this front is, until cancelled."""
        while True:
            self.link.send(_report_of(gateway, quotas))
            await trio.sleep(REPORT_SECONDS)

    def leave(self) -> None:
        """Say that this front takes no connections any more."""
        self.link.send(Ready(accepts=False))

    async def serve(self, gateway: Gateway) -> None:
        """Serve what the gateway hands over, until that is gone."""
        self.link.send(Ready())
        while (received := await self.link.receive()) is not None:
            match received:
                case Connection(ahead=ahead), [number]:
                    gateway.adopt(socket.socket(fileno=number), ahead)
                case _, descriptors:
                    for each in descriptors:
                        os.close(each)


def _report_of(gateway: Gateway, quotas: Quotas) -> Report:
    """How busy a front is."""
    full = quotas.statistics()
    return Report(
        connections=gateway.connections,
        running=full.running,
        waiting=full.waiting,
        limit=full.limit,
        queue_limit=full.queue_limit,
        left=quotas.left_of_all(),
    )


@asynccontextmanager
async def open_front(path: Path, number: int) -> AsyncIterator[Front]:
    """Be the front *number* of the gateway whose socket is at *path*, while the context lasts.

    Raises:
      NotRunning: if no gateway is there.

    """
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.connect(os.fspath(path))
    except OSError as error:
        sock.close()
        raise NotRunning(f"no gateway is there whose front this is: {error.strerror}") from None
    async with open_link(sock) as link:
        link.send(Hello(number=number))
        received = None
        with trio.move_on_after(HELLO_SECONDS):
            received = await link.receive()
        match received:
            case Start() as start, descriptors:
                sockets = [socket.socket(fileno=each) for each in descriptors]
            case _:
                raise NotRunning("the gateway whose front this is says nothing")
        for each in sockets:
            each.setblocking(False)
        turns = Turns(turns_beside(path), number)
        try:
            yield Front(link, number, start, sockets=sockets, turns=turns)
        finally:
            turns.close()
            await link.flush(FLUSH_SECONDS)
            for each in sockets:
                each.close()
