"""How long a reader waits when the peer that answers dies in mid-answer; who is moved for nothing.

    benchmarks/gaps.py                   nine rounds: 4 minutes
    benchmarks/gaps.py --rounds 25       more exact
    benchmarks/gaps.py --against REV     beside punch at that commit, both at once
    benchmarks/gaps.py --write           ... and rewrites the section of RESULTS.md

Three listeners in processes of their own (mocks: 0.7 s to the first text, 25 tokens a second) and a
dialer that asks six questions at once through the library's router. In mid-answer the listener that
makes most of the answers is killed (SIGKILL), or frozen (SIGSTOP: its connections stand); the next
round has a new one in its place. The gap is the longest silence between two texts of an answer that
was hit: 0.7 s of it are what the next peer takes to its first text. Every text is compared with the
right one.

Then nobody dies. A listener is frozen for a moment and goes on, or every core has several times
what it can do. An answer that another peer goes on with was moved needlessly; where another was
only asked beside, the first one spoke again before it (docs/routing.md, *Silence*).

The exit status is 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import attrs
from _processes import Child
from _results import Report, Row, Section, UnavailableError, section, table
from _town import ROOT
from against import tree_of

TITLE = "The gap when a peer dies in mid-answer"
HERE = Path(__file__).parent

ROUNDS = 9
QUICK_ROUNDS = 3

ASKED = 6
LOADED_ASKED = 12

# Seconds after the first text at which the blow falls: an answer takes 1.9 more.
STRIKES = (0.2, 1.2)

# Seconds that a reader may wait, in the median of the answers that were hit.
MOST = {"killed": 1.0, "frozen": 2.5}

# How long a listener that is well is frozen: as when its machine swaps, or its Wi-Fi changes cells.
HICCUPS = (0.5, 1.0, 1.5, 2.0, 3.0)

# Rounds of deaths for one of these.
HICCUP_SHARE = 5

# Processes that do nothing but compute, for each core.
BURNERS = 4

Heard = Mapping[str, Any]
"""How one answer came, see `_struck_town.Heard`."""


@attrs.define(kw_only=True)
class Seen:
    """What one side saw."""

    gaps: dict[str, list[float]] = attrs.Factory(lambda: {kind: [] for kind in MOST})
    """The longest gaps, in seconds, one for each answer that was hit, by kind of death."""

    hiccups: dict[float, list[Heard]] = attrs.Factory(lambda: defaultdict(list))
    """Answers whose peer was away for so many seconds."""

    loaded: list[Heard] = attrs.Factory(list)
    """Answers on a loaded machine."""

    faults: list[str] = attrs.Factory(list)
    """What was wrong with answers."""


def _hit(seen: Seen, heard: Sequence[Heard]) -> list[Heard]:
    seen.faults += [one["fault"] for one in heard if one["fault"]]
    return [one for one in heard if one["was_hit"]]


def _strike(town: Child, seen: Seen, rounds: int) -> None:
    """Deaths of both kinds, and a moment's absence of each length."""
    rng = Random(1)
    for number in range(rounds):
        for kind in MOST:
            blow = {"after": rng.uniform(*STRIKES), "seconds": None, "kill": kind == "killed"}
            heard = town.ask("strike", name=f"{kind} {number}", asked=ASKED, **blow)
            seen.gaps[kind] += [one["gap"] for one in _hit(seen, heard)]
    for number in range(rounds // HICCUP_SHARE):
        for seconds in HICCUPS:
            name, blow = f"{number} {seconds}", {"after": STRIKES[0], "seconds": seconds}
            heard = town.ask("strike", name=name, asked=ASKED, kill=False, **blow)
            seen.hiccups[seconds] += _hit(seen, heard)


def _read(town: Child, seen: Seen, rounds: int) -> None:
    """Answers while there is too much to do."""
    for number in range(rounds):
        heard = town.ask("read", name=f"loaded {number}", asked=LOADED_ASKED)
        _hit(seen, heard)
        seen.loaded += heard


@contextmanager
def _burning() -> Iterator[None]:
    """Every core has several times what it can do."""
    command = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(BURNERS * (os.cpu_count() or 1))]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def run(trees: Sequence[Path], rounds: int) -> list[Seen]:
    """What punch of each tree saw, all of them at once: nearly all of the time nobody computes."""
    found = [Seen() for _ in trees]
    with ExitStack() as stack:
        towns = [
            stack.enter_context(Child(str(HERE / "_struck_town.py"), tree=tree)) for tree in trees
        ]
        pool = stack.enter_context(ThreadPoolExecutor(len(trees)))
        list(pool.map(_strike, towns, found, [rounds] * len(trees)))
        with _burning():
            list(pool.map(_read, towns, found, [(rounds + 1) // 2] * len(trees)))
    return found


# ---- the report ----


def _moved(heard: Sequence[Heard]) -> str:
    beside = sum(one["asked"] > 1 for one in heard)
    return f"{beside} and {sum(one['segments'] > 1 for one in heard)} of {len(heard)}"


def _both(seen: Sequence[Seen], show: Any) -> dict[str, str]:
    """One's column, and the other's if there is one."""
    return dict(zip(("ours", "other"), map(show, seen), strict=False))


def report(seen: Sequence[Seen], *, rounds: int, other: str | None = None) -> Report:
    """The table: what this tree saw and, if there are two, what the *other* commit did."""
    ours = seen[0]
    rows = []
    for kind, most in MOST.items():
        middle = statistics.median(ours.gaps[kind])
        rows += [
            Row(
                what=f"{kind}: longest gap of an answer, median",
                **_both(seen, lambda one, kind=kind: f"{statistics.median(one.gaps[kind]):.2f} s"),
                why="The machine was too busy to tell, or the rule for silence is slower.",
            ).at_most(middle, most, "{:g} s".format, firm=True),
            Row(
                what=f"{kind}: worst of {len(ours.gaps[kind])} answers",
                **_both(seen, lambda one, kind=kind: f"{max(one.gaps[kind]):.2f} s"),
            ),
        ]
    rows += [
        Row(
            what=f"away for {seconds:g} s: another asked beside, and moved",
            **_both(seen, lambda one, seconds=seconds: _moved(one.hiccups[seconds])),
        )
        for seconds in ours.hiccups
    ]
    rows += [
        Row(
            what="a loaded machine, nobody away: another asked beside, and moved",
            **_both(seen, lambda one: _moved(one.loaded)),
        ),
        Row(
            what="answers that are not whole, or not the right ones",
            **_both(seen, lambda one: str(len(one.faults))),
            target="0",
            met=not ours.faults,
            firm=True,
            why="; ".join(sorted(set(ours.faults))),
        ),
    ]
    beside = "" if other is None else f" Alternative: punch at {other}, at the same time."
    notes = (
        *(" ".join(part.split()) for part in (__doc__ or "").split("\n\n")[2:4]),
        f"{rounds} rounds of each kind of death; an answer that was hit counts once. 0.7 s of each "
        f"gap are the next peer's own.{beside}",
        f"Loaded: {BURNERS} processes that only compute for each core.",
    )
    return Report(title=TITLE, rows=tuple(rows), notes=notes)


def measure(*, quick: bool) -> Report:
    """The rows of the punch on the path."""
    rounds = QUICK_ROUNDS if quick else ROUNDS
    return report(run([ROOT], rounds), rounds=rounds)


def _command(given: argparse.Namespace) -> str:
    against = "" if given.against is None else f" --against {given.against}"
    return f"benchmarks/gaps.py --rounds {given.rounds}{against}"


def main() -> int:
    """Run the program; its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, metavar="N", help="deaths of each kind"
    )
    parser.add_argument("--against", metavar="REV", help="a commit to be compared with")
    parser.add_argument("--write", action="store_true", help="rewrite the section of RESULTS.md")
    given = parser.parse_args()
    rounds = given.rounds
    if rounds < 1:
        parser.error("--rounds is at least 1")
    with ExitStack() as stack:
        trees = [ROOT]
        if given.against is not None:
            try:
                trees.append(stack.enter_context(tree_of(given.against)))
            except UnavailableError as error:
                parser.error(str(error))
        found = report(run(trees, rounds), rounds=rounds, other=given.against)
    print(table([found]))
    if given.write:
        Section("gaps").write(section(found, command=_command(given)))
    return 0 if all(row.met is not False for row in found.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
