"""What stands in for epoll on systems that have none."""

from __future__ import annotations

import selectors
import socket

from punch.tunnels.direct._polling import _Selected


def test_it_waits_as_epoll_does() -> None:
    """By the numbers of descriptors, until it is told otherwise."""
    poller = _Selected()
    one, two = socket.socketpair()
    with one, two:
        number = one.fileno()
        poller.register(number, selectors.EVENT_READ)
        assert poller.poll(0) == []
        two.send(b"x")
        assert poller.poll(None) == [(number, selectors.EVENT_READ)]
        poller.modify(number, selectors.EVENT_WRITE)
        assert poller.poll(0) == [(number, selectors.EVENT_WRITE)]
        poller.unregister(number)
        assert poller.poll(0) == []
    poller.close()
