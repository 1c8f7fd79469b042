"""Bodies that are made to be expensive: what they cost is bounded, and they are refused."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from punch.gateway import Refusal
from punch.gateway.bodies import AT_ONCE, MAX_VALUES, parse, parse_aside, shown
from punch.gateway.bodies import _reading as parsing
from punch.gateway.ollama._bodies import (
    EmbedBody,
    GenerateBody,
    OldEmbedBody,
    OllamaChatBody,
    ShowBody,
)
from punch.gateway.openai._bodies import ChatBody, CompletionBody, EmbeddingBody
from punch.gateway.openai._responses import ResponsesBody

BODIES = (
    ChatBody,
    CompletionBody,
    EmbeddingBody,
    ResponsesBody,
    OllamaChatBody,
    GenerateBody,
    EmbedBody,
    OldEmbedBody,
    ShowBody,
)


def refused(data: bytes, kind: Any = ChatBody) -> Refusal:
    with pytest.raises(Refusal) as raised:
        parse(kind, data)
    return raised.value


def chat(fields: bytes = b"", messages: bytes = b'[{"role":"user","content":"x"}]') -> bytes:
    return b'{"messages":' + messages + fields + b"}"


def schemas(value: Any) -> Iterator[dict[str, Any]]:
    """Every part of a schema of pydantic's core."""
    if isinstance(value, dict):
        if isinstance(value.get("type"), str):
            yield value
        for each in value.values():
            yield from schemas(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from schemas(each)


# ---- what costs much ----


@pytest.mark.parametrize("kind", BODIES, ids=lambda kind: kind.__name__)
def test_every_list_of_a_body_has_an_end(kind: Any) -> None:
    """A most, and the first item that breaks a rule is the last that is looked at."""
    lists = [s for s in schemas(kind.__pydantic_core_schema__) if s["type"] == "list"]

    assert [s for s in lists if s.get("max_length") is None or not s.get("fail_fast")] == []


@pytest.mark.parametrize(
    "data",
    [
        chat(
            messages=b'[{"role":"user","content":"x","tool_calls":[' + b"1," * 4_000_000 + b"1]}]"
        ),
        chat(messages=b'[{"role":"user","content":[' + b"1," * 4_000_000 + b"1]}]"),
        chat(b"," + b",".join(b'"k%d":1' % i for i in range(300_000))),
        chat(b',"tools":[' + b"[]," * 1_000_000 + b"[]]"),
        chat(b',"metadata":{' + b",".join(b'"k%d":1' % i for i in range(300_000)) + b"}"),
    ],
    ids=["calls", "parts", "keys", "tools", "metadata"],
)
def test_a_body_of_millions_of_values_is_refused_before_they_are_made(data: Any) -> None:
    """Eight megabytes of it once took half a minute, and six gigabytes."""
    began = time.process_time()
    refusal = refused(data)

    assert time.process_time() - began < 2
    assert (refusal.status, refusal.code) == (400, "invalid_value")
    assert f"more than {MAX_VALUES} values" in refusal.message


def test_text_may_have_as_many_commas_as_it_likes() -> None:
    """They are counted where they stand between values only."""
    text = 'a,"b",\\,' * 40_000
    body = parse(ChatBody, json.dumps({"messages": [{"role": "user", "content": text}]}).encode())

    assert body.messages[0].content == text


@given(st.recursive(st.none() | st.integers() | st.text(',"\\a{[', max_size=9), st.lists))
def test_only_commas_between_values_are_counted(value: Any) -> None:
    """Whatever the strings have in them."""
    data = json.dumps([value, ""]).encode()
    bare = json.dumps(_with_no_text([value, ""]))

    assert parsing._values(data) == bare.count(",")


def _with_no_text(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_no_text(each) for each in value]
    return 0 if isinstance(value, str) else value


@pytest.mark.parametrize("tail", [b"", b"\\", b"\\\\", b'\\"'])
def test_a_string_with_no_end_is_looked_through_once(
    tail: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not once from each of its quotes."""
    monkeypatch.setattr(parsing, "SLICE", 7)
    began = time.process_time()

    assert parsing._values(b'["' + b'\\"a' * 30_000 + tail) == 0
    assert time.process_time() - began < 2


def test_many_faults_are_counted_and_not_told() -> None:
    """To tell one of so many takes as long as to tell them all."""
    refusal = refused(chat(b"," + b",".join(b'"k%d":1' % i for i in range(1000))))

    assert refusal.message == "1000 values in the body break rules; /openapi.json has them"
    assert refusal.code == "invalid_value"


def test_of_a_long_value_no_more_is_written_than_is_shown() -> None:
    """Of whatever kind."""
    began = time.process_time()
    for value in ("x" * 10_000_000, list(range(1_000_000)), {"a": ["y" * 9_000_000]}, 10**5000):
        assert len(shown(value)) <= 90
    assert time.process_time() - began < 1
    assert shown("x") == '"x"'
    assert shown([]) == "[]"


# ---- where it is read ----


async def test_a_long_body_is_read_in_a_thread_and_a_short_one_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One at a time: everybody else goes on meanwhile."""
    seen = []
    usual = parsing.read

    def noting(kind: Any, data: bytes) -> Any:
        seen.append(threading.get_ident() == here)
        return usual(kind, data)

    here = threading.get_ident()
    monkeypatch.setattr(parsing, "read", noting)
    limiter = trio.CapacityLimiter(1)
    for size in (10, AT_ONCE):
        text = "x" * size
        data = json.dumps({"messages": [{"role": "user", "content": text}]}).encode()
        body = await parse_aside(ChatBody, data, limiter)
        assert body.messages[0].content == text

    assert seen == [True, False]


async def test_a_long_body_that_is_wrong_is_refused_as_a_short_one() -> None:
    """The refusal comes out of the thread as it is."""
    data = chat(b',"foo":"' + b"x" * AT_ONCE + b'"')
    with pytest.raises(Refusal, match="foo is not a parameter"):
        await parse_aside(ChatBody, data, trio.CapacityLimiter(1))
