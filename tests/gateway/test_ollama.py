"""Ollama's endpoints: what is asked of the router, and the shapes of what comes back."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from gateway_client import BY_NAME, open_client
from trio.testing import MockClock

from punch.backends import Emit, Generation, MockBackend, MockScript
from punch.capability import ModelOffer
from punch.gateway._json import arguments_of
from punch.gateway.ollama._shapes import OllamaShape
from punch.testing import ScriptedBackend
from punch.wire import CommandRequest, Completion, Sampling, Timings, ToolCall, Usage


def mock(**script: Any) -> MockBackend:
    return MockBackend(MockScript(**script))


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "mock", "messages": [{"role": "user", "content": "hi"}]} | fields


async def test_a_chat_streams_a_line_for_each_part(autojump_clock: MockClock) -> None:
    """By default; the last line has what was counted."""
    async with open_client({"a": mock(decode_rate=10.0)}) as client:
        reply = await client.post("/api/chat", chat(options={"num_predict": 3}))
    *parts, last = reply.lines()
    assert reply.headers["content-type"] == "application/x-ndjson"
    assert [part["done"] for part in parts] == [False] * 3
    assert {part["model"] for part in parts} == {"mock"}
    assert parts[0]["created_at"] == "2023-11-14T22:13:20Z"
    assert parts[0]["message"]["role"] == "assistant"
    assert last["done"] is True
    assert last["done_reason"] == "length"
    assert last["message"] == {"role": "assistant", "content": ""}
    assert (last["prompt_eval_count"], last["eval_count"]) == (1, 3)
    assert last["eval_duration"] == pytest.approx(0.3e9, rel=0.1)
    assert last["total_duration"] >= last["eval_duration"]
    assert last["punch"]["segments"][0]["peer_id"] == "a"


async def test_a_chat_without_a_stream_is_one_object(autojump_clock: MockClock) -> None:
    """With the same text."""
    body = chat(options={"num_predict": 5})
    async with open_client({"a": mock()}) as client:
        streamed = await client.post("/api/chat", body)
        whole = await client.post("/api/chat", body | {"stream": False})
    text = "".join(line["message"]["content"] for line in streamed.lines())
    assert whole.json()["message"]["content"] == text
    assert whole.json()["done"] is True
    assert whole.headers["x-punch-peer"] == "a"


async def test_generate_is_a_chat_of_one_question_unless_it_is_raw(
    autojump_clock: MockClock,
) -> None:
    """As Ollama's own templates make of it."""
    asked: list[CommandRequest] = []

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        asked.append(request)
        await emit("ok", 1)
        return Generation(completion=Completion(text="ok"), usage=Usage(), timings=Timings())

    async with open_client({"a": ScriptedBackend(play)}) as client:
        body = {"model": "scripted", "prompt": "why?", "stream": False}
        plain = await client.post("/api/generate", body | {"system": "be brief"})
        raw = await client.post("/api/generate", body | {"raw": True})
    assert plain.json()["response"] == "ok"
    assert raw.json()["response"] == "ok"
    assert [message.role for message in asked[0].messages] == ["system", "user"]
    assert (asked[1].command, asked[1].prompt) == ("complete", "why?")
    # Nobody has counted, so no count is made up.
    assert "eval_count" not in plain.json()


async def test_options_and_format_reach_the_backend(autojump_clock: MockClock) -> None:
    """Ollama's -1 is no limit; any JSON is the empty schema."""
    asked: list[CommandRequest] = []

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        asked.append(request)
        return Generation(completion=Completion(text="{}"), usage=Usage(), timings=Timings())

    offer = ModelOffer(name="m", features=frozenset({"chat", "json_schema"}))
    options = {
        "num_predict": -1, "temperature": 0.1, "top_k": 2, "top_p": 0.3, "min_p": 0.4,
        "repeat_penalty": 1.5, "seed": 6, "stop": ["x"], "num_ctx": 4096,
    }  # fmt: skip
    async with open_client({"a": ScriptedBackend(play, offers=(offer,))}) as client:
        body = chat(model="m", options=options, format="json", stream=False, keep_alive="5m")
        first = await client.post("/api/chat", body)
        schema = {"type": "object"}
        second = await client.post("/api/chat", body | {"format": schema, "keep_alive": 0})
    assert first.status == 200, first.body
    assert second.status == 200, second.body
    assert asked[0].sampling == Sampling(
        temperature=0.1, top_k=2, top_p=0.3, min_p=0.4, repeat_penalty=1.5, seed=6, stop=("x",)
    )
    assert [each.response_schema for each in asked] == ["{}", '{"type": "object"}']


