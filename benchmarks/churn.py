"""Requests while listeners are killed and started at random: what becomes of them.

Four listeners in processes of their own, each killed (SIGKILL) and started again and again, and
a dialer that asks 200 questions in two minutes through the library's router. Every text is
compared with the right one. By default the listeners are mocks of a realistic speed, so that
failing over and going on are what is measured; with --real they run SmolLM2 in llama-server.

    benchmarks/churn.py
    benchmarks/churn.py --seconds 20 --requests 40
    benchmarks/churn.py --real --listeners 3

The exit status is 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import sys
from random import Random

import attrs
import trio
from _results import Report, Row, UnavailableError, remarks, table
from _town import START_SECONDS, Listener, Town, open_town

from punch.backends import mock_words
from punch.dialer import Answer, Router, chat_request, open_router
from punch.exceptions import PunchError
from punch.wire import CommandRequest, Sampling

TITLE = "Listeners that die and come back"

MIN_NOT_BEGUN = 0.999
MIN_BEGUN = 0.95

# Longer than any answer takes here, even one that three peers die of.
TIMEOUT_SECONDS = 60.0

# A supervisor starts what has died at once, or a person does so after a moment.
MAX_ABSENCE_SECONDS = 4.0


@attrs.frozen(kw_only=True)
class Plan:
    """What is to happen."""

    requests: int = 200
    """Questions."""

    seconds: float = 120.0
    """How long they are asked, and listeners killed."""

    listeners: int = 4
    """How many there are when all are there."""

    every: float = 3.0
    """Mean time between two deaths, in seconds."""

    seed: int = 1
    """Draws the questions, their times, and the deaths."""

    real: bool = False
    """SmolLM2 in llama-server in place of mocks."""

    cruel: bool = False
    """Also kill the last one that is left."""


@attrs.define(kw_only=True)
class Outcome:
    """What became of one request."""

    error: str | None = None
    """Why it failed, if it did."""

    right: bool = True
    """Whether its text was the right one, or a beginning of it if it failed."""

    begun: bool = False
    """Whether the peer that was answering died after some of the text."""

    hit: bool = False
    """Whether a peer that was asked died at all."""

    segments: int = 1
    """Peers that delivered some of it."""

    failures: int = 0
    """Peers that failed it."""

    seconds: float = 0.0
    """From asking to the end."""

    longest_gap: float = 0.0
    """The longest silence between two texts, in seconds."""


# ---- what happens ----


def _questions(plan: Plan) -> list[tuple[float, CommandRequest]]:
    """When to ask what: at random, as many people do who know nothing of each other."""
    rng = Random(f"questions {plan.seed}")
    times = sorted(rng.uniform(0.0, plan.seconds) for _ in range(plan.requests))
    topics = ("a cat", "the sea", "an old clock", "bread", "the moon", "a long walk")
    found = []
    for number, at in enumerate(times):
        # A real model's right answers have to be asked for first: there are six of them.
        about = rng.choice(topics)
        text = f"Tell me about {about}." if plan.real else f"{number}: tell me about {about}."
        tokens = 48 if plan.real else rng.randrange(32, 97)
        sampling = Sampling(max_tokens=tokens, temperature=0.0)
        found.append((at, chat_request(text, sampling=sampling, timeout=TIMEOUT_SECONDS)))
    return found


async def _right_texts(router: Router, requests: list[CommandRequest], plan: Plan) -> list[str]:
    """What each is to be answered, found while nobody dies."""
    if not plan.real:
        return [" ".join(mock_words(request)) for request in requests]
    known: dict[str, str] = {}
    for request in requests:
        prompt = request.messages[-1].content
        if prompt not in known:
            response = await router.ask(attrs.evolve(request, request_id=f"right-{len(known)}"))
            assert response.result is not None
            known[prompt] = response.result.text
    return [known[request.messages[-1].content] for request in requests]


class Churn:
    """One run of a plan."""

    def __init__(self, plan: Plan, town: Town, router: Router) -> None:
        self.plan = plan
        self.deaths = 0
        self.outcomes: list[Outcome] = []
        self._town = town
        self._router = router
        self._under_way: dict[str, tuple[Answer, Outcome]] = {}

    async def run(self) -> None:
        """Ask everything, and kill meanwhile."""
        questions = _questions(self.plan)
        right = await _right_texts(self._router, [request for _, request in questions], self.plan)
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._kill, began + self.plan.seconds)
            for (at, request), text in zip(questions, right, strict=True):
                await trio.sleep_until(began + at)
                nursery.start_soon(self._ask, request, text)

    async def _ask(self, request: CommandRequest, right: str) -> None:
        outcome = Outcome()
        self.outcomes.append(outcome)
        began = trio.current_time()
        heard_at = None
        async with self._router.answer(request) as answer:
            self._under_way[request.request_id] = answer, outcome
            try:
                async for _ in answer:
                    now = trio.current_time()
                    if heard_at is not None:
                        outcome.longest_gap = max(outcome.longest_gap, now - heard_at)
                    heard_at = now
            except PunchError as error:
                outcome.error = f"{type(error).__name__}: {error}"
            finally:
                del self._under_way[request.request_id]
        outcome.seconds = trio.current_time() - began
        outcome.segments = len(answer.segments)
        outcome.failures = len(answer.attempts)
        outcome.right = right.startswith(answer.text) if outcome.error else answer.text == right

    async def _kill(self, until: float) -> None:
        rng = Random(f"deaths {self.plan.seed}")
        with trio.move_on_at(until):
            while True:
                await trio.sleep(rng.expovariate(1 / self.plan.every))
                there = self._town.there
                if len(there) < (1 if self.plan.cruel else 2):
                    continue
                self._town.nursery.start_soon(
                    self._replace, rng.choice(there), rng.uniform(0.0, MAX_ABSENCE_SECONDS)
                )

    async def _replace(self, victim: Listener, absence: float) -> None:
        self.deaths += 1
        for answer, outcome in self._under_way.values():
            if answer.decisions and answer.decisions[-1].chosen_peer == victim.peer_id:
                outcome.hit = True
                outcome.begun = outcome.begun or bool(answer.text)
        await victim.kill()
        await trio.sleep(absence)
        await victim.start()


async def churn(plan: Plan) -> Churn:
    """Carry out *plan*."""
    async with (
        open_town(plan.listeners, real=plan.real) as town,
        open_router(bootstrap=town.bootstrap) as router,
    ):
        with trio.fail_after(START_SECONDS):
            await router.wait_for_peers(lambda peers: len(peers) == plan.listeners)
        ran = Churn(plan, town, router)
        with trio.fail_after(plan.seconds + 2 * TIMEOUT_SECONDS):
            await ran.run()
        return ran


# ---- the report ----


def _share(outcomes: list[Outcome]) -> float:
    return sum(not outcome.error for outcome in outcomes) / len(outcomes) if outcomes else 1.0


def _quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def report(ran: Churn) -> Report:
    """The table."""
    plan, outcomes = ran.plan, ran.outcomes
    begun = [outcome for outcome in outcomes if outcome.begun]
    others = [outcome for outcome in outcomes if not outcome.begun]
    quiet = [outcome for outcome in others if outcome.hit]
    wrong = sum(not outcome.right for outcome in outcomes)
    good = [outcome for outcome in outcomes if not outcome.error]
    seconds = [outcome.seconds for outcome in good] or [0.0]
    unhit = [outcome.seconds for outcome in good if not outcome.hit] or [0.0]
    gaps = [
        max((outcome.longest_gap for outcome in group), default=0.0) for group in (begun, others)
    ]
    errors = sorted({outcome.error for outcome in outcomes if outcome.error})

    def failed(group: list[Outcome]) -> str:
        return f"{sum(bool(outcome.error) for outcome in group)} of {len(group)} failed"

    rows = (
        Row(what="requests; deaths of listeners", ours=f"{len(outcomes)}; {ran.deaths}"),
        Row(
            what="success, not begun when a peer died, or untouched",
            ours=f"{_share(others):.1%}",
            other=f"{failed(others)}; of those whose peer died, {failed(quiet)}",
            target=f"at least {MIN_NOT_BEGUN:.1%}",
            met=_share(others) >= MIN_NOT_BEGUN,
            why="; ".join(errors),
        ),
        Row(
            what="success, begun when their peer died",
            ours=f"{_share(begun):.1%}",
            other=failed(begun),
            target=f"at least {MIN_BEGUN:.0%}",
            met=_share(begun) >= MIN_BEGUN,
            why="; ".join(errors),
        ),
        Row(
            what="answers that are not the right one, or no beginning of it",
            ours=str(wrong),
            target="0",
            met=wrong == 0,
            why="Text was lost, repeated or made up.",
        ),
        Row(
            what="failed over; continued by another peer",
            ours=f"{sum(o.failures > 0 and o.segments <= 1 for o in good)}; "
            f"{sum(o.segments > 1 for o in good)}",
        ),
        Row(
            what="longest gap between two texts of an answer whose peer died",
            ours=f"{gaps[0]:.2f} s",
            other=f"{gaps[1]:.2f} s, of the others",
        ),
        Row(
            what="completion, median and p99",
            ours=f"{_quantile(seconds, 0.5):.2f} s and {_quantile(seconds, 0.99):.2f} s",
            other=f"{_quantile(unhit, 0.5):.2f} s and {_quantile(unhit, 0.99):.2f} s, "
            "where nobody died",
        ),
    )
    kind = "SmolLM2 in llama-server" if plan.real else "mocks of 25 tokens/s, 0.7 s to the first"
    notes = (
        f"{plan.listeners} listeners ({kind}), one of them killed every {plan.every:g} s on "
        f"average and started again up to {MAX_ABSENCE_SECONDS:g} s later, {plan.requests} "
        f"requests at random times within {plan.seconds:g} s; seed {plan.seed}. "
        + (
            "Also the last one is killed."
            if plan.cruel
            else "The last one that is left is not killed."
        ),
    )
    return Report(title=TITLE, rows=rows, notes=notes)


def measure(*, quick: bool) -> Report:
    """What becomes of 200 requests in two minutes; quick, of 40 in 20 seconds."""
    plan = Plan(requests=40, seconds=20.0, every=2.0) if quick else Plan()
    return report(trio.run(churn, plan))


def main() -> int:
    """Run the program; its exit code."""
    usual = Plan()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=usual.requests, help="how many questions")
    parser.add_argument("--seconds", type=float, default=usual.seconds, help="within what time")
    parser.add_argument("--listeners", type=int, default=usual.listeners, help="how many peers")
    parser.add_argument("--every", type=float, default=usual.every, help="mean time between deaths")
    parser.add_argument("--seed", type=int, default=usual.seed, help="another course of things")
    parser.add_argument("--real", action="store_true", help="SmolLM2 in place of mocks")
    parser.add_argument("--cruel", action="store_true", help="also kill the last one that is left")
    plan = Plan(**vars(parser.parse_args()))
    try:
        found = report(trio.run(churn, plan))
    except UnavailableError as error:
        parser.error(str(error))
    print(f"{table([found])}\n\n{remarks(found)}")
    return 0 if all(row.met is not False for row in found.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
