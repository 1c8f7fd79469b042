"""Finds out what an HTTP server of models can do, by asking it.

Every probe gives an answer and raises nothing: a server that cannot be asked cannot do it. What
is then offered is decided by the backends.
"""

from __future__ import annotations

import math
from typing import Any

import trio

from ...exceptions import PunchError
from ._client import HttpClient

# The server is on this machine and has nothing else to do.
_PROBE_SECONDS = 2.0

# Time for a token after a prompt of one word, on the slowest of machines.
_TRIAL_SECONDS = 60.0


async def probe_tools(client: HttpClient) -> bool:
    """Whether the chat template of a llama-server writes tools, as the server itself found.

    With any other template, the server leaves tools out of the prompt without a word; then punch
    writes them there itself (see `_written_tools`).
    """
    try:
        props = await client.get_json("/props", timeout=_PROBE_SECONDS)
    except PunchError:
        return False
    found = props.get("chat_template_caps") if isinstance(props, dict) else None
    return isinstance(found, dict) and all(
        found.get(name) is True for name in ("supports_tools", "supports_tool_calls")
    )


async def probe_embeddings(client: HttpClient) -> bool:
    """Whether a server embeds; llama-server does so only if it was started for it."""
    try:
        with trio.fail_after(_TRIAL_SECONDS):
            await client.post_json("/v1/embeddings", {"input": ["a"]})
    except (PunchError, trio.TooSlowError):
        return False
    return True


async def probe_count(client: HttpClient) -> bool:
    """Whether a llama-server counts the tokens of a conversation; older builds do not."""
    body = {"messages": [{"role": "user", "content": "a"}]}
    try:
        with trio.fail_after(_PROBE_SECONDS):
            found = await client.post_json("/v1/chat/completions/input_tokens", body)
    except (PunchError, trio.TooSlowError):
        return False
    return isinstance(found, dict) and isinstance(found.get("input_tokens"), int)


async def probe_generation(client: HttpClient) -> bool:
    """Whether a server that embeds generates text as well; older builds only embed then."""
    body = {"prompt": "a", "max_tokens": 1}
    try:
        with trio.fail_after(_TRIAL_SECONDS):
            await client.post_json("/v1/completions", body)
    except (PunchError, trio.TooSlowError):
        return False
    return True


async def find_slots(client: HttpClient) -> list[Any] | None:
    """The slots of a llama-server; `None` if it does not tell or is out of reach.

    Its computing thread answers, between two batches; this waits for it without a limit. The
    caller has the patience, and draws its conclusions from it.
    """
    try:
        slots = await client.get_json("/slots", timeout=math.inf)
    except PunchError:
        return None
    return slots if isinstance(slots, list) else None


async def is_ready(client: HttpClient) -> bool:
    """Whether the server of *client* is ready and knows our key."""
    try:
        await client.get_json("/health", timeout=_PROBE_SECONDS)
        # `/health` needs no key: another program that got the port would answer, too.
        await client.get_json("/v1/models", timeout=_PROBE_SECONDS)
    except PunchError:
        return False
    return True
