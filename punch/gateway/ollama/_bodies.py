"""What Ollama's clients send: https://github.com/ollama/ollama/blob/main/docs/api.md.

As with OpenAI's, a field that cannot be honoured is refused by name.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Discriminator, Field, Tag, model_validator

from .._parsing import Body, Never
from ..openai._bodies import MOST_MESSAGES, MOST_TOOLS, Function, ModelName, Punch, Text


class _Options(Body):
    """What may be left out may be null as well: some clients send all they know."""

    @model_validator(mode="before")
    @classmethod
    def _given(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: item for name, item in value.items() if item is not None}


class Options(_Options):
    """How to choose tokens."""

    num_predict: int | None = Field(default=None, ge=-2, le=1 << 40)
    temperature: float | None = Field(default=None, ge=0, le=100)
    top_k: int | None = Field(default=None, ge=0, le=1 << 31)
    top_p: float | None = Field(default=None, ge=0, le=1)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repeat_penalty: float | None = Field(default=None, ge=0, le=100)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    seed: int | None = Field(default=None, ge=0, le=(1 << 63) - 1)
    stop: (
        Annotated[
            Text | Annotated[list[str], Field(max_length=16, fail_fast=True), Tag("~list")],
            Discriminator(lambda value: "~text" if isinstance(value, str) else "~list"),
        ]
        | None
    ) = None
    num_ctx: int | None = Field(
        default=None, ge=1, description="Taken if some listener has as long a context."
    )

    @property
    def stops(self) -> tuple[str, ...]:
        """What ends the answer."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def max_tokens(self) -> int | None:
        """Longest answer; Ollama's -1 and -2 stand for no limit."""
        return self.num_predict if self.num_predict and self.num_predict > 0 else None


class EmbedOptions(_Options):
    """Options where no token is chosen."""

    num_ctx: int | None = Field(
        default=None, ge=1, description="Taken if some listener has as long a context."
    )


class CalledFunction(Body):
    """What a tool is called with; an object, unlike OpenAI's text."""

    name: str
    arguments: dict[str, Any]
    index: int | None = None


class CalledTool(Body):
    """A call that the assistant asked for."""

    function: CalledFunction
    id: str | None = None
    type: Literal["function"] | None = None


class Turn(Body):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    images: list[Any] | None = Field(default=None, max_length=0, fail_fast=True)
    tool_calls: list[CalledTool] | None = Field(default=None, max_length=MOST_TOOLS, fail_fast=True)
    tool_name: str | None = None
    tool_call_id: str | None = None
    thinking: Literal[""] | None = None


class OllamaTool(Body):
    """A function that the model may ask for."""

    type: Literal["function"] | None = None
    function: Function


Format = Annotated[
    Annotated[Literal["", "json"], Tag("~text")] | Annotated[dict[str, Any], Tag("~schema")],
    Discriminator(lambda value: "~schema" if isinstance(value, dict) else "~text"),
]


class Asked(Body):
    """What chat and generate have in common."""

    model: ModelName
    stream: bool | None = None
    format: Format | None = None
    options: Options | None = None
    # How long a model stays in memory is the listener's business.
    keep_alive: str | float | None = None
    think: Never | None = None
    logprobs: Never | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=0)
    punch: Punch = Punch()

    @property
    def schema_text(self) -> str | None:
        """What the answer must fit, as JSON text; ``{}`` for any object."""
        if self.format in (None, ""):
            return None
        return "{}" if isinstance(self.format, str) else json.dumps(self.format)


class OllamaChatBody(Asked):
    """``POST /api/chat``."""

    messages: list[Turn] = Field(default=[], max_length=MOST_MESSAGES, fail_fast=True)
    tools: list[OllamaTool] | None = Field(default=None, max_length=MOST_TOOLS, fail_fast=True)


class GenerateBody(Asked):
    """``POST /api/generate``."""

    prompt: str | None = None
    system: str | None = None
    raw: bool | None = None
    suffix: Literal[""] | None = None
    template: Literal[""] | None = None
    images: list[Any] | None = Field(default=None, max_length=0, fail_fast=True)
    context: list[Any] | None = Field(default=None, max_length=0, fail_fast=True)


class EmbedBody(Body):
    """``POST /api/embed``."""

    model: ModelName
    input: Annotated[
        Text
        | Annotated[list[str], Field(min_length=1, max_length=2048, fail_fast=True), Tag("~list")],
        Discriminator(lambda value: "~text" if isinstance(value, str) else "~list"),
    ]
    # Whoever cuts a text to fit would have to say so.
    truncate: bool | None = None
    dimensions: int | None = Field(default=None, ge=1)
    options: EmbedOptions | None = None
    keep_alive: str | float | None = None
    punch: Punch = Punch()


class OldEmbedBody(Body):
    """``POST /api/embeddings``, which Ollama has kept for old clients."""

    model: ModelName
    prompt: str = Field(min_length=1)
    options: EmbedOptions | None = None
    keep_alive: str | float | None = None
    punch: Punch = Punch()


class ShowBody(Body):
    """``POST /api/show``."""

    model: ModelName = Field(validation_alias=AliasChoices("model", "name"))
    verbose: bool | None = None
