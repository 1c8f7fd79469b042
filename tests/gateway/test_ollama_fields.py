"""What Ollama's clients say of a request: honoured, taken, or refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from gateway_client import open_client
from trio.testing import MockClock

from punch.backends import Emit, Generation, MockBackend, MockScript
from punch.capability import ModelOffer
from punch.testing import ScriptedBackend
from punch.wire import CommandRequest, Completion, Sampling, Timings, TokenLogprob, ToolCall, Usage

EVERYTHING = frozenset({"chat", "complete", "embed", "tools", "json_schema", "logprobs"})


def saying(asked: list[CommandRequest], completion: Completion | None = None) -> ScriptedBackend:
    """A backend that notes what it is asked, and says "ok" or what it is to say."""
    found = completion or Completion(text="ok")

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        asked.append(request)
        if request.command == "embed":
            vectors = Completion(embeddings=((3.0, 4.0, 12.0),) * len(request.inputs))
            return Generation(completion=vectors, usage=Usage(), timings=Timings())
        if found.text:
            await emit(found.text, 1)
        return Generation(completion=found, usage=Usage(), timings=Timings())

    offer = ModelOffer(name="m", features=EVERYTHING, context_tokens=4096)
    return ScriptedBackend(play, offers=(offer,))


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "hi"}]} | fields


def taken(reply: Any) -> set[str]:
    """What the answer says was taken and changed nothing."""
    return set(reply.headers.get("x-punch-taken", "").split(", ")) - {""}


# ---- how to choose tokens ----


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
@pytest.mark.parametrize(
    ("fields", "sampling"),
    [
        # Vercel's provider writes these beside the options.
        (
            {"temperature": 0.5, "top_p": 0.9, "max_output_tokens": 20},
            Sampling(temperature=0.5, top_p=0.9, max_tokens=20),
        ),
        (
            {"max_tokens": 7, "frequency_penalty": 0.5, "presence_penalty": 0.25, "stop": []},
            Sampling(max_tokens=7, frequency_penalty=0.5, presence_penalty=0.25),
        ),
        ({"seed": 3, "top_k": 4, "min_p": 0.5, "stop": "x"},
         Sampling(seed=3, top_k=4, min_p=0.5, stop=("x",))),
        ({"temperature": 1, "options": {"temperature": 0.25}}, Sampling(temperature=0.25)),
        ({"max_tokens": 9, "options": {"num_predict": 5}}, Sampling(max_tokens=5)),
        ({"max_tokens": 9, "options": {"num_predict": None}}, Sampling(max_tokens=9)),
        ({"num_predict": 11, "num_ctx": 4096, "num_gpu": 1}, Sampling(max_tokens=11)),
        # What stands for no limit, any seed and all tokens.
        ({"options": {"num_predict": -1, "seed": -1, "top_k": -1}}, Sampling(top_k=0)),
        ({"options": {"num_predict": -2, "top_k": 0}}, Sampling(top_k=0)),
        ({"max_tokens": -1, "options": {"num_predict": 0}}, Sampling()),
        # Whole numbers with a point, as JavaScript's and Go's may be.
        ({"options": {"num_predict": 8.0, "seed": 42.0, "top_k": 5.0}},
         Sampling(max_tokens=8, seed=42, top_k=5)),
        ({"options": {"stop": ["a"]}}, Sampling(stop=("a",))),
        ({"options": {"stop": ""}}, Sampling()),
        # To look back no token is to have no penalty.
        (
            {"options": {"repeat_last_n": 0, "repeat_penalty": 1.5}},
            Sampling(repeat_penalty=1.0, presence_penalty=0.0, frequency_penalty=0.0),
        ),
        ({"options": {"repeat_last_n": 64, "repeat_penalty": 1.5}}, Sampling(repeat_penalty=1.5)),
        ({"options": {"repeat_last_n": 33}}, Sampling()),
        ({"options": {"repeat_last_n": -1, "repeat_penalty": 1.0}}, Sampling(repeat_penalty=1.0)),
    ],
)  # fmt: skip
async def test_settings_with_a_meaning_are_honoured(
    path: str, fields: dict[str, Any], sampling: Sampling, autojump_clock: MockClock
) -> None:
    """Wherever they are written; those under `options` count more."""
    asked: list[CommandRequest] = []
    body = chat() if path == "/api/chat" else {"model": "m", "prompt": "hi"}
    async with open_client({"a": saying(asked)}) as client:
        reply = await client.post(path, body | fields | {"stream": False})
    assert reply.status == 200, reply.body
    assert asked[0].sampling == sampling


HINTS: dict[str, Any] = {
    "numa": True, "num_batch": 512, "num_gpu": 99, "main_gpu": 1, "low_vram": True,
    "f16_kv": True, "logits_all": False, "vocab_only": False, "use_mmap": True,
    "use_mlock": True, "embedding_only": False, "num_thread": 8, "num_keep": 4, "num_gqa": 1,
    "draft_num_predict": 4, "penalize_newline": True, "mirostat": 0, "mirostat_tau": 5.0,
    "mirostat_eta": 0.1, "tfs_z": 1.0, "typical_p": 1,
}  # fmt: skip


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate", "/api/embed", "/api/embeddings"])
async def test_hints_about_machines_and_off_values_are_taken(
    path: str, autojump_clock: MockClock
) -> None:
    """All that Ollama's own clients know, and the answer names each."""
    asked: list[CommandRequest] = []
    least = {"/api/chat": chat(), "/api/embed": {"model": "m", "input": "x"}}
    body = least.get(path, {"model": "m", "prompt": "x"})
    async with open_client({"a": saying(asked)}) as client:
        reply = await client.post(
            path,
            body | {"options": HINTS, "stream": False}
            if "embed" not in path
            else body | {"options": HINTS},
        )
    assert reply.status == 200, reply.body
    assert taken(reply) == {f"options.{name}" for name in HINTS}
    assert asked[0].sampling == Sampling()


