"""The OpenAI-compatible interface: what is asked, and what is made of the answers."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from punch.backends.openai._answer import AnswerReader
from punch.backends.openai._completions import build, fault, read_count, read_embeddings
from punch.exceptions import (
    ContextTooLong,
    GenerationFailed,
    InvalidRequest,
    OfferUnavailable,
    PeerUnable,
    PunchError,
)
from punch.wire import ChatMessage, CommandRequest, Sampling, Timings, Tool, Usage

CHAT = CommandRequest(request_id="r", messages=(ChatMessage(role="user", content="Hi"),))
FULL = Sampling(
    max_tokens=7,
    temperature=0.5,
    top_p=0.9,
    top_k=40,
    min_p=0.05,
    repeat_penalty=1.1,
    stop=("a", "b"),
    seed=3,
)


def event(text: str | None = None, **more: Any) -> str:
    """One event of a stream of chat chunks."""
    delta = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": more.pop("finish", None)}
    return json.dumps({"choices": [choice], **more})


def test_every_sampling_parameter_is_sent_under_the_servers_name() -> None:
    """Nothing that the caller set is dropped."""
    _, body = build(
        CommandRequest(request_id="r", command="complete", prompt="p", sampling=FULL),
        model="m",
        dialect="llama_cpp",
    )
    assert body == {
        "model": "m",
        "prompt": "p",
        "stream": True,
        "stream_options": {"include_usage": True},
        "timings_per_token": True,
        "max_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.05,
        "repeat_penalty": 1.1,
        "seed": 3,
    }


@pytest.mark.parametrize(("dialect", "logprobs"), [("other", None), ("vllm", 0), ("llama_cpp", 0)])
def test_stop_sequences_are_sent_to_servers_that_find_them(dialect: Any, logprobs: Any) -> None:
    """llama-server does not say that it has; with log-probabilities it does so all the same."""
    request = CommandRequest(
        request_id="r", command="complete", prompt="p", sampling=FULL, logprobs=logprobs
    )
    assert build(request, model="m", dialect=dialect)[1]["stop"] == ["a", "b"]


def test_a_stop_sequence_that_the_server_does_not_know_ends_the_answer() -> None:
    """Wherever events part it; the text before it is all there, and the tokens are counted."""
    answer = AnswerReader(stops=("cd", "zz"))
    heard = [answer.feed(event(text, timings={"predicted_n": n + 1})) for n, text in
             enumerate(["ab", "c", "de", "f"])]  # fmt: skip
    assert heard == [("ab", 1), ("", 1), ("", 1), ("", 0)]
    assert (answer.stops.stopped, answer.is_whole) == (True, True)
    generation = answer.finish(first_token=None, last_token=None)
    assert generation.completion.text == "ab"
    assert (generation.completion.finish_reason, generation.completion.stopped_by) == ("stop", "cd")
    assert generation.usage.completion_tokens == 3


def test_what_may_have_been_a_stop_sequence_is_text_once_the_answer_has_ended() -> None:
    """And the answer has ended by itself."""
    answer = AnswerReader(stops=("cd",))
    assert answer.feed(event("abc", finish="stop")) == ("ab", 1)
    assert answer.rest() == "c"
    completion = answer.finish(first_token=None, last_token=None).completion
    assert (completion.text, completion.stopped_by) == ("abc", None)


def test_vllm_says_which_stop_sequence_it_found() -> None:
    """A number, of a token, is none, and neither is what could not be one."""
    for word, stop in (("cd", "cd"), (7, None), (None, None), ("", None), ("x" * 2000, None)):
        answer = AnswerReader()
        choice = {"index": 0, "delta": {"content": "ab"}, "finish_reason": "stop"}
        answer.feed(json.dumps({"choices": [choice | {"stop_reason": word}]}))
        assert answer.finish(first_token=None, last_token=None).completion.stopped_by == stop


def test_what_is_not_set_is_left_to_the_server() -> None:
    """Our defaults are not the server's."""
    path, body = build(CHAT, model=None, dialect="other")
    assert path == "/v1/chat/completions"
    assert set(body) == {"stream", "stream_options", "messages"}


