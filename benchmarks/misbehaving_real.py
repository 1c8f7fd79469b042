"""One peer that misbehaves among three: real processes beside the same in the simulator.

    benchmarks/misbehaving_real.py                 every kind and time-out, in 20 minutes
    benchmarks/misbehaving_real.py --timeout 6     only that time-out
    benchmarks/misbehaving_real.py --kind blaming  only that kind
    benchmarks/misbehaving_real.py --write         ... and rewrites the section of RESULTS.md

Three listeners in processes of their own, over libp2p on this machine, with mocks of set rates as
engines; a dialer asks them at half of what the two good ones can do, first with the third one
misbehaving and then with it mended. The simulator gets the same rates, requests and moments.

The exit status is 1 if two kinds of peers stand the other way round in the simulation, or a good
peer's requests fail.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import math
import sys
import textwrap
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random

import attrs
import trio
from _processes import Child
from _results import Section, machine

from punch.dialer import Router, chat_request, open_router
from punch.events import Attempted, Bus, Event
from punch.exceptions import PunchError
from punch.simulator import (
    KINDS,
    Asked,
    Harm,
    Outcome,
    Served,
    Trace,
    TraceRequest,
    number,
    parse_pool,
    simulate,
)
from punch.wire import Sampling

RESULTS = Path(__file__).parent / "RESULTS.md"
SECTION = Section("misbehaving peers, real")

TIMEOUTS = (6.0, 15.0, 300.0)

# The good two: an answer of 32 tokens takes 0.8 s, four are made at a time, so the two can do ten a
# second.
PREFILL_RATE = 1000.0
DECODE_RATE = 40.0
SLOTS = 4
OUTPUT_TOKENS = 32
RATE = 5.0

# One prompt of six is long, and kills a fragile engine.
SHORT_WORDS, LONG_WORDS = 20, 300
LONG_SHARE = 1 / 6
DIES_OF_WORDS = 200

# What a boasting machine multiplies its speed by, which is a tenth of the others'.
BOAST = 10.0

REQUESTS = 150
# Requests after the mending: at that pace a minute and a little more.
AFTERWARDS = 320

# What bytes take on this machine's own network.
LOOPBACK_SECONDS = 0.0003

# A kind does worse than another if it loses so much more of the requests.
APART = 0.04

# How long a router waits to hear what a cancelled try had made.
CONFIRM_SECONDS = 6.0


@attrs.frozen(kw_only=True)
class Plan:
    """What one run is about."""

    kind: str
    """One of `KINDS`, or nothing for the two good ones alone."""

    timeout: float
    """Seconds after which a caller gives up."""

    requests: int
    """Requests while the third one misbehaves."""

    afterwards: int
    """Requests after it was mended, at most."""


@attrs.frozen(kw_only=True)
class Compared:
    """One kind and time-out, measured and simulated."""

    plan: Plan
    measured: Harm
    simulated: Harm


def trace(count: int) -> Trace:
    """The requests: unlike in length, at unlike moments."""
    rng = Random("misbehaving, real")
    moment, requests = 0.0, []
    for index in range(count):
        words = LONG_WORDS if rng.random() < LONG_SHARE else SHORT_WORDS
        requests.append(
            TraceRequest(
                arrival=moment,
                input_tokens=words,
                output_tokens=OUTPUT_TOKENS,
                blocks=(index,),
                block_tokens=words,
                conversation=index,
            )
        )
        moment += rng.expovariate(RATE)
    return Trace(name="made up", requests=tuple(requests))


# ---- real ----


class Asking:
    """A run under way against real listeners."""

    def __init__(self, plan: Plan, router: Router, bad: str | None) -> None:
        self.asked: list[Asked] = []
        self.found_at = math.inf
        """When the mended one's first answer, asked for after its mending, was whole."""
        self.mended_at = math.inf
        self._plan = plan
        self._router = router
        self._bad = bad
        self._began = trio.current_time()
        self._served: dict[int, Served] = {}

    def note(self, event: Event) -> None:
        """Take the end of a try."""
        assert isinstance(event, Attempted)
        now = trio.current_time() - self._began
        name = "bad" if event.peer_id == self._bad else str(event.peer_id)
        one = Asked(at=now - event.seconds, seconds=event.seconds, peer=name, outcome=event.outcome)
        self.asked.append(one)
        if name == "bad" and one.at >= self.mended_at and one.outcome == "success":
            self.found_at = min(self.found_at, now)

    async def run(self, third: Child | None) -> Outcome:
        """Ask everything; mend the third one in between."""
        plan = self._plan
        total = plan.requests + (plan.afterwards if third is not None else 0)
        async with trio.open_nursery() as nursery:
            for index, request in enumerate(trace(total).requests):
                await trio.sleep_until(self._began + request.arrival)
                if index == plan.requests and third is not None:
                    await trio.to_thread.run_sync(third.ask, "mend")
                    self.mended_at = trio.current_time() - self._began
                if self.found_at < math.inf:
                    break
                nursery.start_soon(self._ask, index, request)
        await trio.sleep(CONFIRM_SECONDS)
        served = tuple(self._served[index] for index in range(plan.requests))
        return Outcome(
            policy="completion-time",
            seed=0,
            requests=served,
            seconds=trio.current_time() - self._began,
            usage={},
            asked=tuple(sorted(self.asked, key=lambda one: one.at)),
        )

    async def _ask(self, index: int, request: TraceRequest) -> None:
        words = " ".join([f"{index}", *(["word"] * (request.input_tokens - 1))])
        asked = chat_request(
            words, sampling=Sampling(max_tokens=OUTPUT_TOKENS), timeout=self._plan.timeout
        )
        began = trio.current_time()
        first = completion = peer = failure = None
        async with self._router.answer(asked) as answer:
            try:
                async for _ in answer:
                    first = trio.current_time() - began if first is None else first
                completion, peer = trio.current_time() - began, str(answer.response.executor)
            except PunchError as error:
                failure = error.code
            attempts = len(answer.attempts)
        self._served[index] = Served(
            arrival=request.arrival,
            first_text=first,
            completion=completion,
            prompt_tokens=request.input_tokens,
            cached_tokens=0,
            output_tokens=OUTPUT_TOKENS,
            peer=peer,
            attempts=attempts,
            segments=1,
            failure=failure,
        )


