"""What a dialer learns of requests: how long answers are, and which prefix is cached where."""

from __future__ import annotations

from random import Random
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from punch.capability import PeerId
from punch.routing import LearnedState, Lengths, PrefixIndex
from punch.routing import _lengths as length_limits
from punch.routing import _prefixes as prefix_limits
from punch.wire import ChatMessage, CommandRequest, Sampling, Tool, ToolCall, Usage

A, B = PeerId("a"), PeerId("b")
LONG = "".join(Random(7).choices("abcdefgh ", k=10_000))


def ask(*turns: str, request_id: str = "r", **changes: Any) -> CommandRequest:
    """A conversation, the user's turn first."""
    messages = tuple(
        ChatMessage(role=("user", "assistant")[i % 2], content=turn) for i, turn in enumerate(turns)
    )
    return CommandRequest(request_id=request_id, model="m", messages=messages, **changes)


def experience() -> LearnedState:
    """One that has learned nothing yet."""
    return LearnedState(Random(1))


def hits(known: LearnedState, request: CommandRequest, now: float = 1.0) -> dict[str, float]:
    """The share of the prompt that each peer is taken to have."""
    route = known.route_request(request, now=now)
    return {peer: tokens / route.prompt_tokens for peer, tokens in route.cached_tokens.items()}


# ---- lengths ----


def test_an_answer_nobody_knows_is_of_usual_length() -> None:
    """And no longer than the caller allows."""
    lengths = Lengths()
    assert lengths.expect("m") == 200
    assert lengths.expect("m", limit=50) == 50


def test_the_usual_length_of_a_model_is_learned() -> None:
    """After twenty answers to about a tenth, and of this model only."""
    lengths = Lengths()
    for _ in range(20):
        lengths.learn("m", 1000)
    assert lengths.expect("m") == pytest.approx(1000, rel=0.1)
    assert lengths.expect("n") == 200


def test_what_answers_were_long_ago_is_forgotten() -> None:
    """A few hundred later."""
    lengths = Lengths()
    for tokens in [1000] * 100 + [50] * 500:
        lengths.learn("m", tokens)
    assert lengths.expect("m") == pytest.approx(50, rel=0.1)


@given(
    answers=st.lists(st.integers(0, 1 << 22), max_size=40),
    limit=st.none() | st.integers(1, 1 << 20),
    begun=st.integers(0, 1 << 20),
)
def test_what_is_expected_is_at_least_one_token_and_within_the_limit(
    answers: list[int], limit: int | None, begun: int
) -> None:
    """Whatever was seen."""
    lengths = Lengths()
    for tokens in answers:
        lengths.learn("m", tokens)
    found = lengths.expect("m", limit=limit, begun=begun)
    assert 1 <= found <= (limit or 1 << 21)


def test_of_a_begun_answer_the_rest_is_expected() -> None:
    """Those that ended before are no example for it."""
    lengths = Lengths()
    for tokens in [10] * 50 + [1000] * 10:
        lengths.learn("m", tokens)
    assert lengths.expect("m") == pytest.approx(10, abs=1)
    assert lengths.expect("m", begun=100) == pytest.approx(900, rel=0.15)


