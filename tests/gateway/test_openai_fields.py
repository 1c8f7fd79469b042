"""What OpenAI's clients, and those of servers like it, say of a chat: each field, by one rule."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
from gateway_client import Client, Reply, open_client
from trio.testing import MockClock

from punch.backends import Emit, Generation, MockBackend, MockScript
from punch.capability import ModelOffer
from punch.testing import ScriptedBackend
from punch.wire import ChatMessage, CommandRequest, Completion, Sampling, Timings, ToolCall, Usage

CHAT = "/v1/chat/completions"
FEATURES = frozenset({"chat", "complete", "embed", "tools", "json_schema", "logprobs"})
USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
OTHER = {"type": "function", "function": {"name": "hear"}}
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}


def backend(asked: list[CommandRequest], text: str = "{}") -> ScriptedBackend:
    async def play(request: CommandRequest, emit: Emit) -> Generation:
        asked.append(request)
        calls: tuple[ToolCall, ...] = ()
        if request.tools and request.tool_choice not in (None, "auto", "none"):
            calls = (ToolCall(id="c1", name=request.tools[0].name, arguments="{}"),)
        elif text:
            await emit(text, 1)
        return Generation(
            completion=Completion(text="" if calls else text, tool_calls=calls),
            usage=Usage(prompt_tokens=7, completion_tokens=1),
            timings=Timings(),
        )

    return ScriptedBackend(
        play, offers=(ModelOffer(name="model", digest="ab" * 32, features=FEATURES),)
    )


async def ask(path: str = CHAT, **fields: Any) -> tuple[Reply, list[CommandRequest]]:
    """The reply to a chat with these *fields*, and what was asked of the backend."""
    asked: list[CommandRequest] = []
    async with open_client({"a": backend(asked)}) as client:
        usual = {"messages": [USER]} if path == CHAT else {}
        reply = await client.post(path, usual | fields)
    return reply, asked


async def taken(path: str = CHAT, **fields: Any) -> CommandRequest:
    """What was asked of the backend by a request that is taken."""
    reply, asked = await ask(path, **fields)
    assert reply.status == 200, reply.body
    return asked[0]


# ---- what asks for nothing ----

EVERY_FIELD = """
    audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens
    max_tokens metadata modalities moderation n parallel_tool_calls prediction presence_penalty
    prompt_cache_key prompt_cache_options prompt_cache_retention reasoning_effort response_format
    safety_identifier seed service_tier stop store stream_options temperature tool_choice tools
    top_logprobs top_p user verbosity web_search_options stream model reasoning thinking
    extra_body something_new
