"""Tunnels over real sockets, moved by processes of their own.

Who is let in and who is not, that every byte and every end arrives, what is held of a reader that
stalls, and how soon it is noticed that the other side is gone.
"""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import attrs
import psutil
import pytest
import trio
from integration.programs import ROOT, alive, limit, off
from integration.tunnel_targets import HERE, Serve, echo, open_target, read_all, show

from punch.exceptions import NotPermitted, PeerUnreachable
from punch.tunnels import (
    Carrier,
    FarEnd,
    LeaseCertificate,
    NearEnd,
    Place,
    make_certificate,
    open_carrier,
)
from punch.tunnels.direct._channel import MAX_QUEUED_BYTES
from punch.tunnels.direct._near_end import SILENCE_SECONDS
from punch.tunnels.direct._strangers import HANDSHAKE_SECONDS, MAX_STRANGERS_OF_SITE


@attrs.frozen(kw_only=True)
class Opened:
    """A tunnel, and what it was made of."""

    near: NearEnd
    far: FarEnd
    here: Carrier
    there: Carrier
    ours: LeaseCertificate
    theirs: LeaseCertificate

    async def connect(self) -> trio.SocketStream:
        """As a program of this machine."""
        return await trio.open_tcp_stream(HERE, self.near.port)


@asynccontextmanager
async def open_tunnel(serve: Serve = echo, *, carriers: int = 1) -> AsyncIterator[Opened]:
    """Both ends of a tunnel to *serve*; two carriers where one of them is stopped or killed."""
    async with AsyncExitStack() as stack:
        target = await stack.enter_async_context(open_target(serve))
        opened = [await stack.enter_async_context(open_carrier()) for _ in range(carriers)]
        here, there = opened[0], opened[-1]
        ours, theirs = make_certificate(), make_certificate()
        there.allow(target)
        far = await there.open_far(
            [HERE], [0], certificate=theirs, trusted_pem=ours.pem, target=target
        )
        near = await here.open_near(far.addresses, certificate=ours, trusted_pem=theirs.pem)
        yield Opened(near=near, far=far, here=here, there=there, ours=ours, theirs=theirs)


@limit(60)
async def test_fifty_megabytes_arrive_whole_both_ways_and_so_does_each_end() -> None:
    """At once in both directions, beside small ones that go to and fro."""
    sent = os.urandom(50_000_000)
    async with open_tunnel(carriers=2) as tunnel, await tunnel.connect() as stream:
        got = b""
        trips: list[float] = []

        async def receive() -> None:
            nonlocal got
            got = await read_all(stream)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            began = time.monotonic()
            await stream.send_all(sent)
            await stream.send_eof()
        seconds = time.monotonic() - began
        async with await tunnel.connect() as small:
            for number in range(200):
                began = time.monotonic()
                await small.send_all(b"%8d" % number)
                assert await small.receive_some() == b"%8d" % number
                trips.append(time.monotonic() - began)
        assert hashlib.sha256(got).digest() == hashlib.sha256(sent).digest()
        await trio.sleep(0.4)
        counted = tunnel.near.statistics()
        assert (counted.bytes_up, counted.bytes_down) == (len(sent) + 1600, len(sent) + 1600)
        assert (counted.connections, counted.connections_total) == (0, 2)
        measured = await tunnel.near.measure()
        assert 0 < measured.rtt < 1
        assert measured.rate > 1e6
        show(
            "50 MB there and back",
            f"{seconds:.2f} s; 8 bytes p50 {sorted(trips)[100] * 1e6:.0f} us",
        )
        show("measured", measured)


