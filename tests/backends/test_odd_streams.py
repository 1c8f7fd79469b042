"""Whatever form a server's answer has, it is read as meant, or the server's own words are told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from punch.backends import Generation
from punch.backends.openai._client import open_http_client
from punch.exceptions import BackendError, GenerationFailed, PunchError
from punch.testing import (
    CUT,
    EMPTY_ANSWERS,
    ODD_FAILURES,
    ODD_FORMS,
    RESET,
    WORDS,
    AnswerForm,
    Part,
    Upstream,
    response,
)
from punch.wire import ChatMessage, CommandRequest, Sampling, Thought

CHAT = CommandRequest(request_id="r", messages=(ChatMessage(role="user", content="Hi"),))


@attrs.frozen(kw_only=True)
class Heard:
    """What a backend made of one answer."""

    text: str
    """What was emitted."""

    thought: str = ""
    """What was emitted of a thought."""

    tokens: int
    """The tokens that were emitted with it."""

    generation: Generation | None = None
    error: PunchError | None = None
    requests: int


async def ask(*script: Part, request: CommandRequest = CHAT) -> Heard:
    """What is made of the answer of a server that plays *script*."""
    upstream = Upstream(script)
    texts: list[str] = []
    thoughts: list[str] = []
    count = 0

    async def emit(text: str, tokens: int) -> None:
        nonlocal count
        (thoughts if type(text) is Thought else texts).append(text)
        count += tokens
        await trio.lowlevel.checkpoint()

    generation, error = None, None
    async with open_http_client(url="http://up", slots=1, transport=upstream.transport()) as client:
        try:
            generation = await client.generate(request, emit, model="m", dialect="other")
        except PunchError as failed:
            error = failed
    return Heard(
        text="".join(texts),
        thought="".join(thoughts),
        tokens=count,
        generation=generation,
        error=error,
        requests=len(upstream.requests),
    )


async def told(*script: Part, request: CommandRequest = CHAT) -> Generation:
    """The answer that a server which plays *script* gives."""
    heard = await ask(*script, request=request)
    if heard.error is not None:
        raise heard.error
    assert heard.generation is not None
    assert heard.text == heard.generation.completion.text
    assert heard.thought == heard.generation.completion.reasoning
    return heard.generation


def streamed(*choices: Any, **more: Any) -> bytes:
    """A response of one event for each of *choices*, and ``[DONE]``."""
    values = [json.dumps({"choices": [choice], **more}) for choice in choices]
    return response(AnswerForm().spell([*values, "[DONE]"]))


# ---- one answer, in many forms ----


@pytest.mark.parametrize("name", ODD_FORMS)
async def test_every_form_is_read_as_its_text(name: str) -> None:
    """With a piece that is empty, and one that repeats the first."""
    texts = ["one ", "", "one ", "\u00fc\U0001f600", ""]
    generation = await told(response(ODD_FORMS[name].body(texts)))
    assert generation.completion.text == "one one \u00fc\U0001f600"
    assert generation.completion.finish_reason == "stop"


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
@pytest.mark.parametrize("compressed", [False, True])
async def test_every_framing_is_read(framing: Any, compressed: bool) -> None:
    """Compressed although nobody asked for it, too."""
    body = AnswerForm().body(["one ", "two"])
    data = response(body, framing=framing, compressed=compressed)
    assert (await told(data, CUT)).completion.text == "one two"


async def test_a_coding_that_cannot_be_undone_is_named() -> None:
    """In place of an answer of nonsense."""
    data = response(b"\x8b\x01\x80").replace(b"\r\n", b"\r\nContent-Encoding: br\r\n", 1)
    heard = await ask(data)
    assert isinstance(heard.error, GenerationFailed)
    assert "'br'" in str(heard.error)


def units(text: str) -> list[str]:
    """*text* in UTF-16: a character outside of the first plane is two."""
    data = text.encode("utf-16-le", "surrogatepass")
    return [data[i : i + 2].decode("utf-16-le", "surrogatepass") for i in range(0, len(data), 2)]


TEXTS = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("\U0001f600\U0001f48b\u00e9a \n"),
    max_size=12,
)
FORMS = st.sampled_from(sorted(ODD_FORMS))


@st.composite
def mixed_forms(draw: st.DrawFn) -> AnswerForm:
    """A form that is odd in several ways at once."""
    form = ODD_FORMS[draw(FORMS)]
    if form.layout != "events":
        return form
    before = "".join(ODD_FORMS[name].before_each for name in draw(st.lists(FORMS, max_size=3)))
    # Fields of an event must not be told apart from it by what ends another one.
    if form.blank_line and not form.before_each:
        form = attrs.evolve(form, before_each=before)
    other = ODD_FORMS[draw(FORMS)]
    return attrs.evolve(form, line_end=other.line_end, space=other.space)


@settings(max_examples=40, deadline=None)
@given(
    text=TEXTS,
    cuts=st.lists(st.integers(0, 24), max_size=5),
    form=mixed_forms(),
    sizes=st.lists(st.integers(1, 40), max_size=12),
    compressed=st.booleans(),
)
def test_any_form_cut_anywhere_into_deltas_and_chunks_is_the_same_text(
    text: str, cuts: list[int], form: AnswerForm, sizes: list[int], compressed: bool
) -> None:
    """Deltas may part a character, and chunks anything."""
    pieces = units(text)
    places = [0, *sorted(min(cut, len(pieces)) for cut in cuts), len(pieces)]
    texts = ["".join(pieces[a:b]) for a, b in pairwise(places)]
    data = response(form.body(texts), compressed=compressed, sizes=sizes)
    heard = trio.run(ask, data)
    if not text and form.finish_reason in (None, "", "tool_calls"):
        # Nothing was said, and nobody said that this is all.
        assert isinstance(heard.error, GenerationFailed)
        return
    assert heard.error is None
    assert heard.generation is not None
    assert (heard.text, heard.generation.completion.text) == (text, text)


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda body: body.replace(b"data:", b"Data:"),
        lambda body: body.replace(b"data: ", b"DATA:"),
        lambda body: body.replace(b"data:", b"\0\0data:"),
        lambda body: body.replace(b"[DONE]", b'"[DONE]"'),
        lambda body: b'data: "ping"\n\n' + body,
        lambda body: body.replace(b"data: ", b"data: data: data: "),
    ],
)
async def test_the_same_events_in_another_spelling_are_the_same(rewrite: Any) -> None:
    """Capitals, zeros that fill a packet, JSON where there is none, an event in an event."""
    body = AnswerForm(finish_reason=None).body(["one ", "two"])
    assert (await told(response(rewrite(body)))).completion.text == "one two"


async def test_an_event_within_ten_thousand_others_is_read() -> None:
    """Or refused; it takes no stack."""
    body = AnswerForm().body(["one ", "two"])
    assert (await told(response(b"data: " * 10_000 + body))).completion.text == "one two"


@pytest.mark.parametrize("status", [b"201 Created", b"203 Changed"])
async def test_an_answer_with_another_good_status_is_an_answer(status: bytes) -> None:
    """Some frameworks answer every POST so."""
    data = response(AnswerForm().body(["one ", "two"])).replace(b"200 OK", status, 1)
    assert (await told(data)).completion.text == "one two"


async def test_a_character_set_named_as_a_coding_is_none() -> None:
    """A common mistake in the configuration of a server."""
    data = response(AnswerForm().body(["one ", "two"]))
    data = data.replace(b"\r\n", b"\r\nContent-Encoding: utf-8\r\n", 1)
    assert (await told(data)).completion.text == "one two"


async def test_of_several_answers_one_is_read() -> None:
    """One was asked for; the pieces of the others come between its own."""
    for first, second in ((0, 1), (1, 0), ("0", 1), (3, 0)):
        data = streamed(
            {"index": first, "delta": {"role": "assistant"}},
            {"index": second, "delta": {"content": "uno "}},
            {"index": first, "delta": {"content": "one "}},
            {"index": second, "delta": {"content": "dos"}, "finish_reason": "length"},
            {"index": first, "delta": {"content": "two"}, "finish_reason": "stop"},
        )
        completion = (await told(data)).completion
        assert (completion.text, completion.finish_reason) == ("one two", "stop")
    plain = streamed({"index": 0, "delta": {"content": "one "}}, {"delta": {"content": "two"}})
    assert (await told(plain)).completion.text == "one two"


async def test_a_number_in_place_of_a_text_is_said() -> None:
    """In place of nothing at all; some servers take an answer for JSON."""
    for value, text in ((12, "12"), ([0.5], "0.5")):
        choice = {"message": {"content": value}, "finish_reason": "stop"}
        assert (await told(streamed(choice))).completion.text == text


# ---- cuts ----


@settings(max_examples=40, deadline=None)
@given(data=st.data(), form=mixed_forms(), end=st.sampled_from([CUT, RESET]))
def test_an_answer_that_is_cut_anywhere_is_whole_or_a_prefix_with_an_error(
    data: st.DataObject, form: AnswerForm, end: Part
) -> None:
    """Nothing comes twice, and nothing is asked for twice."""
    body = form.body(["one ", "one ", "\U0001f600", "two"])
    framing: Any = data.draw(st.sampled_from(["chunked", "length", "close"]))
    whole = response(body, framing=framing)
    at = data.draw(st.integers(0, len(whole)))
    heard = trio.run(ask, whole[:at], end)
    assert heard.requests == 1
    if heard.error is None:
        assert heard.text == "one one \U0001f600two"
    else:
        assert "one one \U0001f600two".startswith(heard.text)
        assert isinstance(heard.error, BackendError)


async def test_a_stream_with_neither_reason_nor_done_is_cut_off() -> None:
    """However orderly its end is."""
    body = AnswerForm(finish_reason=None, done=None).body(["one ", "two"])
    framings: tuple[Any, ...] = ("chunked", "length")
    for framing in framings:
        heard = await ask(response(body, framing=framing))
        assert heard.text == "one two"
        assert isinstance(heard.error, GenerationFailed)
        assert "cut off after 7 characters" in str(heard.error)


@pytest.mark.parametrize("end", [CUT, RESET, 10_000.0])
@pytest.mark.parametrize("name", ["no [DONE]", "no reason, but [DONE]"])
async def test_what_becomes_of_the_connection_after_the_end_does_not_matter(
    name: str, end: Part, autojump_clock: object
) -> None:
    """It may be cut, or stay open without another word."""
    data = response(ODD_FORMS[name].body(["one ", "two"]))
    whole = data.removesuffix(b"0\r\n\r\n")
    started = trio.current_time()
    assert (await told(whole, end)).completion.text == "one two"
    assert trio.current_time() - started <= 30


@pytest.mark.parametrize("reason", ["null", "None", " ", "undefined"])
async def test_no_reason_in_words_is_none(reason: str) -> None:
    """As programs write it that make a text of everything."""
    choices = [{"delta": {"content": text}, "finish_reason": reason} for text in ("one ", "two ")]
    assert (await told(streamed(*choices))).completion.text == "one two "
    values = [json.dumps({"choices": [choice]}) for choice in choices]
    data = response(AnswerForm().spell(values))
    for script in (data, data.removesuffix(b"0\r\n\r\n")):
        heard = await ask(script, CUT)
        assert heard.text == "one two "
        assert isinstance(heard.error, BackendError)


@pytest.mark.parametrize("end", [CUT, RESET])
async def test_a_reason_with_every_piece_is_no_end(end: Part) -> None:
    """A server that says "stop" each time has not said where it stops."""
    choices = [{"delta": {"content": text}, "finish_reason": "stop"} for text in ("one ", "two ")]
    data = streamed(*choices)
    assert (await told(data)).completion.text == "one two "
    before, _, _ = data.partition(b"data: [DONE]")
    heard = await ask(before, end)
    assert heard.text == "one two "
    assert isinstance(heard.error, BackendError)


# ---- what is no answer ----


@pytest.mark.parametrize("name", ODD_FAILURES)
@pytest.mark.parametrize("content_type", ["text/event-stream", "application/json"])
async def test_the_servers_own_words_are_told(name: str, content_type: str) -> None:
    """As an error of this backend, which the next peer may not have."""
    heard = await ask(response(ODD_FAILURES[name], content_type=content_type))
    assert isinstance(heard.error, BackendError)
    assert WORDS in str(heard.error)
    assert "\n" not in str(heard.error)
    assert heard.text == ""


@pytest.mark.parametrize("name", ODD_FAILURES)
async def test_the_servers_words_are_told_in_the_middle_too(name: str) -> None:
    """What came before them was delivered, and is not taken for all."""
    begun = AnswerForm(finish_reason=None, done=None).body(["one "])
    heard = await ask(response(begun + ODD_FAILURES[name]))
    if name == "a message and [DONE]":
        # The server has said that this is all.
        assert heard.error is None
        return
    assert heard.text == "one "
    assert isinstance(heard.error, BackendError)
    assert WORDS in str(heard.error)


@pytest.mark.parametrize("name", EMPTY_ANSWERS)
async def test_an_answer_of_nothing_is_no_success(name: str) -> None:
    """Without a reason for its end, or with one that asks for tools."""
    heard = await ask(response(EMPTY_ANSWERS[name]))
    assert isinstance(heard.error, GenerationFailed)


@pytest.mark.parametrize(
    ("choice", "more"),
    [
        ({"delta": {}, "finish_reason": "stop"}, {}),
        ({"delta": {}, "finish_reason": "length"}, {}),
        ({"message": {"role": "assistant", "content": ""}, "finish_reason": "stop"}, {}),
        ({"delta": {"content": ""}, "finish_reason": "stop"}, {"usage": {"completion_tokens": 1}}),
        ({"delta": {"content": ""}}, {"usage": {"prompt_tokens": 3, "completion_tokens": 0}}),
    ],
)
async def test_an_answer_that_is_honestly_empty_is_one(choice: Any, more: Any) -> None:
    """As when a stop sequence is hit at once."""
    completion = (await told(streamed(choice, **more))).completion
    assert completion.text == ""
    assert completion.finish_reason == (choice.get("finish_reason") or "stop")


async def test_a_thought_alone_is_kept() -> None:
    """It is no text, and an answer all the same."""
    for delta in (
        {"reasoning_content": "hm"},
        {"reasoning": "hm"},
        {"reasoning": "hm", "reasoning_content": "hm"},
        {"reasoning": {"content": "hm"}},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]},
    ):
        completion = (await told(streamed({"delta": delta}))).completion
        assert (completion.text, completion.reasoning) == ("", "hm")


async def test_a_refusal_is_what_the_model_says() -> None:
    """There is nothing else to read."""
    choice = {"delta": {"content": None, "refusal": "I will not"}, "finish_reason": "stop"}
    assert (await told(streamed(choice))).completion.text == "I will not"


@pytest.mark.parametrize(
    "body", [ODD_FAILURES["an error as one value"], ODD_FAILURES["a detail as one value"]]
)
async def test_an_error_in_place_of_vectors_is_told(body: bytes) -> None:
    """With status 200, as for text."""
    request = CommandRequest(request_id="r", command="embed", inputs=("a",))
    heard = await ask(response(body, content_type="application/json"), request=request)
    assert isinstance(heard.error, BackendError)
    assert WORDS in str(heard.error)
    page = await ask(response(ODD_FAILURES["a page"]), request=request)
    assert isinstance(page.error, GenerationFailed)
    assert WORDS in str(page.error)
    assert "<" not in str(page.error)


async def test_a_page_with_a_status_is_told_without_its_markup() -> None:
    """Proxies answer with pages."""
    body = ODD_FAILURES["a page"]
    heard = await ask(response(body).replace(b"200 OK", b"502 Bad", 1))
    assert isinstance(heard.error, GenerationFailed)
    assert f"Bad gateway 502 {WORDS}" in str(heard.error)


@pytest.mark.parametrize(
    "value",
    [
        {"message": {"role": "assistant", "content": "feet"}, "done": False},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "feet"}},
        {"token": {"text": "feet"}, "generated_text": None},
    ],
)
async def test_what_is_of_another_interface_is_shown(value: Any) -> None:
    """So that whoever runs the server sees what it is."""
    for body in (f"{json.dumps(value)}\n", f"data: {json.dumps(value)}\n\n"):
        heard = await ask(response(body.encode()))
        assert isinstance(heard.error, GenerationFailed)
        assert "no answer" in str(heard.error)
        assert "feet" in str(heard.error)


async def test_groqs_own_field_is_read() -> None:
    """It has the counts of a stream, and the error that ends one early."""
    counted = {"usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    choices = [{"delta": {"content": "one"}}, {"delta": {}, "finish_reason": "stop"}]
    usage = (await told(streamed(*choices, x_groq=counted))).usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (3, 2)
    heard = await ask(streamed(choices[0], x_groq={"error": "over capacity"}))
    assert isinstance(heard.error, BackendError)
    assert "over capacity" in str(heard.error)


async def test_an_error_that_is_only_true_is_told_in_the_words_beside_it() -> None:
    """And not as "True"."""
    heard = await ask(response(f'data: {{"error": true, "message": "{WORDS}"}}\n\n'.encode()))
    assert WORDS in str(heard.error)


async def test_a_count_of_nothing_for_a_text_is_no_count() -> None:
    """Some servers send zeros for what they have not counted."""
    usage = {"prompt_tokens": 0, "completion_tokens": 0}
    generation = await told(streamed({"delta": {"content": "one"}}, usage=usage))
    assert (generation.usage.prompt_tokens, generation.usage.completion_tokens) == (None, None)


@pytest.mark.parametrize(
    ("after", "seconds"),
    [
        ("7", 7),
        ("2.5", 2.5),
        ("Sat, 28 Nov 2026 10:00:30 GMT", 30),
        ("Sat, 28 Nov 2026 09:00:00 GMT", 0),
        ("soon", 1),
        ("-7", 1),
        ("Sat, 99 Nov 99999999999999999999 10:00:30 GMT", 1),
    ],
)
async def test_when_to_ask_again_is_read_in_each_form(after: str, seconds: float) -> None:
    """A date is one of the server's own clock."""
    head = f"429 Too many\r\nDate: Sat, 28 Nov 2026 10:00:00 GMT\r\nRetry-After: {after}"
    heard = await ask(response(b"{}").replace(b"200 OK", head.encode(), 1))
    assert isinstance(heard.error, GenerationFailed)
    assert heard.error.retry_after == seconds


