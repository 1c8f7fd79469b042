"""The gateway's own process and its fronts, as they pass connections to each other.

Every front has a link to the gateway's process and to nothing else: a connection for another front
goes through here. One for a front that has just ended waits until that is there again, since what
its request means is known there alone; for a moment, and a few of them.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import attrs
import trio

from ..._logs import get_logger
from ...events import Bus
from .._app import Application, usual_path
from ..keys import Key, Left, QuotaStatistics
from ..server import Request
from ._link import Link, open_link
from ._log_lines import write_lines
from ._messages import Connection, Hello, Lines, Ready, Report, Start, Told
from ._placing import GATEWAY, Placing
from ._telling import Retelling

log = get_logger(__name__)

# How long a process of ours may take for its first word, in seconds.
HELLO_SECONDS = 10.0

# Connections that wait for one front that is started again, and for how long, in seconds.
MAX_WAITING = 64
WAIT_SECONDS = 10.0

# A front that says nothing for so long is stuck: it reports every second, and its peers have given
# it up after five.
SILENT_SECONDS = 10.0

# For a connection whose front does not come back in time.
NOT_NOW = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n"
    b"content-type: application/json\r\ncontent-length: %d\r\n\r\n"
)


@attrs.define(kw_only=True, eq=False)
class Place:
    """What is known of one front, whether it runs or not."""

    number: int
    """Its number, from 0."""

    link: Link | None = None
    """Leads to it, while it runs."""

    accepts: bool = False
    """It takes connections: it has started, and does not end yet."""

    report: Report = attrs.field(factory=Report)
    """What it has said of itself last."""

    heard_at: float = 0.0
    """When it has said anything last, in seconds of trio's clock."""

    retelling: Retelling
    """Publishes what it tells."""

    waiting: deque[tuple[socket.socket, bytes, float]] = attrs.field(factory=deque)
    """Connections for it, with what was read of them and the time until which they wait."""

    came: trio.Event = attrs.field(factory=trio.Event)
    """Set while it accepts connections."""