def test_vllm_gets_its_own_name_for_the_penalty() -> None:
    """It would ignore the other one without a word."""
    request = CommandRequest(request_id="r", prompt="p", command="complete", sampling=FULL)
    _, body = build(request, model="m", dialect="vllm")
    assert body["repetition_penalty"] == 1.1
    assert "repeat_penalty" not in body


def test_a_continuation_becomes_the_beginning_of_the_turn() -> None:
    """The server goes on inside the assistant's message."""
    request = CommandRequest(request_id="r", messages=CHAT.messages, continuation="Hel")
    _, body = build(request, model="m", dialect="llama_cpp")
    assert body["messages"][-1] == {"role": "assistant", "content": "Hel"}
    with pytest.raises(GenerationFailed, match="cannot go on"):
        build(request, model="m", dialect="other")


def test_a_continuation_is_joined_to_a_turn_that_the_caller_began() -> None:
    """Two assistant messages in a row would be two turns."""
    messages = (*CHAT.messages, ChatMessage(role="assistant", content="H"))
    request = CommandRequest(request_id="r", messages=messages, continuation="el")
    _, body = build(request, model="m", dialect="vllm")
    assert body["messages"][-1] == {"role": "assistant", "content": "Hel"}


def test_a_stream_is_folded_into_one_answer() -> None:
    """Text, reason, counts and times come from the server's own events."""
    answer = AnswerReader()
    out = [
        answer.feed(item)
        for item in (
            event(None),
            event("Hel"),
            event("lo"),
            event(None, finish="length"),
            json.dumps(
                {
                    "choices": [],
                    "usage": {"prompt_tokens": 9, "completion_tokens": 2},
                    "timings": {
                        "cache_n": 4, "prompt_n": 5, "prompt_ms": 50, "predicted_ms": 20.5,
                        "predicted_n": 2,
                    },
                }
            ),
            "[DONE]",
        )
    ]  # fmt: skip
    assert out == [("", 0), ("Hel", 1), ("lo", 1), ("", 0), ("", 0), ("", 0)]
    generation = answer.finish(first_token=9.0, last_token=10.0)
    assert generation.completion.text == "Hello"
    assert generation.completion.finish_reason == "length"
    assert generation.usage == Usage(prompt_tokens=9, completion_tokens=2, cached_tokens=4)
    assert generation.timings == Timings(prefill=0.05, decode=0.0205)
    assert generation.guesses == (0, 0)


@pytest.mark.parametrize(
    ("told", "heard"),
    [
        ({"draft_n": 12, "draft_n_accepted": 7}, (12, 7)),
        ({"draft_n": 12}, (12, 0)),
        ({"draft_n": "12", "draft_n_accepted": -7}, (0, 0)),
        ({"draft_n": True, "draft_n_accepted": 1e3}, (0, 0)),
    ],
)
def test_what_llama_server_guessed_is_counted(told: dict[str, Any], heard: tuple[int, int]) -> None:
    """With every event in which it has guessed until then; what is no count is none."""
    answer = AnswerReader()
    answer.feed(event("a", timings={"predicted_n": 1}))
    answer.feed(event("b", finish="stop", timings={"predicted_n": 9, **told}))
    answer.feed("[DONE]")
    generation = answer.finish(first_token=1.0, last_token=2.0)
    assert generation.guesses == heard


def test_an_event_stands_for_all_the_tokens_since_the_last_text() -> None:
    """A character of several tokens, or text that was held back, comes in one event."""
    answer = AnswerReader()
    out = [
        answer.feed(event(text, timings={"predicted_n": made}))
        for text, made in (("a", 1), ("", 2), ("\U0001f98a", 4), ("b", 5))
    ]
    assert out == [("a", 1), ("", 0), ("\U0001f98a", 3), ("b", 1)]