"""


async def test_null_is_taken_for_every_field_that_openai_has(autojump_clock: MockClock) -> None:
    """And for one that nobody knows."""
    fields: dict[str, Any] = dict.fromkeys(EVERY_FIELD.split())
    request = await taken(**fields)

    assert request == attrs_like(await taken(), request)


def attrs_like(request: CommandRequest, other: CommandRequest) -> CommandRequest:
    """*request* with the id of *other*."""
    return attrs.evolve(request, request_id=other.request_id)


NOTHING: list[dict[str, Any]] = [
    {"tools": []},
    {"tools": [], "tool_choice": "auto", "parallel_tool_calls": False},
    {"tool_choice": "none"},
    {"tool_choice": "auto"},
    {"tool_choice": {"type": "auto"}},
    {"tools": [], "tool_choice": {}},
    {"functions": [], "function_call": "none"},
    {"functions": [], "function_call": {}},
    {"stop": []},
    {"stop": ""},
    {"stop": [""]},
    {"logit_bias": {}},
    {"response_format": {"type": "text"}},
    {"response_format": {}},
    {"stream_options": {"include_usage": True}},
    {"stream_options": {}},
    {"logprobs": False, "top_logprobs": 0},
    {"seed": -1},
    {"max_tokens": -1},
    {"max_completion_tokens": -1.0},
    {"n_predict": -1},
    {"n": 1.0, "best_of": 1},
    {"modalities": ["text"]},
    {"verbosity": "medium"},
    {"store": True, "metadata": {"a": "b"}},
    {"service_tier": "flex"},
    {"prediction": {"type": "content", "content": "x"}},
    {"stream": False},
    {"model": ""},
    {"keep_alive": "5m", "cache_prompt": True, "id_slot": -1, "n_keep": 0},
    {"typical_p": 1.0, "mirostat": 0, "dry_multiplier": 0.0, "ignore_eos": False, "samplers": []},
    {"length_penalty": 1.0, "use_beam_search": False, "min_tokens": 0, "skip_special_tokens": True},
    {"echo": False, "add_generation_prompt": True, "continue_final_message": False},
    {"grammar": "", "json_schema": {}, "guided_json": None, "guided_choice": []},
    {"provider": {"order": ["x"]}, "usage": {"include": True}},
]


@pytest.mark.parametrize("fields", NOTHING, ids=str)
async def test_what_asks_for_nothing_changes_nothing(
    fields: dict[str, Any], autojump_clock: MockClock
) -> None:
    """The backend is asked what it is asked without it."""
    request = await taken(**fields)
    assert request == attrs_like(await taken(), request)


# ---- what is honoured ----

HONOURED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"max_tokens": 42.0}, {"max_tokens": 42}),
    ({"max_tokens": 9, "max_completion_tokens": 9}, {"max_tokens": 9}),
    ({"max_tokens": 9, "n_predict": 5, "max_completion_tokens": -1}, {"max_tokens": 5}),
    ({"repetition_penalty": 1.5}, {"repeat_penalty": 1.5}),
    ({"repetition_penalty": 1.5, "repeat_penalty": 1.5}, {"repeat_penalty": 1.5}),
    ({"top_k": -1, "min_p": 0.25, "top_p": 0.5}, {"top_k": 0, "min_p": 0.25, "top_p": 0.5}),
    ({"seed": 42.0}, {"seed": 42}),
    ({"seed": -2}, {"seed": (1 << 63) - 2}),
    ({"stop": ["a", "", "b"]}, {"stop": ("a", "b")}),
    ({"stop": list("abcdefghijklmnop")}, {"stop": tuple("abcdefghijklmnop")}),
    (
        {"frequency_penalty": 1, "presence_penalty": 0},
        {"frequency_penalty": 1.0, "presence_penalty": 0.0},
    ),
]


@pytest.mark.parametrize(("fields", "sampling"), HONOURED, ids=str)
async def test_numbers_are_read_as_their_programs_mean_them(
    fields: dict[str, Any], sampling: dict[str, Any], autojump_clock: MockClock
) -> None:
    """Under all of their names."""
    request = await taken(**fields)
    assert request.sampling == Sampling(**sampling)


SCHEMA = {"type": "object"}


@pytest.mark.parametrize(
    ("fields", "schema"),
    [
        ({"response_format": {"type": "json_object"}}, {}),
        ({"response_format": {"type": "json_object", "schema": SCHEMA}}, SCHEMA),
        ({"response_format": {"type": "json_schema", "schema": SCHEMA}}, SCHEMA),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}}, SCHEMA),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": SCHEMA, "strict": True, "more": 1},
                }
            },
            SCHEMA,
        ),
        ({"json_schema": SCHEMA}, SCHEMA),
        ({"guided_json": SCHEMA}, SCHEMA),
        ({"structured_outputs": {"json": SCHEMA}}, SCHEMA),
    ],
    ids=str,
)
async def test_a_schema_is_found_wherever_programs_put_it(
    fields: dict[str, Any], schema: Any, autojump_clock: MockClock
) -> None:
    """With a name or without."""
    request = await taken(**fields)
    assert request.response_schema is not None
    assert json.loads(request.response_schema) == schema


@pytest.mark.parametrize(
    ("fields", "names", "choice"),
    [
        ({"tools": [TOOL]}, ["look"], None),
        ({"tools": [TOOL | {"cache_control": {"type": "ephemeral"}}]}, ["look"], None),
        ({"tools": [{"function": {"name": "look", "strict": None}}]}, ["look"], None),
        ({"tools": [TOOL], "tool_choice": "any"}, ["look"], "required"),
        ({"tools": [TOOL], "tool_choice": {"type": "required"}}, ["look"], "required"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "name": "look"}},
            ["look"],
            "function:look",
        ),
        (
            {
                "tools": [TOOL, OTHER],
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {
                        "mode": "required",
                        "tools": [{"type": "function", "function": {"name": "hear"}}],
                    },
                },
            },
            ["hear"],
            "required",
        ),
        ({"functions": [TOOL["function"]], "function_call": "auto"}, ["look"], "auto"),
        (
            {"functions": [TOOL["function"]], "function_call": {"name": "look"}},
            ["look"],
            "function:look",
        ),
    ],
    ids=str,
)
async def test_tools_are_read_under_their_old_name_and_in_every_spelling(
    fields: dict[str, Any], names: list[str], choice: str | None, autojump_clock: MockClock
) -> None:
    """And so is the choice among them."""
    request = await taken(**fields)
    assert [tool.name for tool in request.tools] == names
    assert request.tool_choice == choice


async def test_calls_side_by_side_are_forbidden_where_there_are_tools(
    autojump_clock: MockClock,
) -> None:
    """LangChain, LlamaIndex and others send it by default."""
    assert (await taken(tools=[TOOL], parallel_tool_calls=False)).parallel_tool_calls is False
    assert (await taken(tools=[TOOL], parallel_tool_calls=True)).parallel_tool_calls is True
    assert (await taken(parallel_tool_calls=False)).parallel_tool_calls is None


# ---- what is refused ----


async def test_all_that_cannot_be_honoured_is_said_in_one_error(autojump_clock: MockClock) -> None:
    """Each by name, with what to do."""
    reply, asked = await ask(
        logit_bias={"5": 1},
        web_search_options={},
        tools=[TOOL, {"type": "web_search"}, {"type": "image_generation", "quality": "low"}],
        foo=1,
        mirostat=2,
    )
    lines = reply.error["message"].splitlines()

    assert (reply.status, asked) == (400, [])
    assert [line.split()[0] for line in lines] == [
        "logit_bias",
        "web_search_options",
        "foo",
        "mirostat",
        "tools[1].type",
        "tools[2].type",
    ]
    assert 'turn the tool "web_search" off' in reply.error["message"]
    assert (reply.error["param"], reply.error["code"]) == ("logit_bias", "unsupported_parameter")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"audio": {"voice": "x"}, "modalities": ["text", "audio"]}, "audio"),
        ({"verbosity": "low"}, "verbosity"),
        ({"best_of": 2}, "best_of"),
        ({"grammar": "root ::= 'a'"}, "grammar"),
        ({"guided_regex": "a+"}, "guided_regex"),
        ({"structured_outputs": {"regex": "a+"}}, "structured_outputs.regex"),
        ({"n_probs": 5}, "n_probs"),
        ({"logprobs": False, "top_logprobs": 2}, None),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
        ({"tools": [None]}, "tools[0]"),
        ({"tools": [TOOL], "tool_choice": {"type": "function"}}, "tool_choice"),
        (
            {"messages": [USER, {"role": "assistant", "content": "x", "prefix": True}]},
            "messages[1].prefix",
        ),
        ({"messages": [USER, {"role": "assistant", "audio": {"id": "a"}}]}, "messages[1].audio"),
        ({"messages": [{"role": "user", "content": "x", "images": ["x"]}]}, "messages[0].images"),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
            "messages[0].content[0].type",
        ),
        (
            {"messages": [{"role": "user", "content": [{"text": "x"}]}]},
            "messages[0].content[0].type",
        ),
        ({"messages": [{"role": "assistant", "content": ""}]}, "messages"),
    ],
    ids=str,
)
async def test_what_changes_the_answer_is_refused_by_name(
    fields: dict[str, Any], param: str | None, autojump_clock: MockClock
) -> None:
    """Nothing is dropped in silence."""
    reply, asked = await ask(**fields)
    assert (reply.status, asked) == (400, []), reply.body
    assert reply.error["param"] == param


@pytest.mark.parametrize("tokens", [[1, 2], [[1, 2], [3]]])
@pytest.mark.parametrize(
    ("path", "field"), [("/v1/completions", "prompt"), ("/v1/embeddings", "input")]
)
async def test_numbers_of_tokens_are_refused_with_the_reason(
    path: str, field: str, tokens: Any, autojump_clock: MockClock
) -> None:
    """A peer's tokenizer may be another."""
    reply, _ = await ask(path, **{field: tokens})
    assert (reply.status, reply.error["param"]) == (400, field)
    assert "tokenizers of their own" in reply.error["message"]


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (
            "/v1/completions",
            {"prompt": "x", "echo": False, "best_of": 1, "suffix": "", "logprobs": False},
        ),
        (
            "/v1/completions",
            {"prompt": "x", "suffix": None, "store": False, "max_tokens": -1, "seed": -1},
        ),
        ("/v1/completions", {"prompt": "x", "stream_options": None, "repetition_penalty": 1.1}),
    ],
)
async def test_completions_take_what_asks_for_nothing(
    path: str, fields: dict[str, Any], autojump_clock: MockClock
) -> None:
    """By the same rule."""
    assert (await taken(path, **fields)).prompt == "x"


