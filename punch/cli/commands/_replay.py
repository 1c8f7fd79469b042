"""``punch replay``: decides the logged decisions again with other policies, and compares."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from statistics import fmean, median

import attrs

from ...capability import PeerId
from ...decision_log import Attempted, Decided, LogLine
from ...exceptions import ConfigurationError
from ...routing import POLICIES, Decision, Policy
from ...routing.starts import START
from ...settings import PATH, SWITCH, Settings, argument, count, of, one_of, setting, several
from .._exits import ExitCode
from .._run import run_command
from ._why import read_known

# What every choice is judged by: the only policy whose scores are seconds to the whole answer.
JUDGE = "completion-time"


@attrs.frozen(kw_only=True)
class Choice:
    """A logged decision, and how another policy decides it."""

    logged: PeerId
    """The peer that was chosen then."""

    again: PeerId
    """The peer that is chosen now."""

    logged_predicted: float | None
    """Seconds to the whole answer that `JUDGE` predicts for the peer chosen then."""

    again_predicted: float | None
    """The same for the peer chosen now."""

    succeeded: bool | None
    """Whether the attempt of then succeeded; `None` if the log does not say."""

    seconds: float | None
    """Seconds that the attempt of then took, if it succeeded."""


@attrs.frozen(kw_only=True)
class Replay:
    """All logged decisions, decided again by one policy."""

    policy: str
    """Name of the policy."""

    decisions: int
    """Decisions in which both then and now a peer was chosen."""

    same: int
    """Those of them with the same choice."""

    predicted: float | None
    """Mean seconds to the whole answer for the policy's choices, as `JUDGE` predicts them."""

    logged_predicted: float | None
    """The same for the choices of then."""

    same_succeeded: float | None
    """Share of the attempts that succeeded, where the policy agrees."""

    same_seconds: float | None
    """Median seconds that these really took."""

    other_succeeded: float | None
    """Share of the attempts that succeeded, where the policy would have asked another peer."""

    other_seconds: float | None
    """Median seconds that these really took."""


def replay_log(lines: Iterable[LogLine], policy: Policy, *, seed: int = 0) -> Replay:
    """Decide each logged decision again.

    What another peer would have taken nobody knows: the real seconds are always those of the
    peer that was asked, once where the policy agrees and once where it does not.
    """
    choices = list(_choices(lines, policy, seed))
    same = [choice for choice in choices if choice.logged == choice.again]
    other = [choice for choice in choices if choice.logged != choice.again]
    return Replay(
        policy=policy.name,
        decisions=len(choices),
        same=len(same),
        predicted=_mean([choice.again_predicted for choice in choices]),
        logged_predicted=_mean([choice.logged_predicted for choice in choices]),
        same_succeeded=_mean([choice.succeeded for choice in same]),
        same_seconds=_median([choice.seconds for choice in same]),
        other_succeeded=_mean([choice.succeeded for choice in other]),
        other_seconds=_median([choice.seconds for choice in other]),
    )


def _choices(lines: Iterable[LogLine], policy: Policy, seed: int) -> Iterable[Choice]:
    lines = list(lines)
    outcomes = _outcomes(lines)
    for index, line in enumerate(lines):
        decided = line.entry
        if not isinstance(decided, Decided) or decided.chosen is None:
            continue
        # One seed a decision: that one policy draws more often than another changes nothing.
        again = _decide(policy, decided, Random(f"{seed}/{index}"))
        if again.chosen is None:
            continue
        judged = _decide(POLICIES[JUDGE], decided, Random(0))
        outcome = outcomes.get(index)
        yield Choice(
            logged=decided.chosen,
            again=again.chosen.peer_id,
            logged_predicted=_predicted(judged, decided.chosen),
            again_predicted=_predicted(judged, again.chosen.peer_id),
            succeeded=None if outcome is None else outcome.outcome == "success",
            seconds=outcome.seconds if outcome and outcome.outcome == "success" else None,
        )