@limit(60)
async def test_the_end_of_one_direction_leaves_the_other_as_it_is() -> None:
    """The target answers after it has heard the end; and it may end first."""

    async def serve(stream: trio.SocketStream) -> None:
        first = await stream.receive_some(1)
        if first == b"a":
            await stream.send_all(b"%d" % len(await read_all(stream)))
        else:
            await stream.send_eof()
            heard.append(await read_all(stream))

    heard: list[bytes] = []
    async with open_tunnel(serve) as tunnel:
        async with await tunnel.connect() as stream:
            await stream.send_all(b"a" + b"x" * 300_000)
            await stream.send_eof()
            assert await read_all(stream) == b"300000"
        async with await tunnel.connect() as stream:
            await stream.send_all(b"b")
            assert await read_all(stream) == b""
            await stream.send_all(b"y" * 300_000)
            await stream.send_eof()
            while not heard:
                await trio.sleep(0.01)
        assert heard == [b"y" * 300_000]


@limit(60)
async def test_what_breaks_off_at_the_target_breaks_off_here() -> None:
    """A reset is no end: the program must not take half an answer for a whole one."""

    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all(b"half")
        await stream.receive_some()
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    async with open_tunnel(serve) as tunnel, await tunnel.connect() as stream:
        assert await stream.receive_some() == b"half"
        await stream.send_all(b"x")
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()


@limit(60)
async def test_nobody_but_the_lease_gets_in() -> None:
    """Another lease's client and server, none at all, other protocols, other ports; and an end."""
    async with open_tunnel() as tunnel:
        (place,) = tunnel.far.addresses
        seconds: dict[str, float] = {}

        async def refuse(
            name: str, ours: LeaseCertificate, trusted: LeaseCertificate, rule: str
        ) -> None:
            began = time.monotonic()
            with pytest.raises(NotPermitted) as refused:
                await tunnel.here.open_near([place], certificate=ours, trusted_pem=trusted.pem)
            seconds[name] = time.monotonic() - began
            assert refused.value.rule == rule

        # A port that is not on the list: neither when it is opened, nor once it is off the list.
        with pytest.raises(NotPermitted, match="is not one that tunnels may lead to"):
            await tunnel.there.open_far(
                [HERE], [0], certificate=tunnel.theirs, trusted_pem=tunnel.ours.pem, target=22
            )
        tunnel.there.forbid(tunnel.far.target)
        # Its answer comes after the carrier has heard what was said before.
        await refuse("another client", make_certificate(), tunnel.theirs, "refused")
        with pytest.raises((OSError, trio.BrokenResourceError)):
            async with await tunnel.connect() as stream:
                await stream.receive_some()
        tunnel.there.allow(tunnel.far.target)
        await refuse("another server", tunnel.ours, make_certificate(), "certificate")
        for name, knock in (("no certificate", _without), ("HTTP", _http)):
            began = time.monotonic()
            assert await off(knock, place) == b""
            seconds[name] = time.monotonic() - began
        # The lease itself is as well as ever.
        async with await tunnel.connect() as stream:
            await stream.send_all(b"x")
            assert await stream.receive_some() == b"x"
            began = time.monotonic()
            await tunnel.far.aclose()
            with trio.fail_after(5):
                with suppress(trio.BrokenResourceError):
                    assert await stream.receive_some() == b""
                await tunnel.near.lost.wait()
            seconds["open when it ended"] = time.monotonic() - began
        with pytest.raises(OSError, match="all attempts to connect"):
            await tunnel.connect()
        began = time.monotonic()
        with pytest.raises(PeerUnreachable):
            await tunnel.here.open_near(
                [place], certificate=tunnel.ours, trusted_pem=tunnel.theirs.pem
            )
        seconds["an ended lease"] = time.monotonic() - began
        assert tunnel.near.why == "the other side has ended the lease"
        show("refused after (s)", {name: round(each, 3) for name, each in seconds.items()})
        # By an answer, each of them, and not by a time that is over.
        assert max(seconds.values()) < HANDSHAKE_SECONDS


