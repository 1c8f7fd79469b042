"""Stop sequences that begin in one peer's text and end in the next one's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from punch.routing import StopAcrossPeers

texts = st.text("ab", max_size=12)
stops = st.lists(st.text("ab", min_size=1, max_size=4), max_size=3)


def taken(seam: StopAcrossPeers, pieces: list[str]) -> str:
    """What is delivered of *pieces*, up to a stop."""
    found = []
    for piece in pieces:
        found.append(seam.take(piece))
        if seam.stopped:
            return "".join(found)
    return "".join([*found, seam.rest()])


@given(before=texts, after=st.lists(texts), stops=stops)
def test_only_a_stop_across_the_seam_takes_text_away(
    before: str, after: list[str], stops: list[str]
) -> None:
    """In whatever pieces it comes: all of it is delivered, or, after such a stop, none."""
    whole = "".join(after)
    crosses = any(
        before.endswith(stop[:cut]) and whole.startswith(stop[cut:])
        for stop in stops
        for cut in range(1, len(stop))
    )
    seam = StopAcrossPeers(before, stops)
    assert taken(seam, after) == ("" if crosses else whole)
    assert seam.stopped == crosses


def test_text_is_held_only_while_it_may_still_be_a_stop() -> None:
    """The reader waits for nothing else."""
    seam = StopAcrossPeers("so END", ["END OF FILE"])
    assert [seam.take(" OF"), seam.take(" A"), seam.take(" DAY")] == ["", " OF A", " DAY"]
    assert not seam.stopped


def test_what_was_held_is_delivered_when_nothing_more_comes() -> None:
    """Half a stop is text."""
    seam = StopAcrossPeers("so END", ["END OF FILE"])
    assert (seam.take(" OF"), seam.rest(), seam.rest()) == ("", " OF", "")
