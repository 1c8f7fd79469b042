"""Messages of a chat as OpenAI's clients write them, and what peers read of them.

What a client sends back of our own answer has fields of its library's beside ours: those of an
assistant's message change nothing, whatever they are, but for a few that would.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from ...wire import ChatMessage, ContentPart, ToolCall
from ..bodies import (
    MAX_PARTS,
    Body,
    PictureAddress,
    Refused,
    Taken,
    Text,
    field_of,
    shown,
    text_or,
    text_or_list,
    within,
)
from ._tools import Cached

Remark = Annotated[Any, Taken("a remark of the client's that no model reads")]

_AUDIO = "no answer was spoken here, so none can be referred to; send its text"
_PREFIX = "an answer that was begun cannot be continued"


def _cannot_be_read(kind: Any) -> str:
    return (
        f"no peer can read parts of the type {shown(kind)}; leave it out, or say in text what is "
        "in it"
    )


class TextPart(Body):
    """A part of a message that is text."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["text", "input_text", "output_text"]
    text: str


class PictureLink(Body):
    """Where a picture is: in the address itself."""

    url: PictureAddress
    detail: Annotated[Any, Taken("how finely a model looks is its own matter")] = None

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        # Some clients send the address alone.
        return {"url": value} if isinstance(value, str) else value


class PicturePart(Body):
    """A picture in a message."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["image_url"]
    image_url: PictureLink

    @property
    def part(self) -> ContentPart:
        """The part as peers read it."""
        found: ContentPart = self.image_url.url
        return found


class RefusalPart(Body):
    """What the assistant said instead of an answer."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["refusal"]
    refusal: str


class ThoughtPart(Body):
    """What the assistant thought, as some clients keep it among the parts of its message."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["thinking", "reasoning", "reasoning_content", "redacted_thinking"]


class UnreadablePart(Body):
    """A part of any other type; always refused."""

    model_config = ConfigDict(extra="allow")

    type: Annotated[Any, Refused(_cannot_be_read, empty=False)] = None


def _part_kind(value: Any) -> str:
    kind = field_of(value, "type")
    if kind in (None, "text", "input_text", "output_text"):
        return "~text"
    if kind in ("thinking", "reasoning", "reasoning_content", "redacted_thinking"):
        return "~thought"
    return f"~{kind}" if kind in ("refusal", "image_url") else "~other"


Part = Annotated[
    Annotated[TextPart, Tag("~text")]
    | Annotated[PicturePart, Tag("~image_url")]
    | Annotated[RefusalPart, Tag("~refusal")]
    | Annotated[ThoughtPart, Tag("~thought")]
    | Annotated[UnreadablePart, Tag("~other")],
    Discriminator(_part_kind),
]
Content = Annotated[
    Text | Annotated[list[Part], Field(max_length=MAX_PARTS, fail_fast=True), Tag("~list")],
    Discriminator(text_or_list),
]


def parts_of(content: Content | None) -> list[ContentPart]:
    """The parts of a message, as peers read them."""
    if content is None or isinstance(content, str):
        return [ContentPart(type="text", text=content)] if content else []
    found = []
    for part in content:
        if isinstance(part, TextPart):
            found.append(ContentPart(type="text", text=part.text))
        elif isinstance(part, PicturePart):
            found.append(part.part)
        elif isinstance(part, RefusalPart):
            found.append(ContentPart(type="text", text=part.refusal))
    return found


class FunctionCall(Body):
    """The name and arguments of a call."""

    model_config = ConfigDict(extra="ignore")

    name: str
    # Text, as models write it; some clients keep what they have read of it.
    arguments: Annotated[
        Text | Annotated[dict[str, Any], Tag("~object")],
        text_or("~object"),
    ] = "{}"

    @property
    def text(self) -> str:
        """The arguments, as JSON text."""
        if isinstance(self.arguments, str):
            # A call without arguments; templates read JSON.
            return self.arguments or "{}"
        return json.dumps(self.arguments, ensure_ascii=False)


class CalledTool(Body):
    """A call that the assistant asked for."""

    model_config = ConfigDict(extra="ignore")

    id: str | None = None
    type: Literal["function"] = "function"
    function: FunctionCall


class TurnBody(Body):
    """A message of anybody but the assistant."""

    role: Literal["system", "developer", "user", "tool", "function"]
    content: Content | None = None
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: Annotated[list[Any] | None, Field(max_length=0, fail_fast=True)] = None
    cache_control: Cached = None
    prompt_cache_breakpoint: Cached = None
    id: Remark = None
    index: Remark = None
    type: Remark = None
    status: Remark = None
    metadata: Remark = None
    timestamp: Remark = None
    created: Remark = None
    created_at: Remark = None
    createdAt: Remark = None  # noqa: N815 - as clients in JavaScript write it
    additional_kwargs: Remark = None
    response_metadata: Remark = None
    is_error: Remark = None
    artifact: Remark = None


class AssistantBody(Body):
    """A message of the assistant's: an answer of ours, or of another server's, sent back."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["assistant"]
    content: Content | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: Annotated[list[CalledTool] | None, within("messages[].tool_calls")] = None
    function_call: FunctionCall | None = None
    # What was thought, under the name that we say and under the one that others do.
    reasoning_content: str | None = None
    reasoning: str | None = None
    audio: Annotated[Any, Refused(_AUDIO)] = None
    prefix: Annotated[Any, Refused(_PREFIX, nothing=(False,))] = None
    partial: Annotated[Any, Refused(_PREFIX, nothing=(False,))] = None

    @field_validator("function_call", mode="before")
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        return value or None


