"""``punch simulate``: how policies would do on machines one does not have."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random

import attrs

from ..exceptions import ConfigurationError, PunchError
from ..routing import POLICIES
from ..simulator import (
    DELAY,
    GENERATORS,
    ORACLE,
    QUEUE_LIMIT,
    Outcome,
    as_plain_data,
    at_load,
    open_trace,
    parse_pool,
    picture,
    simulate,
    table,
)
from ._exits import ExitCode, exit_code
from ._logs import configure_logging
from ._options import Option, Settings, boolean, count, number, one_of, parse, positive
from ._output import plain
from ._shared import LOG_LEVEL

ABOUT = """\
Run a recorded or made-up load on a simulated swarm, once for each policy, and compare.

The routers, sessions and listeners are the real ones, on virtual time; only the machines are
models. The same options give the same numbers, to the last digit."""

OPTIONS = (
    Option(
        name="--trace",
        default="conversation",
        metavar="TRACE",
        help="a file (Mooncake JSON lines or Azure CSV), or a made-up load with the statistics of "
        f"a real one: {', '.join(GENERATORS)}",
    ),
    Option(
        name="--peers",
        default="1:4:10",
        metavar="SPEC",
        help="the machines: speeds such as 1:4:10, many such as 100x1, home, or "
        "NAME=SPEED,slots=4,up=60,down=30 ... separated by spaces",
    ),
    Option(
        name="--policy",
        many=True,
        default=("completion-time", "round-robin", "least-requests"),
        convert=one_of(*POLICIES, ORACLE),
        metavar="NAME",
        help=f"who chooses: {', '.join((*POLICIES, ORACLE))} (which knows what is to come); "
        "may be given several times",
        shown_default="completion-time, round-robin and least-requests",
    ),
    Option(name="--seed", default=0, convert=count(0), metavar="N", help="what chance begins from"),
    Option(
        name="--seeds", default=1, convert=count(1), metavar="K", help="runs, each with a next seed"
    ),
    Option(name="--requests", default=400, convert=count(1), metavar="N", help="requests of a run"),
    Option(
        name="--load",
        default=0.8,
        convert=positive,
        metavar="SHARE",
        help="pace of the requests, as a share of what the machines complete at full batches with "
        "empty caches",
    ),
    Option(
        name="--tokens",
        default=1000.0,
        convert=positive,
        metavar="N",
        help="scale prompts and answers by one factor, so that the mean prompt is this long",
    ),
    Option(
        name="--dialers",
        default=1,
        convert=count(1),
        metavar="N",
        help="routers, which share nothing",
    ),
    Option(
        name="--delay",
        default=DELAY,
        convert=number(0, 60),
        metavar="SECONDS",
        help="how long bytes take between two peers",
    ),
    Option(
        name="--jitter",
        default=0.0,
        convert=number(0, 60),
        metavar="SECONDS",
        help="how much longer they may take",
    ),
    Option(
        name="--loss",
        default=0.0,
        convert=number(0, 0.9),
        metavar="SHARE",
        help="pieces that are lost and sent again",
    ),
    Option(
        name="--staleness",
        convert=positive,
        metavar="SECONDS",
        help="how much reports of load lag behind",
        shown_default="as they really do",
    ),
    Option(
        name="--queue",
        default=QUEUE_LIMIT,
        convert=count(0),
        metavar="N",
        help="requests that may wait at one peer",
    ),
    Option(name="--picture", metavar="FILE", help="write the distributions there, as SVG"),
    Option(name="--json", default=False, convert=boolean, help="print JSON instead of a table"),
    attrs.evolve(LOG_LEVEL, default="error"),
)


def _run(settings: Settings) -> dict[str, list[Outcome]]:
    pool = parse_pool(settings.peers)
    outcomes: dict[str, list[Outcome]] = {}
    for seed in range(settings.seed, settings.seed + settings.seeds):
        rng = Random(f"trace {seed}")
        trace = open_trace(settings.trace, settings.requests, rng, prompt_tokens=settings.tokens)
        trace = at_load(trace, pool, settings.load)
        for policy in dict.fromkeys(settings.policy):
            if sys.stderr.isatty():
                print(f"\rseed {seed}, {policy} ...\033[K", end="", file=sys.stderr, flush=True)
            outcome = simulate(
                trace,
                pool,
                policy,
                seed,
                dialers=settings.dialers,
                delay=settings.delay,
                jitter=settings.jitter,
                loss=settings.loss,
                staleness=settings.staleness,
                queue_limit=settings.queue,
            )
            outcomes.setdefault(policy, []).append(outcome)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    return outcomes


def _headline(settings: Settings) -> str:
    return (
        f"{settings.requests} requests of {Path(settings.trace).name} on {settings.peers}, "
        f"load {settings.load:.0%}"
    )


def _write_picture(settings: Settings, outcomes: dict[str, list[Outcome]]) -> None:
    path = Path(settings.picture)
    try:
        path.write_text(picture(outcomes, title=_headline(settings)), encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"--picture {path}: cannot be written: {error}") from None


def simulation(arguments: Sequence[str]) -> int:
    """Run ``punch simulate``; its exit code."""
    try:
        settings = parse("punch simulate", ABOUT, OPTIONS, arguments)
        configure_logging(settings.log_level)
        outcomes = _run(settings)
        if settings.picture:
            _write_picture(settings, outcomes)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except PunchError as error:
        print(f"punch: {plain(str(error))}", file=sys.stderr)
        return exit_code(error)
    if settings.json:
        print(json.dumps(as_plain_data(outcomes), ensure_ascii=False))
    else:
        print(f"{_headline(settings)}; times in seconds\n")
        print(table(outcomes))
    return ExitCode.OK
