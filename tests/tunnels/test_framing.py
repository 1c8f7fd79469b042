"""The frames of a tunnel: their bytes, however they are cut, and what is no frame."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punch.exceptions import RemoteProtocolError
from punch.tunnels import _framing as framing
from punch.tunnels._framing import TunnelFrames, frame

WORDS = st.tuples(
    st.sampled_from([framing.END, framing.OPEN, framing.PING, framing.FAILED, 77]),
    st.binary(max_size=framing.MAX_WORD),
)
BULK = st.tuples(st.sampled_from([framing.DATA, framing.FILL]), st.binary(max_size=2000))


def joined(found: list[tuple[int, bytes | memoryview]]) -> list[tuple[int, bytes]]:
    """Neighbouring pieces of DATA and of FILL put together, since they come as they arrive."""
    result: list[tuple[int, bytes]] = []
    for kind, payload in found:
        if kind in (framing.DATA, framing.FILL):
            if not payload:
                continue
            if result and result[-1][0] == kind:
                result[-1] = (kind, result[-1][1] + bytes(payload))
                continue
        result.append((kind, bytes(payload)))
    return result


@pytest.mark.parametrize(
    ("kind", "payload", "expected"),
    [
        (framing.DATA, b"abc", b"\0\0\0\3abc"),
        (framing.END, b"", b"\1\0\0\0"),
        (framing.OPEN, b"", b"\2\0\0\0"),
        (framing.WATCH, b"", b"\3\0\0\0"),
        (framing.PING, b"12345678", b"\4\0\0\x0812345678"),
        (framing.PONG, b"12345678", b"\5\0\0\x0812345678"),
        (framing.READY, b"", b"\6\0\0\0"),
        (framing.FAILED, b"no", b"\7\0\0\2no"),
        (framing.FILL, b"\0", b"\x08\0\0\1\0"),
        (framing.TAKEN, b"\0" * 8, b"\x09\0\0\x08" + b"\0" * 8),
        (framing.BYE, b"", b"\x0a\0\0\0"),
    ],
)
def test_the_bytes_of_each_frame_stay_what_they_are(
    kind: int, payload: bytes, expected: bytes
) -> None:
    """Two versions of punch can be at the two ends."""
    assert frame(kind, payload) == expected


@given(st.lists(st.one_of(WORDS, BULK), max_size=20), st.integers(1, 4000))
def test_what_was_framed_comes_out_however_it_was_cut(
    sent: list[tuple[int, bytes]], size: int
) -> None:
    """A connection cuts where it likes."""
    data = b"".join(frame(kind, payload) for kind, payload in sent)
    frames = TunnelFrames()
    found = [each for at in range(0, len(data), size) for each in frames.feed(data[at : at + size])]
    assert joined(found) == joined(list(sent))


@given(st.binary(max_size=4000), st.integers(1, 700))
def test_bytes_that_are_no_frames_raise_a_protocol_error_and_nothing_else(
    data: bytes, size: int
) -> None:
    """And what is kept of them stays below the longest word."""
    frames = TunnelFrames()
    try:
        for at in range(0, len(data), size):
            frames.feed(data[at : at + size])
            assert len(frames._body) <= framing.MAX_WORD
    except RemoteProtocolError:
        pass


@pytest.mark.parametrize(
    ("kind", "size"),
    [(framing.DATA, framing.MAX_PAYLOAD + 1), (framing.PING, framing.MAX_WORD + 1), (255, 1 << 20)],
)
def test_a_frame_that_is_too_long_is_refused_at_its_head(kind: int, size: int) -> None:
    """Before any of it is kept."""
    with pytest.raises(RemoteProtocolError, match="are allowed"):
        TunnelFrames().feed((kind << 24 | size).to_bytes(4, "big"))
