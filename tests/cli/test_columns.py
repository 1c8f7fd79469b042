"""Tables of names that are long, wide or alike: columns stand, and what tells names apart stays."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from random import Random

import attrs
import decision_logs as made
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from punch.capability import Capability, Lane, Load, ModelOffer, PeerId
from punch.cli._columns import MIN_COLUMNS, aligned, cut, folded, padded, shortened, width_of
from punch.cli._output import explain, plain
from punch.cli.commands import why
from punch.cli.commands._peers import COLUMNS, table
from punch.events import Bus
from punch.peers import PeerRecord, short_id
from punch.routing import POLICIES, RouteRequest

WIDE = "\u53f0\u6240\u306e\u6a5f\u68b0"  # Five characters, ten columns.
KOREAN = "\u1112\u1161\u11ab\u1100\u1173\u11af"  # Two syllables of three letters each.
MARKED = "cafe\u0301"
LONG = "the-machine-in-the-attic-of-the-house-behind-the-garden-number-0"

letters = st.text(alphabet=st.sampled_from("ab-\u53f0\u0301\U0001f980"), max_size=40)


@pytest.mark.parametrize(
    ("text", "columns"),
    [("", 0), ("abc", 3), (WIDE, 10), (KOREAN, 4), (MARKED, 4), ("\U0001f980", 2), ("\uff21", 2)],
)
def test_a_text_is_as_wide_as_a_terminal_draws_it(text: str, columns: int) -> None:
    """Which is not its number of characters."""
    assert width_of(text) == columns
    assert width_of(padded(text, 20)) == 20


@given(letters, st.integers(min_value=MIN_COLUMNS, max_value=50))
def test_what_is_shortened_fits_and_keeps_both_ends(text: str, width: int) -> None:
    """A character is whole or not there, with the marks on it."""
    short = shortened(text, width)
    assert width_of(short) <= width
    assert width_of(cut(text, width)) <= width
    if short != text:
        assert width_of(text) > width
        begin, _, end = short.partition("..")
        assert text.startswith(begin)
        assert text.endswith(end)
        assert begin
        assert end
        assert not end.startswith("\u0301")


@given(letters, st.integers(min_value=20, max_value=50))
def test_what_is_folded_fits_and_loses_nothing(text: str, width: int) -> None:
    """Except for space, and what is said to be left out."""
    lines = folded(text, width, indent="  ")
    assert all(width_of(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == text
    assert len(folded(text, width, most=1)) <= 1


def test_cells_that_differ_go_on_to_differ_however_narrow_it_is() -> None:
    """Also where the difference is in the middle."""
    names = [f"{'a' * 20}{number}{'b' * 20}" for number in range(3)]
    lines = aligned([(name, "1") for name in names], width=20, give_way=[0])
    assert len(set(lines)) == 3
    assert len({line.index("  1") for line in lines}) == 1


def peer(
    peer_id: PeerId, name: str | None, *, lanes: Sequence[str] = ("a",), model: str = "smollm2"
) -> PeerRecord:
    """A peer that calls itself so, with a model in each of these lanes."""
    claim = Capability(
        lanes=tuple(
            Lane(id=lane, backend="llama_cpp", simulated=False, load=Load(slots=2, queue_limit=8))
            for lane in lanes
        ),
        models=tuple(
            ModelOffer(name=model, id=lane, lane=lane, prefill_rate=200.0, decode_rate=20.0)
            for lane in lanes
        ),
        machine_name=name,
    )
    return attrs.evolve(made.record(peer_id), capability=claim)


def begins_at(line: str, words: str) -> int:
    """The column of a terminal at which *words* begin."""
    return width_of(line[: line.index(words)])


MIXED = (
    peer(made.FAST, WIDE, lanes=(WIDE, "a")),
    peer(made.SLOW, LONG, model="hf.co/somebody/Qwen3-30B-A3B-Instruct-2507-GGUF:UD-Q4_K_XL"),
    peer(made.MOCK, f"{KOREAN} {MARKED}"),
)


def test_peers_with_wide_and_long_names_stand_in_columns_and_are_whole() -> None:
    """Nothing is narrow where there is no screen."""
    text = table(MIXED, 100.0)
    head, *lines = text.splitlines()
    for column, words in (("state", "ready"), ("busy", "0/2"), ("heard", "0.5 s")):
        assert {begins_at(line, words) for line in lines} == {begins_at(head, column)}
    for name in (WIDE, LONG, f"{KOREAN} {MARKED}", "Instruct-2507-GGUF:UD-Q4_K_XL"):
        assert name in text


@pytest.mark.parametrize("width", [80, 100, 132, 200])
def test_a_narrow_screen_has_every_number_and_the_ends_of_names(width: int) -> None:
    """Names give way; where that is not enough, the numbers are in lines of their own."""
    lines = table(MIXED, 100.0, width=width).splitlines()
    assert max(map(width_of, lines)) <= width
    for column in COLUMNS:
        assert column in "\n".join(lines)
    assert sum("~200.0" in line and "~20.0" in line and "0.5 s" in line for line in lines) == 4
    assert sum("Q4_K_XL" in line for line in lines) == 1
    with_state = [line for line in lines if "ready" in line]
    assert {begins_at(line, "ready") for line in with_state} == {begins_at(lines[0], "state")}


def test_peers_that_share_a_long_name_keep_the_ends_of_their_ids() -> None:
    """By which alone they are told apart."""
    text = table([peer(made.FAST, LONG), peer(made.SLOW, LONG.upper())], 100.0, width=80)
    assert short_id(made.FAST) in text
    assert short_id(made.SLOW) in text


def test_what_a_lane_says_is_whole_on_a_narrow_screen() -> None:
    """The remedy is at its end."""
    said = "its server at http://127.0.0.1:11434 has no model: `ollama pull llama3.2` fetches one"
    lane = Lane(id="a", backend="openai", simulated=False, state="resting", reason=said)
    one = peer(made.FAST, "kitchen")
    claim = attrs.evolve(one.capability, lanes=(lane,), models=())
    text = table([attrs.evolve(one, capability=claim)], 100.0, width=60)
    assert max(map(width_of, text.splitlines())) <= 60
    assert said in " ".join(text.split())


REQUEST = RouteRequest(model="smollm2", prompt_tokens=420)


def story_of(path: Path, peers: Sequence[PeerRecord], capsys: pytest.CaptureFixture[str]) -> str:
    """What ``punch why`` tells of a request that was decided among them."""
    decision = made.decide(peers=peers, request=REQUEST)
    trio.run(made.write, path, lambda bus: made.note_decided(bus, "r", decision))
    assert why(["--log", str(path)]) == 0
    return capsys.readouterr().out


def numbers_of(text: str) -> list[str]:
    """The lines of the decision that have its numbers, the head among them."""
    lines = text.splitlines()
    return [line for line in lines if "score" in line or re.search(r"( +-?\d+\.\d{3}){2}", line)]


def test_a_story_has_its_numbers_below_each_other_whatever_peers_and_lanes_are_called(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On lines of 80 columns; a name that is too wide for that has a line of its own."""
    for number, peers in enumerate(
        (
            [peer(made.FAST, WIDE), peer(made.SLOW, "b", lanes=(WIDE, "second")), *MIXED[2:]],
            [peer(made.FAST, LONG, lanes=(LONG[::-1], "b")), peer(made.SLOW, LONG[1:])],
        )
    ):
        text = story_of(tmp_path / f"{number}.jsonl", peers, capsys)
        assert max(map(width_of, text.splitlines())) <= 80
        head, *rows = numbers_of(text)
        assert len(rows) >= 2
        ends = {width_of(line) for line in (head, *rows)}
        assert len(ends) == 1, text
        assert "out," not in text
    assert LONG[:8] in text
    assert LONG[::-1][-8:] in text


