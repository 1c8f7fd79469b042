"""The blocks of which the messages of Anthropic's clients are made, as far as they can be read.

A block of another type was made by a tool that runs at Anthropic's, or is a file that lies there:
nobody here can read it, so it is refused by name.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, field_validator

from ..bodies import BRANCH, MAX_PARTS, Body, Refused, Text, field_of, shown, text_or_list
from ._taken import Cached, Echoed

MEDIA_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")
"""Of images."""


def _type_of(*known: str) -> Discriminator:
    """Tells a block by its `type`; one that is not *known* is an `UnreadableBlock`."""

    def branch(value: Any) -> str | None:
        # pydantic asks about models that are there already, too.
        kind = field_of(value, "type")
        if isinstance(kind, str) and kind in known:
            return f"{BRANCH}{kind}"
        return f"{BRANCH}other" if isinstance(kind, str) or isinstance(value, Body) else None

    return Discriminator(
        branch, custom_error_type="block", custom_error_message="it has no type that is known"
    )


def _unreadable(kind: Any) -> str:
    """Blocks of other types cannot be read here; leave them out, or say in text what is in them."""
    return (
        f"a block of the type {shown(kind)} cannot be read here; leave it out, or say in text "
        "what is in it"
    )


class UnreadableBlock(Body):
    """A block of any other type."""

    model_config = ConfigDict(extra="allow")

    type: Annotated[Any, Refused(_unreadable, empty=False)] = None


class TextBlock(Body):
    """A text."""

    type: Literal["text"]
    text: str
    cache_control: Cached = None
    citations: Echoed = None
    # What clients gather from streams beside it, and send back.
    index: Echoed = None
    parsed_output: Echoed = None


Texts = Annotated[
    Text | Annotated[list[TextBlock], Field(max_length=MAX_PARTS, fail_fast=True), Tag("~list")],
    Discriminator(text_or_list),
]


class Base64Source(Body):
    """The bytes of an image."""

    type: Literal["base64"]
    media_type: Literal["image/jpeg", "image/png", "image/gif", "image/webp"]
    data: str

    @field_validator("data")
    @classmethod
    def _is_base64(cls, value: str) -> str:
        try:
            base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("it is not base64") from None
        return value

    @cached_property
    def content(self) -> bytes:
        """The image itself."""
        return base64.b64decode(self.data)


def _not_here(kind: Any) -> str:
    """Nothing is fetched from a url or a file, and only text is read of documents."""
    if kind in ("url", "file"):
        return f"nothing is fetched from a {kind}; send what is there in its place"
    return f"a source of the type {shown(kind)} cannot be read here; send an image, or a text"


class ElsewhereSource(Body):
    """An image or a document that would have to be fetched, or that is no text."""

    model_config = ConfigDict(extra="allow")

    type: Annotated[Any, Refused(_not_here, empty=False)] = None


class ImageBlock(Body):
    """A picture."""

    type: Literal["image"]
    source: Annotated[
        Annotated[Base64Source, Tag("~base64")] | Annotated[ElsewhereSource, Tag("~other")],
        _type_of("base64"),
    ]
    transformations: Echoed = None
    cache_control: Cached = None


Uncited = Annotated[
    Any, Refused("no model here cites; set enabled to false", nothing=({"enabled": False},))
]
"""Whether an answer is to say which part of a document it is from."""


class TextSource(Body):
    """A document that is plain text."""

    type: Literal["text"]
    media_type: Literal["text/plain"] = "text/plain"
    data: str


class ContentSource(Body):
    """A document that is a list of texts."""

    type: Literal["content"]
    content: Texts


class DocumentBlock(Body):
    """A document, as far as it is text."""

    type: Literal["document"]
    source: Annotated[
        Annotated[TextSource, Tag("~text")]
        | Annotated[ContentSource, Tag("~content")]
        | Annotated[ElsewhereSource, Tag("~other")],
        _type_of("text", "content"),
    ]
    title: str | None = None
    context: str | None = None
    citations: Uncited = None
    cache_control: Cached = None

    @property
    def text(self) -> str:
        """All of it: title, context and content, a paragraph each."""
        source = self.source
        if isinstance(source, TextSource):
            content = source.data
        elif isinstance(source, ContentSource):
            content = text_of(source.content)
        else:
            content = ""
        return "\n".join(text for text in (self.title, self.context, content) if text)


class SearchResultBlock(Body):
    """What a search of the caller's has found."""

    type: Literal["search_result"]
    source: str
    title: str
    content: Annotated[list[TextBlock], Field(max_length=MAX_PARTS, fail_fast=True)]
    citations: Uncited = None
    cache_control: Cached = None

    @property
    def text(self) -> str:
        """All of it, a paragraph each."""
        return "\n".join([self.title, self.source, text_of(self.content)])


