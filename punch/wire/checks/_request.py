"""Checks whether any peer could answer a request: the ranges of its fields and how they combine.

The form of its answer is checked by `_form`.
"""

from __future__ import annotations

import math
from typing import get_args

from ...exceptions import InvalidRequest
from .._limits import LIMITS, MAX_HINTS, MAX_PEER_CHARACTERS, MAX_TEXT_BYTES, SAMPLING_NUMBERS
from .._request import (
    NO_HINTS,
    ChatMessage,
    Command,
    CommandRequest,
    Hints,
    Naming,
    Privacy,
    size_of,
)
from ._form import check_entries, check_form, check_label, check_turn, is_plain

COMMANDS = get_args(Command)
PRIVACIES = get_args(Privacy)
NAMINGS = get_args(Naming)
ROLES = ("system", "user", "assistant", "tool")

# Bytes that a name, a tool or a tool call takes in a frame besides its text, rather too many.
FIELD_BYTES = 64


def _check_number(value: object, name: str) -> None:
    limit = LIMITS[name]
    if type(value) is not int and (limit.type is int or type(value) is not float):
        what = "a whole number" if limit.type is int else "a number"
        raise InvalidRequest.about(name, f"is {value!r}; it must be {what}")
    if not limit.allows(value):
        raise InvalidRequest.about(name, f"is {value!r}; it must be from {limit.span}")


def _check_pattern(value: str, name: str) -> None:
    limit = LIMITS[name]
    if limit.pattern is None or not limit.pattern.fullmatch(value):
        shown = value[:200]
        raise InvalidRequest.about(name, f"is {shown!r}; it must be {limit.span} {limit.unit}")


def _check_model(name: str) -> None:
    limit = LIMITS["model"]
    if not limit.allows(len(name)):
        raise InvalidRequest.about("model", f"has {len(name)} characters; {limit.span} are allowed")
    check_label(name, "model", limit)


def _check_unicode(text: str, name: str) -> None:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest.about(
            name,
            f"holds a lone surrogate at character {error.start}; "
            "decode the text with errors='replace' before sending it",
        ) from None


def _check_texts(request: CommandRequest) -> None:
    for index, message in enumerate(request.messages):
        place = f"messages[{index}]"
        _check_unicode(message.content, f"{place}.content")
        if message.reasoning:
            _check_unicode(message.reasoning, f"{place}.reasoning")
        for number, part in enumerate(message.parts):
            _check_unicode(part.text or "", f"{place}.parts[{number}].text")
        for number, call in enumerate(message.tool_calls):
            _check_unicode(call.arguments, f"{place}.tool_calls[{number}].arguments")
    for name in ("prompt", "continuation", "response_schema"):
        if text := getattr(request, name):
            _check_unicode(text, name)
    for index, text in enumerate(request.inputs):
        _check_unicode(text, f"inputs[{index}]")
    for index, tool in enumerate(request.tools):
        _check_unicode(tool.description or "", f"tools[{index}].description")
        _check_unicode(tool.parameters, f"tools[{index}].parameters")


def _beside_texts(message: ChatMessage) -> int:
    """Bytes that *message* takes in a frame besides the texts that a model reads."""
    size = 0
    for part in message.parts:
        # The texts of all parts in a row are the content, which travels beside them.
        size += FIELD_BYTES + len(part.data or b"") + len(part.url or "") + size_of(part.text or "")
    for field in (message.name, message.tool_call_id):
        size += 0 if field is None else FIELD_BYTES + size_of(field)
    return size + sum(FIELD_BYTES + size_of(call.id) for call in message.tool_calls)


def _check_turns(request: CommandRequest) -> None:
    size = request.size + FIELD_BYTES * len(request.tools)
    for index, message in enumerate(request.messages):
        place = f"messages[{index}]"
        if message.role not in ROLES:
            raise InvalidRequest.about(
                f"{place}.role",
                f"is {message.role!r}; it must be one of {', '.join(ROLES)}",
            )
        if not is_plain(message):
            check_turn(message, place)
            size += _beside_texts(message)
    if size > MAX_TEXT_BYTES:
        raise InvalidRequest(
            f"the text has {size} bytes; at most {MAX_TEXT_BYTES} fit one request: shorten it"
        )


