"""The gateway as its users meet it: official clients, real processes and a real model."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import httpx
import ollama
import openai
import psutil
import pytest
import trio
from integration.programs import Program, Programs, held_by, limit, open_programs, settled

# Never less than 0.28 between the logarithms of its best and second best token: any two builds
# of llama.cpp agree, on one machine and across a seam. See test_survival.
COUNTING = "Count from 1 to 30."
QUESTION: Any = [{"role": "user", "content": COUNTING}]
CITY: Any = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "inhabitants": {"type": "integer"}},
    "required": ["city", "inhabitants"],
    "additionalProperties": False,
}
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


def real_start(model: Path, server: Path) -> dict[str, Any]:
    """A listener with SmolLM2 in a llama-server of its own."""
    environment = {
        "PUNCH_INFERENCE_BACKEND": "llama_cpp",
        "LLAMA_GGUF_PATH": str(model),
        "LLAMA_THREADS": "1",
        "LLAMA_CPP_EXE": str(server),
    }
    return {"arguments": ("--slots", "2", "--context", "1024"), "environment": environment}


class Real:
    """A gateway in front of two listeners with SmolLM2."""

    def __init__(self, programs: Programs, start: dict[str, Any]) -> None:
        self.programs = programs
        self.start = start
        self.listeners: dict[str, Program] = {}
        self.complete()
        # Its one model is the only one on offer, and some tests ask for another.
        self.gateway = programs.gateway("--no-any-name")
        self.openai = openai.OpenAI(base_url=f"{self.gateway.url}/v1", api_key="none")
        self.ollama = ollama.Client(host=self.gateway.url)
        self.model = next(m.id for m in self.openai.models.list() if m.id != "auto")
        self.until_both_are_there()

    def complete(self) -> None:
        """Two listeners, whoever was killed."""
        missing = 2 - len(self.listeners)
        for program in self.programs.listeners(*[self.start] * missing):
            self.listeners[program.peer_id] = program

    def until_both_are_there(self) -> None:
        """Wait until the gateway knows both."""
        deadline = time.monotonic() + 30
        while httpx.get(f"{self.gateway.url}/ready").json().get("peers") != 2:
            assert time.monotonic() < deadline, self.gateway.err
            time.sleep(0.1)


@pytest.fixture(scope="module")
def real(
    tmp_path_factory: pytest.TempPathFactory, model_path: Path, llama_cpp_folder: Path
) -> Iterator[Real]:
    """See `Real`."""
    with open_programs(tmp_path_factory.mktemp("gateway")) as programs:
        programs.bootstrap()
        found = Real(programs, real_start(model_path, llama_cpp_folder / "llama-server"))
        with found.openai, found.ollama:
            yield found


def counted(real: Real, **fields: Any) -> str:
    """The whole answer to `QUESTION`."""
    said = real.openai.chat.completions.create(
        model=real.model, messages=QUESTION, temperature=0, max_tokens=60, **fields
    )
    return said.choices[0].message.content or ""


# ---- OpenAI ----


@limit(120)
def test_openais_client_chats(real: Real) -> None:
    """Whole and in parts, the same text; with usage, provenance and the model's own name."""
    raw = real.openai.chat.completions.with_raw_response.create(
        model="auto", messages=QUESTION, temperature=0, max_tokens=60
    )
    whole = raw.parse()
    assert raw.headers["x-punch-provenance"].startswith("real; backend=llama_cpp; digest=")
    assert raw.headers["x-punch-peer"] in real.listeners
    assert whole.model == real.model
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 60
    assert whole.choices[0].finish_reason == "length"
    stream = real.openai.chat.completions.create(
        model=real.model,
        messages=QUESTION,
        temperature=0,
        max_tokens=60,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 60


@limit(120)
def test_openais_client_stops_and_repeats(real: Real) -> None:
    """`stop`, `seed`, `n`, and completions."""
    text = counted(real)
    stopped = counted(real, stop=["5"])
    assert text.startswith(stopped)
    assert "5" not in stopped
    several = real.openai.chat.completions.create(
        model=real.model, messages=QUESTION, temperature=0.9, seed=3, n=2, max_tokens=10
    )
    again = real.openai.chat.completions.create(
        model=real.model, messages=QUESTION, temperature=0.9, seed=3, n=2, max_tokens=10
    )
    texts = [choice.message.content for choice in several.choices]
    assert texts == [choice.message.content for choice in again.choices]
    plain = real.openai.completions.create(
        model=real.model, prompt="Once upon a time", max_tokens=8, temperature=0
    )
    assert plain.choices[0].text


@limit(120)
def test_openais_client_calls_tools(real: Real) -> None:
    """A small model calls what it must; whole and at the end of a stream."""
    fields: Any = {
        "model": real.model,
        "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
        "tools": [WEATHER],
        "tool_choice": "required",
        "temperature": 0,
        "max_tokens": 100,
    }
    whole = real.openai.chat.completions.create(**fields)
    (choice,) = whole.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls
    (call,) = choice.message.tool_calls
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert "city" in json.loads(call.function.arguments)
    with real.openai.chat.completions.stream(**fields) as stream:
        streamed = stream.get_final_completion().choices[0].message.tool_calls
    assert streamed is not None
    assert streamed[0].function.arguments == call.function.arguments
    conversation = [
        *fields["messages"],
        choice.message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "21 degrees, sunny"},
    ]
    answer = real.openai.chat.completions.create(
        model=real.model, messages=conversation, tools=[WEATHER], max_tokens=20, temperature=0
    )
    assert answer.choices[0].finish_reason in ("stop", "length", "tool_calls")


