"""What everyday programs put into their requests, asked of real processes over plain HTTP.

Each body is one that some program sends, or its neighbour. A mock answers, whose words depend on
the roles, the texts and the seed of a conversation and on nothing else: so the words also say
whether a field has changed anything.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from integration.programs import limit, open_programs

CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
COMPLETIONS, EMBEDDINGS = "/v1/completions", "/v1/embeddings"
OLLAMA, GENERATE = "/api/chat", "/api/generate"
EMBED, OLD_EMBED, SHOW = "/api/embed", "/api/embeddings", "/api/show"

MODEL = "llama3.2:latest"
FILE = "SmolLM2-135M-Instruct.Q4_1"
CONTEXT = 1000
LONG = "word " * 2000

USER: dict[str, Any] = {"role": "user", "content": "hi"}
PARAMETERS = {"type": "object", "properties": {"at": {"type": "integer"}}, "required": ["at"]}
FUNCTION = {"name": "look", "description": "Looks.", "parameters": PARAMETERS}
TOOL = {"type": "function", "function": FUNCTION}
ITEM_TOOL = {"type": "function", **FUNCTION}
PNG = base64.b64encode(
    base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
        "gg=="
    )
).decode()

LEAST: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [USER]},
    COMPLETIONS: {"prompt": "hi"},
    RESPONSES: {"input": "hi"},
    EMBEDDINGS: {"input": "hi"},
    MESSAGES: {"messages": [USER], "max_tokens": 32},
    OLLAMA: {"messages": [USER], "stream": False},
    GENERATE: {"prompt": "hi", "stream": False},
    EMBED: {"input": "hi"},
    OLD_EMBED: {"prompt": "hi"},
    SHOW: {},
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a gateway in front of two mocks; one of them thinks and takes pictures."""
    environment = {"PUNCH_MOCK_DECODE_RATE": "5000", "PUNCH_CONTEXT": str(CONTEXT)}
    able = {"PUNCH_MOCK_THINKS": "4", "PUNCH_MOCK_SEES": "1"}
    with open_programs(tmp_path_factory.mktemp("bodies")) as programs:
        programs.bootstrap()
        programs.listeners(
            {"environment": environment | {"PUNCH_MOCK_MODEL": MODEL}},
            {"environment": environment | able | {"PUNCH_MOCK_MODEL": FILE}},
        )
        gateway = programs.gateway()
        with httpx.Client(base_url=gateway.url, timeout=30) as asks:
            deadline = time.monotonic() + 30
            while asks.get("/ready").json().get("peers") != 2:
                assert time.monotonic() < deadline, gateway.err
                time.sleep(0.1)
            yield asks


