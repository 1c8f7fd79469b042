"""The bodies that OpenAI's clients send, as far as a network of small machines can honour them.

What each field comes to is said where it stands: honoured, taken, or refused with the reason.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from ...wire import Tool
from ..bodies import (
    Body,
    Effort,
    Function,
    ModelName,
    PunchOptions,
    ReasoningOptions,
    Refused,
    Taken,
    TemplateOptions,
    Text,
    switched,
    text_or,
    text_or_list,
    within,
)
from ._format import FormBody
from ._messages import MessageBody
from ._sampling import SamplingBody, shortest
from ._tools import (
    ChosenFunction,
    FunctionTool,
    NamedFunction,
    ToolBody,
    ToolChoice,
    chosen_tools,
    tool_of,
)

MAX_ANSWERS = 16
"""Answers to one request, side by side."""

_STORED = "nothing is stored"
_USERS = "users are not told apart; keys are"
_CACHES = "a hint for caches of prompts"
_BILLING = "nothing is billed"
_CHECKED = "nobody here judges texts; leave it out"
_ROUTING = "punch chooses among its peers by its own rules"


class StreamOptions(Body):
    """Additions to a stream."""

    include_usage: bool | None = None
    include_obfuscation: Annotated[
        Any, Taken("a stream is as long as what it says: it has no padding")
    ] = None
    continuous_usage_stats: Annotated[Any, Taken("tokens are counted at the end of a stream")] = (
        None
    )


class ThinkingOptions(Body):
    """Whether the model thinks before it answers, in Anthropic's words."""

    type: Literal["enabled", "disabled", "adaptive"] = "enabled"
    budget_tokens: Annotated[int | None, within("reasoning_budget")] = None

    @property
    def wanted(self) -> str | None:
        """How much to think, in one word."""
        return None if self.type == "adaptive" else switched(self.type == "enabled")


class QuestionBody(Body):
    """The fields that every question has, whatever is asked."""

    model: ModelName = "auto"
    user: Annotated[Any, Taken(_USERS, kept=True)] = None
    safety_identifier: Annotated[Any, Taken(_USERS)] = None
    metadata: Annotated[Any, Taken(f"{_STORED} that it could be found by")] = None
    client_metadata: Annotated[Any, Taken(f"{_STORED} that it could be found by")] = None
    store: Annotated[Any, Taken(f"{_STORED}, and an answer is the same")] = None
    service_tier: Annotated[Any, Taken(_BILLING)] = None
    prompt_cache_key: Annotated[Any, Taken(_CACHES)] = None
    prompt_cache_options: Annotated[Any, Taken(_CACHES)] = None
    prompt_cache_retention: Annotated[Any, Taken(_CACHES)] = None
    moderation: Annotated[Any, Refused(_CHECKED)] = None
    request_id: Annotated[Any, Taken("the header X-Request-ID says it")] = None
    session_id: Annotated[Any, Taken(_USERS)] = None
    provider: Annotated[Any, Taken(_ROUTING)] = None
    usage: Annotated[Any, Taken("answers have their usage")] = None
    trace: Annotated[Any, Taken("the header traceparent says it")] = None
    punch: PunchOptions = PunchOptions()

    @field_validator("model", mode="before")
    @classmethod
    def _empty_is_any(cls, value: Any) -> Any:
        return "auto" if value == "" else value


class GenerationBody(QuestionBody, SamplingBody):
    """The fields that chat and completions share."""

    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = Field(default=None, ge=1, le=MAX_ANSWERS)
    best_of: Annotated[Any, Refused("all answers are given: ask for n of them", nothing=(1,))] = (
        None
    )
    max_tokens: Annotated[int | None, within("max_tokens", ge=-1)] = Field(
        default=None, description="-1 is no limit."
    )
    n_predict: Annotated[int | None, within("max_tokens", ge=-1)] = Field(
        default=None, description="llama-server's name of `max_tokens`."
    )

    @property
    def includes_usage(self) -> bool | None:
        """The stream ends with the tokens that were used; `None` if nothing is said of it."""
        return None if self.stream_options is None else self.stream_options.include_usage


