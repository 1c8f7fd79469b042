"""Generates traces with the statistics of the recorded ones, which need not be at hand then.

Every table below was measured on the published files (12,031 requests of the Mooncake
conversation trace, 8,819 of Azure's code trace of 2023): the values at the quantiles of
`LEVELS`. A draw interpolates between them, so no distribution has to be guessed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from random import Random

import attrs

from ..exceptions import ConfigurationError
from ._traces import BLOCK_TOKENS, Trace, TraceRequest, read_trace

LEVELS = (0.0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)

# ---- conversations (Mooncake) ----

# Tokens of the first prompt of a conversation, and of every answer.
FIRST_PROMPTS = (
    *(891, 894, 897, 905, 1092, 1756, 3914, 5264),
    *(7417, 10775, 15871, 25561, 38538, 89869, 126195),
)
ANSWERS = (1, 3, 10, 24, 100, 213, 291, 350, 399, 447, 504, 597, 698, 1120, 2000)

# Blocks that a next prompt adds, and blocks at the end of the one before that it does not have.
ADDED_BLOCKS = (0, 0, 1, 1, 1, 2, 2, 2, 2, 4, 10, 20, 29, 53, 186)
DROPPED_BLOCKS = (0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 17, 27, 48, 198)

# Seconds between two prompts of one conversation. Conversations begin at any time: in the trace
# the variance of the counts in 10 s is only twice their mean.
TURN_GAPS = (0, 12, 30, 42, 60, 75, 96, 123, 162, 222, 318, 483, 618, 1482, 3030)

# Share of the conversations with n turns that have one more; the last one is for all the others.
CONTINUED = (0.31, 0.42, 0.51, 0.59, 0.59, 0.68, 0.77, 0.72)

# Blocks of the longest prompt, and seconds from the first request to the last.
MAX_BLOCKS = 247
HOUR = 3537.0

SYSTEM_PROMPT = 0

# Mean tokens of a prompt of each trace.
MEAN_PROMPTS = {"conversation": 12_035.0, "code": 2_048.0}

# ---- code (Azure) ----

CODE_PROMPTS = (
    *(3, 17, 75, 147, 385, 770, 1075, 1469),
    *(1909, 2433, 3193, 5194, 7315, 7436, 7437),
)
CODE_ANSWERS = (6, 6, 6, 7, 8, 9, 11, 13, 16, 20, 29, 55, 90, 252, 1899)

# Seconds between requests. Bursts: half of the gaps are under 70 ms, a hundredth above 2 s. The
# top hundredth is nearly all of the time, so it has levels of its own.
CODE_GAPS = (0, 0, 0, 0, 0.001, 0.003, 0.015, 0.064, 0.095, 0.1, 0.16, 0.27, 0.4, 2.2)
LONG_CODE_GAPS = (2.2, 217.0)
LONG_CODE_SHARE = 0.01


def _draw(table: Sequence[float], rng: Random) -> float:
    """A value distributed as *table* says."""
    level = rng.random()
    above = min(max(1, bisect_right(LEVELS, level)), len(table) - 1)
    low, high = LEVELS[above - 1], LEVELS[above]
    share = min(1.0, (level - low) / (high - low))
    return table[above - 1] + share * (table[above] - table[above - 1])


def generate(kind: str, count: int, rng: Random) -> Trace:
    """*count* requests like those of the trace that *kind* names: ``conversation`` or ``code``.

    Raises:
      ConfigurationError: if there is no such kind.

    """
    if kind not in GENERATORS:
        raise ConfigurationError(
            f"there is no generator {kind!r}: write {' or '.join(GENERATORS)}, or name a file"
        )
    return Trace(name=kind, requests=GENERATORS[kind](count, rng))


def _conversations(count: int, rng: Random) -> tuple[TraceRequest, ...]:
    """Conversations spread over an hour, each from its first turn to its last."""
    requests: list[TraceRequest] = []
    block = SYSTEM_PROMPT
    conversation = 0
    while len(requests) < count:
        turns = _turns(conversation, block + 1, rng)
        block = max(block, *(turn.blocks[-1] for turn in turns))
        start = rng.uniform(0.0, max(0.0, HOUR - turns[-1].arrival))
        requests += [attrs.evolve(turn, arrival=start + turn.arrival) for turn in turns]
        conversation += 1
    # The last conversation may have a few turns too many.
    return tuple(sorted(requests[:count], key=lambda request: request.arrival))


def _turns(conversation: int, block: int, rng: Random) -> list[TraceRequest]:
    """A conversation; *block* is the first id that no other conversation has."""
    turns: list[TraceRequest] = []
    tokens = round(_draw(FIRST_PROMPTS, rng))
    blocks: tuple[int, ...] = (SYSTEM_PROMPT,)
    moment = 0.0
    while True:
        added = range(block, block + -(-tokens // BLOCK_TOKENS) - len(blocks))
        block += len(added)
        blocks += tuple(added)
        turns.append(
            TraceRequest(
                arrival=moment,
                input_tokens=tokens,
                output_tokens=max(1, round(_draw(ANSWERS, rng))),
                blocks=blocks,
                block_tokens=BLOCK_TOKENS,
                conversation=conversation,
            )
        )
        if rng.random() >= CONTINUED[min(len(turns), len(CONTINUED)) - 1]:
            return turns
        moment += _draw(TURN_GAPS, rng)
        dropped = min(len(blocks) - 1, round(_draw(DROPPED_BLOCKS, rng)))
        blocks = blocks[: len(blocks) - dropped]
        most = MAX_BLOCKS - len(blocks)
        fresh = min(most, max(1, round(_draw(ADDED_BLOCKS, rng))))
        tokens = BLOCK_TOKENS * (len(blocks) + fresh - 1) + rng.randint(1, BLOCK_TOKENS)


def _code(count: int, rng: Random) -> tuple[TraceRequest, ...]:
    """Bursts of completions that share nothing."""
    requests: list[TraceRequest] = []
    moment = 0.0
    for number in range(count):
        tokens = max(1, round(_draw(CODE_PROMPTS, rng)))
        requests.append(
            TraceRequest(
                arrival=moment,
                input_tokens=tokens,
                output_tokens=max(1, round(_draw(CODE_ANSWERS, rng))),
                blocks=(number,),
                block_tokens=tokens,
                conversation=number,
            )
        )
        moment += _code_gap(rng)
    return tuple(requests)


def _code_gap(rng: Random) -> float:
    if rng.random() < LONG_CODE_SHARE:
        # Log-uniform: the few long pauses are of every size.
        low, high = LONG_CODE_GAPS
        return float(low * (high / low) ** rng.random())
    return _draw(CODE_GAPS, rng)


GENERATORS = {"conversation": _conversations, "code": _code}


@lru_cache(maxsize=4)
def _read(path: Path) -> Trace:
    return read_trace(path)


def open_trace(name: str, count: int, rng: Random, *, prompt_tokens: float | None = None) -> Trace:
    """*count* requests of a file or a generator, drawn with *rng*.

    Args:
      name: ``conversation``, ``code``, or the path of a file.
      count: How many requests at most.
      rng: Draws them.
      prompt_tokens: Scale all lengths by one factor, so that the prompts have this many tokens on
        the average of the whole trace. `None` leaves them as they are.

    Raises:
      ConfigurationError: if the file cannot be read; see `read_trace`.

    """
    whole = None if name in GENERATORS else _read(Path(name))
    trace = generate(name, count, rng) if whole is None else whole.sample(count, rng)
    if prompt_tokens is None:
        return trace
    usual = MEAN_PROMPTS[name] if whole is None else whole.mean_input_tokens
    return trace.scaled(inputs=prompt_tokens / usual, outputs=prompt_tokens / usual)