async def test_tool_calls_have_objects_for_arguments(autojump_clock: MockClock) -> None:
    """Both ways, and results belong to the calls in their order."""
    asked: list[CommandRequest] = []

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        asked.append(request)
        call = ToolCall(id="call_1", name="weather", arguments='{"place": "here"}')
        completion = Completion(tool_calls=(call,), finish_reason="tool_calls")
        return Generation(completion=completion, usage=Usage(), timings=Timings())

    offer = ModelOffer(name="m", features=frozenset({"chat", "tools"}))
    tool = {"type": "function", "function": {"name": "weather", "parameters": {}}}
    turns = [
        {"role": "user", "content": "how is it?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"function": {"name": "weather", "arguments": {"place": "here"}}}],
        },
        {"role": "tool", "content": "21", "tool_name": "weather"},
    ]
    async with open_client({"a": ScriptedBackend(play, offers=(offer,))}) as client:
        body = {"model": "m", "messages": turns, "tools": [tool]}
        whole = await client.post("/api/chat", body | {"stream": False})
        streamed = await client.post("/api/chat", body)
    (call,) = whole.json()["message"]["tool_calls"]
    assert call["function"] == {"name": "weather", "arguments": {"place": "here"}}
    assert streamed.lines()[0]["message"]["tool_calls"] == [call]
    _, called, returned = asked[0].messages
    assert called.tool_calls[0].id == returned.tool_call_id


async def test_a_question_with_nothing_in_it_loads_the_model(autojump_clock: MockClock) -> None:
    """There it is loaded; here it is loaded or will be."""
    async with open_client({"a": mock()}, settings=BY_NAME) as client:
        reply = await client.post("/api/generate", {"model": "mock", "stream": False})
        streamed = await client.post("/api/chat", {"model": "mock"})
        unknown = await client.post("/api/chat", {"model": "other"})
    assert unknown.status == 404
    assert reply.json()["done_reason"] == "load"
    assert streamed.lines()[-1]["done_reason"] == "load"


async def test_a_name_may_have_ollamas_usual_tag(autojump_clock: MockClock) -> None:
    """Its clients add one where there is none; the name comes back as it was given."""
    async with open_client({"a": mock()}, settings=BY_NAME) as client:
        reply = await client.post("/api/chat", chat(model="mock:latest", stream=False))
        other = await client.post("/api/chat", chat(model="mock:7b", stream=False))
    assert reply.json()["model"] == "mock:latest"
    assert other.status == 404
    assert other.json().keys() == {"error"}


async def test_embeddings_come_new_and_old(autojump_clock: MockClock) -> None:
    """Several vectors, or one."""
    async with open_client({"a": mock()}) as client:
        new = await client.post("/api/embed", {"model": "mock", "input": ["a", "b c"]})
        old = await client.post("/api/embeddings", {"model": "mock", "prompt": "a"})
    assert len(new.json()["embeddings"]) == 2
    assert new.json()["prompt_eval_count"] == 3
    assert old.json()["embedding"] == new.json()["embeddings"][0]


async def test_models_are_listed_and_shown(autojump_clock: MockClock) -> None:
    """In the fields that Ollama's clients read."""
    async with open_client({"a": mock()}, settings=BY_NAME) as client:
        tags = await client.get("/api/tags")
        running = await client.get("/api/ps")
        shown = await client.post("/api/show", {"model": "mock"})
        old = await client.post("/api/show", {"name": "mock:latest"})
        nobody = await client.post("/api/show", {"model": "other"})
        version = await client.get("/api/version")
    (model,) = tags.json()["models"]
    assert (model["name"], model["details"]["format"]) == ("mock", "gguf")
    assert running.json()["models"][0]["name"] == "mock"
    assert "completion" in shown.json()["capabilities"]
    assert old.json() == shown.json()
    assert nobody.status == 404
    assert "on offer: mock" in nobody.json()["error"]
    assert version.json()["version"].count(".") == 2


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"options": {"mirostat": 1}}, "options.mirostat cannot be honoured"),
        ({"messages": [{"role": "user", "content": "x", "images": ["eA=="]}]}, "images"),
        ({"format": "xml"}, 'format is "xml"'),
    ],
)
async def test_what_cannot_be_honoured_is_refused_by_name(
    fields: dict[str, Any], words: str, autojump_clock: MockClock
) -> None:
    """In Ollama's form."""
    async with open_client({"a": mock()}) as client:
        reply = await client.post("/api/chat", chat(**fields))
    assert reply.status == 400
    assert words in reply.json()["error"]


