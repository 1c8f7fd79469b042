"""What peers are called: their own words, which pass for no other peer and for no identity."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punch.capability import MAX_MACHINE_NAME_CHARACTERS, PeerId
from punch.peers import checked_name, short_id, shown_names

A, B, C = (PeerId(f"12D3KooW{'x' * 40}{end}") for end in ("aaaa", "bbbb", "cccc"))


def test_a_name_stands_in_the_place_of_an_identity() -> None:
    """Without one, the end of the identity stands there."""
    assert shown_names([(A, "kitchen"), (B, None)]) == {A: "kitchen", B: short_id(B)}


@pytest.mark.parametrize("other", ["kitchen", "Kitchen", " kitchen ", "\uff4bitchen"])
def test_peers_whose_names_look_alike_are_told_apart(other: str) -> None:
    """Whoever reads the table cannot take one for the other."""
    shown = shown_names([(A, "kitchen"), (B, other), (C, "attic")])
    assert shown[A] == f"kitchen {short_id(A)}"
    assert shown[B].endswith(short_id(B))
    assert shown[C] == "attic"


@pytest.mark.parametrize("name", ["..xxxxbbbb", "\u2026xxxxbbbb", short_id(B)])
def test_a_name_that_looks_like_an_identity_is_not_shown(name: str) -> None:
    """Its own identity is."""
    assert shown_names([(A, name), (B, None)])[A] == short_id(A)


@given(st.lists(st.one_of(st.none(), st.text(max_size=8)), max_size=6))
def test_no_two_peers_are_shown_alike(names: list[str | None]) -> None:
    """Whatever they say."""
    peers = [(PeerId(f"12D3KooW{number:060}"), name) for number, name in enumerate(names)]
    shown = shown_names(peers)
    assert len(set(shown.values())) == len(peers)


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "\x1b[2J", "x\u202ey", "..abc", "x" * 65])
def test_what_cannot_be_a_name_is_refused_where_it_is_given(name: str) -> None:
    """Empty, long, of two lines, what a terminal obeys, or like an identity."""
    with pytest.raises(ValueError, match="a name"):
        checked_name(name)


def test_a_name_may_be_as_long_as_the_wire_takes() -> None:
    """In any letters."""
    assert checked_name(" Küche 2 ") == "Küche 2"
    assert checked_name("x" * MAX_MACHINE_NAME_CHARACTERS)
