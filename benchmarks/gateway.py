"""The gateway beside LiteLLM's proxy, sglang-router, nginx and the server itself.

    benchmarks/gateway.py                      in 20 minutes, on a machine that does nothing else
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

import argparse
import itertools
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import repeat
from pathlib import Path

import _two_servers
import attrs
import psutil
from _alternatives import Side, open_litellm, open_mock, open_nginx, open_sglang_router
from _gateway_rows import (
    HIGH,
    LITELLM,
    LOW,
    PUNCH,
    SAME,
    STREAM_TOKENS,
    Found,
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
from _results import (
    Report,
    Section,
    UnavailableError,
    machine,
    remarks,
    shares,
    table,
)

from punch.backends import mock_words
from punch.dialer import chat_request
from punch.wire import Sampling

TITLE = "The gateway"
HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS.md"
SECTION = Section("gateway")

CORES = 2

# Of a saturated side, the first part of the time is its beginning.
WARM_UP = 0.25


@attrs.frozen(kw_only=True)
class Plan:
    """How much is measured."""

    rounds: int = 5
    """All sides, everything."""

    alone: int = 200
    """Questions of one client."""

    low_seconds: float = 10.0
    """At `LOW` requests a second."""

    high_seconds: float = 5.0
    """At `HIGH` requests a second."""

    levels: tuple[int, ...] = (8, 32, 64, 128)
    """Clients at a time, until there are errors."""

    level_seconds: float = 2.5
    """At each of them."""

    streams: int = 200
    """At a time."""

    profile_seconds: float = 5.0
    """Of the two programs of punch, each way."""

    real_rounds: int = 8
    """Pairs of the real listeners and their servers."""

    real_answers: int = 2
    """Of each client in each of them."""

    left_out: frozenset[str] = frozenset()
    """Sides."""


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


def say(text: str) -> None:
    """Tell how far it is, on standard error."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


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


# ---- the sides ----


def open_sides(
    stack: ExitStack, folder: Path, left_out: frozenset[str], *, delay: float = 0.0
) -> tuple[list[Side], list[str]]:
    """All that can be had before a server that takes *delay* seconds, and why the others cannot."""
    mock = stack.enter_context(open_mock(delay))
    sides, missing = [mock], []
    for name, opened in (
        ("nginx", open_nginx),
        ("sglang-router", open_sglang_router),
        (LITELLM, open_litellm),
    ):
        if name in left_out:
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
        if name in left_out:
            continue
        own = folder / name.replace(" ", "-")
        own.mkdir()
        programs = Programs(own)
        stack.enter_context(programs.mock_listener(backend=backend))
        side = stack.enter_context(programs.gateway())
        sides.append(attrs.evolve(side, name=name))
    return sides, missing


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
        failed = [answer for answer in answers if not answer.fine]
        if failed:
            self._failed[side.name] += len(failed)
            say(f"{side.name}: {len(failed)} of {len(answers)} failed: {failed[0].raw[:300]!r}")
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
        self._note(side, measure, statistics.quantiles(self._count(side, answers), n=100)[98])

    def _saturated(self, side: Side) -> None:
        asked = question(side.address, "How are you?", 1)
        seconds, best, cost = self.plan.level_seconds, 0.0, 0.0
        for clients in self.plan.levels:
            before = side.cpu()
            answers = closed_loop(side.address, repeat(asked), clients, seconds)
            spent = (side.cpu() - before) / len(answers)
            if not all(answer.fine for answer in answers):
                say(f"{side.name}: errors with {clients} clients")
                break
            began = min(answer.due for answer in answers)
            window = (began + WARM_UP * seconds, began + seconds)
            ended = sum(window[0] <= answer.ended < window[1] for answer in answers)
            rate = ended / (window[1] - window[0])
            if rate > best:
                best, cost = rate, spent
        self._note(side, "rate", best)
        self._note(side, "cpu", cost)

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


def _measure(plan: Plan) -> tuple[Report, Found, bool]:
    """The report, all numbers, and whether nothing was missing."""
    bench = Bench(plan)
    row = None
    with two_cores(), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with ExitStack() as stack:
            sides, missing = open_sides(stack, folder, plan.left_out)
            for number in range(plan.rounds):
                turn = number % len(sides)
                bench.round([*sides[turn:], *sides[:turn]])
                say(f"round {number + 1} of {plan.rounds}")
        # In the table they stand in the order in which they were opened.
        found = {side.name: bench.found[side.name] for side in sides}
        profiles = _profiles(folder / "profiled", plan) if PUNCH in found else []
        if "real" not in plan.left_out:
            try:
                row = _two_servers.measure(
                    folder / "real", rounds=plan.real_rounds, answers=plan.real_answers
                )
            except UnavailableError as error:
                missing.append(f"Two real listeners were not measured: {error}.")
                say(missing[-1])
    why = profiles[0] if profiles else ""
    rows = [*rows_of(found, streams=plan.streams, why=why), *filter(None, [row])]
    how = (__doc__ or "").split("\n\n")[2]
    notes = (
        f"{plan.rounds} rounds: {plan.alone} requests of one client; {plan.low_seconds:g} s at "
        f"{LOW:g} a second and {plan.high_seconds:g} s at {HIGH:g} a second, timed from when each "
        f"was due; {', '.join(map(str, plan.levels))} clients without a pause, "
        f"{plan.level_seconds:g} s each, the best of those without an error; {plan.streams} "
        f"streams of {STREAM_TOKENS} tokens, each with a text that is known.",
        " ".join(how.split()),
        "Memory and CPU are the gateway's, children included, without what stands behind it.",
        f"Two real listeners: llama-server with SmolLM2, one thread and {_two_servers.SLOTS} slot "
        f"each; {plan.real_rounds} rounds of {plan.real_answers} answers of {_two_servers.TOKENS} "
        "tokens for each of two clients, who both ask the gateway, or each a server.",
        *missing,
        *profiles,
    )
    return Report(title=TITLE, rows=tuple(rows), notes=notes), found, not missing


def measure(*, quick: bool) -> Report:
    """For `run.py gateway`."""
    return _measure(QUICK if quick else Plan())[0]


def section(report: Report, found: Found, *, command: str) -> str:
    """What goes into RESULTS.md."""
    told = remarks([report]).replace("## ", "### ")
    lines = [
        SECTION.begin,
        "## The gateway, side by side",
        "",
        f"`{command}`, on: {machine()}.",
        "",
        table([report]),
        "",
        "All sides, medians over the rounds:",
        "",
        all_sides(found),
        "",
        told,
        SECTION.end,
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    """Run the program; its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--rounds", type=int, metavar="N", help="how many")
    parser.add_argument("--leave-out", action="append", default=[], metavar="NAME", help="a side")
    parser.add_argument("--write", action="store_true", help="rewrite the section of RESULTS.md")
    given = parser.parse_args()
    usual = QUICK if given.quick else Plan()
    plan = attrs.evolve(
        usual, rounds=given.rounds or usual.rounds, left_out=frozenset(given.leave_out)
    )
    report, found, complete = _measure(plan)
    command = "benchmarks/gateway.py" + (" --quick" if given.quick else "")
    text = section(report, found, command=command)
    print(text)
    if given.write:
        before = RESULTS.read_text(encoding="utf-8")
        RESULTS.write_text(SECTION.replaced(before, text), encoding="utf-8")
        say(f"wrote {RESULTS.name}")
    missed = [row.what for row in report.rows if row.met is False]
    if missed:
        say(f"not met: {'; '.join(missed)}")
    return 0 if complete and not missed else 1


if __name__ == "__main__":
    sys.exit(main())