# ---- what was sent comes back ----

ECHOES: list[tuple[dict[str, Any], ChatMessage]] = [
    (
        # LiteLLM, model_dump of OpenAI's client, `.parse()`.
        {
            "role": "assistant",
            "content": "yes",
            "provider_specific_fields": {"refusal": None},
            "refusal": None,
            "annotations": [],
            "audio": None,
            "function_call": None,
            "tool_calls": None,
            "parsed": {"a": [1]},
            "reasoning_details": [{"type": "x"}],
            "thinking_blocks": None,
        },
        ChatMessage(role="assistant", content="yes"),
    ),
    (
        # `.stream()` of OpenAI's client, and what people gather from deltas.
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "index": 0,
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "look", "arguments": "{}", "parsed_arguments": {}},
                }
            ],
        },
        ChatMessage(
            role="assistant",
            content="",
            tool_calls=(ToolCall(id="c1", name="look", arguments="{}"),),
        ),
    ),
    (
        # Arguments as they were read, or none at all.
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "c1", "function": {"name": "look", "arguments": {"a": 1}}},
                {"id": "c2", "function": {"name": "look", "arguments": ""}},
            ],
        },
        ChatMessage(
            role="assistant",
            content="",
            tool_calls=(
                ToolCall(id="c1", name="look", arguments='{"a": 1}'),
                ToolCall(id="c2", name="look", arguments="{}"),
            ),
        ),
    ),
    (
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}], "id": "m1"},
        ChatMessage(role="assistant", content="no"),
    ),
    (
        {"role": "assistant", "content": None, "refusal": "no"},
        ChatMessage(role="assistant", content="no"),
    ),
    (
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}},
                {"type": "output_text", "text": "b", "annotations": [], "logprobs": []},
            ],
        },
        ChatMessage(role="assistant", content="ab"),
    ),
    (
        {"role": "assistant", "content": "x", "reasoning_content": "hm"},
        ChatMessage(role="assistant", content="x", reasoning="hm"),
    ),
]


