"""Two real listeners beside the same two in the simulator.

    benchmarks/two_listeners.py              in 13 minutes, on a machine that does nothing else
    benchmarks/two_listeners.py --quick      in 2 minutes; less exact
    benchmarks/two_listeners.py --write      ... and rewrites its section of RESULTS.md

Each listener, llama-server with SmolLM2 included, has one core to itself by its cpu affinity.
The core of the second one is shared with a neighbour that never rests, so that the kernel gives
it half. Both are timed, alone and with two requests at a time, and what was found is all that
the simulator is told of them. Then a made-up trace is asked of both worlds: the same lengths,
the same moments, the same routing. Prompts share nothing and the server's cache is off.

The exit status is 1 if the simulator is wrong by more than 20 %.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

import attrs
import trio
from _results import Section, UnavailableError, machine
from _two_machines import (
    MIN_PROMPT_TOKENS,
    Heard,
    Prompts,
    Town,
    ask,
    open_town,
    time_both,
)

from punch.capability import PeerId
from punch.dialer import open_router
from punch.exceptions import PunchError
from punch.simulator import (
    Figures,
    Outcome,
    Pool,
    Served,
    Trace,
    TraceRequest,
    at_load,
    number,
    open_trace,
    parse_pool,
    simulate,
)

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS.md"
SECTION = Section("two listeners")

MAX_WRONG = 0.20
CHECKED = ("mean", "p50", "p95")
SHOWN = {
    "mean": "whole answer, mean",
    "p50": "whole answer, median",
    "p95": "whole answer, 95 %",
    "first_p50": "first text, median",
    "first_p95": "first text, 95 %",
}

LOADS = (0.5, 0.8)

# The real run draws lots once, so it is one of many: the simulated ones are drawn so often.
SIMULATIONS = 10

# Conversations as people had them with a model a thousand times larger: prompts of 100 tokens
# and answers of 50 on the average, which take a core a second.
SCALE = {"inputs": 1 / 100, "outputs": 1 / 7}

# Room for the answer has to be left.
MAX_PROMPT_TOKENS = 1000

# What bytes take on this machine's own network.
LOOPBACK_SECONDS = 0.0003


@attrs.frozen(kw_only=True)
class Plan:
    """What is to be measured."""

    policies: tuple[str, ...] = ("completion-time", "round-robin", "least-requests")
    """Who chooses."""

    requests: int = 80
    """Of each run."""

    calibration_seconds: float = 40.0
    """How long the listeners are timed first."""

    seed: int = 1
    """Draws the trace and the router's lots."""


QUICK = Plan(policies=("completion-time",), requests=24, calibration_seconds=15.0)


# ---- one run, and its likeness ----


def _trace(count: int, seed: int) -> Trace:
    trace = open_trace("conversation", count, Random(f"two listeners {seed}")).scaled(**SCALE)
    return attrs.evolve(trace, requests=tuple(map(_unshared, range(count), trace.requests)))


def _unshared(index: int, request: TraceRequest) -> TraceRequest:
    tokens = min(max(MIN_PROMPT_TOKENS + 1, request.input_tokens), MAX_PROMPT_TOKENS)
    return attrs.evolve(
        request, input_tokens=tokens, blocks=(index,), block_tokens=tokens, conversation=index
    )


@attrs.frozen(kw_only=True)
class Run:
    """One policy at one load, in the real world."""

    load: float
    asked: Trace
    """With the lengths that were asked for."""

    found: Trace
    """With those that came out."""

    outcome: Outcome


async def _replay(town: Town, trace: Trace, policy: str, load: float, seed: int) -> Run:
    served: dict[int, Served] = {}
    prompts = Prompts(Random(f"{policy} {seed}"))
    asked = [prompts.request(r.input_tokens, r.output_tokens) for r in trace.requests]
    async with open_router(
        bootstrap=town.bootstrap, policy=policy, rng=Random(f"router {seed}")
    ) as router:
        await router.wait_for_peers(lambda peers: len(peers) == 2)
        began = trio.current_time()

        async def one(index: int) -> None:
            arrival = trace.requests[index].arrival
            await trio.sleep_until(began + arrival)
            try:
                served[index] = _served(await ask(router, asked[index]), arrival)
            except PunchError as error:
                raise RuntimeError(
                    f"a request failed, so nothing can be compared: {error}"
                ) from error

        async with trio.open_nursery() as nursery:
            for index in range(len(trace)):
                nursery.start_soon(one, index)
        seconds = trio.current_time() - began
    requests = tuple(served[index] for index in range(len(trace)))
    outcome = Outcome(policy=policy, seed=seed, requests=requests, seconds=seconds, usage={})
    return Run(load=load, asked=trace, found=_as_it_was(trace, requests), outcome=outcome)


def _served(heard: Heard, arrival: float) -> Served:
    response = heard.response
    usage = response.usage
    assert usage.prompt_tokens is not None
    assert usage.completion_tokens is not None
    return Served(
        arrival=arrival,
        first_text=heard.first - heard.asked,
        completion=heard.ended - heard.asked,
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens or 0,
        output_tokens=usage.completion_tokens,
        peer=str(response.executor),
        attempts=0,
        segments=1,
        failure=None,
    )


def _as_it_was(trace: Trace, served: Sequence[Served]) -> Trace:
    return attrs.evolve(
        trace,
        requests=tuple(
            attrs.evolve(
                request,
                input_tokens=found.prompt_tokens - found.cached_tokens,
                output_tokens=max(1, found.output_tokens),
                block_tokens=found.prompt_tokens,
            )
            for request, found in zip(trace.requests, served, strict=True)
        ),
    )