def test_only_llama_cpp_is_told_a_slot() -> None:
    """Another server would refuse a word that it does not know."""
    assert build(CHAT, model="m", dialect="llama_cpp", slot=3)[1]["id_slot"] == 3
    assert "id_slot" not in build(CHAT, model="m", dialect="llama_cpp")[1]
    assert "id_slot" not in build(CHAT, model="m", dialect="other", slot=3)[1]


def test_times_are_measured_where_the_server_gives_none() -> None:
    """Until the first token is prefill, from there on is decode."""
    answer = AnswerReader()
    answer.feed(event("a"))
    answer.feed(event("b", finish="stop"))
    generation = answer.finish(first_token=0.5, last_token=2.0)
    assert generation.timings == Timings(prefill=0.5, decode=1.5)
    assert generation.usage == Usage()


def test_a_chunk_counts_as_many_tokens_as_the_server_says() -> None:
    """llama.cpp can tell with every chunk how many it made so far."""
    answer = AnswerReader()
    assert answer.feed(event("a", timings={"predicted_n": 1})) == ("a", 1)
    assert answer.feed(event("bcd", timings={"predicted_n": 4})) == ("bcd", 3)


def test_reasoning_is_no_part_of_the_answer() -> None:
    """It has tokens, which are a sign of life, and no text."""
    answer = AnswerReader()
    for name in ("reasoning_content", "reasoning"):
        chunk = {"choices": [{"delta": {name: "hm"}, "finish_reason": None}]}
        assert answer.feed(json.dumps(chunk)) == ("", 1)
    answer.feed(event("so", finish="stop"))
    assert answer.finish(first_token=None, last_token=None).completion.text == "so"


def test_a_thought_counts_as_many_tokens_as_the_server_says() -> None:
    """They are not counted again with the first word."""
    answer = AnswerReader()
    thought = {"choices": [{"delta": {"reasoning_content": "hm"}}], "timings": {"predicted_n": 5}}
    assert answer.feed(json.dumps(thought)) == ("", 5)
    assert answer.feed(event("so", timings={"predicted_n": 6})) == ("so", 1)


def test_text_without_a_new_token_counts_none() -> None:
    """llama-server sends what it had held back in an event of its own."""
    answer = AnswerReader()
    out = [
        answer.feed(event(text, timings={"predicted_n": made}))
        for text, made in (("a", 3), ("b", 3), ("c", 2), ("d", 4))
    ]
    assert out == [("a", 3), ("b", 0), ("c", 0), ("d", 1)]


@pytest.mark.parametrize("dialect", ["llama_cpp", "vllm"])
def test_a_turn_that_the_caller_began_is_gone_on_with_at_once(dialect: Any) -> None:
    """The first peer is asked as the next one would be, or the two would write two prompts."""
    messages = (*CHAT.messages, ChatMessage(role="assistant", content="Hel"))
    begun = CommandRequest(request_id="r", messages=messages)
    _, body = build(begun, model="m", dialect=dialect)
    assert body["messages"][-1] == {"role": "assistant", "content": "Hel"}
    assert body["add_generation_prompt"] is False
    assert body["continue_final_message"] is True
    same = CommandRequest(request_id="r", messages=CHAT.messages, continuation="Hel")
    assert build(same, model="m", dialect=dialect)[1] == body


def test_a_server_that_cannot_go_on_gets_the_turn_as_it_is() -> None:
    """It is asked what it was always asked."""
    messages = (*CHAT.messages, ChatMessage(role="assistant", content="Hel"))
    _, body = build(CommandRequest(request_id="r", messages=messages), model="m", dialect="other")
    assert set(body) == {"model", "stream", "stream_options", "messages"}


