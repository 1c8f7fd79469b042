"""Strict mode against a network of mocks and liars: three places, each tested alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest
from integration.programs import Program, Programs, limit, off, open_programs

from punch import NoPeerAvailable, NoRealPeer, Policy, chat_request, open_router
from punch.backends import mock_words
from punch.routing import POLICIES, STANDARD_FILTERS, CompletionTime

# Asks anybody who has the model, whatever else their adverts say.
UNFILTERED = Policy(
    name="unfiltered",
    scorer=CompletionTime(),
    filters=tuple(step for step in STANDARD_FILTERS if step.name in ("tried", "model")),
)

# A listener made of punch's own parts that says of itself what suits it. With "executor" it is
# punch's own executor over a backend that lies; otherwise it speaks the session by hand, and
# may say one thing in its advert and another in its answers.
FORGER = """
import sys
import trio
from punch import __version__
from punch.capability import Capability, ModelOffer
from punch.discovery import KnownPeers, join_namespace, new_incarnation
from punch.libp2p import open_node
from punch.listener import open_executor
from punch.network import parse_address
from punch.session import PeerSession
from punch.testing import ScriptedBackend
from punch.wire import (
    PROTOCOL, Advert, CommandResponse, Completion, Provenance, Session, greeting
)

bootstrap, how, name, advert, answers = sys.argv[1:]
OFFER = ModelOffer(name="forged", digest="ab" * 32, features=frozenset({"chat"}))
INCARNATION = new_incarnation()

class ByHand:
    def opened(self, session, hello):
        capability = Capability.of_one_lane(
            backend=name, simulated=advert == "mock", models=(OFFER,)
        )
        session.advertise(
            Advert(incarnation=INCARNATION, sequence=1, age=0.0, capability=capability)
        )

    def round_trip(self, session, seconds):
        pass

    def serve_call(self, call):
        kind = "real" if answers == "real" else "simulated"
        provenance = Provenance(kind=kind, backend=name, model="forged", model_digest="ab" * 32)
        call.started(provenance)
        assert call.send_now("made up", 2)
        call.respond(
            CommandResponse(
                request_id=call.request.request_id,
                status="success",
                result=Completion(),
                executor=me.peer_id,
                provenance=provenance,
            )
        )

async def serve(stream):
    hello = greeting(namespace="simple-chat", incarnation=INCARNATION, version=__version__)
    await PeerSession(stream, Session("listener", hello), ByHand()).run()

async def main():
    global me
    async with open_node(listen=["/ip4/127.0.0.1/tcp/0"]) as me, trio.open_nursery() as nursery:
        async def execute(task_status):
            backend = ScriptedBackend(simulated=advert == "mock", name=name, offers=(OFFER,))
            async with open_executor(
                me, backend, namespace="simple-chat", incarnation=INCARNATION, calibrate=False
            ):
                task_status.started()
                await trio.sleep_forever()

        if how == "executor":
            await nursery.start(lambda task_status: execute(task_status))
        else:
            me.handle(PROTOCOL, serve)
        async with join_namespace(
            me, parse_address(bootstrap), known=KnownPeers(None),
            namespace="simple-chat", roles={"listener"}, incarnation=INCARNATION,
        ) as membership:
            await membership.joined.wait()
            print(me.peer_id, flush=True)
            await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()