class Found:
    """What came of the requests of one test, as far as it was not what it should be."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self.wrong: list[str] = []

    def ask(self, path: str, **fields: Any) -> httpx.Response:
        """The answer to the least of a request with these *fields*."""
        return self._client.post(path, json={"model": MODEL} | LEAST[path] | fields)

    def note(self, answer: httpx.Response, right: Any, *label: Any) -> None:
        """Keep what is not *right*."""
        if not right:
            asked = " ".join(map(str, label))
            self.wrong.append(f"{asked[:100]}: {answer.status_code} {answer.text[:160]}")

    def check(self) -> None:
        """Fail with all that was wrong."""
        assert self.wrong == [], f"{len(self.wrong)} answers:\n" + "\n".join(self.wrong)

    def taken(self, path: str, *, same: str | None = None, **fields: Any) -> httpx.Response:
        """Ask what must be taken, and must say the *same* where that is told."""
        answer = self.ask(path, **fields)
        right = answer.status_code == 200 and (same is None or said(answer) == same)
        self.note(answer, right, path, fields)
        return answer


@pytest.fixture
def found(client: httpx.Client) -> Found:
    """Asks; each test ends with its `check`."""
    return Found(client)


def said(answer: httpx.Response) -> str:
    """The words of an answer of any dialect, whole or streamed; nothing of an error."""
    if answer.status_code != 200:
        return ""
    if answer.headers["content-type"].startswith("application/json"):
        return _said(answer.json())
    if "ndjson" in answer.headers["content-type"]:
        return "".join(_said(json.loads(line)) for line in answer.text.splitlines())
    return "".join(_said(event) for event in events(answer))


def events(answer: httpx.Response) -> list[Any]:
    """What the data of server-sent events says."""
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines()]
    return [json.loads(line) for line in lines if line.startswith("{")]


def _said(body: Any) -> str:
    """The words of one object."""
    for choice in body.get("choices") or ():
        message = choice.get("message") or choice.get("delta") or choice
        return message.get("content") or message.get("text") or ""
    if body.get("type") in ("content_block_delta", "response.output_text.delta"):
        delta = body["delta"]
        return delta if isinstance(delta, str) else delta.get("text") or ""
    if "output" in body:
        parts = [part for item in body["output"] for part in item.get("content") or ()]
        return "".join(part.get("text") or "" for part in parts)
    if body.get("type") == "message":
        return "".join(block.get("text") or "" for block in body["content"])
    if "message" in body and isinstance(body["message"], dict):
        return body["message"].get("content") or ""
    return body.get("response") or ""


def words(answer: httpx.Response) -> str:
    """What an error of any dialect says."""
    error = answer.json().get("error")
    return error if isinstance(error, str) else (error or {}).get("message") or ""


# ---- calls side by side ----


@limit(60)
def test_calls_one_after_another_may_be_asked_for(found: Found) -> None:
    """LangChain, LlamaIndex, shell_gpt and pydantic-ai do so, with tools and without."""
    choice: Any
    for count in (False, True, None):
        for choice in ("required", "auto", {"type": "function", "function": {"name": "look"}}):
            found.taken(CHAT, tools=[TOOL], tool_choice=choice, parallel_tool_calls=count)
        for stream in (False, True):
            found.taken(CHAT, tools=[TOOL], parallel_tool_calls=count, stream=stream)
            found.taken(RESPONSES, tools=[ITEM_TOOL], parallel_tool_calls=count, stream=stream)
        found.taken(CHAT, parallel_tool_calls=count)
        found.taken(CHAT, parallel_tool_calls=count, tools=[], tool_choice="none")
        found.taken(RESPONSES, parallel_tool_calls=count, tools=[], tool_choice="auto")
    answer = found.taken(CHAT, tools=[TOOL], tool_choice="required", parallel_tool_calls=False)
    if answer.status_code == 200:
        (call,) = answer.json()["choices"][0]["message"]["tool_calls"]
        assert (call["function"]["name"], json.loads(call["function"]["arguments"]).keys()) == (
            "look",
            {"at"},
        )
    found.check()


# ---- what was said comes back ----

CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}
PARSED = {"name": "look", "arguments": '{"at": 1}', "parsed_arguments": {"at": 1}}
ADDED: list[dict[str, Any]] = [
    # LiteLLM.
    {"provider_specific_fields": {"refusal": None}},
    {"provider_specific_fields": None, "function_call": None, "tool_calls": None},
    {"reasoning_content": "hm", "thinking_blocks": [{"type": "thinking", "thinking": "hm"}]},
    # OpenAI's `.parse()`, `.stream()` and `model_dump()`.
    {"parsed": {"at": 1}, "refusal": None, "annotations": [], "audio": None},
    {"parsed": None, "function_call": None, "tool_calls": []},
    # OpenRouter, LangChain, Vercel AI SDK, LlamaIndex, and whoever comes next.
    {"reasoning": "hm", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]},
    {"additional_kwargs": {}, "response_metadata": {"id": 1}, "id": "run-1"},
    {"providerOptions": {}, "parts": [], "blocks": [{"block_type": "text", "text": "yes"}]},
    {"usage": {"prompt_tokens": 1}, "logprobs": None, "index": 0, "something_new": [1]},
]


CALLED: dict[str, list[dict[str, Any]]] = {
    CHAT: [{}, {"tools": [TOOL], "tool_choice": "required"}],
    RESPONSES: [{}, {"tools": [ITEM_TOOL], "tool_choice": "required"}],
    OLLAMA: [{}, {"tools": [TOOL], "tool_choice": "required"}],
    MESSAGES: [
        {},
        {
            "tools": [{"name": "look", "input_schema": PARAMETERS}],
            "tool_choice": {"type": "any"},
        },
    ],
}


@limit(60)
def test_what_was_said_comes_back_as_libraries_keep_it(found: Found) -> None:
    """Each is the message that it was, with a call or without."""
    back: dict[str, Any] = {"role": "assistant", "content": "yes"}
    plain = said(found.taken(CHAT, messages=[USER, back, USER]))
    result = {"role": "tool", "tool_call_id": "c1", "content": "ok"}
    called: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    after = said(found.taken(CHAT, messages=[USER, called, result]))
    for added in ADDED:
        # What was thought is part of the conversation, too.
        same = None if "hm" in str(added) else plain
        found.taken(CHAT, messages=[USER, back | added, USER], same=same)
        kept = {name: value for name, value in added.items() if name != "tool_calls"}
        found.taken(CHAT, messages=[USER, called | kept, result], same=same and after)
    calls: list[dict[str, Any]] = [
        CALL | {"index": 0},
        CALL | {"function": PARSED},
        CALL | {"function": PARSED, "index": 0, "provider_specific_fields": None},
        CALL | {"extra_content": None, "custom": None},
        {"id": "c1", "function": {"name": "look", "arguments": {"at": 1}}},
    ]
    for call in calls:
        found.taken(CHAT, messages=[USER, called | {"tool_calls": [call]}, result], same=after)
        found.taken(
            CHAT,
            messages=[USER, called | {"tool_calls": [call], "content": ""}, result],
            same=after,
        )
    found.check()


@limit(60)
def test_each_dialects_own_answer_comes_back(found: Found) -> None:
    """Whole, and what is gathered of a stream; with a call and without."""
    # OpenAI's chats.
    for fields in (*CALLED[CHAT], {"logprobs": True}):
        answer = found.taken(CHAT, **fields)
        streamed = found.taken(CHAT, stream=True, **fields)
        gathered: dict[str, Any] = {}
        for event in events(streamed) if streamed.status_code == 200 else ():
            for choice in event["choices"]:
                for name, value in choice["delta"].items():
                    text = isinstance(value, str) and name != "role"
                    gathered[name] = gathered.get(name, "") + value if text else value
        whole = answer.json()["choices"][0]["message"] if answer.status_code == 200 else {}
        for message in filter(None, (whole, gathered)):
            results = [
                {"role": "tool", "tool_call_id": call["id"], "content": "ok"}
                for call in message.get("tool_calls") or ()
            ]
            found.taken(CHAT, messages=[USER, message, *results, USER])
    # Responses.
    for fields in CALLED[RESPONSES]:
        answer = found.taken(RESPONSES, **fields)
        items = answer.json().get("output", [])
        outputs = [
            {"type": "function_call_output", "call_id": item["call_id"], "output": "ok"}
            for item in items
            if item["type"] == "function_call"
        ]
        for part in (part for item in items for part in item.get("content") or ()):
            part["parsed"] = {"at": 1}
        for item in items:
            if item["type"] == "function_call":
                item["parsed_arguments"] = {"at": 1}
        found.taken(RESPONSES, input=[USER, *items, *outputs, USER])
    # Ollama's.
    for fields in CALLED[OLLAMA]:
        answer = found.taken(OLLAMA, **fields)
        message = answer.json().get("message", USER)
        more = {"images": None, "thinking": None, "tool_name": None}
        results = [{"role": "tool", "content": "ok", "tool_name": "look"}]
        calls = message.get("tool_calls")
        found.taken(OLLAMA, messages=[USER, message | more, *(results if calls else ()), USER])
    # Anthropic's.
    for fields in CALLED[MESSAGES]:
        answer = found.taken(MESSAGES, **fields)
        blocks = answer.json().get("content") or [{"type": "text", "text": "yes"}]
        turn = [
            {"type": "tool_result", "tool_use_id": block["id"], "content": "ok"}
            for block in blocks
            if block["type"] == "tool_use"
        ]
        turn.append({"type": "text", "text": "hi"})
        back = [USER, {"role": "assistant", "content": blocks}, {"role": "user", "content": turn}]
        found.taken(MESSAGES, messages=back)
    found.check()


# ---- placeholders ----


@limit(60)
def test_a_message_that_says_nothing_is_as_good_as_none(found: Found) -> None:
    """Agents put one at the end, to be filled in."""
    empty: list[dict[str, Any]] = [
        {"content": ""},
        {"content": None},
        {},
        {"content": []},
        {"content": [{"type": "text", "text": ""}]},
        {"content": "", "tool_calls": []},
        {"content": None, "tool_calls": None, "refusal": None, "reasoning_content": ""},
    ]
    for path in (CHAT, OLLAMA, MESSAGES):
        plain = said(found.taken(path))
        for each in empty[: 4 if path == OLLAMA else 5] if path != CHAT else empty:
            message = {"role": "assistant"} | each
            found.taken(path, messages=[USER, message], same=plain)
            found.taken(path, messages=[USER, message, message], same=plain)
            found.taken(path, messages=[USER, message], stream=True, same=plain)
    plain = said(found.taken(RESPONSES))
    for content in ("", [], [{"type": "output_text", "text": ""}]):
        item = {"role": "assistant", "content": content}
        found.taken(RESPONSES, input=[USER, item], same=plain)
        found.taken(RESPONSES, input=[USER, item | {"type": "message"}], same=plain)
    found.check()


# ---- what asks for nothing ----

UNSET = """
    audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens
    max_tokens metadata modalities moderation n parallel_tool_calls prediction presence_penalty
    prompt_cache_key prompt_cache_retention reasoning_effort reasoning response_format
    safety_identifier seed service_tier stop store stream_options temperature tool_choice tools
    top_logprobs top_p user verbosity web_search_options stream thinking extra_body something_new
