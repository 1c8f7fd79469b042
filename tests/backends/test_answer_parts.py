"""Calls of tools and log-probabilities, as servers stream them."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punch.backends.openai._answer import AnswerReader
from punch.backends.openai._completions import build
from punch.exceptions import GenerationFailed, InvalidRequest, PunchError
from punch.wire import (
    MAX_LOGPROBS,
    MAX_TOOL_CALLS,
    ChatMessage,
    CommandRequest,
    CommandResponse,
    Completion,
    Response,
    Sampling,
    TokenLogprob,
    Tool,
    ToolCall,
    decode,
    encode,
)

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}
TOOL = Tool(name="f", description="does", parameters=json.dumps(SCHEMA))
ASK = CommandRequest(request_id="r", messages=(ChatMessage(role="user", content="Hi"),))


def asked(**changes: Any) -> dict[str, Any]:
    """The body for a request with these changes, for llama-server unless told otherwise."""
    dialect = changes.pop("dialect", "llama_cpp")
    fields = {"request_id": "r", "messages": ASK.messages} | changes
    return build(CommandRequest(**fields), model=None, dialect=dialect)[1]


def delta(*calls: Any, content: str | None = None, finish: str | None = None) -> str:
    """One event of a stream that brings pieces of calls."""
    said: dict[str, Any] = {"tool_calls": list(calls)} if calls else {}
    if content is not None:
        said["content"] = content
    return json.dumps({"choices": [{"delta": said, "finish_reason": finish}]})


def piece(index: int | None, arguments: str = "", **more: Any) -> dict[str, Any]:
    """A piece of a call."""
    function = {"arguments": arguments} | ({"name": more["name"]} if "name" in more else {})
    found = {"function": function} | ({} if index is None else {"index": index})
    return found | ({"id": more["id"]} if "id" in more else {})


def answer(*events: str, logprobs: int | None = None) -> Completion:
    """What a stream of *events* is in the end."""
    reader = AnswerReader(logprobs)
    for event in events:
        reader.feed(event)
    return reader.finish(first_token=None, last_token=None).completion


# ---- calls, as servers write them ----


def called(*events: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Id, name and arguments of the calls in *events*, each a list of pieces."""
    calls = answer(*(delta(*pieces) for pieces in events), delta(finish="tool_calls")).tool_calls
    return [(call.id, call.name, call.arguments) for call in calls]


def one(name: str = "", arguments: Any = None, **more: Any) -> dict[str, Any]:
    """A piece of a call with only what is given."""
    function = ({"name": name} if name else {}) | (
        {} if arguments is None else {"arguments": arguments}
    )
    return {"function": function} | more


def test_a_call_may_come_whole_without_number_and_with_arguments_that_are_a_value() -> None:
    """In one delta, or two calls side by side."""
    pair = [one("f", {"a": 1}, id="x"), one("g", {"b": [2]}, id="y")]
    assert called(pair) == [("x", "f", '{"a": 1}'), ("y", "g", '{"b": [2]}')]
    assert called(pair[:1], pair[1:]) == called(pair)


def test_calls_that_all_have_one_number_are_told_apart() -> None:
    """By their ids and names."""
    pair = [one("f", '{"a": 1}', id="x", index=0), one("f", '{"a": 2}', id="y", index=0)]
    for events in ([pair], [pair[:1], pair[1:]]):
        assert called(*events) == [("x", "f", '{"a": 1}'), ("y", "f", '{"a": 2}')]


def test_a_name_with_every_piece_is_the_same_call() -> None:
    """With or without a number; also with an id that is made up for each."""
    for more in ({"index": 0}, {"index": "0"}, {}):
        pieces = [one("f", part, **more) for part in ("", '{"a"', ": 1}", "")]
        assert [(n, a) for _, n, a in called(*([piece] for piece in pieces))] == [("f", '{"a": 1}')]
    pieces = [one("f", part, id=f"id{i}") for i, part in enumerate(('{"a"', ": 1", "}"))]
    assert called(*([piece] for piece in pieces)) == [("id0", "f", '{"a": 1}')]