async def test_options_that_cannot_be_honoured_are_refused_in_one_error(
    autojump_clock: MockClock,
) -> None:
    """Each by name, with what to do."""
    options = {"mirostat": 2, "tfs_z": 0.5, "typical_p": 0.7, "temperature": 0.5, "no_such": 1}
    fields = {"options": options, "_debug_render_only": True}
    async with open_client({"a": saying([])}) as client:
        reply = await client.post("/api/chat", chat(**fields))
    assert reply.status == 400
    error = reply.json()["error"]
    for name in ("options.mirostat", "options.tfs_z", "options.typical_p", "options.no_such"):
        assert name in error
    assert "_debug_render_only" in error
    assert "temperature" not in error


@pytest.mark.parametrize(
    "penalty", [{"repeat_penalty": 1.1}, {"presence_penalty": 0.5}, {"frequency_penalty": -0.5}]
)
async def test_penalties_over_another_length_are_refused(
    penalty: dict[str, float], autojump_clock: MockClock
) -> None:
    """Peers look back as far as llama.cpp does by itself."""
    async with open_client({"a": saying([])}) as client:
        reply = await client.post("/api/chat", chat(options={"repeat_last_n": 256} | penalty))
    assert reply.status == 400
    assert reply.json()["error"].startswith("options.repeat_last_n: it is 256, ")


async def test_an_embedding_chooses_no_tokens(autojump_clock: MockClock) -> None:
    """Programs send one set of options with all that they ask."""
    options = {"temperature": 0, "num_predict": 5, "mirostat": 1, "stop": ["x"], "seed": 3}
    async with open_client({"a": saying([])}) as client:
        for path, body in (("/api/embed", {"input": "x"}), ("/api/embeddings", {"prompt": "x"})):
            reply = await client.post(path, {"model": "m", "options": options} | body)
            assert reply.status == 200, reply.body
            assert taken(reply) == {f"options.{name}" for name in options}


# ---- the other fields ----


@pytest.mark.parametrize(
    ("path", "fields", "name"),
    [
        ("/api/generate", {"suffix": "}"}, "suffix"),
        ("/api/generate", {"template": "{{ .Prompt }}"}, "template"),
        ("/api/generate", {"context": [1, 2]}, "context"),
        ("/api/generate", {"echo": True}, "echo"),
        ("/api/generate", {"width": 512}, "width"),
        ("/api/generate", {"_debug_render_only": True}, "_debug_render_only"),
        ("/api/chat", {"think": "very"}, "think"),
        ("/api/chat", {"think": 1}, "think"),
        ("/api/chat", {"format": "xml"}, "format"),
        ("/api/chat", {"surely_not": 1}, "surely_not"),
    ],
)
async def test_other_fields_are_refused_by_name(
    path: str, fields: dict[str, Any], name: str, autojump_clock: MockClock
) -> None:
    """They would change the answer."""
    body = chat() if path == "/api/chat" else {"model": "m", "prompt": "hi"}
    async with open_client({"a": saying([])}) as client:
        reply = await client.post(path, body | fields)
    assert reply.status == 400
    assert reply.json()["error"].startswith(name)


