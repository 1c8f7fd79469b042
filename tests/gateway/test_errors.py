"""What bad input, missing peers and lost time come to: the status, and a body in OpenAI's form."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
import trio
from gateway_client import Reply, open_client
from trio.testing import MockClock

from punch.backends import Emit, Generation, MockBackend, MockScript
from punch.capability import ModelOffer
from punch.exceptions import ContextTooLong, GenerationFailed, InvalidRequest, PunchError
from punch.gateway import TABLE, GatewaySettings, Limits, refusal_of
from punch.testing import ScriptedBackend
from punch.wire import (
    ChatMessage,
    CommandRequest,
    Completion,
    Sampling,
    Tool,
    check_request,
    mark_of,
)

CHAT = "/v1/chat/completions"
QUESTION = {"messages": [{"role": "user", "content": "tell me"}]}


def mock(**script: Any) -> MockBackend:
    return MockBackend(MockScript(**script))


def tree(kind: type[PunchError]) -> Iterator[type[PunchError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from tree(child)


# ---- the table ----


def test_every_error_has_a_row() -> None:
    """Whoever adds an error says what HTTP makes of it."""
    assert {kind.code for kind in tree(PunchError)} == set(TABLE)


@pytest.mark.parametrize("kind", list(tree(PunchError)), ids=lambda kind: kind.__name__)
def test_every_error_can_be_said(kind: Any) -> None:
    """With a status of an error, and with Retry-After where it is a 503 or a 429."""
    error = kind("what happened")
    error.retry_after = 2.5 if TABLE[kind.code].status == 429 else None
    refusal = refusal_of(error)
    headers = dict(refusal.all_headers())
    assert 400 <= refusal.status <= 504
    assert "what happened" in refusal.openai()["error"]["message"]
    assert set(refusal.openai()["error"]) == {"message", "type", "param", "code"}
    if refusal.status in (429, 503):
        assert int(headers[b"retry-after"]) >= 1


# ---- the body ----

TOOL = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    ("body", "param", "code", "words"),
    [
        (b"", None, "invalid_json", "line 1 column 1"),
        (b'{"messages": [\n  {]}', None, "invalid_json", "line 2 column 4"),
        (b'{"messages": "\xff"}', None, "invalid_json", "line 1 column"),
        (b"[" * 100_000, None, "invalid_json", "recursion limit"),
        (b"[]", None, "invalid_value", "the body is []; it must be an object"),
        (b"{}", "messages", "missing_required_parameter", "messages is missing"),
        (b'{"messages": "x"}', "messages", "invalid_value", 'messages is "x"; it must be a list'),
        (b'{"messages": []}', "messages", "invalid_value", "at least 1 entries"),
    ],
)
async def test_a_body_that_is_no_request_is_a_400(
    body: bytes, param: str | None, code: str, words: str, autojump_clock: MockClock
) -> None:
    """Bad JSON with its position, anything else with the field."""
    async with open_client({"a": mock()}) as client:
        reply = await client.post(CHAT, body)
    assert reply.status == 400
    assert reply.error["type"] == "invalid_request_error"
    assert (reply.error["param"], reply.error["code"]) == (param, code)
    assert words in reply.error["message"]


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"temperature": "1"}, "temperature", 'temperature is "1"; it must be a number'),
        ({"temperature": -1}, "temperature", "it must be at least 0"),
        ({"max_tokens": 1.5}, "max_tokens", "max_tokens is 1.5; it must be a whole number"),
        ({"max_tokens": 0}, "max_tokens", "max_tokens is 0; it must be from 1"),
        ({"n": 17}, "n", "it must be at most 16"),
        ({"stop": ["a"] * 17}, "stop", "at most 16"),
        ({"stop": 5}, "stop", "it must be text or a list"),
        ({"stream": "yes"}, "stream", "it must be true or false"),
        ({"foo": 1}, "foo", "foo is not a parameter"),
        ({"punch": {"foo": 1}}, "punch.foo", "punch.foo is not a parameter"),
        (
            {"logit_bias": {"1": 2}},
            "logit_bias",
            "logit_bias cannot be honoured: peers have tokenizers",
        ),
        ({"parallel_tool_calls": 1}, "parallel_tool_calls", "true or false"),
        ({"tool_choice": "some"}, "tool_choice", '"none", "auto", "required", "any"'),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", 'turn the tool "web_search" off'),
        ({"response_format": {"type": "x"}}, "response_format.type", '"json_schema"'),
        ({"top_logprobs": 2}, None, "top_logprobs goes with logprobs"),
        ({"tools": [TOOL], "functions": [TOOL["function"]]}, None, "the old name of tools"),
        ({"seed": 1, "repeat_penalty": 1, "repetition_penalty": 2}, "repetition_penalty", "other"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages[0].content[0].image_url.url",
            "is missing",
        ),
        ({"messages": [{"role": "boss", "content": "x"}]}, "messages[0].role", '"boss"'),
        (
            {"tools": [{"type": "function", "function": {"name": "a b"}}]},
            "tools[0].function.name",
            "a b",
        ),
        (
            {"messages": [{"role": "tool", "content": "x"}]},
            "messages[0].tool_call_id",
            "tool_call_id",
        ),
        ({"stop": "x" * 2000}, "stop", "stop"),
        ({"tool_choice": "required"}, "tool_choice", "tools is empty"),
        ({"model": "a\nb"}, "model", "printable"),
    ],
)
async def test_a_wish_that_cannot_be_honoured_is_refused_by_name(
    fields: dict[str, Any], param: str | None, words: str, autojump_clock: MockClock
) -> None:
    """Nothing is dropped in silence, and nothing is taken for another type."""
    async with open_client({"a": mock()}) as client:
        reply = await client.post(CHAT, QUESTION | fields)
    assert reply.status == 400, reply.body
    assert reply.error["param"] == param
    assert words in reply.error["message"]


async def test_a_long_value_is_not_repeated_whole(autojump_clock: MockClock) -> None:
    """An error is not a copy of the request."""
    async with open_client({"a": mock()}) as client:
        reply = await client.post(CHAT, QUESTION | {"temperature": "x" * 10_000})
    assert len(reply.body) < 400


async def test_another_media_type_is_a_415(autojump_clock: MockClock) -> None:
    """Which a page elsewhere could send without being asked."""
    async with open_client({"a": mock()}) as client:
        reply = await client.post(CHAT, QUESTION, content_type="text/plain")
        form = await client.post(
            "/api/generate",
            {"model": "mock", "prompt": "x", "stream": False},
            content_type="application/x-www-form-urlencoded",
        )
    assert reply.status == 415
    assert reply.error["code"] == "unsupported_media_type"
    # The examples in Ollama's documents send this.
    assert form.status == 200


@pytest.mark.parametrize("path", [CHAT, "/api/show"])
async def test_a_body_that_was_packed_is_a_415(path: Any, autojump_clock: MockClock) -> None:
    """It would be no JSON, and the message about that would mislead."""
    async with open_client({"a": mock()}) as client:
        reply = await client.post(path, b"\x1f\x8b", content_encoding="gzip")
        plain = await client.post(CHAT, QUESTION, content_encoding="identity")
    assert reply.status == 415
    assert b"Content-Encoding is 'gzip'" in reply.body
    assert plain.status == 200


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("/api/chat", {"model": "mock", "format": {"x": "y" * 300_000}}, "format has"),
        ("/api/chat", {"model": "mock", "options": {"stop": ["", "a"]}}, "options.stop"),
    ],
)
async def test_a_rule_of_the_wire_is_told_in_the_clients_words(
    path: str, body: dict[str, Any], named: str, autojump_clock: MockClock
) -> None:
    """Nobody has written `response_schema`."""
    async with open_client({"a": mock()}) as client:
        reply = await client.post(path, QUESTION | body)
    error = reply.json()["error"]
    assert reply.status == 400
    assert (error["param"] if isinstance(error, dict) else error).startswith(named)


SCHEMA = json.dumps({"x": "y" * 300_000})
MESSAGES = tuple(ChatMessage(role="user", content="x") for _ in range(2))


@pytest.mark.parametrize(
    ("endpoint", "wrong", "param"),
    [
        (CHAT, {"response_schema": SCHEMA}, "response_format"),
        (CHAT, {"response_schema": '{"pattern": "^(a{0,99}){0,99}$"}'}, "response_format"),
        ("/v1/responses", {"response_schema": SCHEMA}, "text.format"),
        ("/api/chat", {"response_schema": SCHEMA}, "format"),
        (CHAT, {"tools": (Tool(name="a b"),)}, "tools[0].function.name"),
        ("/v1/responses", {"tools": (Tool(name="a b"),)}, "tools[0].name"),
        ("/v1/responses", {"messages": MESSAGES * 2049}, "input"),
        ("/api/generate", {"messages": ()}, "prompt"),
        ("/v1/completions", {"command": "complete", "prompt": ""}, "prompt"),
        ("/v1/embeddings", {"command": "embed", "inputs": ("a", "\ud800")}, "input[1]"),
        ("/api/embeddings", {"command": "embed", "inputs": ("a", "\ud800")}, "prompt"),
        ("/api/chat", {"sampling": Sampling(stop=("",))}, "options.stop"),
        (CHAT, {"sampling": Sampling(stop=("",))}, "stop"),
        (CHAT, {"sampling": Sampling(top_p=2)}, "top_p"),
        (CHAT, {"tool_choice": "auto"}, "tool_choice"),
        (CHAT, {"logprobs": 21}, "logprobs"),
        (CHAT, {"priority": 101}, "punch.priority"),
        ("/api/chat", {"timeout": 0.0}, "punch.timeout"),
        ("/api/chat", {"sampling": Sampling(top_p=2)}, "options.top_p"),
        ("/api/generate", {"sampling": Sampling(max_tokens=0)}, "options.num_predict"),
        ("/v1/responses", {"sampling": Sampling(max_tokens=0)}, "max_output_tokens"),
        ("/elsewhere", {"response_schema": SCHEMA}, "response_schema"),
    ],
)
def test_each_bad_field_is_named_as_the_clients_of_an_endpoint_call_it(
    endpoint: Any, wrong: dict[str, Any], param: str
) -> None:
    """From what the error carries: in `param`, and in front of the rule."""
    request = attrs.evolve(CommandRequest(request_id="r", messages=MESSAGES), **wrong)
    with pytest.raises(InvalidRequest) as caught:
        check_request(request)
    refusal = refusal_of(caught.value, endpoint=endpoint)
    assert (refusal.param, refusal.message) == (param, f"{param} {caught.value.rule}")


@pytest.mark.parametrize(
    ("endpoint", "param"),
    [
        (CHAT, "messages"),
        ("/v1/completions", "prompt"),
        ("/v1/responses", "input"),
        ("/v1/embeddings", "input"),
        ("/api/chat", "messages"),
        ("/api/generate", "prompt"),
        ("/api/embed", "input"),
        ("/api/embeddings", "prompt"),
    ],
)
def test_a_full_context_names_the_field_that_fills_it(endpoint: Any, param: str) -> None:
    """Not `messages` to a client that has sent none."""
    error = ContextTooLong("the prompt has 200 tokens; the context is 100")
    assert refusal_of(error, endpoint=endpoint).param == param


def test_the_words_of_a_peer_stay_its_words() -> None:
    """It may speak of a field of ours, or of anything else; only the field it names is ours."""
    error = InvalidRequest("messages are not nice: messages, inputs", param="inputs[0]")
    refusal = refusal_of(error, endpoint="/v1/embeddings")
    assert (refusal.param, refusal.message) == ("input[0]", error.message)
    assert refusal_of(InvalidRequest("inputs[0] is bad"), endpoint="/v1/embeddings").param is None


async def test_a_field_that_only_the_peer_finds_bad_is_named_too(autojump_clock: MockClock) -> None:
    """It travels beside the words."""

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        raise InvalidRequest("the server rejects it", param="response_schema")

    async with open_client({"a": ScriptedBackend(play)}) as client:
        reply = await client.post(CHAT, QUESTION)
    assert reply.status == 400
    assert reply.error["param"] == "response_format"
    assert "the server rejects it" in reply.error["message"]


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_over_the_limit_is_a_413(announced: bool, autojump_clock: MockClock) -> None:
    """Whether it says so at first or goes on and on; and the connection ends."""
    settings = GatewaySettings(limits=Limits(body=1000))
    length = {} if announced else {"content_length": "", "transfer_encoding": "chunked"}
    async with open_client({"a": mock()}, settings=settings) as client:
        reply = await client.post(CHAT, [b"x" * 600, b"x" * 600], **length)
    assert reply.status == 413
    assert reply.error["message"] == "the body is longer than the limit of 1000 bytes: shorten it"
    assert reply.headers["connection"] == "close"


async def test_a_body_that_does_not_come_is_a_408(autojump_clock: MockClock) -> None:
    """Ten seconds are enough for what no person types."""
    async with open_client({"a": mock()}) as client:
        connection_closed = trio.Event()

        async def never() -> dict[str, Any]:
            await trio.sleep_forever()
            raise AssertionError

        async with client.open("POST", CHAT, b"x") as connection:
            connection.receive = never  # type: ignore[method-assign]  # a fake
            connection_closed.set()
        assert trio.current_time() == pytest.approx(10, abs=1)
    assert connection.reply.status == 408
    assert connection.reply.headers["connection"] == "close"


# ---- the path ----


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("POST", "/v1/nothing", 404),
        ("GET", CHAT, 405),
        ("DELETE", "/v1/models", 405),
        ("POST", "/health", 405),
    ],
)
async def test_a_wrong_path_or_method_has_the_same_form(
    method: str, path: Any, status: int, autojump_clock: MockClock
) -> None:
    """Clients parse whatever they get."""
    async with open_client({"a": mock()}) as client:
        reply = await client.request(method, path, b"{}" if method == "POST" else None)
    assert reply.status == status
    assert reply.error["type"] == "invalid_request_error"
    assert ("allow" in reply.headers) == (status == 405)


async def test_a_body_where_none_belongs_changes_nothing(autojump_clock: MockClock) -> None:
    """It is read away, and the answer is the same."""
    async with open_client({"a": mock()}) as client:
        models = await client.request("GET", "/v1/models", b"{}")
        wrong = await client.request("GET", CHAT, b"{}")
    assert models.status == 200
    assert wrong.status == 405


@pytest.mark.parametrize("value", ["a b", "x" * 121, "\xe9"])
async def test_a_request_id_that_cannot_be_one_is_refused(
    value: str, autojump_clock: MockClock
) -> None:
    """It would be in headers, logs and commands."""
    async with open_client({"a": mock()}) as client:
        reply = await client.post(CHAT, QUESTION, x_request_id=value)
    assert reply.status == 400
    assert reply.error["param"] == "X-Request-ID"


async def test_a_request_that_was_made_of_one_under_way_here_is_refused(
    autojump_clock: MockClock,
) -> None:
    """A server that a peer uses leads back here, through whatever is between."""
    replies: list[Reply] = []

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        if request.request_id == "mine":
            replies.append(await client.post(CHAT, QUESTION, x_punch_of=mark_of("mine#2")))
            replies.append(await client.post(CHAT, QUESTION, x_punch_of=mark_of("another")))
        return Generation(completion=Completion(text="done", finish_reason="stop"))

    async with open_client({"a": ScriptedBackend(play, slots=4)}) as client:
        reply = await client.post(CHAT, QUESTION | {"n": 1}, x_request_id="mine")
    assert reply.status == 200
    assert [each.status for each in replies] == [508, 200]
    assert replies[0].error["code"] == "loop_detected"


# ---- the router ----


async def test_an_unknown_model_is_a_404_with_the_models_on_offer(
    autojump_clock: MockClock,
) -> None:
    """So that whoever mistyped sees what to type."""
    async with open_client({"a": mock(model="one"), "b": mock(model="two")}) as client:
        asked = await client.post(CHAT, QUESTION | {"model": "three"})
        looked_up = await client.get("/v1/models/three")
    for reply in (asked, looked_up):
        assert reply.status == 404
        assert (reply.error["code"], reply.error["param"]) == ("model_not_found", "model")
        assert "three" in reply.error["message"]
        assert "one, two" in reply.error["message"]


async def test_no_listener_at_all_is_a_503_with_retry_after(autojump_clock: MockClock) -> None:
    """They may come back."""
    async with open_client({}) as client:
        reply = await client.post(CHAT, QUESTION)
    assert reply.status == 503
    assert reply.error["code"] == "no_peer"
    assert int(reply.headers["retry-after"]) >= 1


async def test_strict_mode_with_mocks_only_is_a_503(autojump_clock: MockClock) -> None:
    """And no simulated word in it."""
    async with open_client({"a": mock()}) as client:
        reply = await client.post(CHAT, QUESTION | {"punch": {"strict": True}})
    assert reply.status == 503
    assert reply.error["code"] == "no_real_peer"


async def test_what_no_listener_can_do_is_a_400_that_names_it(autojump_clock: MockClock) -> None:
    """Asking again would not help, so it is not a 503."""
    backend = ScriptedBackend(offers=(ModelOffer(name="m", features=frozenset({"chat"})),))
    async with open_client({"a": backend}) as client:
        embed = await client.post("/v1/embeddings", {"input": "x"})
        logprobs = await client.post(CHAT, QUESTION | {"logprobs": True})
    assert embed.status == 400
    assert "cannot embed" in embed.error["message"]
    assert logprobs.status == 400
    assert "logprobs" in logprobs.error["message"]


async def test_a_prompt_that_fits_no_context_is_a_400_with_both_numbers(
    autojump_clock: MockClock,
) -> None:
    """OpenAI's code for it, which programs look for to shorten the conversation."""
    async with open_client({"a": mock(context_tokens=100)}) as client:
        body = {"messages": [{"role": "user", "content": "word " * 5000}]}
        reply = await client.post(CHAT, body)
    assert reply.status == 400
    assert reply.error["code"] == "context_length_exceeded"
    assert "maximum context length is 100 tokens" in reply.error["message"]
    assert "the text in messages has 5000 tokens" in reply.error["message"]


