"""What a mock makes up besides words."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
import trio

from punch.backends import Generation, MockBackend, MockScript, mock_words
from punch.backends.mock._forms import instance
from punch.wire import ChatMessage, CommandRequest, Completion, Sampling, Tool

WEATHER = Tool(
    name="get_weather",
    parameters=(
        '{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}'
    ),
)
ADD = Tool(name="add")
ASK = CommandRequest(
    request_id="r",
    messages=(ChatMessage(role="user", content="please get_weather for me"),),
    tools=(ADD, WEATHER),
)
QUIET = attrs.evolve(ASK, messages=(ChatMessage(role="user", content="hello"),))


def answer(request: CommandRequest, **script: Any) -> tuple[Generation, str, int]:
    """What a mock makes of *request*, the text it emitted, and the tokens."""
    texts: list[str] = []
    counts: list[int] = []

    async def emit(text: str, tokens: int) -> None:
        texts.append(text)
        counts.append(tokens)

    generation = trio.run(MockBackend(MockScript(**script)).generate, request, emit)
    return generation, "".join(texts), sum(counts)


def called(request: CommandRequest) -> list[str]:
    """The tools that a mock calls for *request*."""
    return [call.name for call in answer(request)[0].completion.tool_calls]


def test_a_mock_offers_all_there_is() -> None:
    """Whoever tries a gateway out needs no model for it."""
    (offer,) = MockBackend(MockScript()).offers
    forms = {"tools", "json_schema", "logprobs"}
    assert offer.features == {"chat", "complete", "embed", "count"} | forms


@pytest.mark.parametrize(
    ("request_", "names"),
    [
        (ASK, ["get_weather"]),
        (attrs.evolve(ASK, tool_choice="auto"), ["get_weather"]),
        (attrs.evolve(ASK, tool_choice="none"), []),
        (attrs.evolve(ASK, tool_choice="function:add"), ["add"]),
        (QUIET, []),
        (attrs.evolve(QUIET, tool_choice="required"), ["add"]),
        (attrs.evolve(ASK, tools=()), []),
    ],
    ids=["named", "auto", "none", "by name", "not named", "required", "no tools"],
)
def test_a_mock_calls_a_tool_that_it_must_or_that_the_user_names(
    request_: CommandRequest, names: list[str]
) -> None:
    """So that a test can have it either way."""
    assert called(request_) == names


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_mocks_call_is_cut_off_by_the_limit(limit: int) -> None:
    """It is unfinished, as that of a real backend."""
    schema = {"type": "object", "required": ["a", "b"]}
    tool = Tool(name="f", parameters=json.dumps(schema))
    ask = attrs.evolve(ASK, tools=(tool,), tool_choice="required")
    whole, _, _ = answer(ask)
    cut, text, tokens = answer(attrs.evolve(ask, sampling=Sampling(max_tokens=limit)))
    (call,) = cut.completion.tool_calls
    assert whole.completion.tool_calls[0].arguments.startswith(call.arguments)
    assert len(call.arguments.split()) == limit == cut.usage.completion_tokens
    assert cut.completion.finish_reason == "length"
    assert (text, tokens) == ("", limit)


def test_a_mock_that_has_a_result_answers_with_words() -> None:
    """Or whoever runs its tools would run them for ever."""
    (call,) = answer(ASK)[0].completion.tool_calls
    turns = (
        *ASK.messages,
        ChatMessage(role="assistant", content="", tool_calls=(call,)),
        ChatMessage(role="tool", content="12 degrees", tool_call_id=call.id),
    )
    request = attrs.evolve(ASK, messages=turns)
    assert called(request) == []
    generation, emitted, _ = answer(request)
    assert generation.completion.text == emitted == " ".join(mock_words(request))


def test_two_mocks_make_the_same_call() -> None:
    """With its id, and with arguments that fit; it has tokens and no text."""
    first, emitted, tokens = answer(ASK)
    assert answer(ASK, decode_rate=1000.0)[0].completion == first.completion
    (call,) = first.completion.tool_calls
    assert json.loads(call.arguments) == {"city": "text"}
    assert emitted == first.completion.text == ""
    assert tokens == first.usage.completion_tokens == 2
    assert first.completion.finish_reason == "tool_calls"


SCHEMAS: list[tuple[Any, Any]] = [
    ({}, {}),
    ({"type": "object", "properties": {"a": {}, "b": {}}, "required": ["b"]}, {"b": {}}),
    ({"type": "string"}, "text"),
    ({"type": "string", "minLength": 6}, "textte"),
    ({"type": "string", "maxLength": 2}, "te"),
    ({"type": "integer"}, 0),
    ({"type": "integer", "minimum": 1.5}, 2),
    ({"type": "integer", "maximum": -3}, -3),
    ({"type": "integer", "exclusiveMinimum": 0}, 1),
    ({"type": "number", "exclusiveMaximum": 0}, -1),
    ({"type": "boolean"}, True),
    ({"type": "null"}, None),
    ({"type": ["null", "string"]}, "text"),
    ({"type": "array", "items": {"type": "integer"}}, []),
    ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [0, 0]),
    ({"enum": ["b", "a"]}, "b"),
    ({"const": 7}, 7),
    ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, 0),
    ({"$ref": "#/$defs/X", "$defs": {"X": {"const": 1}}}, 1),
    ({"$ref": "#/nowhere"}, None),
]


@pytest.mark.parametrize(("schema", "value"), SCHEMAS, ids=lambda value: json.dumps(value)[:30])
def test_the_least_instance_of_a_schema(schema: Any, value: Any) -> None:
    """Its required parts, by their types."""
    assert json.loads(instance(json.dumps(schema))) == value


def test_a_schema_without_end_has_an_instance_with_one() -> None:
    """However deep or many it demands, it is no bomb."""
    deep: dict[str, Any] = {
        "$ref": "#/$defs/X",
        "$defs": {"X": {"type": "array", "minItems": 99, "items": {}}},
    }
    deep["$defs"]["X"]["items"] = {"$ref": "#/$defs/X"}
    assert len(instance(json.dumps(deep))) < 100_000
    loop = {"$ref": "#"}
    assert json.loads(instance(json.dumps(loop))) is None
    long = {"type": "string", "minLength": 10**12}
    assert len(instance(json.dumps(long))) < 10_000


def test_an_answer_to_a_schema_streams_and_is_bounded_as_any() -> None:
    """Sign by sign, to the longest that was asked for."""
    held = attrs.evolve(QUIET, tools=(), response_schema=WEATHER.parameters)
    generation, emitted, tokens = answer(held)
    assert json.loads(emitted) == {"city": "text"}
    assert generation.completion == Completion(text=emitted, finish_reason="stop")
    assert tokens == generation.usage.completion_tokens
    cut = answer(attrs.evolve(held, sampling=Sampling(max_tokens=3)))[0]
    assert cut.completion == Completion(text='{"city', finish_reason="length")
    assert cut.usage.completion_tokens == 3


@pytest.mark.parametrize("alternatives", [0, 3])
def test_every_word_has_a_made_up_probability(alternatives: int) -> None:
    """The same each time."""
    asked = attrs.evolve(QUIET, tools=(), logprobs=alternatives, sampling=Sampling(max_tokens=5))
    completion = answer(asked)[0].completion
    assert answer(asked)[0].completion == completion
    assert "".join(one.token for one in completion.logprobs) == completion.text
    assert len(completion.logprobs) == 5
    for one in completion.logprobs:
        assert one.logprob <= 0
        assert len(one.top) == alternatives
        assert list(one.top) == sorted(one.top, key=lambda pair: -pair[1])
        if alternatives:
            assert one.top[0] == (one.token, one.logprob)
