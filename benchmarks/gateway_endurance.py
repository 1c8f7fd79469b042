"""The gateway at 80 % of what it can do, while its listeners are killed and started again.

    benchmarks/gateway_endurance.py                ten minutes
    benchmarks/gateway_endurance.py --minutes 60
    benchmarks/gateway_endurance.py --minutes 0.3 --every 5

Four mock listeners in processes of their own, which take as long for an answer as it needs to be
hit by a death (SIGKILL); one gateway; one client that asks at fixed moments, whatever becomes of
the others. Each minute begins with some seconds in which 64 clients ask without a pause, deaths
and restarts included: that is what it can do at the time, as machines that are shared have fast
hours and slow ones. Every fourth answer is a stream. Every text is compared with the right one.
Memory and descriptors of the gateway are noted every second; its clients' connections are not
counted, as how many there are is up to them. Two more listeners misbehave all the time: one claims
the others' speed and drips a word every 4 s, one says of every request that its caller is at fault.

The exit status is 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

import attrs
import psutil
from _alternatives import Side
from _held import Sample, Trend, Watch, held_by
from _http_client import Answer, closed_loop, open_loop, question
from _processes import Child
from _programs import QUEUE, SLOTS, Programs
from _results import Report, Row, machine, milliseconds, remarks, table

from punch.backends import mock_words
from punch.dialer import chat_request
from punch.discovery import DEFAULT_NAMESPACE
from punch.wire import Sampling

TITLE = "The gateway, while listeners die and come back"

# Long enough that some requests are under way on every listener at every moment.
MOCK = {
    "PUNCH_INFERENCE_BACKEND": "mock",
    "PUNCH_MOCK_DELAY": "0.05",
    "PUNCH_MOCK_DECODE_RATE": "500",
}
TOKENS = 8
STREAM_TOKENS = 20
STREAMED_EVERY = 4
PROMPTS = 64

SATURATING_CLIENTS = 64

# Once, before memory is noted. A request under way takes some 40 KB, which the allocator keeps
# for the next one; of a leak it can only be told when the longest queue has been there.
BURST_CLIENTS = 768
BURST_SECONDS = 10.0

# So many minutes together say what the gateway can do: in one alone there may be no death.
RATES_KEPT = 3

# A supervisor starts what has died at once, or a person does so after a moment.
MAX_ABSENCE_SECONDS = 4.0

# One word in 4 s, by an engine that claims and reports 500 a second.
DRIP_RATE = 0.25
DRIP_CLAIMS = 2000.0
PREFILL_RATE = 100_000.0

# What may come and go: a page that the allocator kept, a session that was about to end.
MAX_GROWTH = 0.05
SPARE_BYTES = 8e6
SPARE_DESCRIPTORS = 8

# Of answers that say what went wrong; none may be missing, and none wrong.
MAX_ERRORS = 0.001

# Connections that nobody uses are gone by then.
SETTLE_SECONDS = 15.0


@attrs.frozen(kw_only=True)
class Plan:
    """What is to happen."""

    minutes: float = 10.0
    """How long the gateway is asked."""

    listeners: int = 4
    """How many there are when all are there."""

    every: float = 20.0
    """Mean time between two deaths, in seconds."""

    share: float = 0.8
    """Of what it can do, how much is asked of it."""

    stage: float = 60.0
    """How often its limit is looked for, in seconds."""

    saturation: float = 8.0
    """How long that takes, in seconds."""

    seed: int = 1
    """Draws the deaths."""


# ---- the listeners ----


class Deaths(threading.Thread):
    """Keeps the listeners running, and kills one of them now and then."""

    def __init__(self, programs: Programs, plan: Plan) -> None:
        super().__init__()
        self.killed = 0
        """How many so far."""
        self._programs = programs
        self._plan = plan
        self._rng = Random(plan.seed)
        self._stopped = threading.Event()
        self._running: dict[int, tuple[ExitStack, psutil.Process]] = {}
        self._failure: BaseException | None = None

    def begin(self) -> None:
        """Start all listeners."""
        for number in range(self._plan.listeners):
            self._start(number)

    def run(self) -> None:
        """Kill and start until stopped."""
        try:
            while not self._stopped.wait(self._rng.expovariate(1 / self._plan.every)):
                number = self._rng.randrange(self._plan.listeners)
                stack, process = self._running.pop(number)
                process.kill()
                stack.close()
                self.killed += 1
                self._stopped.wait(self._rng.uniform(0, MAX_ABSENCE_SECONDS))
                self._start(number)
        except BaseException as error:  # noqa: BLE001  # It is raised where the result is wanted.
            self._failure = error

    def finish(self) -> None:
        """Kill no more; raise what went wrong."""
        self._stopped.set()
        self.join()
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """End all listeners."""
        self._stopped.set()
        if self.is_alive():
            self.join()
        for stack, _ in self._running.values():
            stack.close()

    def _start(self, number: int) -> None:
        stack = ExitStack()
        options = ("--slots", str(SLOTS), "--queue", str(QUEUE))
        process, _ = stack.enter_context(
            self._programs.listener(number, *options, environment=MOCK)
        )
        self._running[number] = (stack, process)


def open_misbehaving(stack: ExitStack, programs: Programs) -> None:
    """Start a listener that drips and one that blames its callers."""
    common: dict[str, Any] = {
        "bootstrap": programs.bootstrap,
        "namespace": DEFAULT_NAMESPACE,
        "slots": SLOTS,
        "prefill_rate": PREFILL_RATE / DRIP_CLAIMS,
    }
    drips = Child("_misbehaving_listener.py", decode_rate=DRIP_RATE, claims=DRIP_CLAIMS, **common)
    blames = Child("_misbehaving_listener.py", decode_rate=500.0, kind="blaming", **common)
    for child in (stack.enter_context(drips), stack.enter_context(blames)):
        # It says who it is once it has joined.
        _say(f"a listener misbehaves: {child.greeting['peer_id']}")


# ---- asking ----


class Told:
    """What became of the requests."""

    def __init__(self, expected: dict[bytes, str]) -> None:
        self.outcomes: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.errors: Counter[str] = Counter()
        self._expected = expected

    def take(self, answer: Answer, *, due: bool = True) -> None:
        """One more; *due* if it was asked at a fixed moment, and its time counts."""
        if due:
            self.seconds.append(answer.seconds)
        self.outcomes[self._outcome(answer)] += 1

    def _outcome(self, answer: Answer) -> str:
        if not answer.raw:
            return "lost"
        if answer.status != 200:
            self.errors[f"{answer.status}: {answer.body[:600].decode(errors='replace')}"] += 1
            return "error"
        try:
            right = answer.text == self._expected[answer.asked]
        except (ValueError, LookupError):
            right = False
        streamed = b'"stream": true' in answer.asked
        if not right or (streamed and not answer.complete):
            self.errors[f"wrong: {answer.raw[-300:].decode(errors='replace')}"] += 1
            return "wrong"
        return "continued" if answer.raw.count(b'"peer_id"') > 1 else "right"


def _questions(gateway: Side) -> dict[bytes, str]:
    """What is asked, and the right texts."""
    found = {}
    for index in range(PROMPTS):
        prompt = f"What is number {index}?"
        streamed = index % STREAMED_EVERY == 0
        tokens = STREAM_TOKENS if streamed else TOKENS
        asked = question(gateway.address, prompt, tokens, **({"stream": True} if streamed else {}))
        request = chat_request(prompt, sampling=Sampling(max_tokens=tokens))
        found[asked] = " ".join(mock_words(request))
    return found


class Asking:
    """Asks the gateway, at a share of what it can do."""

    def __init__(self, gateway: Side, plan: Plan) -> None:
        expected = _questions(gateway)
        self.told = Told(expected)
        """What became of it."""
        self.asked = 0
        """Requests so far."""
        self.rates: list[float] = []
        """Requests per second that were asked for, in each stage."""
        self._most: list[float] = []
        self._gateway = gateway
        self._plan = plan
        self._questions = itertools.cycle(expected)

    def saturate(self, seconds: float, clients: int = SATURATING_CLIENTS) -> float:
        """So many clients that ask without a pause; the requests per second that it answered."""
        began = time.perf_counter()
        answers = closed_loop(self._gateway.address, self._questions, clients, seconds)
        self.asked += len(answers)
        for answer in answers:
            self.told.take(answer, due=False)
        # A refusal takes next to no time: it would raise the rate that is asked for next.
        return sum(answer.fine for answer in answers) / (time.perf_counter() - began)

    def stage(self, seconds: float) -> None:
        """Look what it can do, and ask for a share of that."""
        self._most.append(self.saturate(self._plan.saturation))
        rate = self._plan.share * statistics.fmean(self._most[-RATES_KEPT:])
        seconds -= self._plan.saturation
        self.rates.append(rate)
        self.asked += round(rate * seconds)
        open_loop(self._gateway.address, self._questions, rate, seconds, keep=self.told.take)


# ---- the report ----


def _growth(what: str, trend: Trend, spare: float, *, unit: float, name: str) -> Row:
    return Row(
        what=what,
        ours=f"{trend.first / unit:.1f} to {trend.last / unit:.1f} {name}, first and last quarter",
        other=f"{trend.slope * 60 / unit:+.2f} {name} a minute, by a linear fit",
        ratio=f"{(trend.last - trend.first) / unit:+.1f} {name}",
        target=f"at most {spare / unit:+.1f} {name} in all",
        met=trend.is_flat(spare),
        why="Something is kept that should have been let go.",
    )


def measure(plan: Plan) -> Report:
    """Ask, kill, and look what is held."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        programs = Programs(Path(name))
        stack.enter_context(programs.program("bootstrap", ready="bootstrap"))
        deaths = Deaths(programs, plan)
        stack.callback(deaths.close)
        deaths.begin()
        open_misbehaving(stack, programs)
        gateway = stack.enter_context(programs.gateway())
        asking = Asking(gateway, plan)
        asking.saturate(BURST_SECONDS, BURST_CLIENTS)
        time.sleep(min(SETTLE_SECONDS, plan.minutes * 6))
        before = held_by(gateway)
        watch = Watch(gateway)
        deaths.start()
        watch.start()
        until = time.monotonic() + plan.minutes * 60
        while (left := until - time.monotonic()) > plan.saturation:
            asking.stage(min(left, plan.stage))
            _say(f"{asking.asked} requests, now {asking.rates[-1]:.0f} a second")
        samples = watch.finish()
        deaths.finish()
        time.sleep(min(SETTLE_SECONDS, plan.minutes * 6))
        after = held_by(gateway)
    return _report(plan, asking, samples, (before, after), deaths.killed)


