"""The bodies that Ollama's clients send: https://github.com/ollama/ollama/blob/main/docs/api.md.

As with OpenAI's, a field that cannot be honoured is refused by name. Hints about machines are
taken, and so is what Ollama once knew and passes over today.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    model_validator,
)
from pydantic_core import PydanticCustomError

from ...wire import MAX_NAME_CHARACTERS
from ..bodies import (
    MAX_PARTS,
    Body,
    Function,
    ModelName,
    PictureText,
    PunchOptions,
    Refused,
    Taken,
    Text,
    printable,
    text_or,
    text_or_list,
    within,
)
from ._options import EmbedOptions, Hints, Options, Samplers, Settings

# A duration of nothing, as Go reads it: https://pkg.go.dev/time#ParseDuration.
_NO_TIME = re.compile(r"[-+]?(0+(\.0*)?(ns|us|µs|μs|ms|s|m|h)?)+")

_NOT_CUT = Taken("no text is ever cut: one that does not fit is refused")
_STAYS = Taken("each listener decides how long a model stays in memory", kept=True)


# ---- conversations ----


class CalledFunction(Body):
    """The name and arguments of a call; these are an object, unlike OpenAI's text."""

    name: str
    arguments: dict[str, Any] = Field(default={})
    index: Annotated[Any, Taken("calls are in their order anyway")] = None


class CalledTool(Body):
    """A call that the assistant asked for."""

    function: CalledFunction
    id: str | None = None
    type: Literal["function"] | None = None


def _small_letters(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _no_list(value: Any) -> Any:
    # A client for Vercel's kit sends an empty list where a message has images and no text.
    return "" if value == [] else value


Pictures = Annotated[list[PictureText], Field(max_length=MAX_PARTS, fail_fast=True)]


class MessageBody(Body):
    """A message of a conversation."""

    role: Annotated[
        Literal["system", "developer", "user", "assistant", "tool"],
        BeforeValidator(_small_letters),
    ]
    content: Annotated[str | None, BeforeValidator(_no_list)] = None
    images: Pictures | None = None
    tool_calls: Annotated[list[CalledTool] | None, within("messages[].tool_calls")] = None
    tool_name: str | None = None
    tool_call_id: str | None = None
    thinking: str | None = None

    @property
    def says_nothing(self) -> bool:
        """Whether it is a place kept free for an answer."""
        said = self.content or self.tool_calls or self.thinking or self.images
        return self.role == "assistant" and not said


class OllamaTool(Body):
    """A function that the model may ask for."""

    type: Literal["function"] | None = None
    function: Function
    items: Annotated[Any, Taken("no function has any")] = None


class NamedFunction(Body):
    """The name of a function."""

    name: str


class ChosenFunction(Body):
    """The one function that is to be called."""

    type: Literal["function"]
    name: str | None = None
    function: NamedFunction | None = None

    @model_validator(mode="after")
    def _is_named(self) -> ChosenFunction:
        if not self.said:
            raise ValueError("tool_choice names no function")
        return self

    @property
    def said(self) -> str:
        """The name of the function, which OpenAI's two dialects write in two places."""
        return self.name or (self.function.name if self.function is not None else "")


ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("~text")]
    | Annotated[ChosenFunction, Tag("~function")],
    text_or("~function"),
]

Format = Annotated[
    Annotated[Literal["", "json"], Tag("~text")] | Annotated[dict[str, Any], Tag("~schema")],
    text_or("~schema"),
]


def _effort(value: Any) -> Any:
    if isinstance(value, bool) or value in ("low", "medium", "high", "max"):
        return value
    raise PydanticCustomError(
        "must", 'Input should be true, false, "low", "medium", "high" or "max"'
    )