class Switchboard:
    """Passes connections between processes, and publishes what the fronts tell.

    Args:
      count: How many fronts there are.
      settings: What each is started with.
      events: Of the gateway.
      peers: Says how many listeners the gateway knows.

    """

    def __init__(self, count: int, *, settings: Any, events: Bus, peers: Callable[[], int]) -> None:
        self.places = tuple(
            Place(number=number, retelling=Retelling(events)) for number in range(count)
        )
        """What is known of each front."""
        self._settings = settings
        self._peers = peers
        self._placing = Placing(number=GATEWAY, count=count)
        self._listeners: Sequence[trio.SocketListener] = ()
        self._adopt: Callable[[socket.socket, bytes], None] | None = None

    def open(
        self,
        listeners: Sequence[trio.SocketListener],
        adopt: Callable[[socket.socket, bytes], None],
    ) -> None:
        """Have fronts accept at these *listeners*, and *adopt* what is for this process."""
        self._listeners, self._adopt = listeners, adopt

    @property
    def under_way(self) -> int:
        """How many requests the fronts work at."""
        return sum(place.retelling.under_way for place in self.places)

    async def hand_over(
        self,
        application: Application,
        request: Request,
        stream: trio.SocketStream,
        raw: bytes | None,
    ) -> bool:
        """Give a connection of this process to a front if its next request is for one."""
        home, asks = await home_of(self._placing, application, request)
        if not asks:
            return False
        if home == GATEWAY:
            there = [place for place in self.places if place.accepts]
            home = min(there or self.places, key=lambda place: place.report.connections).number
        if raw is not None:
            self._pass_on(home, socket.socket(fileno=os.dup(stream.socket.fileno())), raw)
        return True

    def _pass_on(self, home: int, connection: socket.socket, ahead: bytes) -> None:
        """Give *connection* to the process of this number; it is closed here in any case."""
        if home == GATEWAY:
            assert self._adopt is not None, "fronts come after that"
            self._adopt(connection, ahead)
            return
        place = self.places[home]
        if place.link is not None and place.accepts:
            with connection:
                place.link.send(Connection(home=home, ahead=ahead), [connection])
        elif len(place.waiting) < MAX_WAITING:
            place.waiting.append((connection, ahead, trio.current_time() + WAIT_SECONDS))
        else:
            _refuse(connection)

    async def serve(self, sock: socket.socket) -> None:
        """Serve the front at the other end of *sock* until it ends."""
        async with open_link(sock) as link:
            hello = None
            with trio.move_on_after(HELLO_SECONDS):
                hello = await link.receive()
            match hello:
                case (Hello(number=number), []) if 0 <= number < len(self.places):
                    try:
                        await self._serve(self.places[number], link)
                    except Exception:
                        # A bug with one front must not end the others: that one starts again.
                        log.exception("what a front says met a bug", process=number + 1)
                case _:
                    log.warning("what has connected is no front of this gateway")

    async def _serve(self, place: Place, link: Link) -> None:
        sockets = [each.socket for each in self._listeners]
        count, peers = len(self.places), self._peers()
        place.link, place.heard_at = link, trio.current_time()
        link.send(Start(settings=self._settings, count=count, peers=peers), sockets)
        try:
            while (received := await link.receive()) is not None:
                place.heard_at = trio.current_time()
                self._take(place, *received)
        finally:
            if place.link is link:
                place.link, place.accepts, place.came = None, False, trio.Event()
                place.report = Report()
                place.retelling.end()

    def _take(self, place: Place, message: Any, descriptors: list[int]) -> None:
        match message, descriptors:
            case Connection(home=home, ahead=ahead), [number]:
                self._pass_on(home, socket.socket(fileno=number), ahead)
            case Told(), []:
                place.retelling.hear(message)
            case Lines(), []:
                write_lines(message)
            case Report(), []:
                place.report = message
            case Ready(accepts=True), []:
                place.accepts = True
                place.came.set()
                while place.waiting:
                    connection, ahead, _ = place.waiting.popleft()
                    self._pass_on(place.number, connection, ahead)
            case Ready(), []:
                # What leads to it waits for the next one of its number.
                place.accepts = False
            case _:
                for each in descriptors:
                    os.close(each)

    def sweep(self, now: float) -> list[Place]:
        """Refuse connections whose front does not come back; the fronts that are stuck."""
        for place in self.places:
            while place.waiting and place.waiting[0][2] <= now:
                _refuse(place.waiting.popleft()[0])
        return [
            place
            for place in self.places
            if place.accepts and now - place.heard_at > SILENT_SECONDS
        ]

    def close(self) -> None:
        """Refuse what waits still."""
        for place in self.places:
            while place.waiting:
                _refuse(place.waiting.popleft()[0])

    def statistics(self) -> QuotaStatistics:
        """How full the fronts are, together."""
        reports = [place.report for place in self.places]
        return QuotaStatistics(
            running=sum(each.running for each in reports),
            waiting=sum(each.waiting for each in reports),
            limit=sum(each.limit for each in reports),
            queue_limit=sum(each.queue_limit for each in reports),
        )

    def left(self, key: Key) -> Left:
        """What *key* may use now, as the fronts have said last; of an idle one, all."""
        found = [
            place.report.left[key.key_id]
            for place in self.places
            if key.key_id in place.report.left
        ]
        if len(found) == 1:
            return found[0]
        # A key without limits is counted wherever it asks; one with limits at its home alone.
        return Left(
            running=sum(each.running for each in found),
            requests=key.requests_per_minute,
            tokens=key.tokens_per_minute,
        )


def _refuse(connection: socket.socket) -> None:
    body = b'{"error":{"message":"a part of this gateway starts again","code":"not_ready"}}'
    with connection, suppress(OSError):
        connection.setblocking(False)
        connection.send(NOT_NOW % len(body) + body)


async def home_of(placing: Placing, application: Application, request: Request) -> tuple[int, bool]:
    """Where *request* is to be answered, and whether it asks a model."""
    headers: Mapping[bytes, bytes] = dict(request.headers)
    path = request.place
    if not application.asks(path):
        path = usual_path(path)
    asks = application.asks(path)
    key = await application.door.key_of(headers) if asks else None
    return placing.home_of(path, headers, asks=asks, key=key), asks
