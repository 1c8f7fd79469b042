"""The stream from a process to itself keeps the rules of every other stream."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from punch.capability import PeerId
from punch.exceptions import PeerUnreachable
from punch.network import open_loopback
from punch.network._loopback import MAX_BUFFERED_BYTES, MAX_READ_BYTES, STALL_SECONDS

ME = PeerId("me")


async def test_bytes_arrive_whole_and_in_order(autojump_clock: MockClock) -> None:
    """In both directions, at most 64 KiB at a time."""
    near, far = open_loopback(ME)
    sent = bytes(range(256)) * 4096
    received = bytearray()

    async def read() -> None:
        while data := await far.receive_some():
            assert len(data) <= MAX_READ_BYTES
            received.extend(data)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        for start in range(0, len(sent), 100_000):
            await near.send_all(sent[start : start + 100_000])
        await near.aclose()
    assert bytes(received) == sent


async def test_both_ends_name_this_process() -> None:
    """There is nobody else to name."""
    assert {end.peer_id for end in open_loopback(ME)} == {ME}


async def test_what_was_sent_before_the_end_is_still_read() -> None:
    """Then there is no more, however often one asks."""
    near, far = open_loopback(ME)
    await near.send_all(b"last words")
    await near.aclose()
    assert [await far.receive_some() for _ in range(3)] == [b"last words", b"", b""]


@pytest.mark.parametrize("which", ["near", "far"])
async def test_writing_to_an_ended_stream_is_refused(which: str) -> None:
    """Whichever end has ended it."""
    near, far = open_loopback(ME)
    await (near if which == "near" else far).aclose()
    with pytest.raises(PeerUnreachable):
        await near.send_all(b"anybody?")


async def test_a_writer_waits_for_its_reader_and_holds_no_more_than_the_limit(
    autojump_clock: MockClock,
) -> None:
    """A reader that is slow bounds the memory of its writer."""
    near, far = open_loopback(ME)
    async with trio.open_nursery() as nursery:
        await near.send_all(bytes(MAX_BUFFERED_BYTES))
        written = trio.Event()

        async def write() -> None:
            await near.send_all(b"more")
            written.set()

        nursery.start_soon(write)
        await trio.testing.wait_all_tasks_blocked()
        assert not written.is_set()
        await far.receive_some()
        await written.wait()


async def test_a_reader_that_takes_nothing_ends_the_stream(autojump_clock: MockClock) -> None:
    """A write is shielded, so it may not wait for ever."""
    near, far = open_loopback(ME)
    await near.send_all(bytes(MAX_BUFFERED_BYTES))
    began = trio.current_time()
    with pytest.raises(PeerUnreachable, match="took nothing"):
        await near.send_all(b"more")
    assert trio.current_time() - began == pytest.approx(STALL_SECONDS)
    while await far.receive_some():
        pass


async def test_a_reader_that_waits_hears_of_the_end() -> None:
    """It does not wait for ever."""
    near, far = open_loopback(ME)
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            assert await far.receive_some() == b""

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        near.end()