@pytest.mark.parametrize("name", ["\0", "a\nb", "\x1b[31m"])
async def test_a_model_has_a_name_that_can_be_shown(name: str, autojump_clock: MockClock) -> None:
    """400, also for the mark that lines are spelled with."""
    async with open_client({"a": mock()}) as client:
        for path in ("/api/chat", "/api/generate", "/api/embed", "/api/show"):
            fields = {"input": "x"} if path == "/api/embed" else {}
            reply = await client.post(path, {"model": name} | fields)
            assert reply.status == 400
            assert "printable" in reply.json()["error"]


def test_a_line_is_spelled_whatever_the_model_is_called() -> None:
    """The mark stands where the text belongs."""
    shape = OllamaShape(request_id="r", created=0, model="\0", chat=True)
    line = json.loads(shape.text(0, ["hi"]))
    assert (line["model"], line["message"]["content"]) == ("\0", "hi")


@pytest.mark.parametrize(
    "arguments",
    ["[" * 900 + "]" * 900, "[" * 100_000, "NaN", '{"x": Infinity}', '{"x": 1e999}', "x"],
)
def test_arguments_that_cannot_be_an_object_are_text(arguments: str) -> None:
    """Models write what they like."""
    found = arguments_of(ToolCall(id="1", name="f", arguments=arguments))
    assert json.loads(json.dumps(found, allow_nan=False)).keys() == {"arguments"}


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/api/embed", {"input": "x"}),
        ("/api/embeddings", {"prompt": "x"}),
        ("/api/chat", {"messages": [{"role": "user", "content": "x"}]}),
        ("/api/generate", {"prompt": "x"}),
    ],
)
async def test_a_context_that_nobody_has_is_a_hint(
    path: str, fields: dict[str, Any], autojump_clock: MockClock
) -> None:
    """What does not fit the context that there is, is refused; programs ask for one by default."""
    async with open_client({"a": mock(context_tokens=100)}) as client:
        body = {"model": "mock", "options": {"num_ctx": 200}}
        fits = await client.post(path, body | fields)
        long = json.loads(json.dumps(fields).replace('"x"', json.dumps("x " * 150)))
        longer = await client.post(path, body | long)
    assert fits.status == 200
    assert fits.headers["x-punch-taken"] == "options.num_ctx"
    assert longer.status == 400
    assert "100" in longer.json()["error"]


async def test_a_stream_that_waits_in_vain_is_a_503(autojump_clock: MockClock) -> None:
    """There are no comments, so the status is still open when the time runs out."""
    async with open_client({"a": mock(decode_rate=1.0, slots=1)}) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.post, "/api/chat", chat(options={"num_predict": 60}))
            await trio.sleep(1)
            reply = await client.post("/api/chat", chat(punch={"timeout": 12}))
            nursery.cancel_scope.cancel()
    assert reply.status == 503
    assert int(reply.headers["retry-after"]) >= 1
    assert reply.json().keys() == {"error"}


async def test_an_answer_that_breaks_ends_in_an_error_line(autojump_clock: MockClock) -> None:
    """The official client raises it."""
    backends = {name: mock(decode_rate=10.0) for name in "ab"}
    body = chat(options={"num_predict": 40}, punch={"continuation": False})
    async with open_client(backends) as client:
        async with client.open("POST", "/api/chat", body) as connection:
            await connection.until(5)
            client.swarm.kill(connection.reply.headers["x-punch-peer"])
    assert connection.reply.lines()[-1].keys() == {"error"}


async def test_options_that_are_null_are_not_given(autojump_clock: MockClock) -> None:
    """Some clients send all they know; what is null asks for nothing."""
    options = {"temperature": None, "mirostat": None, "num_ctx": None}
    async with open_client({"a": mock()}) as client:
        for path, body in (
            ("/api/embed", {"model": "mock", "input": "x"}),
            ("/api/generate", {"model": "mock", "prompt": "x", "stream": False}),
        ):
            reply = await client.post(path, body | {"options": options})
            assert reply.status == 200