def test_pieces_without_number_and_id_belong_to_the_last_call() -> None:
    """Until another one begins."""
    events = [
        [one("f", id="x")],
        [one(arguments='{"a"')],
        [one(arguments=": 1}")],
        [one("g", id="y")],
        [one(arguments="{}")],
    ]
    assert called(*events) == [("x", "f", '{"a": 1}'), ("y", "g", "{}")]
    nameless = [one("f", "{}"), one("f", "{}"), one("g", "{}")]
    assert [name for _, name, _ in called(nameless)] == ["f", "f", "g"]
    assert [n for _, n, _ in called(*([each] for each in nameless))] == ["f", "f", "g"]


def test_the_older_form_of_a_call_is_read() -> None:
    """``function_call``, of which there is one."""
    pieces = [{"name": "f", "arguments": '{"a"'}, {"arguments": ": 1}"}]
    events = [json.dumps({"choices": [{"delta": {"function_call": piece}}]}) for piece in pieces]
    (call,) = answer(*events, delta(finish="function_call")).tool_calls
    assert (call.name, call.arguments) == ("f", '{"a": 1}')


def test_calls_are_in_the_order_of_their_numbers() -> None:
    """Whichever comes first."""
    events = [[one("g", "{}", id="y", index=1)], [one("f", "{}", id="x", index=0)]]
    assert [name for _, name, _ in called(*events)] == ["f", "g"]


def test_a_call_that_the_limit_cut_off_is_unfinished() -> None:
    """With what is there of its arguments; without a name there is no call."""
    cut = answer(delta(one("f", '{"a": "x', id="c", index=0)), delta(finish="length"))
    assert cut.finish_reason == "length"
    assert [(call.name, call.arguments) for call in cut.tool_calls] == [("f", '{"a": "x')]
    cut = answer(delta(one("f", id="c", index=0)), delta(finish="length"))
    assert [(call.name, call.arguments) for call in cut.tool_calls] == [("f", "")]
    cut = answer(delta(one("f", "{}"), {"id": "d"}), delta(finish="length"))
    assert [call.name for call in cut.tool_calls] == ["f"]


VALUES = st.dictionaries(
    st.sampled_from("ab"), st.integers() | st.text('x"{}\\ \U0001f600', max_size=4), max_size=2
)


@st.composite
def written_calls(
    draw: st.DrawFn,
) -> tuple[list[tuple[str, Any]], list[list[dict[str, Any]]]]:
    """Some calls, and the events in which a server of some kind sends them."""
    calls = draw(st.lists(st.tuples(st.sampled_from("fg"), VALUES), min_size=1, max_size=3))
    kind = draw(st.sampled_from(["numbered", "repeating", "unnumbered", "whole", "values"]))
    events: list[list[dict[str, Any]]] = []
    for number, (name, value) in enumerate(calls):
        text = json.dumps(value)
        cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=3)))
        parts = [text[a:b] for a, b in pairwise([0, *cuts, len(text)])]
        has_number: dict[str, Any] = {} if kind == "unnumbered" else {"index": number}
        if kind in ("whole", "values"):
            events.append([one(name, value if kind == "values" else text, id=f"c{number}")])
            continue
        events.append([one(name, parts[0], id=f"c{number}", **has_number)])
        again = name if kind == "repeating" else ""
        events += [[one(again, part, **has_number)] for part in parts[1:]]
    if draw(st.booleans()):
        events = [[piece for event in events for piece in event]]
    return calls, events


@given(written_calls())
def test_calls_are_read_as_meant_however_they_are_written(
    written: tuple[list[tuple[str, Any]], list[list[dict[str, Any]]]],
) -> None:
    """In pieces or whole, numbered or not, each by itself or all in one event."""
    calls, events = written
    found = [(name, json.loads(arguments)) for _, name, arguments in called(*events)]
    assert found == calls


