"""Two real listeners beside the same two in the simulator.

    benchmarks/two_listeners.py              in 8 minutes, on a machine that does nothing else
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
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import IO, Any

import attrs
import psutil
import trio
from _results import Section, UnavailableError, machine
from inference import find_model, find_server

from punch.capability import PeerId
from punch.exceptions import PunchError
from punch.node import open_bootstrap, open_node
from punch.peers import PeerRecord
from punch.router import Router, chat_request, open_router
from punch.routing import Policy, RouteRequest
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
from punch.wire import CommandRequest, CommandResponse, Sampling

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS.md"
SECTION = Section("two listeners")

MOST_WRONG = 0.20
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

SLOTS = 2
CONTEXT_TOKENS = 2048
QUEUE_LIMIT = 1000
TIMEOUT_SECONDS = 600.0
START_SECONDS = 60.0
STOP_SECONDS = 20.0

# Conversations as people had them with a model a thousand times larger: prompts of 100 tokens
# and answers of 50 on the average, which take a core a second.
SCALE = {"inputs": 1 / 100, "outputs": 1 / 7}

# The chat template with the first words of a prompt, and what it asks for.
LEAST_PROMPT_TOKENS = 30
# Room for the answer has to be left.
MOST_PROMPT_TOKENS = 1000

# What bytes take on this machine's own network.
LOOPBACK_SECONDS = 0.0003
LOOPBACK = "/ip4/127.0.0.1/tcp/0"
ROOT = HERE.parent

# One token each, and with the space before them 3.5 bytes on the average, which is what the
# simulator's prompts have.
WORDS = ("to", "of", "in", "we", "so", "up", "it", "he", "all", "day", "one", "now", "way", "man")

PINNED = (
    "import os, sys, psutil; psutil.Process().cpu_affinity([int(sys.argv[1])]); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
)


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


# ---- the two machines ----


def _pinned(core: int, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """Python on one core only, with everything that it starts."""
    command = [sys.executable, "-c", PINNED, str(core), *arguments]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, **options)


def _cores() -> tuple[int, int]:
    try:
        allowed = psutil.Process().cpu_affinity()
    except AttributeError:
        raise UnavailableError("this system has no cpu affinity: run it on Linux") from None
    if len(allowed) < 2:
        raise UnavailableError("each listener needs a core: run it on two or more")
    return allowed[0], allowed[1]


@contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _listener(core: int, bootstrap: str, folder: Path, log: IO[bytes]) -> subprocess.Popen[bytes]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PUNCH_", "LLAMA_"))}
    environment = {
        **inherited,
        "PUNCH_BOOTSTRAP": bootstrap,
        "PUNCH_INFERENCE_BACKEND": "llama_cpp",
        "LLAMA_CPP_EXE": str(find_server()),
        "LLAMA_GGUF_PATH": str(find_model()),
        "LLAMA_THREADS": "1",
        # No prompt is asked twice: what is kept of one only takes time.
        "LLAMA_ARG_CACHE_PROMPT": "0",
        "LLAMA_ARG_CACHE_RAM": "0",
        "PYTHONPATH": str(ROOT),
        "XDG_DATA_HOME": str(folder),
        "XDG_CACHE_HOME": str(folder),
    }
    sizes = {"slots": SLOTS, "context": CONTEXT_TOKENS, "queue": QUEUE_LIMIT}
    options = [word for name, size in sizes.items() for word in (f"--{name}", str(size))]
    options += ["--identity", str(folder / f"identity-{core}")]
    return _pinned(core, "-m", "punch.listener", *options, env=environment, stdout=log, stderr=log)


@attrs.frozen
class Town:
    """Where they meet, and who they are."""

    bootstrap: str
    fast: PeerId
    slow: PeerId


def _anybody_new(known: frozenset[PeerId], peers: Sequence[PeerRecord]) -> bool:
    return any(peer.peer_id not in known for peer in peers)


@asynccontextmanager
async def _open_town() -> AsyncIterator[Town]:
    cores = _cores()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        log = stack.enter_context((folder / "log").open("w+b"))
        meeting = await stack.enter_async_context(open_node(listen=[LOOPBACK]))
        await stack.enter_async_context(open_bootstrap(meeting))
        bootstrap = str(meeting.addresses[0])
        found: list[PeerId] = []
        async with open_router(bootstrap=bootstrap) as router:
            for core in cores:
                stack.enter_context(_ended(_listener(core, bootstrap, folder, log)))
                with trio.move_on_after(START_SECONDS):
                    known = frozenset(found)
                    there = await router.wait_for_peers(partial(_anybody_new, known))
                    found += [peer.peer_id for peer in there if peer.peer_id not in known]
                    continue
                log.seek(0)
                raise RuntimeError(f"a listener did not join: {log.read().decode()[-4000:]}")
        stack.enter_context(_ended(_pinned(cores[1], "-c", "while True: pass")))
        yield Town(bootstrap, *found)


# ---- asking ----


@attrs.frozen
class Only:
    """Scores so that one peer is always the first."""

    peer_id: PeerId
    term_names: tuple[str, ...] = ("other",)
    unit: str = ""
    lowest_is_best: bool = True

    def terms(
        self, request: RouteRequest, peers: Sequence[PeerRecord], rng: Random
    ) -> Sequence[tuple[float, ...]]:
        """See the class."""
        return [(float(peer.peer_id != self.peer_id),) for peer in peers]


class Prompts:
    """Prompts of any length, no two alike."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def request(self, prompt_tokens: int, output_tokens: int) -> CommandRequest:
        """One of about so many tokens, and exactly so many at most of the answer."""
        words = self._rng.choices(WORDS, k=max(1, prompt_tokens - LEAST_PROMPT_TOKENS))
        # It differs from its first word on, so that no cache holds any of it.
        return chat_request(
            f"{' '.join(words)}. Tell a long story with these words.",
            system=f"{self._rng.randrange(1000, 10000)}",
            sampling=Sampling(max_tokens=output_tokens, temperature=0.0),
            timeout=TIMEOUT_SECONDS,
        )


