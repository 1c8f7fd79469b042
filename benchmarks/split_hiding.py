"""What hides the waiting of a split, as the planner chooses it, and what long prompts gain.

    benchmarks/split_hiding.py             both, five minutes
    benchmarks/split_hiding.py --answers   only answers over two workers at 20 ms one way
    benchmarks/split_hiding.py --prompts   only long prompts over two workers at no distance
    benchmarks/split_hiding.py --quick     one round of short answers; says little
    benchmarks/split_hiding.py --write     ... and rewrites its sections of RESULTS.md and split.md

SmolLM2 over two servers of one thread each. All ways to run it are started at once, each with
workers of its own, and are asked one after the other, round by round, so that a neighbour on the
machine slows all of them down alike. Ratios are medians over the rounds. The planner is given the
speed of one server alone and of one worker at no distance, and the arguments are those that a
coordinator starts its head with. The exit status is 1 if a bound is missed: with what is chosen no
kind of text is more than 3 % slower than the same without guessing, a repetitive one is 1.6 times
as fast as the bare law, eight at once are 2.5 times as fast as one after the other, and a prompt of
1,300 tokens is read 1.4 times as fast as on one of the machines.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs
import trio
from _results import Section, UnavailableError, machine, median_ratio
from _split_cells import NUMBERED, QUESTION, RATES, long_prompt, say
from _split_lab import (
    CONTEXT,
    Head,
    Timings,
    load_average,
    measure_rtt,
    open_head,
    open_split,
    open_worker,
)
from inference import ROOT, find_model, find_server
from split_choices import device, time_both
from splits import write

from punch.cluster.coordinator import split_arguments
from punch.llama_cpp import Program, ask_program
from punch.model_store import layout_of
from punch.placement import HEAD_CPU, Device, Link, Mix, Plan, Wants, plan

RESULTS = ROOT / "benchmarks" / "RESULTS.md"
DOCUMENT = ROOT / "docs" / "split.md"
SECTION = Section("hiding of splits")
CHOSEN = Section("what is chosen to hide latency, measured")
PIPED = Section("long prompts as planned, measured")

MIN_BESIDE_PLAIN = 0.97
MIN_REPETITIVE = 1.6
MIN_AT_ONCE = 2.5
MIN_PROMPT = 1.4

DELAY = 0.02
ROUNDS = 3
ANSWER = 48
SLOTS = 4
"""As a coordinator has them if nobody says otherwise."""
AT_ONCE = 8
ONE = Mix()
"""The usual request of a coordinator that is told nothing else."""
PROMPT_ROUNDS = 4
LONG_SENTENCES = 70
LONG_TOKENS = 1300
"""Of those, about."""
NO_ROOM = 56 * 10**6
"""Bytes of the head: enough for the token matrix, and for no layer."""

LIST = "".join(
    f"{name}: keeps {what} in the old boathouse\n"
    for name, what in (
        ("Anna", "seven oars"), ("Bert", "a red lantern"), ("Clara", "two nets"),
        ("David", "the anchor"), ("Edith", "a coil of rope"), ("Frank", "three barrels"),
    )
)  # fmt: skip
REPETITIVE = f"The list:\n{LIST}\nThe same list once more:\n{LIST}\nThe same list once more:\nAnna:"
CODE = """def read_lines(path):
    with open(path) as file:
        lines = file.readlines()
    return [line.strip() for line in lines]


def write_lines(path, lines):
    with open(path, "w") as file:
"""
WORDS = (
    "river7 lamp31 copper orange518 seven window90 basket quiet2 marble646 thunder pencil18 island "
    "ribbon77 velvet engine404 harbor cactus12 planet silver995 mirror garden3 bottle candle60 "
    "forest pillow271 anchor lemon58 saddle violin39 copper12 lamp846 river"
)
TEXTS = {
    "one that repeats itself": REPETITIVE,
    "a plain question": QUESTION,
    "lines with other numbers": NUMBERED,
    "code": CODE,
    "random words": WORDS,
}


@attrs.frozen(kw_only=True)
class Way:
    """A way to run the model, while it runs."""

    name: str
    head: Head
    answers: dict[str, list[Timings]] = attrs.field(factory=dict)
    """By the kind of text, in the order of the rounds."""

    def ask(self, kind: str, text: str) -> None:
        """Ask for one answer more."""
        self.answers.setdefault(kind, []).append(self.head.ask(text, ANSWER))

    def tokens(self, kind: str) -> list[float]:
        """Seconds a token, of each round."""
        return [each.token for each in self.answers[kind]]

    def rate(self, kind: str) -> float:
        """Tokens a second."""
        return 1 / statistics.median(self.tokens(kind))


class Chooser:
    """Plans with what is known before anything else is measured."""

    def __init__(self, folder: Path) -> None:
        self._layout = layout_of(find_model())
        self.program: Program = trio.run(ask_program, find_server())
        quiet = Link(rtt=0.0, rate=RATES[0])
        with open_split(folder, links=[], options=["-ub", "64", "-c", str(CONTEXT)]) as head:
            here = time_both(head)
        options = ["-ub", "64", "-np", "1", "-c", str(CONTEXT)]
        with open_split(folder, links=[quiet], options=options) as head:
            there = time_both(head)
        near = attrs.evolve(quiet, rtt=measure_rtt(quiet))
        self._here = attrs.evolve(device(self._layout, HEAD_CPU, None, here), memory=NO_ROOM)
        self._there = device(self._layout, "there", near, there)

    def choose(self, link: Link, mix: Mix, *, slots: int = 1, may_speculate: bool = True) -> Plan:
        """The plan over two workers of equal links."""
        devices: list[Device] = [self._here]
        for i in range(2):
            name = f"RPC{i}"
            devices.append(attrs.evolve(self._there, id=name, holder=f"worker-{i}", link=link))
        wants = Wants(
            context_tokens=CONTEXT,
            slots=slots,
            mix=mix,
            min_workers=2,
            may_speculate=may_speculate,
        )
        found = plan(self._layout, devices, wants)
        assert isinstance(found, Plan), found
        return found

    def options(self, found: Plan) -> list[str]:
        """As a coordinator starts the head."""
        size = str(CONTEXT * found.slots)
        slots = ["-np", str(found.slots), "-c", size, "--no-kv-unified"]
        return [*split_arguments(self.program, found, []), *slots]


def told(found: Plan) -> str:
    """What a plan has chosen to hide the waiting."""
    parts = [f"micro-batch {found.micro_batch}"]
    if found.output_on_head:
        parts.append("output on the head")
    if found.speculation is not None:
        parts.append(f"guesses of {found.speculation.draft} after {found.speculation.match}")
    parts.append(f"{found.slots} slots" if found.slots > 1 else "one slot")
    return ", ".join(parts)


# -- answers ----------------------------------------------------------------------------------


def answers(folder: Path, chooser: Chooser, *, rounds: int) -> tuple[str, list[str]]:
    """Measure; the tables, and the bounds that were missed."""
    link = Link(rtt=2 * DELAY, rate=RATES[0])
    known = attrs.evolve(link, rtt=measure_rtt(link))
    plans = {
        "guessing or not": chooser.choose(known, ONE),
        "without guessing": chooser.choose(known, ONE, may_speculate=False),
        "four slots": chooser.choose(known, ONE, slots=SLOTS),
        "eight at once": chooser.choose(known, ONE, slots=AT_ONCE),
    }
    guesses_for_four = plans["four slots"].speculation is not None
    if guesses_for_four:
        four_plain = chooser.choose(known, ONE, slots=SLOTS, may_speculate=False)
        plans["four slots without guessing"] = four_plain
    else:
        say("with four slots nothing is guessed")
    options = {name: chooser.options(found) for name, found in plans.items()}
    options["bare"] = ["-ub", "64", "-np", "1", "-c", str(CONTEXT), "--tensor-split", "15,16"]
    with ExitStack() as stack:
        ways = {}
        for number, (name, each) in enumerate(options.items()):
            place = folder / str(number)
            place.mkdir()
            head = stack.enter_context(open_split(place, links=[link] * 2, options=each))
            head.ask("Once", 2)
            ways[name] = Way(name=name, head=head)
        chosen, plain, bare = (
            ways[name] for name in ("guessing or not", "without guessing", "bare")
        )
        for number in range(rounds):
            for kind, text in TEXTS.items():
                order = [chosen, plain] if number % 2 else [plain, chosen]
                for way in [bare, *order] if text is REPETITIVE else order:
                    way.ask(kind, text)
            say(f"round {number + 1} of {rounds}, load average {load_average():.1f}")
        four = None
        if guesses_for_four:
            both = ways["four slots"].head, ways["four slots without guessing"].head
            four = four_at_once(*both, rounds=rounds)
        alone, together = at_once(bare.head, ways["eight at once"].head)
    lines, missed = answer_lines(chosen, plain)
    repetitive = next(iter(TEXTS))
    gain = median_ratio(bare.tokens(repetitive), chosen.tokens(repetitive))
    total = alone / together
    if four is not None:
        lines.append(
            f"| four unlike texts at once, four slots | {four[1]:.1f} | {four[0]:.1f} "
            f"| {four[2]:.2f} | | |"
        )
        if four[2] < MIN_BESIDE_PLAIN:
            missed.append(f"four at once: {four[2]:.2f} times what it is without guessing")
    if gain < MIN_REPETITIVE:
        missed.append(f"a text that repeats itself: {gain:.2f} times the bare law")
    if total < MIN_AT_ONCE:
        missed.append(f"eight at once: {total:.2f} times the bare law")
    rate = AT_ONCE * ANSWER
    return (
        f"Two workers, {DELAY * 1e3:g} ms one way, {RATES[0] / 1e6:g} MB/s. Chosen: "
        f"{told(plans['guessing or not'])}; {told(plans['four slots'])}; and "
        f"{told(plans['eight at once'])}.\n\n"
        + "\n".join(lines)
        + "\n\n| beside the bare law | bare, tokens/s | as chosen | gain |\n"
        "| --- | --- | --- | --- |\n"
        f"| a text that repeats itself | {bare.rate(repetitive):.1f} "
        f"| {chosen.rate(repetitive):.1f} | {gain:.2f} |\n"
        f"| eight unlike texts, prompts included, one after the other and at once "
        f"| {rate / alone:.1f} | {rate / together:.1f} | {total:.2f} |"
    ), missed


def answer_lines(chosen: Way, plain: Way) -> tuple[list[str], list[str]]:
    """What guessing comes to for each kind of text."""
    lines = [
        "| an answer to | without guessing, tokens/s | as chosen | gain | guessed | right |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    missed = []
    for kind in TEXTS:
        ratio = median_ratio(plain.tokens(kind), chosen.tokens(kind))
        last = chosen.answers[kind][-1]
        lines.append(
            f"| {kind} | {plain.rate(kind):.1f} | {chosen.rate(kind):.1f} | {ratio:.2f} "
            f"| {last.drafted} | {last.accepted} |"
        )
        if ratio < MIN_BESIDE_PLAIN:
            missed.append(f"{kind}: {ratio:.2f} times what it is without guessing")
    return lines, missed


def four_at_once(chosen: Head, plain: Head, *, rounds: int) -> tuple[float, float, float]:
    """Tokens a second together, as chosen and without guessing, and the median of the ratios."""
    texts = list(TEXTS.values())[1 : SLOTS + 1]
    taken: dict[Head, list[float]] = {chosen: [], plain: []}
    for number in range(rounds):
        for head in (chosen, plain) if number % 2 else (plain, chosen):
            taken[head].append(head.ask_at_once(texts, ANSWER))
    rates = [SLOTS * ANSWER / statistics.median(taken[head]) for head in (chosen, plain)]
    say(f"four at once: {rates[0]:.1f} tokens/s, without guessing {rates[1]:.1f}")
    return rates[0], rates[1], median_ratio(taken[plain], taken[chosen])


def at_once(bare: Head, together: Head) -> tuple[float, float]:
    """Seconds for eight answers one after the other, and at once, with their prompts."""
    prompts = [f"{text}{' ' * i}" for i in range(2) for text in TEXTS.values()][:AT_ONCE]
    taken = []
    seconds = 0.0
    for i in range(0, AT_ONCE, AT_ONCE // 2):
        taken.append(together.ask_at_once(prompts, ANSWER))
        begin = time.perf_counter()
        for each in prompts[i : i + AT_ONCE // 2]:
            bare.ask(each, ANSWER)
        seconds += time.perf_counter() - begin
    say(f"eight: {seconds:.1f} s one after the other, {statistics.mean(taken):.1f} s at once")
    return seconds, statistics.mean(taken)


# -- long prompts -----------------------------------------------------------------------------


@contextmanager
def open_near(folder: Path, options: Sequence[str]) -> Iterator[Head]:
    """A head over two workers of this machine, with nothing in between."""
    folder.mkdir()
    with ExitStack() as stack:
        ports = [stack.enter_context(open_worker(folder / f"worker-{i}.log")) for i in range(2)]
        yield stack.enter_context(open_head(folder / "head.log", ports=ports, options=options))


def prompts(
    folder: Path, chooser: Chooser, *, rounds: int, extra: Sequence[str]
) -> tuple[str, list[str]]:
    """A prompt over two workers beside one machine alone; the table, and what was missed."""
    near = Link(rtt=1e-4, rate=1e9)
    found = chooser.choose(near, Mix(prompt_tokens=LONG_TOKENS, answer_tokens=8))
    planned = chooser.options(found)
    options = {told(found): planned}
    options |= {f"micro-batch {size}": [*planned, "-ub", size] for size in extra}
    rates: dict[str, list[float]] = {name: [] for name in ("alone", *options)}
    with ExitStack() as stack:
        place = folder / "alone"
        place.mkdir()
        alone = ["-np", "1", "-c", str(CONTEXT)]
        heads = {"alone": stack.enter_context(open_split(place, links=[], options=alone))}
        for number, (name, each) in enumerate(options.items()):
            near_folder = folder / f"near-{number}"
            heads[name] = stack.enter_context(open_near(near_folder, each))
        for head in heads.values():
            head.ask(long_prompt(99, LONG_SENTENCES), 1)
        for number in range(rounds):
            for name, head in heads.items():
                asked = head.ask(long_prompt(number, LONG_SENTENCES), 1)
                rates[name].append(asked.prompt_tokens / asked.prompt_seconds)
            say(f"prompts, round {number + 1} of {rounds}: load {load_average():.1f}")
    lines = [
        "| | tokens/s of prompt | beside one machine alone |",
        "| --- | --- | --- |",
        f"| one machine alone | {statistics.median(rates['alone']):.0f} | 1.00 |",
    ]
    ratios = {name: median_ratio(rates[name], rates["alone"]) for name in options}
    lines += [
        f"| two workers, {name} | {statistics.median(rates[name]):.0f} | {ratio:.2f} |"
        for name, ratio in ratios.items()
    ]
    missed = []
    if ratios[told(found)] < MIN_PROMPT:
        missed.append(f"a long prompt: {ratios[told(found)]:.2f} times one machine alone")
    text = f"A prompt of {LONG_TOKENS:,} tokens over two workers of one core each, no delay."
    return "\n".join([text, "", *lines]), missed


def main() -> int:
    """Run the program; its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--answers", action="store_true", help="only answers")
    parser.add_argument("--prompts", action="store_true", help="only long prompts")
    parser.add_argument(
        "--micro-batch", action="append", default=[], metavar="N", help="long prompts with N, too"
    )
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, metavar="N", help="rounds of answers; a minute each"
    )
    parser.add_argument("--write", action="store_true", help="rewrite the sections")
    given = parser.parse_args()
    is_all = given.answers is given.prompts
    before = load_average()
    texts: dict[Section, str] = {}
    missed: list[str] = []
    try:
        with tempfile.TemporaryDirectory(prefix="punch-hiding-") as name:
            folder = Path(name)
            chooser = Chooser(folder)
            if is_all or given.answers:
                rounds = 1 if given.quick else given.rounds
                texts[CHOSEN], lost = answers(folder, chooser, rounds=rounds)
                missed += lost
            if is_all or given.prompts:
                texts[PIPED], lost = prompts(
                    folder,
                    chooser,
                    rounds=1 if given.quick else PROMPT_ROUNDS,
                    extra=given.micro_batch,
                )
                missed += lost
    except UnavailableError as error:
        print(f"split_hiding: {error}", file=sys.stderr)
        return 2
    head = (
        f"Made by `benchmarks/split_hiding.py` on: {machine()}. {before:.1f} processes wanted a "
        f"core before it, {load_average():.1f} at its end."
    )
    text = "\n\n".join(["## Hiding of splits", head, *texts.values()])
    if missed:
        text += f"\n\nMissed: {'; '.join(missed)}."
    print(text)
    if given.write:
        write(RESULTS, SECTION, text)
        for section, part in texts.items():
            write(DOCUMENT, section, part)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