def test_arguments_with_halves_of_characters_are_joined() -> None:
    """They come in two deltas, as text does."""
    found = called([one("f", '{"a": "\ud83d', index=0)], [one(arguments='\ude00"}', index=0)])
    assert found[0][2] == '{"a": "\U0001f600"}'


# ---- what is asked ----


def test_tools_are_asked_for_in_openais_form() -> None:
    """With the schema as a value, and without a description that there is not."""
    body = asked(tools=(TOOL, Tool(name="g")), tool_choice="function:g")
    assert body["tools"] == [
        {
            "type": "function",
            "function": {"name": "f", "description": "does", "parameters": SCHEMA},
        },
        {"type": "function", "function": {"name": "g", "parameters": NOTHING}},
    ]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "g"}}
    assert asked(tools=(TOOL,), tool_choice="required")["tool_choice"] == "required"
    assert "tool_choice" not in asked(tools=(TOOL,))


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"type": "object"},
        {"type": "object", "properties": {}},
        {"type": "object", "properties": {}, "required": [], "additionalProperties": False},
        {"$schema": "http://json-schema.org/schema", "title": "F", "description": "no arguments"},
    ],
)
def test_a_tool_that_names_no_parameters_has_none(said: dict[str, Any]) -> None:
    """By JSON Schema it would take anything, and a model would make things up."""
    tool = Tool(name="f", parameters=json.dumps(said))
    (body,) = asked(tools=(tool,), tool_choice="required")["tools"]
    assert body["function"]["parameters"] == NOTHING


@pytest.mark.parametrize(
    "said",
    [
        SCHEMA,
        {"type": "object", "additionalProperties": True},
        {"additionalProperties": {"type": "string"}},
        {"type": "object", "patternProperties": {"^x": {}}},
        {"$ref": "#/$defs/a", "$defs": {"a": SCHEMA}},
        {"anyOf": [SCHEMA, {"type": "object"}]},
        {"required": ["a"]},
    ],
)
def test_a_tool_that_takes_something_keeps_its_schema(said: dict[str, Any]) -> None:
    """Also where it names no property."""
    tool = Tool(name="f", parameters=json.dumps(said))
    assert asked(tools=(tool,))["tools"][0]["function"]["parameters"] == said


def test_calls_and_results_are_part_of_the_conversation() -> None:
    """Each in its own words."""
    call = ToolCall(id="c1", name="f", arguments='{"a": 1}')
    body = asked(
        messages=(
            ChatMessage(role="user", content="Hi", name="ann"),
            ChatMessage(role="assistant", content="", tool_calls=(call,)),
            ChatMessage(role="tool", content="2", tool_call_id="c1"),
        )
    )
    assert body["messages"] == [
        {"role": "user", "content": "Hi", "name": "ann"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "f", "arguments": '{"a": 1}'},
                }
            ],
        },
        {"role": "tool", "content": "2", "tool_call_id": "c1"},
    ]


def test_a_turn_that_ends_with_a_call_is_not_gone_on_with() -> None:
    """It is over, though it is the assistant's."""
    call = ToolCall(id="c1", name="f", arguments="{}")
    turn = ChatMessage(role="assistant", content="", tool_calls=(call,))
    assert "continue_final_message" not in asked(messages=(*ASK.messages, turn))


@pytest.mark.parametrize("dialect", ["llama_cpp", "vllm", "other"])
def test_a_schema_is_asked_for_strictly(dialect: str) -> None:
    """Whoever cannot hold to it shall say so; any object has a form of its own."""
    assert asked(dialect=dialect, response_schema=json.dumps(SCHEMA))["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
    }
    assert asked(dialect=dialect, response_schema="{}")["response_format"] == {
        "type": "json_object"
    }


def test_a_plain_completion_is_held_to_a_schema_in_the_servers_own_words() -> None:
    """llama-server ignores OpenAI's there."""
    plain = {"command": "complete", "prompt": "p", "response_schema": json.dumps(SCHEMA)}
    body = asked(**plain)
    assert body["json_schema"] == SCHEMA
    assert "response_format" not in body
    assert asked(**plain | {"response_schema": "{}"})["json_schema"] == {"type": "object"}
    assert "response_format" in asked(dialect="vllm", **plain)


