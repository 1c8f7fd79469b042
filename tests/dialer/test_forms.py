"""Tools, schemas and log-probabilities through the router, in memory and in virtual time."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
import trio
from answers import result_of
from trio.testing import MockClock

from punch.backends import Emit, Generation, MockBackend, MockScript
from punch.capability import ModelOffer
from punch.dialer import chat_request
from punch.exceptions import AnswerInterrupted, AnswerUnfit, InvalidRequest, NoPeerAvailable
from punch.testing import ScriptedBackend, Swarm
from punch.wire import (
    CommandRequest,
    Completion,
    Sampling,
    Timings,
    TokenLogprob,
    Tool,
    ToolCall,
    Usage,
)

TOOL = Tool(name="look", description="looks", parameters='{"type": "object"}')
WHOLE = [
    {"tools": (TOOL,), "tool_choice": "none"},
    {"response_schema": '{"type": "object", "required": ["a", "b"]}'},
    {"logprobs": 1},
]


def mock(**script: Any) -> MockBackend:
    return MockBackend(MockScript(**({"decode_rate": 10.0} | script)))


def question(text: str = "tell me", **changes: Any) -> CommandRequest:
    return attrs.evolve(chat_request(text, sampling=Sampling(max_tokens=12)), **changes)


async def test_a_call_of_a_tool_arrives_as_it_was_made(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """With its id and arguments, and without any text."""
    request = question("please look", tools=(TOOL,))
    async with swarm.router() as router:
        await swarm.listener("a", mock())
        response = await router.ask(request)
    (call,) = result_of(response).tool_calls
    assert response.result == Completion(finish_reason="tool_calls", tool_calls=(call,))
    assert (call.name, json.loads(call.arguments)) == ("look", {})
    assert response.usage.completion_tokens == 1


@pytest.mark.parametrize("stream", [True, False])
async def test_log_probabilities_arrive_with_the_end(
    stream: bool, autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Whole, however the text comes."""
    async with swarm.router() as router:
        await swarm.listener("a", mock())
        response = await router.ask(question(logprobs=2, stream=stream))
    result = result_of(response)
    assert len(result.logprobs) == 12
    assert "".join(one.token for one in result.logprobs) == result.text


