"""The items of a conversation, as OpenAI's Responses API has them, made messages between peers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

import attrs
from pydantic import ConfigDict, Discriminator, Field, Tag

from ...wire import ChatMessage, ContentPart, ToolCall
from ..bodies import (
    MAX_PARTS,
    Body,
    PictureAddress,
    Refused,
    Taken,
    Text,
    field_of,
    text_or_list,
    thought_in,
)
from ._response_tools import ToolNames, arguments_of

Echoed = Annotated[Any, Taken("an echo of an answer, which no model reads")]


class TextPart(Body):
    """A text in a message."""

    type: Literal["input_text", "output_text", "text", "summary_text", "reasoning_text"]
    text: str
    # What an earlier answer had, and what clients have read of it.
    annotations: Echoed = None
    logprobs: Echoed = None
    parsed: Echoed = None

    @property
    def part(self) -> ContentPart:
        """The part as peers read it."""
        return ContentPart(type="text", text=self.text)


class PicturePart(Body):
    """A picture in a message."""

    type: Literal["input_image"]
    image_url: PictureAddress
    detail: Annotated[Any, Taken("how finely a model looks is its own matter")] = None
    file_id: Annotated[Any, Refused("no files are stored here; send the picture itself")] = None

    @property
    def part(self) -> ContentPart:
        """The part as peers read it."""
        found: ContentPart = self.image_url
        return found


class RefusalPart(Body):
    """What the assistant said instead of an answer."""

    type: Literal["refusal"]
    refusal: str

    @property
    def part(self) -> ContentPart:
        """The part as peers read it."""
        return ContentPart(type="text", text=self.refusal)


class OtherPart(Body):
    """A part of a kind that cannot be read."""

    model_config = ConfigDict(extra="ignore")

    type: Annotated[
        Any, Refused("no peer reads parts of this type; say in text what is in it", empty=False)
    ] = None

    @property
    def part(self) -> ContentPart:
        """The part as peers read it; there is none."""
        return ContentPart(type="text", text="")


_TEXTS = ("input_text", "output_text", "text", "summary_text", "reasoning_text")


def _kind_of_part(value: Any) -> str:
    kind = field_of(value, "type")
    if kind in ("input_image", "refusal"):
        return f"~{kind}"
    return "~text" if kind in _TEXTS or not isinstance(kind, str) else "~other"


Content = Annotated[
    Text
    | Annotated[
        list[
            Annotated[
                Annotated[TextPart, Tag("~text")]
                | Annotated[PicturePart, Tag("~input_image")]
                | Annotated[RefusalPart, Tag("~refusal")]
                | Annotated[OtherPart, Tag("~other")],
                Discriminator(_kind_of_part),
            ]
        ],
        Field(max_length=MAX_PARTS, fail_fast=True),
        Tag("~list"),
    ],
    Discriminator(text_or_list),
]


def _parts_of(content: Any) -> list[ContentPart]:
    if isinstance(content, str):
        return [ContentPart(type="text", text=content)]
    return [each.part for each in content or ()]


def _text_of(content: Any) -> str:
    return "".join(part.text or "" for part in _parts_of(content))


class Item(Body):
    """What every item may have."""

    id: str | None = None
    status: str | None = None
    # Codex's own notes.
    metadata: Annotated[Any, Taken("nothing is stored that it could be found by")] = None

    def message(self, names: ToolNames) -> ChatMessage:
        """The item as a message between peers; *names* are those of the tools."""
        raise NotImplementedError


class Message(Item):
    """A message of the conversation."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Content
    phase: Echoed = None

    def message(self, names: ToolNames) -> ChatMessage:
        """The item as a message between peers."""
        role = "system" if self.role == "developer" else self.role
        return ChatMessage.of_parts(role, _parts_of(self.content))


class Called(Item):
    """A function that the assistant asked for."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["function_call"]
    call_id: str
    name: str
    namespace: str | None = None
    arguments: str

    def message(self, names: ToolNames) -> ChatMessage:
        """The item as a message between peers."""
        name = names.ours(self.name, self.namespace)
        call = ToolCall(id=self.call_id, name=name, arguments=self.arguments)
        return ChatMessage(role="assistant", content="", tool_calls=(call,))


class CalledWithText(Item):
    """A tool that takes free text, which the assistant asked for."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["custom_tool_call"]
    call_id: str
    name: str
    input: str

    def message(self, names: ToolNames) -> ChatMessage:
        """The item as a message between peers."""
        call = ToolCall(id=self.call_id, name=self.name, arguments=arguments_of(self.input))
        return ChatMessage(role="assistant", content="", tool_calls=(call,))


