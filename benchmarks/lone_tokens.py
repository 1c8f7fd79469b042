"""What a token costs that comes alone: CPU of the gateway and of a listener, both as programs.

A new stream begins about twice a second, so that some ten are under way, each with twenty tokens
a second, none at the moment of another's. Each token is then a packet, a wake-up of both programs,
and a write to the client of its own; tokens that come together share all of that. The hundredth
part of a request, which each of its tokens bears, is in it.
"""

from __future__ import annotations

import statistics
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from itertools import repeat
from pathlib import Path

import attrs
from _http_client import open_loop, question
from _programs import MOCK, Programs
from _results import Report, Row, milliseconds

TITLE = "A token that comes alone"

RATE = 20.0
"""Tokens a second of one stream."""

TOKENS = 100

# The golden section: the moments of any number of streams lie well apart.
BEGUN = RATE / 10.618
"""Streams begun a second."""

MAX_SECONDS = 0.3e-3


def measure(*, quick: bool) -> Report:
    """CPU a token of both programs together, and of each."""
    rounds, seconds = (3, 3.0) if quick else (9, 8.0)
    paced = {**MOCK, "PUNCH_MOCK_DECODE_RATE": f"{RATE:g}"}
    cost: defaultdict[str, list[float]] = defaultdict(list)
    lost = 0
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        programs = Programs(folder)
        listener, _ = stack.enter_context(programs.mock_listener(backend=paced))
        gateway = stack.enter_context(programs.gateway())
        sides = {"gateway": gateway, "listener": attrs.evolve(gateway, processes=(listener,))}
        asked = question(gateway.address, "Count.", TOKENS, stream=True)
        open_loop(gateway.address, repeat(asked), BEGUN, 1.0)
        for _ in range(rounds):
            before = {name: side.cpu() for name, side in sides.items()}
            answers = open_loop(gateway.address, repeat(asked), BEGUN, seconds)
            came = sum(len(answer.text.split()) for answer in answers)
            lost += TOKENS * len(answers) - came
            for name, side in sides.items():
                cost[name].append((side.cpu() - before[name]) / came)
    both = statistics.median(map(sum, zip(*cost.values(), strict=True)))
    parts = [f"{milliseconds(statistics.median(each))} the {name}" for name, each in cost.items()]
    rows = (
        Row(
            what="CPU a token that comes alone, gateway and listener together",
            ours=milliseconds(both),
            other=", ".join(parts),
            why="Two wake-ups, two writes and a turn of both programs for each; see `hop`.",
        ).at_most(both, MAX_SECONDS, milliseconds),
        Row(
            what="tokens of these streams that were lost",
            ours=str(lost),
            target="none",
            met=lost == 0,
            why="A token that is lost is a defect, not a matter of speed.",
        ),
    )
    streams = round(BEGUN * seconds)
    notes = (
        f"{rounds} rounds of {streams} streams of {TOKENS} tokens. "
        f"{' '.join((__doc__ or '').partition('.')[2].split())}",
    )
    return Report(title=TITLE, rows=rows, notes=notes)
