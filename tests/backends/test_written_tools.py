"""Tools for models whose template has none: written into the conversation, found in the answer."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from punch.backends import Emit, Generation
from punch.backends.openai._written_tools import ask_in_writing, has_tools, written_out
from punch.wire import (
    ChatMessage,
    CommandRequest,
    Completion,
    Sampling,
    Timings,
    TokenLogprob,
    Tool,
    ToolCall,
    Usage,
    check_request,
)

NODE = {
    "$defs": {"Node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}},
    "type": "object",
    "properties": {"first": {"$ref": "#/$defs/Node"}},
}
F, G = Tool(name="f", description="does", parameters=json.dumps(NODE)), Tool(name="g")
ASK = CommandRequest(
    request_id="r", messages=(ChatMessage(role="user", content="Hi"),), tools=(F, G)
)
NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}
CALL = ToolCall(id="c1", name="f", arguments='{"a": 1}')


def schema_of(request: CommandRequest) -> Any:
    """The schema that its answer is held to, read."""
    assert request.response_schema is not None
    return json.loads(request.response_schema)


def asked(
    request: CommandRequest, text: str, *, size: int = 3, **ended: Any
) -> tuple[str, Completion]:
    """What is emitted, and the answer, when the model says *text* in pieces of *size*."""
    emitted: list[str] = []
    seen: list[CommandRequest] = []

    async def model(plain: CommandRequest, emit: Emit) -> Generation:
        seen.append(plain)
        for at in range(0, len(text), size):
            await emit(text[at : at + size], 1)
        completion = Completion(text=text, **ended)
        return Generation(completion=completion, usage=Usage(), timings=Timings())

    async def emit(part: str, tokens: int) -> None:
        emitted.append(part)

    generation = trio.run(ask_in_writing, request, emit, model)
    assert not has_tools(seen[0])
    return "".join(emitted), generation.completion


def test_tools_are_described_in_the_system_message() -> None:
    """In the one that is there, or in one of their own."""
    (system, user) = written_out(ASK).messages
    assert system.role == "system"
    assert json.dumps({"name": "g", "description": "", "parameters": {}}) in system.content
    assert '{"name": "...", "arguments": {}}' in system.content
    assert user == ASK.messages[0]
    own = ChatMessage(role="system", content="Be brief.")
    first, _ = written_out(attrs.evolve(ASK, messages=(own, *ASK.messages))).messages
    assert first.content == f"Be brief.\n\n{system.content}"


def test_tools_that_may_not_be_called_are_not_described() -> None:
    """And nothing is looked for in the answer."""
    forbidden = attrs.evolve(ASK, tool_choice="none")
    assert written_out(forbidden).messages == ASK.messages
    text = '<tool_call>{"name": "f"}</tool_call>'
    assert asked(forbidden, text) == (text, Completion(text=text))


def test_calls_and_results_are_written_as_turns_of_the_two() -> None:
    """One after the other, as many templates demand."""
    turns = (
        *ASK.messages,
        ChatMessage(role="assistant", content="Well.", tool_calls=(CALL, CALL)),
        ChatMessage(role="tool", content="1", tool_call_id="c1"),
        ChatMessage(role="tool", content="2", tool_call_id="c1"),
        ChatMessage(role="user", content="And?"),
        ChatMessage(role="assistant", content="", tool_calls=(attrs.evolve(CALL, arguments="x"),)),
        ChatMessage(role="tool", content="3", tool_call_id="c1"),
    )
    plain = written_out(attrs.evolve(ASK, messages=turns, tools=())).messages
    call = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
    assert [(turn.role, turn.content) for turn in plain] == [
        ("user", "Hi"),
        ("assistant", f"Well.\n{call}\n{call}"),
        (
            "user",
            "<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n</tool_response>\nAnd?",
        ),
        ("assistant", '<tool_call>\n{"name": "f", "arguments": "x"}\n</tool_call>'),
        ("user", "<tool_response>\n3\n</tool_response>"),
    ]


def test_a_call_that_must_be_is_held_to_its_schema() -> None:
    """One of the tools, or the one that is named; what its schema refers to moves along."""
    schema = schema_of(written_out(attrs.evolve(ASK, tool_choice="required")))
    assert [part["properties"]["name"] for part in schema["$defs"].values()] == [
        {"const": "f"},
        {"const": "g"},
    ]
    arguments = schema["$defs"]["0"]["properties"]["arguments"]
    assert arguments["properties"]["first"] == {"$ref": "#/$defs/0/properties/arguments/$defs/Node"}
    assert schema["$defs"]["1"]["properties"]["arguments"] == NOTHING
    named = attrs.evolve(ASK, tool_choice="function:g", sampling=Sampling(stop=("}",)))
    plain = written_out(named)
    assert list(schema_of(plain)["$defs"]) == ["0"]
    assert plain.sampling.stop == ()
    check_request(plain)


def test_an_answer_by_the_callers_schema_may_also_be_a_call() -> None:
    """Either of the two, and nothing is emitted before it is certain which."""
    both = attrs.evolve(ASK, response_schema='{"type": "array"}')
    schema = schema_of(written_out(both))
    assert schema["$defs"]["own"] == {"type": "array"}
    assert {"$ref": "#/$defs/own"} in schema["anyOf"]
    assert asked(both, "[1]") == ("[1]", Completion(text="[1]"))
    emitted, completion = asked(both, '{"name": "g", "arguments": {}}')
    assert emitted == completion.text == ""
    assert [call.name for call in completion.tool_calls] == ["g"]


def test_a_demanded_call_is_read_and_no_text_is_left() -> None:
    """Its log-probabilities are of no text either."""
    forced = attrs.evolve(ASK, tool_choice="required", logprobs=0)
    emitted, completion = asked(
        forced,
        '{"name": "f", "arguments": {"a": [1]}}',
        logprobs=(TokenLogprob(token="{", logprob=0.0),),
    )
    assert emitted == completion.text == ""
    (call,) = completion.tool_calls
    assert (call.name, call.arguments) == ("f", '{"a": [1]}')
    assert completion.finish_reason == "tool_calls"
    assert completion.logprobs == ()


def test_a_demanded_call_that_was_cut_is_shown_as_far_as_it_came() -> None:
    """The finish says why."""
    forced = attrs.evolve(ASK, tool_choice="required")
    for text, arguments in (
        ('{"name": "f", ', ""),
        ('{"name": "f', ""),
        ('{ "name" : "f" , "arguments" : ', ""),
        ('{"name": "f", "arguments": {"a": [1, "x', '{"a": [1, "x'),
        ('{"name": "f", "arguments": {"a": 1}', '{"a": 1}'),
        ('{"name": "f", "arguments": "{\\"a\\": 1', '{"a": 1'),
    ):
        emitted, completion = asked(forced, text, finish_reason="length")
        assert emitted == completion.text == ""
        assert [(call.name, call.arguments) for call in completion.tool_calls] == [("f", arguments)]
        assert completion.finish_reason == "length"


@pytest.mark.parametrize("text", ["", "{", '{"na', '{"name": '])
def test_a_demanded_call_that_was_cut_before_its_name_is_of_the_one_tool_it_can_be(
    text: str,
) -> None:
    """Of several, nobody knows which; no JSON is shown either way."""
    for choice, names in (("required", []), ("function:g", ["g"])):
        forced = attrs.evolve(ASK, tool_choice=choice)
        emitted, completion = asked(forced, text, finish_reason="length")
        assert emitted == completion.text == ""
        assert [call.name for call in completion.tool_calls] == names
        assert completion.finish_reason == "length"


@given(size=st.integers(1, 60), cut=st.integers(1, 60))
def test_a_call_that_the_model_chose_to_make_and_was_cut_is_unfinished(size: int, cut: int) -> None:
    """The text before it stays; of the call, no JSON is shown."""
    call = '<tool_call>\n{"name": "f", "arguments": {"a": "b c"}}\n</tool_call>'
    text = f"Let me see.\n{call}"
    cut = min(cut, len(call) - len("}\n</tool_call>"))
    emitted, completion = asked(
        ASK, text[: len("Let me see.\n") + cut], size=size, finish_reason="length"
    )
    assert emitted == completion.text
    assert completion.finish_reason == "length"
    begun = call[:cut]
    if not begun.startswith("<tool_call>"):
        assert completion.text == f"Let me see.\n{begun}"
    else:
        assert completion.text == "Let me see.\n"
        is_named = len(begun) >= len('<tool_call>\n{"name": "f"')
        assert [one.name for one in completion.tool_calls] == ["f"] * is_named
        for one in completion.tool_calls:
            assert '{"a": "b c"}'.startswith(one.arguments)


def test_a_cut_answer_by_the_callers_own_schema_is_text() -> None:
    """Unless it is a call for certain."""
    both = attrs.evolve(ASK, response_schema='{"type": "object"}')
    for text in ("[1", '{"a": 1', '{"na', '{"name": "no tool", "arguments'):
        assert asked(both, text, finish_reason="length") == (
            text,
            Completion(text=text, finish_reason="length"),
        )
    emitted, completion = asked(both, '{"name": "f", "argu', finish_reason="length")
    assert emitted == completion.text == ""
    assert [call.name for call in completion.tool_calls] == ["f"]


@given(size=st.integers(1, 60))
def test_text_before_a_call_is_passed_on_and_the_call_is_not(size: int) -> None:
    """However the pieces fall."""
    text = (
        'Let me see.\n<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>\n'
        '<tool_call>{"name": "g", "arguments": "{}"}'
    )
    emitted, completion = asked(ASK, text, size=size)
    assert emitted == completion.text == "Let me see.\n"
    assert [(call.name, call.arguments) for call in completion.tool_calls] == [
        ("f", '{"a": 1}'),
        ("g", "{}"),
    ]
    assert completion.finish_reason == "tool_calls"


@pytest.mark.parametrize(
    "text",
    [
        "No call at all.",
        "A tag <tool_call> and no call",
        '<tool_call>{"name": "unknown"}</tool_call>',
        "<tool_call>[]</tool_call>",
        "half a tag <tool_",
        "",
    ],
)
@given(size=st.integers(1, 50))
def test_what_is_no_call_is_text(text: str, size: int) -> None:
    """None of it is lost, and it ends as it ended."""
    assert asked(ASK, text, size=size) == (text, Completion(text=text))