class Returned(Item):
    """The output of a tool."""

    type: Literal["function_call_output", "custom_tool_call_output"]
    call_id: str
    output: Content

    def message(self, names: ToolNames) -> ChatMessage:
        """The item as a message between peers."""
        parts = _parts_of(self.output)
        return ChatMessage.of_parts("tool", parts, tool_call_id=self.call_id)


class Reasoned(Item):
    """What the assistant thought before it said or asked for anything."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["reasoning"]
    summary: Content | None = None
    content: Content | None = None
    encrypted_content: str | None = Field(
        default=None, description="What was thought, where the item has no text of it."
    )

    def message(self, names: ToolNames) -> ChatMessage:
        """The item as a message between peers, with what was thought alone."""
        thought = _text_of(self.content) or _text_of(self.summary)
        thought = thought or thought_in(self.encrypted_content or "")
        return ChatMessage(role="assistant", content="", reasoning=thought or None)


class Reference(Body):
    """An item of an earlier answer, which its client believes to be kept."""

    type: Literal["item_reference"] = "item_reference"
    id: str


class OtherItem(Item):
    """An item of a kind that cannot be read here."""

    model_config = ConfigDict(extra="ignore")

    type: Annotated[Any, Refused("no peer can read items of this type", empty=False)] = None


_KINDS: dict[str, str] = {
    "message": "~message",
    "function_call": "~function_call",
    "custom_tool_call": "~custom_tool_call",
    "function_call_output": "~output",
    "custom_tool_call_output": "~output",
    "reasoning": "~reasoning",
    "item_reference": "~reference",
}


def _kind_of_item(value: Any) -> str:
    if isinstance(value, dict):
        kind = value.get("type")
        if kind is None:
            kind = "item_reference" if value.keys() <= {"id", "type"} else "message"
        return _KINDS.get(kind, "~other") if isinstance(kind, str) else "~message"
    return _KINDS.get(str(getattr(value, "type", "message")), "~other")


AnyItem = Annotated[
    Annotated[Message, Tag("~message")]
    | Annotated[Called, Tag("~function_call")]
    | Annotated[CalledWithText, Tag("~custom_tool_call")]
    | Annotated[Returned, Tag("~output")]
    | Annotated[Reasoned, Tag("~reasoning")]
    | Annotated[Reference, Tag("~reference")]
    | Annotated[OtherItem, Tag("~other")],
    Discriminator(_kind_of_item),
]


def joined(messages: Iterable[ChatMessage]) -> list[ChatMessage]:
    """*messages*, of an item each, in turns: thought, text and calls of one turn are one."""
    found: list[ChatMessage] = []
    for message in messages:
        last = found[-1] if found else None
        if last is None or not _belong_together(last, message):
            found.append(message)
            continue
        thoughts = [text for text in (last.reasoning, message.reasoning) if text]
        found[-1] = attrs.evolve(
            last,
            content=last.content + message.content,
            tool_calls=last.tool_calls + message.tool_calls,
            reasoning="\n".join(thoughts) or None,
        )
    # What was thought without a word or a call after it says nothing to a model, and nor does an
    # empty message of the assistant's, which programs put where the answer is to come.
    return [each for each in found if each.role != "assistant" or each.content or each.tool_calls]


def _belong_together(last: ChatMessage, message: ChatMessage) -> bool:
    """Whether *message* is of the turn of *last*: its call, or what follows its thought."""
    if (last.role, message.role) != ("assistant", "assistant") or last.parts or message.parts:
        return False
    return bool(message.tool_calls) or not (last.content or last.tool_calls)


def said_in(
    output: Sequence[Mapping[str, Any]], calls: Sequence[ToolCall]
) -> dict[str, ChatMessage]:
    """What the items of an output say, by their ids; *calls* are those among them, in order."""
    found, left = {}, iter(calls)
    for item in output:
        fields: dict[str, Any]
        if item["type"] == "message":
            fields = {"content": _spelled(item["content"])}
        elif item["type"] == "reasoning":
            thought = _spelled(item.get("content", ())) or _spelled(item["summary"])
            fields = {"content": "", "reasoning": thought or None}
        else:
            fields = {"content": "", "tool_calls": (next(left),)}
        found[item["id"]] = ChatMessage(role="assistant", **fields)
    return found


def _spelled(parts: Iterable[Mapping[str, Any]]) -> str:
    return "".join(part["text"] for part in parts)