def test_the_prompt_that_is_counted_is_the_one_that_would_be_read() -> None:
    """With the tools, and the turn that the caller has begun; a plain text as it stands."""
    messages = (*CHAT.messages, ChatMessage(role="assistant", content="Hel"))
    tools = (Tool(name="f"),)
    chat = CommandRequest(request_id="r", messages=messages, tools=tools)
    _, asked = build(chat, model="m", dialect="llama_cpp")
    path, body = build(attrs.evolve(chat, command="count"), model="m", dialect="llama_cpp")
    assert path == "/v1/chat/completions/input_tokens"
    assert asked == body | {
        "stream": True,
        "stream_options": {"include_usage": True},
        "timings_per_token": True,
    }
    plain = CommandRequest(request_id="r", command="count", prompt="a")
    assert build(plain, model="m", dialect="llama_cpp") == (
        "/tokenize",
        {"content": "a", "add_special": True, "parse_special": True},
    )


def test_a_count_is_a_number_or_a_list_and_nothing_else() -> None:
    """What is none is a failure, and no count of nothing."""
    assert read_count({"input_tokens": 7}).usage == Usage(prompt_tokens=7)
    assert read_count({"tokens": [1, 2]}).usage == Usage(prompt_tokens=2)
    no_counts: list[object] = [None, [], {}, {"input_tokens": "7"}, {"tokens": 3}]
    for bad in (*no_counts, {"input_tokens": -1}):
        with pytest.raises(GenerationFailed):
            read_count(bad)


def test_an_answer_without_a_finish_has_failed() -> None:
    """A cut connection must not look like a short answer."""
    answer = AnswerReader()
    answer.feed(event("Hel"))
    with pytest.raises(GenerationFailed, match="without a finish"):
        answer.finish(first_token=None, last_token=None)


def test_an_error_in_the_middle_of_a_stream_is_raised() -> None:
    """llama-server sends an error object when decoding fails."""
    answer = AnswerReader()
    with pytest.raises(GenerationFailed, match="Compute error"):
        answer.feed('{"error": {"code": 500, "message": "Compute error.", "type": "server_error"}}')


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda children: (
    st.lists(children, max_size=3)
    | st.dictionaries(st.sampled_from(["choices", "delta", "text", "usage", "timings", "error",
                                       "finish_reason", "content", "prompt_n"]), children)
), max_leaves=20))  # fmt: skip
def test_arbitrary_events_raise_our_errors_only(value: Any) -> None:
    """Whatever a server sends, the caller sees a `PunchError` or a text."""
    answer = AnswerReader()
    try:
        text, tokens = answer.feed(json.dumps(value))
        answer.finish(first_token=1.0, last_token=2.0)
    except PunchError:
        return
    assert isinstance(text, str)
    assert tokens >= 0


def test_a_prompt_that_does_not_fit_is_told_with_both_numbers() -> None:
    """The words are those of llama-server, build 0.3.36."""
    body = (
        b'{"error":{"code":400,"message":"request (3031 tokens) exceeds the available context '
        b'size (1024 tokens), try increasing it","type":"exceed_context_size_error",'
        b'"n_prompt_tokens":3031,"n_ctx":1024}}'
    )
    error = fault(400, body)
    assert isinstance(error, ContextTooLong)
    assert "3031 tokens" in str(error)
    assert "1024 tokens" in str(error)


