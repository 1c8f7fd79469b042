"""Reads what one choice of a server's answer says, in whichever form it says it. No I/O.

The form is OpenAI's; what else is read here was seen in answers of other servers. Pieces are put
together by `_answer`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

# Reasons for an end, in small letters. What is neither here nor below is an ordinary end, such as
# "stop", "eos", "stop_sequence" and "end_turn"; servers invent further ones.
_AT_LIMIT = frozenset(
    {"length", "max_length", "max_new_tokens", "max_output_tokens", "max_tokens", "model_length"}
)
_GIVEN_UP = frozenset(
    {"abort", "aborted", "cancelled", "canceled", "content_filter", "error", "failed"}
    # DeepSeek, Zhipu, and Google's.
    | {"insufficient_system_resource", "network_error", "sensitive"}
    | {"blocklist", "malformed_function_call", "prohibited_content", "recitation", "safety"}
)
# What programs make of no reason that put it into words.
_NO_REASONS = frozenset({"", "nil", "none", "null", "undefined"})
_FOR_TOOLS = frozenset({"function_call", "tool_calls", "tool_call", "tool_use"})

_TEXT_PARTS = frozenset({"text", "output_text"})
_THOUGHT_PARTS = frozenset({"reasoning", "reasoning_text", "summary_text", "thinking"})

# llama-server and older vLLM say the first, newer vLLM and others the second.
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")


@attrs.frozen
class Said:
    """What a message, or a piece of one, says."""

    text: str = ""
    """A part of the answer."""

    thought: str = ""
    """A part of what the model thinks, which is no part of the answer."""

    calls: tuple[Any, ...] = ()
    """Tool calls or pieces of them, as the server writes them."""

    def __bool__(self) -> bool:
        return bool(self.text or self.thought or self.calls)


_NOTHING = Said()


def read_message(message: Any) -> Said:
    """What *message* says, which may be the `delta` or the `message` of a choice."""
    if isinstance(message, str):
        return Said(message)
    if not isinstance(message, dict):
        return _NOTHING
    text, thought = _read_content(message.get("content"))
    # What a model says in place of an answer is what there is to read.
    text = text or _text(message.get("refusal"))
    for name in _THOUGHTS:
        if found := "".join(_texts_in(message.get(name))):
            thought += found
            break
    calls = message.get("tool_calls")
    if isinstance(calls, dict):
        calls = [calls]
    if not isinstance(calls, list):
        # OpenAI's form of before there were several.
        legacy = message.get("function_call")
        calls = [{"index": 0, "function": legacy}] if isinstance(legacy, dict) else []
    return Said(text, thought, tuple(calls)) if text or thought or calls else _NOTHING


def _read_content(content: Any) -> tuple[str, str]:
    """The text of *content* and the thoughts in it: a text, a part, or a list of parts."""
    if isinstance(content, str):
        return content, ""
    texts: list[str] = []
    thoughts: list[str] = []
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, int | float) and not isinstance(part, bool):
            # A server that takes an answer for JSON has made a number of it.
            texts.append(json.dumps(part))
        elif isinstance(part, dict):
            kind = part.get("type", "text")
            if kind in _TEXT_PARTS:
                texts.extend(_texts_in(part))
            elif kind in _THOUGHT_PARTS:
                thoughts.extend(_texts_in(part))
            elif kind == "refusal":
                texts.append(_text(part.get("refusal")))
    return "".join(texts), "".join(thoughts)


def _texts_in(value: Any, levels: int = 4) -> Iterator[str]:
    """The texts of a part, of a list of them, or of what a part holds in place of a text."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list) and levels:
        for one in value:
            yield from _texts_in(one, levels - 1)
    elif isinstance(value, dict) and levels:
        for name in ("text", "content", "value", "summary", *_THOUGHT_PARTS):
            if value.get(name):
                yield from _texts_in(value[name], levels - 1)
                return


def index_in(choice: Mapping[str, Any]) -> int | None:
    """Which of several answers *choice* is a piece of; `None` if it does not say."""
    index = choice.get("index")
    if isinstance(index, str) and index.isascii() and index.isdecimal():
        index = int(index[:9])
    return index if isinstance(index, int) else None


def reason_in(choice: Mapping[str, Any]) -> str | None:
    """Why the answer ends, in small letters; `None` if *choice* does not say that it does."""
    for name in ("finish_reason", "finish_details"):
        reason = choice.get(name)
        if isinstance(reason, dict):
            reason = reason.get("type")
        if isinstance(reason, str) and reason.strip().lower() not in _NO_REASONS:
            return reason.strip().lower()
    return None


def is_at_limit(reason: str | None) -> bool:
    """Whether *reason* is one of the words for `max_tokens` or a full context."""
    return reason in _AT_LIMIT


def is_given_up(reason: str | None) -> bool:
    """Whether *reason* says that the rest of the answer is missing."""
    return reason in _GIVEN_UP


def is_for_tools(reason: str | None) -> bool:
    """Whether *reason* says that the answer waits for tools."""
    return reason in _FOR_TOOLS


def complaint_in(value: Mapping[str, Any]) -> Any:
    """The error that an event tells of in place of an answer, or beside one; `None` if none."""
    error = value.get("error")
    if error and error is not True:
        return error
    if error or "error" in (value.get("object"), value.get("type")):
        return value
    # Groq's, which ends a stream early with it.
    if isinstance(more := value.get("x_groq"), dict) and more.get("error"):
        return more["error"]
    if value.get("choices"):
        return None
    for name in ("errors", "detail"):
        if found := value.get(name):
            return found[0] if isinstance(found, list) else found
    code = status_in(value, default=0)
    if code or value.get("error_code") or value.get("success") is False:
        return value
    return None


def status_in(error: Any, *, default: int = 500) -> int:
    """The HTTP status that an error in a stream would have had, or *default*."""
    for name in ("code", "status", "status_code"):
        code = error.get(name) if isinstance(error, dict) else None
        if isinstance(code, str) and code.isascii() and code.isdecimal():
            code = int(code[:4])
        if isinstance(code, int) and 400 <= code <= 599:
            return code
    return default


def words_in(value: Mapping[str, Any]) -> str:
    """What a value that is neither an answer nor an error says for people, if anything."""
    for name in ("message", "msg", "text", "reason", "description"):
        if found := _text(value.get(name)):
            return found
    return ""


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