async def test_an_error_in_wrappings_is_told_without_them() -> None:
    """In the words of the server, and in none of Python's."""
    for body in (
        [{"error": {"code": 400, "message": WORDS, "status": "INVALID_ARGUMENT"}}],
        {"error": {"error": {"message": WORDS}}},
        {"error": True, "message": WORDS},
        {"detail": [{"loc": ["body"], "msg": WORDS}]},
    ):
        heard = await ask(response(json.dumps(body).encode()).replace(b"200 OK", b"400 Bad", 1))
        assert WORDS in str(heard.error)
        assert "'" not in str(heard.error)


# ---- what repeats ----


async def test_a_message_after_its_pieces_counts_once() -> None:
    """Text, thought and calls; only what is new at its end is taken."""
    call = {"id": "c", "function": {"name": "f", "arguments": "{}"}}
    message = {"content": "one two!", "reasoning_content": "hm", "tool_calls": [call]}
    generation = await told(
        streamed(
            {"delta": {"reasoning_content": "hm"}},
            {"delta": {"content": "one "}},
            {"delta": {"content": "two"}},
            {"delta": {"tool_calls": [call | {"index": 0}]}},
            {"message": message, "finish_reason": "stop"},
        )
    )
    completion = generation.completion
    assert (completion.text, completion.reasoning) == ("one two!", "hm")
    assert [(call.name, call.arguments) for call in completion.tool_calls] == [("f", "{}")]