NOTHING: dict[str, Any] = {
    "suffix": "", "template": "", "context": [], "echo": False, "width": 0, "images": [],
    "format": "", "keep_alive": "5m", "options": None, "truncate": True, "shift": False,
    "user": "ann", "_debug_render_only": False, "raw": False, "logprobs": False,
    "top_logprobs": 0, "stop": [], "system": None,
}  # fmt: skip


async def test_what_asks_for_nothing_is_taken(autojump_clock: MockClock) -> None:
    """Empty, off, or null."""
    asked: list[CommandRequest] = []
    async with open_client({"a": saying(asked)}) as client:
        body = {"model": "m", "prompt": "hi", "stream": False}
        reply = await client.post("/api/generate", body | NOTHING)
        null = await client.post("/api/generate", body | dict.fromkeys(NOTHING))
    assert (reply.status, null.status) == (200, 200), (reply.body, null.body)
    assert asked[0].sampling == asked[1].sampling == Sampling()


@pytest.mark.parametrize(
    ("think", "effort"),
    [
        (None, None),
        (False, "none"),
        (True, "medium"),
        ("low", "low"),
        ("high", "high"),
        ("max", "high"),
    ],
)
async def test_think_says_how_much(
    think: Any, effort: str | None, autojump_clock: MockClock
) -> None:
    """Taken by a model that cannot think: there it is no matter."""
    asked: list[CommandRequest] = []
    async with open_client({"a": saying(asked)}) as client:
        reply = await client.post("/api/chat", chat(think=think, stream=False))
        other = await client.post("/api/generate", {"model": "m", "prompt": "x", "think": think})
    assert (reply.status, other.status) == (200, 200), reply.body
    assert [each.reasoning_effort for each in asked] == [effort, effort]


@pytest.mark.parametrize(
    ("choice", "asked_for"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        ({"type": "function", "name": "f"}, "function:f"),
        ({"type": "function", "function": {"name": "f"}}, "function:f"),
        (None, None),
    ],
)
async def test_a_choice_among_tools_is_honoured(
    choice: Any, asked_for: str | None, autojump_clock: MockClock
) -> None:
    """Ollama has none; Vercel's provider sends it all the same."""
    asked: list[CommandRequest] = []
    tool = {"type": "function", "function": {"name": "f", "parameters": None}, "items": None}
    async with open_client({"a": saying(asked)}) as client:
        reply = await client.post("/api/chat", chat(tools=[tool], tool_choice=choice, stream=False))
    assert reply.status == 200, reply.body
    assert asked[0].tool_choice == asked_for


async def test_log_probabilities_are_told(autojump_clock: MockClock) -> None:
    """With the last line, in the fields of Ollama's client."""
    asked: list[CommandRequest] = []
    found = Completion(
        text="ok",
        logprobs=(TokenLogprob(token="ok", logprob=-0.5, top=(("ok", -0.5), ("no", -2.0))),),
    )
    async with open_client({"a": saying(asked, found)}) as client:
        whole = await client.post("/api/chat", chat(logprobs=True, top_logprobs=2, stream=False))
        lines = await client.post("/api/generate", {"model": "m", "prompt": "x", "logprobs": True})
    expected = [
        {
            "token": "ok", "logprob": -0.5, "bytes": [111, 107],
            "top_logprobs": [
                {"token": "ok", "logprob": -0.5, "bytes": [111, 107]},
                {"token": "no", "logprob": -2.0, "bytes": [110, 111]},
            ],
        }
    ]  # fmt: skip
    assert whole.json()["logprobs"] == expected
    assert lines.lines()[-1]["logprobs"] == expected
    assert [each.logprobs for each in asked] == [2, 0]


async def test_what_was_answered_comes_back(autojump_clock: MockClock) -> None:
    """As Ollama's own clients echo it, with all that they have fields for."""
    asked: list[CommandRequest] = []
    call = ToolCall(id="call_1", name="f", arguments="{}")
    found = Completion(text="well", tool_calls=(call,), reasoning="hm", finish_reason="tool_calls")
    tool = {"type": "function", "function": {"name": "f"}}
    async with open_client({"a": saying(asked, found)}) as client:
        first = await client.post("/api/chat", chat(tools=[tool], stream=False))
        said = first.json()["message"]
        nulls = {"images": None, "tool_name": None, "thinking": None}
        turns = [
            {"role": "user", "content": "hi", **nulls, "tool_calls": None},
            nulls | said,
            {"role": "tool", "content": "1", "tool_name": "f"},
            {"role": "ASSISTANT", "content": ""},
        ]
        again = await client.post("/api/chat", chat(messages=turns, tools=[tool], stream=False))
    assert again.status == 200, again.body
    messages = asked[1].messages
    assert [message.role for message in messages] == ["user", "assistant", "tool"]
    assert messages[1].tool_calls[0].arguments == "{}"
    assert messages[2].tool_call_id == messages[1].tool_calls[0].id