@pytest.mark.parametrize(("dialect", "least"), [("llama_cpp", 1), ("vllm", 0)])
def test_log_probabilities_are_asked_for_even_without_alternatives(
    dialect: str, least: int
) -> None:
    """llama-server gives none at all if it is to name none."""
    chat = asked(dialect=dialect, logprobs=0)
    assert (chat["logprobs"], chat["top_logprobs"]) == (True, least)
    assert asked(dialect=dialect, logprobs=5)["top_logprobs"] == 5
    plain = asked(dialect=dialect, logprobs=0, command="complete", prompt="p")
    assert plain["logprobs"] == least
    assert "top_logprobs" not in plain


def test_every_dialect_knows_openais_penalties() -> None:
    """By the same names."""
    body = asked(dialect="other", sampling=Sampling(presence_penalty=1, frequency_penalty=-1))
    assert (body["presence_penalty"], body["frequency_penalty"]) == (1, -1)


# ---- calls ----


def test_pieces_of_calls_are_put_together() -> None:
    """Text may come before them, and two may come at the same time."""
    reader = AnswerReader()
    out = [
        reader.feed(event)
        for event in (
            delta(content="Let me see."),
            delta(piece(0, id="c1", name="f")),
            delta(piece(0, '{"a"'), piece(1, "{", id="c2", name="g")),
            delta(piece(1, "}"), piece(0, ": 1}")),
            delta(finish="tool_calls"),
        )
    ]
    assert out == [("Let me see.", 1), ("", 1), ("", 1), ("", 1), ("", 0)]
    completion = reader.finish(first_token=None, last_token=None).completion
    assert completion == Completion(
        text="Let me see.",
        finish_reason="tool_calls",
        tool_calls=(
            ToolCall(id="c1", name="f", arguments='{"a": 1}'),
            ToolCall(id="c2", name="g", arguments="{}"),
        ),
    )


def test_a_piece_of_a_call_counts_as_many_tokens_as_the_server_says() -> None:
    """They are not counted again with the text."""
    reader = AnswerReader()
    event = json.loads(delta(piece(0, "{", name="f"))) | {"timings": {"predicted_n": 7}}
    assert reader.feed(json.dumps(event)) == ("", 7)


def test_a_call_that_comes_whole_and_without_an_id_gets_one() -> None:
    """Its result must be able to name it, and no two are the same."""
    calls = answer(
        delta(piece(None, "{}", name="f"), piece(None, "", name="g")), delta(finish="stop")
    ).tool_calls
    assert [(call.name, call.arguments) for call in calls] == [("f", "{}"), ("g", "{}")]
    assert all(call.id.startswith("call_") for call in calls)
    assert calls[0].id != calls[1].id


def test_a_name_that_is_repeated_with_every_piece_is_one_name() -> None:
    """Some servers do."""
    event = delta(piece(0, "1", id="c", name="f"))
    (call,) = answer(event, event, delta(finish="stop")).tool_calls
    assert call == ToolCall(id="c", name="f", arguments="11")


@pytest.mark.parametrize(
    ("said", "reason"), [("stop", "tool_calls"), ("tool_calls", "tool_calls"), ("length", "length")]
)
def test_an_answer_with_calls_ends_for_them_unless_it_was_cut(said: str, reason: str) -> None:
    """For a call that was forced, servers say "stop"."""
    assert answer(delta(piece(0, "{", name="f")), delta(finish=said)).finish_reason == reason


@pytest.mark.parametrize("name", [None, "", "a\nb", "x" * 257])
def test_a_call_that_no_peer_would_accept_fails_the_answer(name: str | None) -> None:
    """It would end the session with everybody's answers."""
    call = piece(0) if name is None else piece(0, name=name)
    with pytest.raises(GenerationFailed, match="calls a tool named"):
        answer(delta(call), delta(finish="stop"))