async def test_a_message_beside_each_delta_takes_nothing_away() -> None:
    """Whether it is empty, a piece once more, or all that was said so far."""
    texts = ["one ", "one ", "two"]
    wholes: dict[str, list[Any]] = {
        "none": [None, None, None],
        "empty": [{}, "", {"content": ""}],
        "pieces": [{"content": text} for text in texts],
        "so far": [{"content": "".join(texts[: i + 1])} for i in range(3)],
    }
    for kind, messages in wholes.items():
        choices = [
            {"delta": {"content": text}, "message": message}
            for text, message in zip(texts, messages, strict=True)
        ]
        assert (await told(streamed(*choices))).completion.text == "one one two", kind


async def test_another_wording_of_a_message_after_its_pieces_is_not_taken() -> None:
    """The pieces are with the reader already."""
    generation = await told(
        streamed({"delta": {"content": " one"}}, {"message": {"content": "one"}})
    )
    assert generation.completion.text == " one"


# ---- ends ----


@pytest.mark.parametrize(
    "reason", ["length", "max_tokens", "MAX_TOKENS", "model_length", {"type": "max_tokens"}]
)
async def test_every_word_for_the_limit_is_the_limit(reason: Any) -> None:
    """So that a client can ask for more."""
    choice = {"delta": {"content": "one"}, "finish_reason": reason}
    assert (await told(streamed(choice))).completion.finish_reason == "length"


