"""Ends of tunnels whose other side holds the right certificate and does what no end of ours does.

The ends run in a loop of the test itself: what would end the carrier's process raises here.
"""

from __future__ import annotations

import signal
import socket
import ssl
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import attrs
import pytest
from integration.tunnel_targets import HERE

from punch.tunnels._certificates import check_certificate, make_certificate, make_context
from punch.tunnels._framing import (
    BYE,
    DATA,
    FILL,
    OPEN,
    PING,
    PONG,
    READY,
    TAKEN,
    WATCH,
    TunnelFrames,
    frame,
)
from punch.tunnels.direct._far_end import FarEnd
from punch.tunnels.direct._loop import Loop
from punch.tunnels.direct._measuring import PATIENCE_SECONDS
from punch.tunnels.direct._near_end import NearEnd

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")

OURS, THEIRS = make_certificate(), make_certificate()


@pytest.fixture
def loop() -> Iterator[Loop]:
    """A loop, closed in the end."""
    opened = Loop()
    yield opened
    opened.close()


def turn_until(loop: Loop, is_over: Callable[[], object], *, seconds: float = 10.0) -> None:
    """Run *loop* until something is so."""
    until = time.monotonic() + seconds
    while not is_over():
        assert time.monotonic() < until, "nothing came of it"
        loop.turn(0.02)


# ---- a far end that is hostile ----

Answer = Callable[[ssl.SSLSocket, int, bytes], None]


