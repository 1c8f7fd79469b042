"""The sides of a measurement of gateways: opened, put on two cores, asked in turns, and loaded."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import repeat
from pathlib import Path

import attrs
import psutil
from _alternatives import Side, open_litellm, open_mock, open_nginx, open_sglang_router
from _gateway_rows import DIRECT, LITELLM, PUNCH, SAME, p99
from _http_client import Answer, closed_loop
from _programs import Programs
from _results import UnavailableError, say

CORES = 2

# In the order in which they stand in tables; the server itself is always there.
OTHERS = {"nginx": open_nginx, "sglang-router": open_sglang_router, LITELLM: open_litellm}
NAMES = (*OTHERS, PUNCH, SAME)


@contextmanager
def two_cores() -> Iterator[None]:
    """Client, servers and what is between them, on the same two."""
    process = psutil.Process()
    if not hasattr(process, "cpu_affinity"):
        yield
        return
    allowed = process.cpu_affinity()
    process.cpu_affinity(allowed[:CORES])
    try:
        yield
    finally:
        process.cpu_affinity(allowed)


def open_sides(
    stack: ExitStack, folder: Path, wanted: Sequence[str], *, delay: float = 0.0
) -> tuple[list[Side], list[str]]:
    """The sides of `NAMES` that are *wanted*, before a server that takes *delay* seconds.

    The server itself is the first. Beside them there is why others are not: a sentence for each.
    """
    mock = stack.enter_context(open_mock(delay))
    assert mock.name == DIRECT
    sides, missing = [mock], []
    for name, opened in OTHERS.items():
        if name not in wanted:
            continue
        own = folder / name
        own.mkdir()
        try:
            sides.append(stack.enter_context(opened(mock.address, own)))
        except UnavailableError as error:
            missing.append(f"{name} is not in the table: {error}.")
            say(missing[-1])
    openai = {
        "PUNCH_INFERENCE_BACKEND": "openai",
        "PUNCH_OPENAI_URL": f"http://127.0.0.1:{mock.address.port}",
    }
    for name, backend in ((PUNCH, None), (SAME, openai)):
        if name not in wanted:
            continue
        own = folder / name.replace(" ", "-")
        own.mkdir()
        programs = Programs(own)
        stack.enter_context(programs.mock_listener(backend=backend))
        side = stack.enter_context(programs.gateway())
        sides.append(attrs.evolve(side, name=name))
    return sides, missing


def in_turns(sides: Sequence[Side], rounds: int) -> Iterator[Sequence[Side]]:
    """All sides, *rounds* times; another one begins each time."""
    for number in range(rounds):
        turn = number % len(sides)
        yield (*sides[turn:], *sides[:turn])
        say(f"round {number + 1} of {rounds}")


@attrs.frozen(kw_only=True)
class Loaded:
    """One side under a closed loop of clients, once."""

    median: float
    """Seconds of an answer."""

    p99: float
    """The same, of the slowest hundredth."""

    rate: float
    """Answers a second."""

    cpu: float
    """CPU seconds of the side's processes for each answer."""

    failed: int
    """Answers that were none."""


def load(
    side: Side,
    asked: bytes,
    clients: int,
    seconds: float,
    *,
    warm_up: float,
    is_fine: Callable[[Answer], bool] = lambda answer: answer.fine,
) -> Loaded:
    """Have *clients* ask without a pause for so many *seconds*.

    The share *warm_up* of them is the beginning, when all clients ask at one moment, and counts for
    CPU and failures alone.
    """
    before = side.cpu()
    answers = closed_loop(side.address, repeat(asked), clients, seconds)
    cpu = side.cpu() - before
    began = min(answer.due for answer in answers)
    window = (began + warm_up * seconds, began + seconds)
    steady = [each.seconds for each in answers if each.due >= window[0]]
    ended = sum(window[0] <= each.ended < window[1] for each in answers)
    return Loaded(
        median=statistics.median(steady),
        p99=p99(steady),
        rate=ended / (window[1] - window[0]),
        cpu=cpu / len(answers),
        failed=count_failed(side, answers, is_fine),
    )


def count_failed(
    side: Side,
    answers: Sequence[Answer],
    is_fine: Callable[[Answer], bool] = lambda answer: answer.fine,
) -> int:
    """How many are none; the first of them is shown."""
    failed = [answer for answer in answers if not is_fine(answer)]
    if failed:
        say(f"{side.name}: {len(failed)} of {len(answers)} failed: {failed[0].raw[:300]!r}")
    return len(failed)