@attrs.frozen(kw_only=True)
class Heard:
    """One answer, as its reader saw it, at moments of trio's clock."""

    asked: float
    texts: tuple[float, ...]
    ended: float
    response: CommandResponse

    @property
    def first(self) -> float:
        """When the first text came."""
        return self.texts[0] if self.texts else self.ended


async def _ask(router: Router, request: CommandRequest) -> Heard:
    asked = trio.current_time()
    async with router.answer(request) as answer:
        texts = [trio.current_time() async for _ in answer]
        response = answer.response
    return Heard(asked=asked, texts=tuple(texts), ended=trio.current_time(), response=response)


# ---- how fast they are ----


@attrs.define(kw_only=True)
class Speed:
    """What was found of one listener. Sums, so that long requests count for more."""

    prompt_tokens: int = 0
    prompt_seconds: float = 0.0
    tokens: int = 0
    token_seconds: float = 0.0
    paired_tokens: int = 0
    paired_seconds: float = 0.0

    @property
    def prefill_rate(self) -> float:
        """Prompt tokens read per second: all that happens before the first text."""
        return self.prompt_tokens / self.prompt_seconds

    @property
    def decode_rate(self) -> float:
        """Answer tokens per second of one request alone."""
        return self.tokens / self.token_seconds

    @property
    def slowdown(self) -> float:
        """How much longer a token takes beside another request, as a share."""
        paired = self.paired_tokens / self.paired_seconds / 2
        return max(0.0, self.decode_rate / paired - 1)

    def alone(self, heard: Heard) -> None:
        """Learn from a request that had the machine to itself."""
        usage = heard.response.usage
        assert usage.prompt_tokens is not None
        self.prompt_tokens += usage.prompt_tokens - (usage.cached_tokens or 0)
        self.prompt_seconds += heard.first - heard.asked
        self.tokens += len(heard.texts) - 1
        self.token_seconds += heard.texts[-1] - heard.first

    def pair(self, one: Heard, other: Heard) -> None:
        """Learn from two that it worked on at a time: from when both had begun to the first end."""
        begin, end = max(one.first, other.first), min(one.texts[-1], other.texts[-1])
        if end > begin:
            both = (*one.texts, *other.texts)
            self.paired_tokens += sum(begin < moment <= end for moment in both)
            self.paired_seconds += end - begin

    def spec(self, name: str) -> str:
        """As `punch simulate --peers` takes it."""
        return (
            f"{name}=1,prefill={self.prefill_rate:.1f},decode={self.decode_rate:.2f},"
            f"slowdown={self.slowdown:.3f},slots={SLOTS},cache=0"
        )


async def _time(town: Town, peer_id: PeerId, trace: Trace, seconds: float) -> Speed:
    """Ask one listener for a while, with prompts of the trace's lengths."""
    speed, rng = Speed(), Random(f"calibration {peer_id}")
    prompts = Prompts(rng)
    until = trio.current_time() + seconds
    only = Policy(name="only", scorer=Only(peer_id), near=0.0)
    async with open_router(bootstrap=town.bootstrap, policy=only) as router:
        await router.wait_for_peers(lambda peers: len(peers) == 2)
        await _ask(router, prompts.request(50, 8))
        while trio.current_time() < until:
            for each in rng.sample(trace.requests, 3):
                speed.alone(await _ask(router, prompts.request(each.input_tokens, 32)))
            pair: list[Heard] = []

            async def ask(into: list[Heard]) -> None:
                into.append(await _ask(router, prompts.request(40, 48)))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, pair)
                nursery.start_soon(ask, pair)
            speed.pair(*pair)
    return speed


async def _time_both(town: Town, trace: Trace, seconds: float) -> tuple[Speed, Speed]:
    """Both at the same time, as they will work: cores of one machine share its memory."""
    found: dict[PeerId, Speed] = {}

    async def one(peer_id: PeerId) -> None:
        found[peer_id] = await _time(town, peer_id, trace, seconds)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one, town.fast)
        nursery.start_soon(one, town.slow)
    return found[town.fast], found[town.slow]


# ---- one run, and its likeness ----


def _trace(count: int, seed: int) -> Trace:
    trace = open_trace("conversation", count, Random(f"two listeners {seed}")).scaled(**SCALE)
    return attrs.evolve(trace, requests=tuple(map(_unshared, range(count), trace.requests)))


def _unshared(index: int, request: TraceRequest) -> TraceRequest:
    tokens = min(max(LEAST_PROMPT_TOKENS + 1, request.input_tokens), MOST_PROMPT_TOKENS)
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
                served[index] = _served(await _ask(router, asked[index]), arrival)
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
        return all(abs(self.error(figure)) <= MOST_WRONG for figure in CHECKED)


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
            met = ("yes" if abs(error) <= MOST_WRONG else "**no**") if figure in CHECKED else ""
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
    async with _open_town() as town:
        fast, slow = await _time_both(town, trace, plan.calibration_seconds)
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