@attrs.frozen(kw_only=True)
class Compared:
    """One policy at one load, in both worlds."""

    policy: str
    load: float
    measured: Figures
    simulated: Mapping[str, float]
    """Figure to its mean over the simulations."""

    on_slow: tuple[float, float]
    """Share of the requests that the slow one answered, measured and simulated."""

    short: int
    """Answers that ended before the length they were allowed."""

    cached: int
    """Prompt tokens that a cache held."""

    def error(self, figure: str) -> float:
        """By which share the simulator is wrong."""
        return float(self.simulated[figure] / getattr(self.measured, figure) - 1)

    @property
    def met(self) -> bool:
        """Whether that is little enough, in every figure of the whole answer."""
        return all(abs(self.error(figure)) <= MAX_WRONG for figure in CHECKED)


def _compare(run: Run, pool: Pool, slow: PeerId) -> Compared:
    """Simulate what was measured."""
    policy, requests = run.outcome.policy, run.outcome.requests
    likenesses = [
        simulate(run.found, pool, policy, seed, delay=LOOPBACK_SECONDS, limited=True)
        for seed in range(SIMULATIONS)
    ]
    figures = [Figures.of(likeness) for likeness in likenesses]
    pairs = zip(run.asked.requests, run.found.requests, strict=True)
    return Compared(
        policy=policy,
        load=run.load,
        measured=Figures.of(run.outcome),
        simulated={name: statistics.fmean(getattr(f, name) for f in figures) for name in SHOWN},
        on_slow=(
            _share(requests, str(slow)),
            statistics.fmean(_share(likeness.requests, "slow") for likeness in likenesses),
        ),
        short=sum(found.output_tokens < asked.output_tokens for asked, found in pairs),
        cached=sum(request.cached_tokens for request in requests),
    )


def _share(requests: Sequence[Served], peer: str) -> float:
    return statistics.fmean(request.peer == peer for request in requests)


# ---- the report ----


def table(found: Sequence[Compared]) -> str:
    """Every figure, measured and simulated, in Markdown."""
    lines = [
        "| policy, load | seconds | measured | simulated | difference | met |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for one in found:
        for figure, title in SHOWN.items():
            measured, simulated = getattr(one.measured, figure), one.simulated[figure]
            error = one.error(figure)
            met = ("yes" if abs(error) <= MAX_WRONG else "**no**") if figure in CHECKED else ""
            where = f"{one.policy}, {one.load:.0%}"
            cells = (where, title, number(measured), number(simulated), f"{error:+.0%}", met)
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def section(plan: Plan, specs: str, found: Sequence[Compared], *, command: str) -> str:
    """What goes into RESULTS.md."""
    shares = "; ".join(
        f"{one.policy} at {one.load:.0%}: {one.on_slow[0]:.0%} and {one.on_slow[1]:.0%}"
        for one in found
    )
    how = (__doc__ or "").split("\n\n")[2]
    lines = [
        SECTION.begin,
        "## Two real listeners, beside the same two simulated",
        "",
        f"`{command}`, on: {machine()}.",
        "",
        how,
        "",
        f"Found: `--peers '{specs}'`. {plan.requests} requests a run;",
        f"{sum(one.short for one in found)} of {plan.requests * len(found)} answers ended before",
        "their limit, and the simulator was told so. What is measured is one run; what is",
        f"simulated is the mean over {SIMULATIONS} draws of the router's lots.",
        f"Prompt tokens that a cache held: {sum(one.cached for one in found)}.",
        "",
        table(found),
        "",
        f"Share of the requests that the slow one answered, measured and simulated: {shares}.",
        SECTION.end,
        "",
    ]
    return "\n".join(lines)


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


async def _measure(plan: Plan) -> tuple[str, PeerId, list[Run]]:
    """The two as the simulator is told of them, who is the slow one, and all runs."""
    trace = _trace(plan.requests, plan.seed)
    async with open_town() as town:
        fast, slow = await time_both(town, trace, plan.calibration_seconds)
        specs = f"{fast.spec('fast')} {slow.spec('slow')}"
        _say(specs)
        pool = parse_pool(specs)
        runs = []
        for load in LOADS:
            asked = at_load(trace, pool, load)
            for policy in plan.policies:
                run = await _replay(town, asked, policy, load, plan.seed)
                _say(f"{policy} at {load:.0%}: {run.outcome.seconds:.0f} s")
                runs.append(run)
    return specs, town.slow, runs


def _plan() -> tuple[Plan, bool, str]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one policy and fewer requests")
    parser.add_argument("--policy", action="append", metavar="NAME", help="only these")
    parser.add_argument("--requests", type=int, metavar="N", help="how many a run")
    parser.add_argument("--seed", type=int, default=1, help="another trace")
    parser.add_argument("--write", action="store_true", help="rewrite the section of RESULTS.md")
    given = parser.parse_args()
    usual = QUICK if given.quick else Plan()
    plan = attrs.evolve(
        usual,
        policies=tuple(given.policy or usual.policies),
        requests=given.requests or usual.requests,
        seed=given.seed,
    )
    return plan, given.write, "benchmarks/two_listeners.py" + (" --quick" if given.quick else "")


def main() -> int:
    """Run the program; its exit code."""
    plan, write, command = _plan()
    try:
        specs, slow, runs = trio.run(_measure, plan)
    except UnavailableError as error:
        _say(str(error))
        return 1
    logging.disable(logging.CRITICAL)
    found = [_compare(run, parse_pool(specs), slow) for run in runs]
    text = section(plan, specs, found, command=command)
    print(text)
    if write:
        before = RESULTS.read_text(encoding="utf-8")
        RESULTS.write_text(SECTION.replaced(before, text), encoding="utf-8")
        _say(f"wrote {RESULTS.name}")
    for one in found:
        if not one.met:
            _say(f"not met: {one.policy} at {one.load:.0%}")
    return 0 if all(one.met for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
