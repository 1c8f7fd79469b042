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


def test_a_socket_that_gets_the_number_of_one_before_it_is_not_taken_for_it(
    loop: Loop, pair: Pair
) -> None:
    """The kernel gives out the lowest number that is free, in the same turn too."""
    seen: list[int] = []
    one, two = pair
    opened: list[socket.socket] = []

    def replace(mask: int) -> None:
        del mask
        for each in pair:
            loop.remove(each)
            each.close()
        opened.extend(socket.socketpair())
        for each in opened:
            loop.add(each, READ, seen.append)

    for each in (one, two):
        each.send(b"x")
        loop.add(each, READ, replace)
    numbers = {one.fileno(), two.fileno()}
    loop.turn(0)
    assert {each.fileno() for each in opened} == numbers
    assert seen == []
    for each in opened:
        loop.remove(each)
        each.close()


class Failing:
    """A poller that says of one descriptor that it failed, and not for what it is ready."""

    def __init__(self, number: int) -> None:
        self._number = number

    def poll(self, seconds: float | None) -> list[tuple[int, int]]:
        """As `Poller.poll`."""
        return [(self._number, 8)]

    def modify(self, number: int, mask: int) -> None:
        """As `Poller.modify`."""


def test_a_socket_that_failed_is_told_to_whoever_waits_for_anything(
    loop: Loop, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be said again at once, and for ever, until somebody reads or sends."""
    seen: list[int] = []
    one, _ = pair
    loop.add(one, READ, seen.append)
    with monkeypatch.context() as patched:
        patched.setattr(loop, "_poller", Failing(one.fileno()))
        for mask in (READ, WRITE, READ | WRITE):
            loop.set(one, mask)
            loop.turn(0)
    loop.remove(one)
    assert seen == [READ, WRITE, READ | WRITE]
