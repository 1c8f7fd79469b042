"""Any value in any place of a body: it is taken, or refused in JSON's words, and never a bug."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from gateway_client import Reply, open_client
from trio.testing import MockClock

from punch.backends import MockBackend, MockScript

PARAMETERS = {"type": "object", "properties": {"at": {"type": "integer"}}}
FUNCTION = {"name": "look", "description": "Looks.", "parameters": PARAMETERS}
TOOL = {"type": "function", "function": FUNCTION}
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
USER = {"role": "user", "content": "hi"}
PNG = "data:image/png;base64,iVBORw0KGgo="
TEXT = {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}

# As rich as bodies are: every kind of part, item, block and tool that there is.
RICH: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "messages": [
            {"role": "system", "content": [TEXT]},
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": PNG}}]},
            {"role": "assistant", "content": None, "tool_calls": [CALL], "refusal": None},
            {"role": "tool", "tool_call_id": "c1", "content": "ok"},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
            {"role": "assistant", "content": "x", "function_call": CALL["function"]},
        ],
        "tools": [TOOL],
        "tool_choice": {"type": "function", "function": {"name": "look"}},
        "response_format": {"type": "json_schema", "json_schema": {"schema": PARAMETERS}},
        "stream_options": {"include_usage": True},
        "reasoning": {"effort": "low", "max_tokens": 5},
        "chat_template_kwargs": {"enable_thinking": True},
        "stop": ["a"],
        "punch": {"timeout": 5, "prefer": ["a"], "avoid": "b"},
    },
    "/v1/completions": {
        "prompt": ["a", "b"],
        "stop": ["a"],
        "logprobs": 1,
        "stream_options": {"include_usage": True},
        "response_format": {"type": "text"},
    },
    "/v1/responses": {
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
            {"role": "user", "content": [{"type": "input_image", "image_url": PNG}]},
            {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "ok"},
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
            {"type": "custom_tool_call", "call_id": "c2", "name": "patch", "input": "x"},
            {"type": "custom_tool_call_output", "call_id": "c2", "output": "x"},
        ],
        "tools": [
            {"type": "function", **FUNCTION},
            {"type": "namespace", "name": "n", "tools": [{"type": "function", **FUNCTION}]},
            {"type": "custom", "name": "patch", "format": {"type": "text"}},
        ],
        "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"name": "look"}]},
        "text": {"format": {"type": "json_schema", "schema": PARAMETERS}},
        "reasoning": {"effort": "low", "summary": "auto"},
        "include": ["reasoning.encrypted_content"],
        "metadata": {"a": "b"},
        "stream_options": {},
    },
    "/v1/embeddings": {"input": ["a", "b"], "encoding_format": "float"},
    "/v1/messages": {
        "max_tokens": 5,
        "system": [TEXT],
        "messages": [
            {"role": "user", "content": [TEXT]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "s"},
                    {"type": "tool_use", "id": "c1", "name": "look", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "c1", "content": [TEXT]},
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": PNG[22:]},
                    },
                    {
                        "type": "document",
                        "source": {"type": "text", "media_type": "text/plain", "data": "x"},
                    },
                    {
                        "type": "search_result",
                        "source": "x",
                        "title": "x",
                        "content": [TEXT],
                        "citations": {"enabled": False},
                    },
                ],
            },
        ],
        "tools": [
            {"name": "look", "input_schema": PARAMETERS, "input_examples": [{"at": 1}]},
        ],
        "tool_choice": {"type": "tool", "name": "look", "disable_parallel_tool_use": True},
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": PARAMETERS}},
        "metadata": {"user_id": "x"},
        "stop_sequences": ["a"],
    },
    "/api/chat": {
        "messages": [
            {"role": "user", "content": "hi", "images": [PNG[22:]]},
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]},
            {"role": "tool", "content": "ok", "tool_name": "f"},
        ],
        "tools": [TOOL],
        "tool_choice": {"type": "function", "name": "look"},
        "options": {"num_predict": 3, "stop": ["a"], "mirostat": 0, "num_gpu": 1},
        "format": PARAMETERS,
        "think": True,
        "keep_alive": "5m",
        "stream": False,
    },
    "/api/generate": {
        "prompt": "hi",
        "images": [PNG[22:]],
        "options": {"seed": 1, "repeat_last_n": 64},
        "format": PARAMETERS,
        "context": [],
        "stream": False,
    },
    "/api/embed": {"input": ["a"], "options": {"num_gpu": 1}, "dimensions": 2},
    "/api/embeddings": {"prompt": "a", "options": {"num_gpu": 1}},
    "/api/show": {"options": {"num_ctx": 1}, "system": "x"},
}
ODD: tuple[Any, ...] = (None, True, "odd", "", -7, 1.5, [], {}, [None], [True], [[]], {"type": []})
PYTHONS = re.compile(r"\b(True|False|None|NoneType|dict|str|int|pydantic|object at)\b")


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value inside *value*."""
    steps: Any = ()
    if isinstance(value, dict):
        steps = value.items()
    elif isinstance(value, list):
        steps = enumerate(value)
    for step, item in steps:
        yield (*way, step)
        yield from places(item, (*way, step))


def with_odd(body: dict[str, Any], way: tuple[Any, ...], odd: Any) -> dict[str, Any]:
    """*body* with *odd* at the end of *way*."""
    changed = copy.deepcopy(body)
    holder: Any = changed
    for step in way[:-1]:
        holder = holder[step]
    holder[way[-1]] = odd
    return changed


def words(reply: Reply) -> str:
    """What an error of any dialect says."""
    error = reply.json()["error"]
    return error if isinstance(error, str) else str(error["message"])


@pytest.mark.parametrize("path", RICH)
async def test_any_value_in_any_place_is_taken_or_refused_in_jsons_words(
    path: str, autojump_clock: MockClock
) -> None:
    """And it is no bug of ours, whatever stands where."""
    body = {"model": "mock"} | RICH[path]
    wrong = []
    async with open_client({"a": MockBackend(MockScript(sees=True, thinks=1))}) as client:
        for way in places(body):
            for odd in ODD:
                reply = await client.post(path, with_odd(body, way, odd))
                said = words(reply) if reply.status != 200 else ""
                if reply.status not in (200, 400, 404) or PYTHONS.search(said):
                    wrong.append((way, json.dumps(odd), reply.status, said))
    assert wrong == []