def _decide(policy: Policy, decided: Decided, rng: Random) -> Decision:
    # A peer with several lanes was weighed once for each.
    there = [weighed for weighed in decided.weighed if weighed.start is None]
    peers = list({weighed.peer.peer_id: weighed.peer for weighed in there}.values())
    startable = [weighed.start for weighed in decided.weighed if weighed.start is not None]
    # What a policy does to learn is no judgement of its own.
    judging = attrs.evolve(policy, explore=0.0)
    return judging.decide(decided.request, peers, now=decided.now, rng=rng, startable=startable)


def _predicted(decision: Decision, peer_id: PeerId) -> float | None:
    candidate = decision.best_of(peer_id)
    return None if candidate is None else decision.score(candidate)


def _outcomes(lines: Sequence[LogLine]) -> dict[int, Attempted]:
    """Index of a decision to what came of asking the peer that it chose."""
    waiting: dict[tuple[str, str, PeerId], int] = {}
    found: dict[int, Attempted] = {}
    for index, line in enumerate(lines):
        entry = line.entry
        if isinstance(entry, Decided) and entry.chosen is not None:
            waiting[line.run, entry.request_id, entry.chosen] = index
        elif isinstance(entry, Attempted) and entry.reason != START:
            decision = waiting.pop((line.run, entry.request_id, entry.peer_id), None)
            # A hedge's loser was stopped by us: that says nothing of the choice.
            if decision is not None and entry.outcome != "cancelled":
                found[decision] = entry
    return found


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


# ---- the command ----


ABOUT = "Decide what is in a decision log again, with other policies, and compare."

LOG = argument("log", PATH, metavar="LOG", about="the decision log")
POLICY = several(
    "policy",
    one_of(*POLICIES),
    (JUDGE,),
    variable="",
    metavar="P",
    help=f"one of {', '.join(POLICIES)}; may be given several times",
)
SEED = setting("seed", count(0), 0, variable="", metavar="N", help="for draws")
AS_JSON = setting("json", SWITCH, False, variable="", help="one JSON object a policy")


@attrs.frozen(kw_only=True)
class ReplaySettings(Settings):
    """Settings of ``punch replay``."""

    log: Path = of(LOG)
    policy: tuple[str, ...] = of(POLICY)
    seed: int = of(SEED)
    json: bool = of(AS_JSON)


def _replay(settings: ReplaySettings) -> ExitCode:
    lines = read_known(settings.log)
    if not any(isinstance(line.entry, Decided) and line.entry.chosen for line in lines):
        raise ConfigurationError(f"the decision log {settings.log} has no decisions")
    found = [replay_log(lines, POLICIES[name], seed=settings.seed) for name in settings.policy]
    if settings.json:
        for result in found:
            print(json.dumps(attrs.asdict(result)))
    else:
        print(_table(found))
    return ExitCode.OK


def replay(arguments: Sequence[str]) -> int:
    """Run ``punch replay``; its exit code."""
    return run_command("punch replay", ABOUT, ReplaySettings, _replay, arguments)


def _table(found: Sequence[Replay]) -> str:
    width = max(len("policy"), *(len(result.policy) for result in found))
    rows = [
        f"{'':{width}}  {'':>9}  {'':>5}  {'predicted, mean':>17}  "
        f"{'really, agreed':>15}  {'really, differed':>16}",
        f"{'policy':{width}}  {'decisions':>9}  {'same':>5}  {'its own':>8} {'logged':>8}  "
        f"{'ok':>5} {'median':>9}  {'ok':>6} {'median':>9}",
    ]
    for result in found:
        same = result.same / result.decisions if result.decisions else None
        rows.append(
            f"{result.policy:{width}}  {result.decisions:9}  {_share(same):>5}  "
            f"{_seconds(result.predicted):>8} {_seconds(result.logged_predicted):>8}  "
            f"{_share(result.same_succeeded):>5} {_seconds(result.same_seconds):>9}  "
            f"{_share(result.other_succeeded):>6} {_seconds(result.other_seconds):>9}"
        )
    return "\n".join(rows)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"