def test_peers_of_a_story_that_look_alike_when_shortened_are_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the ends of their ids, as those that are alike in full."""
    names = (f"{'a' * 25}{middle}{'b' * 25}" for middle in "12")
    peers = [peer(one, name) for one, name in zip((made.FAST, made.SLOW), names, strict=True)]
    text = story_of(tmp_path / "d.jsonl", peers, capsys)
    assert short_id(made.FAST) in text
    assert short_id(made.SLOW) in text


def test_the_list_of_requests_stands_in_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With ids as long as callers make them, and ends of every kind; peers have their names."""
    path = tmp_path / "d.jsonl"
    kitchen = peer(made.FAST, "kitchen")

    def note(bus: Bus) -> None:
        for request_id in ("a", LONG * 2, WIDE):
            made.note_decided(bus, request_id, made.decide(peers=[kitchen], request=REQUEST))
            made.note_attempted(bus, request_id, peer_id=made.FAST)
        made.note_ended(bus, "a", seconds=1.5, **made.ending(made.FAST))
        made.note_ended(bus, WIDE, status="deadline", seconds=12.25)

    trio.run(made.write, path, note)
    assert why(["--log", str(path), "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {begins_at(line, "kitchen") for line in lines} == {width_of(lines[0]) - 7}
    assert LONG * 2 in lines[1]


def test_an_explained_decision_stands_in_columns() -> None:
    """The scores end below each other, and below their title."""
    policy = attrs.evolve(POLICIES["completion-time"], explore=0.0)
    decision = policy.decide(
        REQUEST, [peer(made.FAST, None, lanes=(WIDE, "a"))], now=100.0, rng=Random(1)
    )
    lines = explain([decision], []).splitlines()[1:-1]
    scores = [c.score for c in decision.candidates()]
    ends = [begins_at(lines[0], "score") + 5]
    ends += [
        begins_at(line, f"{score:.4f}") + len(f"{score:.4f}")
        for line, score in zip(lines[1:], scores, strict=True)
    ]
    assert len(set(ends)) == 1
    assert plain(WIDE) in "\n".join(lines)
