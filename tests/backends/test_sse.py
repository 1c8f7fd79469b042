"""Server-sent events: the same events, wherever the bytes are cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punch.backends.openai import _sse
from punch.backends.openai._sse import EventReader
from punch.exceptions import GenerationFailed

ENDS = st.sampled_from(["\n", "\r\n", "\r"])
TEXT = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=20)


def read(data: bytes, *cuts: int) -> list[str]:
    """The events of *data*, fed in pieces that end at *cuts*."""
    reader = EventReader()
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[a:b] for a, b in pairwise(places)]
    return [event for piece in pieces for event in reader.feed(piece)]


@given(st.lists(st.lists(TEXT, min_size=1, max_size=3), max_size=4), ENDS, st.lists(st.integers(0)))
def test_every_cut_gives_the_same_events(
    events: list[list[str]], end: str, cuts: list[int]
) -> None:
    """Events come out as they went in, however lines end and bytes are split."""
    lines = []
    for event in events:
        lines += [*(f"data: {part}" for part in event), ""]
    data = "".join(line + end for line in lines).encode()
    assert read(data, *(cut % (len(data) + 1) for cut in cuts)) == ["\n".join(e) for e in events]


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_arbitrary_bytes_are_read_the_same_in_pieces(data: bytes, cuts: list[int]) -> None:
    """No bytes break the reader, and no cut changes what it reads."""
    assert read(data, *cuts) == read(data)


def test_comments_and_other_fields_are_skipped() -> None:
    """llama-server sends a comment every 30 s while it reads a prompt."""
    assert read(b": ping\n\nevent: x\nid: 4\nretry: 5\ndata:a\n\n: ping\n\n") == ["a"]


def test_an_event_without_its_empty_line_is_no_event() -> None:
    """A cut-off stream gives no half event."""
    assert read(b"data: one\n\ndata: two\n") == ["one"]


def test_a_byte_order_mark_is_skipped() -> None:
    """The standard allows one at the very beginning."""
    assert read(b"\xef\xbb\xbfdata: a\n\n") == ["a"]


def test_only_one_space_after_the_colon_belongs_to_the_format() -> None:
    """Further ones are data."""
    assert read(b"data:  a\n\ndata:b\n\n") == [" a", "b"]


def test_a_line_that_never_ends_is_given_up() -> None:
    """Memory is bounded by one event."""
    with pytest.raises(GenerationFailed, match="longer than 1048576 bytes"):
        read(b"x" * 2_000_000, *range(0, 2_000_000, 65536))


def test_an_event_of_many_lines_is_given_up() -> None:
    """The bound is for the event, not only for its lines."""
    with pytest.raises(GenerationFailed, match="an event longer than"):
        read((b"data: " + b"x" * 65536 + b"\n") * 20)


def test_a_stream_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole stream is bounded as well."""
    monkeypatch.setattr(_sse, "MAX_STREAM_BYTES", 100)
    with pytest.raises(GenerationFailed, match="longer than 100 bytes"):
        read(b"data: a\n\n" * 20, *range(0, 180, 9))