@pytest.mark.parametrize(("echo", "read_as"), ECHOES, ids=range(len(ECHOES)))
async def test_an_answer_comes_back_in_the_shape_of_any_library(
    echo: dict[str, Any], read_as: ChatMessage, autojump_clock: MockClock
) -> None:
    """What it has beside our own fields changes nothing."""
    answers = [
        {"role": "tool", "tool_call_id": call["id"], "content": "done", "name": "look"}
        for call in echo.get("tool_calls") or ()
    ]
    request = await taken(messages=[USER, echo, *answers, USER], tools=[TOOL])
    assert request.messages[1] == read_as


async def test_what_a_library_adds_to_an_answer_is_named_in_a_header(
    autojump_clock: MockClock,
) -> None:
    """Once for all messages."""
    echo = {"role": "assistant", "content": "x", "provider_specific_fields": {"a": 1}}
    reply, _ = await ask(messages=[USER, echo, USER, echo, USER])
    assert reply.headers["x-punch-taken"] == "messages[].provider_specific_fields"


@pytest.mark.parametrize("content", ["", None, [], [{"type": "text", "text": ""}]])
async def test_an_empty_message_of_the_assistants_is_as_good_as_none(
    content: Any, autojump_clock: MockClock
) -> None:
    """Agents send one where they want the answer; its head would be in the prompt."""
    empty = {"role": "assistant", "content": content}
    request = await taken(messages=[USER, empty, USER, empty, empty])
    assert [message.role for message in request.messages] == ["user", "user"]