"""
UNSET_OF: dict[str, str] = {
    CHAT: UNSET,
    COMPLETIONS: "best_of echo frequency_penalty logit_bias logprobs max_tokens n presence_penalty "
    "seed stop stream stream_options suffix temperature top_p user something_new",
    RESPONSES: "background conversation include instructions max_output_tokens max_tool_calls "
    "metadata parallel_tool_calls previous_response_id prompt prompt_cache_key reasoning "
    "safety_identifier service_tier store stream stream_options temperature text tool_choice tools "
    "top_logprobs top_p truncation user something_new",
    EMBEDDINGS: "dimensions encoding_format user something_new",
    MESSAGES: "cache_control container context_management mcp_servers metadata output_config "
    "service_tier stop_sequences stream system temperature thinking tool_choice tools top_k top_p "
    "something_new",
    OLLAMA: "format keep_alive logprobs options think tools top_logprobs something_new",
    GENERATE: "context format images keep_alive logprobs options raw suffix system template think "
    "top_logprobs something_new",
    EMBED: "dimensions keep_alive options truncate something_new",
    OLD_EMBED: "keep_alive options something_new",
    SHOW: "name options system template verbose something_new",
}
NOTHING: dict[str, list[dict[str, Any]]] = {
    CHAT: [
        {"functions": []},
        {"functions": [], "function_call": "none"},
        {"tools": []},
        {"tools": [], "tool_choice": "none"},
        {"tool_choice": "none"},
        {"tool_choice": "auto"},
        {"reasoning_effort": "none"},
        {"reasoning_effort": "medium"},
        {"reasoning": {}},
        {"reasoning": {"effort": None, "summary": None}},
        {"verbosity": "medium"},
        {"modalities": ["text"]},
        {"logit_bias": {}},
        {"stop": []},
        {"stop": ""},
        {"response_format": {"type": "text"}},
        {"n": 1, "logprobs": False, "top_logprobs": 0},
        {"service_tier": "auto", "store": False, "metadata": {}},
        {"temperature": 1, "top_p": 1, "frequency_penalty": 0, "presence_penalty": 0},
        {"stream_options": {}},
        {"web_search_options": None, "prediction": None, "audio": None},
        {"typical_p": 1.0, "mirostat": 0, "cache_prompt": True, "samplers": []},
        {"best_of": 1, "use_beam_search": False, "length_penalty": 1.0, "ignore_eos": False},
    ],
    COMPLETIONS: [
        {"best_of": 1, "echo": False, "suffix": ""},
        {"logit_bias": {}, "stop": [], "n": 1},
        {"store": False, "suffix": None},
    ],
    RESPONSES: [
        {"include": [], "tools": [], "tool_choice": "auto"},
        {"truncation": "disabled", "background": False, "service_tier": "auto"},
        {"reasoning": {"effort": None, "summary": None}},
        {"reasoning": {"summary": "auto"}},
        {"text": {"format": {"type": "text"}, "verbosity": "medium"}},
        {"store": True, "metadata": {}, "max_tool_calls": None},
    ],
    EMBEDDINGS: [{"encoding_format": "float"}, {"user": ""}],
    MESSAGES: [
        {"stop_sequences": [], "tools": [], "system": ""},
        {"system": []},
        {"thinking": {"type": "disabled"}},
        {"metadata": {"user_id": "x"}, "service_tier": "auto"},
        {"mcp_servers": [], "container": None},
    ],
    OLLAMA: [
        {"tools": [], "format": "", "options": {}, "think": False},
        {"keep_alive": "5m", "truncate": True, "shift": True},
    ],
    GENERATE: [
        {"suffix": "", "template": "", "system": "", "context": [], "images": []},
        {"raw": False, "format": "", "options": None, "keep_alive": 0},
    ],
    EMBED: [{"truncate": True, "options": {}, "keep_alive": "5m", "dimensions": 0}],
    OLD_EMBED: [{"options": {}, "keep_alive": "5m"}],
    SHOW: [{"verbose": False, "options": {}, "system": "", "template": ""}],
}


@limit(120)
@pytest.mark.parametrize("path", NOTHING)
def test_null_an_empty_list_none_and_a_default_ask_for_nothing(path: str, found: Found) -> None:
    """The answer has the words that it has without them."""
    plain = said(found.taken(path))
    names = UNSET_OF[path].split()
    for name in names:
        fields: dict[str, Any] = {name: None}
        if name == "stream" and path in (OLLAMA, GENERATE):
            continue
        found.taken(path, same=plain, **fields)
    found.taken(path, same=plain, **dict.fromkeys(names))
    for fields in NOTHING[path]:
        loads = path == GENERATE and "keep_alive" in fields and fields["keep_alive"] == 0
        found.taken(path, same=None if loads else plain, **fields)
    found.check()


# ---- Codex ----

CODEX: dict[str, Any] = {
    "instructions": "You are Codex.",
    "input": [
        {
            "type": "message",
            "id": "msg_a",
            "role": "developer",
            "content": [{"type": "input_text", "text": "Be brief."}],
        },
        {
            "type": "message",
            "id": "msg_b",
            "role": "user",
            "content": [{"type": "input_text", "text": "hi"}],
        },
    ],
    "tools": [
        {"type": "function", "name": "shell", "strict": False, "parameters": PARAMETERS},
        {
            "type": "namespace",
            "name": "mcp__files",
            "description": "Files.",
            "tools": [{"type": "function", "name": "read", "parameters": PARAMETERS}],
        },
    ],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "reasoning": {"summary": "auto"},
    "store": False,
    "stream": True,
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "k",
    "client_metadata": {"x-codex-installation-id": "1"},
}
SERVERS_OWN = ("web_search", "web_search_preview", "image_generation", "file_search", "mcp")


@limit(60)
def test_codex_is_served_and_told_at_once_what_runs_elsewhere(found: Found) -> None:
    """Its groups of functions work; tools that OpenAI runs are refused in one text."""
    for stream in (True, False):
        found.taken(RESPONSES, **CODEX | {"stream": stream})
    for left_out in ("include", "reasoning", "client_metadata", "tools"):
        found.taken(RESPONSES, **{k: v for k, v in CODEX.items() if k != left_out})
    for more in ({"effort": "high", "summary": "detailed"}, {"effort": "minimal"}, {}, None):
        found.taken(RESPONSES, **CODEX | {"reasoning": more})
    for kind in SERVERS_OWN:
        tool = {"type": kind, "external_web_access": True}
        answer = found.ask(RESPONSES, **CODEX | {"tools": [*CODEX["tools"], tool]})
        right = answer.status_code == 400 and kind in words(answer) and "off" in words(answer)
        found.note(answer, right and len(words(answer).splitlines()) == 1, kind)
    several = [{"type": kind} for kind in SERVERS_OWN]
    answer = found.ask(RESPONSES, **CODEX | {"tools": [*CODEX["tools"], *several]})
    right = answer.status_code == 400 and all(kind in words(answer) for kind in SERVERS_OWN)
    found.note(answer, right, "all of them at once")
    # What is wrong elsewhere is said in the same error.
    both = {"tools": several[:1], "moderation": {"x": 1}, "something_new": 5}
    answer = found.ask(RESPONSES, **CODEX | both)
    right = all(name in words(answer) for name in ("web_search", "moderation", "something_new"))
    found.note(answer, right, "with other fields")
    found.check()


# ---- Claude Code ----

CACHED = {"cache_control": {"type": "ephemeral"}}
CLAUDE: dict[str, Any] = {
    "max_tokens": 64,
    "stream": True,
    "system": [
        {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1"},
        {"type": "text", "text": "You are Claude Code.", **CACHED},
    ],
    "messages": [{"role": "user", "content": [{"type": "text", "text": "hi", **CACHED}]}],
    "tools": [{"name": "look", "description": "Looks.", "input_schema": PARAMETERS, **CACHED}],
    "metadata": {"user_id": "user_1"},
    "thinking": {"type": "adaptive"},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
}


@limit(60)
def test_claude_code_and_its_neighbours_are_served(found: Found, client: httpx.Client) -> None:
    """Streams, whole answers, counted tokens and lists, in Anthropic's shapes."""
    headers = {"x-api-key": "none", "anthropic-version": "2023-06-01", "anthropic-beta": "a,b"}
    body = {"model": MODEL} | CLAUDE
    for path in (MESSAGES, f"{MESSAGES}?beta=true"):
        for stream in (True, False):
            answer = client.post(path, json=body | {"stream": stream}, headers=headers)
            found.note(answer, said(answer), path, stream)
            if stream and answer.status_code == 200:
                kinds = [event["type"] for event in events(answer)]
                assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
    for name in ("thinking", "context_management", "tools", "system", "metadata"):
        less = {key: value for key, value in body.items() if key != name}
        answer = client.post(MESSAGES, json=less, headers=headers)
        found.note(answer, said(answer), "without", name)
    for budget in ({"type": "enabled", "budget_tokens": 1024}, {"type": "disabled"}):
        more = {"thinking": budget, "max_tokens": 2048}
        answer = client.post(MESSAGES, json=body | more, headers=headers)
        found.note(answer, said(answer), budget)
    counted = {key: body[key] for key in ("model", "messages", "system", "tools")}
    answer = client.post(f"{MESSAGES}/count_tokens?beta=true", json=counted, headers=headers)
    found.note(answer, answer.json().get("input_tokens", 0) > 0, "count_tokens")
    answer = client.get("/v1/models", headers=headers)
    shown = [each.get("type") for each in answer.json().get("data", ())]
    found.note(answer, shown and set(shown) == {"model"}, "models")
    answer = client.post(MESSAGES, json=body | {"model": "nobody-has-it"}, headers=headers)
    right = answer.status_code == 404 and answer.json().get("type") == "error"
    found.note(answer, right, "a model that nobody has")
    found.check()


