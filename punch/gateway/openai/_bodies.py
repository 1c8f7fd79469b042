"""The bodies that OpenAI's clients send, as far as a network of small machines can honour them.

A field that is not here is refused by name. Some are here only with the value that asks for
nothing, since clients send it unasked: ``store: false``, ``logit_bias: {}``.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from ...wire import ContentPart
from ..bodies import (
    MAX_PARTS,
    MAX_SEED,
    Body,
    Effort,
    Function,
    ModelName,
    Never,
    PictureAddress,
    PunchOptions,
    ReasoningOptions,
    Refused,
    Taken,
    TemplateOptions,
    Text,
    within,
)

MAX_ANSWERS = 16
"""Answers to one request, side by side."""


def _kind(value: Any) -> str | None:
    if isinstance(value, str):
        return "~text"
    return "~list" if isinstance(value, list) else None


class TextPart(Body):
    """A text in a message."""

    type: Literal["text"]
    text: str

    @property
    def part(self) -> ContentPart:
        """The part as peers read it."""
        return ContentPart(type="text", text=self.text)


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

    type: Literal["image_url"]
    image_url: PictureLink

    @property
    def part(self) -> ContentPart:
        """The part as peers read it."""
        found: ContentPart = self.image_url.url
        return found


class OtherPart(Body):
    """A part of a kind that cannot be read."""

    model_config = ConfigDict(extra="ignore")

    type: Annotated[Any, Refused("no peer reads parts of this type; say in text what is in it")]

    @property
    def part(self) -> ContentPart:
        """The part as peers read it; there is none."""
        return ContentPart(type="text", text="")


def _kind_of_part(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    if kind in ("text", "image_url"):
        return f"~{kind}"
    return "~other" if isinstance(kind, str) else "~text"


Part = Annotated[
    Annotated[TextPart, Tag("~text")]
    | Annotated[PicturePart, Tag("~image_url")]
    | Annotated[OtherPart, Tag("~other")],
    Discriminator(_kind_of_part),
]
Content = Annotated[
    Text | Annotated[list[Part], Field(max_length=MAX_PARTS, fail_fast=True), Tag("~list")],
    Discriminator(_kind),
]


class FunctionCall(Body):
    """The name and arguments of a call."""

    name: str
    arguments: str


class CalledTool(Body):
    """A call that the assistant asked for."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class MessageBody(Body):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content | None = None
    name: str | None = None
    tool_calls: Annotated[list[CalledTool] | None, within("messages[].tool_calls")] = None
    tool_call_id: str | None = None
    refusal: None = None
    # What the official client's own messages carry when they are sent back.
    audio: None = None
    function_call: None = None
    annotations: list[Any] | None = Field(default=None, max_length=0, fail_fast=True)
    # What was thought, under the name that we say and under the one that others do.
    reasoning_content: str | None = None
    reasoning: str | None = None

    @property
    def parts(self) -> tuple[ContentPart, ...]:
        """What was said, part by part."""
        if self.content is None:
            return ()
        if isinstance(self.content, str):
            return (ContentPart(type="text", text=self.content),)
        return tuple(part.part for part in self.content)


class FunctionTool(Body):
    """A tool; only functions are supported."""

    type: Literal["function"]
    function: Function


class NamedFunction(Body):
    """The name of a function."""

    name: str


class ChosenFunction(Body):
    """The one function that is to be called."""

    type: Literal["function"]
    function: NamedFunction


