"""The planner's choice beside all the others, measured: alone, one worker or two, and how.

    benchmarks/split_choices.py              eight cells, some ten arms each: 20 minutes
    benchmarks/split_choices.py --quick      two cells
    benchmarks/split_choices.py --write      ... and rewrites its section of RESULTS.md

A cell is a way to two workers and a usual request; in two of them the head has no room for layers.
An arm is a way to run SmolLM2: with how many workers, with the output on the head or not, guessing
or not. The planner is given the speed of one server alone and of one worker at no distance, chooses
before anything else is measured, and what it chooses is one of the arms. The exit status is 1 if in
any cell the choice is more than 5 % slower than the fastest arm.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import attrs
from _results import Section, UnavailableError, machine
from _split_cells import NUMBERED, QUESTION, RATES, long_prompt
from _split_lab import CONTEXT, Head, load_average, measure_rtt, open_split
from inference import ROOT, find_model
from splits import write

from punch.gguf import Layout
from punch.model_store import layout_of
from punch.placement import HEAD, HEAD_CPU, Device, Link, Mix, Plan, Share, Wants, plan, predict

RESULTS = ROOT / "benchmarks" / "RESULTS.md"
SECTION = Section("choices of splits")
MAX_SLOWER = 0.05
LONG_SENTENCES = 30
LONG_TOKENS = 550
"""Of those, about."""
LONG_ANSWER = 8
SHORT_TOKENS = 70
SHORT_ANSWER = 48
ROUNDS = 2
NO_ROOM = 56 * 10**6
"""Bytes: enough for the token matrix, which is always with the head, and for nothing else."""


@attrs.frozen(kw_only=True)
class Cell:
    """A way to the workers, and a usual request."""

    delay: float
    rate: float
    is_long: bool
    """Whether the prompt is long and the answer short."""
    has_room: bool = True
    """Whether the head can hold layers."""

    @property
    def link(self) -> Link:
        """Of each worker, as it is made."""
        return Link(rtt=2 * self.delay, rate=self.rate)

    def __str__(self) -> str:
        what = "long prompt" if self.is_long else "answer"
        room = "" if self.has_room else ", no room at the head"
        return f"{what}, {self.delay * 1e3:g} ms, {self.rate / 1e6:g} MB/s{room}"


CELLS = (
    *(
        Cell(delay=delay, rate=RATES[0], is_long=is_long)
        for delay in (0.0, 0.005, 0.02)
        for is_long in (True, False)
    ),
    Cell(delay=0.02, rate=RATES[0], is_long=False, has_room=False),
    Cell(delay=0.0, rate=RATES[1], is_long=False, has_room=False),
)


@attrs.frozen(kw_only=True)
class Arm:
    """A way to run the model."""

    layers: tuple[int, ...]
    """Of each worker."""
    here: int = 0
    """Layers that stay with the head's processor."""
    output_on_head: bool = False
    draft: int = 0
    """Tokens that are guessed; 0: not at all."""
    match: int = 3
    """Tokens that must have been there before."""
    micro_batch: int = 64

    def __str__(self) -> str:
        parts = [f"{len(self.layers)} workers ({'/'.join(map(str, self.layers))})"]
        if not self.layers:
            parts = ["alone"]
        elif self.here:
            parts.append(f"{self.here} layers here")
        if self.output_on_head:
            parts.append("output here")
        if self.draft:
            parts.append(f"guesses {self.draft} after {self.match}")
        return ", ".join(parts)

    @property
    def options(self) -> list[str]:
        """For the head."""
        found = ["-ub", str(self.micro_batch), "-np", "1", "-c", str(CONTEXT)]
        if self.layers:
            counts = [*self.layers[:-1], self.layers[-1] + 1]
            found += ["-ngl", str(sum(counts)), "--tensor-split", ",".join(map(str, counts))]
        if self.output_on_head:
            found += ["-ot", "token_embd=CPU"]
        if self.draft:
            found += ["--spec-type", "ngram-simple"]
            found += ["--spec-ngram-simple-size-n", str(self.match)]
            found += ["--spec-ngram-simple-size-m", str(self.draft)]
        return found

    def seconds(self, folder: Path, cell: Cell) -> float:
        """For the usual request of a cell, at best."""
        with open_split(folder, links=[cell.link] * len(self.layers), options=self.options) as head:
            head.ask("Once", 2)
            return min(ask(head, cell, number) for number in range(ROUNDS))


def ask(head: Head, cell: Cell, number: int) -> float:
    """Seconds for the usual request; where that is short, for two: guesses suit but one of them."""
    if cell.is_long:
        asked = [head.ask(long_prompt(number, LONG_SENTENCES), LONG_ANSWER)]
    else:
        asked = [head.ask(text, SHORT_ANSWER) for text in (QUESTION, NUMBERED)]
    return sum(each.prompt_seconds + each.seconds for each in asked)


def all_arms(cell: Cell) -> list[Arm]:
    """Those that are measured in any case."""
    arms = [
        Arm(layers=layers, output_on_head=output, draft=draft)
        for layers in ((30,), (15, 15))
        for output in (False, True)
        for draft in (0, 16)
    ]
    if cell.has_room:
        arms += [Arm(layers=(), draft=draft) for draft in (0, 16)]
    return arms


def arm_of(found: Plan) -> Arm:
    """What a plan comes to."""
    here = [len(one.layers) for one in found.shares if one.is_head_cpu]
    return Arm(
        layers=tuple(len(one.layers) for one in found.listed),
        here=sum(here) if found.is_split else 0,
        output_on_head=found.output_on_head,
        draft=0 if found.speculation is None else found.speculation.draft,
        match=3 if found.speculation is None else found.speculation.match,
        micro_batch=found.micro_batch if len(found.shares) > 1 else 64,
    )