# ---- Ollama's command line, VS Code, Vercel's provider ----


@limit(60)
def test_show_takes_whatever_ollamas_client_sends(found: Found, client: httpx.Client) -> None:
    """The name in either field; all others are there, and empty or null."""
    go = {"system": "", "template": "", "verbose": False, "options": None}
    bodies: list[dict[str, Any]] = [
        {"model": MODEL, **go, "name": ""},
        {"model": "", **go, "name": MODEL},
        {"model": MODEL, **go, "name": None},
        {"model": None, "name": MODEL},
        {"model": MODEL, "name": MODEL, "options": {"num_ctx": 1}, "verbose": True},
        {"name": MODEL},
        {"model": MODEL},
        {"model": "auto"},
        {"model": FILE, "system": None, "template": None, "verbose": None},
    ]
    for body in bodies:
        answer = client.post(SHOW, json=body)
        right = answer.status_code == 200 and "capabilities" in answer.json()
        found.note(answer, right, body)
    for method, path in (("HEAD", "/"), ("GET", "/api/version"), ("GET", "/api/tags")):
        answer = client.request(method, path)
        found.note(answer, answer.status_code == 200, method, path)
    answer = client.get("/")
    found.note(answer, answer.text.startswith("Ollama is running"), "GET /")
    found.check()


