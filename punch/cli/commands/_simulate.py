"""``punch simulate``: compares policies on simulated machines and a trace of requests."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random

import attrs

from ...exceptions import ConfigurationError
from ...routing import POLICIES
from ...settings import (
    LOG_LEVEL,
    PATH,
    POSITIVE,
    SWITCH,
    TEXT,
    ProgramSettings,
    count,
    number,
    of,
    one_of,
    optional,
    setting,
    several,
)
from ...simulator import (
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
from .._exits import ExitCode
from .._logs import configure_logging
from .._run import run_command

ABOUT = """\
Run a recorded or made-up load on a simulated swarm, once for each policy, and compare.

The routers, sessions and listeners are the real ones, on virtual time; only the machines are
models. The same options give the same numbers, to the last digit."""

TRACE = setting(
    "trace",
    TEXT,
    "conversation",
    metavar="TRACE",
    help="a file (Mooncake JSON lines or Azure CSV), or a made-up load with the statistics of "
    f"a real one: {', '.join(GENERATORS)}",
)
PEERS = setting(
    "peers",
    TEXT,
    "1:4:10",
    metavar="SPEC",
    help="the machines: speeds such as 1:4:10, many such as 100x1, home, or "
    "NAME=SPEED,slots=4,up=60,down=30 ... separated by spaces",
)
POLICY = several(
    "policy",
    one_of(*POLICIES, ORACLE),
    ("completion-time", "round-robin", "least-requests"),
    metavar="NAME",
    help=f"how to choose: {', '.join((*POLICIES, ORACLE))} (which knows what is to come); "
    "may be given several times",
)
SEED = setting("seed", count(0), 0, metavar="N", help="what chance begins from")
SEEDS = setting("seeds", count(1), 1, metavar="K", help="runs, each with a next seed")
REQUESTS = setting("requests", count(1), 400, metavar="N", help="requests of a run")
LOAD = setting(
    "load",
    POSITIVE,
    0.8,
    metavar="SHARE",
    help="pace of the requests, as a share of what the machines complete at full batches with "
    "empty caches",
)
TOKENS = setting(
    "tokens",
    POSITIVE,
    1000.0,
    metavar="N",
    help="scale prompts and answers by one factor, so that the mean prompt is this long",
)
DIALERS = setting("dialers", count(1), 1, metavar="N", help="routers, which share nothing")
DELAY_SECONDS = setting(
    "delay",
    number(0, 60),
    DELAY,
    metavar="SECONDS",
    help="how long bytes take between two peers",
)
JITTER = setting(
    "jitter", number(0, 60), 0.0, metavar="SECONDS", help="how much longer they may take"
)
LOSS = setting(
    "loss", number(0, 0.9), 0.0, metavar="SHARE", help="pieces that are lost and sent again"
)
STALENESS = optional(
    "staleness",
    POSITIVE,
    metavar="SECONDS",
    help="how much reports of load lag behind",
    shown_default="as they really do",
)
QUEUE = setting(
    "queue", count(0), QUEUE_LIMIT, metavar="N", help="requests that may wait at one peer"
)
PICTURE = optional("picture", PATH, metavar="FILE", help="write the distributions there, as SVG")
AS_JSON = setting("json", SWITCH, False, help="print JSON instead of a table")


@attrs.frozen(kw_only=True)
class SimulateSettings(ProgramSettings):
    """Settings of ``punch simulate``."""

    trace: str = of(TRACE)
    peers: str = of(PEERS)
    policy: tuple[str, ...] = of(POLICY)
    seed: int = of(SEED)
    seeds: int = of(SEEDS)
    requests: int = of(REQUESTS)
    load: float = of(LOAD)
    tokens: float = of(TOKENS)
    dialers: int = of(DIALERS)
    delay: float = of(DELAY_SECONDS)
    jitter: float = of(JITTER)
    loss: float = of(LOSS)
    staleness: float | None = of(STALENESS)
    queue: int = of(QUEUE)
    picture: Path | None = of(PICTURE)
    json: bool = of(AS_JSON)
    log_level: str = of(LOG_LEVEL, default="error")


def _run(settings: SimulateSettings) -> dict[str, list[Outcome]]:
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


def _headline(settings: SimulateSettings) -> str:
    return (
        f"{settings.requests} requests of {Path(settings.trace).name} on {settings.peers}, "
        f"load {settings.load:.0%}"
    )


def _write_picture(
    path: Path, settings: SimulateSettings, outcomes: dict[str, list[Outcome]]
) -> None:
    try:
        path.write_text(picture(outcomes, title=_headline(settings)), encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"--picture {path}: cannot be written: {error}") from None


def _simulate(settings: SimulateSettings) -> ExitCode:
    configure_logging(settings.log_level)
    outcomes = _run(settings)
    if settings.picture is not None:
        _write_picture(settings.picture, settings, outcomes)
    if settings.json:
        print(json.dumps(as_plain_data(outcomes), ensure_ascii=False))
    else:
        print(f"{_headline(settings)}; times in seconds\n")
        print(table(outcomes))
    return ExitCode.OK


def simulation(arguments: Sequence[str]) -> int:
    """Run ``punch simulate``; its exit code."""
    return run_command("punch simulate", ABOUT, SimulateSettings, _simulate, arguments)