class Planner:
    """What is known before anything else is measured."""

    def __init__(self, folder: Path) -> None:
        self._layout = layout_of(find_model())
        quiet = Link(rtt=0.0, rate=RATES[0])
        self._rtts = {
            cell.delay: measure_rtt(attrs.evolve(cell.link, rate=RATES[0])) for cell in CELLS
        }
        with open_split(folder, links=[], options=Arm(layers=()).options) as head:
            here = time_both(head)
        with open_split(folder, links=[quiet], options=Arm(layers=(30,)).options) as head:
            there = time_both(head)
        self.here = device(self._layout, HEAD_CPU, None, here)
        self.there = device(self._layout, "there", attrs.evolve(quiet, rtt=self._rtts[0.0]), there)

    def choose(self, cell: Cell) -> Arm:
        """What the planner takes."""
        prompt, answer = (
            (LONG_TOKENS, LONG_ANSWER) if cell.is_long else (SHORT_TOKENS, SHORT_ANSWER)
        )
        link = Link(rtt=self._rtts[cell.delay], rate=cell.rate)
        here = self.here if cell.has_room else attrs.evolve(self.here, memory=NO_ROOM)
        workers = [
            attrs.evolve(self.there, id=f"RPC{i}", holder=f"worker-{i}", link=link)
            for i in range(2)
        ]
        wants = Wants(
            context_tokens=CONTEXT,
            slots=1,
            mix=Mix(prompt_tokens=prompt, answer_tokens=answer),
            min_workers=0 if cell.has_room else 1,
        )
        found = plan(self._layout, [here, *workers], wants)
        assert isinstance(found, Plan), found
        return arm_of(found)


def time_both(head: Head) -> tuple[float, float]:
    """Seconds for a token, and for a token of a prompt."""
    head.ask("Once", 2)
    token = min(head.ask(QUESTION, SHORT_ANSWER).token for _ in range(ROUNDS))
    long = [head.ask(long_prompt(i, LONG_SENTENCES), 1) for i in range(ROUNDS)]
    return token, min(each.prompt_seconds / each.prompt_tokens for each in long)


def device(layout: Layout, name: str, link: Link | None, seconds: tuple[float, float]) -> Device:
    """A device that is as fast as was measured, by the formulas turned round.

    Both of its speeds stand under the line, so that two steps from any guess are enough.
    """
    token, prompt = seconds
    wants = Wants(
        context_tokens=CONTEXT, mix=Mix(prompt_tokens=LONG_TOKENS, answer_tokens=SHORT_ANSWER)
    )
    found = Device(
        id=name,
        holder=HEAD if link is None else name,
        memory=10**9,
        bandwidth=5e9,
        compute=2e10,
        link=link,
    )
    share = Share(device=name, layers=range(len(layout.layers)), weights=0, kv=0)
    for _ in range(4):
        guess = predict(layout, [share], devices=[found], wants=wants, micro_batch=64)
        rest = guess.token - guess.token_parts.compute
        rest_of_prompt = guess.first_token - guess.prompt_parts.compute
        found = attrs.evolve(
            found,
            bandwidth=found.bandwidth * guess.token_parts.compute / (token - rest),
            compute=found.compute
            * guess.prompt_parts.compute
            / (LONG_TOKENS * prompt - rest_of_prompt),
        )
    return found


def run(folder: Path, cells: Sequence[Cell]) -> tuple[str, list[str]]:
    """Measure; the table, and the cells that were missed."""
    before = load_average()
    planner = Planner(folder)
    lines = [
        "| cell | chosen | it took | fastest | it took | slower | alone |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    missed = []
    for cell in cells:
        chosen = planner.choose(cell)
        arms = list(dict.fromkeys([chosen, *all_arms(cell)]))
        times = {arm: arm.seconds(folder, cell) for arm in arms}
        # The two that matter once more, one after the other.
        fastest = min(times, key=lambda arm: times[arm])
        for arm in (chosen, fastest):
            times[arm] = min(times[arm], arm.seconds(folder, cell))
        fastest = min(times, key=lambda arm: times[arm])
        slower = times[chosen] / times[fastest] - 1
        alone = times.get(Arm(layers=()))
        lines.append(
            f"| {cell} | {chosen} | {times[chosen]:.2f} s | {fastest} | {times[fastest]:.2f} s "
            f"| {slower:.0%} | {'' if alone is None else f'{alone:.2f} s'} |"
        )
        print(lines[-1], f"load average {load_average():.1f}", file=sys.stderr, flush=True)
        if slower > MAX_SLOWER:
            missed.append(f"{cell}: {slower:.0%}")
    head = (
        f"Made by `benchmarks/split_choices.py` on: {machine()}. {before:.1f} processes wanted a "
        f"core before it, {load_average():.1f} at its end. Seconds for a long prompt and "
        f"{LONG_ANSWER} tokens, or for {SHORT_ANSWER} after a question and {SHORT_ANSWER} after "
        "lines that differ in their numbers."
    )
    return "\n".join([head, "", *lines]), missed


def main() -> int:
    """Run the program; its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two cells")
    parser.add_argument("--write", action="store_true", help="rewrite the section of RESULTS.md")
    given = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="punch-choices-") as name:
            text, missed = run(Path(name), CELLS[:2] if given.quick else CELLS)
    except UnavailableError as error:
        print(f"split_choices: {error}", file=sys.stderr)
        return 2
    text = f"## Choices of splits\n\n{text}"
    if missed:
        text += f"\n\nMore than {MAX_SLOWER:.0%} slower than the fastest: {'; '.join(missed)}."
    print(text)
    if given.write:
        write(RESULTS, SECTION, text)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
