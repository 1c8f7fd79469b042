"""What punch costs now, against what it cost at another commit: both measured in turns.

    bins/bench --against REV                     every row but churn and gaps, nine rounds each
    bins/bench hop memory --against REV          only these
    bins/bench hop --against REV --rounds 25     more exact

Each side runs its own tree's programs, the other one's taken out of ``.git`` into a folder that is
gone afterwards. In every round both sides do the same, one after the other, and the next round
begins with the other one; a row's ratio is the median over the rounds of new to old, in time, CPU
or memory: above 1 is worse. Its interval holds the median with 95 % certainty whatever the noise
is like (order statistics; no normal distribution is assumed).

A row is worse if its whole interval lies above 1.05, and does again when it is measured alone. The
exit status is 1 if one is.
"""

from __future__ import annotations

import io
import itertools
import math
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import repeat
from pathlib import Path
from typing import Any

import attrs
from _http_client import one_after_another, question
from _processes import Child
from _programs import Programs
from _results import UnavailableError
from inference import find_model, find_server

ROOT = Path(__file__).resolve().parent.parent

MIN_ROUNDS = 9
CERTAINTY = 0.95
MAX_RATIO = 1.05

# Short enough that both sides of a round meet the same machine, long enough to tell.
HOPS = 200
AT_ONCE = 1600
WORKERS = 32
STREAMS = 200
STREAM_RATE = 50
STREAM_SECONDS = 4
TOKENS = 64

# Enough of each that a round's CPU is that of the requests, and not of the heartbeats meanwhile.
CHATS = 200
STREAMED_CHATS = 40
LONG_CHATS = 100
MESSAGES = 22

Sample = Mapping[str, float]
"""What one side cost in one round, by row; smaller is better."""

Measure = Callable[[], Sample]


class NotMeasuredError(Exception):
    """The other commit did not measure this yet, so there is nothing to compare."""


@attrs.frozen(kw_only=True)
class Comparison:
    """One row, new against old."""

    group: str
    """The measurement that it belongs to."""

    what: str
    """What was measured, and in which unit."""

    old: float
    """Median of the other commit."""

    new: float
    """Median of this tree."""

    ratio: float
    """Median over the rounds of new to old."""

    low: float
    """Lower end of its interval."""

    high: float
    """Upper end of its interval."""

    @property
    def is_worse(self) -> bool:
        """Whether nothing in the interval could be let pass."""
        return self.low > MAX_RATIO