class OllamaGenerationBody(Settings, Hints, Samplers):
    """The fields that chat and generate share.

    Ollama has the settings under ``options``, and passes over those that some clients write beside
    it. They are meant, and so they count; those under ``options`` count more.
    """

    model: ModelName
    stream: bool | None = None
    format: Format | None = None
    options: Options | None = None
    max_tokens: Annotated[int | None, within("max_tokens", ge=-2)] = None
    max_output_tokens: Annotated[int | None, within("max_tokens", ge=-2)] = None
    num_predict: Annotated[int | None, within("max_tokens", ge=-2)] = None
    # Without a question, 0 asks to unload the model, and anything else to load it.
    keep_alive: Annotated[Any, _STAYS] = None
    think: Annotated[bool | str | None, BeforeValidator(_effort)] = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int | None, within("logprobs")] = None
    truncate: Annotated[Any, _NOT_CUT] = None
    shift: Annotated[Any, _NOT_CUT] = None
    user: Annotated[Any, Taken("users are not told apart")] = None
    debug_render_only: Annotated[
        Any, Refused("peers write prompts themselves; leave it out", nothing=(False,))
    ] = Field(default=None, alias="_debug_render_only")
    punch: PunchOptions = PunchOptions()

    @property
    def max_tokens_said(self) -> int | None:
        """The longest answer, where it is said outside of ``options``."""
        said = self.max_output_tokens or self.max_tokens or self.num_predict or 0
        return said if said > 0 else None

    @property
    def unloads(self) -> bool:
        """Whether nothing but to unload the model is asked for, if there is no question."""
        if isinstance(self.keep_alive, str):
            return _NO_TIME.fullmatch(self.keep_alive) is not None
        return self.keep_alive == 0 and not isinstance(self.keep_alive, bool)

    @property
    def reasoning_effort(self) -> str | None:
        """How much the model is to think, in the words between peers."""
        if isinstance(self.think, bool):
            return "medium" if self.think else "none"
        return "high" if self.think == "max" else self.think

    @property
    def alternatives(self) -> int | None:
        """How many tokens besides each one are to be told of; `None` for no log-probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def schema_text(self) -> str | None:
        """The schema that the answer must fit, as JSON text; ``{}`` for any object."""
        if self.format in (None, ""):
            return None
        return "{}" if isinstance(self.format, str) else json.dumps(self.format)

    def all_chosen(self) -> dict[str, Any]:
        """How to choose tokens."""
        return self.chosen() | (self.options.chosen() if self.options is not None else {})


class OllamaChatBody(OllamaGenerationBody):
    """``POST /api/chat``."""

    messages: Annotated[list[MessageBody], within("messages")] = Field(default=[])
    tools: Annotated[list[OllamaTool] | None, within("tools")] = None
    tool_choice: ToolChoice | None = None

    @property
    def chosen_tool(self) -> str | None:
        """Which tool is to be called, in the words between peers."""
        if isinstance(self.tool_choice, ChosenFunction):
            return f"function:{self.tool_choice.said}"
        return self.tool_choice


_NO_IMAGES_MADE = Refused("peers make no images", nothing=(0,))


class GenerateBody(OllamaGenerationBody):
    """``POST /api/generate``."""

    prompt: str | None = None
    system: str | None = None
    raw: bool | None = None
    images: Pictures | None = None
    suffix: Annotated[
        Any, Refused("no peer fills the gap before a text; send the prompt alone")
    ] = None
    template: Annotated[
        Any, Refused("peers write prompts by their models' own templates; send raw: true, and all")
    ] = None
    context: Annotated[
        Any, Refused("nothing is stored between requests; send the conversation to /api/chat")
    ] = None
    echo: Annotated[Any, Refused("the prompt is not repeated; send false", nothing=(False,))] = None
    width: Annotated[Any, _NO_IMAGES_MADE] = None
    height: Annotated[Any, _NO_IMAGES_MADE] = None
    steps: Annotated[Any, _NO_IMAGES_MADE] = None


# ---- embeddings ----


class EmbedBody(Body):
    """``POST /api/embed``."""

    model: ModelName
    input: (
        Annotated[
            Text | Annotated[list[str], within("inputs", min_length=0), Tag("~list")],
            Discriminator(text_or_list),
        ]
        | None
    ) = None
    truncate: Annotated[Any, _NOT_CUT] = None
    dimensions: int | None = Field(default=None, ge=0, description="0 for all of them.")
    options: EmbedOptions | None = None
    keep_alive: Annotated[Any, _STAYS] = None
    punch: PunchOptions = PunchOptions()

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts; none where nothing but to load the model is asked for."""
        if isinstance(self.input, str):
            return (self.input,) if self.input else ()
        return tuple(self.input or ())


class OldEmbedBody(Body):
    """``POST /api/embeddings``, which Ollama has kept for old clients."""

    model: ModelName
    prompt: str | None = None
    options: EmbedOptions | None = None
    keep_alive: Annotated[Any, _STAYS] = None
    punch: PunchOptions = PunchOptions()


# ---- models ----


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
    verbose: Annotated[Any, Taken("all that is known is said anyway")] = None
    template: Annotated[Any, Taken("no Modelfile is made of it")] = None
    options: Annotated[Any, Taken("no Modelfile is made of it")] = None


class PullBody(NamedBody):
    """``POST /api/pull``."""

    stream: bool | None = None
    insecure: Annotated[Any, Taken("nothing is downloaded")] = None
    username: Annotated[Any, Taken("nothing is downloaded")] = None
    password: Annotated[Any, Taken("nothing is downloaded")] = None
