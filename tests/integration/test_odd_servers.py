"""A real gateway with its own lane before a server that answers in every odd way, over HTTP."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import httpx
import trio
from integration.programs import Programs, limit, off

from punch.testing import (
    CUT,
    EMPTY_ANSWERS,
    ODD_FAILURES,
    ODD_FORMS,
    RESET,
    WORDS,
    AnswerForm,
    Part,
    Upstream,
    response,
)

TEXTS = ["one ", "\ud83d", "\ude00 ", "two"]
TEXT = "one \U0001f600 two"
GOOD = response(AnswerForm().body(TEXTS))
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


def streamed(*choices: Any, **more: Any) -> bytes:
    """A response of one event for each of *choices*, and ``[DONE]``."""
    values = [json.dumps({"choices": [choice], **more}) for choice in choices]
    return response(AnswerForm().spell([*values, "[DONE]"]))


@attrs.frozen(kw_only=True)
class Gateway:
    """A running gateway, and the server behind it."""

    http: httpx.AsyncClient
    scripts: dict[str, tuple[Part, ...]]
    upstream: Upstream

    async def chat(self, name: str, *script: Part, **fields: Any) -> httpx.Response:
        """Ask a question that the server answers with *script*, the first time."""
        self.scripts[name] = script
        messages = [{"role": "user", "content": f"<{name}>"}]
        return await self.http.post("/v1/chat/completions", json={"messages": messages} | fields)

    def asked(self, name: str) -> int:
        """How often the server was asked that question."""
        return sum(f"<{name}>".encode() in request for request in self.upstream.requests)


@asynccontextmanager
async def open_gateway(programs: Programs) -> AsyncIterator[Gateway]:
    """``punch serve --listen-too`` before a server that plays what a question names."""
    scripts: dict[str, tuple[Part, ...]] = {}

    def answer(request: bytes) -> Iterable[Part]:
        # What is asked to measure the speed is answered as any other question; so is a second try.
        found = re.search(rb"<([^<>]*)>", request)
        return scripts.pop(found[1].decode(), (GOOD,)) if found else (GOOD,)

    upstream = Upstream(answer, owner="vllm")
    async with upstream.listen() as url:
        gateway = await off(
            programs.gateway, "--listen-too", "--backend", "openai", PUNCH_OPENAI_URL=url
        )
        assert gateway.url is not None
        async with httpx.AsyncClient(base_url=gateway.url, timeout=30) as http:
            while not (await http.get("/v1/models")).json()["data"]:
                await trio.sleep(0.05)
            yield Gateway(http=http, scripts=scripts, upstream=upstream)


def text_of(reply: httpx.Response) -> str:
    """The text of a streamed chat."""
    lines = [line.removeprefix("data: ") for line in reply.text.splitlines() if "choices" in line]
    deltas = [choice["delta"] for line in lines for choice in json.loads(line)["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


@limit(120)
async def test_whatever_a_server_sends_an_answer_is_whole_once_or_told_as_none(
    programs: Programs,
) -> None:
    """Every form; every failure; cuts; calls; counts."""
    async with open_gateway(programs) as gateway:
        for name, form in ODD_FORMS.items():
            reply = await gateway.chat(name, response(form.body(TEXTS)), stream=True)
            assert reply.status_code == 200, (name, reply.text)
            assert text_of(reply) == TEXT, name
            assert reply.text.endswith("data: [DONE]\n\n"), name
            assert gateway.asked(name) == 1

        # One after the other, and an answer between them: a lane that only fails is left alone.
        for name in ("an event named error", "a field named error", "a page", "a detail"):
            reply = await gateway.chat(name, response(ODD_FAILURES[name]))
            assert reply.status_code >= 500, (name, reply.text)
            assert WORDS in reply.json()["error"]["message"], name
            assert (await gateway.chat(f"after {name}", GOOD)).status_code == 200
        reply = await gateway.chat("nothing", response(EMPTY_ANSWERS["only [DONE]"]))
        assert reply.status_code >= 500
        assert (await gateway.chat("after nothing", GOOD)).status_code == 200

        for end in (CUT, RESET):
            name = f"cut by {end}"
            begun = GOOD.partition(b'"two"')[0]
            reply = await gateway.chat(name, begun, end, stream=True)
            assert text_of(reply) == "one \U0001f600 "
            assert json.loads(reply.text.splitlines()[-2].removeprefix("data: "))["error"]
            assert gateway.asked(name) == 1
            assert (await gateway.chat(f"after {name}", GOOD)).status_code == 200

        call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": '{"a": 1'}}
        usage = {"prompt_tokens": 3, "completion_tokens": 6}
        delta = {"delta": {"tool_calls": [call]}, "finish_reason": "length"}
        reply = await gateway.chat("call", streamed(delta, usage=usage), tools=[TOOL], max_tokens=6)
        (choice,) = reply.json()["choices"]
        assert choice["finish_reason"] == "length"
        assert choice["message"]["content"] is None
        assert choice["message"]["tool_calls"][0]["function"]["arguments"] == '{"a": 1'
        assert reply.headers["x-punch-segments"] == "1"
        assert len(reply.json()["punch"]["segments"]) == 1

        at_once = {"delta": {}, "finish_reason": "stop"}
        stopped = await gateway.chat("stop", streamed(at_once, usage=usage), stop=["longer"])
        assert stopped.json()["choices"][0]["message"]["content"] == ""
        assert stopped.json()["usage"]["completion_tokens"] == 6