@pytest.mark.parametrize(("made", "reason"), [(3, "length"), (2, "stop")])
async def test_a_limit_that_is_not_said_is_known_by_the_count(made: int, reason: str) -> None:
    """As many tokens as were asked for, and only ``[DONE]``."""
    request = attrs.evolve(CHAT, sampling=Sampling(max_tokens=3))
    data = streamed({"delta": {"content": "one"}}, usage={"completion_tokens": made})
    assert (await told(data, request=request)).completion.finish_reason == reason


@pytest.mark.parametrize("reason", ["error", "abort", "SAFETY", "insufficient_system_resource"])
async def test_a_server_that_gives_up_has_not_answered(reason: str) -> None:
    """What it had said by then is no whole answer."""
    heard = await ask(streamed({"delta": {"content": "one"}, "finish_reason": reason}))
    assert isinstance(heard.error, GenerationFailed)


# ---- characters ----


def raw(*texts: bytes) -> bytes:
    """A response with *texts* as they are between the quotes of JSON."""
    events = [b'data: {"choices": [{"delta": {"content": "%b"}}]}\n\n' % text for text in texts]
    return response(b"".join(events) + b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("texts", "text"),
    [
        ((rb"a\ud83d", rb"\ude00b"), "a\U0001f600b"),
        ((rb"\ud83d", b"", rb"\udc8b"), "\U0001f48b"),
        ((rb"\ud83d", b"x"), "\ufffdx"),
        ((rb"\ud83d", rb"\ud83d", rb"\ude00"), "\ufffd\U0001f600"),
        ((rb"a\ud83d",), "a\ufffd"),
        ((rb"\ude00b",), "\ufffdb"),
        ((b"\xf0\x9f", b"\x98\x80"), "\U0001f600"),
        ((b"\xf0", b"\x9f", b"\x98", b"\x80"), "\U0001f600"),
        ((b"\xc3", b"\xa9"), "\u00e9"),
        ((b"\xff", b"a"), "\ufffda"),
        ((b"a\tb", b"\x01"), "a\tb\x01"),
    ],
)
async def test_a_character_in_two_deltas_is_one(texts: Sequence[bytes], text: str) -> None:
    """Halves as JSON has them, and raw bytes; what stays alone reads U+FFFD."""
    assert (await told(raw(*texts))).completion.text == text


