"""Anthropic's official client: against mocks, one of which dies, and against a real model."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import pytest
from integration.programs import Program, Programs, limit, open_programs

QUESTION: Any = [{"role": "user", "content": "Count from 1 to 30."}]
# The client has left the field to its older models; the API has it.
GREEDY: Any = {"temperature": 0}
WEATHER: Any = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}


def client_of(gateway: Program) -> anthropic.Anthropic:
    """The official client, as its document has it but for the address."""
    return anthropic.Anthropic(base_url=gateway.url, api_key="none", max_retries=0)


def until_ready(gateway: Program, peers: int) -> None:
    """Wait until *gateway* knows so many listeners."""
    deadline = time.monotonic() + 60
    while httpx.get(f"{gateway.url}/ready").json().get("peers") != peers:
        assert time.monotonic() < deadline, gateway.err
        time.sleep(0.1)


@pytest.fixture(scope="module")
def real(
    tmp_path_factory: pytest.TempPathFactory, model_path: Path, llama_cpp_folder: Path
) -> Iterator[anthropic.Anthropic]:
    """A client of a gateway that has SmolLM2 in a llama-server of its own."""
    with open_programs(tmp_path_factory.mktemp("anthropic")) as programs:
        gateway = programs.gateway(
            *("--listen-too", "--slots", "2", "--context", "1024"),
            PUNCH_INFERENCE_BACKEND="llama_cpp",
            LLAMA_GGUF_PATH=str(model_path),
            LLAMA_THREADS="1",
            LLAMA_CPP_EXE=str(llama_cpp_folder / "llama-server"),
        )
        until_ready(gateway, 1)
        with client_of(gateway) as client:
            yield client


@limit(120)
def test_the_official_client_talks_with_a_real_model(real: anthropic.Anthropic) -> None:
    """Whole and streamed, the same text; counted as it is read; any name means the only model."""
    asked: Any = {
        "model": "claude-opus-5",
        "max_tokens": 24,
        "extra_body": GREEDY,
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "messages": QUESTION,
    }
    whole = real.messages.create(**asked)
    with real.messages.stream(**asked) as stream:
        text = "".join(stream.text_stream)
        streamed = stream.get_final_message()
    counted = real.messages.count_tokens(
        model="auto", system=asked["system"], messages=asked["messages"]
    )
    (block,) = whole.content
    assert block.type == "text"
    assert text == block.text == streamed.content[0].to_dict()["text"]
    assert (whole.stop_reason, whole.usage.output_tokens) == ("max_tokens", 24)
    read = whole.usage.input_tokens + (whole.usage.cache_read_input_tokens or 0)
    assert counted.input_tokens == read
    assert streamed.usage.output_tokens == 24
    stopped = real.messages.create(**asked, stop_sequences=["zzz", block.text[9:12]])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", block.text[9:12])
    again = real.messages.create(
        **asked | {"messages": [*QUESTION, whole.to_param(), {"role": "user", "content": "Go on."}]}
    )
    assert again.model == whole.model
    assert [each.id for each in real.models.list()] == ["auto", whole.model]
    assert real.models.retrieve(whole.model).max_input_tokens == 1024


@limit(120)
def test_the_official_client_continues_and_calls_tools(real: anthropic.Anthropic) -> None:
    """A begun answer is gone on with; a call that must be made is made, and its result read."""
    begun = real.messages.create(
        model="auto",
        max_tokens=8,
        extra_body=GREEDY,
        messages=[*QUESTION, {"role": "assistant", "content": "1, 2, 3,"}],
    )
    (block,) = begun.content
    assert block.type == "text"
    assert "4" in block.text
    assert not block.text.startswith("1, 2")
    messages: Any = [{"role": "user", "content": "How is the weather in Ulm?"}]
    asked: Any = {
        "model": "auto",
        "max_tokens": 40,
        "extra_body": GREEDY,
        "tools": [WEATHER],
        "messages": messages,
    }
    called = real.messages.create(**asked, tool_choice={"type": "tool", "name": "get_weather"})
    (use,) = called.content
    assert (use.type, called.stop_reason) == ("tool_use", "tool_use")
    assert list(use.input) == ["city"]
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "21 degrees"}
    answer = real.messages.create(
        **asked
        | {"messages": [*messages, called.to_param(), {"role": "user", "content": [result]}]}
    )
    assert answer.content


@limit(120)
def test_the_official_client_raises_what_it_should(real: anthropic.Anthropic) -> None:
    """Its own classes, with our words and the id of the request."""
    long: Any = [{"role": "user", "content": "word " * 3000}]
    with pytest.raises(
        anthropic.BadRequestError, match=r"prompt is too long: 3\d+ tokens > 1024 maximum"
    ) as too_long:
        real.messages.create(model="auto", max_tokens=9, messages=long)
    assert too_long.value.type == "invalid_request_error"
    assert too_long.value.request_id
    with pytest.raises(anthropic.BadRequestError, match="temperature"):
        real.messages.create(
            model="auto", max_tokens=9, messages=QUESTION, extra_body={"temperature": -1}
        )
    with pytest.raises(anthropic.NotFoundError):
        real.messages.batches.list()
    with pytest.raises(anthropic.APIStatusError) as late:
        real.messages.create(
            model="auto",
            max_tokens=900,
            messages=QUESTION,
            extra_body={"punch": {"timeout": 0.05}},
        )
    assert late.value.status_code in (503, 504)


@limit(120)
def test_a_listener_that_dies_in_mid_stream_is_not_noticed(programs: Programs) -> None:
    """SIGKILL half way through: the message is whole, and its end says who made it."""
    slow = {"environment": {"PUNCH_MOCK_DECODE_RATE": "60"}}
    programs.bootstrap()
    listeners = {each.peer_id: each for each in programs.listeners(slow, slow)}
    gateway = programs.gateway()
    until_ready(gateway, 2)
    asked: Any = {"model": "mock", "max_tokens": 60, "messages": QUESTION}
    with client_of(gateway) as client:
        whole = client.messages.create(**asked)
        with client.messages.stream(**asked) as stream:
            victim = stream.response.headers["x-punch-peer"]
            for heard, _ in enumerate(stream.text_stream):
                if heard == 20:
                    listeners[victim].send(signal.SIGKILL)
            message = stream.get_final_message()
    assert message.content[0].to_dict()["text"] == whole.content[0].to_dict()["text"]
    assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", 60)
