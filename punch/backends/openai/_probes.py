"""Finds out what an HTTP server of models can do, by asking it.

Every probe gives an answer and raises nothing: a server that cannot be asked cannot do it. What
is then offered is decided by the backends.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

import attrs
import trio

from ...exceptions import PunchError
from ._client import HttpClient

# The server is on this machine and has nothing else to do.
_PROBE_SECONDS = 2.0

# Time for a token after a prompt of one word, on the slowest of machines.
_TRIAL_SECONDS = 60.0


Page = Callable[[str, Mapping[str, Any] | None], Awaitable[Mapping[str, Any]]]
"""``await page(path, body)`` is the map that a server says at *path*; an empty one if none."""


Kind = Literal["llama_cpp", "vllm", "sglang", "ollama", "lm_studio", "other"]
"""Which program a server is, as far as that is known here."""

_OWNERS: Mapping[str, Kind] = {
    "llamacpp": "llama_cpp",
    "vllm": "vllm",
    "sglang": "sglang",
}

# What a gateway of punch says in that place, of each of its models.
_GATEWAY_OWNER = "punch"


@attrs.frozen(kw_only=True)
class Recognised:
    """What tells which program a server is."""

    kind: Kind | None = None
    """The program; `None` if nothing tells."""

    is_gateway: bool = False
    """Whether it is a gateway of punch."""

    version: str | None = None
    """Ollama's version."""

    page: str = ""
    """The path of LM Studio's own list."""


async def recognise(page: Page, owners: frozenset[str]) -> Recognised:
    """Which program a server is, whose list has *owners*."""
    for owner, kind in _OWNERS.items():
        if owner in owners:
            return Recognised(kind=kind)
    told = await page("/api/version", None)
    found = await _native(page, told.get("version"))
    return attrs.evolve(found, is_gateway="punch" in told or _GATEWAY_OWNER in owners)


async def _native(page: Page, version: object) -> Recognised:
    if isinstance(version, str) and isinstance((await page("/api/tags", None)).get("models"), list):
        return Recognised(kind="ollama", version=version[:40])
    for path, rows_key, mark in (
        ("/api/v1/models", "models", "loaded_instances"),
        ("/api/v0/models", "data", "state"),
    ):
        listed = (await page(path, None)).get(rows_key)
        if isinstance(listed, list) and all(
            isinstance(each, dict) and mark in each for each in listed
        ):
            return Recognised(kind="lm_studio", page=path)
    return Recognised()


async def probe_thinking(page: Page, props: Mapping[str, Any]) -> frozenset[str]:
    """The features of a llama-server's chat template that concern thinking.

    ``reasoning`` if the prompt with the switch on is another one than with it off: then the model
    can think and be told not to. ``reasoning_effort`` if the server has found levels in it.
    """
    prompts = []
    for is_on in (True, False):
        body = {
            "messages": [{"role": "user", "content": "a"}],
            "chat_template_kwargs": {"enable_thinking": is_on},
        }
        prompts.append((await page("/apply-template", body)).get("prompt"))
    found = set()
    if all(isinstance(prompt, str) for prompt in prompts) and prompts[0] != prompts[1]:
        found.add("reasoning")
    caps = props.get("chat_template_caps")
    if isinstance(caps, dict) and caps.get("supports_reasoning_effort") is True:
        found.add("reasoning_effort")
    return frozenset(found)


async def probe_senses(client: HttpClient) -> frozenset[str]:
    """The features of our own llama-server that concern thinking and pictures."""

    async def page(path: str, body: Mapping[str, Any] | None) -> Mapping[str, Any]:
        try:
            with trio.fail_after(_PROBE_SECONDS):
                if body is None:
                    found = await client.get_json(path, timeout=_PROBE_SECONDS)
                else:
                    found = await client.post_json(path, body)
        except (PunchError, trio.TooSlowError):
            return {}
        return found if isinstance(found, dict) else {}

    props = await page("/props", None)
    return await probe_thinking(page, props) | ({"image"} if sees(props) else frozenset())


async def probe_tools(client: HttpClient) -> bool:
    """Whether the chat template of a llama-server writes tools, as the server itself found.

    With any other template, the server leaves tools out of the prompt without a word; then punch
    writes them there itself (see `_written_tools`).
    """
    try:
        props = await client.get_json("/props", timeout=_PROBE_SECONDS)
    except PunchError:
        return False
    return isinstance(props, dict) and writes_tools(props)


def writes_tools(props: Mapping[str, Any]) -> bool:
    """Whether a llama-server's chat template writes tools, as the server itself found."""
    found = props.get("chat_template_caps")
    return isinstance(found, dict) and all(
        found.get(name) is True for name in ("supports_tools", "supports_tool_calls")
    )


def sees(props: Mapping[str, Any]) -> bool:
    """Whether a llama-server has a projector for pictures, as it says itself."""
    modalities = props.get("modalities")
    return isinstance(modalities, dict) and modalities.get("vision") is True


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