@limit(120)
def test_a_call_that_the_limit_cuts_off_is_unfinished_and_a_tool_without_parameters_gets_none(
    real: Real,
) -> None:
    """In each dialect no JSON is shown as text, and what was made is counted."""
    named: Any = {"type": "function", "function": {"name": "get_weather"}}
    asked: Any = {
        "model": real.model,
        "messages": [{"role": "user", "content": "How is the weather in Paris?"}],
        "temperature": 0,
    }
    for limit_tokens in (3, 16):
        cut = real.openai.chat.completions.create(
            **asked, tools=[WEATHER], tool_choice=named, max_tokens=limit_tokens
        )
        (choice,) = cut.choices
        assert (choice.finish_reason, choice.message.content) == ("length", None)
        (call,) = choice.message.tool_calls or []
        assert call.type == "function"
        assert call.function.name == "get_weather"
        assert cut.usage is not None
        assert cut.usage.completion_tokens == limit_tokens
    parts = list(
        real.openai.chat.completions.create(
            **asked, tools=[WEATHER], tool_choice=named, max_tokens=16, stream=True
        )
    )
    choices = [part.choices[0] for part in parts if part.choices]
    assert "".join(choice.delta.content or "" for choice in choices) == ""
    assert [
        c.function.name for choice in choices for c in choice.delta.tool_calls or [] if c.function
    ] == ["get_weather"]
    assert choices[-1].finish_reason == "length"
    clock: Any = {"type": "function", "function": {"name": "tell_time"}}
    whole = real.openai.chat.completions.create(
        **asked, tools=[clock], tool_choice="required", max_tokens=400
    )
    (call,) = whole.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == ("tell_time", {})


@limit(120)
def test_tokens_that_are_no_text_are_counted_by_a_real_engine(real: Real) -> None:
    """A stop sequence that is hit at once, and half of a character."""
    said = real.openai.chat.completions.create(
        model=real.model, messages=QUESTION, temperature=0, max_tokens=8
    )
    text = said.choices[0].message.content or ""
    stopped = real.openai.chat.completions.create(
        model=real.model, messages=QUESTION, temperature=0, max_tokens=60, stop=[text]
    )
    assert stopped.choices[0].message.content == ""
    assert stopped.choices[0].finish_reason == "stop"
    assert stopped.usage is not None
    assert stopped.usage.completion_tokens == 8
    for made in (1, 2, 3):
        emoji = real.openai.completions.create(
            model=real.model, prompt="\U0001f600" * 24, temperature=0, max_tokens=made
        )
        assert emoji.usage is not None
        assert emoji.usage.completion_tokens == made