@limit(60)
def test_what_is_shown_of_a_model_is_what_programs_read(found: Found, client: httpx.Client) -> None:
    """No chat model embeds there; architecture, context and family; digests of 64 digits."""
    right: Any
    for name, able in ((MODEL, {"completion", "tools"}), (FILE, {"completion", "tools"})):
        answer = client.post(SHOW, json={"model": name})
        shown = answer.json()
        more = {"thinking", "vision"} if name == FILE else set()
        right = set(shown.get("capabilities", ())) == able | more
        found.note(answer, right, name, shown.get("capabilities"))
        info = shown.get("model_info") or {}
        architecture = info.get("general.architecture")
        right = architecture and info.get(f"{architecture}.context_length") == CONTEXT
        found.note(answer, right, name, info)
        family = (shown.get("details") or {}).get("family")
        found.note(answer, family, name, shown.get("details"))
    for path in ("/api/tags", "/api/ps"):
        answer = client.get(path)
        rows = answer.json()["models"]
        found.note(answer, len(rows) == 2, path)
        for row in rows:
            right = (
                re.fullmatch("[0-9a-f]{64}", row.get("digest") or "") and row["details"]["family"]
            )
            found.note(answer, right, path, row)
            if path == "/api/ps":
                found.note(answer, row.get("context_length") == CONTEXT, path, row)
    found.check()


