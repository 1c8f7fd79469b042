"""Checks whether a request is one that anybody could answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from ..exceptions import InvalidRequest
from ._asked_form import check_form, check_turn
from ._messages import ChatMessage, Command, CommandRequest
from ._schema import DIGEST, MAX_ALTERNATIVES, MAX_FRAME, REQUEST_ID

COMMANDS = get_args(Command)
ROLES = ("system", "user", "assistant", "tool")

# The rest of the frame is for everything that is not the caller's text.
MAX_TEXT_BYTES = MAX_FRAME - (256 << 10)

# What a name, a tool or a call of one takes besides its text, with room to spare: their keys.
FIELD_BYTES = 64

MAX_MESSAGES = 4096
MAX_INPUTS = 2048
LONGEST_TIMEOUT = 1e9

# Field of `Sampling` to its type and its least and greatest value, both allowed.
_RANGES: Mapping[str, tuple[type, float, float]] = {
    "max_tokens": (int, 1, 1 << 40),
    "temperature": (float, 0, 100),
    "top_p": (float, 0, 1),
    "top_k": (int, 0, 1 << 31),
    "min_p": (float, 0, 1),
    "repeat_penalty": (float, 0, 100),
    "presence_penalty": (float, -2, 2),
    "frequency_penalty": (float, -2, 2),
    "seed": (int, 0, (1 << 64) - 1),
}


def _check_number(value: object, name: str, kind: type, least: float, most: float) -> None:
    if type(value) is not int and (kind is int or type(value) is not float):
        what = "a whole number" if kind is int else "a number"
        raise InvalidRequest.about(name, f"is {value!r}; it must be {what}")
    if not least <= value <= most:
        raise InvalidRequest.about(name, f"is {value!r}; it must be from {least} to {most}")


def _bytes(text: str, name: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidRequest.about(
            name,
            f"holds a lone surrogate at character {error.start}; "
            "decode the text with errors='replace' before sending it",
        ) from None


def _turn_bytes(message: ChatMessage, place: str) -> int:
    size = _bytes(message.content, f"{place}.content")
    for field in (message.name, message.tool_call_id):
        size += 0 if field is None else FIELD_BYTES + len(field.encode())
    for index, call in enumerate(message.tool_calls):
        where = f"{place}.tool_calls[{index}]"
        size += FIELD_BYTES + len(call.id.encode()) + len(call.name.encode())
        size += _bytes(call.arguments, f"{where}.arguments")
    return size


def _check_text(request: CommandRequest) -> None:
    for name, limit in (("messages", MAX_MESSAGES), ("inputs", MAX_INPUTS)):
        found = len(getattr(request, name))
        if found > limit:
            raise InvalidRequest.about(name, f"has {found} entries; at most {limit} are allowed")
    size = 0
    for index, message in enumerate(request.messages):
        if message.role not in ROLES:
            raise InvalidRequest.about(
                f"messages[{index}].role",
                f"is {message.role!r}; it must be one of {', '.join(ROLES)}",
            )
        place = f"messages[{index}]"
        check_turn(message, place)
        size += _turn_bytes(message, place)
    size += _bytes(request.prompt or "", "prompt")
    size += _bytes(request.continuation or "", "continuation")
    size += sum(_bytes(text, f"inputs[{i}]") for i, text in enumerate(request.inputs))
    size += _bytes(request.response_schema or "", "response_schema")
    for index, tool in enumerate(request.tools):
        size += FIELD_BYTES + len(tool.name)
        size += _bytes(tool.description or "", f"tools[{index}].description")
        size += _bytes(tool.parameters, f"tools[{index}].parameters")
    if size > MAX_TEXT_BYTES:
        raise InvalidRequest(
            f"the text has {size} bytes; at most {MAX_TEXT_BYTES} fit one request: shorten it"
        )


def _check_sampling(request: CommandRequest) -> None:
    sampling = request.sampling
    for name, (kind, least, most) in _RANGES.items():
        value = getattr(sampling, name)
        if value is not None:
            _check_number(value, name, kind, least, most)
    if len(sampling.stop) > 16:
        raise InvalidRequest.about(
            "stop", f"has {len(sampling.stop)} entries; at most 16 are allowed"
        )
    for index, stop in enumerate(sampling.stop):
        _bytes(stop, f"stop[{index}]")
        if not 1 <= len(stop) <= 1024:
            raise InvalidRequest.about(
                "stop", f"has an entry of {len(stop)} characters; 1 to 1024 are allowed"
            )


def check_request(request: CommandRequest) -> None:
    """Refuse a request that no peer could answer.

    Raises:
      InvalidRequest: naming the value and the rule it breaks.

    """
    if not REQUEST_ID.fullmatch(request.request_id):
        raise InvalidRequest.about(
            "request_id",
            f"is {request.request_id[:200]!r}; "
            "it must be 1 to 128 printable ASCII characters without spaces",
        )
    if request.command not in COMMANDS:
        raise InvalidRequest.about(
            "command", f"is {request.command!r}; it must be one of {', '.join(COMMANDS)}"
        )
    if request.command == "chat" and not request.messages:
        raise InvalidRequest.about("messages", "is empty; chat needs at least one message")
    if request.command == "complete" and not request.prompt:
        raise InvalidRequest.about("prompt", "is empty; complete needs text to go on from")
    if request.command == "embed" and not request.inputs:
        raise InvalidRequest.about("inputs", "is empty; embed needs at least one text")
    if request.model is not None and not 1 <= len(request.model) <= 256:
        raise InvalidRequest.about(
            "model", f"has {len(request.model)} characters; 1 to 256 are allowed"
        )
    _bytes(request.model or "", "model")
    if request.model_digest is not None and not DIGEST.fullmatch(request.model_digest):
        raise InvalidRequest.about(
            "model_digest",
            f"is {request.model_digest[:80]!r}; it must be 64 hexadecimal digits, in small letters",
        )
    if request.timeout is not None and not 0 < request.timeout <= LONGEST_TIMEOUT:
        raise InvalidRequest.about(
            "timeout",
            f"is {request.timeout!r} s; it must be above 0 and at most {LONGEST_TIMEOUT:g}",
        )
    _check_number(request.priority, "priority", int, -100, 100)
    _check_number(request.stream_interval, "stream_interval", float, 0, 1)
    if request.logprobs is not None:
        _check_number(request.logprobs, "logprobs", int, 0, MAX_ALTERNATIVES)
    _check_text(request)
    check_form(request)
    _check_sampling(request)
