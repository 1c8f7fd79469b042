"""Checks what a request says of the form of its answer: tools, a schema, log-probabilities.

Whether an engine can hold an answer to a schema is decided by `_repetition`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from ...exceptions import InvalidRequest
from .._limits import (
    LIMITS,
    MAX_JSON_LEVELS,
    MAX_LOGPROBS,
    MAX_REQUEST_PARTS,
    MAX_REQUEST_TOOL_CALLS,
    Limit,
)
from .._request import ChatMessage, CommandRequest
from ._fit import unusable
from ._repetition import RepetitionCheck

CHOICES = ("auto", "none", "required")
BY_NAME = "function:"


def _deeper_than(value: Any, limit: int) -> bool:
    """True if lists and maps are nested beyond *limit* levels.

    Without recursion: a value that is nested too deeply must not end in a `RecursionError`.
    """
    level = [value]
    for _ in range(limit + 1):
        level = [one for one in level if isinstance(one, dict | list)]
        if not level:
            return False
        level = [inner for one in level for inner in _within(one)]
    return True


def _within(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _parsed(text: str) -> Any:
    """The value of the JSON *text*.

    Raises:
      ValueError: if the text is no JSON, or its value cannot be written down again.

    """
    value = json.loads(text, parse_constant=_no_number)
    # An escape may stand for half of a surrogate pair, which no server would take.
    json.dumps(value, ensure_ascii=False).encode()
    return value


def _check_schema(text: str, name: str, repetition: RepetitionCheck) -> None:
    limit = LIMITS["response_schema"]
    if not limit.allows(len(text)):
        raise InvalidRequest.about(name, f"has {len(text)} characters; {limit.span} are allowed")
    try:
        value = _parsed(text)
    except RecursionError:
        raise InvalidRequest.about(
            name, f"is nested deeper than {MAX_JSON_LEVELS} levels"
        ) from None
    except ValueError as error:
        raise InvalidRequest.about(name, f"is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidRequest.about(name, "is no JSON object; a JSON Schema is one")
    if _deeper_than(value, MAX_JSON_LEVELS):
        raise InvalidRequest.about(name, f"is nested deeper than {MAX_JSON_LEVELS} levels")
    if (rule := repetition.fault(value)) is not None:
        raise InvalidRequest.about(name, rule)


def _check_arguments(text: str, name: str) -> None:
    """The arguments of a call that was made. Models write what is no JSON, and that may be told."""
    limit = LIMITS["messages[].tool_calls[].arguments"]
    if not limit.allows(len(text)):
        raise InvalidRequest.about(
            name, f"has {len(text)} characters; at most {limit.most} are allowed"
        )
    try:
        too_deep = _deeper_than(json.loads(text), MAX_JSON_LEVELS)
    except RecursionError:
        too_deep = True
    except ValueError:
        too_deep = False
    if too_deep:
        raise InvalidRequest.about(name, f"is nested deeper than {MAX_JSON_LEVELS} levels")


def check_entries(entries: Sequence[object], name: str, place: str | None = None) -> None:
    """Refuse a list that is too long; *place* is its own name where that has indices."""
    most = LIMITS[name].most
    if len(entries) > most:
        raise InvalidRequest.about(
            place or name, f"has {len(entries)} entries; at most {most} are allowed"
        )


def check_label(value: str, place: str, limit: Limit) -> None:
    """Refuse a name that could not be shown in a table or a log; *place* says whose it is."""
    if not limit.allows(len(value)) or not value.isprintable():
        raise InvalidRequest.about(
            place, f"is {value[:80]!r}; it must be {limit.span} {limit.unit}"
        )


def is_plain(message: ChatMessage) -> bool:
    """True if *message* is a text and nothing else, as most are: there is nothing to check."""
    return (
        message.role != "tool"
        and message.name is None
        and message.tool_call_id is None
        and not message.parts
        and not message.tool_calls
    )


def check_turn(message: ChatMessage, place: str) -> None:
    """Refuse a message whose tool calls or results are not in order; *place* names it."""
    if message.name is not None:
        check_label(message.name, f"{place}.name", LIMITS["messages[].name"])
    if message.role == "tool" and message.tool_call_id is None:
        raise InvalidRequest.about(
            f"{place}.tool_call_id", "is missing; a tool's message says which call it answers"
        )
    if message.tool_call_id is not None:
        if message.role != "tool":
            raise InvalidRequest.about(
                f"{place}.tool_call_id", "is set; only a message of role tool answers a call"
            )
        check_label(
            message.tool_call_id, f"{place}.tool_call_id", LIMITS["messages[].tool_call_id"]
        )
    if message.parts:
        _check_parts(message, place)
    if message.tool_calls and message.role != "assistant":
        raise InvalidRequest.about(f"{place}.tool_calls", "is set; only the assistant calls tools")
    check_entries(message.tool_calls, "messages[].tool_calls", f"{place}.tool_calls")
    for index, call in enumerate(message.tool_calls):
        where = f"{place}.tool_calls[{index}]"
        check_label(call.id, f"{where}.id", LIMITS["messages[].tool_calls[].id"])
        check_label(call.name, f"{where}.name", LIMITS["messages[].tool_calls[].name"])
        _check_arguments(call.arguments, f"{where}.arguments")


def _check_parts(message: ChatMessage, place: str) -> None:
    check_entries(message.parts, "messages[].parts", f"{place}.parts")
    for index, part in enumerate(message.parts):
        where = f"{place}.parts[{index}]"
        check_label(part.type, f"{where}.type", LIMITS["messages[].parts[].type"])
        if part.type == "text":
            if part.text is None:
                raise InvalidRequest.about(
                    f"{where}.text", "is missing; a part of type text has one"
                )
        elif (part.data is None) == (part.url is None):
            raise InvalidRequest.about(
                where, f"must have either data or a url, and not both; its type is {part.type}"
            )
        size, limit = len(part.data or b""), LIMITS["messages[].parts[].data"]
        if not limit.allows(size):
            raise InvalidRequest.about(
                f"{where}.data", f"has {size} bytes; at most {limit.most} are allowed"
            )
        if part.url is not None:
            check_label(part.url, f"{where}.url", LIMITS["messages[].parts[].url"])
        if part.media_type is not None:
            limit = LIMITS["messages[].parts[].media_type"]
            check_label(part.media_type, f"{where}.media_type", limit)
    if message.parts and message.content != "".join(part.text or "" for part in message.parts):
        raise InvalidRequest.about(
            f"{place}.content", "is not the text of its parts; make such a message with of_parts"
        )


def _check_tools(request: CommandRequest, repetition: RepetitionCheck) -> None:
    if request.tools and request.command not in ("chat", "count"):
        raise InvalidRequest.about("tools", f"is set; {request.command} has none, only chat does")
    check_entries(request.tools, "tools")
    names = set()
    limit = LIMITS["tools[].name"]
    for index, tool in enumerate(request.tools):
        if limit.pattern is None or not limit.pattern.fullmatch(tool.name):
            raise InvalidRequest.about(
                f"tools[{index}].name",
                f"is {tool.name[:80]!r}; it must be {limit.span} {limit.unit}",
            )
        if tool.name in names:
            raise InvalidRequest.about(
                f"tools[{index}].name", f"is {tool.name!r}, as that of another tool"
            )
        names.add(tool.name)
        _check_schema(tool.parameters, f"tools[{index}].parameters", repetition)
    choice = request.tool_choice
    if choice is None:
        return
    if not request.tools:
        raise InvalidRequest.about(
            "tool_choice", "is set and tools is empty; there is nothing to choose"
        )
    if choice.startswith(BY_NAME):
        name = choice.removeprefix(BY_NAME)
        if name not in names:
            raise InvalidRequest.about(
                "tool_choice",
                f"names {name[:80]!r}, which is none of the tools: {', '.join(sorted(names))}",
            )
    elif choice not in CHOICES:
        raise InvalidRequest.about(
            "tool_choice",
            f"is {choice[:80]!r}; it must be one of {', '.join(CHOICES)}, or {BY_NAME}NAME",
        )


def check_form(request: CommandRequest) -> None:
    """Refuse a form that no answer can have.

    Raises:
      InvalidRequest: naming the value and the rule it breaks.

    """
    if sum([len(message.tool_calls) for message in request.messages]) > MAX_REQUEST_TOOL_CALLS:
        raise InvalidRequest.about(
            "messages", f"has more than {MAX_REQUEST_TOOL_CALLS} tool calls in all"
        )
    if sum([len(message.parts) for message in request.messages]) > MAX_REQUEST_PARTS:
        raise InvalidRequest.about("messages", f"has more than {MAX_REQUEST_PARTS} parts in all")
    repetition = RepetitionCheck()
    if request.tools or request.tool_choice is not None:
        _check_tools(request, repetition)
    generates = request.command in ("chat", "complete")
    if request.response_schema is not None:
        if not generates:
            raise InvalidRequest.about(
                "response_schema", f"is set; {request.command} gives no text to fit"
            )
        _check_schema(request.response_schema, "response_schema", repetition)
        if (rule := unusable(request.response_schema)) is not None:
            raise InvalidRequest.about("response_schema", rule)
    if request.logprobs is not None:
        if not generates:
            raise InvalidRequest.about("logprobs", f"is set; {request.command} makes no tokens")
        limit = request.sampling.max_tokens
        if limit is not None and limit > MAX_LOGPROBS:
            raise InvalidRequest.about(
                "max_tokens", f"is {limit}; with logprobs, at most {MAX_LOGPROBS} are allowed"
            )
    if request.continuation and request.needs:
        raise InvalidRequest.about(
            "continuation",
            "is set; an answer with tools, held to a schema, with logprobs or to pictures "
            "cannot be gone on with",
        )
