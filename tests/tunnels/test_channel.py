"""A TLS connection between two ends in memory, and a program's connection coupled to it.

What is kept while one is paused, its order, and that a cut is told from an end.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator

import attrs
import pytest

from punch.tunnels._certificates import check_certificate, make_certificate, make_context
from punch.tunnels._framing import DATA, END, MAX_PAYLOAD, OPEN, PING
from punch.tunnels.direct._channel import Channel, Ending, Queue
from punch.tunnels.direct._loop import Loop
from punch.tunnels.direct._pair import Pair, Unmetered


@attrs.define(eq=False)
class Owner:
    """Keeps what it is told; pauses at `OPEN`."""

    secure: bool = False
    frames: list[tuple[int, bytes]] = attrs.field(factory=list)
    ending: Ending | None = None

    def on_secure(self, channel: Channel) -> None:
        """As `channel.Owner`."""
        self.secure = True

    def on_frame(self, channel: Channel, kind: int, payload: bytes | memoryview) -> None:
        """As `channel.Owner`."""
        self.frames.append((kind, bytes(payload)))
        if kind == OPEN:
            channel.pause()

    def on_drained(self, channel: Channel) -> None:
        """As `channel.Owner`."""

    def on_ended(self, channel: Channel, ending: Ending) -> None:
        """As `channel.Owner`."""
        self.ending = ending

    @property
    def received(self) -> bytes:
        """What came as DATA."""
        return b"".join(payload for kind, payload in self.frames if kind == DATA)


@attrs.frozen
class Ends:
    """Two ends of one connection, of which the handshake is over."""

    loop: Loop
    near: Channel
    far: Channel
    near_owner: Owner
    far_owner: Owner

    def turn_until(self, is_so: Callable[[], bool]) -> None:
        """Run the loop until it is so, or nothing happens any more."""
        for _ in range(1000):
            if is_so():
                return
            self.loop.turn(0.02)
        raise AssertionError("it never came")

    def turn(self) -> None:
        """Let what is on the way arrive."""
        for _ in range(20):
            self.loop.turn(0.001)


@pytest.fixture
def ends() -> Iterator[Ends]:
    """Ends that are connected, and closed in the end."""
    loop = Loop()
    ours, theirs = make_certificate(), make_certificate()
    one, two = socket.socketpair()
    owners = Owner(), Owner()
    near, far = (
        Channel(
            loop,
            sock,
            context=make_context(mine, other.pem, is_server=is_server),
            expected=check_certificate(other.pem),
            is_server=is_server,
            owner=owner,
        )
        for sock, mine, other, is_server, owner in (
            (one, ours, theirs, False, owners[0]),
            (two, theirs, ours, True, owners[1]),
        )
    )
    found = Ends(loop, near, far, *owners)
    found.turn_until(lambda: owners[0].secure and owners[1].secure)
    yield found
    near.close()
    far.close()
    loop.close()


def test_what_comes_together_with_the_word_that_pauses_is_kept_for_later(ends: Ends) -> None:
    """A program's first bytes are behind the word that has its target connected to.

    And its end is behind them, though the kernel tells it at once.
    """
    ends.near.send(OPEN)
    ends.near.send(DATA, b"first")
    ends.near.send(PING, b"12345678")
    ends.near.send(DATA, b"second")
    ends.turn()
    assert ends.far_owner.frames == [(OPEN, b"")]
    ends.near.close()
    ends.far.resume()
    ends.turn_until(lambda: ends.far_owner.ending is not None)
    assert ends.far_owner.frames[1:] == [
        (DATA, b"first"),
        (PING, b"12345678"),
        (DATA, b"second"),
    ]


def test_a_second_pause_keeps_what_the_first_one_kept(ends: Ends) -> None:
    """In its order."""
    for each in (b"1", b"2", b"3"):
        ends.near.send(OPEN)
        ends.near.send(DATA, each)
    for count in (1, 3, 5):
        ends.turn()
        assert len(ends.far_owner.frames) == count
        ends.far.resume()
    ends.turn()
    assert ends.far_owner.received == b"123"


def test_what_waits_to_be_sent_stays_what_it_was() -> None:
    """It is given as a view of where the next bytes are read."""
    one, two = socket.socketpair()
    with one, two:
        one.setblocking(False)
        two.setblocking(False)
        queue, room = Queue(one), bytearray(60_000)
        expected = b""
        for number in range(1, 14):
            room[:] = bytes([number]) * len(room)
            expected += room
            queue.put(memoryview(room))
        room[:] = bytes(len(room))
        assert 0 < queue.size < len(expected)
        received = b""
        while len(received) < len(expected):
            received += two.recv(1 << 20)
            queue.drain()
        assert received == expected
        assert queue.size == 0


@attrs.frozen
class Coupled:
    """A program whose connection goes through the near end, with what was told of its end."""

    program: socket.socket
    over: list[str | None]


@pytest.fixture
def coupled(ends: Ends) -> Iterator[Coupled]:
    """A program's connection over TCP, which alone can be reset."""
    over: list[str | None] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        program = socket.create_connection(listener.getsockname())
        sock, _ = listener.accept()
    pair = Pair(ends.loop, sock, ends.near, meter=Unmetered(), over=lambda _, why: over.append(why))
    with program:
        yield Coupled(program, over)
    pair.break_off("the test is over")


@pytest.mark.parametrize("size", [1, 8, 16, 17, MAX_PAYLOAD, 3 * MAX_PAYLOAD + 8])
def test_the_end_behind_any_number_of_bytes_is_an_end(
    ends: Ends, coupled: Coupled, size: int
) -> None:
    """Behind a few, which are taken for the head of a message whose body is awaited, too."""
    coupled.program.sendall(b"x" * size)
    coupled.program.shutdown(socket.SHUT_WR)
    ends.turn_until(lambda: (END, b"") in ends.far_owner.frames)
    assert ends.far_owner.received == b"x" * size
    assert coupled.over == []


@pytest.mark.parametrize("size", [1, 8, 17])
def test_a_reset_behind_a_few_bytes_is_no_end(ends: Ends, coupled: Coupled, size: int) -> None:
    """The kernel tells of it once, and says after that that there is no more to read."""
    coupled.program.sendall(b"x" * size)
    coupled.program.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    coupled.program.close()
    ends.turn_until(lambda: ends.far_owner.ending is not None)
    assert (END, b"") not in ends.far_owner.frames
    assert len(coupled.over) == 1
    assert coupled.over[0] is not None