def _check_sampling(request: CommandRequest) -> None:
    sampling = request.sampling
    for name in SAMPLING_NUMBERS:
        value = getattr(sampling, name)
        if value is not None:
            _check_number(value, name)
    check_entries(sampling.stop, "stop")
    limit = LIMITS["stop[]"]
    for index, stop in enumerate(sampling.stop):
        _check_unicode(stop, f"stop[{index}]")
        if not limit.allows(len(stop)):
            raise InvalidRequest.about(
                "stop", f"has an entry of {len(stop)} characters; {limit.span} are allowed"
            )


def _check_hints(hints: Hints) -> None:
    for name in ("prefer", "avoid", "only"):
        peers = getattr(hints, name)
        if len(peers) > MAX_HINTS:
            raise InvalidRequest.about(name, f"names {len(peers)} peers; {MAX_HINTS} are the most")
        for place, peer in enumerate(peers):
            if not 1 <= len(peer) <= MAX_PEER_CHARACTERS or not peer.isprintable():
                raise InvalidRequest.about(
                    f"{name}[{place}]",
                    f"is {peer[:MAX_PEER_CHARACTERS]!r}; it must be 1 to {MAX_PEER_CHARACTERS} "
                    "printable characters",
                )
    for field in ("min_rate", "max_load"):
        number = getattr(hints, field)
        if number is not None and not 0 <= number < math.inf:
            raise InvalidRequest.about(field, f"is {number!r}; it must be a number from 0 on")
    for field, words in (("privacy", PRIVACIES), ("naming", NAMINGS)):
        if getattr(hints, field) not in words:
            shown = str(getattr(hints, field))[:MAX_PEER_CHARACTERS]
            raise InvalidRequest.about(field, f"is {shown!r}; it must be one of {', '.join(words)}")


def check_request(request: CommandRequest) -> None:
    """Refuse a request that no peer could answer.

    Raises:
      InvalidRequest: naming the value and the rule it breaks.

    """
    _check_ranges(request)
    check_combination(request)


def _check_ranges(request: CommandRequest) -> None:
    """Refuse a request with a value that no peer could read, whatever the others are.

    The codec checks the same of what comes in.
    """
    _check_pattern(request.request_id, "request_id")
    if request.command not in COMMANDS:
        raise InvalidRequest.about(
            "command", f"is {request.command!r}; it must be one of {', '.join(COMMANDS)}"
        )
    if request.model is not None:
        _check_model(request.model)
    if request.model_digest is not None:
        _check_pattern(request.model_digest, "model_digest")
    if request.offer is not None:
        check_label(request.offer, "offer", LIMITS["offer"])
    _check_number(request.priority, "priority")
    _check_number(request.stream_interval, "stream_interval")
    if request.logprobs is not None:
        _check_number(request.logprobs, "logprobs")
    if request.reasoning_effort is not None:
        check_label(request.reasoning_effort, "reasoning_effort", LIMITS["reasoning_effort"])
    if request.reasoning_budget is not None:
        _check_number(request.reasoning_budget, "reasoning_budget")
    if request.hints is not NO_HINTS:
        _check_hints(request.hints)
    check_entries(request.messages, "messages")
    check_entries(request.inputs, "inputs")
    _check_texts(request)
    _check_sampling(request)


def check_combination(request: CommandRequest) -> None:
    """Refuse a request whose values do not go together, or are too much in all.

    Each by itself must be one that can be read: this is enough for a request that the codec has
    read, see `check_request` for others.

    Raises:
      InvalidRequest: naming the value and the rule it breaks.

    """
    if request.command == "chat" and not request.messages:
        raise InvalidRequest.about("messages", "is empty; chat needs at least one message")
    if request.command == "complete" and not request.prompt:
        raise InvalidRequest.about("prompt", "is empty; complete needs text to go on from")
    if request.command == "embed" and not request.inputs:
        raise InvalidRequest.about("inputs", "is empty; embed needs at least one text")
    if request.command == "count" and not (request.messages or request.prompt):
        raise InvalidRequest.about("messages", "is empty; count needs messages or a prompt")
    # The codec takes nought, too: a request without any time does not end a session.
    limit = LIMITS["timeout"]
    if request.timeout is not None and not limit.allows(request.timeout):
        rule = f"it must be above {limit.least:g} and at most {limit.most:g}"
        raise InvalidRequest.about("timeout", f"is {request.timeout!r} s; {rule}")
    _check_turns(request)
    check_form(request)
