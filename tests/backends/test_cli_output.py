"""The answer, without what the command line programs print around it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punch.backends.llama._cli_output import (
    ConversationOutput,
    Output,
    PlainOutput,
    read_perf,
    read_too_long,
)
from punch.wire import Timings, Usage

PROMPT = "What is\n> this?"


def read(output: Output, data: bytes, step: int) -> tuple[bytes, str | None]:
    """What comes out of *data*, fed in pieces of *step* bytes."""
    answer = b"".join(output.feed(data[i : i + step]) for i in range(0, len(data), step))
    rest, reason = output.finish()
    return answer + rest, reason


ANSWERS = st.text(st.sampled_from("a\n [end of text]>Exiting."), max_size=30).map(str.encode)


@given(ANSWERS, st.integers(1, 20), st.sampled_from(["stop", "length"]))
def test_a_plain_answer_is_found_in_every_split(answer: bytes, step: int, reason: str) -> None:
    """The ending goes, all of the answer stays, and the ending says why it ended."""
    printed = answer + (b" [end of text]\n\n\n" if reason == "stop" else b"\n\n")
    # Without the end of the model's turn, its own line ends could complete the marker.
    if reason == "length" and printed.endswith(b" [end of text]\n\n\n"):
        return
    assert read(PlainOutput(), printed, step) == (answer, reason)


@given(ANSWERS, st.integers(1, 20))
def test_a_talking_answer_is_found_in_every_split(answer: bytes, step: int) -> None:
    """Banner, echo and ending go. One line end of the answer's own cannot be told apart."""
    printed = (
        b"\n\nLoading model... \n\nbuild : b1\n\n> "
        + PROMPT.encode()
        + b"\n"
        + answer
        + (b"" if answer.endswith(b"\n") or not answer else b"\n")
        + b"\n\nExiting...\n"
    )
    expected = answer.removesuffix(b"\n")
    if not answer:
        return
    if b"\n[Start".startswith(answer[:1]) and answer.startswith(b"\n[Start"):
        return
    assert read(ConversationOutput(PROMPT), printed, step) == (expected, None)


def test_thinking_is_no_part_of_the_answer() -> None:
    """The program prints it between two marks."""
    printed = b"x\n> hi\n\n[Start thinking]\n\nhm\n[End thinking]\n\nHello\n\n\nExiting...\n"
    for step in (1, 7, 1000):
        assert read(ConversationOutput("hi"), printed, step) == (b"Hello", None)


def test_a_long_prompt_is_recognized_in_its_short_echo() -> None:
    """The program shows the first 500 bytes of it."""
    printed = b"\n> " + b"x" * 500 + b" ... (truncated)\nyes\n\n\nExiting...\n"
    assert read(ConversationOutput("x" * 501), printed, 64) == (b"yes", None)


def test_a_program_that_never_asked_gave_no_answer() -> None:
    """Its error text is not taken for one."""
    assert read(ConversationOutput("hi"), b"Error: no model\n", 3) == (b"", None)


PLAIN_LOG = """\
0.00.452.671 I common_perf_print:    samplers time =       0.46 ms /    37 tokens
0.00.452.707 I common_perf_print: prompt eval time =     115.82 ms /    29 tokens (    3.99 ms
0.00.452.724 I common_perf_print:        eval time =      52.21 ms /     7 runs   (    7.46 ms
0.00.452.740 I common_perf_print:       total time =     175.94 ms /    36 tokens
"""
OLD_LOG = """\
llama_perf_context_print: prompt eval time =     115.82 ms /    29 tokens (    3.99 ms per token
llama_perf_context_print:        eval time =      52.21 ms /     7 runs   (    7.46 ms per token
"""
TALKING_LOG = """\
0.0 I slot print_timing: id  0 | task 0 | prompt eval time =     113.66 ms /    40 tokens (  2.84
0.0 I slot print_timing: id  0 | task 0 |        eval time =      44.69 ms /     8 tokens (  6.38
"""


@pytest.mark.parametrize(
    ("log", "prompt", "answer", "prefill", "decode"),
    [
        (PLAIN_LOG, 29, 8, 0.11582, 0.05221),
        (OLD_LOG, 29, 8, 0.11582, 0.05221),
        (TALKING_LOG, 40, 8, 0.11366, 0.04469),
    ],
    ids=["plain", "old", "talking"],
)
def test_counts_and_times_are_the_programs_own(
    log: str, prompt: int, answer: int, prefill: float, decode: float
) -> None:
    """Runs are tokens but the first; llama-server counted 8 for the same answer."""
    usage, timings = read_perf(log.splitlines())
    assert usage == Usage(prompt_tokens=prompt, completion_tokens=answer)
    assert timings.prefill == pytest.approx(prefill)
    assert timings.decode == pytest.approx(decode)


def test_no_run_at_all_is_one_token() -> None:
    """The program prints 1 where it means 0."""
    usage, _ = read_perf(["eval time =       0.00 ms /     1 runs   ("])
    assert usage.completion_tokens == 1


def test_without_an_account_nothing_is_made_up() -> None:
    """Unknown is `None`."""
    assert read_perf(["hello"]) == (Usage(), Timings())


def test_both_programs_words_for_a_full_context_are_known() -> None:
    """With both numbers."""
    plain = "0.0 E llama_completion: prompt is too long (3031 tokens, max 1020)"
    talking = "request (3031 tokens) exceeds the available context size (1024 tokens), try"
    assert read_too_long(["x", plain]) == (3031, 1020)
    assert read_too_long([talking]) == (3031, 1024)
    assert read_too_long(["x"]) is None