trio.run(main)
"""

Forge = Callable[..., str]


@attrs.frozen(kw_only=True)
class Mocks:
    """A bootstrap and two honest mocks."""

    programs: Programs
    listeners: list[Program]


@pytest.fixture(scope="module")
def mocks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mocks]:
    """They stay for all tests of this module; forgers come and go."""
    with open_programs(tmp_path_factory.mktemp("mocks")) as programs:
        programs.bootstrap()
        yield Mocks(programs=programs, listeners=programs.listeners({}, {}))


@pytest.fixture
def forge(mocks: Mocks) -> Iterator[Forge]:
    """``forge(how, name, advert, answers)`` starts a liar; its peer id."""
    started: list[Program] = []

    def start(how: str, name: str, *, advert: str, answers: str) -> str:
        forger = mocks.programs.start_script(
            FORGER, mocks.programs.address, how, name, advert, answers
        )
        started.append(forger)
        forger.wait_out("\n")
        return forger.out.strip()

    yield start
    for forger in started:
        assert forger.process.stdin is not None
        forger.process.stdin.close()
        forger.wait()


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (("--strict",), {}),
        ((), {"PUNCH_STRICT_DISTRIBUTED": "1"}),
        ((), {"PUNCH_DISABLE_SIMULATION": "1"}),
    ],
    ids=["option", "PUNCH_STRICT_DISTRIBUTED", "PUNCH_DISABLE_SIMULATION"],
)
@limit(60)
def test_a_strict_dialer_finds_nobody_among_mocks(
    mocks: Mocks, arguments: tuple[str, ...], environment: dict[str, str]
) -> None:
    """The filter, by each of the three switches: exit code 6, and every peer with its reason."""
    said = mocks.programs.dial("--ask", "hi", *arguments, variables=environment)
    assert (said.code, said.out) == (6, "")
    for listener in mocks.listeners:
        (line,) = [line for line in said.err.splitlines() if listener.peer_id in line]
        assert "simulates (backend mock)" in line


@limit(60)
def test_a_dialer_that_is_not_strict_is_told_that_it_was_simulated(mocks: Mocks) -> None:
    """Without the switch a mock answers, and its provenance says so; 0 switches nothing on."""
    environment = {"PUNCH_STRICT_DISTRIBUTED": "0", "PUNCH_DISABLE_SIMULATION": ""}
    said = mocks.programs.dial("--ask", "hi", "--json", variables=environment).json()
    assert said["provenance"]["kind"] == "simulated"
    assert said["result"]["text"] == " ".join(mock_words(chat_request("hi")))


@limit(60)
async def test_the_executor_refuses_on_its_own(mocks: Mocks) -> None:
    """A strict request that no filter held back is refused by the listener itself."""
    async with open_router(bootstrap=mocks.programs.address, policy=UNFILTERED) as router:
        await router.wait_for_peers(lambda peers: len(peers) == len(mocks.listeners))
        with pytest.raises(NoRealPeer) as caught:
            await router.ask(chat_request("hi", strict=True))
    assert caught.value.reasons.keys() == {each.peer_id for each in mocks.listeners}
    for reason in caught.value.reasons.values():
        assert "backend mock simulates; strict mode takes real inference only" in reason


@limit(60)
async def test_a_dialer_refuses_an_answer_that_is_not_real(mocks: Mocks, forge: Forge) -> None:
    """No filter, and an executor that does not refuse: the dialer still takes no text."""
    liar = await off(forge, "by hand", "llama_cpp", advert="real", answers="mock")
    async with open_router(
        bootstrap=mocks.programs.address, policy=UNFILTERED, strict=True
    ) as router:
        await router.wait_for_peers(lambda peers: len(peers) == 1 + len(mocks.listeners))
        async with router.answer(chat_request("hi")) as answer:
            with pytest.raises(NoRealPeer) as caught:
                await answer.receive()
            assert answer.text == ""
    assert "answers with simulated inference" in caught.value.reasons[liar]


@limit(60)
def test_a_mock_that_claims_to_be_real_is_caught(mocks: Mocks, forge: Forge) -> None:
    """It passes the filter and its own executor; its backend's name gives it away."""
    liar = forge("executor", "mock", advert="real", answers="real")
    said = mocks.programs.dial("--ask", "hi", "--strict")
    assert (said.code, said.out) == (6, "")
    assert f"{liar}: calls the answer of a mock real" in said.err
    for listener in mocks.listeners:
        assert listener.peer_id in said.err


@limit(60)
async def test_an_answer_that_contradicts_the_advert_is_caught(mocks: Mocks, forge: Forge) -> None:
    """Advertised as simulated, answered as real: refused, strict or not."""
    liar = await off(forge, "by hand", "llama_cpp", advert="mock", answers="real")
    for strict in (True, False):
        async with open_router(
            bootstrap=mocks.programs.address, policy=UNFILTERED, strict=strict
        ) as router:
            await router.wait_for_peers(lambda peers: len(peers) == 1 + len(mocks.listeners))
            request = attrs.evolve(chat_request("hi"), model="forged")
            with pytest.raises(NoPeerAvailable) as caught:
                await router.ask(request)
            assert "calls the answer of a mock real" in caught.value.reasons[liar]


@limit(60)
def test_a_liar_that_claims_everything_is_believed(mocks: Mocks, forge: Forge) -> None:
    """What strict mode cannot see, and INFERENCE.md says so: a listener that lies throughout."""
    liar = forge("executor", "llama_cpp", advert="real", answers="real")
    said = mocks.programs.dial("--ask", "hi", "--strict", "--json").json()
    assert said["executor"] == liar
    assert said["provenance"]["kind"] == "real"


@limit(60)
def test_a_strict_listener_with_a_mock_does_not_start(mocks: Mocks) -> None:
    """By option or either variable: exit code 2 and what to choose instead."""
    cases: list[tuple[tuple[str, ...], dict[str, str]]] = [
        (("--strict",), {}),
        ((), {"PUNCH_STRICT_DISTRIBUTED": "true"}),
        ((), {"PUNCH_DISABLE_SIMULATION": "1"}),
    ]
    for arguments, environment in cases:
        said = mocks.programs.run("listener", *arguments, variables=environment)
        assert (said.code, said.out) == (2, "")
        assert "PUNCH_INFERENCE_BACKEND" in said.err


@limit(90)
def test_a_strict_dialer_takes_the_one_that_is_real(mocks: Mocks, model_path: Path) -> None:
    """Among mocks that promise to be faster, the real listener answers; gone, nobody does."""
    real = mocks.programs.listener(
        "--strict", PUNCH_INFERENCE_BACKEND="embedded", LLAMA_GGUF_PATH=str(model_path)
    )
    said = mocks.programs.dial("--ask", "hi", "--strict", "--max-tokens", "4", "--json").json()
    assert said["executor"] == real.peer_id
    assert said["provenance"]["kind"] == "real"
    removed = [each for each in said["decision"]["candidates"] if "removed_by" in each]
    assert {each["removed_by"] for each in removed} == {"strict"}
    real.kill()
    assert mocks.programs.dial("--ask", "hi", "--strict", "--max-tokens", "4").code == 6


def test_every_policy_that_can_be_named_has_the_strict_filter() -> None:
    """No name on the command line leads around the first of the three places."""
    for policy in POLICIES.values():
        assert "strict" in {step.name for step in policy.filters}
