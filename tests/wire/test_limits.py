"""One table says what a request may be, and everything that judges one is made from it."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import attrs
import pytest

from punch.exceptions import InvalidRequest
from punch.wire import (
    LIMITS,
    SAMPLING_NUMBERS,
    ChatMessage,
    CommandRequest,
    ContentPart,
    Limit,
    Request,
    Sampling,
    Tool,
    ToolCall,
    check_combination,
    check_request,
    decode,
    encode,
)
from punch.wire._decoders import BadValue
from punch.wire._limits import (
    MAX_ADDRESSES,
    MAX_ENTRIES,
    MAX_FRAME_BYTES,
    MAX_JSON_LEVELS,
    MAX_LISTENER_REGISTRATION_BYTES,
    MAX_LOGPROBS,
    MAX_REGISTRATION_BYTES,
)
from punch.wire._schema import MESSAGES

ROOT = Path(__file__).parent.parent.parent

GOOD = CommandRequest(request_id="r1", messages=(ChatMessage(role="user", content="hi"),))
TOOL = Tool(name="f")
PART = ContentPart(type="image", data=b"x")
TURN = ChatMessage(role="assistant", content="")
RESULT = ChatMessage(role="tool", content="", tool_call_id="c")
CALL = ToolCall(id="c", name="f", arguments="{}")


def called(**changes: Any) -> CommandRequest:
    """A good request with a call that has these changes."""
    call = attrs.evolve(CALL, **changes)
    return attrs.evolve(GOOD, messages=(attrs.evolve(TURN, tool_calls=(call,)),))


def with_value(name: str, value: Any) -> CommandRequest:
    """A good request but for what the field *name* holds."""
    match name:
        case "messages[].name":
            return attrs.evolve(GOOD, messages=(attrs.evolve(TURN, name=value),))
        case "messages[].tool_call_id":
            return attrs.evolve(GOOD, messages=(attrs.evolve(RESULT, tool_call_id=value),))
        case "messages[].tool_calls":
            return attrs.evolve(GOOD, messages=(attrs.evolve(TURN, tool_calls=value),))
        case "tools[].name":
            return attrs.evolve(GOOD, tools=(attrs.evolve(TOOL, name=value),))
        case "tools[].parameters":
            return attrs.evolve(GOOD, tools=(attrs.evolve(TOOL, parameters=value),))
        case "messages[].parts":
            return attrs.evolve(GOOD, messages=(ChatMessage(role="user", content="", parts=value),))
        case _ if name.startswith("messages[].parts[]."):
            part = attrs.evolve(PART, **{name.rpartition(".")[2]: value})
            if name.endswith(".url"):
                part = attrs.evolve(part, data=None)
            return attrs.evolve(GOOD, messages=(attrs.evolve(TURN, parts=(part,)),))
        case "inputs":
            return attrs.evolve(GOOD, command="embed", messages=(), inputs=value)
        case "tool_choice":
            return attrs.evolve(GOOD, tools=(TOOL,), tool_choice=value)
        case "stop[]":
            return attrs.evolve(GOOD, sampling=Sampling(stop=(value,)))
        case _ if name.startswith("messages[].tool_calls[]."):
            return called(**{name.rpartition(".")[2]: value})
        case _ if name == "stop" or name in SAMPLING_NUMBERS:
            return attrs.evolve(GOOD, sampling=Sampling(**{name: value}))
    return attrs.evolve(GOOD, **{name: value})


ENTRIES = {
    "messages": GOOD.messages[0],
    "messages[].tool_calls": CALL,
    "messages[].parts": PART,
    "inputs": "x",
    "tools": TOOL,
    "stop": "x",
}


def of_length(name: str, length: int) -> Any:
    """A value of this length: a text that means something, or a list."""
    if name == "tools":
        return tuple(attrs.evolve(TOOL, name=f"f{index}") for index in range(length))
    if name in ENTRIES:
        return (ENTRIES[name],) * length
    if name in ("response_schema", "tools[].parameters") and length > 1:
        return "{" + " " * (length - 2) + "}"
    return b"a" * length if LIMITS[name].type is bytes else "a" * length


def edges(name: str, limit: Limit) -> tuple[list[Any], list[Any]]:
    """Values at the ends of a limit, and those just beyond them."""
    if limit.type in (int, float):
        step = 1 if limit.type is int else 1e-3
        lowest = limit.least + step if limit.above else limit.least
        beyond = limit.most + (step if limit.most < 1e6 else limit.most)
        below = limit.least if limit.above else limit.least - step
        return [lowest, limit.most], [below, beyond, *([math.nan] if step < 1 else [])]
    least, most = int(limit.least), int(limit.most)
    wrong = [of_length(name, most + 1)]
    if least > 0:
        wrong.append(of_length(name, least - 1))
    return [of_length(name, most)], wrong


# A choice must be one of the words, and none is as long as a frame takes.
CHECKED = [name for name in LIMITS if name != "tool_choice"]


@pytest.mark.parametrize("name", CHECKED)
def test_both_ends_of_a_limit_pass_and_travel(name: str) -> None:
    """What the check lets through, the peer can read."""
    good, _ = edges(name, LIMITS[name])
    for value in good:
        request = with_value(name, value)
        check_request(request)
        assert decode(encode(Request(request=request))[4:]) == Request(request=request)


@pytest.mark.parametrize("name", CHECKED)
def test_what_is_beyond_a_limit_is_refused_by_its_name(name: str) -> None:
    """Before it is sent anywhere."""
    _, wrong = edges(name, LIMITS[name])
    for value in wrong:
        with pytest.raises(InvalidRequest) as caught:
            check_request(with_value(name, value))
        found = re.sub(r"\[\d+\]", "[]", caught.value.param or "")
        # An entry of `stop` has no name of its own for clients.
        assert found == name.removesuffix("[]")


@pytest.mark.parametrize("name", CHECKED)
def test_what_is_beyond_a_limit_is_not_read_either(name: str) -> None:
    """A peer that sends it ends its session. What only means nothing is the caller's to mend."""
    limit = LIMITS[name]
    _, wrong = edges(name, limit)
    if limit.above:
        wrong = [value for value in wrong if value != limit.least]
    for value in wrong:
        request = attrs.asdict(with_value(name, value), recurse=True)
        with pytest.raises(BadValue):
            MESSAGES["request"]({"request": as_sent(request)})


