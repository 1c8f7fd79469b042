"""Requests that nobody could answer are refused before anybody is asked."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import command_requests, digests, maybe, names, samplings

from punch.exceptions import InvalidRequest
from punch.wire import (
    MAX_FRAME_BYTES,
    ChatMessage,
    CommandRequest,
    ContentPart,
    Request,
    Sampling,
    Tool,
    ToolCall,
    check_request,
    decode,
    encode,
)
from punch.wire._limits import MAX_TEXT_BYTES as MAX_TEXT

HI = (ChatMessage(role="user", content="hi"),)
GOOD = CommandRequest(request_id="r1", messages=HI)


def request(**changes: Any) -> CommandRequest:
    """A good request, changed."""
    return attrs.evolve(GOOD, **changes)


def sampled(**changes: Any) -> CommandRequest:
    """A good request with this sampling."""
    return request(sampling=Sampling(**changes))


TOOL = Tool(name="f", description="does", parameters='{"type": "object"}')
CALL = ToolCall(id="c1", name="f", arguments="{}")


def turns(*messages: ChatMessage) -> CommandRequest:
    """A good request with these messages after the first."""
    return request(messages=(*HI, *messages))


def called(**changes: Any) -> CommandRequest:
    """A conversation in which a tool was called, and the call has these changes."""
    call = attrs.evolve(CALL, **changes)
    return turns(ChatMessage(role="assistant", content="", tool_calls=(call,)))


def refusal(wrong: CommandRequest) -> str:
    """What `check_request` says against a request."""
    with pytest.raises(InvalidRequest) as caught:
        check_request(wrong)
    return str(caught.value)


@pytest.mark.parametrize(
    "good",
    [
        GOOD,
        request(request_id="r" * 128),
        request(model="m" * 256, model_digest="a" * 64),
        request(command="complete", prompt="x", messages=()),
        request(command="embed", inputs=("x", ""), messages=()),
        request(command="capabilities", messages=()),
        request(command="ping", messages=()),
        request(timeout=0.001),
        request(timeout=1e9),
        request(priority=-100),
        request(priority=100),
        request(messages=(ChatMessage(role="assistant", content=""),)),
        request(messages=(ChatMessage(role="user", content="x" * MAX_TEXT),)),
        sampled(max_tokens=1, temperature=0, top_p=0, top_k=0, min_p=0, repeat_penalty=0, seed=0),
        sampled(
            max_tokens=1 << 40,
            temperature=100,
            top_p=1,
            top_k=1 << 31,
            min_p=1,
            repeat_penalty=100,
            seed=(1 << 64) - 1,
        ),
        sampled(stop=("x" * 1024,) * 16),
        sampled(presence_penalty=-2, frequency_penalty=2.0),
        request(tools=(TOOL,)),
        request(tools=(TOOL,), tool_choice="auto"),
        request(tools=(TOOL,), tool_choice="none"),
        request(tools=(TOOL,), tool_choice="required", response_schema="{}"),
        request(tools=(TOOL,), tool_choice="function:f"),
        request(tools=tuple(Tool(name=f"f_{i}-Z") for i in range(128))),
        request(response_schema='{"type": "object", "properties": {"ä": {"type": "string"}}}'),
        request(response_schema='{"a":' * 63 + "{}" + "}" * 63),
        request(command="complete", prompt="x", messages=(), response_schema="{}", logprobs=20),
        request(logprobs=0, sampling=Sampling(max_tokens=8192)),
        turns(
            ChatMessage(role="assistant", content="", tool_calls=(CALL,) * 128),
            ChatMessage(role="tool", content="", tool_call_id="c1", name="f"),
        ),
        request(parallel_tool_calls=False, reasoning_effort="none", reasoning_budget=0),
        request(parallel_tool_calls=True, reasoning_effort="e" * 32, reasoning_budget=1 << 40),
        called(arguments="no JSON, as models write it"),
        called(arguments=""),
        called(arguments='{"half": "\\ud800"}'),
    ],
    ids=lambda request: request.request_id[:4] + " " + request.command,
)
def test_what_a_peer_can_answer_passes(good: CommandRequest) -> None:
    """The limits themselves are allowed, and whoever passes gets through to the peer."""
    check_request(good)
    assert decode(encode(Request(request=good))[4:]) == Request(request=good)


IDENTIFIER = "it must be 1 to 128 printable ASCII characters without spaces"


WRONG: list[tuple[CommandRequest, str]] = [
    (request(request_id=""), f"request_id is ''; {IDENTIFIER}"),
    (request(request_id="a b"), f"request_id is 'a b'; {IDENTIFIER}"),
    (request(request_id="a\n"), f"request_id is 'a\\n'; {IDENTIFIER}"),
    (request(request_id="ä"), f"request_id is 'ä'; {IDENTIFIER}"),
    (request(request_id="r" * 129), f"request_id is '{'r' * 129}'; {IDENTIFIER}"),
    (request(messages=()), "messages is empty; chat needs at least one message"),
    (request(command="complete"), "prompt is empty; complete needs text to go on from"),
    (
        request(command="complete", prompt=""),
        "prompt is empty; complete needs text to go on from",
    ),
    (request(command="embed"), "inputs is empty; embed needs at least one text"),
    (request(model=""), "model has 0 characters; 1 to 256 are allowed"),
    (request(model="m" * 257), "model has 257 characters; 1 to 256 are allowed"),
    (request(timeout=0.0), "timeout is 0.0 s; it must be above 0"),
    (request(timeout=-1.0), "timeout is -1.0 s; it must be above 0"),
    (request(timeout=math.nan), "timeout is nan s; it must be above 0"),
    (request(priority=101), "priority is 101; it must be from -100 to 100"),
    (request(stream_interval=1.5), "stream_interval is 1.5; it must be from 0 to 1"),
    (request(stream_interval=-0.1), "stream_interval is -0.1; it must be from 0 to 1"),
    (request(priority=-101), "priority is -101; it must be from -100 to 100"),
    (
        request(messages=(*HI, ChatMessage(role="chef", content="x"))),
        "messages[1].role is 'chef'; it must be one of system, user, assistant, tool",
    ),
    (
        request(messages=(*HI, ChatMessage(role="user", content="ab\ud800"))),
        "messages[1].content holds a lone surrogate at character 2; "
        "decode the text with errors='replace' before sending it",
    ),
    (
        request(prompt="\udfff"),
        "prompt holds a lone surrogate at character 0; "
        "decode the text with errors='replace' before sending it",
    ),
    (
        request(inputs=("a", "\udfff")),
        "inputs[1] holds a lone surrogate at character 0; "
        "decode the text with errors='replace' before sending it",
    ),
    (
        request(continuation="\udfff"),
        "continuation holds a lone surrogate at character 0; "
        "decode the text with errors='replace' before sending it",
    ),
    (
        request(prompt="ü" * (MAX_TEXT // 2)),
        f"the text has {MAX_TEXT + 2} bytes; at most {MAX_TEXT} fit one request: shorten it",
    ),
    (
        turns(ChatMessage(role="tool", content="x")),
        "messages[1].tool_call_id is missing; a tool's message says which call it answers",
    ),
    (
        turns(ChatMessage(role="user", content="x", tool_call_id="c1")),
        "messages[1].tool_call_id is set; only a message of role tool answers a call",
    ),
    (
        turns(ChatMessage(role="tool", content="x", tool_call_id="")),
        "messages[1].tool_call_id is ''; it must be 1 to 256 printable characters",
    ),
    (
        turns(ChatMessage(role="user", content="x", tool_calls=(CALL,))),
        "messages[1].tool_calls is set; only the assistant calls tools",
    ),
    (
        turns(ChatMessage(role="user", content="x", name="a\nb")),
        "messages[1].name is 'a\\nb'; it must be 1 to 256 printable characters",
    ),
    (
        turns(ChatMessage(role="assistant", content="", tool_calls=(CALL,) * 129)),
        "messages[1].tool_calls has 129 entries; at most 128 are allowed",
    ),
    (
        turns(*[ChatMessage(role="assistant", content="", tool_calls=(CALL,) * 100)] * 41),
        "messages has more than 4096 tool calls in all",
    ),
    (
        called(id="\x1b"),
        "messages[1].tool_calls[0].id is '\\x1b'; it must be 1 to 256 printable characters",
    ),
    (
        called(name=""),
        "messages[1].tool_calls[0].name is ''; it must be 1 to 256 printable characters",
    ),
    (
        called(arguments="[" * 100_000 + "]" * 100_000),
        "messages[1].tool_calls[0].arguments is nested deeper than 64 levels",
    ),
    (
        called(arguments="[" * 65 + "]" * 65),
        "messages[1].tool_calls[0].arguments is nested deeper than 64 levels",
    ),
    (
        called(arguments=" " * (512 * 1024 + 1)),
        "messages[1].tool_calls[0].arguments has 524289 characters; at most 524288 are allowed",
    ),
    (
        called(arguments='"\ud800"'),
        "messages[1].tool_calls[0].arguments holds a lone surrogate at character 1; "
        "decode the text with errors='replace' before sending it",
    ),
    (
        request(command="complete", prompt="x", tools=(TOOL,)),
        "tools is set; complete has none, only chat does",
    ),
    (
        request(tools=tuple(Tool(name=f"f{i}") for i in range(129))),
        "tools has 129 entries; at most 128 are allowed",
    ),
    (
        request(tools=(Tool(name="f g"),)),
        "tools[0].name is 'f g'; it must be 1 to 64 letters, digits, underscores and dashes",
    ),
    (request(tools=(TOOL, TOOL)), "tools[1].name is 'f', as that of another tool"),
    (
        request(tools=(Tool(name="f", parameters="{"),)),
        "tools[0].parameters is not JSON: Expecting property name",
    ),
    (
        request(tools=(Tool(name="f", parameters=""),)),
        "tools[0].parameters has 0 characters; 1 to 262144 are allowed",
    ),
    (
        request(tools=(TOOL, Tool(name="g", description="\ud800"))),
        "tools[1].description holds a lone surrogate at character 0; "
        "decode the text with errors='replace' before sending it",
    ),
    (
        request(tool_choice="auto"),
        "tool_choice is set and tools is empty; there is nothing to choose",
    ),
    (
        request(tools=(TOOL, Tool(name="e")), tool_choice="function:g"),
        "tool_choice names 'g', which is none of the tools: e, f",
    ),
    (
        request(tools=(TOOL,), tool_choice="any"),
        "tool_choice is 'any'; it must be one of auto, none, required, or function:NAME",
    ),
    (
        request(response_schema="[]"),
        "response_schema is no JSON object; a JSON Schema is one",
    ),
    (
        request(response_schema="nonsense"),
        "response_schema is not JSON: Expecting value: line 1 column 1 (char 0)",
    ),
    (
        request(response_schema='{"default": NaN}'),
        "response_schema is not JSON: NaN is no JSON",
    ),
    (
        request(response_schema='{"a":' * 64 + "[0]" + "}" * 64),
        "response_schema is nested deeper than 64 levels",
    ),
    (
        request(response_schema='{"a":' * 20_000 + "0" + "}" * 20_000),
        "response_schema is nested deeper than 64 levels",
    ),
    (
        request(response_schema='{"\\ud800": 0}'),
        "response_schema is not JSON: 'utf-8' codec can't encode character '\\ud800'",
    ),
    (
        request(response_schema=" " * 262145),
        "response_schema has 262145 characters; 1 to 262144 are allowed",
    ),
    (
        request(command="embed", inputs=("x",), response_schema="{}"),
        "response_schema is set; embed gives no text to fit",
    ),
    (request(logprobs=21), "logprobs is 21; it must be from 0 to 20"),
    (request(logprobs=-1), "logprobs is -1; it must be from 0 to 20"),
    (request(logprobs=True), "logprobs is True; it must be a whole number"),
    (
        request(command="embed", inputs=("x",), logprobs=1),
        "logprobs is set; embed makes no tokens",
    ),
    (
        request(logprobs=0, sampling=Sampling(max_tokens=8193)),
        "max_tokens is 8193; with logprobs, at most 8192 are allowed",
    ),
    (
        request(tools=(TOOL,), continuation="so far"),
        "continuation is set; an answer with tools, held to a schema, with logprobs or to ",
    ),
    (sampled(presence_penalty=2.1), "presence_penalty is 2.1; it must be from -2 to 2"),
    (sampled(frequency_penalty=-3), "frequency_penalty is -3; it must be from -2 to 2"),
    (sampled(max_tokens=0), "max_tokens is 0; it must be from 1 to 1099511627776"),
    (sampled(temperature=-0.1), "temperature is -0.1; it must be from 0 to 100"),
    (sampled(temperature=math.nan), "temperature is nan; it must be from 0 to 100"),
    (sampled(top_p=1.1), "top_p is 1.1; it must be from 0 to 1"),
    (sampled(top_k=-1), "top_k is -1; it must be from 0 to 2147483648"),
    (sampled(min_p=math.inf), "min_p is inf; it must be from 0 to 1"),
    (sampled(repeat_penalty=101), "repeat_penalty is 101; it must be from 0 to 100"),
    (sampled(seed=-1), "seed is -1; it must be from 0 to 18446744073709551615"),
    (sampled(stop=("x",) * 17), "stop has 17 entries; at most 16 are allowed"),
    (
        sampled(stop=("x", "")),
        "stop has an entry of 0 characters; 1 to 1024 are allowed",
    ),
    (
        sampled(stop=("x" * 1025,)),
        "stop has an entry of 1025 characters; 1 to 1024 are allowed",
    ),
]


def _in_short(value: object) -> str:
    return value[:40] if isinstance(value, str) else ""


@pytest.mark.parametrize(("wrong", "text"), WRONG, ids=_in_short)
def test_the_refusal_names_the_value_and_the_rule(wrong: CommandRequest, text: str) -> None:
    """Whoever sent it can mend it without reading this code."""
    assert refusal(wrong)[: len(text)] == text


@pytest.mark.parametrize(("wrong", "text"), WRONG, ids=_in_short)
def test_the_refusal_carries_the_field_beside_its_words(wrong: CommandRequest, text: str) -> None:
    """No program has to read the sentence."""
    with pytest.raises(InvalidRequest) as caught:
        check_request(wrong)
    field = text.partition(" ")[0]
    assert caught.value.param == (None if field == "the" else field)


def test_a_timeout_beyond_the_limit_is_told_the_limit() -> None:
    """A rule that the value keeps is no help."""
    assert refusal(request(timeout=2e9)) != "timeout is 2000000000.0 s; it must be above 0"


@pytest.mark.parametrize(
    "wrong",
    [
        request(model_digest="abc"),
        request(model_digest="A" * 64),
        request(command="sing"),
        request(messages=HI * 4097),
        request(command="embed", inputs=("x",) * 2049),
        request(model="m\ud800"),
        sampled(stop=("\ud800",)),
        sampled(max_tokens=1.5),
        sampled(seed=1.0),
        request(priority=0.5),
    ],
    ids=[
        "digest",
        "digest's case",
        "command",
        "messages",
        "inputs",
        "model's text",
        "stop's text",
        "half a token",
        "seed",
        "priority",
    ],
)
def test_what_the_peer_must_refuse_is_refused_here(wrong: CommandRequest) -> None:
    """Sent as it is, it would cost us the session with one peer after the other."""
    assert refusal(wrong)


def test_the_largest_request_that_passes_fits_one_frame() -> None:
    """Everything at its limit at once: an error of the protocol is not for the caller to see."""
    largest = CommandRequest(
        request_id="r" * 128,
        model="😀" * 256,
        model_digest="a" * 64,
        messages=(ChatMessage(role="assistant", content=""),) * 4096,
        prompt="x" * (MAX_TEXT - 1),
        inputs=("",) * 2048,
        continuation="y",
        sampling=Sampling(stop=("😀" * 1024,) * 16, seed=(1 << 64) - 1),
    )
    check_request(largest)
    assert len(encode(Request(request=largest))) <= MAX_FRAME_BYTES
    assert refusal(attrs.evolve(largest, continuation="yy"))


def test_the_most_tools_and_calls_that_pass_fit_one_frame() -> None:
    """Their keys and containers count as well as their texts."""
    call = ToolCall(id="i" * 8, name="n" * 64, arguments="{}")
    turn = ChatMessage(role="assistant", content="", name="n" * 16, tool_calls=(call,))
    result = ChatMessage(role="tool", content="", name="n" * 16, tool_call_id="i" * 8)
    crowded = CommandRequest(
        request_id="r" * 128,
        messages=(turn, result) * 2048,
        tools=tuple(Tool(name=f"{i:064}", parameters="{}") for i in range(128)),
        tool_choice="required",
        response_schema="{}",
        logprobs=20,
        sampling=Sampling(stop=("😀" * 1024,) * 16),
    )
    left = MAX_TEXT
    for _ in range(20):  # As much text as passes, by bisection.
        left, crowded = left // 2, _with_text(crowded, left // 2)
    check_request(crowded)
    assert decode(encode(Request(request=crowded))[4:]) == Request(request=crowded)


def _with_text(request: CommandRequest, more: int) -> CommandRequest:
    """*request* with so much more prompt, if it still passes."""
    longer = attrs.evolve(request, prompt=(request.prompt or "") + "x" * more)
    try:
        check_request(longer)
    except InvalidRequest:
        return request
    return longer


def test_what_a_request_needs_of_a_model_has_names() -> None:
    """Those that an offer lists."""
    full = request(tools=(TOOL,), response_schema="{}", logprobs=0)
    assert full.needs == {"tools", "json_schema", "logprobs"}
    assert GOOD.needs == frozenset()


def test_nothing_said_is_left_of_a_request_without_its_prompt() -> None:
    """What is kept for the same id to be known is no copy of a conversation."""
    full = request(
        tools=(TOOL,), tool_choice="required", response_schema="{}", prompt="p", inputs=("i",)
    )
    bare = full.without_prompt()
    assert bare == CommandRequest(request_id="r1")


@pytest.mark.parametrize(
    "change",
    [
        {"tools": (TOOL,)},
        {"response_schema": "{}"},
        {"logprobs": 0},
        {"messages": (attrs.evolve(HI[0], name="ann"),)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_an_answer_is_to_be_like_is_part_of_the_question(change: dict[str, Any]) -> None:
    """The same id with another form is another request."""
    assert request(**change).fingerprint != GOOD.fingerprint


@given(
    request=st.builds(
        CommandRequest,
        request_id=st.text(max_size=5),
        command=st.sampled_from(["chat", "complete", "embed", "capabilities", "ping"]),
        model=maybe(names),
        model_digest=maybe(digests),
        messages=st.lists(
            st.builds(
                ChatMessage,
                role=st.sampled_from(["user", "system", "tool", "assistant"]),
                content=st.text(),
                name=maybe(st.text(max_size=3)),
                tool_calls=st.lists(
                    st.builds(ToolCall, id=names, name=st.text(max_size=2), arguments=st.text()),
                    max_size=2,
                ).map(tuple),
                tool_call_id=maybe(names),
            ),
            max_size=2,
        ).map(tuple),
        tools=st.lists(
            st.builds(
                Tool,
                name=st.sampled_from(["f", "g", "f g", ""]),
                description=maybe(st.text()),
                parameters=st.sampled_from(["{}", '{"type": "string"}', "", "[]"]),
            ),
            max_size=2,
        ).map(tuple),
        tool_choice=maybe(st.sampled_from(["auto", "function:f", "function:", "x"])),
        response_schema=maybe(st.sampled_from(["{}", "", "0", '"']) | st.text()),
        logprobs=maybe(st.integers(-1, 21)),
        prompt=maybe(st.text(st.characters())),
        inputs=st.lists(st.text(st.characters()), max_size=2).map(tuple),
        sampling=samplings
        | st.builds(
            Sampling,
            max_tokens=st.integers(-1, 2),
            temperature=maybe(st.floats()),
            top_p=maybe(st.floats(-1, 2)),
            stop=st.lists(st.text(max_size=2), max_size=18).map(tuple),
        ),
        timeout=maybe(st.floats()),
        priority=st.integers(-200, 200),
        continuation=maybe(st.text()),
    )
)
def test_a_request_that_passes_arrives_as_it_was_asked(request: CommandRequest) -> None:
    """Either the caller is told what is wrong, or the peer can read it."""
    try:
        check_request(request)
    except InvalidRequest:
        return
    assert decode(encode(Request(request=request))[4:]) == Request(request=request)


PICTURE = ContentPart(type="image", media_type="image/png", data=b"\x89PNG")
WORDS = ContentPart(type="text", text="What is this?")


def turned(*parts: ContentPart, **changes: Any) -> CommandRequest:
    """A chat whose only message has these parts."""
    message = attrs.evolve(ChatMessage.of_parts("user", parts), **changes)
    return CommandRequest(request_id="r1", messages=(message,))


def test_a_message_may_have_pictures() -> None:
    """Of types that nobody here has heard of, too."""
    check_request(turned(WORDS, PICTURE))
    check_request(turned(ContentPart(type="smell", url="https://a.example/b")))


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (turned(*[PICTURE] * 129), "messages[0].parts"),
        (turned(WORDS, PICTURE, content="something else"), "messages[0].content"),
        (turned(attrs.evolve(PICTURE, type="")), "messages[0].parts[0].type"),
        (turned(attrs.evolve(PICTURE, data=None)), "messages[0].parts[0]"),
        (turned(attrs.evolve(PICTURE, url="u")), "messages[0].parts[0]"),
        (turned(attrs.evolve(PICTURE, data=bytes((6 << 20) + 1))), "messages[0].parts[0].data"),
        (turned(PICTURE, ContentPart(type="text")), "messages[0].parts[1].text"),
        (turned(attrs.evolve(PICTURE, media_type="\n")), "messages[0].parts[0].media_type"),
        (turned(ContentPart(type="image", url="")), "messages[0].parts[0].url"),
        (
            turned(attrs.evolve(WORDS, text="\ud800"), PICTURE, content="\ud800"),
            "messages[0].content",
        ),
        (attrs.evolve(turned(PICTURE), continuation="It is"), "continuation"),
        (CommandRequest(request_id="r1", command="count"), "messages"),
    ],
)
def test_a_bad_part_is_named(request_: CommandRequest, param: str) -> None:
    """So that a client can show where it is."""
    with pytest.raises(InvalidRequest) as caught:
        check_request(request_)
    assert caught.value.param == param


def test_pictures_count_as_much_as_they_take() -> None:
    """Two that fit a frame each need not fit one together."""
    with pytest.raises(InvalidRequest, match=r"^the text has [0-9]+ bytes"):
        check_request(turned(*[attrs.evolve(PICTURE, data=bytes(5 << 20))] * 2))


def test_tokens_can_be_counted_of_a_prompt_or_of_messages() -> None:
    """The command that gives no answer but a number."""
    for fields in ({"prompt": "a"}, {"messages": turned(WORDS).messages}):
        check_request(CommandRequest(request_id="r1", command="count", **fields))


class Counted(str):
    """A text that knows how often it was read; it is not ASCII."""

    __slots__ = ("reads",)
    reads: int

    def encode(self, *args: Any, **kwargs: Any) -> bytes:
        """Its bytes."""
        self.reads += 1
        return super().encode(*args, **kwargs)


def test_a_request_is_measured_once_and_its_copies_read_no_text_again() -> None:
    """Whoever counts bytes, estimates tokens or copies a request with another name of its model."""
    content = Counted("Grüße")
    content.reads = 0
    asked = request(messages=(*HI, ChatMessage(role="user", content=content)))
    assert asked.size == len("hi") + 7
    assert asked.prompt_tokens == int((len("hi") + 7) / 3.5) + 1
    copy = attrs.evolve(asked, model="m", request_id="r2", prompt="more")
    assert (copy.size, copy.prompt_tokens) == (asked.size + 4, 4)
    assert content.reads == 1


@given(command_requests)
def test_the_size_of_a_request_is_that_of_its_texts(asked: CommandRequest) -> None:
    """In bytes, wherever they stand: in tools, turns, calls, the prompt or the schema."""
    assert asked.size == sum(len(text.encode(errors="replace")) for text in asked.texts)
    assert attrs.evolve(asked).fingerprint == asked.fingerprint
