"""The bodies that Anthropic's clients send, as far as small machines can honour them."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from ..bodies import Body, ModelName, PunchOptions, Refused, Taken, field_of, shown, within
from ._blocks import Content, Texts
from ._taken import Cached, Echoed, Elsewhere, OfAnswers

Effort = Literal["low", "medium", "high", "xhigh", "max"]


class TurnOutput(Body):
    """What a system message asks of the answers from here on."""

    effort: Effort | None = None


class TurnBody(Body):
    """A message of a conversation."""

    role: Literal["user", "assistant", "system"]
    content: Content | None = None
    output_config: TurnOutput | None = None
    clear_at: Literal["next_user_message", "never"] | None = None
    # The rest of an answer, where a client sends all of it back.
    id: Echoed = None
    type: Echoed = None
    model: Echoed = None
    stop_reason: Echoed = None
    stop_sequence: Echoed = None
    stop_details: Echoed = None
    usage: Echoed = None
    container: Echoed = None
    diagnostics: Echoed = None
    punch: Echoed = None


class ToolBody(Body):
    """A tool of the caller's own."""

    type: Literal["custom"] | None = None
    name: str
    description: str | None = None
    input_schema: dict[str, Any] = Field(default_factory=dict)
    input_examples: list[dict[str, Any]] | None = None
    defer_loading: bool | None = None
    # llama.cpp writes the arguments of every call under a grammar of their schema.
    strict: bool | None = None
    allowed_callers: list[str] | None = None
    cache_control: Cached = None
    eager_input_streaming: Annotated[Any, Taken("calls come at the end of a stream")] = None

    @field_validator("allowed_callers")
    @classmethod
    def _by_the_model(cls, value: list[str] | None) -> list[str] | None:
        if value and "direct" not in value:
            raise ValueError('no code runs here that could call it; add "direct"')
        return value


def _of_anthropic(kind: Any) -> str:
    """Tools of Anthropic's, which no model here knows; give tools with an input_schema."""
    return (
        f"{shown(kind)} is a tool of Anthropic's, which no model here knows; leave it out, or give "
        "a tool of your own with an input_schema (Claude Code: --disallowedTools WebSearch)"
    )


class ForeignTool(Body):
    """A tool that is Anthropic's, by its schema or by where it runs."""

    model_config = ConfigDict(extra="allow")

    type: Annotated[Any, Refused(_of_anthropic, empty=False)] = None


def _tool_kind(value: Any) -> str:
    kind = field_of(value, "type")
    return "~own" if kind in (None, "custom") else "~foreign"


ToolUnion = Annotated[
    Annotated[ToolBody, Tag("~own")] | Annotated[ForeignTool, Tag("~foreign")],
    Discriminator(_tool_kind),
]


class ToolChoiceBody(Body):
    """Whether the model must call a tool, and which."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None

    @model_validator(mode="after")
    def _complete(self) -> ToolChoiceBody:
        if (self.type == "tool") != (self.name is not None):
            raise ValueError("name goes with the type 'tool' and with no other")
        return self


class ThinkingBody(Body):
    """Whether the model thinks before it answers, and whether that is told."""

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: Annotated[int | None, Field(ge=0)] = None
    display: Literal["summarized", "omitted"] | None = None


class JsonFormat(Body):
    """The JSON schema that an answer must fit."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")
    name: str | None = None

    @property
    def text(self) -> str:
        """The schema, as text."""
        return json.dumps(self.schema_, ensure_ascii=False)


class OutputConfig(Body):
    """The form of an answer, and how much thought it is worth."""

    effort: Effort | None = None
    format: JsonFormat | None = None


class Clearing(Body):
    """A part of the conversation that the server may leave out, to spare tokens."""

    model_config = ConfigDict(extra="allow")

    type: Annotated[Any, Taken("all of the conversation is read")] = None


def _no_edit(kind: Any) -> str:
    """Only edits that leave something out can be asked for, and all is read."""
    return f"{shown(kind)} is nothing that is done to a conversation here; leave it out"


class OtherEdit(Body):
    """What else a server may do to a conversation."""

    model_config = ConfigDict(extra="allow")

    type: Annotated[Any, Refused(_no_edit, empty=False)] = None


def _edit_kind(value: Any) -> str:
    kind = field_of(value, "type")
    return "~clear" if isinstance(kind, str) and kind.startswith("clear_") else "~other"


ContextEdit = Annotated[
    Annotated[Clearing, Tag("~clear")] | Annotated[OtherEdit, Tag("~other")],
    Discriminator(_edit_kind),
]


class ContextManagement(Body):
    """What the server may leave out of a conversation; all of it is read here."""

    edits: Annotated[list[ContextEdit], Field(max_length=16, fail_fast=True)] | None = None


class PromptBody(Body):
    """The fields that a question and the counting of its tokens share."""

    model: ModelName = "auto"
    messages: Annotated[list[TurnBody], within("messages", min_length=1)]
    system: Texts | None = None
    tools: Annotated[list[ToolUnion], within("tools", max_length=1024)] | None = None
    tool_choice: ToolChoiceBody | None = None
    thinking: ThinkingBody | None = None
    output_config: OutputConfig | None = None
    output_format: JsonFormat | None = None
    context_management: ContextManagement | None = None
    cache_control: Cached = None
    metadata: Elsewhere = None
    speed: Elsewhere = None
    inference_geo: Elsewhere = None
    service_tier: Elsewhere = None
    billing_policy: Elsewhere = None
    fallbacks: Elsewhere = None
    fallback_credit_token: Elsewhere = None
    diagnostics: Elsewhere = None
    user_profile_id: Elsewhere = None
    workspace_id: Elsewhere = None
    betas: Elsewhere = None
    anthropic_beta: Elsewhere = None
    anthropic_version: Elsewhere = None
    mcp_servers: Annotated[
        Any, Refused("no server is called from here; give its tools as tools of your own")
    ] = None
    container: Annotated[Any, Refused("no code runs here; leave it out")] = None
    compaction: Annotated[Any, Refused("ask for a summary in a message instead")] = None
    thread: Annotated[Any, Refused("nothing is stored; send all of the conversation")] = None
    punch: PunchOptions = PunchOptions()

    @property
    def schema_text(self) -> str | None:
        """The JSON schema that the answer must fit."""
        config = self.output_config
        form = (config.format if config is not None else None) or self.output_format
        return None if form is None else form.text


class MessagesBody(PromptBody):
    """``POST /v1/messages``."""

    # Anthropic demands it; an answer without a limit ends where its model ends it.
    max_tokens: Annotated[int | None, within("max_tokens", ge=0)] = None
    stream: bool | None = None
    stop_sequences: Annotated[list[str], within("stop")] | None = None
    temperature: Annotated[float | None, within("temperature")] = None
    top_p: Annotated[float | None, within("top_p")] = None
    top_k: Annotated[int | None, within("top_k")] = None


class CountBody(PromptBody):
    """``POST /v1/messages/count_tokens``."""

    # Clients count with the fields of the question that they will ask.
    max_tokens: OfAnswers = None
    stream: OfAnswers = None
    stop_sequences: OfAnswers = None
    temperature: OfAnswers = None
    top_p: OfAnswers = None
    top_k: OfAnswers = None