def test_words_alone_are_the_limit_of_that_server() -> None:
    """They may be about anything, and the next peer is asked; vLLM names a field since a while."""
    words = "This model's maximum context length is 4096 tokens. However, ..."
    for error in (
        {"message": words},
        {"object": "error", "message": words, "type": "BadRequestError", "code": 400},
    ):
        assert type(fault(400, json.dumps(error).encode())) is PeerUnable
        named = json.dumps(error | {"param": "input_tokens"}).encode()
        assert isinstance(fault(400, named), ContextTooLong)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, PeerUnable),
        (404, OfferUnavailable),
        (405, OfferUnavailable),
        (410, OfferUnavailable),
        (413, PeerUnable),
        (415, PeerUnable),
        (422, PeerUnable),
        (501, PeerUnable),
        (401, OfferUnavailable),
        (402, OfferUnavailable),
        (403, OfferUnavailable),
        (429, GenerationFailed),
        (503, GenerationFailed),
        (500, GenerationFailed),
        (502, GenerationFailed),
    ],
)
def test_every_status_has_its_error(status: int, kind: type[PunchError]) -> None:
    """Whose fault it is decides whether the next peer is tried."""
    error = fault(status, b'{"error": {"message": "so it is"}}', key_setting="THE_KEY")
    assert type(error) is kind
    assert "so it is" in str(error)


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"type": "invalid_request_error", "code": 400}, InvalidRequest),
        ({"code": "unsupported_value"}, InvalidRequest),
        ({"param": "seed"}, InvalidRequest),
        ({"code": "model_not_found", "type": "invalid_request_error"}, OfferUnavailable),
    ],
)
def test_what_a_server_says_in_fields_decides(
    fields: dict[str, Any], kind: type[PunchError]
) -> None:
    """Whoever names a kind or a field means the request."""
    assert type(fault(400, json.dumps({"error": {"message": "no"} | fields}).encode())) is kind


def test_a_rejected_key_names_its_setting() -> None:
    """The operator knows where to look."""
    assert "THE_KEY" in str(fault(401, b"no", key_setting="THE_KEY"))


def test_a_busy_server_says_when_to_come_back() -> None:
    """Its own word, or a second."""
    assert fault(503, b"{}", retry_after="7").retry_after == 7.0
    assert fault(429, b"{}", retry_after="Wed, 21 Oct 2026 07:28:00 GMT").retry_after == 1.0
    assert fault(500, b"{}").retry_after is None


def test_a_rejected_parameter_is_named() -> None:
    """OpenAI's own servers take no `top_k`."""
    body = b'{"error": {"message": "Unrecognized request argument", "param": "top_k"}}'
    error = fault(400, body)
    assert isinstance(error, InvalidRequest)
    assert "'top_k'" in str(error)
    assert error.param == "top_k"


@pytest.mark.parametrize("param", ['"\\n"', '""', "5", "null", '"' + "x" * 257 + '"'])
def test_what_is_no_name_of_a_field_is_not_taken_for_one(param: str) -> None:
    """It goes on the wire, where names are short and printable."""
    error = fault(400, b'{"error": {"message": "no", "param": %s}}' % param.encode())
    assert isinstance(error, PeerUnable)
    assert error.param is None


@pytest.mark.parametrize(
    "fields",
    ['"code": "context_length_exceeded"', '"type": "exceed_context_size_error", "code": 400'],
)
def test_a_full_context_is_known_by_its_code_whatever_the_words(fields: str) -> None:
    """Words are translated and improved; codes are for programs."""
    error = fault(400, b'{"error": {"message": "zu lang", %s}}' % fields.encode())
    assert isinstance(error, ContextTooLong)
    assert error.message == "zu lang"


@given(st.integers(100, 599), st.binary(max_size=100))
def test_any_response_is_an_error_of_ours(status: int, body: bytes) -> None:
    """Proxies answer with HTML."""
    assert isinstance(fault(status, body), PunchError)


def test_embeddings_come_in_the_order_of_the_inputs() -> None:
    """Servers may answer in another."""
    value = {
        "data": [{"index": 1, "embedding": [3, 4]}, {"index": 0, "embedding": [1, 2]}],
        "usage": {"prompt_tokens": 5},
    }
    generation = read_embeddings(value, expected=2)
    assert generation.completion.embeddings == ((1.0, 2.0), (3.0, 4.0))
    assert generation.usage == Usage(prompt_tokens=5)
    no_lists: list[object] = [{}, [], None, {"data": []}]
    for bad in (*no_lists, {"data": [{}]}, {"data": [{"embedding": "x"}]}):
        with pytest.raises(GenerationFailed):
            read_embeddings(bad, expected=2)