@pytest.mark.parametrize("name", [name for name in CHECKED if LIMITS[name].above])
def test_what_means_nothing_and_can_be_read_is_refused_by_the_peer(name: str) -> None:
    """Its listener looks at how values go together, and at those that are read all the same."""
    request = with_value(name, LIMITS[name].least)
    assert decode(encode(Request(request=request))[4:]) == Request(request=request)
    with pytest.raises(InvalidRequest, match=name):
        check_combination(request)


def as_sent(value: Any) -> Any:
    """What msgpack would make of it at the other end: lists, and no fields without a value."""
    if isinstance(value, dict):
        return {key: as_sent(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [as_sent(item) for item in value]
    return value


def test_every_number_of_the_sampling_has_a_limit() -> None:
    """Whoever adds one writes its limit down."""
    fields = {field.name for field in attrs.fields(Sampling)} - {"stop"}
    assert fields == set(SAMPLING_NUMBERS)
    assert fields <= set(LIMITS)


def test_every_other_field_of_a_request_has_a_limit_too() -> None:
    """But for switches, words of a list, and texts that count against the frame."""
    fields = {field.name for field in attrs.fields(CommandRequest)}
    switches = {"stream", "strict", "continuable", "parallel_tool_calls"}
    others = {"command", "sampling", "prompt", "continuation", "hints"}
    assert fields - switches - others <= set(LIMITS)


def test_every_limit_is_that_of_a_field() -> None:
    """None is left when its field is gone."""
    fields = {field.name for cls in (CommandRequest, Sampling) for field in attrs.fields(cls)}
    assert {re.split(r"[\[.]", name)[0] for name in LIMITS} <= fields


# ---- those who say them in words ----

PROTOCOL = " ".join((ROOT / "docs" / "protocol.md").read_text(encoding="utf-8").split())


@pytest.mark.parametrize(
    "words",
    [
        f"punch takes {MAX_FRAME_BYTES >> 20} MiB",
        f"Maps and arrays have at most {MAX_ENTRIES:,} entries",
        f"nested at most {MAX_JSON_LEVELS} deep",
        f"`max_tokens` is at most {MAX_LOGPROBS}",
        f"for each token, at most {MAX_LOGPROBS}: the token's text",
        f"has at most {MAX_LISTENER_REGISTRATION_BYTES} bytes, any other {MAX_REGISTRATION_BYTES}",
        f"at most {MAX_ADDRESSES} addresses",
    ],
)
def test_the_protocol_says_the_other_limits_as_they_are(words: str) -> None:
    """The table of a request's fields is made by docs/help.py; these stand in sentences."""
    assert words in PROTOCOL
