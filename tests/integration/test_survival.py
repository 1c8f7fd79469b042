"""Answers that outlive the listeners that make them: real processes, real models, real deaths."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import attrs
import pytest
import trio
import trio.lowlevel
from integration.programs import ROOT, Program, Programs, limit, off, open_programs

from punch import (
    Candidate,
    CommandRequest,
    CommandResponse,
    Policy,
    Router,
    RouteRequest,
    Sampling,
    chat_request,
    open_router,
)
from punch.backends import mock_words
from punch.network import Transport
from punch.routing import STANDARD_FILTERS

# ---- listeners to be killed ----


class Crowd:
    """Listeners that answer alike. For each that is struck, another is started.

    Args:
      programs: What starts them.
      starts: Arguments and environment of each.

    """

    def __init__(self, programs: Programs, *starts: Mapping[str, Any]) -> None:
        self.programs = programs
        self._starts: dict[int, Mapping[str, Any]] = {}
        self._count = 0
        self._coming: list[Program] = [self._start(start) for start in starts]
        self._struck: list[Program] = []
        self.alive: dict[str, Program] = {}
        """By peer id."""
        self._arrive()

    def _start(self, start: Mapping[str, Any]) -> Program:
        self._count += 1
        # Whoever comes in place of a dead one is somebody else.
        identity = str(self.programs.folder / f"identity-{self._count}")
        program = self.programs.start(
            "listener",
            *("--identity", identity),
            *start.get("arguments", ()),
            **start.get("environment", {}),
        )
        self._starts[program.pid] = start
        return program

    def _arrive(self) -> None:
        while self._coming:
            program = self.programs.ready(self._coming[0])
            self.alive[program.peer_id] = program
            del self._coming[0]

    def strike(self, peer_id: str, number: int = signal.SIGKILL) -> Program:
        """Send a signal that nobody survives, or nobody answers after."""
        victim = self.alive.pop(peer_id)
        victim.send(number)
        self._struck.append(victim)
        self._coming.append(self._start(self._starts[victim.pid]))
        return victim

    async def complete(self, router: Router) -> None:
        """Wait until everybody is there again, and nobody else is."""
        await off(self._bury)
        await off(self._arrive)
        await router.wait_for_peers(lambda peers: {p.peer_id for p in peers} == self.alive.keys())

    def _bury(self) -> None:
        while self._struck:
            self._struck.pop().kill()


async def ask_and_strike(
    router: Router,
    crowd: Crowd,
    request: CommandRequest,
    *places: int,
    number: int = signal.SIGKILL,
) -> CommandResponse:
    """Ask, and strike whoever answers when so many parts of the text have come; in order."""
    left = list(places)
    heard = 0
    async with router.answer(request) as answer:
        async for _ in answer:
            heard += 1
            if left and heard >= left[0]:
                left.pop(0)
                chosen = answer.decisions[-1].chosen_peer
                assert chosen is not None
                crowd.strike(chosen, number)
    assert answer.text == response_text(answer.response)
    return answer.response


# A quick engine makes the last tokens of an answer before a blow falls that was meant for it, and
# a busy machine hands several of them over as one part: the answer has fewer parts than places.
BLOWS = 8


async def ask_and_strike_in_time(
    router: Router, crowd: Crowd, request: CommandRequest, whole: str, *places: int
) -> CommandResponse:
    """The same with everybody there, again where an engine was done before the blow fell."""
    for _ in range(BLOWS):
        await crowd.complete(router)
        response = await ask_and_strike(router, crowd, request, *places)
        assert response_text(response) == whole, places
        if len(response.segments) > len(places):
            return response
    raise AssertionError(f"{BLOWS} answers were whole before a blow at {places} fell")


def response_text(response: CommandResponse) -> str:
    """The answer, which must be there."""
    assert response.status == "success"
    assert response.result is not None
    return response.result.text


def check_segments(response: CommandResponse, *places: int, tokens: int) -> None:
    """Each place began a segment of another peer, and together they have all the tokens."""
    segments = response.segments
    assert len(segments) == len(places) + 1, response
    assert len({segment.peer_id for segment in segments}) == len(segments)
    # What a dying peer had sent is not thrown away: its last words may come after the blow.
    delivered = 0
    for place, segment in zip(places, segments, strict=False):
        delivered += segment.tokens
        assert place <= delivered < tokens
    assert sum(segment.tokens for segment in segments) == tokens
    assert sum(segment.characters for segment in segments) == len(response_text(response))
    assert response.usage.completion_tokens == tokens
    assert response.executor == segments[-1].peer_id
    assert [attempt["peer_id"] for attempt in response.attempts] == [
        segment.peer_id for segment in segments[:-1]
    ]


# ---- a real model ----

TOKENS = 60
PLACES = tuple(range(1, TOKENS, 3))

# The logarithms of its best and second best token are once 0.016 apart, and the next prompt's
# 0.004: whatever is computed a little differently by another peer shows.
STORY = "Tell me a story about a cat."
ACCENTS = "Write a haiku, then its translation into French."

# Never less than 0.28 apart: any two builds of llama.cpp agree.
COUNTING = "Count from 1 to 30."


def real_start(model: Path, backend: str, server: Path | None = None) -> dict[str, Any]:
    """A listener with SmolLM2, for `Crowd`."""
    environment = {
        "PUNCH_INFERENCE_BACKEND": backend,
        "LLAMA_GGUF_PATH": str(model),
        "LLAMA_THREADS": "1",
    }
    if server is not None:
        environment["LLAMA_CPP_EXE"] = str(server)
    return {"arguments": ("--slots", "1", "--context", "1024"), "environment": environment}


def exact(start: dict[str, Any]) -> dict[str, Any]:
    """The same with llama-server computing token by token, also when it reads a prompt.

    Who goes on with an answer reads what is there of it as a prompt: many tokens at a time,
    where the other one made one at a time. llama.cpp adds the same products up in another order
    then, so keys and values differ in their last bits, and of two tokens that are nearly as
    likely the other one may win. One peer alone does the same to itself as soon as it finds a
    part of the prompt in its cache. Token by token, the bits are the same either way, and
    what still differs is our fault.
    """
    return {**start, "environment": {**start["environment"], "LLAMA_ARG_UBATCH": "1"}}


def greedy(text: str = STORY, **changes: Any) -> CommandRequest:
    """A question whose answer does not depend on chance."""
    request = chat_request(text, sampling=Sampling(max_tokens=TOKENS, temperature=0.0))
    return attrs.evolve(request, **changes)


@pytest.fixture(scope="module")
def real(
    tmp_path_factory: pytest.TempPathFactory, model_path: Path, llama_cpp_folder: Path
) -> Iterator[Crowd]:
    """Three listeners, each with a llama-server of its own."""
    with open_programs(tmp_path_factory.mktemp("real")) as programs:
        programs.bootstrap()
        start = exact(real_start(model_path, "llama_cpp", llama_cpp_folder / "llama-server"))
        yield Crowd(programs, *[start] * 3)


@limit(300)
async def test_a_real_answer_survives_at_every_third_token(real: Crowd) -> None:
    """SIGKILL at each of 20 places of a greedy answer: 20 times the unbroken one, to the byte."""
    async with open_router(bootstrap=real.programs.address) as router:
        await real.complete(router)
        whole = response_text(await router.ask(greedy()))
        assert len(PLACES) == 20
        for place in PLACES:
            response = await ask_and_strike_in_time(router, real, greedy(), whole, place)
            check_segments(response, place, tokens=TOKENS)
            assert response.segments[0].reason == "the connection was lost"


@limit(120)
async def test_a_real_answer_survives_a_listener_that_stops(real: Crowd) -> None:
    """SIGSTOP: no connection breaks, and nothing says so but silence."""
    async with open_router(bootstrap=real.programs.address) as router:
        for place in (2, 30, 58):
            await real.complete(router)
            whole = response_text(await router.ask(greedy()))
            began = trio.current_time()
            response = await ask_and_strike(router, real, greedy(), place, number=signal.SIGSTOP)
            assert response_text(response) == whole
            check_segments(response, place, tokens=TOKENS)
            # A heartbeat that is missed for five seconds, or sooner the watchdog.
            assert trio.current_time() - began < 20


@limit(120)
async def test_a_real_answer_survives_two_deaths(real: Crowd) -> None:
    """Three peers, one sentence; the last one has two seams behind it."""
    async with open_router(bootstrap=real.programs.address) as router:
        for places in ((1, 2), (10, 40), (57, 58)):
            await real.complete(router)
            whole = response_text(await router.ask(greedy()))
            response = await ask_and_strike_in_time(router, real, greedy(), whole, *places)
            check_segments(response, *places, tokens=TOKENS)


@limit(120)
async def test_a_real_answer_survives_within_a_word_with_accents(real: Crowd) -> None:
    """A character of two bytes may be two tokens: it comes whole, from one peer or the other."""
    async with open_router(bootstrap=real.programs.address) as router:
        await real.complete(router)
        whole = response_text(await router.ask(greedy(ACCENTS)))
        assert any(ord(character) > 127 for character in whole)
        first = next(i for i, character in enumerate(whole) if ord(character) > 127)
        for place in range(max(1, first - 2), first + 2):
            await real.complete(router)
            response = await ask_and_strike(router, real, greedy(ACCENTS), place)
            assert response_text(response) == whole
            check_segments(response, place, tokens=TOKENS)


# ---- one backend goes on with what another began ----


@pytest.fixture(scope="module")
def mixed(
    tmp_path_factory: pytest.TempPathFactory, model_path: Path, llama_cpp_folder: Path
) -> Iterator[Crowd]:
    """The same model file behind llama-server and behind the embedded engine."""
    pytest.importorskip("xllamacpp")
    with open_programs(tmp_path_factory.mktemp("mixed")) as programs:
        programs.bootstrap()
        yield Crowd(
            programs,
            real_start(model_path, "llama_cpp", llama_cpp_folder / "llama-server"),
            real_start(model_path, "embedded"),
        )


@pytest.mark.parametrize("first", ["llama_cpp", "embedded"])
@limit(120)
async def test_another_backend_goes_on_with_the_answer(mixed: Crowd, first: str) -> None:
    """Same file and template, another build of llama.cpp, and batches as people use them.

    Two builds need not agree on the last bits of a number, so this asks for an answer whose
    tokens are far from their rivals; then nothing but the seam could make a difference.
    """
    async with open_router(bootstrap=mixed.programs.address) as router:
        await mixed.complete(router)
        begins, goes_on = sorted(router.peers, key=lambda peer: peer.capability.backend != first)
        assert {begins.capability.backend, goes_on.capability.backend} == {"llama_cpp", "embedded"}
        offers = [peer.capability.models[0] for peer in (begins, goes_on)]
        assert offers[0].digest == offers[1].digest is not None
        assert offers[0].chat_template == offers[1].chat_template is not None
        answers = []
        for peer in (begins, goes_on):
            router.policy = first_among(peer.peer_id)
            answers.append(response_text(await router.ask(greedy(COUNTING))))
        assert answers[0] == answers[1]
        router.policy = first_among(begins.peer_id)
        response = await ask_and_strike(router, mixed, greedy(COUNTING), 30)
        assert [segment.peer_id for segment in response.segments] == [
            begins.peer_id,
            goes_on.peer_id,
        ]
        check_segments(response, 30, tokens=TOKENS)
        assert response_text(response) == answers[0]


# ---- mocks: every place, every transport ----


@attrs.frozen
class Victims:
    """Has each answer begun by a listener that is to die, and gone on with by one that is not."""

    victim: str
    survivors: tuple[str, ...] = ()
    term_names: tuple[str, ...] = ("place",)
    unit: str = ""
    lowest_is_best: bool = True

    def terms(
        self, request: RouteRequest, candidates: Sequence[Candidate], rng: Random
    ) -> Sequence[tuple[float, ...]]:
        """Zero for whoever is wanted."""
        wanted = self.survivors if request.tried else (self.victim,)
        return [(float(peer.peer_id not in wanted),) for peer in candidates]


def first_among(victim: str, *survivors: str) -> Policy:
    """A policy that asks *victim* first, and then the others."""
    scorer = Victims(victim, survivors)
    return Policy(name="victims", scorer=scorer, filters=STANDARD_FILTERS, near=0.0)


MOCK_TOKENS = 16


@pytest.mark.parametrize("transport", ["tcp", "quic"])
@limit(180)
async def test_a_mock_answer_survives_at_every_token(
    programs: Programs, transport: Transport
) -> None:
    """A listener for every place, each killed there, before the first text and after the last."""
    places = range(MOCK_TOKENS + 1)
    programs.bootstrap("--transport", transport)
    start = {
        "arguments": ("--transport", transport, "--slots", "32"),
        "environment": {"PUNCH_MOCK_DECODE_RATE": "4"},
    }
    started = await off(programs.listeners, *[start] * (len(places) + 2))
    survivors = tuple(program.peer_id for program in started[len(places) :])
    responses: dict[int, CommandResponse] = {}

    def request(place: int) -> CommandRequest:
        return chat_request(f"die after {place}", sampling=Sampling(max_tokens=MOCK_TOKENS))

    async def die(place: int, *, task_status: trio.TaskStatus[None]) -> None:
        victim = started[place]
        router.policy = first_among(victim.peer_id, *survivors)
        async with router.answer(request(place)) as answer:

            async def kill_at_once() -> None:
                while not answer.decisions:
                    await trio.lowlevel.checkpoint()
                task_status.started()
                if not place:
                    victim.send(signal.SIGKILL)

            heard = 0
            async with trio.open_nursery() as nursery:
                nursery.start_soon(kill_at_once)
                async for _ in answer:
                    heard += 1
                    if heard == place:
                        victim.send(signal.SIGKILL)
        responses[place] = answer.response

    async with open_router(bootstrap=programs.address, transport=transport) as router:
        everybody = {program.peer_id for program in started}
        await router.wait_for_peers(lambda peers: everybody <= {p.peer_id for p in peers})
        async with trio.open_nursery() as nursery:
            # Who lives longest begins first: all have begun before the first one dies.
            for place in reversed(places):
                await nursery.start(die, place)
    for place, response in responses.items():
        assert response_text(response) == " ".join(mock_words(request(place))), place
        assert response.usage.completion_tokens == MOCK_TOKENS
        if place in (0, MOCK_TOKENS):
            # Nobody had said anything, or nobody has to say more.
            assert len(response.segments) == 1
            continue
        check_segments(response, place, tokens=MOCK_TOKENS)
        assert response.segments[0].peer_id == started[place].peer_id
        assert response.segments[0].tokens == place
        assert response.executor in survivors
    assert responses.keys() == set(places)


# ---- churn ----


@limit(180)
def test_requests_survive_while_listeners_die_and_come_back(tmp_path: Path) -> None:
    """The short version of `benchmarks/churn.py`, which checks every text and its own targets."""
    said = subprocess.run(
        [
            *(sys.executable, str(ROOT / "benchmarks" / "churn.py")),
            *("--seconds", "20", "--requests", "40", "--every", "2"),
        ],
        capture_output=True,
        text=True,
        timeout=150,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert said.returncode == 0, said.stdout + said.stderr
    assert "| requests; deaths of listeners | 40; " in said.stdout
