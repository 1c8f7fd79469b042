"""What an HTTP server of models can do, found out by asking it."""

from __future__ import annotations

import math

import trio

from ...exceptions import PunchError
from ._client import HttpClient

# The server is on this machine and has nothing to do but answer.
_PROBE_SECONDS = 2.0

# One token of one word, by the slowest of machines.
_TRIAL_SECONDS = 60.0


async def probe_tools(client: HttpClient) -> bool:
    """Whether the chat template of a llama-server writes tools, by the server's own finding.

    If not, it would leave them out of the prompt without a word.
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
    """Whether a server embeds; most do only if they were told to when they started."""
    try:
        with trio.fail_after(_TRIAL_SECONDS):
            await client.post_json("/v1/embeddings", {"input": ["a"]})
    except (PunchError, trio.TooSlowError):
        return False
    return True


async def probe_generation(client: HttpClient) -> bool:
    """Whether a server of embeddings answers as well; older ones do only the one."""
    body = {"prompt": "a", "max_tokens": 1}
    try:
        with trio.fail_after(_TRIAL_SECONDS):
            await client.post_json("/v1/completions", body)
    except (PunchError, trio.TooSlowError):
        return False
    return True


async def busy_slots(client: HttpClient) -> int | None:
    """How many requests a llama-server works at, as its computing thread says; waits for it.

    `None` if it does not tell, or cannot be reached.
    """
    try:
        slots = await client.get_json("/slots", timeout=math.inf)
    except PunchError:
        return None
    if not isinstance(slots, list):
        return None
    return sum(isinstance(slot, dict) and slot.get("is_processing") is True for slot in slots)


async def is_ready(client: HttpClient) -> bool:
    """Whether the server of *client* is ready and knows our key."""
    try:
        await client.get_json("/health", timeout=_PROBE_SECONDS)
        # `/health` is open to all: another program that won the port would answer, too.
        await client.get_json("/v1/models", timeout=_PROBE_SECONDS)
    except PunchError:
        return False
    return True