@limit(120)
def test_openais_client_gets_json_that_fits_a_schema(real: Real) -> None:
    """Made under a grammar: it is valid, whatever it says."""
    messages: Any = [{"role": "user", "content": "Name a city and its inhabitants as JSON."}]
    fitted = real.openai.chat.completions.create(
        model=real.model,
        messages=messages,
        max_tokens=100,
        temperature=0,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "city", "schema": CITY, "strict": True},
        },
    )
    found = json.loads(fitted.choices[0].message.content or "")
    assert found.keys() == {"city", "inhabitants"}
    assert isinstance(found["inhabitants"], int)
    likely = real.openai.chat.completions.create(
        model=real.model, messages=QUESTION, max_tokens=4, temperature=0, logprobs=True,
        top_logprobs=2,
    )  # fmt: skip
    logprobs = likely.choices[0].logprobs
    assert logprobs is not None
    assert len(logprobs.content or ()) == 4
    assert all(len(token.top_logprobs) == 2 for token in logprobs.content or ())


@limit(120)
def test_openais_client_embeds_with_a_real_model(real: Real) -> None:
    """One vector a text, the same for the same text."""
    said = real.openai.embeddings.create(model=real.model, input=["a cat", "a dog", "a cat"])
    first, second, third = [each.embedding for each in said.data]
    assert len(first) == len(second) > 100
    assert first == pytest.approx(third, abs=1e-3)
    assert first != pytest.approx(second, abs=1e-3)


@limit(120)
def test_openais_client_uses_responses(real: Real) -> None:
    """The newer API, whole and in parts."""
    whole = real.openai.responses.create(
        model=real.model, input=COUNTING, temperature=0, max_output_tokens=60
    )
    assert whole.output_text == counted(real)
    with real.openai.responses.stream(
        model=real.model, input=COUNTING, temperature=0, max_output_tokens=60
    ) as stream:
        text = "".join(e.delta for e in stream if e.type == "response.output_text.delta")
    assert text == whole.output_text


@limit(120)
async def test_openais_async_client_streams_side_by_side(real: Real) -> None:
    """On asyncio in its own thread, as its users run it."""

    async def ask() -> list[str]:
        import asyncio

        async with openai.AsyncOpenAI(base_url=f"{real.gateway.url}/v1", api_key="none") as client:

            async def one() -> str:
                stream = await client.chat.completions.create(
                    model=real.model, messages=QUESTION, temperature=0, max_tokens=20, stream=True
                )
                return "".join([c.choices[0].delta.content or "" async for c in stream])

            return list(await asyncio.gather(*(one() for _ in range(4))))

    def run() -> list[str]:
        import asyncio

        return asyncio.run(ask())

    texts = await trio.to_thread.run_sync(run)
    assert len(set(texts)) == 1
    assert texts[0]


@limit(120)
def test_openais_client_raises_what_it_should(real: Real) -> None:
    """Its own classes, with our words."""
    client = real.openai.with_options(max_retries=0)
    with pytest.raises(openai.NotFoundError, match=real.model):
        client.chat.completions.create(model="nobody-has-it", messages=QUESTION)
    with pytest.raises(openai.BadRequestError, match="temperature") as refused:
        client.chat.completions.create(model=real.model, messages=QUESTION, temperature=-1)
    assert refused.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as too_long:
        long: Any = [{"role": "user", "content": "word " * 3000}]
        client.chat.completions.create(model=real.model, messages=long)
    assert too_long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="dimensions is 2; the embeddings"):
        client.embeddings.create(model=real.model, input="x", dimensions=2)
    with pytest.raises(openai.APIStatusError) as late:
        client.chat.completions.create(
            model=real.model, messages=QUESTION, extra_body={"punch": {"timeout": 0.05}}
        )
    assert late.value.status_code in (503, 504)


@limit(180)
def test_a_listener_that_dies_in_mid_stream_is_not_noticed(real: Real) -> None:
    """SIGKILL half way through: the text is whole, and the last chunk says who made it."""
    whole = counted(real)
    stream = real.openai.chat.completions.with_raw_response.create(
        model=real.model, messages=QUESTION, temperature=0, max_tokens=60, stream=True
    )
    victim = stream.headers["x-punch-peer"]
    text, last = "", None
    for heard, chunk in enumerate(stream.parse()):
        last = chunk
        text += chunk.choices[0].delta.content or ""
        if heard == 30:
            real.listeners.pop(victim).send(signal.SIGKILL)
    assert text == whole
    assert last is not None
    segments = last.model_extra["punch"]["segments"] if last.model_extra else []
    assert segments[0]["peer_id"] == victim
    assert len(segments) == 2
    assert sum(segment["tokens"] for segment in segments) == 60
    real.complete()
    real.until_both_are_there()