def _report(
    plan: Plan,
    asking: Asking,
    samples: Sequence[Sample],
    idle: tuple[Sample, Sample],
    killed: int,
) -> Report:
    asked, told, rates = asking.asked, asking.told, asking.rates
    times = [sample.at for sample in samples]
    memory = Trend.of(times, [sample.memory for sample in samples])
    descriptors = Trend.of(times, [sample.descriptors for sample in samples])
    outcomes = told.outcomes
    missing = asked - sum(outcomes.values()) + outcomes["lost"]
    percentiles = statistics.quantiles(told.seconds, n=100)
    before, after = idle
    rows = (
        Row(
            what="requests without an answer, or with two",
            ours=f"{missing} of {asked}",
            target="none",
            met=missing == 0,
            why="A request that is lost is a defect, not a matter of speed.",
        ),
        Row(
            what="answers with a wrong text, or half of one",
            ours=f"{outcomes['wrong']} of {asked}",
            target="none",
            met=outcomes["wrong"] == 0,
            why="An answer that is wrong is a defect, not a matter of speed.",
        ),
        Row(
            what="answers that are an error",
            ours=f"{outcomes['error']} of {asked}",
            target=f"at most {MAX_ERRORS:.1%}",
            met=outcomes["error"] <= MAX_ERRORS * asked,
            why="What they say stands below.",
        ),
        Row(
            what="answers that more than one peer delivered",
            ours=f"{outcomes['continued']}",
        ),
        _growth(
            "resident memory",
            memory,
            max(SPARE_BYTES, MAX_GROWTH * memory.first),
            unit=1e6,
            name="MB",
        ),
        _growth(
            "descriptors, without clients", descriptors, SPARE_DESCRIPTORS, unit=1, name="of them"
        ),
        Row(
            what="descriptors with nobody asking, before and after",
            ours=f"{before.descriptors}, {after.descriptors}",
            ratio=f"{after.descriptors - before.descriptors:+d}",
            target=f"at most {SPARE_DESCRIPTORS:+d}",
            met=after.descriptors - before.descriptors <= SPARE_DESCRIPTORS,
            why="Something is kept that should have been let go.",
        ),
        Row(
            what="from when it was due to the end, median and 99th percentile",
            ours=f"{milliseconds(percentiles[49])}, {milliseconds(percentiles[98])}",
        ),
    )
    how = (__doc__ or "").split("\n\n")[2]
    notes = (
        f"{plan.minutes:g} minutes at {plan.share:.0%} of what it can do, which was "
        f"{min(rates):.0f} to {max(rates):.0f} requests a second; {killed} deaths among "
        f"{plan.listeners} listeners. {' '.join(how.split())}",
        *(f"{count} times {text}" for text, count in told.errors.most_common(5)),
    )
    return Report(title=TITLE, rows=rows, notes=notes)


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def main() -> int:
    """Run the program; its exit code."""
    usual = Plan()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=usual.minutes, help="how long")
    parser.add_argument("--listeners", type=int, default=usual.listeners, help="how many")
    parser.add_argument(
        "--every", type=float, default=usual.every, help="mean seconds between two deaths"
    )
    parser.add_argument(
        "--share", type=float, default=usual.share, help="load, as a share of saturation"
    )
    parser.add_argument("--seed", type=int, default=usual.seed, help="other deaths")
    given = parser.parse_args()
    plan = Plan(**vars(given))
    if plan.minutes * 60 < 2 * plan.saturation:
        parser.error(
            f"--minutes is {plan.minutes:g}; it must be {plan.saturation / 30:.2g} or more"
        )
    report = measure(plan)
    print(f"{machine()}\n\n{table([report])}\n\n{remarks(report)}")
    missed = [row.what for row in report.rows if row.met is False]
    if missed:
        _say(f"not met: {'; '.join(missed)}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