async def test_a_prompt_that_the_backend_finds_too_long_is_the_same(
    autojump_clock: MockClock,
) -> None:
    """It has counted; the router had only guessed."""

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        raise ContextTooLong("the prompt has 200 tokens; the context is 100")

    async with open_client({"a": ScriptedBackend(play)}) as client:
        reply = await client.post(CHAT, QUESTION)
    assert reply.status == 400
    assert reply.error["code"] == "context_length_exceeded"
    assert "200" in reply.error["message"]
    assert "100" in reply.error["message"]


async def test_the_same_id_for_another_request_is_a_409(autojump_clock: MockClock) -> None:
    """One id is one answer."""
    async with open_client({"a": mock()}) as client:
        first = await client.post(CHAT, QUESTION, x_request_id="one")
        other = await client.post(CHAT, QUESTION | {"seed": 2}, x_request_id="one")
    assert first.status == 200
    assert other.status == 409
    assert other.headers["x-request-id"] == "one"


async def test_a_deadline_that_passes_while_it_is_answered_is_a_504(
    autojump_clock: MockClock,
) -> None:
    """Somebody was at work."""
    async with open_client({"a": mock(delay=60.0)}) as client:
        reply = await client.post(CHAT, QUESTION | {"punch": {"timeout": 2}})
    assert reply.status == 504
    assert reply.error["code"] == "deadline_exceeded"
    assert client.seen.last.error_code == "deadline"


