"""A split of two over tunnels, beside the same split over plain loopback.

    benchmarks/tunnels.py             ten rounds: 2 minutes
    benchmarks/tunnels.py --quick     three rounds; says little
    benchmarks/tunnels.py --write     ... and rewrites its section of RESULTS.md

SmolLM2 on llama-server and two rpc-servers, one thread each. A round starts the head three times
over the same two servers: plain, over TLS connections (a carrier for each of the three machines),
and over streams of libp2p (a node for each); in another order each time. The ratios are those of
one round, so that a busy neighbour slows both; the interval is that of their median, by resampling
(95 %). The exit status is 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random

import attrs
from _results import Section, UnavailableError, machine
from _split_lab import CONTEXT, load_average, open_head, open_worker
from inference import ROOT

RESULTS = ROOT / "benchmarks" / "RESULTS.md"
SECTION = Section("tunnels")
ENDS = Path(__file__).with_name("_tunnel_ends.py")

WORKERS = 2
ROUNDS = 10
TOKENS = 48
ASKS = 3
"""The fastest of so many answers is the round's."""

QUESTION = "Explain in plain words why the sky is dark at night although there are so many stars.\n"
ARMS = ("plain", "TLS", "streams")
DRAWS = 4000


@attrs.frozen(kw_only=True)
class Target:
    """What is asked of an arm, as a ratio to plain loopback."""

    arm: str
    what: str
    median: float
    lower: float = 0.0


TARGETS = (
    Target(arm="TLS", what="tokens a second", median=0.95, lower=0.90),
    Target(arm="TLS", what="speed of loading", median=0.60),
    Target(arm="streams", what="tokens a second", median=0.65),
)


@attrs.frozen(kw_only=True)
class Seen:
    """One start of one arm."""

    rate: float
    """Tokens a second."""

    load: float
    """Seconds from the head's start until it could be asked."""


def say(text: str) -> None:
    """How far it is."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def open_ends(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Ends of tunnels, in a process of their own."""
    process = subprocess.Popen(
        [sys.executable, str(ENDS), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def line_of(process: subprocess.Popen[str]) -> str:
    """What it says next."""
    assert process.stdout is not None
    if not (said := process.stdout.readline().strip()):
        raise UnavailableError("the ends of a tunnel did not start")
    return said


@contextmanager
def open_arms(workers: Sequence[int]) -> Iterator[dict[str, list[int]]]:
    """The ports at which a head reaches the workers, in each way."""
    with ExitStack() as stack:
        direct = stack.enter_context(open_ends("direct", *map(str, workers)))
        near = stack.enter_context(open_ends("near"))
        borrower = line_of(near)
        fars = [
            line_of(stack.enter_context(open_ends("far", str(each), borrower))) for each in workers
        ]
        assert near.stdin is not None
        near.stdin.write(",".join(fars) + "\n")
        near.stdin.flush()
        yield {
            "plain": list(workers),
            "TLS": list(map(int, line_of(direct).split())),
            "streams": list(map(int, line_of(near).split())),
        }


def measure(folder: Path, ports: Sequence[int]) -> Seen:
    """Start a head over *ports*, and ask it."""
    options = ("-c", str(CONTEXT), "-np", "1", "-ub", "64", "--tensor-split", "1,1")
    with open_head(folder / "head.log", ports=ports, options=options) as head:
        head.ask("Once", 2)
        rate = max(1 / head.ask(QUESTION, TOKENS).token for _ in range(ASKS))
        return Seen(rate=rate, load=head.load)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Between what the median lies, by resampling: 95 %."""
    rng = Random(7)
    medians = sorted(statistics.median(rng.choices(values, k=len(values))) for _ in range(DRAWS))
    return medians[DRAWS * 25 // 1000], medians[DRAWS * 975 // 1000]


def ratios(rounds: Sequence[dict[str, Seen]], arm: str, what: str) -> list[float]:
    """Of *arm* to plain loopback, in each round; above 1 is faster."""
    if what == "tokens a second":
        return [each[arm].rate / each["plain"].rate for each in rounds]
    return [each["plain"].load / each[arm].load for each in rounds]


def report(rounds: Sequence[dict[str, Seen]], load: tuple[float, float]) -> tuple[str, bool]:
    """The table, and whether all targets are met."""
    lines = [
        f"SmolLM2 over two rpc-servers of one thread each, {len(rounds)} rounds; {machine()}; "
        f"load average {load[0]:.1f} before and {load[1]:.1f} after.",
        "",
        "| carrier | what | median | plain | ratio, median | 95 % interval | target | met |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    is_met = True
    for arm in ARMS[1:]:
        for what in ("tokens a second", "speed of loading"):
            found = ratios(rounds, arm, what)
            low, high = interval(found)
            median = statistics.median(found)
            target = next((t for t in TARGETS if (t.arm, t.what) == (arm, what)), None)
            asked, met = "", ""
            if target is not None:
                ok = median >= target.median and low >= target.lower
                is_met = is_met and ok
                met = "yes" if ok else "no"
                asked = f"{target.median:.2f}"
                if target.lower:
                    asked += f", lower bound {target.lower:.2f}"
            ours, plain = (
                statistics.median(
                    each[name].rate if what == "tokens a second" else each[name].load
                    for each in rounds
                )
                for name in (arm, "plain")
            )
            unit = "" if what == "tokens a second" else " s"
            lines.append(
                f"| {arm} | {what} | {ours:.2f}{unit} | {plain:.2f}{unit} | {median:.2f} "
                f"| {low:.2f} to {high:.2f} | {asked} | {met} |"
            )
    return "\n".join(lines), is_met


def main() -> int:
    """Measure, and say what was found."""
    parser = argparse.ArgumentParser(description="A split over tunnels, beside plain loopback.")
    parser.add_argument("--quick", action="store_true", help="three rounds; says little")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--write", action="store_true", help="rewrite the section of RESULTS.md")
    arguments = parser.parse_args()
    count = 3 if arguments.quick else arguments.rounds
    rounds: list[dict[str, Seen]] = []
    before = load_average()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        workers = [
            stack.enter_context(open_worker(folder / f"worker-{i}.log")) for i in range(WORKERS)
        ]
        arms = stack.enter_context(open_arms(workers))
        for number in range(count):
            order = [ARMS[(number + i) % len(ARMS)] for i in range(len(ARMS))]
            rounds.append({arm: measure(folder, arms[arm]) for arm in order})
            say(
                f"round {number + 1}: "
                + ", ".join(
                    f"{arm} {rounds[-1][arm].rate:.1f} tokens/s, load {rounds[-1][arm].load:.2f} s"
                    for arm in ARMS
                )
                + f"; load average {load_average():.1f}"
            )
    text, is_met = report(rounds, (before, load_average()))
    print(text)
    if arguments.write:
        ours = f"{SECTION.begin}\n## Tunnels\n\n{text}\n{SECTION.end}\n"
        document = RESULTS.read_text(encoding="utf-8")
        RESULTS.write_text(SECTION.replaced(document, ours), encoding="utf-8")
    return 0 if is_met else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UnavailableError as error:
        sys.exit(str(error))
