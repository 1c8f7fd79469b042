"""The law of splits: what `punch.placement` predicts beside what plain rpc-servers do.

    benchmarks/splits.py              1 to 3 workers, 0 to 20 ms one way, two rates: 15 minutes
    benchmarks/splits.py --quick      three cells; says little
    benchmarks/splits.py --write      ... and rewrites its sections of RESULTS.md and docs/split.md
    benchmarks/splits.py --save FILE  ... and keeps what was measured
    benchmarks/splits.py --load FILE  measures nothing: the formulas beside what was kept

SmolLM2 on llama-server and ggml-rpc-server, one thread each, on loopback; every worker is behind a
link of its own that delays each way and has a rate (`_slow_link.py`). The formulas get the speed of
one server alone and the round trips as they were measured, learn from four of the cells
(`Calibration`), and are then compared with all others. The exit status is 1 if one of those is off
by more than 15 % in its tokens a second or its first token.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import attrs
from _results import Section, UnavailableError, machine
from _split_cells import (
    ARMS,
    DELAYS,
    LESSONS,
    MAX_WRONG,
    MICRO_BATCH,
    PIPES,
    RATES,
    TOKENS,
    Arm,
    Cell,
    Pipe,
    Seen,
    ends,
    measure_arm,
    measure_cell,
    measure_pipe,
    options,
    say,
    time_head,
)
from _split_lab import CONTEXT, load_average, measure_rtt, open_split
from inference import ROOT, find_model

from punch.gguf import Layout
from punch.model_store import layout_of
from punch.placement import (
    Calibration,
    Device,
    Link,
    Measured,
    Mix,
    Prediction,
    Share,
    Wants,
    predict,
)

RESULTS = ROOT / "benchmarks" / "RESULTS.md"
DOCUMENT = ROOT / "docs" / "split.md"
SECTION = Section("splits")
LAW = Section("the law of splits, measured")
STAR = Section("what the star costs")
HIDDEN = Section("what hides latency, measured")
PIPED = Section("prompts over two workers, measured")


class Formulas:
    """`predict`, with what is known before a cell is measured."""

    def __init__(self, layout: Layout, *, token: float, prompt: float, prompt_tokens: int) -> None:
        self._layout = layout
        read = layout.layer_weights + layout.output
        self._bandwidth = read / token
        bits = 8 * layout.weights / layout.parameters
        self._compute = prompt_tokens / prompt * layout.layer_weights * 8 / bits
        self.rtts: dict[float, float] = {}
        """Of each delay the round trip as it was measured."""
        self.calibration = Calibration()

    def of(self, cell: Cell, prompt_tokens: int) -> Prediction:
        """Of a cell."""
        layout = self._layout
        link = Link(rtt=self.rtts[cell.delay], rate=cell.rate)
        edges = ends(len(layout.layers), cell.workers)
        devices = [
            Device(
                id=f"RPC{i}",
                holder=f"worker-{i}",
                memory=0,
                bandwidth=self._bandwidth,
                compute=self._compute,
                link=link,
            )
            for i in range(cell.workers)
        ]
        shares = [
            Share(device=f"RPC{i}", layers=range(edges[i], edges[i + 1]), weights=0, kv=0)
            for i in range(cell.workers)
        ]
        wants = Wants(
            context_tokens=CONTEXT,
            mix=Mix(prompt_tokens=prompt_tokens, answer_tokens=TOKENS),
        )
        return predict(
            layout,
            shares,
            devices=devices,
            wants=wants,
            micro_batch=MICRO_BATCH,
            calibration=self.calibration,
        )

    def learn(self, seen: Sequence[Seen]) -> None:
        """From the cells that are lessons."""
        for _ in range(LESSONS):
            for each in seen:
                if each.cell.is_lesson:
                    found = self.of(each.cell, each.prompt_tokens)
                    self.calibration = self.calibration.learned(found, each.measured)


def pipe_table(pipes: Sequence[Pipe]) -> str:
    """In Markdown."""
    lines = [
        "| workers | one way | micro-batch | tokens/s of prompt | beside one server alone |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {each.workers or 'none'} | {each.delay * 1e3:g} ms | {each.micro_batch} "
        f"| {each.rate:.0f} | {each.rate / pipes[0].rate:.2f} |"
        for each in pipes
    ]
    return "\n".join(lines)


def star_table(seen: Sequence[Seen], rtts: dict[float, float]) -> str:
    """What a token waits, and what it would wait if workers sent to each other, in Markdown."""
    lines = [
        "| workers | one way | a token | of that round trips | tokens/s | if each worker sent "
        "to the next (computed) | that is |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for each in seen:
        cell, token = each.cell, each.measured.token
        if cell.workers == 1 or cell.rate != RATES[0]:
            continue
        assert token is not None
        # The star has two ways for each worker, a chain one, and the way back to the head.
        saved = rtts[cell.delay] * (cell.workers - 1) / 2
        lines.append(
            f"| {cell.workers} | {cell.delay * 1e3:g} ms | {token * 1e3:.1f} ms "
            f"| {rtts[cell.delay] * cell.workers * 1e3:.1f} ms | {1 / token:.1f} "
            f"| {1 / (token - saved):.1f} | {token / (token - saved):.2f} times |"
        )
    return "\n".join(lines)


def wrong(measured: float | None, predicted: float) -> float:
    """By how much a prediction is off, as a share of what was measured."""
    assert measured is not None
    return predicted / measured - 1


def law_table(seen: Sequence[Seen], formulas: Formulas) -> tuple[str, list[str]]:
    """All cells, in Markdown, and those that are off by too much."""
    lines = [
        "| workers | one way | rate | tokens/s | predicted | off | first token | predicted | off "
        "| load | predicted | off |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    missed = []
    for each in seen:
        cell, measured = each.cell, each.measured
        found = formulas.of(cell, each.prompt_tokens)
        assert measured.token is not None
        # Of rates, not of seconds: the other way round.
        rate = measured.token / found.token - 1
        first = wrong(measured.first_token, found.first_token)
        load = wrong(measured.load, found.load)
        mark = " *" if cell.is_lesson else ""
        name = f"{cell.workers}, {cell.delay * 1e3:g} ms, {cell.rate / 1e6:g} MB/s"
        lines.append(
            f"| {cell.workers}{mark} | {cell.delay * 1e3:g} ms | {cell.rate / 1e6:g} MB/s "
            f"| {1 / measured.token:.1f} | {1 / found.token:.1f} | {rate:+.0%} "
            f"| {measured.first_token:.2f} s | {found.first_token:.2f} s | {first:+.0%} "
            f"| {measured.load:.2f} s | {found.load:.2f} s | {load:+.0%} |"
        )
        if not cell.is_lesson:
            missed += [
                f"{name}: {what} {off:+.0%}"
                for what, off in (("tokens/s", rate), ("first token", first))
                if abs(off) > MAX_WRONG
            ]
    return "\n".join(lines), missed


def arm_table(arms: Sequence[Arm]) -> str:
    """What each gained, in Markdown."""
    bare = arms[0]
    lines = [
        "| | plain question, tokens/s | gain | lines with other numbers, tokens/s | gain |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {arm.name} | {arm.question:.1f} | {arm.question / bare.question:.2f} "
        f"| {arm.numbered:.1f} | {arm.numbered / bare.numbered:.2f} |"
        for arm in arms
    ]
    return "\n".join(lines)


def write(path: Path, section: Section, text: str) -> None:
    """Put a section in its place."""
    before = path.read_text(encoding="utf-8")
    whole = f"{section.begin}\n{text}\n{section.end}\n"
    path.write_text(section.replaced(before, whole), encoding="utf-8")
    say(f"wrote {path.name}")


@attrs.frozen(kw_only=True)
class Tables:
    """All that was found, in Markdown."""

    head: str
    law: str
    star: str
    hidden: str
    piped: str
    missed: list[str]


@attrs.frozen(kw_only=True)
class Found:
    """All that was measured."""

    where: str
    """The machine, and how busy it was."""
    token: float
    """Seconds of one server alone for a token."""
    prompt: float
    """The same for a prompt."""
    prompt_tokens: int
    rtts: tuple[float, ...]
    """Round trips, for `DELAYS`."""
    seen: tuple[Seen, ...]
    arms: tuple[Arm, ...]
    pipes: tuple[Pipe, ...]


def measure(folder: Path, *, quick: bool) -> Found:
    """Measure everything."""
    before = load_average()
    with open_split(folder, links=[], options=options()) as head:
        token, prompt, prompt_tokens = time_head(head)
    say(f"alone: {1 / token:.1f} tokens/s, {prompt_tokens / prompt:.0f} tokens/s of prompt")
    rtts = [measure_rtt(Link(rtt=2 * delay, rate=RATES[0])) for delay in DELAYS]
    cells = [
        Cell(workers=workers, delay=delay, rate=rate)
        for rate in RATES
        for workers in (1, 2, 3)
        for delay in DELAYS
    ]
    if quick:
        few = [(2, 0), (2, 2), (2, 4)]
        cells = [Cell(workers=count, delay=DELAYS[i], rate=RATES[0]) for count, i in few]
    seen = [measure_cell(folder, each) for each in cells]
    arms = [measure_arm(folder, each) for each in (ARMS[:3] if quick else ARMS)]
    pipes = [measure_pipe(folder, each) for each in (PIPES[:2] if quick else PIPES)]
    return Found(
        where=f"{machine()}. {before:.1f} processes wanted a core before it, {load_average():.1f} "
        "at its end",
        token=token,
        prompt=prompt,
        prompt_tokens=prompt_tokens,
        rtts=tuple(rtts),
        seen=tuple(seen),
        arms=tuple(arms),
        pipes=tuple(pipes),
    )


def load(path: Path) -> Found:
    """What was measured before."""
    plain = json.loads(path.read_text(encoding="utf-8"))
    return Found(
        **{
            **plain,
            "rtts": tuple(plain["rtts"]),
            "seen": tuple(
                Seen(
                    cell=Cell(**each["cell"]),
                    measured=Measured(**each["measured"]),
                    prompt_tokens=each["prompt_tokens"],
                )
                for each in plain["seen"]
            ),
            "arms": tuple(Arm(**each) for each in plain["arms"]),
            "pipes": tuple(Pipe(**each) for each in plain["pipes"]),
        }
    )


def tables(found: Found) -> Tables:
    """The formulas beside what was measured."""
    formulas = Formulas(
        layout_of(find_model()),
        token=found.token,
        prompt=found.prompt,
        prompt_tokens=found.prompt_tokens,
    )
    formulas.rtts.update(zip(DELAYS, found.rtts, strict=True))
    formulas.learn(found.seen)
    table, missed = law_table(found.seen, formulas)
    trips = ", ".join(f"{each * 1e3:.2f}" for each in found.rtts)
    return Tables(
        head=f"Made by `benchmarks/splits.py` on: {found.where}. One server alone: "
        f"{1 / found.token:.1f} tokens/s, {found.prompt_tokens} tokens of prompt in "
        f"{found.prompt:.2f} s. Round trips of the links as measured: {trips} ms.",
        law=table,
        star=star_table(found.seen, formulas.rtts),
        hidden=arm_table(found.arms),
        piped=pipe_table(found.pipes),
        missed=missed,
    )


def main() -> int:
    """Run the program; its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="three cells")
    parser.add_argument("--write", action="store_true", help="rewrite the sections")
    parser.add_argument("--save", type=Path, metavar="FILE", help="keep what is measured")
    parser.add_argument("--load", type=Path, metavar="FILE", help="measure nothing")
    given = parser.parse_args()
    try:
        if given.load:
            measured = load(given.load)
        else:
            with tempfile.TemporaryDirectory(prefix="punch-splits-") as name:
                measured = measure(Path(name), quick=given.quick)
        if given.save:
            kept = json.dumps(attrs.asdict(measured), indent=1)
            given.save.write_text(f"{kept}\n", encoding="utf-8")
        found = tables(measured)
    except UnavailableError as error:
        print(f"splits: {error}", file=sys.stderr)
        return 2
    law = f"{found.head} Cells with a star taught the formulas.\n\n{found.law}"
    slow = f"Two workers, {DELAYS[-1] * 1e3:g} ms one way, {RATES[0] / 1e6:g} MB/s"
    hidden = f"{slow}, the same run.\n\n{found.hidden}"
    text = f"## The law of splits\n\n{law}\n\n{hidden}\n\n{found.piped}"
    if found.missed:
        text += f"\n\nOff by more than {MAX_WRONG:.0%}: {'; '.join(found.missed)}."
    print(text)
    if given.write:
        write(RESULTS, SECTION, text)
        write(DOCUMENT, LAW, law)
        write(DOCUMENT, STAR, found.star)
        write(DOCUMENT, HIDDEN, hidden)
        write(DOCUMENT, PIPED, found.piped)
    return 1 if found.missed else 0


if __name__ == "__main__":
    sys.exit(main())
