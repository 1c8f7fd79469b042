"""From the death of a worker of a split to the next token, and where the time goes.

    benchmarks/split_deaths.py             five rounds of each kind: 5 minutes
    benchmarks/split_deaths.py --quick     one round; says little
    benchmarks/split_deaths.py --write     ... and rewrites its sections of RESULTS.md and
                                           docs/split.md

SmolLM2 over two `punch worker`s with tunnels between, a coordinator and a dialer. Each is on a
machine of its own where the laboratory of the tests can make some (root, iproute2, nftables); else
all are on this one, and nobody is cut off. In the middle of an answer a worker is lost: its server
is killed, or stopped, or all of its machine's programs are stopped, or its cable is pulled. The two
workers take turns. The exit status is 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

import attrs
from _results import Section, UnavailableError, machine
from _split_lab import load_average
from inference import ROOT, find_model, find_server
from splits import DOCUMENT, RESULTS, write

sys.path.insert(0, str(ROOT / "tests"))

from integration.lost_workers import HARMS, Harm, Home
from integration.programs import Program, open_programs
from lab.machines import Machine, missing, open_lab, open_watch, sweep

HEAD = Path(__file__).with_name("_split_death_head.py")
SECTION = Section("deaths of workers")
TABLE = Section("deaths of workers, measured")

ROUNDS = 5
DELIVERED_TOKENS = 8
ROUND_SECONDS = 120.0
PARTS = ("noticed", "head ended", "planned", "loaded", "first token")


@attrs.frozen(kw_only=True)
class Arm:
    """A way to lose a worker."""

    name: str
    harm: Harm
    most: float
    """Seconds to the next token, as they are asked of each round."""
    is_cut: bool = False


def unplug(home: Home, victim: int) -> None:
    """Pull the cable of a worker's machine."""
    place = home.places[victim]
    assert isinstance(place, Machine)
    place.link("eth0", "down")


ARMS = (
    Arm(name="its server is killed", harm=HARMS["server killed"], most=5.0),
    Arm(name="its server is stopped", harm=HARMS["server stopped"], most=8.0),
    Arm(name="all of its machine is stopped", harm=HARMS["all stopped"], most=8.0),
    Arm(name="its cable is pulled", harm=unplug, most=8.0, is_cut=True),
)


@attrs.frozen(kw_only=True)
class Seen:
    """What one loss took, in seconds."""

    parts: tuple[float, ...]
    """One after the other: see `PARTS`."""

    @property
    def whole(self) -> float:
        """From the loss to the next token."""
        return sum(self.parts)