def test_the_lengths_of_so_many_models_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that was not asked for longest goes."""
    monkeypatch.setattr(length_limits, "MAX_MODELS", 2)
    lengths = Lengths()
    for model in ("a", "b", "a", "c"):
        for _ in range(20):
            lengths.learn(model, 1000)
    assert len(lengths) == 2
    assert [lengths.expect(model) > 900 for model in "abc"] == [True, False, True]


def test_routing_expects_what_was_learned() -> None:
    """Bounded by what the caller allows; for an answer that goes on, the rest."""
    known = experience()
    for number in range(20):
        request = ask("hi", request_id=str(number))
        known.answered(request, A, text="", usage=Usage(completion_tokens=1000), now=0.0)
    assert known.route_request(ask("hi"), now=1.0).output_tokens == pytest.approx(1000, rel=0.1)
    short = ask("hi", sampling=Sampling(max_tokens=7))
    assert known.route_request(short, now=1.0).output_tokens == 7
    rest = ask("hi", continuation="x" * 1750)
    assert known.route_request(rest, now=1.0).output_tokens == pytest.approx(500, rel=0.2)


# ---- prefixes ----


def test_the_next_turn_is_expected_where_the_last_one_was() -> None:
    """Nearly all of it; nobody else has any."""
    known = experience()
    known.sent(ask(LONG), A, now=0.0)
    known.answered(ask(LONG), A, text=LONG[::-1], usage=Usage(), now=0.0)
    found = hits(known, ask(LONG, LONG[::-1], "and then?", request_id="s"))
    assert found == {A: pytest.approx(1.0, abs=0.03)}


def test_an_answer_that_goes_on_counts_as_one() -> None:
    """What the first peer wrote is part of what the second one holds."""
    known = experience()
    request = ask(LONG, continuation=LONG[:5000])
    known.sent(request, B, now=0.0)
    known.answered(request, B, text=LONG[5000:], usage=Usage(), now=0.0)
    assert hits(known, ask(LONG, LONG, "and?", request_id="s"))[B] == pytest.approx(1.0, abs=0.03)


def test_only_a_leading_part_is_a_hit() -> None:
    """The same text behind another beginning is of no use."""
    known = experience()
    known.sent(ask(LONG), A, now=0.0)
    assert hits(known, ask("x" + LONG, request_id="s")) == {}
    half = ask(LONG[:5000] + "y" * 5000, request_id="t")
    assert hits(known, half)[A] == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "n"},
        {"command": "embed", "inputs": (LONG,), "messages": ()},
    ],
)
def test_caches_of_unlike_requests_have_nothing_in_common(changes: dict[str, Any]) -> None:
    """Another model reads it anew."""
    known = experience()
    known.sent(ask(LONG), A, now=0.0)
    other = attrs.evolve(ask(LONG, request_id="s"), **changes)
    assert hits(known, other) == {}


def test_a_prefix_expires() -> None:
    """After ten minutes the backend has used its memory for something else."""
    known = experience()
    known.sent(ask(LONG), A, now=0.0)
    assert hits(known, ask(LONG, request_id="s"), now=599.0)[A] > 0.9
    assert hits(known, ask(LONG, request_id="s"), now=601.0) == {}


def test_the_cache_of_a_lost_peer_is_gone() -> None:
    """It starts again with an empty one; that of the others stays."""
    known = experience()
    for peer in (A, B):
        known.sent(ask(LONG), peer, now=0.0)
    known.lost(A)
    assert set(hits(known, ask(LONG, request_id="s"))) == {B}
    known.sent(ask(LONG), A, now=0.0)
    assert set(hits(known, ask(LONG, request_id="s"))) == {A, B}


def test_a_peer_that_does_not_keep_what_it_read_is_trusted_less() -> None:
    """Its own counts say so, and nothing it had before that is expected there any more."""
    known = experience()
    known.sent(ask("old" + LONG, request_id="old"), A, now=0.0)
    for number in range(1, 11):
        request = ask(LONG, request_id=str(number))
        known.sent(request, A, now=float(number))
        usage = Usage(prompt_tokens=3000, cached_tokens=0)
        known.answered(request, A, text="", usage=usage, now=float(number))
    assert hits(known, ask("old" + LONG, request_id="s"), now=20.0) == {}
    assert hits(known, ask(LONG, request_id="t"), now=20.0)[A] < 0.2


def test_a_peer_that_keeps_it_is_trusted() -> None:
    """What it had before is there as well."""
    known = experience()
    known.sent(ask("old" + LONG, request_id="old"), A, now=0.0)
    for number in range(1, 11):
        request = ask(LONG, request_id=str(number))
        known.sent(request, A, now=float(number))
        usage = Usage(prompt_tokens=3000, cached_tokens=2990)
        known.answered(request, A, text="", usage=usage, now=float(number))
    for text in ("old" + LONG, LONG):
        assert hits(known, ask(text, request_id=text[:3]), now=20.0)[A] > 0.9


def test_no_text_is_kept() -> None:
    """Hashes only, and they are no use to somebody who guesses the text."""
    first, second = (PrefixIndex(key) for key in (b"1", b"2"))
    assert set(first.chain(b"", b"secret" * 100)) & set(second.chain(b"", b"secret" * 100)) == set()
    known = experience()
    known.sent(ask("a secret " * 100), A, now=0.0)
    assert "secret" not in repr(vars(known)) + repr(vars(known.prefixes))


@given(texts=st.lists(st.binary(max_size=40), max_size=12), probe=st.binary(max_size=40))
def test_a_hit_is_never_longer_than_what_is_really_shared(texts: list[bytes], probe: bytes) -> None:
    """With any other prompt that was sent there, in whole blocks."""
    index = PrefixIndex(b"key")
    texts = [text * prefix_limits.BLOCK_BYTES for text in texts]
    probe *= prefix_limits.BLOCK_BYTES
    for text in texts:
        index.hold(index.chain(b"", text), A, now=0.0)
    found = index.held(index.chain(b"", probe), now=1.0).get(A, 0) * prefix_limits.BLOCK_BYTES
    assert found <= len(probe)
    assert found == 0 or any(text[:found] == probe[:found] for text in texts)


def test_the_index_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks, in peers of a block, in peers, and in what of one prompt is looked at."""
    for name, value in {"MAX_ENTRIES": 10, "MAX_HOLDERS": 2, "MAX_PEERS": 3}.items():
        monkeypatch.setattr(prefix_limits, name, value)
    index = PrefixIndex(b"key")
    for number in range(9):
        chain = index.chain(b"", LONG.encode())
        index.hold(chain[:5], PeerId(str(number)), now=0.0)
        index.hold(index.chain(b"", bytes([number]) * 5000), A, now=0.0)
    assert len(index) == 10
    assert set(index.held(index.chain(b"", LONG.encode()), now=0.0)) <= {"7", "8"}
    assert len(index.chain(b"", b"x" * (1 << 20))) == prefix_limits.MAX_BLOCKS


