"""How a node dials through relays, and is led to: what it does with the streams to them."""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from punch.capability import PeerId
from punch.exceptions import PeerUnreachable
from punch.libp2p._circuits import Circuits
from punch.network import Address, Stream, parse_address
from punch.relay import CONNECT

HUB = PeerId("12D3KooWGYqKxZBhTRg1mKCkJhm8U3Rc6jUDdVyc7MJgAywKosw2")
HIDDEN = PeerId("12D3KooWH3uVF6wv47WnArKHk5p6cvgCJEb74UTmxztmQDc298L3")
PLACE = parse_address("/ip4/203.0.113.3/tcp/51820")
CIRCUIT = attrs.evolve(PLACE, relay=HUB)


class Line:
    """A stream to a relay that says these pieces, and then nothing until it is ended."""

    peer_id = HUB
    ip = "203.0.113.3"

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = deque(pieces)
        self.sent = b""
        self.ended = trio.Event()

    async def send_all(self, data: bytes) -> None:
        self.sent += data

    async def receive_some(self) -> bytes:
        if self.pieces:
            return self.pieces.popleft()
        await self.ended.wait()
        return b""

    async def aclose(self) -> None:
        self.ended.set()


class Home:
    """A node's circuits, with these streams to open, one after the other."""

    def __init__(self, nursery: trio.Nursery, *lines: Line) -> None:
        self.lines = deque(lines)
        self.opened: list[tuple[PeerId, tuple[str, ...], str]] = []
        self.changes = 0
        self.connected: set[PeerId] = set()
        self.answers = True
        self.dialled: Address | None = PLACE
        self.circuits = Circuits(
            None,
            open_stream=self.open_stream,
            is_connected=lambda peer: peer in self.connected,
            dialled_at=lambda _: self.dialled,
            nursery=nursery,
            changed=self.changed,
        )

    async def open_stream(self, peer: PeerId, addresses: tuple[str, ...], protocol: str) -> Stream:
        self.opened.append((peer, addresses, protocol))
        if not addresses and not self.answers:
            await trio.sleep_forever()
        line: Any = self.lines.popleft()
        return line  # type: ignore[no-any-return]  # has what is used of a stream

    def changed(self) -> None:
        self.changes += 1


def no_more_sockets(*given: Any) -> Any:
    """What the system answers a process that has all its files open."""
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


async def test_a_node_without_a_socket_left_ends_its_stream_to_the_relay(
    monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    """It says so as of any address that did not work."""
    line = Line(b"ok\n")
    home = Home(nursery, line)
    with monkeypatch.context() as patch:
        patch.setattr(socket, "socketpair", no_more_sockets)
        with pytest.raises(PeerUnreachable, match="no socket"):
            await home.circuits.dial(CIRCUIT, HIDDEN)
    assert line.ended.is_set()


async def test_a_node_without_a_socket_left_serves_nobody_that_is_led_here(
    monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    """No error leaves it."""
    home = Home(nursery, Line(b"ok\n"))
    nursery.start_soon(held, home)
    await trio.testing.wait_all_tasks_blocked()
    led: Any = Line(b"asker\n")
    with monkeypatch.context() as patch:
        patch.setattr(socket, "socketpair", no_more_sockets)
        await home.circuits.accept(led)
    assert led.sent == b"ok\n"


async def held(home: Home) -> None:
    """Hold a reservation until its stream ends."""
    with pytest.raises(PeerUnreachable):
        await home.circuits.be_relayed(HUB)


async def test_a_reservation_that_was_made_anew_outlives_the_one_before_it(
    autojump_clock: MockClock,
) -> None:
    """Two that hold one at the same relay end each their own."""
    first, second = Line(b"ok\n"), Line(b"ok\n")
    async with trio.open_nursery() as nursery:
        home = Home(nursery, first, second)
        nursery.start_soon(held, home)
        await trio.sleep(1)
        nursery.start_soon(held, home)
        await trio.sleep(1)
        first.ended.set()
        await trio.sleep(1)
        assert home.circuits.addresses == (CIRCUIT,)
        second.ended.set()
    assert not home.circuits.addresses


async def test_a_relay_that_is_connected_is_asked_over_that_connection(
    nursery: trio.Nursery,
) -> None:
    """Dialled by its name, or another of its addresses, it is the same relay."""
    home = Home(nursery, Line(b"ok\n"), Line(b"ok\n"))
    await (await home.circuits.dial(CIRCUIT, HIDDEN)).close()
    home.connected.add(HUB)
    await (await home.circuits.dial(CIRCUIT, HIDDEN)).close()
    at = (f"{PLACE}/p2p/{HUB}",)
    assert home.opened == [(HUB, at, CONNECT), (HUB, (), CONNECT)]


async def test_a_connection_to_a_relay_that_hangs_does_not_hold_the_dial_up(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """The relay is dialled where the listener says it is, in the time of the same dial."""
    home = Home(nursery, Line(b"ok\n"))
    home.connected.add(HUB)
    home.answers = False
    with trio.fail_after(2.5):
        await (await home.circuits.dial(CIRCUIT, HIDDEN)).close()
    assert [addresses for _, addresses, _ in home.opened] == [(), (f"{PLACE}/p2p/{HUB}",)]