class HostileFar:
    """A far end in threads: says READY, and then what *answer* makes of each frame.

    Args:
      answer: Is given the connection, and kind and payload of a frame.
      ready: How many connections it says READY on.

    """

    def __init__(self, answer: Answer, *, ready: int = 100) -> None:
        self._context = make_context(THEIRS, OURS.pem, is_server=True)
        self._listener = socket.create_server((HERE, 0))
        self.port = int(self._listener.getsockname()[1])
        self._answer = answer
        self._ready = ready
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._run)

    def _start(self, work: Callable[..., None], *arguments: socket.socket) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self._start(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        with suppress(OSError), self._context.wrap_socket(sock, server_side=True) as secure:
            self._open.append(secure)
            self._ready -= 1
            if self._ready >= 0:
                secure.sendall(frame(READY))
            frames = TunnelFrames()
            while data := secure.recv(1 << 16):
                for kind, payload in frames.feed(data):
                    self._answer(secure, kind, bytes(payload))

    def close(self) -> None:
        """End all of it."""
        # Each is closed by the thread that has it: its number may be another's at once.
        for each in (self._listener, *self._open):
            with suppress(OSError):
                # That of TLS would leave the thread to read what is encrypted.
                socket.socket.shutdown(each, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        self._listener.close()


@attrs.define
class Told:
    """What an end has told its parent."""

    events: list[dict[str, Any]] = attrs.field(factory=list)

    def first(self, event: str) -> dict[str, Any] | None:
        """The first one of this name."""
        return next((each for each in self.events if each["event"] == event), None)


@contextmanager
def near_of(loop: Loop, far: HostileFar) -> Iterator[tuple[NearEnd, Told]]:
    """A near end that *far* has answered."""
    told = Told()
    near = NearEnd(
        loop,
        context=make_context(OURS, THEIRS.pem, is_server=False),
        expected=check_certificate(THEIRS.pem),
        addresses=[(HERE, far.port)],
        frames=True,
        listen=[0],
        tell=told.events.append,
    )
    try:
        turn_until(loop, lambda: told.first("opened"))
        yield near, told
    finally:
        near.close()
        far.close()


def keep_alive(sock: ssl.SSLSocket, kind: int, payload: bytes) -> None:
    """What an end does that is well."""
    if kind == PING:
        sock.sendall(frame(PONG, payload))


def taken(*counts: int) -> Answer:
    """A far end that is asked what it costs, and says that it has taken *counts*."""
    rest = list(counts)

    def answer(sock: ssl.SSLSocket, kind: int, payload: bytes) -> None:
        keep_alive(sock, kind, payload)
        if kind == FILL and rest:
            sock.sendall(frame(TAKEN, rest.pop(0).to_bytes(8, "big")))

    return answer


def taken_at_once(sock: ssl.SSLSocket, kind: int, payload: bytes) -> None:
    """A far end that has taken something before anything was sent."""
    if kind == PING and payload[-1:] == b"\0":
        sock.sendall(frame(TAKEN, (1).to_bytes(8, "big")))
    keep_alive(sock, kind, payload)


@pytest.mark.parametrize(
    "answer",
    [
        taken_at_once,
        taken(1 << 63),
        taken(1 << 16, 0),
        taken(0, 0),
    ],
    ids=["before it was sent", "more than was sent", "less than before", "nothing"],
)
def test_what_was_not_sent_is_not_measured(loop: Loop, answer: Answer) -> None:
    """A worker that claims it would have layers, or end the tunnels of all the others."""
    with near_of(loop, HostileFar(answer)) as (near, told):
        found: list[tuple[float, float] | str] = []
        near.measure(found.append)
        turn_until(loop, lambda: found, seconds=PATIENCE_SECONDS + 2)
        assert isinstance(found[0], str)
        assert told.first("lost") is None


def test_a_measurement_ends_also_where_no_further_connection_is_to_be_had(loop: Loop) -> None:
    """The far end takes the connection that carries pings, and leaves the others unanswered."""
    with near_of(loop, HostileFar(keep_alive, ready=1)) as (near, _):
        found: list[tuple[float, float] | str] = []
        near.measure(found.append)
        turn_until(loop, lambda: found, seconds=PATIENCE_SECONDS + 2)
        assert isinstance(found[0], str)


def test_the_words_of_the_other_side_are_one_line_that_no_terminal_obeys(loop: Loop) -> None:
    """They are logged, and shown to whoever asks why a worker was lost."""

    def answer(sock: ssl.SSLSocket, kind: int, payload: bytes) -> None:
        if kind == WATCH:
            sock.sendall(frame(BYE, "bye\x1b[2J\nWARNING all is lost\u202e".encode()))

    with near_of(loop, HostileFar(answer)) as (_, told):
        turn_until(loop, lambda: told.first("lost"))
        lost = told.first("lost")
        assert lost is not None
        assert lost["reason"].isprintable()
        assert lost["reason"].startswith("bye")


# ---- a near end that is hostile ----


def far_end(loop: Loop, target: int) -> FarEnd:
    """A far end that leads to *target*."""
    return FarEnd(
        loop,
        context=make_context(THEIRS, OURS.pem, is_server=True),
        expected=check_certificate(OURS.pem),
        hosts=[HERE],
        ports=[0],
        target=target,
        is_allowed=lambda port: port == target,
        tell=lambda event: None,
    )


@contextmanager
def far_of(loop: Loop, target: int) -> Iterator[tuple[FarEnd, ssl.SSLSocket]]:
    """A far end that leads to *target*, and one connection that it has let in."""
    far = far_end(loop, target)
    try:
        secure: list[ssl.SSLSocket] = []

        def connect() -> None:
            context = make_context(OURS, THEIRS.pem, is_server=False)
            sock = socket.create_connection(far.places[0], timeout=5)
            found = context.wrap_socket(sock)
            found.recv(100)
            secure.append(found)

        threading.Thread(target=connect, daemon=True).start()
        turn_until(loop, lambda: secure)
        secure[0].setblocking(False)
        yield far, secure[0]
        secure[0].close()
    finally:
        far.close()


def push(loop: Loop, sock: ssl.SSLSocket, data: bytes, *, most: int) -> int:
    """Send *data* again and again, at most *most* bytes, until no more is taken for a while."""
    sent, idle, view = 0, 0, memoryview(data)
    at = 0
    while sent < most and idle < 20:
        try:
            count = sock.send(view[at:])
        except ssl.SSLWantWriteError:
            idle += 1
            loop.turn(0.005)
            continue
        at = (at + count) % len(data)
        sent += count
        idle = 0
        loop.turn(0)
    return sent


def test_answers_that_nobody_reads_are_not_heaped_up(loop: Loop) -> None:
    """A borrower that asks and never reads fills no memory of the worker."""
    # The kernel holds some megabytes of answers.
    with far_of(loop, 1) as (far, sock):
        push(loop, sock, frame(PING, bytes(512)) * 32, most=24 << 20)
        held = [each.queued for each in (*far._idle, *far._fills)]
        assert held
        assert max(held) < 1 << 20


@pytest.mark.parametrize("piece", [1, 3])
def test_small_pieces_for_a_target_that_stalls_take_no_more_than_their_bytes(
    loop: Loop, piece: int
) -> None:
    """What waits is bounded by bytes; pieces of one byte each would take two hundred times that."""
    with socket.create_server((HERE, 0)) as target:
        port = int(target.getsockname()[1])
        with far_of(loop, port) as (_, sock):
            sock.sendall(frame(OPEN))
            words = frame(DATA, bytes(32 << 10)) * 8
            push(loop, sock, words, most=5 << 20)
            tracemalloc.start()
            try:
                push(loop, sock, frame(DATA, bytes(piece)) * 4096, most=6 << 20)
                held, _ = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert held < 8 << 20


def test_what_comes_behind_the_end_of_tls_keeps_the_loop_from_nothing(loop: Loop) -> None:
    """It is never decrypted, and so is there for ever."""

    def stuck(*_: object) -> None:
        raise AssertionError("the loop does not come to its end")

    far = far_end(loop, 1)
    before = signal.signal(signal.SIGALRM, stuck)
    try:
        with socket.create_connection(far.places[0], timeout=5) as sock:
            sock.setblocking(False)
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            context = make_context(OURS, THEIRS.pem, is_server=False)
            tls = context.wrap_bio(incoming, outgoing)

            def step(do: Callable[[], object]) -> bool:
                with suppress(BlockingIOError):
                    incoming.write(sock.recv(1 << 16))
                try:
                    do()
                except ssl.SSLWantReadError:
                    return False
                finally:
                    sock.sendall(outgoing.read())
                return True

            turn_until(loop, lambda: step(tls.do_handshake))
            turn_until(loop, lambda: step(lambda: tls.read(100)))
            with suppress(ssl.SSLWantReadError):
                tls.unwrap()
            sock.sendall(outgoing.read() + bytes(100))
            signal.setitimer(signal.ITIMER_REAL, 5.0)
            turn_until(loop, lambda: not far._idle)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        far.close()
