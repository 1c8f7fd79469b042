"""Which descriptors are ready: epoll where there is one, and what `selectors` has elsewhere.

The layer of `selectors` over epoll costs a tunnel more for each message than the kernel does.
"""

from __future__ import annotations

import select
import selectors
import sys
from typing import Final, Protocol

if sys.platform == "linux":
    READ: Final = select.EPOLLIN
    WRITE: Final = select.EPOLLOUT
else:
    READ: Final = selectors.EVENT_READ
    WRITE: Final = selectors.EVENT_WRITE


class Poller(Protocol):
    """Waits until one of the descriptors is ready."""

    def register(self, number: int, mask: int, /) -> object:
        """Wait for what is in *mask* at one more descriptor."""

    def modify(self, number: int, mask: int, /) -> object:
        """From now on wait for what is in *mask* at this one."""

    def unregister(self, number: int, /) -> object:
        """Wait for it no more."""

    def poll(self, seconds: float | None, /) -> list[tuple[int, int]]:
        """Each that is ready, and for what; bits beyond `READ` and `WRITE` say that it failed."""

    def close(self) -> object:
        """Wait for none any more."""


class _Selected:
    """A `Poller` over the best that `selectors` finds."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self.register = self._selector.register
        self.modify = self._selector.modify
        self.unregister = self._selector.unregister
        self.close = self._selector.close

    def poll(self, seconds: float | None, /) -> list[tuple[int, int]]:
        """As `Poller.poll`."""
        return [(key.fd, mask) for key, mask in self._selector.select(seconds)]


def open_poller() -> Poller:
    """The one of this system."""
    return select.epoll() if sys.platform == "linux" else _Selected()