def interval(values: Sequence[float], certainty: float = CERTAINTY) -> tuple[float, float]:
    """What holds the median of whatever *values* were drawn from, with this certainty at least.

    With the k-th smallest and the k-th largest of n values it is missed with twice the chance that
    fewer than k of n coins fall on one side (H. A. David, Order Statistics, section 7.1). Below six
    values no two of them are certain enough: the interval is all there is, and says less.
    """
    ordered, count = sorted(values), len(values)
    chance = 0.0
    for cut in range(count // 2 + 1):
        chance += math.comb(count, cut) / 2**count
        if 2 * chance > 1 - certainty:
            cut = max(0, cut - 1)
            return ordered[cut], ordered[-1 - cut]
    return ordered[0], ordered[-1]


def compared(group: str, old: Sequence[Sample], new: Sequence[Sample]) -> list[Comparison]:
    """The rows that both sides have, round by round."""
    found = []
    for what in (name for name in new[0] if name in old[0]):
        pairs = [(b[what], a[what]) for b, a in zip(old, new, strict=True)]
        ratios = [after / before for before, after in pairs if before > 0]
        if not ratios:
            continue
        low, high = interval(ratios)
        found.append(
            Comparison(
                group=group,
                what=what,
                old=statistics.median(before for before, _ in pairs),
                new=statistics.median(after for _, after in pairs),
                ratio=statistics.median(ratios),
                low=low,
                high=high,
            )
        )
    return found


# ---- the two trees ----


@contextmanager
def tree_of(revision: str) -> Iterator[Path]:
    """The files of *revision*, for as long as the context lasts."""
    command = ["git", "-C", str(ROOT), "archive", "--format=tar", revision]
    ended = subprocess.run(command, capture_output=True, check=False)
    if ended.returncode != 0:
        raise UnavailableError(f"no {revision} here: {ended.stderr.decode().strip()}")
    with tempfile.TemporaryDirectory(prefix="punch-against-") as name:
        with tarfile.open(fileobj=io.BytesIO(ended.stdout)) as archive:
            archive.extractall(name, filter="data")
        yield Path(name)


def pair(stack: ExitStack, tree: Path, **settings: Any) -> tuple[Child, Child]:
    """A tree's own listener, and a dialer of the same tree that has joined it."""
    listener = stack.enter_context(Child("_punch_listener.py", tree=tree, **settings))
    where = {name: listener.greeting[name] for name in ("bootstrap", "namespace", "address")}
    return listener, stack.enter_context(Child("_punch_dialer.py", tree=tree, **where))


def in_cpu(listener: Child, dialer: Child, run: Callable[[], Any], count: float) -> Sample:
    """CPU milliseconds of both sides for each of *count* things that *run* does."""
    before = dialer.cpu(), listener.cpu()
    run()
    return {
        "CPU of the dialer, ms": (dialer.cpu() - before[0]) / count * 1e3,
        "CPU of the listener, ms": (listener.cpu() - before[1]) / count * 1e3,
    }


# ---- the rows ----


def hop(stack: ExitStack, tree: Path) -> Measure:
    """One question at a time."""
    listener, dialer = pair(stack, tree, backend="mock")
    dialer.ask("hops", count=HOPS // 2)

    def measure() -> Sample:
        seconds: list[float] = []
        cpu = in_cpu(listener, dialer, lambda: seconds.extend(dialer.ask("hops", count=HOPS)), HOPS)
        return {"one hop and back, ms": statistics.median(seconds) * 1e3, **cpu}

    return measure


def at_once(stack: ExitStack, tree: Path) -> Measure:
    """Thirty-two questions at a time."""
    listener, dialer = pair(stack, tree, backend="mock")
    dialer.ask("at_once", count=4 * WORKERS, workers=WORKERS)

    def measure() -> Sample:
        taken: list[float] = []

        def run() -> None:
            taken.append(dialer.ask("at_once", count=AT_ONCE, workers=WORKERS))

        cpu = in_cpu(listener, dialer, run, AT_ONCE)
        return {"a request among 32 at once, ms": taken[0] / AT_ONCE * 1e3, **cpu}

    return measure


def streams(stack: ExitStack, tree: Path) -> Measure:
    """Two hundred streams of tokens."""
    listener, dialer = pair(stack, tree, backend="clock")
    dialer.ask("streams", count=STREAMS, rate=STREAM_RATE, tokens=STREAM_RATE)
    tokens = STREAM_RATE * STREAM_SECONDS

    def measure() -> Sample:
        found: list[dict[str, Any]] = []

        def run() -> None:
            asked = {"count": STREAMS, "rate": STREAM_RATE, "tokens": tokens}
            found.append(dialer.ask("streams", **asked))

        cpu = in_cpu(listener, dialer, run, STREAMS * tokens)
        if found[0]["faults"]:
            raise RuntimeError(f"{found[0]['faults']} faults in the streams of {tree}")
        delays = found[0]["delays"]
        return {"delay of a token, ms": statistics.median(delays) * 1e3, **cpu}

    return measure


def inference(stack: ExitStack, tree: Path) -> Measure:
    """A real model: what is not the model's own time."""
    settings = {"program": str(find_server()), "model": str(find_model()), "threads": 1}
    _, dialer = pair(stack, tree, backend="llama_cpp", **settings)
    dialer.ask("generate", prompt="warm up", tokens=TOKENS)
    serials = itertools.count(1000)

    def measure() -> Sample:
        # Another first word each time, of as many tokens: nothing of it is in the server's cache.
        answer = dialer.ask(
            "generate", prompt=f"{next(serials)}: write a long story.", tokens=TOKENS
        )
        return {
            "first token, ms": answer["first"] * 1e3,
            "a token, ms": answer["total"] / answer["tokens"] * 1e3,
        }

    return measure


def gateway(stack: ExitStack, tree: Path) -> Measure:
    """A gateway's process: one client, one question at a time."""
    programs = Programs(Path(stack.enter_context(tempfile.TemporaryDirectory())), tree=tree)
    stack.enter_context(programs.mock_listener())
    side = stack.enter_context(programs.gateway())
    whole = question(side.address, "How are you?", 1)
    kinds = {
        "a chat answered whole": (whole, CHATS),
        f"a stream of {TOKENS} tokens": (
            question(side.address, "Count.", TOKENS, stream=True),
            STREAMED_CHATS,
        ),
        f"a chat of {MESSAGES} messages": (
            question(side.address, "", 1, messages=history()),
            LONG_CHATS,
        ),
    }

    def ask(data: bytes, count: int) -> tuple[float, float]:
        before = side.cpu()
        answers = one_after_another(side.address, repeat(data, count))
        spent = side.cpu() - before
        if failed := [answer for answer in answers if not answer.fine]:
            raise RuntimeError(f"{len(failed)} answers failed in {tree}: {failed[0].raw[:300]!r}")
        return statistics.median(answer.seconds for answer in answers), spent / count

    ask(whole, CHATS // 2)

    def measure() -> Sample:
        found = {}
        for what, (data, count) in kinds.items():
            seconds, cpu = ask(data, count)
            found[f"{what}, ms"] = seconds * 1e3
            found[f"CPU of {what}, ms"] = cpu * 1e3
        return found

    return measure


def history() -> list[dict[str, str]]:
    """The messages of a conversation that has gone on for a while."""
    said = "One message of a conversation, as long as people's messages often are. " * 4
    roles = ("system", *itertools.islice(itertools.cycle(("user", "assistant")), MESSAGES - 1))
    return [{"role": role, "content": f"{at}: {said}"} for at, role in enumerate(roles)]


def reported(name: str) -> Callable[[ExitStack, Path], Measure]:
    """The rows that a tree's own measurement reports."""

    def start(stack: ExitStack, tree: Path) -> Measure:
        folder = str(tree / "benchmarks")
        if not (tree / "benchmarks" / f"{name}.py").exists():
            raise NotMeasuredError(f"the other commit does not measure {name}")
        reporter = stack.enter_context(
            Child(str(ROOT / "benchmarks" / "_reporter.py"), tree=tree, folder=folder)
        )

        def measure() -> Sample:
            found = {}
            for what, ours in reporter.ask("measure", name=name):
                if (cost := cost_of(ours)) is not None:
                    found[what] = cost
            return found

        return measure

    return start


_COST = re.compile(r"([\d.]+(?:e-?\d+)?) ?(ms|s|MB|/s|cores)\b")


def cost_of(text: str) -> float | None:
    """A row's number, as something of which less is better; `None` if it is no such number."""
    found = _COST.match(text)
    if found is None:
        return None
    value = float(found[1])
    return 1 / value if found[2] == "/s" and value else value


GROUPS: Mapping[str, Callable[[ExitStack, Path], Measure]] = {
    "hop": hop,
    "at_once": at_once,
    "streams": streams,
    "inference": inference,
    "gateway": gateway,
    "decide": reported("decide"),
    "admission": reported("admission"),
    "admits": reported("admits"),
    "memory": reported("memory"),
    # Its deaths are drawn anew each time: rows of it tell little, and only if it is named.
    "churn": reported("churn"),
    # A minute for each side and round.
    "gaps": reported("gaps"),
}
USUAL = tuple(name for name in GROUPS if name not in ("churn", "gaps"))


def measured(name: str, old: Path, new: Path, rounds: int) -> list[Comparison]:
    """Both sides of one group in turns."""
    samples: dict[str, list[Sample]] = defaultdict(list)
    with ExitStack() as stack:
        sides = {"old": GROUPS[name](stack, old), "new": GROUPS[name](stack, new)}
        for number in range(rounds):
            order = list(sides) if number % 2 == 0 else list(reversed(sides))
            for side in order:
                samples[side].append(sides[side]())
    return compared(name, samples["old"], samples["new"])


def table(rows: Sequence[Comparison]) -> str:
    """The rows, in Markdown."""
    return "\n".join(
        (
            "| what | old | new | new/old | 95 % interval | |",
            "| --- | --- | --- | --- | --- | --- |",
            *(
                f"| {row.group}: {row.what} | {row.old:.4g} | {row.new:.4g} | {row.ratio:.3f} "
                f"| {row.low:.3f} to {row.high:.3f} | {'**worse**' if row.is_worse else ''} |"
                for row in rows
            ),
        )
    )


def compare(revision: str, names: Sequence[str], rounds: int) -> int:
    """Measure, print the table, look again at what seems worse; the exit code."""
    _say(f"{', '.join(names)} against {revision}, {rounds} rounds")
    if rounds < MIN_ROUNDS:
        _say(f"fewer than {MIN_ROUNDS} rounds: a first look, no verdict to rely on")
    rows: list[Comparison] = []
    confirmed: list[Comparison] = []
    is_complete = True
    with tree_of(revision) as old:
        for name in names:
            try:
                found = measured(name, old, ROOT, rounds)
            except NotMeasuredError as error:
                _say(f"{name}: left out: {error}")
            except UnavailableError as error:
                _say(f"{name}: {error}")
                is_complete = False
            else:
                rows += found
                _say(f"{name}: {len(found)} rows")
        print(table(rows), flush=True)
        for group, suspects in itertools.groupby(
            (row for row in rows if row.is_worse), key=lambda row: row.group
        ):
            seen = {row.what for row in suspects}
            _say(f"{group}: once more, alone: {'; '.join(sorted(seen))}")
            alone = [row for row in measured(group, old, ROOT, rounds) if row.what in seen]
            print(f"\nAlone:\n\n{table(alone)}", flush=True)
            confirmed += [row for row in alone if row.is_worse]
    for row in confirmed:
        _say(f"worse: {row.group}: {row.what}: {row.ratio:.3f} ({row.low:.3f} to {row.high:.3f})")
    return 1 if confirmed or not is_complete else 0


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)
