"""Stop sequences: the answer ends at the same place, wherever the text is cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from punch.backends._stop import StopMatcher, partial_suffix

# Few letters, so that sequences overlap with the text and with each other.
TEXT = st.text("ab\n", max_size=30)
STOPS = st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3)


def run(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    """What comes out for *pieces*, and whether it was stopped."""
    matcher = StopMatcher(stops)
    out = "".join(matcher.feed(piece) for piece in pieces)
    return out + matcher.finish(), matcher.stopped


@given(st.lists(TEXT, max_size=8), STOPS)
def test_the_answer_ends_before_the_first_stop(pieces: list[str], stops: list[str]) -> None:
    """What is delivered is the text before the earliest sequence, for every split."""
    text = "".join(pieces)
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    assert run(pieces, stops) == (text[: min(places, default=len(text))], bool(places))


@given(st.lists(TEXT, max_size=8), STOPS)
def test_no_more_is_held_back_than_could_be_a_stop(pieces: list[str], stops: list[str]) -> None:
    """Until it stops, less than the longest sequence is missing."""
    matcher = StopMatcher(stops)
    given_in, came_out = "", ""
    for piece in pieces:
        given_in += piece
        came_out += matcher.feed(piece)
        if matcher.stopped:
            break
        assert len(given_in) - len(came_out) < max(map(len, stops), default=1)


def test_text_comes_out_at_once_when_nothing_can_match() -> None:
    """A reader sees every token as it comes."""
    matcher = StopMatcher(["###"])
    assert [matcher.feed("Hello"), matcher.feed(" #1"), matcher.feed("#")] == ["Hello", " #1", ""]
    assert matcher.finish() == "#"


def test_a_sequence_across_pieces_is_found() -> None:
    """Tokens and stop sequences need not agree."""
    assert run(["one", " en", "d tw", "o"], ["end"]) == ("one ", True)


def test_an_empty_stop_sequence_stops_nothing() -> None:
    """It would end every answer before it begins."""
    assert run(["a"], [""]) == ("a", False)


def test_a_partial_suffix_is_never_the_whole_target() -> None:
    """The whole is a match, not a beginning."""
    assert partial_suffix("xab", ["ab", "abc"]) == 2
    assert partial_suffix("xab", ["ab"]) == 0
