"""Sockets of a tunnel and what is set on them, as was measured."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final

from ._loop import Loop

LOOPBACK: Final = "127.0.0.1"

_BACKLOG: Final = 64

_ACCEPTS: Final = 8
_REST_SECONDS: Final = 0.25

# A machine that vanished is noticed by its kernel's silence: one second idle, then a probe each
# second, and the second one that is not answered is the end. Bytes that are not acknowledged for
# this long are the end too.
_KEEPALIVE: Final = (("TCP_KEEPIDLE", 1), ("TCP_KEEPINTVL", 1), ("TCP_KEEPCNT", 2))
_UNACKNOWLEDGED_MS: Final = 2500


def send_at_once(sock: socket.socket) -> None:
    """Do not wait for more to send: a head waits for the reply to a few bytes."""
    with suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def watch_closely(sock: socket.socket) -> None:
    """Have the kernel notice soon that the other machine is gone.

    For a connection that carries a few bytes now and then. On one that carries bulk Linux counts
    a reader that is busy for that long as gone, though it acknowledges every probe: measured,
    and in ``tcp_probe_timer``. There the pings of the first are what notices.
    """
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (*_KEEPALIVE, ("TCP_USER_TIMEOUT", _UNACKNOWLEDGED_MS)):
        if (option := getattr(socket, name, None)) is not None:
            with suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, option, value)


def listen_at(host: str, ports: Iterable[int]) -> socket.socket:
    """Listen at the first of *ports* that is free, 0 for any.

    Raises:
      OSError: if none is, or *host* is no address of this machine.

    """
    trouble: OSError | None = None
    for port in ports:
        family, kind, proto, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST | socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, proto)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(place)
            sock.listen(_BACKLOG)
            sock.setblocking(False)
        except OSError as error:
            sock.close()
            trouble = trouble or error
        else:
            return sock
    raise trouble or OSError("no port was given")


def accepted(loop: Loop, listener: socket.socket) -> Iterator[tuple[socket.socket, str]]:
    """Each that waits at *listener*, with the host that it came from; a few in a turn of the loop.

    The others wait in the kernel. Where there is no descriptor for the next one, *listener* rests.
    """
    for _ in range(_ACCEPTS):
        try:
            sock, place = listener.accept()
        except BlockingIOError:
            return
        except ConnectionError:
            continue  # It was reset before it was accepted.
        except OSError:
            # Out of descriptors: it would be ready again at once, and for ever.
            loop.rest(listener, _REST_SECONDS)
            return
        sock.setblocking(False)
        send_at_once(sock)
        yield sock, str(place[0])


def connect_to(host: str, port: int) -> socket.socket:
    """Begin to connect; writable means that it is over, well or not.

    Raises:
      OSError: if *host* is no IP address, or there is no way to it.

    """
    family, kind, proto, _, place = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
    )[0]
    sock = socket.socket(family, kind, proto)
    try:
        sock.setblocking(False)
        send_at_once(sock)
        with suppress(BlockingIOError):
            sock.connect(place)
    except OSError:
        sock.close()
        raise
    return sock