class ChatBody(GenerationBody, FormBody):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[MessageBody], within("messages", min_length=1)]
    max_completion_tokens: Annotated[int | None, within("max_tokens", ge=-1)] = Field(
        default=None, description="OpenAI's newer name of `max_tokens`."
    )
    logprobs: bool | None = None
    top_logprobs: Annotated[int | None, within("logprobs")] = None
    tools: Annotated[list[ToolBody] | None, within("tools")] = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    functions: Annotated[list[Function] | None, within("tools")] = Field(
        default=None, description="The old name of `tools`; calls come as `tool_calls`."
    )
    function_call: (
        Annotated[
            Annotated[Literal["none", "auto", ""], Tag("~text")]
            | Annotated[NamedFunction, Tag("~function")],
            text_or("~function"),
        ]
        | None
    ) = Field(default=None, description="The old name of `tool_choice`.")
    reasoning_effort: Effort | None = None
    reasoning: ReasoningOptions | None = Field(
        default=None, description="OpenRouter's words for `reasoning_effort`."
    )
    chat_template_kwargs: TemplateOptions | None = Field(
        default=None, description="Whether to think, in the words of llama-server and vLLM."
    )
    enable_thinking: bool | None = Field(default=None, description="The same, as Qwen's have it.")
    thinking: ThinkingOptions | None = Field(
        default=None, description="The same, as Anthropic's and DeepSeek's clients have it."
    )
    thinking_budget_tokens: Annotated[int | None, within("reasoning_budget", ge=-1)] = Field(
        default=None, description="Tokens to think for; -1 is no limit."
    )
    include_reasoning: Annotated[
        Any, Refused("what is thought is told; pass over it", nothing=(True,))
    ] = None
    reasoning_format: Annotated[
        Any,
        Refused(
            "what is thought comes as reasoning_content", nothing=("auto", "deepseek", "parsed")
        ),
    ] = None
    verbosity: Annotated[
        Any, Refused("say in a message how long the answer should be", nothing=("medium",))
    ] = None
    modalities: Annotated[Any, Refused("answers are text", nothing=(["text"],))] = None
    audio: Annotated[Any, Refused("answers are text")] = None
    prediction: Annotated[Any, Taken("a hint for speed")] = None
    web_search_options: Annotated[
        Any, Refused("nothing is searched here; leave it out", empty=False)
    ] = None
    plugins: Annotated[Any, Refused("nothing is run beside a model; leave it out")] = None
    transforms: Annotated[Any, Refused("a conversation is passed on as it is")] = None
    safe_prompt: Annotated[
        Any, Refused("a conversation is passed on as it is", nothing=(False,))
    ] = None
    documents: Annotated[Any, Refused("say in a message what is in them")] = None
    chat_template: Annotated[Any, Refused("peers write prompts with their models' own")] = None
    add_generation_prompt: Annotated[Any, Refused("an answer is always made", nothing=(True,))] = (
        None
    )
    continue_final_message: Annotated[
        Any, Refused("an answer that was begun cannot be continued", nothing=(False,))
    ] = None
    add_special_tokens: Annotated[
        Any, Refused("peers write prompts by their models' own templates", nothing=(False,))
    ] = None
    echo: Annotated[Any, Refused("an answer has no prompt in it", nothing=(False,))] = None

    @field_validator("function_call", mode="before")
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        return value or None

    @model_validator(mode="after")
    def _fields_agree(self) -> ChatBody:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs goes with logprobs: true only")
        if self.tools and self.functions:
            raise ValueError("functions is the old name of tools: send one of them")
        return self

    @property
    def longest(self) -> int | None:
        """The most tokens of the answer."""
        return shortest(self.max_completion_tokens, self.max_tokens, self.n_predict)

    @property
    def effort(self) -> str | None:
        """How much the model is to think; `None` if nothing is said of it."""
        others = (self.reasoning, self.thinking, self.chat_template_kwargs)
        said = (each.wanted for each in others if each is not None)
        wanted = next((each for each in said if each is not None), None)
        return self.reasoning_effort or wanted or switched(self.enable_thinking)

    @property
    def thought(self) -> int | None:
        """Tokens that the model may think for."""
        reasoning, thinking = self.reasoning, self.thinking
        return shortest(
            self.thinking_budget_tokens,
            None if reasoning is None else reasoning.max_tokens,
            None if thinking is None else thinking.budget_tokens,
        )

    @property
    def callable(self) -> tuple[tuple[Tool, ...], str | None]:
        """The functions that the model may call, and whether it must, as peers read both."""
        given = [tool.function for tool in self.tools or () if isinstance(tool, FunctionTool)]
        given += self.functions or ()
        choice: ToolChoice | None = self.tool_choice
        if choice is None and self.function_call is not None:
            old = self.function_call
            choice = old if isinstance(old, str) else ChosenFunction(name=old.name)
        return chosen_tools(choice, map(tool_of, given))