async def test_the_same_request_again_gets_the_calls_again(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Exactly once holds for them as for the text."""
    request = question("please look", tools=(TOOL,))
    await swarm.listener("a", mock())
    async with swarm.router() as router:
        first = await router.ask(request)
        again = await router.ask(request)
    assert result_of(first).tool_calls
    assert again.result == first.result
    assert swarm.listeners["a"].statistics().served == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"tools": (TOOL,)}, "cannot call tools (tools); it can chat, complete"),
        (
            {"response_schema": "{}"},
            "cannot hold an answer to a JSON schema (json_schema); it can chat, complete",
        ),
        ({"logprobs": 0}, "cannot give log-probabilities (logprobs); it can chat, complete"),
    ],
    ids=["tools", "schema", "logprobs"],
)
async def test_whoever_cannot_is_left_out_and_the_reason_names_it(
    changes: dict[str, Any], reason: str, autojump_clock: MockClock, swarm: Swarm
) -> None:
    """And one who can is asked, though he is slower."""
    await swarm.listener("plain", ScriptedBackend())
    async with swarm.router() as router:
        with pytest.raises(NoPeerAvailable) as caught:
            await router.ask(question(**changes))
    await swarm.listener("able", mock())
    async with swarm.router() as router:
        response = await router.ask(question(**changes))
    assert caught.value.reasons == {"plain": reason}
    assert type(caught.value) is NoPeerAvailable
    assert response.executor == "able"


async def _cut(swarm: Swarm, request: CommandRequest) -> AnswerInterrupted:
    async with swarm.router() as router, router.answer(request) as answer:
        await answer.receive()
        busy = [name for name, one in swarm.listeners.items() if one.statistics().busy]
        swarm.kill(busy[0])
        with pytest.raises(AnswerInterrupted) as caught:
            while await answer.receive() is not None:
                pass
    return caught.value


@pytest.mark.parametrize("changes", WHOLE, ids=["tools", "schema", "logprobs"])
async def test_an_answer_of_one_piece_does_not_go_on_elsewhere(
    changes: Any, autojump_clock: MockClock, swarm: Swarm
) -> None:
    """After its first text; the error says why, and how much there was."""
    for name in "ab":
        await swarm.listener(name, mock())
    error = await _cut(swarm, question(**changes))
    why = (
        "the log-probabilities of what was delivered are lost with it"
        if "logprobs" in changes
        else "an answer with tools, or held to a schema, cannot be gone on with half way"
    )
    assert str(error).endswith(why)
    assert error.tokens >= 1


@pytest.mark.parametrize("changes", WHOLE, ids=["tools", "schema", "logprobs"])
async def test_before_its_first_text_it_fails_over_as_any(
    changes: Any, autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Nothing was delivered, so nothing is lost."""
    for name in "ab":
        await swarm.listener(name, mock(delay=5.0))
    async with swarm.router() as router, router.answer(question(**changes)) as answer:
        with trio.move_on_after(2.0):
            await answer.receive()
        (first,) = (n for n, one in swarm.listeners.items() if one.statistics().busy)
        swarm.kill(first)
        while await answer.receive() is not None:
            pass
    assert answer.response.status == "success"
    assert answer.response.executor != first


def liar(completion: Completion) -> ScriptedBackend:
    """A backend that answers with *completion*, asked for or not."""

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        return Generation(completion=completion, usage=Usage(), timings=Timings())

    every = frozenset({"chat", "tools", "json_schema", "logprobs"})
    return ScriptedBackend(play, offers=(ModelOffer(name="scripted", features=every),))


@pytest.mark.parametrize(
    ("completion", "why"),
    [
        (
            Completion(tool_calls=(ToolCall(id="c", name="look", arguments="{}"),)),
            "calls tools, and was given none",
        ),
        (
            Completion(logprobs=(TokenLogprob(token="a", logprob=0.0),)),
            "sends log-probabilities that nobody asked for",
        ),
    ],
    ids=["tools", "logprobs"],
)
async def test_what_nobody_asked_for_is_the_peers_fault(
    completion: Any, why: str, autojump_clock: MockClock, swarm: Swarm
) -> None:
    """A caller without tools could do nothing with a call."""
    async with swarm.router() as router:
        await swarm.listener("a", liar(completion))
        with pytest.raises(NoPeerAvailable) as caught:
            await router.ask(question())
    assert caught.value.reasons == {"a": why}


async def test_a_listener_refuses_what_its_model_lacks(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Whoever did not look at the offer is told, and may ask another."""
    offer = ModelOffer(name="mock", features=frozenset({"chat"}))
    backend = mock()
    async with swarm.router() as router:
        await swarm.listener("a", backend)
        await router.ask(question())
        backend.offers = (offer,)
        with pytest.raises(NoPeerAvailable) as caught:
            await router.ask(question(logprobs=1))
    assert caught.value.reasons == {"a": "mock cannot logprobs here"}


async def test_vectors_that_do_not_fit_one_frame_say_so(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """It is the caller who can ask for fewer at a time."""

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        vectors = ((0.5,) * 2000,) * len(request.inputs)
        return Generation(
            completion=Completion(embeddings=vectors), usage=Usage(), timings=Timings()
        )

    offer = ModelOffer(name="vectors", features=frozenset({"embed"}))
    inputs = tuple(map(str, range(600)))
    async with swarm.router() as router:
        await swarm.listener("a", ScriptedBackend(play, offers=(offer,)))
        few = CommandRequest(request_id="few", command="embed", inputs=inputs[:300])
        many = CommandRequest(request_id="many", command="embed", inputs=inputs)
        response = await router.ask(few)
        with pytest.raises(InvalidRequest, match="cannot travel"):
            await router.ask(many)
    assert len(result_of(response).embeddings) == 300


async def test_a_listener_is_asked_for_the_very_offer_that_was_chosen(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """It has a name of its own, and is no part of what the caller asked for."""
    asked = []

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        asked.append(request.offer)
        return Generation(completion=Completion(text="x"), usage=Usage(), timings=Timings())

    async with swarm.router() as router:
        executor = await swarm.listener("a", ScriptedBackend(play))
        await router.ask(question())
        offers = [offer.id for offer in executor.capability().models]
    assert asked == offers
    assert None not in offers


PERSON = json.dumps(
    {
        "type": "object",
        "properties": {"age": {"type": "integer", "multipleOf": 7}},
        "required": ["age"],
    }
)
FITS, BREAKS = Completion(text='{"age": 21}'), Completion(text='{"age": 19}')
RULE = "its answer does not fit response_schema: $.age breaks the rule multipleOf"


def saying(completion: Completion) -> ScriptedBackend:
    """A backend that answers with *completion*, in pieces."""

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        for piece in completion.text:
            await emit(piece, 1)
        return Generation(completion=completion, usage=Usage(), timings=Timings())

    every = frozenset({"chat", "tools", "json_schema", "logprobs"})
    return ScriptedBackend(play, offers=(ModelOffer(name="scripted", features=every),))


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_that_breaks_a_rule_of_its_schema_is_no_success(
    stream: bool, autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Whoever asked is told which rule, and where; the peer is not held to be broken."""
    async with swarm.router() as router:
        await swarm.listener("a", saying(BREAKS))
        for _ in range(10):
            with pytest.raises(AnswerUnfit) as caught:
                await router.ask(question(response_schema=PERSON, stream=stream))
            assert caught.value.message == RULE
        assert (await router.ask(question())).status == "success"


async def test_another_peer_may_do_better_as_long_as_nothing_was_delivered(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """One calls outside the parameters, the other within them: every call fits."""
    request = question(tools=(attrs.evolve(TOOL, parameters=PERSON),), tool_choice="required")
    bad, good = (
        Completion(
            finish_reason="tool_calls",
            tool_calls=(ToolCall(id="c", name="look", arguments=arguments),),
        )
        for arguments in (BREAKS.text, FITS.text)
    )
    async with swarm.router() as router:
        await swarm.listener("a", saying(bad))
        await swarm.listener("b", saying(good))
        await router.wait_for_peers(lambda found: len(found) == 2)
        for number in range(10):
            response = await router.ask(attrs.evolve(request, request_id=str(number)))
            assert response.result == good
            assert response.executor == "b"


@pytest.mark.parametrize(
    ("completion", "sampling"),
    [
        (Completion(text='{"age": 1', finish_reason="length"), Sampling(max_tokens=12)),
        (Completion(text='{"age'), Sampling(stop=('": ',))),
    ],
    ids=["length", "stop"],
)
async def test_what_was_cut_off_as_was_asked_is_delivered(
    completion: Completion, sampling: Sampling, autojump_clock: MockClock, swarm: Swarm
) -> None:
    """It fits nothing, and says so by its finish reason, or was wanted so."""
    request = question(response_schema=PERSON, sampling=sampling)
    async with swarm.router() as router:
        await swarm.listener("a", saying(completion))
        assert result_of(await router.ask(request)) == completion


@pytest.mark.parametrize("choice", ["required", "function:look", "auto", None])
async def test_a_call_that_was_demanded_is_held_to_its_parameters(
    choice: str | None, autojump_clock: MockClock, swarm: Swarm
) -> None:
    """One that the model made of its own will is the caller's to judge."""
    call = ToolCall(id="c", name="look", arguments='{"age": 19}')
    completion = Completion(finish_reason="tool_calls", tool_calls=(call,))
    tool = attrs.evolve(TOOL, parameters=PERSON)
    request = question(tools=(tool,), tool_choice=choice)
    async with swarm.router() as router:
        await swarm.listener("a", saying(completion))
        if choice in ("auto", None):
            assert result_of(await router.ask(request)).tool_calls == (call,)
            return
        with pytest.raises(AnswerUnfit) as caught:
            await router.ask(request)
    assert caught.value.message == (
        "the arguments of its call of look do not fit: $.age breaks the rule multipleOf"
    )