def _without(place: Place) -> bytes:
    """What a client hears that shows no certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection((place.host, place.port), timeout=5) as plain:
        try:
            with context.wrap_socket(plain) as secure:
                return secure.recv(1)
        except (ssl.SSLError, ConnectionError):
            return b""


def _http(place: Place) -> bytes:
    """What a browser hears."""
    with socket.create_connection((place.host, place.port), timeout=5) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        try:
            # OpenSSL says in an alert that this is no TLS.
            while data := plain.recv(100):
                assert data.startswith(b"\x15\x03")
        except ConnectionError:
            pass
        return b""


@limit(60)
async def test_a_reader_that_stalls_holds_a_bounded_number_of_bytes_and_loses_none() -> None:
    """For longer than a kernel would wait for bytes that nobody acknowledges."""
    may_read = trio.Event()
    got = 0

    async def serve(stream: trio.SocketStream) -> None:
        nonlocal got
        await may_read.wait()
        got = len(await read_all(stream))
        await stream.send_eof()

    async with open_tunnel(serve) as tunnel, await tunnel.connect() as stream:
        processes = [psutil.Process(each.pid) for each in (tunnel.here, tunnel.there)]
        before = [each.memory_info().rss for each in processes]
        sent = 0

        async def send() -> None:
            nonlocal sent
            for _ in range(600):
                await stream.send_all(bytes(100_000))
                sent += 100_000
            await stream.send_eof()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            stalled_at = -1
            while stalled_at != tunnel.near.statistics().bytes_up or not stalled_at:
                stalled_at = tunnel.near.statistics().bytes_up
                # Longer than it takes to be told of more.
                await trio.sleep(0.6)
            await trio.sleep(2.6)
            grown = [
                each.memory_info().rss - was for each, was in zip(processes, before, strict=True)
            ]
            show("a stalled reader", f"{stalled_at} bytes taken, memory grew by {grown}")
            assert tunnel.near.statistics().bytes_up == stalled_at
            assert max(grown) < 4 * MAX_QUEUED_BYTES
            assert not tunnel.near.lost.is_set()
            may_read.set()
            assert await read_all(stream) == b""
        assert got == sent == 60_000_000


@limit(60)
async def test_a_far_side_that_is_stopped_or_cut_off_is_lost_within_seconds() -> None:
    """Its kernel answers as ever in one case, and nothing answers in the other."""
    async with open_tunnel(carriers=2) as tunnel, trio.open_nursery() as nursery:
        tunnel.here.allow(tunnel.far.target)
        far = await tunnel.here.open_far(
            [HERE],
            [0],
            certificate=tunnel.theirs,
            trusted_pem=tunnel.ours.pem,
            target=tunnel.far.target,
        )
        wire = _Wire(far.addresses[0])
        await nursery.start(wire.run)
        cut = await tunnel.here.open_near(
            [Place(HERE, wire.port)], certificate=tunnel.ours, trusted_pem=tunnel.theirs.pem
        )
        seconds: dict[str, float] = {}

        async def wait_for(name: str, near: NearEnd, stream: trio.SocketStream) -> None:
            began = time.monotonic()
            await near.lost.wait()
            seconds[name] = time.monotonic() - began
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()

        async with await tunnel.connect() as one, await trio.open_tcp_stream(HERE, cut.port) as two:
            for stream in (one, two):
                await stream.send_all(b"x")
                assert await stream.receive_some() == b"x"
            assert tunnel.there.pid is not None
            os.kill(tunnel.there.pid, signal.SIGSTOP)
            wire.is_cut = True
            try:
                async with trio.open_nursery() as waiting:
                    waiting.start_soon(wait_for, "stopped", tunnel.near, one)
                    waiting.start_soon(wait_for, "cut", cut, two)
            finally:
                os.kill(tunnel.there.pid, signal.SIGCONT)
        show("lost after (s)", {name: round(each, 2) for name, each in seconds.items()})
        assert cut.why == tunnel.near.why == "the other side said nothing for 2.75 s"
        assert max(seconds.values()) <= SILENCE_SECONDS + 0.75
        nursery.cancel_scope.cancel()


class _Wire:
    """Carries bytes to *place* until it is cut: then it carries none, and says nothing of it."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.port = 0
        self.is_cut = False

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        (listener,) = await trio.open_tcp_listeners(0, host=HERE)
        self.port = listener.socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self._carry, [listener])

    async def _carry(self, one: trio.SocketStream) -> None:
        async with await trio.open_tcp_stream(self.place.host, self.place.port) as two:
            async with one, trio.open_nursery() as nursery:
                nursery.start_soon(self._copy, one, two)
                nursery.start_soon(self._copy, two, one)

    async def _copy(self, one: trio.SocketStream, two: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in one:
                if self.is_cut:
                    await trio.sleep_forever()
                await two.send_all(data)


@limit(60)
async def test_a_carrier_that_is_killed_is_known_at_both_ends_and_starts_anew() -> None:
    """The other side of it at once; a tunnel that is opened next has a new process."""
    async with open_tunnel(carriers=2) as tunnel:
        before = tunnel.there.pid
        assert before is not None
        os.kill(before, signal.SIGKILL)
        with trio.fail_after(2):
            await tunnel.near.lost.wait()
            await tunnel.far.lost.wait()
        assert tunnel.far.why == "the carrier of tunnels ended with SIGKILL"
        far = await tunnel.there.open_far(
            [HERE],
            [0],
            certificate=tunnel.theirs,
            trusted_pem=tunnel.ours.pem,
            target=tunnel.far.target,
        )
        near = await tunnel.here.open_near(
            far.addresses, certificate=tunnel.ours, trusted_pem=tunnel.theirs.pem
        )
        async with near, await trio.open_tcp_stream(HERE, near.port) as stream:
            await stream.send_all(b"again")
            assert await stream.receive_some() == b"again"
        assert tunnel.there.pid != before


@limit(60)
async def test_strangers_that_say_nothing_keep_nobody_out() -> None:
    """More of them than there are places: each has its own for seconds, and the lease gets in."""
    async with open_tunnel() as tunnel:
        (place,) = tunnel.far.addresses
        strangers = [
            socket.create_connection((place.host, place.port))
            for _ in range(3 * MAX_STRANGERS_OF_SITE)
        ]
        try:
            began = time.monotonic()
            near = await tunnel.here.open_near(
                [place], certificate=tunnel.ours, trusted_pem=tunnel.theirs.pem
            )
            async with near, await trio.open_tcp_stream(HERE, near.port) as stream:
                await stream.send_all(b"in")
                assert await stream.receive_some() == b"in"
            seconds = time.monotonic() - began
            show("the lease beside 48 strangers", f"{seconds:.3f} s")
            # It waits for no stranger's time to be over.
            assert seconds < HANDSHAKE_SECONDS
            for each in strangers:
                each.settimeout(HANDSHAKE_SECONDS + 1)
                with suppress(ConnectionError):
                    assert await off(each.recv, 1) == b""
        finally:
            for each in strangers:
                each.close()


PARENT = """
import os, signal, trio
from punch.tunnels import make_certificate, open_carrier

async def main():
    async with open_carrier() as carrier:
        carrier.allow(9)
        one, two = make_certificate(), make_certificate()
        await carrier.open_far(
            ["127.0.0.1"], [0], certificate=one, trusted_pem=two.pem, target=9
        )
        print(carrier.pid, flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


@limit(60)
async def test_a_carrier_ends_with_its_parent_and_shows_no_key() -> None:
    """However the parent ends; and what others may read of a process has no key."""
    with subprocess.Popen(  # noqa: ASYNC220 - It takes milliseconds.
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, cwd=ROOT, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(await off(parent.stdout.readline))
        process = psutil.Process(pid)
        seen = " ".join([*process.cmdline(), *process.environ().values()])
        files = [each.path for each in process.open_files()]
        assert "PRIVATE" not in seen
        assert files == []
        parent.kill()
    deadline = time.monotonic() + 3
    while alive(pid) and time.monotonic() < deadline:
        await trio.sleep(0.02)
    assert not alive(pid)