Prompt = Annotated[
    Text
    | Annotated[
        list[str], Field(min_length=1, max_length=MAX_ANSWERS, fail_fast=True), Tag("~list")
    ],
    Discriminator(text_or_list),
]

_TOKENS = "peers have tokenizers of their own, so the numbers of tokens mean nothing: send text"


def no_tokens(value: Any) -> Any:
    """*value*, a text or a list of texts; raises `ValueError` if it is a list of tokens."""
    first = value[0] if isinstance(value, list) and value else None
    if isinstance(first, int | list) and not isinstance(first, bool):
        raise ValueError(_TOKENS)
    return value


class CompletionBody(GenerationBody):
    """``POST /v1/completions``."""

    prompt: Prompt
    logprobs: Annotated[int | None, within("logprobs", le=5)] = None
    echo: Annotated[Any, Refused("an answer has no prompt in it", nothing=(False,))] = None
    suffix: Annotated[Any, Refused("a text is continued at its end only")] = None
    response_format: Annotated[
        Any, Refused("ask for it in a chat", nothing=({"type": "text"},))
    ] = None
    json_schema: Annotated[Any, Refused("ask for it in a chat")] = None
    guided_json: Annotated[Any, Refused("ask for it in a chat")] = None
    add_special_tokens: Annotated[
        Any, Refused("peers begin a prompt as their models want it", nothing=(True,))
    ] = None

    @field_validator("prompt", mode="before")
    @classmethod
    def _is_text(cls, value: Any) -> Any:
        return no_tokens(value)

    @field_validator("logprobs", mode="before")
    @classmethod
    def _false_is_none(cls, value: Any) -> Any:
        return None if value is False else value

    @property
    def longest(self) -> int | None:
        """The most tokens of the answer."""
        return shortest(self.max_tokens, self.n_predict)


Inputs = Annotated[
    Text | Annotated[list[str], within("inputs", min_length=1), Tag("~list")],
    Discriminator(text_or_list),
]


class EmbeddingBody(QuestionBody):
    """``POST /v1/embeddings``."""

    input: Inputs
    encoding_format: Literal["float", "base64", ""] | None = None
    dimensions: int | None = Field(default=None, ge=1)
    embd_normalize: Annotated[Any, Refused("vectors have the length 1", nothing=(2,))] = None
    truncate: Annotated[
        Any, Refused("no text is cut: send a shorter one", nothing=(False, "NONE", "none"))
    ] = None
    truncate_prompt_tokens: Annotated[
        Any, Refused("no text is cut: send a shorter one", nothing=(-1,))
    ] = None
    input_type: Annotated[Any, Refused("write what the model wants before its text")] = None
    prompt_name: Annotated[Any, Refused("write what the model wants before its text")] = None
    add_special_tokens: Annotated[
        Any, Refused("peers begin a text as their models want it", nothing=(True,))
    ] = None
    priority: Annotated[Any, Taken("punch.priority orders requests")] = None
    keep_alive: Annotated[Any, Taken("the listener decides about its memory")] = None
    stream: Annotated[Any, Refused("there is no stream of vectors", nothing=(False,))] = None

    @field_validator("input", mode="before")
    @classmethod
    def _is_text(cls, value: Any) -> Any:
        return no_tokens(value)
