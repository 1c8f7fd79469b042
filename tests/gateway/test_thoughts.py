"""What a model thinks, in each dialect's own field; and how much it is asked to think."""

from __future__ import annotations

from typing import Any

import pytest
from gateway_client import open_client
from trio.testing import MockClock

from punch.backends import Emit, Generation, MockBackend, MockScript
from punch.capability import ModelOffer
from punch.testing import ScriptedBackend
from punch.wire import CommandRequest, Completion, Thought, Timings, Usage

CHAT, RESPONSES, OLLAMA = "/v1/chat/completions", "/v1/responses", "/api/chat"
ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
FEATURES = frozenset({"chat", "complete", "tools", "reasoning", "image"})


def thinker(asked: list[CommandRequest] | None = None, **offer: Any) -> ScriptedBackend:
    """Thinks two words, and says two."""

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        if asked is not None:
            asked.append(request)
        for part in (Thought("hm, "), Thought("yes"), "Well, ", "yes."):
            await emit(part, 1)
        return Generation(
            completion=Completion(text="Well, yes.", reasoning="hm, yes"),
            usage=Usage(prompt_tokens=1, completion_tokens=4, reasoning_tokens=2),
            timings=Timings(),
        )

    return ScriptedBackend(
        play, offers=(ModelOffer(**{"name": "m", "features": FEATURES} | offer),)
    )