class JsonSchema(Body):
    """The JSON schema that an answer must fit."""

    name: str
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    """The form that an answer must have."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _complete(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema goes with the type 'json_schema' and with no other")
        return self

    @property
    def schema_text(self) -> str | None:
        """The schema, as text; ``{}`` for any object."""
        if self.type == "text":
            return None
        schema = self.json_schema.schema_ if self.json_schema is not None else None
        return json.dumps(schema or {}, ensure_ascii=False)


class StreamOptions(Body):
    """Additions to a stream."""

    include_usage: bool | None = None
    include_obfuscation: Never | None = None


Stop = Annotated[
    Text | Annotated[list[str], within("stop", max_length=4), Tag("~list")],
    Discriminator(_kind),
]
ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("~text")]
    | Annotated[ChosenFunction, Tag("~function")],
    Discriminator(lambda value: "~text" if isinstance(value, str) else "~function"),
]


class GenerationBody(Body):
    """The fields that chat and completions share."""

    model: ModelName = "auto"
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = Field(default=None, ge=1, le=MAX_ANSWERS)
    temperature: Annotated[float | None, within("temperature")] = None
    top_p: Annotated[float | None, within("top_p")] = None
    top_k: Annotated[int | None, within("top_k")] = None
    min_p: Annotated[float | None, within("min_p")] = None
    repeat_penalty: Annotated[float | None, within("repeat_penalty")] = None
    presence_penalty: Annotated[float | None, within("presence_penalty")] = None
    frequency_penalty: Annotated[float | None, within("frequency_penalty")] = None
    max_tokens: Annotated[int | None, within("max_tokens")] = None
    stop: Stop | None = None
    seed: Annotated[int | None, within("seed", le=MAX_SEED)] = None
    user: Annotated[Any, Taken("users are not told apart")] = None
    # Peers may have tokenizers of their own, so a bias by token number has no meaning here.
    logit_bias: dict[str, Any] | None = Field(default=None, max_length=0)
    punch: PunchOptions = PunchOptions()

    @field_validator("punch", mode="before")
    @classmethod
    def _none_is_usual(cls, value: Any) -> Any:
        return PunchOptions() if value is None else value

    @model_validator(mode="after")
    def _options_need_a_stream(self) -> GenerationBody:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options goes with stream: true only")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts that end an answer."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def includes_usage(self) -> bool:
        """The stream ends with the tokens that were used."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


class ChatBody(GenerationBody):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[MessageBody], within("messages", min_length=1)]
    # OpenAI's newer name of `max_tokens`.
    max_completion_tokens: Annotated[int | None, within("max_tokens")] = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int | None, within("logprobs")] = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[FunctionTool] | None, within("tools")] = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Effort | None = None
    # The same in the words of other servers.
    reasoning: ReasoningOptions | None = None
    chat_template_kwargs: TemplateOptions | None = None
    metadata: Annotated[Any, Taken("nothing is stored that it could be found by")] = None
    store: Annotated[Any, Refused("nothing is stored; send false", nothing=(False,))] = None
    service_tier: Literal["auto", "default"] | None = None
    modalities: list[Literal["text"]] | None = Field(default=None, max_length=1, fail_fast=True)
    safety_identifier: Annotated[Any, Taken("users are not told apart")] = None
    prompt_cache_key: Annotated[Any, Taken("a hint for caches of prompts")] = None

    @property
    def effort(self) -> str | None:
        """How much the model is to think; `None` if nothing is said of it."""
        if self.reasoning_effort is not None:
            return self.reasoning_effort
        others = (self.reasoning, self.chat_template_kwargs)
        return next((each.wanted for each in others if each and each.wanted), None)

    @model_validator(mode="after")
    def _fields_agree(self) -> ChatBody:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs goes with logprobs: true only")
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            # Which of two numbers should count is not for us to guess.
            raise ValueError("max_tokens and max_completion_tokens are the same: send one of them")
        return self


Prompt = Annotated[
    Text
    | Annotated[
        list[str], Field(min_length=1, max_length=MAX_ANSWERS, fail_fast=True), Tag("~list")
    ],
    Discriminator(_kind),
]


class CompletionBody(GenerationBody):
    """``POST /v1/completions``."""

    prompt: Prompt
    logprobs: Annotated[int | None, within("logprobs", le=5)] = None
    echo: Never | None = None
    best_of: int | None = Field(default=None, ge=1, le=1)
    suffix: None = None


Inputs = Annotated[
    Text | Annotated[list[str], within("inputs", min_length=1), Tag("~list")],
    Discriminator(_kind),
]


class EmbeddingBody(Body):
    """``POST /v1/embeddings``."""

    model: ModelName = "auto"
    input: Inputs
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(default=None, ge=1)
    user: str | None = None
    punch: PunchOptions = PunchOptions()