async def test_half_a_character_of_a_cut_answer_is_not_delivered() -> None:
    """Whoever continues it delivers the whole one."""
    data = raw(rb"a\ud83d").partition(b"data: [DONE]")[0]
    heard = await ask(data, CUT)
    assert (heard.text, heard.tokens) == ("a", 1)
    assert isinstance(heard.error, BackendError)


# ---- counts ----


async def test_a_value_with_the_whole_answer_has_its_tokens() -> None:
    """Not one because it came at once."""
    body = AnswerForm(layout="value", usage={"prompt_tokens": 4, "completion_tokens": 9})
    heard = await ask(response(body.body(["one two three"])))
    assert heard.tokens == 9
    assert heard.generation is not None
    assert heard.generation.usage.completion_tokens == 9


async def test_a_usage_that_is_empty_takes_no_count_back() -> None:
    """Servers send one with every event; a choice may have it, too."""
    usage = {"prompt_tokens": 4, "completion_tokens": 9}
    for first in ({"usage": usage}, {"choices": [{"delta": {}, "usage": usage}]}):
        events = [first, {"choices": [{"delta": {"content": "x"}}], "usage": {}}, {"usage": None}]
        data = AnswerForm().spell([*map(json.dumps, events), "[DONE]"])
        assert (await told(response(data))).usage.completion_tokens == 9


async def test_log_probabilities_of_one_value_are_read() -> None:
    """With the text, the calls and the usage of a whole answer."""
    request = attrs.evolve(CHAT, logprobs=0)
    rows = [{"token": "one", "logprob": -0.5, "top_logprobs": []}]
    value = {
        "choices": [
            {
                "message": {"role": "assistant", "content": "one"},
                "logprobs": {"content": rows},
                "finish_reason": "stop",
            }
        ],
    }
    generation = await told(response(json.dumps(value).encode()), request=request)
    assert [each.token for each in generation.completion.logprobs] == ["one"]
