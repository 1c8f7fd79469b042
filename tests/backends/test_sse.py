"""Server-sent events: the same events, wherever the bytes are cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punch.backends.openai import _sse
from punch.backends.openai._sse import Event, EventReader
from punch.exceptions import GenerationFailed

ENDS = st.sampled_from(["\n", "\r\n", "\r"])
TEXT = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=20)


def read(data: bytes, *cuts: int) -> list[str]:
    """The events of *data*, fed in pieces that end at *cuts*."""
    reader = EventReader()
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[a:b] for a, b in pairwise(places)]
    return [event.data for piece in pieces for event in reader.feed(piece)]


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


@pytest.mark.parametrize(
    ("end", "last"),
    [
        (b'data: {"a": 1}', [Event('{"a": 1}')]),
        (b'data: {"a": 1}\r\n', [Event('{"a": 1}')]),
        (b"data: [DONE]", [Event("[DONE]")]),
        (b"error: sorry", [Event("sorry", "error")]),
        (b'{"a":\n 1}', [Event('{"a":\n 1}', "bare")]),
        (b'data: {"a": 1', []),
        (b"data: [DON", []),
        (b"data: two\n", []),
        (b"data", []),
    ],
)
def test_the_last_event_needs_no_empty_line_if_it_is_all_there(
    end: bytes, last: list[Event]
) -> None:
    """A cut-off stream gives no half event."""
    reader = EventReader()
    assert reader.feed(b"data: one\n\n" + end) == [Event("one")]
    assert reader.finish() == last


def test_a_value_ends_an_event_where_there_are_no_empty_lines() -> None:
    """Lines of one value are one event all the same."""
    assert read(b'data: {"a": 1}\ndata: {"b":\ndata: 2}\ndata: [DONE]\n\n') == [
        '{"a": 1}',
        '{"b":\n2}',
        "[DONE]",
    ]


def test_an_error_is_known_by_the_name_of_its_event_or_field() -> None:
    """Only for that event."""
    reader = EventReader()
    data = b"event: error\ndata: a\n\ndata: b\n\nerror: c\n\nevent: error\n\n"
    assert reader.feed(data) == [
        Event("a", "error"),
        Event("b"),
        Event("c", "error"),
        Event("", "error"),
    ]


def test_what_is_no_event_is_told_without_its_markup() -> None:
    """On one line, and not all of a page."""
    reader = EventReader()
    page = b"<html><style>p {}</style><body>\n<h1>502</h1> <!-- x -->Bad\n  gateway</body></html>"
    assert reader.feed(page) == []
    assert reader.finish() == []
    assert reader.words == "502 Bad gateway"


def test_a_long_value_is_no_event_that_is_too_long() -> None:
    """A whole answer may come with many log-probabilities, on one line."""
    reader = EventReader()
    value = b'{"a": "' + b"x" * 2_000_000 + b'"}'
    for start in range(0, len(value), 65536):
        assert reader.feed(value[start : start + 65536]) == []
    assert reader.finish() == [Event(value.decode(), "bare")]


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