async def test_outputs_belong_to_the_calls_of_their_tools(autojump_clock: MockClock) -> None:
    """In whichever order they come, as long as they say which tool was called."""
    asked: list[CommandRequest] = []
    turns = [
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "tool_calls": [{"function": {"name": name, "arguments": {}}} for name in "fgf"],
        },
        {"role": "tool", "content": "of g", "tool_name": "g"},
        {"role": "tool", "content": "first of f", "tool_name": "f"},
        {"role": "tool", "content": "second of f"},
    ]
    async with open_client({"a": saying(asked)}) as client:
        reply = await client.post("/api/chat", chat(messages=turns, stream=False))
    assert reply.status == 200, reply.body
    calls = [call.id for call in asked[0].messages[1].tool_calls]
    answered = [message.tool_call_id for message in asked[0].messages[2:]]
    assert answered == [calls[1], calls[0], calls[2]]


async def test_a_generated_answer_brings_an_empty_context(autojump_clock: MockClock) -> None:
    """Which can be sent back, and asks for nothing."""
    async with open_client({"a": saying([])}) as client:
        body = {"model": "m", "prompt": "x", "stream": False}
        first = await client.post("/api/generate", body)
        again = await client.post("/api/generate", body | {"context": first.json()["context"]})
    assert first.json()["context"] == []
    assert again.status == 200


@pytest.mark.parametrize(
    "message",
    [
        {"role": "User", "content": "hi"},
        {"role": "developer", "content": "hi"},
        {"role": "user", "content": []},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]},
        {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": None}}]},
    ],
)
async def test_messages_as_clients_write_them(
    message: dict[str, Any], autojump_clock: MockClock
) -> None:
    """Roles in any letters, no text where there is none, calls without arguments."""
    asked: list[CommandRequest] = []
    turns = [message, {"role": "user", "content": "well?"}]
    async with open_client({"a": saying(asked)}) as client:
        reply = await client.post("/api/chat", chat(messages=turns, stream=False))
    assert reply.status == 200, reply.body


# ---- embeddings ----


async def test_nothing_to_embed_loads_the_model(autojump_clock: MockClock) -> None:
    """As there: an empty list of vectors."""
    async with open_client({"a": saying([])}) as client:
        inputs: list[dict[str, Any]] = [{}, {"input": ""}, {"input": []}, {"input": None}]
        for given in inputs:
            reply = await client.post("/api/embed", {"model": "m", **given})
            assert (reply.status, reply.json()["embeddings"]) == (200, [])
        for given in [{}, {"prompt": ""}]:
            reply = await client.post("/api/embeddings", {"model": "m", **given})
            assert (reply.status, reply.json()) == (200, {"embedding": []})


async def test_fewer_dimensions_are_the_first_ones(autojump_clock: MockClock) -> None:
    """Brought to length 1, as Ollama does; more than there are cannot be had."""
    async with open_client({"a": saying([])}) as client:
        body = {"model": "m", "input": ["x"]}
        two = await client.post("/api/embed", body | {"dimensions": 2})
        all_of_them = await client.post("/api/embed", body | {"dimensions": 3})
        none = await client.post("/api/embed", body | {"dimensions": 0})
        more = await client.post("/api/embed", body | {"dimensions": 4})
    assert two.json()["embeddings"] == [[pytest.approx(0.6), pytest.approx(0.8)]]
    assert all_of_them.json()["embeddings"] == none.json()["embeddings"] == [[3.0, 4.0, 12.0]]
    assert more.status == 400


def mock() -> MockBackend:
    return MockBackend(MockScript())


async def test_raw_goes_without_system_and_template(autojump_clock: MockClock) -> None:
    """There too: a raw prompt is all that the model reads."""
    async with open_client({"a": mock()}) as client:
        body = {"model": "mock", "prompt": "x", "raw": True, "stream": False}
        plain = await client.post("/api/generate", body)
        system = await client.post("/api/generate", body | {"system": "y"})
    assert plain.status == 200
    assert (system.status, system.json()) == (400, {"error": "system does not go with raw"})
