"""Which slot a prompt goes to."""

from __future__ import annotations

from random import Random

from punch.backends.llama._pins import BLOCK_CHARACTERS, Pins, conversation
from punch.wire import ChatMessage, CommandRequest


def text(seed: int, blocks: int) -> str:
    """Some text of so many blocks."""
    draw = Random(seed)
    return "".join(draw.choice("abcdefgh ") for _ in range(blocks * BLOCK_CHARACTERS))


def turn(pins: Pins, prompt: str, answer: str = "") -> int | None:
    """One answer, from its beginning to its end."""
    slot = pins.acquire(prompt)
    assert slot is not None
    pins.release(slot, prompt + answer)
    return slot


def test_two_conversations_keep_their_slots() -> None:
    """Each turn goes where the turns before it are cached."""
    pins = Pins(2, key=b"k")
    one, other = text(1, 4), text(2, 4)
    found = []
    for number in range(5):
        found.append((turn(pins, one, text(10 + number, 2)), turn(pins, other)))
        one += text(10 + number, 2) + text(20 + number, 1)
        other += text(30 + number, 3)
    assert len(set(found)) == 1
    assert set(found[0]) == {0, 1}


def test_a_conversation_comes_back_after_many_others() -> None:
    """It has its slot as long as nobody needed that."""
    pins = Pins(3, key=b"k")
    first = turn(pins, text(1, 5))
    for _ in range(4):
        turn(pins, text(2, 5))
        turn(pins, text(3, 5))
    assert turn(pins, text(1, 5) + text(9, 2)) == first


def test_a_short_common_beginning_evicts_nobody() -> None:
    """A system prompt that all have in common does not cost a conversation its cache."""
    pins = Pins(2, key=b"k")
    system = text(0, 2)
    assert turn(pins, system + text(1, 8)) == 0
    assert turn(pins, system + text(2, 8)) == 1


def test_the_same_prompt_again_goes_to_the_same_slot() -> None:
    """Another answer to the same question needs what is cached for the first."""
    pins = Pins(2, key=b"k")
    slot = turn(pins, text(1, 2), answer=text(2, 30))
    turn(pins, text(3, 2))
    assert turn(pins, text(1, 2)) == slot


def test_a_slot_is_nobody_elses_until_it_is_given_back() -> None:
    """Even if it holds the very prompt."""
    pins = Pins(2, key=b"k")
    one = pins.acquire(text(1, 4))
    other = pins.acquire(text(1, 4))
    assert {one, other} == {0, 1}
    assert pins.acquire(text(1, 4)) is None
    assert one is not None
    pins.release(one, text(1, 4))
    assert pins.acquire(text(5, 4)) == one


def test_a_new_prompt_takes_the_slot_that_rested_longest() -> None:
    """As any cache does; an empty one first."""
    pins = Pins(3, key=b"k")
    assert [turn(pins, text(seed, 3)) for seed in range(5)] == [0, 1, 2, 0, 1]


def test_after_a_restart_nothing_is_remembered() -> None:
    """The caches went with the process."""
    pins = Pins(2, key=b"k")
    turn(pins, text(1, 4))
    turn(pins, text(2, 4))
    turn(pins, text(1, 4))
    pins.clear()
    assert turn(pins, text(1, 4)) == 1


def test_an_answer_is_the_beginning_of_the_next_prompt() -> None:
    """The prompt, and what was said, read as the next turn will read them."""
    question = ChatMessage(role="user", content="Why?")
    answer = ChatMessage(role="assistant", content="Because.")
    first = CommandRequest(request_id="1", messages=(question,))
    begun = CommandRequest(request_id="1", messages=(question,), continuation="Bec")
    after = CommandRequest(request_id="2", messages=(question, answer, question))
    assert conversation(after).startswith(conversation(first) + "Because.")
    assert conversation(begun) == conversation(first) + "Bec"