# ---- Ollama ----


@limit(180)
def test_ollamas_client_works_unchanged(real: Real) -> None:
    """List, show, chat, generate, tools, formats, errors; and a death in mid-stream."""
    client, model = real.ollama, real.model
    options = {"temperature": 0, "num_predict": 60}
    assert [each.model for each in client.list().models] == [model]
    shown = client.show(model)
    assert shown.capabilities is not None
    assert "completion" in shown.capabilities
    assert "embedding" not in shown.capabilities
    # From the header of the file; the context is the listeners', who were started with it.
    assert shown.modelinfo is not None
    assert shown.modelinfo["general.architecture"] == "llama"
    assert shown.modelinfo["llama.context_length"] == 1024
    assert client.ps().models[0].model == model
    whole = client.chat(model, messages=QUESTION, options=options)
    assert whole.message.content == counted(real)
    assert whole.eval_count == 60
    assert client.generate(model, COUNTING, options=options).response == whole.message.content
    asked: Any = [{"role": "user", "content": "Name a city and its inhabitants as JSON."}]
    fitted = client.chat(
        model, messages=asked, format=CITY, options={"temperature": 0, "num_predict": 100}
    )
    assert json.loads(fitted.message.content or "").keys() == {"city", "inhabitants"}
    with pytest.raises(ollama.ResponseError, match="on offer"):
        client.chat("nobody-has-it", messages=QUESTION)
    text = ""
    parts = client.chat(model, messages=QUESTION, options=options, stream=True)
    for heard, part in enumerate(parts):
        text += part.message.content or ""
        if heard == 30:
            busy = [peer_id for peer_id, program in real.listeners.items() if _is_busy(program)]
            victim = busy[0] if busy else next(iter(real.listeners))
            real.listeners.pop(victim).send(signal.SIGKILL)
    assert text == whole.message.content
    real.complete()
    real.until_both_are_there()


def _is_busy(program: Program) -> bool:
    """Whether its llama-server computes."""
    children = psutil.Process(program.pid).children(recursive=True)
    return any(child.cpu_percent(0.05) > 20 for child in children)


# ---- with mocks: embeddings, clients that leave, the end ----


@limit(120)
def test_openais_client_embeds(programs: Programs) -> None:
    """It asks for base64 unless it is told otherwise; both are the same numbers."""
    programs.listener()
    gateway = programs.gateway()
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none") as client:
        packed = client.embeddings.create(model="mock", input=["a b", "c"])
        plain = client.embeddings.create(model="mock", input=["a b", "c"], encoding_format="float")
    with ollama.Client(host=gateway.url) as other:
        vectors = other.embed("mock", ["a b", "c"]).embeddings
    assert len(packed.data) == 2
    assert packed.data[0].embedding == pytest.approx(plain.data[0].embedding, rel=1e-6)
    assert list(vectors[0]) == plain.data[0].embedding


@limit(120)
def test_a_client_that_hangs_up_frees_the_listener_within_200_ms(programs: Programs) -> None:
    """Through two processes and a socket: it takes the next request at once."""
    programs.listener("--slots", "1", PUNCH_MOCK_DECODE_RATE="20")
    gateway = programs.gateway()
    body = {"messages": QUESTION, "max_tokens": 1000, "stream": True}
    for _ in range(5):
        with httpx.stream("POST", f"{gateway.url}/v1/chat/completions", json=body) as stream:
            lines = stream.iter_lines()
            assert isinstance(lines, Generator)
            next(lines)
        lines.close()
        left_at = time.monotonic()
        short = {"messages": QUESTION, "max_tokens": 1}
        said = httpx.post(f"{gateway.url}/v1/chat/completions", json=short, timeout=10)
        assert said.status_code == 200
        # A token takes 50 ms of it, and both programs share two cores with this one.
        assert time.monotonic() - left_at < 0.35


@limit(120)
def test_sigterm_lets_requests_finish(programs: Programs) -> None:
    """What was begun is answered; nothing is left behind."""
    programs.listener(PUNCH_MOCK_DECODE_RATE="10")
    gateway = programs.gateway()
    body = {"messages": QUESTION, "max_tokens": 20, "stream": True}
    with httpx.stream("POST", f"{gateway.url}/v1/chat/completions", json=body) as stream:
        lines = stream.iter_lines()
        next(lines)
        gateway.send(signal.SIGTERM)
        assert [line for line in lines if line][-1] == "data: [DONE]"
    result = gateway.wait()
    assert result.code == 0
    assert gateway.events("stopped")