class ThinkingBlock(Body):
    """What the assistant thought, as it was sent."""

    type: Literal["thinking"]
    thinking: str
    signature: str = ""
    index: Echoed = None
    cache_control: Cached = None


class RedactedThinkingBlock(Body):
    """What the assistant thought, in a form that only Anthropic can read."""

    type: Literal["redacted_thinking"]
    data: Echoed = None
    index: Echoed = None
    cache_control: Cached = None


class ToolUseBlock(Body):
    """A call that the assistant asked for."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any] = Field(default_factory=dict)
    caller: Echoed = None
    toolset_name: Echoed = None
    cache_control: Cached = None
    index: Echoed = None
    partial_json: str | None = Field(
        default=None, description="The input as a stream has it, where nothing was read of it yet."
    )

    @property
    def arguments(self) -> str:
        """The input, as JSON text."""
        if not self.input and self.partial_json:
            return self.partial_json
        return json.dumps(self.input, ensure_ascii=False)


class ToolReferenceBlock(Body):
    """A tool that a search for tools has found: from here on the model may call it."""

    type: Literal["tool_reference"]
    tool_name: str
    cache_control: Cached = None


ResultPart = Annotated[
    Annotated[TextBlock, Tag("~text")]
    | Annotated[ImageBlock, Tag("~image")]
    | Annotated[DocumentBlock, Tag("~document")]
    | Annotated[SearchResultBlock, Tag("~search_result")]
    | Annotated[ToolReferenceBlock, Tag("~tool_reference")]
    | Annotated[UnreadableBlock, Tag("~other")],
    _type_of("text", "image", "document", "search_result", "tool_reference"),
]


class ToolResultBlock(Body):
    """What a call has returned."""

    type: Literal["tool_result"]
    tool_use_id: str
    content: (
        Annotated[
            Text
            | Annotated[
                list[ResultPart], Field(max_length=MAX_PARTS, fail_fast=True), Tag("~list")
            ],
            Discriminator(text_or_list),
        ]
        | None
    ) = None
    is_error: bool | None = None
    toolset_name: Echoed = None
    cache_control: Cached = None


class CompactionBlock(Body):
    """What stands for an earlier part of the conversation."""

    type: Literal["compaction"]
    content: str | None = None
    encrypted_content: Echoed = None
    signature: Echoed = None
    tool_changes: Echoed = None
    cache_control: Cached = None


class FallbackBlock(Body):
    """Says that another model took over here; it is no part of what a model reads."""

    model_config = ConfigDict(extra="allow")

    type: Literal["fallback"]


class ToolChange(Body):
    """The tool that a block is about."""

    type: Literal["tool_reference"]
    name: str


class ToolChangeBlock(Body):
    """From here on the model may call one more tool, or one less."""

    type: Literal["tool_addition", "tool_removal"]
    tool: ToolChange
    cache_control: Cached = None


Block = Annotated[
    Annotated[TextBlock, Tag("~text")]
    | Annotated[ImageBlock, Tag("~image")]
    | Annotated[DocumentBlock, Tag("~document")]
    | Annotated[SearchResultBlock, Tag("~search_result")]
    | Annotated[ThinkingBlock, Tag("~thinking")]
    | Annotated[RedactedThinkingBlock, Tag("~redacted_thinking")]
    | Annotated[ToolUseBlock, Tag("~tool_use")]
    | Annotated[ToolResultBlock, Tag("~tool_result")]
    | Annotated[CompactionBlock, Tag("~compaction")]
    | Annotated[FallbackBlock, Tag("~fallback")]
    | Annotated[ToolChangeBlock, Tag("~tool_addition")]
    | Annotated[ToolChangeBlock, Tag("~tool_removal")]
    | Annotated[UnreadableBlock, Tag("~other")],
    _type_of(
        *("text", "image", "document", "search_result", "thinking", "redacted_thinking"),
        *("tool_use", "tool_result", "compaction", "fallback", "tool_addition", "tool_removal"),
    ),
]

Content = Annotated[
    Text | Annotated[list[Block], Field(max_length=MAX_PARTS, fail_fast=True), Tag("~list")],
    Discriminator(text_or_list),
]


def text_of(content: str | Sequence[TextBlock]) -> str:
    """The texts of *content*, a paragraph each."""
    if isinstance(content, str):
        return content
    return "\n".join(block.text for block in content)
