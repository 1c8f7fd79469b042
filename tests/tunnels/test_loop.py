"""The poll loop: what is ready, what is due, what another thread says, and what was taken away."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from punch.tunnels.direct._loop import READ, WRITE, Loop

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def loop() -> Iterator[Loop]:
    """A loop, closed in the end."""
    opened = Loop()
    yield opened
    opened.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two ends of one connection in memory."""
    one, two = socket.socketpair()
    with one, two:
        one.setblocking(False)
        two.setblocking(False)
        yield one, two


def test_a_socket_is_called_back_for_what_it_waits_for_alone(loop: Loop, pair: Pair) -> None:
    """And no more once it is removed, even in the turn in which it was ready."""
    seen: list[int] = []
    one, two = pair
    loop.add(one, READ, seen.append)
    loop.turn(0)
    assert seen == []
    loop.set(one, READ | WRITE)
    loop.turn(0)
    two.send(b"x")
    loop.turn(0)
    assert seen == [WRITE, READ | WRITE]

    def end(mask: int) -> None:
        for each in pair:
            loop.remove(each)
        seen.append(mask)

    loop.remove(one)
    loop.add(one, READ, end)
    loop.add(two, WRITE, end)
    loop.turn(0)
    loop.turn(0)
    assert len(seen) == 3


def test_what_is_due_comes_in_its_order_and_what_was_cancelled_does_not(loop: Loop) -> None:
    """And what was said meanwhile has its turn after that."""
    seen: list[str] = []
    loop.call_at(loop.now - 1, lambda: seen.append("second"))
    loop.call_at(loop.now - 2, lambda: seen.append("first"))
    loop.call_at(loop.now - 3, lambda: seen.append("never")).cancel()
    loop.call_at(loop.now + 3600, lambda: seen.append("later"))
    loop.call_soon(lambda: loop.call_soon(lambda: seen.append("next turn")))
    loop.turn(0)
    assert seen == ["first", "second"]
    loop.turn(0)
    assert seen == ["first", "second", "next turn"]


def test_another_thread_wakes_it_up(loop: Loop) -> None:
    """From a wait that has no end of its own."""
    seen: list[int] = []
    threading.Timer(0.01, lambda: loop.call_from_thread(lambda: seen.append(1))).start()
    loop.turn(10)
    assert seen == [1]


def test_a_listener_that_rests_is_asked_again_later(loop: Loop, pair: Pair) -> None:
    """It is ready all the while, and must not keep the loop busy."""
    seen: list[int] = []
    one, two = pair
    two.send(b"x")
    loop.add(one, READ, seen.append)
    loop.rest(one, 0.01)
    loop.turn(0)
    assert seen == []
    loop.turn(1)
    loop.turn(1)
    assert seen == [READ]
    loop.rest(one, 0.0)
    loop.remove(one)
    loop.turn(0)
