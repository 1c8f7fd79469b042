"""The meeting point of a listener's own node, and the listener's own place at it.

A newcomer that reaches any member is told of all: of those that are registered here, the listener
itself among them, and of those that other meeting points have told it of.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import attrs
import trio

from ..._background import open_background
from ...access import Membership
from ...bootstrap import BootstrapServer, open_meeting_point
from ...discovery import Announce, Directory, Found, Source
from ...discovery.attendance import Attendance, Checks
from ...exceptions import PunchError
from ...network import Node, open_loopback

RETRY_SECONDS = 1.0


class _OwnPlace:
    """The source of a listener's directory that is its own meeting point."""

    name = "here"
    is_ours = True

    def __init__(
        self, server: BootstrapServer, attendance: Attendance, nursery: trio.Nursery
    ) -> None:
        self._server = server
        self._attendance = attendance
        self._nursery = nursery

    async def run(self, announce: Announce, found: Found) -> None:
        """Be registered here, for ever."""
        while True:
            near, far = open_loopback(self._server.peer_id)
            self._nursery.start_soon(self._server.serve, far)
            try:
                await self._attendance.hold(near, announce, found)
            except PunchError:
                # Turned away: our own grant has ended, or we were removed.
                await trio.sleep(RETRY_SECONDS)


@attrs.frozen(kw_only=True)
class MeetingHere:
    """A meeting point on our own node."""

    server: BootstrapServer
    sources: tuple[Source, ...]
    """What the listener's directory learns from it."""

    @contextmanager
    def relaying(self, directory: Directory) -> Iterator[None]:
        """Tell those who meet here whom *directory* knows from elsewhere, within the context."""

        def changed() -> None:
            self.server._relay(directory.first_hand())

        with directory.watched(changed):
            changed()
            yield


@asynccontextmanager
async def open_meeting_here(
    node: Node, membership: Membership, checks: Checks
) -> AsyncIterator[MeetingHere]:
    """Let members meet at *node*, for as long as the context lasts; *checks* is the directory's."""
    name = membership.namespace.name
    async with open_meeting_point(node, membership) as server, open_background() as nursery:
        attendance = Attendance(checks, name)
        yield MeetingHere(server=server, sources=(_OwnPlace(server, attendance, nursery),))
