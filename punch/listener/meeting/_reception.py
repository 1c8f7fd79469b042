"""Decides when a dialer of a closed namespace may say who it is: not before we know who may.

A listener that was off has missed removals. It learns them with its first rosters, and serves
nobody before; if no other member can be met, it serves after a while by what it knew.
"""

from __future__ import annotations

import trio

from ...bootstrap import Turns
from ...discovery import Directory
from ...network import Stream, ip_of, site_of

# How long a dialer waits for the first rosters: it gives a session up that is silent for 5 s.
MAX_WAIT_SECONDS = 3.0


class Reception:
    """Where dialers wait."""

    def __init__(self) -> None:
        self._directory: Directory | None = None
        self._has_joined = trio.Event()
        self._turns = Turns()
        self._is_open = False

    def joined(self, directory: Directory) -> None:
        """Wait for what *directory* learns first."""
        self._directory = directory
        self._has_joined.set()

    async def welcome(self, stream: Stream) -> None:
        """Wait until the dialer at the other end of *stream* may say who it is."""
        if not self._is_open:
            with trio.move_on_after(MAX_WAIT_SECONDS):
                await self._has_joined.wait()
                if self._directory is not None:
                    await self._directory.informed.wait()
            self._is_open = True
        ip = ip_of(stream)
        await self._turns.turn(None if ip is None else site_of(ip))