async def test_a_chat_has_reasoning_content_whole_and_in_deltas(autojump_clock: MockClock) -> None:
    """Apart from the content, before it, and counted."""
    async with open_client({"a": thinker()}) as client:
        whole = await client.post(CHAT, ASK)
        stream = await client.post(
            CHAT, {**ASK, "stream": True, "stream_options": {"include_usage": True}}
        )
    message = whole.json()["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("hm, yes", "Well, yes.")
    assert whole.json()["usage"]["completion_tokens_details"] == {"reasoning_tokens": 2}
    deltas = [e["choices"][0]["delta"] for e in stream.events()[:-1] if e["choices"]]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "hm, yes"
    assert stream.text() == "Well, yes."
    kinds = [next(iter(delta.keys() - {"role"}), "") for delta in deltas]
    assert kinds.index("reasoning_content") < kinds.index("content", 1)
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert stream.events()[-2]["usage"]["completion_tokens_details"]["reasoning_tokens"] == 2


async def test_ollama_has_thinking_whole_and_in_lines(autojump_clock: MockClock) -> None:
    """In a chat beside the content, and in what was generated beside the response."""
    async with open_client({"a": thinker()}) as client:
        whole = await client.post(OLLAMA, {**ASK, "stream": False})
        lines = (await client.post(OLLAMA, {**ASK, "think": True})).lines()
        generated = await client.post(
            "/api/generate", {"model": "m", "prompt": "hi", "stream": False}
        )
    message = whole.json()["message"]
    assert (message["thinking"], message["content"]) == ("hm, yes", "Well, yes.")
    assert "".join(line["message"].get("thinking", "") for line in lines) == "hm, yes"
    assert "".join(line["message"]["content"] for line in lines) == "Well, yes."
    body = generated.json()
    assert (body["thinking"], body["response"]) == ("hm, yes", "Well, yes.")


@pytest.mark.parametrize("summary", [None, "auto"])
async def test_a_response_has_a_reasoning_item_before_its_message(
    summary: str | None, autojump_clock: MockClock
) -> None:
    """In its content; or as a summary where one was asked for, which programs show."""
    field, kind = ("content", "reasoning_text")
    if summary:
        field, kind = ("summary", "summary_text")
    ask = {"model": "m", "input": "hi", "reasoning": {"summary": summary}}
    async with open_client({"a": thinker()}) as client:
        whole = (await client.post(RESPONSES, ask, x_request_id="one")).json()
        stream = await client.post(RESPONSES, {**ask, "stream": True}, x_request_id="two")
    thought, message = whole["output"]
    assert (thought["type"], thought[field]) == ("reasoning", [{"type": kind, "text": "hm, yes"}])
    assert message["content"][0]["text"] == "Well, yes."
    assert whole["usage"]["output_tokens_details"] == {"reasoning_tokens": 2}
    events = stream.events()
    types = [event["type"] for event in events]
    name = "reasoning_summary_text" if summary else "reasoning_text"
    told = [e["delta"] for e in events if e["type"] == f"response.{name}.delta"]
    assert "".join(told) == "hm, yes"
    assert types.index(f"response.{name}.done") < types.index("response.output_text.delta")
    done = [e["item"] for e in events if e["type"] == "response.output_item.done"]
    assert events[-1]["response"]["output"] == done
    assert [item["type"] for item in done] == ["reasoning", "message"]
    assert [e["output_index"] for e in events if e["type"].endswith("item.done")] == [0, 1]
    assert done[0][field][0]["text"] == "hm, yes"


@pytest.mark.parametrize(
    ("path", "fields", "effort", "budget"),
    [
        (CHAT, {"reasoning_effort": "high"}, "high", None),
        (CHAT, {"reasoning_effort": "none"}, "none", None),
        (CHAT, {"reasoning_effort": None}, None, None),
        (CHAT, {"reasoning": {"effort": "low", "max_tokens": 9}}, "low", 9),
        (CHAT, {"reasoning": {"enabled": False}}, "none", None),
        (CHAT, {"chat_template_kwargs": {"enable_thinking": False}}, "none", None),
        (CHAT, {"chat_template_kwargs": {"enable_thinking": True}}, "medium", None),
        (RESPONSES, {"reasoning": {"effort": "minimal", "summary": "auto"}}, "minimal", None),
        (RESPONSES, {"reasoning": {"summary": "auto"}}, None, None),
        (OLLAMA, {"think": True}, "medium", None),
        (OLLAMA, {"think": False}, "none", None),
        (OLLAMA, {"think": "low"}, "low", None),
        (OLLAMA, {"think": None}, None, None),
        ("/v1/messages", {"thinking": {"type": "enabled", "budget_tokens": 1024}}, "medium", 1024),
    ],
)
@pytest.mark.parametrize("thinks", [True, False])
async def test_how_much_is_thought_is_asked_in_each_dialects_words(
    path: str,
    fields: dict[str, Any],
    effort: str | None,
    budget: int | None,
    thinks: bool,
    autojump_clock: MockClock,
) -> None:
    """Of a model that cannot think, too: it passes over the wish."""
    asked: list[CommandRequest] = []
    body: dict[str, Any] = {**ASK, **fields}
    if path == RESPONSES:
        body = {"model": "m", "input": "hi", **fields}
    elif path == "/v1/messages":
        body["max_tokens"] = 2000
    backend = thinker(asked, features=FEATURES if thinks else frozenset({"chat"}))
    async with open_client({"a": backend}) as client:
        reply = await client.post(path, body)
    assert reply.status == 200
    assert [(each.reasoning_effort, each.reasoning_budget) for each in asked] == [(effort, budget)]


async def test_what_was_thought_can_be_sent_back(autojump_clock: MockClock) -> None:
    """As each dialect has said it, it reaches the model again as what was thought."""
    asked: list[CommandRequest] = []
    async with open_client({"a": thinker(asked)}) as client:
        chat = (await client.post(CHAT, ASK)).json()["choices"][0]["message"]
        more = [*ASK["messages"], chat, {"role": "user", "content": "and?"}]
        assert (await client.post(CHAT, {**ASK, "messages": more})).status == 200
        ollama = (await client.post(OLLAMA, {**ASK, "stream": False})).json()["message"]
        more = [*ASK["messages"], ollama, {"role": "user", "content": "and?"}]
        assert (await client.post(OLLAMA, {**ASK, "messages": more})).status == 200
        for reasoning in ({}, {"summary": "auto"}):
            body = {"model": "m", "input": "hi", "reasoning": reasoning}
            output = (await client.post(RESPONSES, body)).json()["output"]
            items = [{"role": "user", "content": "hi"}, *output, {"role": "user", "content": "?"}]
            assert (await client.post(RESPONSES, {"model": "m", "input": items})).status == 200
    again = [each.messages[1] for each in asked[1::2]]
    assert [each.reasoning for each in again] == ["hm, yes"] * 4
    assert [each.content for each in again] == ["Well, yes."] * 4
    assert [len(each.messages) for each in asked[1::2]] == [3] * 4


async def test_a_stream_goes_on_when_its_peer_dies_while_it_thinks(
    autojump_clock: MockClock,
) -> None:
    """The client has both thoughts, apart, and one text."""
    script = MockScript(thinks=8, decode_rate=10.0)
    backends = {name: MockBackend(script) for name in "ab"}
    ask = {**ASK, "model": "mock", "stream": True}
    async with open_client(backends) as client, client.open("POST", CHAT, ask) as live:
        await live.until(3)
        (name,) = (n for n, each in client.swarm.listeners.items() if each.statistics().busy)
        client.swarm.kill(name)
    reply = live.reply
    deltas = [e["choices"][0]["delta"] for e in reply.events()[:-1]]
    thoughts = "".join(delta.get("reasoning_content", "") for delta in deltas)
    first, second = thoughts.split("\n\n")
    assert second.startswith(first)
    assert len(second.split()) == 8
    assert len(reply.text().split()) == 32