async def test_functions_of_the_old_kind_are_calls_and_outputs(autojump_clock: MockClock) -> None:
    """With an id, which they did not have."""
    request = await taken(
        functions=[TOOL["function"]],
        messages=[
            USER,
            {"role": "assistant", "function_call": {"name": "look", "arguments": "{}"}},
            {"role": "function", "name": "look", "content": "done"},
        ],
    )
    _, called, returned = request.messages
    assert [call.name for call in called.tool_calls] == ["look"]
    assert (returned.role, returned.content) == ("tool", "done")
    assert returned.tool_call_id == called.tool_calls[0].id


# ---- streams and paths ----


async def chunks(client: Client, **fields: Any) -> list[Any]:
    reply = await client.chat(stream=True, **fields)
    assert reply.status == 200
    return [event for event in reply.events() if event != "[DONE]"]


async def test_the_last_event_of_a_stream_has_the_usage_unasked(autojump_clock: MockClock) -> None:
    """Programs that do not ask for it count on it all the same; asked for, it stands alone."""
    async with open_client({"a": MockBackend(MockScript())}) as client:
        unasked = await chunks(client, max_tokens=3)
        alone = await chunks(client, max_tokens=3, stream_options={"include_usage": True})
        without = await chunks(client, max_tokens=3, stream_options={"include_usage": False})
        several = await chunks(client, max_tokens=3, n=2)

    last = unasked[-1]
    assert last["choices"][0]["finish_reason"] == "length"
    assert last["usage"]["completion_tokens"] == 3
    assert all("usage" not in chunk for chunk in unasked[:-1])
    assert (alone[-1]["choices"], alone[-1]["usage"]) == ([], last["usage"])
    assert all(chunk["usage"] is None for chunk in alone[:-1])
    assert all("usage" not in chunk for chunk in [*without, *several])


@pytest.mark.parametrize("prefix", ["", "/v1", "/v1/v1"])
async def test_paths_are_served_with_and_without_v1(prefix: str, autojump_clock: MockClock) -> None:
    """Programs disagree on whether it is a part of the address."""
    async with open_client({"a": MockBackend(MockScript())}) as client:
        chat = await client.post(f"{prefix}/chat/completions", {"messages": [USER]})
        replies = [
            await client.post(f"{prefix}/completions", {"prompt": "x", "max_tokens": 1}),
            await client.post(f"{prefix}/responses", {"input": "x"}),
            await client.post(f"{prefix}/embeddings", {"input": "x"}),
            await client.get(f"{prefix}/models"),
            await client.get(f"{prefix}/models/mock"),
        ]
        nothing = await client.get(f"{prefix}/chat/nothing")
    assert chat.json()["object"] == "chat.completion"
    assert [reply.status for reply in replies] == [200] * 5
    assert nothing.status == 404