@limit(60)
def test_settings_beside_options_count_and_hints_are_taken(found: Found) -> None:
    """As Vercel's provider writes them, and langchain-ollama."""
    plain = said(found.taken(OLLAMA))
    for fields in (
        {"temperature": 0.7, "top_p": 0.9, "top_k": 40, "min_p": 0.1, "seed": None},
        {"frequency_penalty": 0, "presence_penalty": 0, "stop": [], "keep_alive": "5m"},
        {"options": {"num_gpu": 99, "num_thread": 8, "num_batch": 512, "num_keep": 4}},
        {"options": {"num_ctx": 4096, "main_gpu": 0, "low_vram": False, "use_mmap": True}},
        {"options": {"mirostat": 0, "mirostat_eta": 0.1, "mirostat_tau": 5.0, "tfs_z": 1.0}},
        {"options": {"typical_p": 1.0, "penalize_newline": True, "numa": False}},
        {"options": dict.fromkeys(("num_gpu", "mirostat", "temperature", "stop"))},
        {"num_gpu": 1, "num_thread": 8, "mirostat": 0},
    ):
        found.taken(OLLAMA, same=plain, **fields)
        found.taken(GENERATE, **fields)
    for path in (EMBED, OLD_EMBED):
        found.taken(path, options={"num_gpu": 9, "num_thread": 8, "mirostat": 0, "temperature": 0})
    for fields in (
        {"max_output_tokens": 3},
        {"max_tokens": 3},
        {"num_predict": 3},
        {"options": {"num_predict": 3}},
        {"max_output_tokens": 9, "options": {"num_predict": 3}},
    ):
        for path in (OLLAMA, GENERATE):
            answer = found.taken(path, **fields)
            found.note(answer, answer.json().get("eval_count") == 3, path, fields)
    answer = found.taken(OLLAMA, tools=[TOOL], tool_choice="required", temperature=0)
    calls = (answer.json().get("message") or {}).get("tool_calls")
    found.note(answer, calls, "tool_choice")
    for path in (OLLAMA, GENERATE):
        answer = found.ask(path, options={"mirostat": 2, "tfs_z": 0.5, "no_such": 1})
        told = all(name in words(answer) for name in ("mirostat", "tfs_z", "no_such"))
        found.note(answer, answer.status_code == 400 and told, path, "not honoured")
    found.check()


# ---- too long ----


@limit(60)
def test_a_prompt_beyond_the_context_is_said_in_the_words_that_programs_know(found: Found) -> None:
    """With the field of its endpoint."""
    message = [{"role": "user", "content": LONG}]
    asked: list[tuple[str, dict[str, Any], str | None]] = [
        (CHAT, {"messages": message}, "messages"),
        (CHAT, {"messages": message, "stream": True}, "messages"),
        (COMPLETIONS, {"prompt": LONG}, "prompt"),
        (RESPONSES, {"input": LONG}, "input"),
        (RESPONSES, {"input": message, "stream": True}, "input"),
        (EMBEDDINGS, {"input": LONG}, "input"),
        (EMBEDDINGS, {"input": ["x", LONG]}, "input"),
        (OLLAMA, {"messages": message}, None),
        (GENERATE, {"prompt": LONG, "stream": True}, None),
        (EMBED, {"input": [LONG]}, None),
        (OLD_EMBED, {"prompt": LONG}, None),
    ]
    for path, fields, param in asked:
        answer = found.ask(path, **fields)
        right = answer.status_code == 400 and "maximum context length is 1000 tokens" in words(
            answer
        )
        if param is not None and right:
            error = answer.json()["error"]
            right = (error["param"], error["code"]) == (param, "context_length_exceeded")
        found.note(answer, right, path)
    answer = found.ask(MESSAGES, messages=message)
    right = answer.status_code == 400 and words(answer).startswith(
        "prompt is too long: 2000 tokens"
    )
    found.note(answer, right, MESSAGES)
    found.check()


# ---- names ----

NAMES = {
    MODEL: ("llama3.2:latest", "llama3.2", "Llama3.2", "LLAMA3.2:LATEST", "llama3.2.gguf"),
    FILE: (
        FILE,
        f"{FILE}:latest",
        f"{FILE}.gguf",
        f"{FILE.lower()}.gguf",
        f"models/{FILE}.gguf",
        "SmolLM2-135M-Instruct",
        "smollm2",
        "smollm2:latest",
    ),
}


