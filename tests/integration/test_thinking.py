"""Thinking by a real engine: llama-server with a template that thinks, and a small real model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from answers import result_of

from punch.backends import open_llama_server, open_openai
from punch.backends.llama._served import ServedBackend
from punch.dialer import Router
from punch.testing import open_swarm
from punch.wire import ChatMessage, CommandRequest, Sampling, Thought

LIMIT = 120

ASK = CommandRequest(
    request_id="ask",
    messages=(ChatMessage(role="user", content="Say hello."),),
    sampling=Sampling(max_tokens=40, temperature=0.0, seed=1),
)

# The model has never learnt to think, so the template begins its thought for it, unless it is told
# not to: what the switch of real templates does.
TEMPLATE = """{%- for message in messages %}
{%- if message.role == 'assistant' and message.reasoning_content %}
{{- '<|im_start|>assistant\\n<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' }}
{{- message.content + '<|im_end|>\\n' }}
{%- else %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n<think>\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}
{{- '\\n</think>\\n\\n' }}
{%- endif %}
{%- endif %}
"""


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """A file with the template."""
    path = tmp_path / "think.jinja"
    path.write_text(TEMPLATE)
    return path


@asynccontextmanager
async def thinker(
    model_path: Path, llama_cpp_folder: Path, template: Path
) -> AsyncIterator[ServedBackend]:
    async with open_llama_server(
        program=llama_cpp_folder / "llama-server",
        model_path=model_path,
        threads=1,
        no_mmap=False,
        slots=1,
        context_tokens=512,
        alias="thinker",
        extra_args=["--jinja", "--chat-template-file", str(template)],
    ) as backend:
        yield backend


async def test_what_a_real_engine_thinks_is_told_apart_and_can_be_turned_off(
    model_path: Path, llama_cpp_folder: Path, template: Path
) -> None:
    """As it comes, held to a budget, and not at all; also where the server is adopted."""
    with trio.fail_after(LIMIT):
        async with thinker(model_path, llama_cpp_folder, template) as own:
            assert "reasoning" in own.offers[0].features
            api_key = own._client._headers["Authorization"].removeprefix("Bearer ")
            async with (
                open_openai(url=own.url, api_key=api_key) as adopted,
                open_swarm() as swarm,
            ):
                assert "reasoning" in adopted.offers[0].features
                await swarm.listener("own", own)
                await swarm.listener("adopted", adopted)
                async with swarm.router() as router:
                    for offer in (own.offers[0].name, adopted.offers[0].name):
                        await _thinks_as_it_is_told(router, offer)


async def _thinks_as_it_is_told(router: Router, model: str) -> None:
    async def told(name: str, **wish: Any) -> tuple[str, str]:
        request = attrs.evolve(ASK, request_id=f"{model}-{name}", model=model, **wish)
        thoughts, texts = "", ""
        async with router.answer(request) as answer:
            while (part := await answer.receive_part()) is not None:
                if type(part) is Thought:
                    assert not texts
                    thoughts += part
                else:
                    texts += part
        result = result_of(answer.response)
        assert (result.text, result.reasoning) == (texts, thoughts)
        return thoughts, texts

    thought, said = await told("usual")
    assert thought.strip()
    assert not said.strip() or len(said) < len(thought)
    few, rest = await told("few", reasoning_budget=5, reasoning_effort="high")
    assert few.strip()
    assert len(few) < len(thought)
    assert rest.strip()
    none, plain = await told("none", reasoning_effort="none")
    assert (none, bool(plain.strip())) == ("", True)