def test_before_the_first_answer_the_peers_word_for_its_length_is_taken() -> None:
    """The median of it, within bounds; what was seen counts more from then on."""
    lengths = Lengths()
    lengths.claim("m", 20)
    assert lengths.expect("m") == 20
    lengths.claim("m", 1 << 40)
    assert lengths.expect("m") == 4096
    lengths.claim("m", 20)
    for _ in range(50):
        lengths.learn("m", 300)
    assert 250 <= lengths.expect("m") <= 350


# ---- tools ----


def test_tools_and_calls_are_part_of_the_prompt() -> None:
    """They take tokens, and who has read them has them cached."""
    tools = (Tool(name="f", description=LONG[:3000], parameters="{}"),)
    bare, full = experience(), experience()
    assert full.route_request(ask("x", tools=tools), now=0.0).prompt_tokens > 800
    full.sent(ask("x" * 300, tools=tools), A, now=0.0)
    assert hits(full, ask("y" * 300, tools=tools, request_id="s"))[A] > 0.8
    assert hits(full, ask("y" * 300, request_id="t")) == {}
    call = ToolCall(id="c", name="f", arguments=LONG[:3000])
    turns = (
        ChatMessage(role="user", content="x"),
        ChatMessage(role="assistant", content="", tool_calls=(call,)),
        ChatMessage(role="tool", content="1", tool_call_id="c"),
    )
    called = attrs.evolve(ask("x"), messages=turns)
    assert bare.route_request(called, now=0.0).prompt_tokens > 800
    bare.sent(called, A, now=0.0)
    assert hits(bare, attrs.evolve(called, request_id="u"))[A] > 0.8
    other = attrs.evolve(call, arguments=LONG[3000:6000])
    changed = (turns[0], attrs.evolve(turns[1], tool_calls=(other,)), turns[2])
    assert hits(bare, attrs.evolve(called, request_id="v", messages=changed)) == {}
