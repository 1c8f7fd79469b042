"""What the benchmark of splits measures: one cell of a table at a time, over servers of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import attrs
from _split_lab import CONTEXT, Head, Timings, load_average, open_split
from inference import find_model

from punch.model_store import layout_of
from punch.placement import Link, Measured

MAX_WRONG = 0.15

DELAYS = (0.0, 0.001, 0.005, 0.01, 0.02)
RATES = (110e6, 25e6)
"""Gigabit Ethernet, and a good wireless network."""

MICRO_BATCH = 64
TOKENS = 16
MAX_TOKEN_ROUNDS = 12
MAX_PROMPT_ROUNDS = 6
ENOUGH_ROUNDS = 3
"""The fastest counts, since a neighbour on the machine only makes one slower, and it counts once so
many rounds after it were no faster."""

LESSONS = 8
"""So often the calibration sees the cells that it learns from."""

PROMPT = "On every other Tuesday the ferry carries {} sheep and {} bicycles to the island. "
SENTENCES = 12
LONG_SENTENCES = 70
ANSWER = 48
QUESTION = "Explain in plain words why the sky is dark at night although there are so many stars.\n"
NUMBERED = "".join(f"line {i}: the price of item {i} is {7 * i} crowns\n" for i in range(8))


@attrs.frozen(kw_only=True)
class Cell:
    """A split, and the links of its workers."""

    workers: int
    delay: float
    """Seconds one way."""
    rate: float
    """Bytes a second."""

    @property
    def link(self) -> Link:
        """Of each worker, as it is made."""
        return Link(rtt=2 * self.delay, rate=self.rate)

    @property
    def is_lesson(self) -> bool:
        """Whether the formulas learn from it."""
        if self.rate != RATES[0]:
            return False
        return self.delay == DELAYS[1] or (self.workers, self.delay) == (2, DELAYS[-1])


@attrs.frozen(kw_only=True)
class Seen:
    """What was measured of a cell."""

    cell: Cell
    measured: Measured
    prompt_tokens: int


@attrs.frozen(kw_only=True)
class Arm:
    """A way to hide latency, and what it gained."""

    name: str
    options: tuple[str, ...] = ()
    at_once: int = 1
    question: float = 0.0
    """Tokens a second of a plain question, all answers together."""
    numbered: float = 0.0
    """The same of lines that differ in their numbers, so that many guesses are wrong."""


GUESSING = (
    *("--spec-type", "ngram-simple"),
    *("--spec-ngram-simple-size-n", "3"),
    *("--spec-ngram-simple-size-m", "16"),
)
HEAD_OUTPUT = ("-ot", "token_embd=CPU")
ARMS = (
    Arm(name="the bare law"),
    Arm(name="output on the head", options=HEAD_OUTPUT),
    Arm(name="n-gram speculation", options=GUESSING),
    Arm(name="both", options=(*HEAD_OUTPUT, *GUESSING)),
    Arm(name="both, four at once", options=(*HEAD_OUTPUT, *GUESSING), at_once=4),
    Arm(name="both, eight at once", options=(*HEAD_OUTPUT, *GUESSING), at_once=8),
    Arm(name="output on the head, eight at once", options=HEAD_OUTPUT, at_once=8),
)


def say(text: str) -> None:
    """How far it is."""
    print(text, file=sys.stderr, flush=True)


def long_prompt(number: int, sentences: int = SENTENCES) -> str:
    """One that is in no cache."""
    return "".join(PROMPT.format(number, i) for i in range(sentences))


def time_head(head: Head) -> tuple[float, float, int]:
    """Seconds for a token and to the first token of a long prompt, and the tokens of that."""
    head.ask("Once", 2)
    token = fastest(lambda _: head.ask(QUESTION, TOKENS).token, MAX_TOKEN_ROUNDS)
    asked: list[Timings] = []

    def ask_long(number: int) -> float:
        asked.append(head.ask(long_prompt(number), 1))
        return asked[-1].prompt_seconds

    first = fastest(ask_long, MAX_PROMPT_ROUNDS)
    return token, first, asked[0].prompt_tokens


def fastest(measure: Callable[[int], float], rounds: int) -> float:
    """The fewest seconds of some rounds: until there are `ENOUGH_ROUNDS` after the fastest."""
    best, best_round = measure(0), 0
    for number in range(1, rounds):
        found = measure(number)
        if found < 0.98 * best:
            best_round = number
        best = min(best, found)
        if number - best_round >= ENOUGH_ROUNDS:
            break
    return best


def options(slots: int = 1, micro_batch: int = MICRO_BATCH) -> tuple[str, ...]:
    """What every head gets."""
    return ("-ub", str(micro_batch), "-np", str(slots), "-c", str(CONTEXT))


def measure_cell(folder: Path, cell: Cell) -> Seen:
    """Start a split, and time it."""
    split = ",".join(map(str, tensor_split(cell.workers)))
    arguments = (*options(), "--tensor-split", split)
    with open_split(folder, links=[cell.link] * cell.workers, options=arguments) as head:
        token, first, prompt_tokens = time_head(head)
    say(
        f"{cell.workers} workers, {cell.delay * 1e3:g} ms, {cell.rate / 1e6:g} MB/s: "
        f"{1 / token:.1f} tokens/s, first token {first:.2f} s, load {head.load:.2f} s, "
        f"load average {load_average():.1f}"
    )
    return Seen(
        cell=cell,
        measured=Measured(token=token, first_token=first, load=head.load),
        prompt_tokens=prompt_tokens,
    )


def ends(layers: int, workers: int) -> list[int]:
    """Where the shares of all workers end, and the first begins."""
    return [round(layers * i / workers) for i in range(workers + 1)]


def tensor_split(workers: int) -> list[int]:
    """Layers of each worker; the output counts as one more of the last."""
    edges = ends(len(layout_of(find_model()).layers), workers)
    counts = [end - begin for begin, end in pairwise(edges)]
    return [*counts[:-1], counts[-1] + 1]


def measure_arm(folder: Path, arm: Arm) -> Arm:
    """Two workers at the longest delay."""
    arguments = (*options(arm.at_once), *arm.options)
    links = [Link(rtt=2 * DELAYS[-1], rate=RATES[0])] * 2
    rates = []
    with open_split(folder, links=links, options=arguments) as head:
        head.ask("Once", 2)
        for text in (QUESTION, NUMBERED):
            prompts = [f"{text}{' ' * i}" for i in range(arm.at_once)]
            if arm.at_once == 1:
                rates.append(max(1 / head.ask(text, ANSWER).token for _ in range(2)))
            else:
                # Their prompts are in this.
                rates.append(ANSWER * arm.at_once / head.ask_at_once(prompts, ANSWER))
    say(f"{arm.name}: {rates[0]:.1f} and {rates[1]:.1f} tokens/s")
    return attrs.evolve(arm, question=rates[0], numbered=rates[1])


@attrs.frozen(kw_only=True)
class Pipe:
    """A long prompt, alone or over two workers."""

    workers: int
    delay: float
    micro_batch: int
    rate: float = 0.0
    """Tokens of the prompt a second."""


PIPES = (
    Pipe(workers=0, delay=0.0, micro_batch=512),
    Pipe(workers=2, delay=0.0, micro_batch=512),
    Pipe(workers=2, delay=0.0, micro_batch=64),
    Pipe(workers=2, delay=DELAYS[-1], micro_batch=512),
    Pipe(workers=2, delay=DELAYS[-1], micro_batch=64),
)


def measure_pipe(folder: Path, pipe: Pipe) -> Pipe:
    """The best of two."""
    links = [Link(rtt=2 * pipe.delay, rate=RATES[0])] * pipe.workers
    with open_split(folder, links=links, options=options(1, pipe.micro_batch)) as head:
        head.ask("Once", 2)
        asked = [head.ask(long_prompt(i, LONG_SENTENCES), 1) for i in range(2)]
    rate = max(each.prompt_tokens / each.prompt_seconds for each in asked)
    say(f"a long prompt, {pipe.workers} workers, -ub {pipe.micro_batch}: {rate:.0f} tokens/s")
    return attrs.evolve(pipe, rate=rate)
