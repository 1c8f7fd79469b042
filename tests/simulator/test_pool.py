"""How machines are written down."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punch.exceptions import ConfigurationError
from punch.simulator import parse_pool


def test_speeds_are_machines() -> None:
    """Named by letter and speed, in order."""
    pool = parse_pool("1:4:10")
    assert [peer.name for peer in pool.peers] == ["a-x1", "b-x4", "c-x10"]
    assert [peer.decode_rate for peer in pool.peers] == [50, 200, 500]


def test_a_home_has_six_machines_of_which_one_comes_and_goes() -> None:
    """One strong, two middling, three weak."""
    peers = parse_pool("home").peers
    assert len(peers) == 6
    assert [peer.name for peer in peers if peer.presence < 1] == ["weak-3"]


def test_a_machine_can_be_described_in_full() -> None:
    """Every field by its short name."""
    (peer,) = parse_pool(
        "x=2,slots=3,prefill=7,slowdown=0,cache=9,delay=0.1,load=4,up=60,down=30,fail=0.5"
    ).peers
    assert (peer.name, peer.slots, peer.prefill_rate, peer.decode_rate) == ("x", 3, 7, 100)
    assert (peer.slowdown, peer.cache_tokens, peer.delay, peer.load_seconds) == (0, 9, 0.1, 4)
    assert peer.presence == pytest.approx(2 / 3)
    assert peer.failing == 0.5


def test_many_machines_of_a_kind_are_one_word() -> None:
    """With fields of their own."""
    pool = parse_pool("100x2,slots=8 one=1")
    assert len({peer.name for peer in pool.peers}) == 101
    assert pool.peers[0].slots == 8


def test_capacity_is_one_prompt_at_a_time_and_answers_side_by_side() -> None:
    """A thousand tokens to read take a second; four answers of four seconds take one each."""
    (peer,) = parse_pool("x=1,slowdown=0").peers
    assert peer.requests_per_second(input_tokens=1000, output_tokens=1) == pytest.approx(
        1, rel=0.01
    )
    assert peer.requests_per_second(input_tokens=1, output_tokens=100) == pytest.approx(2, rel=0.01)
    assert peer.requests_per_second(input_tokens=1000, output_tokens=200) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("1 1 1 5.6", ["a-x1", "b-x1", "c-x1", "d-x5.6"]),
        ("1:1:1:5.6", ["a-x1", "b-x1", "c-x1", "d-x5.6"]),
        ("1 1.0 1", ["a-x1", "b-x1", "c-x1"]),
        ("1,slots=2 1:1", ["a-x1", "b-x1", "c-x1"]),
        ("2x1 1 2x1", ["peer-000", "peer-001", "a-x1", "peer-002", "peer-003"]),
        # A name that was given is kept, wherever it stands.
        ("1 a-x1=2", ["a-x1-2", "a-x1"]),
        ("a-x1=2 1 1", ["a-x1", "a-x1-2", "b-x1"]),
        ("peer-000=2 1x1", ["peer-000", "peer-000-2"]),
    ],
)
def test_equal_machines_may_be_named_by_their_speed_alone(text: str, names: list[str]) -> None:
    """Each gets a name of its own, the same in one word as in several."""
    assert [peer.name for peer in parse_pool(text).peers] == names


def test_a_hundred_equal_machines_have_a_hundred_names() -> None:
    """However they are written."""
    for text in (" ".join(["1"] * 100), ":".join(["1"] * 100), "100x1", " ".join(["10x1"] * 10)):
        assert len({peer.name for peer in parse_pool(text).peers}) == 100
    assert len({peer.name for peer in parse_pool("home home home").peers}) == 18


@given(
    st.lists(
        st.sampled_from(("1", "1.0", "2:1:2", "3x1", "home", "5.6,slots=2", "peer-1=1", "a-x1=3")),
        min_size=1,
        max_size=40,
    )
)
def test_no_two_machines_of_a_pool_share_a_name(words: list[str]) -> None:
    """Unless the text itself gives a name twice, which is refused."""
    text = " ".join(words)
    if any("=" in word.split(",")[0] and words.count(word) > 1 for word in words):
        with pytest.raises(ConfigurationError, match="twice"):
            parse_pool(text)
        return
    names = [peer.name for peer in parse_pool(text).peers]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "empty"),
        ("1:x", "describes no machine"),
        ("1:0", "above 0"),
        ("1:.", "above 0"),
        ("a=1,wheels=4", "slots=NUMBER"),
        ("a=1,slots=0", "1 or more"),
        ("a=1,slots=two", "a number"),
        ("a=1,fail=2", "from 0 to 1"),
        ("a=1,up=5", "both up and down"),
        ("a=1 a=2", "twice"),
        ("100x1 a=1 a=2", "twice"),
        ("5000x1", "too many"),
        ("600x1 a=1", ""),
        ("999x1 a=1", "a namespace takes"),
    ],
)
def test_a_mistake_is_answered_with_the_rule(text: str, rule: str) -> None:
    """And nothing is guessed."""
    if not rule:
        assert len(parse_pool(text).peers) == 601
        return
    with pytest.raises(ConfigurationError, match="--peers") as caught:
        parse_pool(text)
    assert rule in str(caught.value)
