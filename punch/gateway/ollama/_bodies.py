"""The bodies that Ollama's clients send: https://github.com/ollama/ollama/blob/main/docs/api.md.

As with OpenAI's, a field that cannot be honoured is refused by name.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from ...wire import MAX_NAME_CHARACTERS
from ..bodies import (
    MAX_SEED,
    Body,
    Function,
    ModelName,
    Never,
    PunchOptions,
    Text,
    printable,
    within,
)

# A duration of nothing, as Go reads it: https://pkg.go.dev/time#ParseDuration.
_NO_TIME = re.compile(r"[-+]?(0+(\.0*)?(ns|us|µs|μs|ms|s|m|h)?)+")


class Options(Body):
    """How to choose tokens."""

    num_predict: Annotated[int | None, within("max_tokens", ge=-2)] = None
    temperature: Annotated[float | None, within("temperature")] = None
    top_k: Annotated[int | None, within("top_k")] = None
    top_p: Annotated[float | None, within("top_p")] = None
    min_p: Annotated[float | None, within("min_p")] = None
    repeat_penalty: Annotated[float | None, within("repeat_penalty")] = None
    presence_penalty: Annotated[float | None, within("presence_penalty")] = None
    frequency_penalty: Annotated[float | None, within("frequency_penalty")] = None
    seed: Annotated[int | None, within("seed", le=MAX_SEED)] = None
    stop: (
        Annotated[
            Text | Annotated[list[str], within("stop"), Tag("~list")],
            Discriminator(lambda value: "~text" if isinstance(value, str) else "~list"),
        ]
        | None
    ) = None
    num_ctx: int | None = Field(
        default=None, ge=1, description="Taken if some listener has as long a context."
    )

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts that end an answer."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def max_tokens(self) -> int | None:
        """Longest answer; Ollama's -1 and -2 stand for no limit."""
        return self.num_predict if self.num_predict and self.num_predict > 0 else None


class EmbedOptions(Body):
    """Options where no token is chosen."""

    num_ctx: int | None = Field(
        default=None, ge=1, description="Taken if some listener has as long a context."
    )


class CalledFunction(Body):
    """The name and arguments of a call; these are an object, unlike OpenAI's text."""

    name: str
    arguments: dict[str, Any]
    index: int | None = None


class CalledTool(Body):
    """A call that the assistant asked for."""

    function: CalledFunction
    id: str | None = None
    type: Literal["function"] | None = None


class MessageBody(Body):
    """A message of a conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    images: list[Any] | None = Field(default=None, max_length=0, fail_fast=True)
    tool_calls: Annotated[list[CalledTool] | None, within("messages[].tool_calls")] = None
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


class OllamaGenerationBody(Body):
    """The fields that chat and generate share."""

    model: ModelName
    stream: bool | None = None
    format: Format | None = None
    options: Options | None = None
    # How long a model stays in memory is the listener's decision. Without a question, 0 asks to
    # unload it, and anything else to load it.
    keep_alive: str | float | None = None
    think: Never | None = None
    logprobs: Never | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=0)
    punch: PunchOptions = PunchOptions()

    @property
    def unloads(self) -> bool:
        """Whether nothing but to unload the model is asked for, if there is no question."""
        if isinstance(self.keep_alive, str):
            return _NO_TIME.fullmatch(self.keep_alive) is not None
        return self.keep_alive == 0

    @property
    def schema_text(self) -> str | None:
        """The schema that the answer must fit, as JSON text; ``{}`` for any object."""
        if self.format in (None, ""):
            return None
        return "{}" if isinstance(self.format, str) else json.dumps(self.format)


class OllamaChatBody(OllamaGenerationBody):
    """``POST /api/chat``."""

    messages: Annotated[list[MessageBody], within("messages")] = Field(default=[])
    tools: Annotated[list[OllamaTool] | None, within("tools")] = None


class GenerateBody(OllamaGenerationBody):
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
        Text | Annotated[list[str], within("inputs", min_length=1), Tag("~list")],
        Discriminator(lambda value: "~text" if isinstance(value, str) else "~list"),
    ]
    # Taken, though nothing is ever cut: a text that does not fit is refused.
    truncate: bool | None = None
    dimensions: int | None = Field(default=None, ge=1)
    options: EmbedOptions | None = None
    keep_alive: str | float | None = None
    punch: PunchOptions = PunchOptions()


class OldEmbedBody(Body):
    """``POST /api/embeddings``, which Ollama has kept for old clients."""

    model: ModelName
    prompt: str = Field(min_length=1)
    options: EmbedOptions | None = None
    keep_alive: str | float | None = None
    punch: PunchOptions = PunchOptions()


def _printable_if_any(value: str) -> str:
    return printable(value) if value else value


MaybeName = Annotated[str, Field(max_length=MAX_NAME_CHARACTERS), AfterValidator(_printable_if_any)]
"""The name of a model, or nothing: Ollama's Go client sends every field that it knows."""


class NamedBody(Body):
    """A body about one model, which old clients name with ``name``, newer ones with ``model``."""

    model: MaybeName | None = None
    name: MaybeName | None = None

    @model_validator(mode="after")
    def _is_named(self) -> NamedBody:
        if not self.said:
            raise ValueError("model is missing")
        return self

    @property
    def said(self) -> str:
        """The name that the client said."""
        return self.model or self.name or ""


class ShowBody(NamedBody):
    """``POST /api/show``."""

    system: str | None = None
    verbose: bool | None = None
    # Taken, and of no effect: there they change the text of a Modelfile, which none has here.
    template: str | None = None
    options: dict[str, Any] | None = None


class PullBody(NamedBody):
    """``POST /api/pull``."""

    stream: bool | None = None
    # Taken, as Ollama does that has no use for them any more.
    insecure: bool | None = None
    username: str | None = None
    password: str | None = None