def _role(value: Any) -> str:
    role = field_of(value, "role")
    return "~assistant" if role == "assistant" else "~turn"


MessageBody = Annotated[
    Annotated[AssistantBody, Tag("~assistant")] | Annotated[TurnBody, Tag("~turn")],
    Discriminator(_role),
]


def conversation(bodies: Sequence[MessageBody]) -> tuple[ChatMessage, ...]:
    """The messages as peers read them.

    An assistant's message that says nothing is left out: programs put one where the answer is to
    come, and a template would write its head into the prompt.
    """
    found: list[ChatMessage] = []
    for place, body in enumerate(bodies):
        if isinstance(body, AssistantBody):
            message = _said_by_assistant(body, place)
            if message.content or message.tool_calls or message.reasoning:
                found.append(message)
        else:
            found.append(_said(body, found))
    return tuple(found)


def _said_by_assistant(body: AssistantBody, place: int) -> ChatMessage:
    calls = [
        ToolCall(
            id=call.id or f"call_{place}_{index}",
            name=call.function.name,
            arguments=call.function.text,
        )
        for index, call in enumerate(body.tool_calls or ())
    ]
    if body.function_call is not None:
        # What calls were before there could be several.
        call = body.function_call
        calls.append(ToolCall(id=f"call_{place}", name=call.name, arguments=call.text))
    text = body.content
    if not isinstance(text, str):
        text = "".join(part.text or "" for part in parts_of(text))
    return ChatMessage(
        role="assistant",
        content=text or body.refusal or "",
        name=body.name or None,
        tool_calls=tuple(calls),
        reasoning=body.reasoning_content or body.reasoning or None,
    )


def _said(body: TurnBody, before: Sequence[ChatMessage]) -> ChatMessage:
    name, answers = body.name or None, body.tool_call_id or None
    # OpenAI renamed the system role for its reasoning models; all chat templates say system.
    role = "system" if body.role == "developer" else body.role
    if role == "function":
        role, name, answers = "tool", None, _call_of(body.name, before)
    if isinstance(body.content, str):
        return ChatMessage(role=role, content=body.content, name=name, tool_call_id=answers)
    return ChatMessage.of_parts(role, parts_of(body.content), name=name, tool_call_id=answers)


def _call_of(name: str | None, before: Sequence[ChatMessage]) -> str | None:
    """The id of the last call of the function *name*, which its output answers."""
    calls = [call for message in before for call in message.tool_calls]
    return next((call.id for call in reversed(calls) if call.name == name), None)
