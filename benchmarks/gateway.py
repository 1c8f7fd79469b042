"""The gateway beside LiteLLM's proxy, sglang-router, nginx and the server itself.

    benchmarks/gateway.py                      in 22 minutes, on a machine that does nothing else
    benchmarks/gateway.py --quick              in 3 minutes; less exact
    benchmarks/gateway.py --write              ... and rewrites its section of RESULTS.md
    benchmarks/gateway.py --leave-out LiteLLM  without one of the sides, or without `real`

One server that answers at once (`_mock_openai.py`) stands behind all of them; one client
(`_http_client.py`) asks all of them; everything runs on the same two cores. Punch is its two
programs as anybody starts them, ``punch.gateway`` and one ``punch.listener``, with libp2p between
them and the mock backend, which answers at once as well; a second pair has the very server
behind its listener. LiteLLM has the settings that its makers recommend for production, one
worker, no database, no key, and its logs of requests, messages and telemetry off; punch's own
logs, metrics and dashboard feed are on, as they are by default. The sides take turns within a
round and change their order.

The exit status is 1 if a target is missed or something needed is not there.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import repeat
from pathlib import Path

import _program
import _two_servers
import attrs
from _alternatives import Side
from _gateway_rows import (
    HIGH,
    LITELLM,
    LOW,
    PUNCH,
    STREAM_TOKENS,
    all_sides,
    rows_of,
)
from _http_client import (
    Answer,
    all_at_once,
    closed_loop,
    one_after_another,
    open_loop,
    question,
)
from _mock_openai import words
from _programs import Profile, Programs
from _results import Report, UnavailableError, say, shares
from _sides import NAMES, count_failed, in_turns, load, open_sides, two_cores

from punch.backends import mock_words
from punch.dialer import chat_request
from punch.wire import Sampling

TITLE = "The gateway, side by side"

# What may be left out: the sides, and two real listeners.
REAL = "real"

# Of a saturated side, the first part of the time is its beginning.
WARM_UP = 0.25


@attrs.frozen(kw_only=True)
class Plan:
    """How much is measured."""

    rounds: int = 9
    """All sides, everything."""

    alone: int = 200
    """Questions of one client."""

    low_seconds: float = 8.0
    """At `LOW` requests a second."""

    high_seconds: float = 3.0
    """At `HIGH` requests a second."""

    levels: tuple[int, ...] = (8, 32, 64, 128)
    """Clients at a time, until there are errors."""

    level_seconds: float = 2.0
    """At each of them."""

    streams: int = 200
    """At a time."""

    profile_seconds: float = 5.0
    """Of the two programs of punch, each way."""

    real_rounds: int = 9
    """Pairs of the real listeners and their servers."""

    real_answers: int = 2
    """Of each client in each of them."""

    left_out: frozenset[str] = frozenset()
    """Of `NAMES`, and `REAL`."""


QUICK = Plan(
    rounds=2,
    alone=50,
    low_seconds=2.0,
    high_seconds=1.0,
    levels=(16, 64),
    level_seconds=1.0,
    profile_seconds=2.0,
    real_rounds=3,
    real_answers=1,
)


def _expected(side: str, prompt: str, tokens: int) -> str:
    """What the model behind this side says to it."""
    if side != PUNCH:
        return words(tokens)
    return " ".join(mock_words(chat_request(prompt, sampling=Sampling(max_tokens=tokens))))


def _lost(right: str, answer: Answer) -> int:
    """Tokens that are missing, or not where they should be."""
    wanted, came = right.split(" "), answer.text.split(" ")
    same = sum(itertools.takewhile(bool, map(str.__eq__, wanted, came)))
    wrong = max(len(wanted), len(came)) - same
    return wrong or int(not answer.complete)


# ---- one side, one measure ----


class Bench:
    """What was found so far."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.found: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(
            lambda: defaultdict(list)
        )
        self._failed: defaultdict[str, int] = defaultdict(int)

    def round(self, sides: Sequence[Side]) -> None:
        """Everything once."""
        for measure in (self._alone, self._low, self._high, self._saturated, self._streams):
            for side in sides:
                measure(side)
        for side in sides:
            self._note(side, "memory", side.memory())
            self._note(side, "failed", self._failed.pop(side.name, 0))

    def _note(self, side: Side, measure: str, value: float) -> None:
        self.found[side.name][measure].append(value)

    def _count(self, side: Side, answers: Sequence[Answer]) -> list[float]:
        """Their seconds; those that failed are counted."""
        self._failed[side.name] += count_failed(side, answers)
        return [answer.seconds for answer in answers]

    def _alone(self, side: Side) -> None:
        asked = question(side.address, "How are you?", 1)
        one_after_another(side.address, repeat(asked, self.plan.alone // 5))
        answers = one_after_another(side.address, repeat(asked, self.plan.alone))
        self._note(side, "alone", statistics.median(self._count(side, answers)))

    def _low(self, side: Side) -> None:
        self._at(side, "low", LOW, self.plan.low_seconds)

    def _high(self, side: Side) -> None:
        # LiteLLM answers a fifth of that: its p99 would tell how long it was asked.
        if side.name != LITELLM:
            self._at(side, "high", HIGH, self.plan.high_seconds)

    def _at(self, side: Side, measure: str, rate: float, seconds: float) -> None:
        asked = question(side.address, "How are you?", 1)
        answers = open_loop(side.address, repeat(asked), rate, seconds)
        # Every one of them: the hundredth part of a round is too few to tell where it begins.
        self.found[side.name][measure] += self._count(side, answers)

    def _saturated(self, side: Side) -> None:
        asked = question(side.address, "How are you?", 1)
        best = None
        for clients in self.plan.levels:
            seen = load(side, asked, clients, self.plan.level_seconds, warm_up=WARM_UP)
            if seen.failed:
                break
            if best is None or seen.rate > best.rate:
                best = seen
        self._note(side, "rate", best.rate if best else 0.0)
        self._note(side, "cpu", best.cpu if best else 0.0)

    def _streams(self, side: Side) -> None:
        prompts = [f"Count, number {index}." for index in range(self.plan.streams)]
        answers = all_at_once(
            side.address,
            [question(side.address, prompt, STREAM_TOKENS, stream=True) for prompt in prompts],
        )
        self._count(side, answers)
        lost = sum(
            _lost(_expected(side.name, prompt, STREAM_TOKENS), answer)
            for prompt, answer in zip(prompts, answers, strict=True)
        )
        seconds = max(answer.ended for answer in answers) - min(answer.due for answer in answers)
        self._note(side, "streams", (STREAM_TOKENS * len(prompts) - lost) / seconds)
        self._note(side, "lost", lost)


# ---- where its time goes ----


def _profiles(folder: Path, plan: Plan) -> list[str]:
    """A sentence for each program of punch and each kind of work."""
    folder.mkdir()
    programs = Programs(folder)
    notes = []
    with ExitStack() as stack:
        listener, _ = stack.enter_context(programs.mock_listener(profiled=True))
        side = stack.enter_context(programs.gateway(profiled=True))
        address = side.address
        asked = question(address, "How are you?", 1)
        streamed = question(address, "Count.", STREAM_TOKENS, stream=True)
        sides = {"gateway": side.processes[0], "listener": listener}
        for what, data, clients in (("requests", asked, 32), ("streams", streamed, 16)):
            closed_loop(address, repeat(data), clients, 1.0)
            profiles = {name: Profile(process, folder) for name, process in sides.items()}
            for profile in profiles.values():
                profile.start()
            closed_loop(address, repeat(data), clients, plan.profile_seconds)
            notes += [
                f"CPU time of the {name} (profiled), {what}: {shares(profile.stop())}."
                for name, profile in profiles.items()
            ]
    return notes


# ---- the report ----


def carry_out(plan: Plan) -> Report:
    """Measure what *plan* says."""
    bench = Bench(plan)
    row = None
    missing = [f"{name} was left out." for name in sorted(plan.left_out)]
    with two_cores(), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with ExitStack() as stack:
            wanted = [name for name in NAMES if name not in plan.left_out]
            sides, absent = open_sides(stack, folder, wanted)
            missing += absent
            for turn in in_turns(sides, plan.rounds):
                bench.round(turn)
        # In the table they stand in the order in which they were opened.
        found = {side.name: bench.found[side.name] for side in sides}
        profiles = _profiles(folder / "profiled", plan) if PUNCH in found else []
        if REAL not in plan.left_out:
            try:
                row = _two_servers.measure(
                    folder / "real", rounds=plan.real_rounds, answers=plan.real_answers
                )
            except UnavailableError as error:
                missing.append(f"Two real listeners were not measured: {error}.")
                say(missing[-1])
    why = profiles[0] if profiles else ""
    rows = [*rows_of(found, streams=plan.streams, why=why), *filter(None, [row])]
    notes = (
        f"{plan.rounds} rounds: {plan.alone} requests of one client; {plan.low_seconds:g} s at "
        f"{LOW:g} a second and {plan.high_seconds:g} s at {HIGH:g} a second, timed from when each "
        "was due, their percentiles of all rounds together; "
        f"{', '.join(map(str, plan.levels))} clients without a pause, "
        f"{plan.level_seconds:g} s each, the best of those without an error; {plan.streams} "
        f"streams of {STREAM_TOKENS} tokens, each with a text that is known.",
        _program.how(__doc__),
        "Memory and CPU are the gateway's, children included, without what stands behind it.",
        f"Two real listeners: llama-server with SmolLM2, one thread and {_two_servers.SLOTS} slot "
        f"each; {plan.real_rounds} rounds of {plan.real_answers} answers of {_two_servers.TOKENS} "
        "tokens for each of two clients, who both ask the gateway, or each a server.",
        *profiles,
    )
    return Report(
        title=TITLE,
        rows=tuple(rows),
        notes=notes,
        details=f"All sides, medians over the rounds:\n\n{all_sides(found)}",
        missing=tuple(missing),
    )


def measure(*, quick: bool) -> Report:
    """For `run.py gateway`."""
    return carry_out(QUICK if quick else Plan())


def main() -> int:
    """Run the program; its exit code."""
    return _program.run(
        "gateway", __doc__, carry_out, usual=Plan(), quick=QUICK, sides=(*NAMES, REAL)
    )


if __name__ == "__main__":
    sys.exit(main())