class Town:
    """The two good listeners and a bootstrap, in processes of their own. Made by `open_town`."""

    def __init__(self, start: Callable[..., Child], bootstrap: str, namespace: str) -> None:
        self.start = start
        """Starts another listener, given what is different about it."""
        self.bootstrap = bootstrap
        self.namespace = namespace
        self.good: tuple[str, ...] = ()
        """Their peer ids."""

    def third(self, kind: str) -> Child:
        """A listener of this kind."""
        boasts = BOAST if kind == "boasting" else 1.0
        return self.start(
            decode_rate=DECODE_RATE / boasts,
            prefill_rate=PREFILL_RATE / boasts,
            claims=boasts,
            kind=kind,
            dies_of_words=DIES_OF_WORDS,
            bootstrap=self.bootstrap,
        )


@asynccontextmanager
async def open_town() -> AsyncIterator[Town]:
    """Start them; they are there when the context begins."""
    namespace = f"misbehaving-{uuid.uuid4().hex}"
    start = partial(Child, "_misbehaving_listener.py", namespace=namespace, slots=SLOTS)
    rates = {"decode_rate": DECODE_RATE, "prefill_rate": PREFILL_RATE}
    with ExitStack() as stack:
        first = stack.enter_context(start(**rates))
        greeting = await greeting_of(first)
        town = Town(start, greeting["bootstrap"], namespace)
        second = stack.enter_context(start(**rates, bootstrap=town.bootstrap))
        town.good = (greeting["peer_id"], (await greeting_of(second))["peer_id"])
        yield town


async def greeting_of(child: Child) -> dict[str, str]:
    """What a listener says when it has joined."""
    found: dict[str, str] = await trio.to_thread.run_sync(lambda: child.greeting)
    return found


@asynccontextmanager
async def open_dialer(town: Town, events: Bus, *others: str) -> AsyncIterator[Router]:
    """A router that knows nothing yet but the good two and these."""
    wanted = {*town.good, *others}
    async with open_router(
        bootstrap=town.bootstrap, namespace=town.namespace, rng=Random(1), events=events
    ) as router:
        await router.wait_for_peers(lambda peers: wanted <= {peer.peer_id for peer in peers})
        yield router


async def measure(town: Town, plan: Plan) -> tuple[Outcome, float]:
    """One run with a fresh router and third listener, and when that was mended."""
    with ExitStack() as stack:
        third = stack.enter_context(town.third(plan.kind)) if plan.kind else None
        bad = (await greeting_of(third))["peer_id"] if third is not None else None
        events = Bus()
        async with open_dialer(town, events, *([bad] if bad else [])) as router:
            asking = Asking(plan, router, bad)
            with events.account(Attempted, note=asking.note):
                outcome = await asking.run(third)
        return outcome, asking.mended_at


# ---- simulated ----