@limit(120)
@pytest.mark.parametrize("path", LEAST)
def test_a_model_is_found_under_every_name(path: str, found: Found) -> None:
    """On every endpoint, and `auto` on each."""
    for model, names in NAMES.items():
        for name in names:
            answer = found.taken(path, model=name)
            if path != SHOW:
                meant = answer.headers.get("x-punch-model", name)
                found.note(answer, meant == model, path, name, meant)
    found.taken(path, model="auto")
    answer = found.ask(path, model="nobody-has-it")
    found.note(answer, answer.status_code == 404, path, "nobody-has-it")
    found.check()


@limit(60)
def test_a_model_is_found_in_the_list_under_every_name(found: Found, client: httpx.Client) -> None:
    """By its path."""
    for model, names in NAMES.items():
        for name in names:
            answer = client.get(f"/v1/models/{name}")
            found.note(answer, answer.json().get("id") == model, name)
    found.check()


# ---- pi ----


@limit(60)
def test_a_stream_that_ends_by_length_has_its_usage_unasked(found: Found) -> None:
    """In the event that says why it ended: pi prints nothing otherwise."""
    for fields in ({"max_tokens": 3}, {"max_completion_tokens": 3}, {"stream_options": None}):
        answer = found.taken(CHAT, stream=True, **{"max_tokens": 3} | fields)
        if answer.status_code == 200:
            last = events(answer)[-1]
            usage = last.get("usage") or {}
            right = last["choices"] and last["choices"][0]["finish_reason"] == "length"
            found.note(answer, right and usage.get("completion_tokens") == 3, fields, last)
    answer = found.taken(COMPLETIONS, stream=True, max_tokens=3)
    usage = events(answer)[-1].get("usage") or {}
    found.note(answer, usage.get("completion_tokens") == 3, COMPLETIONS, usage)
    found.check()


# ---- numbers, addresses, schemas ----


@limit(60)
def test_numbers_are_read_as_their_programs_mean_them(found: Found) -> None:
    """-1 is any seed and no limit; a whole number may have a point."""
    plain = {path: said(found.taken(path)) for path in (CHAT, COMPLETIONS, RESPONSES)}
    for path in (CHAT, COMPLETIONS):
        found.taken(path, seed=-1)
        found.taken(path, max_tokens=-1, same=plain[path])
        found.taken(path, n=1.0, top_k=40.0, same=plain[path])
        answer = found.taken(path, max_tokens=3.0, seed=42.0)
        same = found.taken(path, max_tokens=3, seed=42)
        right = said(answer) == said(same) and len(said(answer).split()) == 3
        found.note(answer, right, path, "3.0")
    found.taken(CHAT, max_completion_tokens=-1, same=plain[CHAT])
    found.taken(RESPONSES, max_output_tokens=-1, same=plain[RESPONSES])
    answer = found.taken(RESPONSES, max_output_tokens=42.0)
    found.taken(MESSAGES, max_tokens=42.0)
    for path in (OLLAMA, GENERATE):
        found.taken(path, options={"seed": -1, "num_predict": -1, "top_k": 40.0})
        answer = found.taken(path, options={"num_predict": 3.0, "seed": 42.0})
        found.note(answer, answer.json().get("eval_count") == 3, path, "3.0")
    for value in (1.5, True, "x", [3]):
        answer = found.ask(CHAT, max_tokens=value)
        found.note(answer, answer.status_code == 400, "max_tokens", value)
    found.check()


@limit(60)
def test_addresses_without_v1_are_served(found: Found, client: httpx.Client) -> None:
    """Programs disagree on whether it is a part of the address."""
    paths = (CHAT, COMPLETIONS, RESPONSES, EMBEDDINGS, MESSAGES)
    for path in paths:
        body = {"model": MODEL} | LEAST[path]
        answer = client.post(path.removeprefix("/v1"), json=body)
        found.note(answer, answer.status_code == 200, path.removeprefix("/v1"))
    for path in ("/models", f"/models/{MODEL}"):
        answer = client.get(path)
        found.note(answer, answer.status_code == 200, path)
    found.check()


@limit(60)
def test_schemas_are_found_wherever_programs_put_them(found: Found) -> None:
    """And `repetition_penalty` is a name of `repeat_penalty`."""
    form: dict[str, Any]
    for form in (
        {"type": "json_object", "schema": PARAMETERS},
        {"type": "json_schema", "json_schema": {"schema": PARAMETERS}},
        {"type": "json_schema", "json_schema": {"name": "", "schema": PARAMETERS}},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": PARAMETERS, "strict": True}},
        {"type": "json_schema", "schema": PARAMETERS},
    ):
        answer = found.taken(CHAT, response_format=form)
        right = answer.status_code == 200 and json.loads(said(answer)).keys() == {"at"}
        found.note(answer, right, form)
    answer = found.taken(CHAT, response_format={"type": "json_object"})
    found.note(answer, answer.status_code == 200 and said(answer).startswith("{"), "json_object")
    for form in (
        {"type": "json_schema", "schema": PARAMETERS},
        {"type": "json_schema", "name": None, "schema": PARAMETERS},
    ):
        found.taken(RESPONSES, text={"format": form})
    found.taken(OLLAMA, format=PARAMETERS)
    for path in (CHAT, COMPLETIONS):
        found.taken(path, repetition_penalty=1.1)
        found.taken(path, repetition_penalty=1.0, repeat_penalty=1.0)
    found.check()


