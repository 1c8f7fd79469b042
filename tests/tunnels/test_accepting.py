"""Connections that are accepted at an end of a tunnel, and those that cannot be."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import pytest

from punch.tunnels.direct._loop import READ, Loop
from punch.tunnels.direct._sockets import accepted, listen_at


@pytest.fixture
def loop() -> Iterator[Loop]:
    """A loop, closed in the end."""
    opened = Loop()
    yield opened
    opened.close()


class Listener(socket.socket):
    """One whose accepts fail as they are told to, before they do not."""

    failures: list[int]

    def accept(self) -> tuple[socket.socket, object]:
        """As a socket's."""
        if self.failures:
            raise OSError(self.failures.pop(0), "as it was told to")
        return super().accept()


@pytest.fixture
def listener() -> Iterator[Listener]:
    """A listener of loopback."""
    plain = listen_at("127.0.0.1", [0])
    with Listener(fileno=plain.detach()) as found:
        found.setblocking(False)
        found.failures = []
        yield found


def test_a_few_are_accepted_in_a_turn_and_the_others_in_the_next(
    loop: Loop, listener: Listener
) -> None:
    """Whoever connects in masses is no more than one of many."""
    clients = [socket.create_connection(listener.getsockname()) for _ in range(10)]
    counts = []
    for _ in range(3):
        found = list(accepted(loop, listener))
        counts.append(len(found))
        for sock, host in found:
            assert (host, sock.getblocking()) == ("127.0.0.1", False)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            sock.close()
    assert counts == [8, 2, 0]
    for each in clients:
        each.close()


def test_one_that_was_reset_meanwhile_is_passed_over(loop: Loop, listener: Listener) -> None:
    """The next one is not."""
    listener.failures = [errno.ECONNABORTED]
    with socket.create_connection(listener.getsockname()):
        ((sock, _),) = accepted(loop, listener)
        sock.close()


def test_without_a_descriptor_for_it_the_listener_rests(loop: Loop, listener: Listener) -> None:
    """It would be ready all the while."""
    seen: list[int] = []
    loop.add(listener, READ, seen.append)
    listener.failures = [errno.EMFILE]
    with socket.create_connection(listener.getsockname()):
        assert list(accepted(loop, listener)) == []
        loop.turn(0)
        assert seen == []
        for _ in range(3):
            loop.turn(1)
        assert seen
    loop.remove(listener)
