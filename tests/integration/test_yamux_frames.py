"""What arrives on a connection is cut into the frames of Yamux, however it was cut on its way."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from libp2p.stream_muxer.exceptions import MuxedStreamError

from punch.libp2p.defects._yamux import _Frames

HEAD = struct.Struct("!BBHII")
DATA, UPDATE, PING = 0, 1, 2
SYN, FIN = 1, 4

Frame = tuple[int, int, int, int, bytes]

numbers = st.integers(0, (1 << 32) - 1)
flags = st.integers(0, 15)
plain = st.tuples(st.sampled_from([UPDATE, PING]), flags, numbers, numbers, st.just(b""))
of_data = st.tuples(st.just(DATA), flags, numbers, st.binary(max_size=40)).map(
    lambda found: (*found[:3], len(found[3]), found[3])
)


def spelled(frames: list[Frame]) -> bytes:
    """Their bytes."""
    return b"".join(HEAD.pack(0, *frame[:4]) + frame[4] for frame in frames)


@given(st.lists(plain | of_data, max_size=6), st.lists(st.integers(0, 300), max_size=8))
def test_frames_are_the_same_however_they_arrive(frames: list[Frame], cuts: list[int]) -> None:
    """Headers in several parts, bodies in several parts, or all of them at once."""
    data = spelled(frames)
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    cutter = _Frames()
    found = [piece for begin, end in pairwise(places) for piece in cutter.cut(data[begin:end])]
    assert b"".join(piece[4] for piece in found) == b"".join(frame[4] for frame in frames)
    assert [piece for piece in found if piece[0] != DATA] == [
        frame for frame in frames if frame[0] != DATA
    ]
    assert [*_Frames().cut(data)] == frames


def test_a_body_begins_with_the_first_flags_and_ends_with_the_last() -> None:
    """A stream is there before its data is, and is not over before all of it has come."""
    cutter = _Frames()
    data = HEAD.pack(0, DATA, SYN | FIN, 3, 4) + b"abcd"
    pieces = [*cutter.cut(data[:14]), *cutter.cut(data[14:])]
    assert pieces == [(DATA, SYN, 3, 2, b"ab"), (DATA, FIN, 3, 2, b"cd")]


@pytest.mark.parametrize("head", [HEAD.pack(1, DATA, 0, 1, 0), HEAD.pack(0, 4, 0, 1, 0)])
def test_what_is_not_yamux_is_refused(head: bytes) -> None:
    """Another version, and a type that there is not."""
    with pytest.raises(MuxedStreamError):
        list(_Frames().cut(head))