def say(text: str) -> None:
    """How far it is."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def open_home(folder: Path) -> Iterator[tuple[Home, bool]]:
    """The workers, and whether each has a machine of its own."""
    with ExitStack() as stack:
        engine, model = find_server().parent, find_model()
        why = missing()
        if why is None:
            sweep()
            stack.enter_context(open_watch())
            lab = stack.enter_context(open_lab(folder))
            first, *places = [lab.machine(name) for name in ("first", "a", "b")]
            home = Home(head=first, places=places, engine=engine, model=model)
        else:
            say(f"nobody is cut off: {why}")
            programs = stack.enter_context(open_programs(folder))
            home = Home(head=programs, places=[programs] * 2, engine=engine, model=model)
        home.open()
        yield home, why is None


def open_head(home: Home) -> Program:
    """The coordinator and the dialer."""
    return home.head.start_script(HEAD, home.head.address, *home.options, **home.variables)


def lines_of(head: Program) -> list[tuple[str, float]]:
    """What it has said."""
    lines = [line.split() for line in head.out.split("\n")[:-1] if line.startswith("@ ")]
    return [(word, float(at)) for _, word, at in lines]


def measure(home: Home, head: Program, arm: Arm, victim: int) -> Seen:
    """Lose a worker in the middle of an answer."""
    before = len(lines_of(head))

    def count(what: str) -> int:
        return sum(word == what for word, _ in lines_of(head)[before:])

    head.write("\n")
    head.wait_until(lambda: count("token") >= DELIVERED_TOKENS, "a beginning", ROUND_SECONDS)
    began = time.monotonic()
    arm.harm(home, victim)
    head.wait_until(lambda: count("closed"), "an end", ROUND_SECONDS)
    found = lines_of(head)[before:]

    def first(what: str, since: float) -> float:
        times = [at for word, at in found if word == what and at >= since]
        if not times:
            raise UnavailableError(f"{arm.name}: no {what!r} after the loss\n{head.err}")
        return min(times)

    # A head that is killed may be seen to be gone a little before its end is told.
    lost = first("WorkerLost", began)
    ended = max(lost, first("ended", began))
    planned = first("PlanChanged", ended)
    ready = first("SplitReady", planned)
    steps = (began, lost, ended, planned, ready, first("token", ready))
    return Seen(parts=tuple(b - a for a, b in pairwise(steps)))


def revive(home: Home, arm: Arm, victim: int) -> None:
    """Have both lend again."""
    place = home.places[victim]
    if arm.is_cut:
        assert isinstance(place, Machine)
        place.link("eth0", "up")
    home.revive()


def table(found: dict[Arm, list[Seen]]) -> str:
    """Of each arm the whole and its parts, in Markdown."""
    lines = [
        "| a worker is lost: | to the next token, median | slowest | asked | "
        + " | ".join(PARTS)
        + " |",
        "| --- " * (4 + len(PARTS)) + "|",
    ]
    for arm, rounds in found.items():
        whole = [each.whole for each in rounds]
        by_part = zip(*(one.parts for one in rounds), strict=True)
        parts = [statistics.median(each) for each in by_part]
        lines.append(
            f"| {arm.name} | {statistics.median(whole):.2f} s | {max(whole):.2f} s "
            f"| under {arm.most:g} s | " + " | ".join(f"{each:.2f} s" for each in parts) + " |"
        )
    return "\n".join(lines)


def report(found: dict[Arm, list[Seen]], load: Sequence[float], *, is_lab: bool) -> str:
    """What was found, in Markdown."""
    where = "a network namespace for each machine" if is_lab else "all on one machine"
    count = max(map(len, found.values()))
    return (
        f"SmolLM2 over two workers of one thread each, {count} rounds; {machine()}; {where}; "
        f"load average {load[0]:.1f} before and {load[1]:.1f} after. The parts are medians, and "
        "follow one another.\n\n" + table(found)
    )


def main() -> int:
    """Measure, and say what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one round; says little")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--write", action="store_true", help="rewrite the sections")
    given = parser.parse_args()
    count = 1 if given.quick else given.rounds
    before = load_average()
    with tempfile.TemporaryDirectory() as name, open_home(Path(name)) as (home, is_lab):
        found: dict[Arm, list[Seen]] = {arm: [] for arm in ARMS if is_lab or not arm.is_cut}
        head = open_head(home)
        for number in range(count):
            for arm, rounds in found.items():
                victim = number % len(home.places)
                rounds.append(measure(home, head, arm, victim))
                revive(home, arm, victim)
                parts = ", ".join(
                    f"{part} {seconds:.2f}"
                    for part, seconds in zip(PARTS, rounds[-1].parts, strict=True)
                )
                say(f"round {number + 1}: {arm.name}: {rounds[-1].whole:.2f} s ({parts})")
        text = report(found, (before, load_average()), is_lab=is_lab)
    print(text)
    if given.write:
        write(RESULTS, SECTION, f"## Deaths of workers\n\n{text}")
        write(DOCUMENT, TABLE, text)
    slow = [arm.name for arm, rounds in found.items() if max(r.whole for r in rounds) >= arm.most]
    for each in slow:
        say(f"too slow: {each}")
    return 1 if slow else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UnavailableError as error:
        sys.exit(str(error))