def test_calls_are_bounded() -> None:
    """In number and in length."""
    reader = AnswerReader()
    with pytest.raises(GenerationFailed, match="more than 128 tools"):
        reader.feed(delta(*[piece(i, name="f") for i in range(MAX_TOOL_CALLS + 1)]))
    reader = AnswerReader()
    with pytest.raises(GenerationFailed, match="longer than 524288"):
        for _ in range(9):
            reader.feed(delta(piece(0, "x" * 65536, name="f")))


# ---- log-probabilities ----


def chunk(text: str, logprobs: Any) -> str:
    """An event with *text* and *logprobs*."""
    return json.dumps({"choices": [{"delta": {"content": text}, "logprobs": logprobs}]})


def test_log_probabilities_are_gathered_in_the_form_of_chats() -> None:
    """With as many alternatives as were asked for, which may be fewer than came."""
    row = {
        "token": "a",
        "logprob": -0.5,
        "top_logprobs": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -3.4e38}],
    }
    events = [chunk("a", {"content": [row]}), chunk("a", {"content": [row]}), delta(finish="stop")]
    both = TokenLogprob(token="a", logprob=-0.5, top=(("a", -0.5), ("b", -1e4)))
    assert answer(*events, logprobs=2).logprobs == (both, both)
    bare = TokenLogprob(token="a", logprob=-0.5)
    assert answer(*events, logprobs=0).logprobs == (bare, bare)
    assert answer(*events).logprobs == ()


def test_log_probabilities_are_gathered_in_the_older_form() -> None:
    """Lists side by side, as vLLM gives them for plain completions."""
    event = {
        "choices": [
            {
                "text": "ab",
                "finish_reason": "stop",
                "logprobs": {
                    "tokens": ["a", "b"],
                    "token_logprobs": [-1.0, None],
                    "top_logprobs": [{"x": -2.0, "a": -1.0}],
                },
            }
        ]
    }
    assert answer(json.dumps(event), logprobs=5).logprobs == (
        TokenLogprob(token="a", logprob=-1.0, top=(("a", -1.0), ("x", -2.0))),
        TokenLogprob(token="b", logprob=-1e4),
    )


def test_log_probabilities_are_bounded() -> None:
    """More would not fit one frame; the caller is told what to ask for."""
    rows = [{"token": "a", "logprob": 0}] * 1000
    reader = AnswerReader(0)
    with pytest.raises(InvalidRequest, match="set max_tokens"):
        for _ in range(MAX_LOGPROBS // 1000 + 1):
            reader.feed(chunk("a", {"content": rows}))
    reader = AnswerReader(20)
    wide = {"token": "x" * 2000, "logprob": 0}
    with pytest.raises(InvalidRequest, match="ask for fewer"):
        for _ in range(4):
            reader.feed(chunk("a", {"content": [wide | {"top_logprobs": [wide] * 20}] * 50}))


NAMES = [
    "choices", "delta", "text", "tool_calls", "function", "name", "arguments", "index", "id",
    "logprobs", "content", "token", "logprob", "top_logprobs", "tokens", "token_logprobs",
    "finish_reason",
]  # fmt: skip


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)
        ),
        max_leaves=15,
    )
)
def test_whatever_a_server_sends_the_answer_can_travel(value: Any) -> None:
    """Or it is an error of ours."""
    reader = AnswerReader(2)
    choice = {"finish_reason": "stop", "delta": value, "logprobs": value}
    try:
        reader.feed(json.dumps({"choices": [choice]}))
        reader.feed(json.dumps({"choices": [{"delta": {"tool_calls": [value, value]}}]}))
        reader.feed(json.dumps({"choices": [{"logprobs": {"content": [value, value]}}]}))
        completion = reader.finish(first_token=None, last_token=None).completion
    except PunchError:
        return
    response = CommandResponse(
        request_id="r",
        status="success",
        result=Completion(tool_calls=completion.tool_calls, logprobs=completion.logprobs),
    )
    assert decode(encode(Response(response=response))[4:]) == Response(response=response)