async def test_a_deadline_that_passes_in_the_queue_is_a_503_with_retry_after(
    autojump_clock: MockClock,
) -> None:
    """Nobody was: coming again later may do better."""
    backend = mock(decode_rate=1.0, slots=1)
    async with open_client({"a": backend}) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.post, CHAT, QUESTION | {"max_tokens": 60})
        await trio.sleep(1)
        reply = await client.post(
            CHAT, QUESTION | {"max_tokens": 5, "punch": {"timeout": 20}, "stream": False}
        )
        nursery.cancel_scope.cancel()
    assert reply.status == 503, reply.body
    assert int(reply.headers["retry-after"]) >= 1


async def test_a_backend_that_fails_is_a_503_that_says_so(autojump_clock: MockClock) -> None:
    """Every peer was tried, and each has its reason."""

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        raise GenerationFailed("out of memory")

    async with open_client({"a": ScriptedBackend(play)}) as client:
        reply = await client.post(CHAT, QUESTION)
    assert reply.status == 503
    assert "out of memory" in reply.error["message"]


async def test_a_bug_is_a_500_that_tells_nothing(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its words are in the log."""
    async with open_client({"a": mock()}) as client:
        monkeypatch.setattr(client.router, "answer", None)
        reply = await client.post(CHAT, QUESTION)
    assert reply.status == 500
    assert "NoneType" not in reply.error["message"]
    assert client.seen.last.error_code == "internal"
    assert client.seen.words[-1] == "ended"