# ---- the words of errors ----

PYTHONS = re.compile(r"\b(True|False|None|NoneType|dict|str|int|pydantic)\b")
WRONG: dict[str, dict[str, Any]] = {
    CHAT: {"stream": "very", "stop": [True], "temperature": {"a": None}, "tools": [None]},
    COMPLETIONS: {"prompt": {"a": False}, "max_tokens": [None], "logprobs": "very"},
    RESPONSES: {"input": [None], "reasoning": [True], "tool_choice": False, "include": [None]},
    EMBEDDINGS: {"input": [None], "encoding_format": True, "dimensions": False},
    MESSAGES: {"max_tokens": True, "thinking": "very", "tools": [None], "system": False},
    OLLAMA: {"think": "very", "stream": "x", "options": [True], "format": True, "tools": [None]},
    GENERATE: {"think": [None], "images": [True], "raw": "x", "options": {"seed": {"a": None}}},
    EMBED: {"input": [None], "dimensions": True},
    OLD_EMBED: {"prompt": False},
    SHOW: {"model": True, "system": [None]},
}


@limit(60)
def test_errors_say_values_in_jsons_words(found: Found) -> None:
    """Whatever the endpoint, and however deep."""
    for path, fields in WRONG.items():
        for name, value in fields.items():
            answer = found.ask(path, **{name: value})
            told = words(answer) if answer.status_code == 400 else ""
            found.note(answer, name in told and not PYTHONS.search(told), path, {name: value})
    answer = found.ask(OLLAMA, think="very")
    found.note(answer, '"very"' in words(answer) and "true, false" in words(answer), "think")
    found.check()


# ---- pictures, and what is thought ----


@limit(60)
def test_pictures_reach_a_model_that_takes_them(found: Found) -> None:
    """In each dialect; a model that takes none is told by name, and so is an address."""
    data = f"data:image/png;base64,{PNG}"
    part = {"type": "image_url", "image_url": {"url": data}}
    text = {"type": "text", "text": "hi"}
    block = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
    asked: list[tuple[str, dict[str, Any]]] = [
        (CHAT, {"messages": [{"role": "user", "content": [text, part]}]}),
        (CHAT, {"messages": [{"role": "user", "content": [part]}]}),
        (
            RESPONSES,
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": data}]}]},
        ),
        (MESSAGES, {"messages": [{"role": "user", "content": [block]}], "max_tokens": 9}),
        (OLLAMA, {"messages": [USER | {"images": [PNG]}]}),
        (GENERATE, {"images": [PNG]}),
    ]
    for path, fields in asked:
        answer = found.ask(path, model=FILE, **fields)
        found.note(answer, said(answer), path, "sees")
        answer = found.ask(path, model=MODEL, **fields)
        right = answer.status_code == 400 and FILE in words(answer)
        found.note(answer, right, path, "does not see")
    part = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    answer = found.ask(CHAT, model=FILE, messages=[{"role": "user", "content": [part]}])
    found.note(answer, answer.status_code == 400 and "image_url" in answer.text, "an address")
    found.check()


@limit(60)
def test_what_a_model_thinks_is_in_each_dialects_own_field(found: Found) -> None:
    """Whole and streamed."""
    fields: dict[str, Any]
    for fields in ({}, {"reasoning_effort": "high"}):
        answer = found.taken(CHAT, model=FILE, **fields)
        message = answer.json().get("choices", [{}])[0].get("message", {})
        found.note(answer, message.get("reasoning_content"), CHAT, fields)
        answer = found.taken(CHAT, model=FILE, stream=True, **fields)
        deltas = [c["delta"] for e in events(answer) for c in e.get("choices", ())]
        thought = "".join(delta.get("reasoning_content") or "" for delta in deltas)
        found.note(answer, thought, CHAT, fields, "stream")
    answer = found.taken(RESPONSES, model=FILE, reasoning={"effort": "high", "summary": "auto"})
    kinds = [item["type"] for item in answer.json().get("output", ())]
    found.note(answer, kinds == ["reasoning", "message"], RESPONSES)
    answer = found.taken(OLLAMA, model=FILE, think=True)
    found.note(answer, (answer.json().get("message") or {}).get("thinking"), OLLAMA)
    answer = found.taken(
        MESSAGES,
        model=FILE,
        max_tokens=2048,
        thinking={"type": "enabled", "budget_tokens": 1024},
    )
    kinds = [block["type"] for block in answer.json().get("content", ())]
    found.note(answer, kinds == ["thinking", "text"], MESSAGES)
    for path, fields in (
        (CHAT, {"reasoning_effort": "none"}),
        (OLLAMA, {"think": False}),
        (MESSAGES, {"thinking": {"type": "disabled"}}),
    ):
        answer = found.taken(path, model=FILE, **fields)
        found.note(answer, "thinking" not in answer.text and "reasoning_c" not in answer.text, path)
    found.check()
