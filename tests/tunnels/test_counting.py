"""What a near end counts: bytes, messages, the oldest reply that is due; and silence."""

from __future__ import annotations

import pytest

from punch.tunnels import TunnelStatistics
from punch.tunnels._counting import Counting
from punch.tunnels._silence import Silence

# Hello of RPC 7: a command, u64 bytes that follow; the reply has a u64 too, and the version.
HELLO = b"\x0e" + (0).to_bytes(8, "little")
ANSWER = (3).to_bytes(8, "little") + b"\x07\x00\x00"


def counting(*, frames: bool = True) -> Counting:
    """One that begins at 0."""
    return Counting(Silence(0.0, step=0.25), frames=frames)


def test_the_oldest_reply_of_all_connections_is_the_one_that_counts() -> None:
    """A worker that hangs is seen by it, while others answer."""
    counts = counting()
    first, second = counts.begin(), counts.begin()
    first.up(HELLO, 10.0)
    second.up(HELLO, 12.0)
    assert counts.values(15.0)["oldest_reply_age"] == 5.0
    first.down(ANSWER, 15.0)
    assert counts.values(15.0)["oldest_reply_age"] == 3.0
    second.close()
    found = TunnelStatistics(**counts.values(15.0))
    assert (found.oldest_reply_age, found.messages, found.connections) == (None, 2, 1)
    assert (found.bytes_up, found.bytes_down) == (2 * len(HELLO), len(ANSWER))


def test_what_is_no_rpc_is_counted_in_bytes_and_said() -> None:
    """And without frames, nothing is read at all."""
    counts = counting()
    meter = counts.begin()
    meter.up(b"GET / HTTP/1.1\r\n\r\n", 0.0)
    found = TunnelStatistics(**counts.values(9.0))
    assert found.trouble is not None
    assert (found.bytes_up, found.oldest_reply_age) == (18, None)
    meter.close()
    assert TunnelStatistics(**counts.values(9.0)).trouble == found.trouble
    plain = counting(frames=False)
    plain.begin().up(HELLO, 0.0)
    assert TunnelStatistics(**plain.values(9.0)).messages is None


def test_what_ends_a_head_is_kept_when_its_connection_is_gone() -> None:
    """Whoever asks why the head has ended asks later."""
    counts = counting()
    meter = counts.begin()
    meter.up(HELLO, 0.0)
    meter.down(b"HTTP/1.1 400 Bad Request\r\n\r\n", 1.0)
    fault = TunnelStatistics(**counts.values(1.0)).fault
    assert fault == "it answers what is no reply"
    meter.close()
    assert TunnelStatistics(**counts.values(2.0)).fault == fault
    other = counting()
    meter = other.begin()
    meter.up(HELLO, 0.0)
    meter.down(ANSWER, 0.0)
    assert TunnelStatistics(**other.values(0.0)).fault is None
    meter.ended_there()
    meter.close()
    assert TunnelStatistics(**other.values(0.0)).fault is not None


def test_news_is_what_was_not_told_before() -> None:
    """Nothing is said of a tunnel that carries nothing."""
    counts = counting(frames=False)
    assert counts.news(0.0) is not None
    assert counts.news(1.0) is None
    counts.begin().up(b"x", 1.0)
    assert counts.news(2.0) is not None
    assert counts.news(3.0) is None


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        ([0.25, 0.5, 0.75], 0.75),
        # Whoever was stopped for an hour heard nobody in it.
        ([0.25, 3600.0], 0.75),
        ([], 0.0),
    ],
)
def test_silence_counts_the_time_in_which_somebody_could_be_heard(
    looks: list[float], expected: float
) -> None:
    """A look that is late counts for two."""
    silence = Silence(0.0, step=0.25)
    found = 0.0
    for now in looks:
        found = silence.look(now)
    assert found == expected
    silence.heard()
    assert silence.look(7200.0) == 0.0
