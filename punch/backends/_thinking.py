"""What servers are told of how much to think, and of pictures, in the words of each. No I/O.

* llama-server, vLLM and SGLang hand switches to the chat template: `enable_thinking` is what most
  templates call it, and `thinking` some. A template passes over a switch that it does not know.
* Ollama, and OpenAI itself, have `reasoning_effort`, and refuse it of a model that cannot think: it
  is said only of an offer with the feature ``reasoning``.
* llama-server alone holds a model to a number of tokens that it may think for.
"""

from __future__ import annotations

import base64
from typing import Any, Literal

import attrs

from ..wire import ChatMessage, CommandRequest, ContentPart

ThinkingWords = Literal["llama_cpp", "template", "effort"]
"""In which words a server is told how much to think."""


@attrs.frozen(kw_only=True)
class Told:
    """How a server is told how much to think."""

    words: ThinkingWords
    """In which words."""

    features: frozenset[str] = frozenset()
    """What the offer that is asked can do."""


# The efforts that vLLM and SGLang know; any other word is an error to them.
_EFFORTS = frozenset({"low", "medium", "high"})


def thinking_fields(request: CommandRequest, told: Told) -> dict[str, Any]:
    """The fields of a body that say how much to think; none where nothing is wished.

    Args:
      request: What is asked.
      told: How the server is told.

    """
    words, features = told.words, told.features
    effort, body = request.reasoning_effort, dict[str, Any]()
    if words == "llama_cpp" and request.reasoning_budget is not None:
        body["thinking_budget_tokens"] = request.reasoning_budget
    if effort is None:
        return body
    if words == "effort":
        return {"reasoning_effort": effort} if "reasoning" in features else {}
    is_on = effort != "none"
    switches = {"enable_thinking": is_on}
    if words == "template":
        switches["thinking"] = is_on
    body["chat_template_kwargs"] = switches
    # A template of llama-server's may raise an error for a word that it does not know.
    knows = "reasoning_effort" in features if words == "llama_cpp" else effort in _EFFORTS
    if is_on and knows:
        body["reasoning_effort"] = effort
    return body


def thought_fields(message: ChatMessage, words: ThinkingWords) -> dict[str, Any]:
    """What a message says of what was thought before it."""
    if message.reasoning is None:
        return {}
    # Newer vLLM and Ollama say the second.
    name = "reasoning" if words == "effort" else "reasoning_content"
    return {name: message.reasoning}


def content_of(message: ChatMessage) -> str | list[dict[str, Any]]:
    """What was said: a text, or a list of parts where there are pictures."""
    return [_part(part) for part in message.parts] if message.parts else message.content


def _part(part: ContentPart) -> dict[str, Any]:
    if part.type == "text":
        return {"type": "text", "text": part.text or ""}
    address = part.url
    if part.data is not None:
        encoded = base64.b64encode(part.data).decode()
        address = f"data:{part.media_type or 'application/octet-stream'};base64,{encoded}"
    return {"type": f"{part.type}_url", f"{part.type}_url": {"url": address}}