def simulated(plan: Plan) -> tuple[Outcome, float]:
    """The same in the simulator."""
    made = trace(plan.requests + (plan.afterwards if plan.kind else 0))
    mended_at = made.requests[plan.requests].arrival if plan.kind else math.inf
    fields = f"slots={SLOTS},slowdown=0,cache=0"
    good = f"prefill={PREFILL_RATE},decode={DECODE_RATE},{fields}"
    peers = f"good-1=1,{good} good-2=1,{good}"
    if plan.kind:
        boasts = BOAST if plan.kind == "boasting" else 1.0
        peers += f" bad=1,prefill={PREFILL_RATE / boasts},decode={DECODE_RATE / boasts},{fields}"
        peers += f",kind={plan.kind},mended={mended_at}"
        peers += f",dies={DIES_OF_WORDS}" if plan.kind == "fragile" else ""
    outcome = simulate(
        made, parse_pool(peers), "completion-time", 1, delay=LOOPBACK_SECONDS, timeout=plan.timeout
    )
    return attrs.evolve(outcome, requests=outcome.requests[: plan.requests]), mended_at


# ---- both ----


async def _compare(plans: Sequence[Plan]) -> list[Compared]:
    found = []
    async with open_town() as town:
        for timeout, group in itertools.groupby(plans, key=lambda plan: plan.timeout):
            together = list(group)
            alone = attrs.evolve(together[0], kind="")
            reference, _ = await measure(town, alone)
            likeness, _ = await trio.to_thread.run_sync(simulated, alone)
            for plan in together:
                outcome, mended_at = await measure(town, plan)
                made, made_well_at = await trio.to_thread.run_sync(simulated, plan)
                one = Compared(
                    plan=plan,
                    measured=Harm.of(outcome, reference, {"bad": mended_at}),
                    simulated=Harm.of(made, likeness, {"bad": made_well_at}),
                )
                found.append(one)
                _say(f"{plan.kind}, {timeout:.0f} s: {' | '.join(_cells(one)[2:])}")
    return found


def _seconds(value: float) -> str:
    return "never" if math.isinf(value) else f"{number(value)} s"


def _cells(one: Compared) -> list[str]:
    cells = [one.plan.kind, f"{one.plan.timeout:.0f} s"]
    for name in ("lost", "share"):
        cells += [f"{getattr(harm, name):.1%}" for harm in (one.measured, one.simulated)]
    return [*cells, *(_seconds(harm.found) for harm in (one.measured, one.simulated))]


def turned_round(found: Sequence[Compared]) -> list[str]:
    """Pairs of kinds of one time-out that stand the other way round in the simulation."""
    wrong = []
    for a, b in itertools.combinations(found, 2):
        if a.plan.timeout != b.plan.timeout:
            continue
        real, made = a.measured.lost - b.measured.lost, a.simulated.lost - b.simulated.lost
        if abs(real) > APART and abs(made) > APART and (real > 0) != (made > 0):
            wrong.append(f"{a.plan.kind} and {b.plan.kind} at {a.plan.timeout:.0f} s")
    return wrong


def table(found: Sequence[Compared]) -> str:
    """Every figure, measured and simulated, in Markdown."""
    head = ("kind", "time-out", "lost", "simulated", "share", "simulated")
    head += ("found after", "simulated")
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(_cells(one))} |" for one in found)])


def section(found: Sequence[Compared]) -> str:
    """What goes into RESULTS.md."""
    about = (__doc__ or "").split("\n\n")[2]
    figures = (
        f"{REQUESTS} requests a run, one run each, on: {machine()}. What the columns mean is said "
        "of the simulated table above. Kinds that stand the other way round in the simulation: "
        f"{'; '.join(turned_round(found)) or 'none'}."
    )
    return "\n".join(
        [
            SECTION.begin,
            "## One peer that misbehaves among three, in real processes",
            "",
            textwrap.fill(f"`benchmarks/misbehaving_real.py`: {about}", 98),
            "",
            textwrap.fill(figures, 98),
            "",
            table(found),
            SECTION.end,
            "",
        ]
    )


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def main() -> int:
    """Run the program; its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kind", action="append", choices=list(KINDS), metavar="KIND")
    parser.add_argument("--timeout", action="append", type=float, metavar="SECONDS")
    parser.add_argument("--requests", type=int, default=REQUESTS, metavar="N")
    parser.add_argument("--afterwards", type=int, default=AFTERWARDS, metavar="N")
    parser.add_argument("--write", action="store_true", help="rewrite the section of RESULTS.md")
    given = parser.parse_args()
    plans = [
        Plan(kind=kind, timeout=timeout, requests=given.requests, afterwards=given.afterwards)
        for timeout in given.timeout or TIMEOUTS
        for kind in given.kind or KINDS
    ]
    logging.disable(logging.CRITICAL)
    found = trio.run(_compare, plans)
    print(table(found))
    if given.write:
        before = RESULTS.read_text(encoding="utf-8")
        RESULTS.write_text(SECTION.replaced(before, section(found)), encoding="utf-8")
        _say(f"wrote {RESULTS.name}")
    wrong = turned_round(found)
    for pair in wrong:
        _say(f"the other way round in the simulation: {pair}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