@limit(120)
def test_one_process_can_be_listener_and_gateway(programs: Programs) -> None:
    """`punch serve --listen-too`: nothing else is needed."""
    gateway = programs.gateway("--listen-too")
    deadline = time.monotonic() + 20
    while httpx.get(f"{gateway.url}/ready").status_code != 200:
        assert time.monotonic() < deadline, gateway.err
        time.sleep(0.1)
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="x") as client:
        said = client.chat.completions.create(model="auto", messages=QUESTION, max_tokens=3)
        assert said.model == "mock"
        # Its connection is idle, and keeps nobody waiting.
        began = time.monotonic()
        assert gateway.stop().code == 0
        assert time.monotonic() - began < 5


# ---- clients that mean no good ----


def _connect(gateway: Program) -> socket.socket:
    host, port = gateway.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


@limit(180)
def test_a_thousand_idle_clients_do_not_stop_the_next_one(programs: Programs) -> None:
    """Each costs a descriptor and little memory, and all of it comes back."""
    programs.listener()
    gateway = programs.gateway()
    httpx.get(f"{gateway.url}/ready")
    before = held_by(gateway)
    idle = [_connect(gateway) for _ in range(1000)]
    try:
        for each in idle[:500]:
            each.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        for each in idle[:500]:
            assert each.recv(4096).startswith(b"HTTP/1.1 200")
        said = httpx.post(
            f"{gateway.url}/v1/chat/completions", json={"messages": QUESTION, "max_tokens": 3}
        )
        assert said.status_code == 200
        during = held_by(gateway)
        assert during.descriptors >= before.descriptors + 1000
        assert during.memory - before.memory < 100 << 20
    finally:
        for each in idle:
            each.close()
    after = settled(gateway, lambda held: held.descriptors <= before.descriptors + 5)
    assert after.descriptors <= before.descriptors + 5


@limit(120)
def test_clients_that_dribble_are_dropped(programs: Programs) -> None:
    """Half a request line, headers without an end, a body that does not come: ten seconds."""
    gateway = programs.gateway()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
    starts = [
        b"POST /v1/ch",
        head + b"x-a: b\r\n",
        head + b"content-type: application/json\r\ncontent-length: 100\r\n\r\n{",
    ]
    began = time.monotonic()
    clients = [_connect(gateway) for _ in starts]
    for client, start in zip(clients, starts, strict=True):
        client.sendall(start)
    ended: dict[int, float] = {}
    last = b""
    while len(ended) < len(clients) and time.monotonic() - began < 20:
        for index, client in enumerate(clients):
            if index in ended:
                continue
            client.settimeout(0.3)
            try:
                client.sendall(b"a")
                data = client.recv(4096)
            except TimeoutError:
                continue
            except OSError:
                data = b""
            if index == 2 and data:
                last += data
            if not data:
                ended[index] = time.monotonic() - began
    for client in clients:
        client.close()
    assert ended.keys() == {0, 1, 2}
    assert all(8 < seconds < 15 for seconds in ended.values()), ended
    assert last.startswith(b"HTTP/1.1 408")


@limit(120)
def test_what_no_server_should_read_is_refused(programs: Programs) -> None:
    """Headers without end, bodies without end, and no HTTP at all."""
    gateway = programs.gateway()
    with _connect(gateway) as client:
        client.sendall(b"GET / HTTP/1.1\r\n" + b"x-a: " + b"a" * 100_000)
        assert client.recv(4096).startswith(b"HTTP/1.1 431")
    with _connect(gateway) as client:
        client.sendall(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 400")
    big = b"x" * (33 << 20)
    headers = {"content-type": "application/json"}
    said = httpx.post(f"{gateway.url}/v1/chat/completions", content=big, headers=headers)
    assert said.status_code == 413
    # And where no body belongs.
    assert httpx.post(f"{gateway.url}/nothing", content=b"x" * (4 << 20)).status_code == 404
    assert httpx.get(f"{gateway.url}/health").status_code == 200
