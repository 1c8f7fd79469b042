"""``punch simulate``: compares policies on simulated machines and a trace of requests."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

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
    KINDS,
    ORACLE,
    QUEUE_LIMIT,
    TIMEOUT,
    Harm,
    Outcome,
    as_plain_data,
    at_load,
    harm_table,
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

HARM = """\
Against the same requests without the machines that do not do what they should: requests that
failed or lost more than 2 s, those that failed, the share of the tries that such a machine got
after ten of its own, and how long after its mending its first answer came."""

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
    "NAME=SPEED,slots=4,up=60,down=30 ... separated by spaces; NAME=SPEED,workers=2,start=SECONDS "
    "for a split that nobody runs at first; NAME=SPEED,kind=KIND,mended=SECONDS "
    f"for one that does not do what it should: {', '.join(KINDS)}",
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
    "empty caches; those with a kind are not counted",
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
TIMEOUT_SECONDS = setting(
    "timeout",
    POSITIVE,
    TIMEOUT,
    metavar="SECONDS",
    help="after which a request is given up",
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
    timeout: float = of(TIMEOUT_SECONDS)
    picture: Path | None = of(PICTURE)
    json: bool = of(AS_JSON)
    log_level: str = of(LOG_LEVEL, default="error")


@attrs.frozen(kw_only=True)
class _Found:
    """What came of all runs, by policy."""

    outcomes: dict[str, list[Outcome]] = attrs.field(factory=dict)
    harms: dict[str, list[Harm]] = attrs.field(factory=dict)
    """What machines that do not do what they should cost, where the pool has some."""


def _run(settings: SimulateSettings) -> _Found:
    pool = parse_pool(settings.peers)
    unwell = {peer.name: peer.mended_at for peer in pool.unwell}
    found = _Found()
    for seed in range(settings.seed, settings.seed + settings.seeds):
        rng = Random(f"trace {seed}")
        trace = open_trace(settings.trace, settings.requests, rng, prompt_tokens=settings.tokens)
        trace = at_load(trace, pool, settings.load)
        for policy in dict.fromkeys(settings.policy):
            if sys.stderr.isatty():
                print(f"\rseed {seed}, {policy} ...\033[K", end="", file=sys.stderr, flush=True)
            run = partial(
                simulate,
                trace,
                policy=policy,
                seed=seed,
                dialers=settings.dialers,
                delay=settings.delay,
                jitter=settings.jitter,
                loss=settings.loss,
                staleness=settings.staleness,
                queue_limit=settings.queue,
                timeout=settings.timeout,
            )
            outcome = run(pool)
            found.outcomes.setdefault(policy, []).append(outcome)
            if unwell and len(unwell) < len(pool.peers):
                harm = Harm.of(outcome, run(pool.well()), unwell)
                found.harms.setdefault(policy, []).append(harm)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    return found


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


def _as_plain_data(found: _Found) -> dict[str, Any]:
    data = as_plain_data(found.outcomes)
    for policy, harms in found.harms.items():
        data[policy]["harm"] = [harm.as_plain_data() for harm in harms]
    return data


def _simulate(settings: SimulateSettings) -> ExitCode:
    configure_logging(settings.log_level)
    found = _run(settings)
    if settings.picture is not None:
        _write_picture(settings.picture, settings, found.outcomes)
    if settings.json:
        print(json.dumps(_as_plain_data(found), ensure_ascii=False))
    else:
        print(f"{_headline(settings)}; times in seconds\n")
        print(table(found.outcomes))
        if found.harms:
            print(f"\n{HARM}\n")
            print(harm_table(found.harms))
    return ExitCode.OK


def simulation(arguments: Sequence[str]) -> int:
    """Run ``punch simulate``; its exit code."""
    return run_command("punch simulate", ABOUT, SimulateSettings, _simulate, arguments)
