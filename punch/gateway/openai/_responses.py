"""OpenAI's Responses API, as far as it is about text and functions: nothing is stored."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from ...wire import ChatMessage
from .._asking import command_request
from .._endpoint import Endpoint, RequestContext
from .._errors import Refusal
from .._handler import ParsedRequest
from ..bodies import Body, ReasoningOptions, Refused, Taken, Text, within
from ._bodies import QuestionBody, StreamOptions
from ._response_items import AnyItem, messages_of
from ._response_tools import ToolNames, Tools
from ._responses_shapes import Echoed, ResponsesShape
from ._sampling import SamplingBody, shortest

# ---- what is sent ----


_STORED = "nothing is stored that could be looked up; send the conversation in input"

# What an answer can include that it does not have unasked.
_LOGPROBS = "message.output_text.logprobs"
_SEALED = "reasoning.encrypted_content"
MAX_INCLUDED = 64


class ChosenTool(Body):
    """The one tool that is to be called."""

    type: Literal["function", "custom"]
    name: str
    namespace: str | None = None


class Format(Body):
    """The form that the text must have."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None

    @model_validator(mode="after")
    def _complete(self) -> Format:
        if (self.type == "json_schema") != (self.schema_ is not None):
            raise ValueError("schema goes with the type 'json_schema' and with no other")
        return self


class TextOptions(Body):
    """How the text is to be."""

    format: Format | None = None
    verbosity: Annotated[
        Any, Refused("say in a message how long the answer should be", nothing=("medium",))
    ] = None


class ResponsesBody(QuestionBody, SamplingBody):
    """``POST /v1/responses``."""

    input: Annotated[
        Text
        | Annotated[
            list[AnyItem],
            within("messages", min_length=1),
            Tag("~list"),
        ],
        Discriminator(lambda value: "~text" if isinstance(value, str) else "~list"),
    ]
    instructions: str | None = None
    max_output_tokens: Annotated[int | None, within("max_tokens", ge=-1)] = Field(
        default=None, description="-1 is no limit."
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    text: TextOptions | None = None
    tools: Tools | None = None
    tool_choice: (
        Annotated[
            Annotated[Literal["none", "auto", "required"], Tag("~text")]
            | Annotated[ChosenTool, Tag("~function")],
            Discriminator(lambda value: "~text" if isinstance(value, str) else "~function"),
        ]
        | None
    ) = None
    parallel_tool_calls: bool | None = None
    reasoning: ReasoningOptions | None = None
    metadata: dict[str, Any] | None = Field(default=None, max_length=16)
    previous_response_id: Annotated[Any, Refused(_STORED)] = None
    conversation: Annotated[Any, Refused(_STORED)] = None
    prompt: Annotated[Any, Refused(_STORED)] = None
    background: Annotated[Any, Refused(f"{_STORED}; wait for it", nothing=(False,))] = None
    background_options: Annotated[Any, Taken("it matters only in the background")] = None
    top_logprobs: Annotated[int | None, within("logprobs")] = None
    include: Annotated[list[str], Field(max_length=MAX_INCLUDED, fail_fast=True)] | None = Field(
        default=None,
        description=f"`{_LOGPROBS}` and `{_SEALED}`; whatever else it names is no part of answers "
        "here.",
    )
    truncation: Annotated[Any, Taken("nothing is cut off: what is too long is refused")] = None
    context_management: Annotated[Any, Taken("nothing is cut off: what is too long is refused")] = (
        None
    )
    max_tool_calls: Annotated[Any, Taken("it limits tools of a server, and there are none")] = None
    access_programs: Annotated[Any, Taken("a matter of OpenAI's machines")] = None

    @property
    def alternatives(self) -> int | None:
        """How many likely tokens are wanted for each; `None` for no log probabilities."""
        wanted = self.top_logprobs or _LOGPROBS in (self.include or ())
        return (self.top_logprobs or 0) if wanted else None


# ---- what is made of it ----


class Responses(Endpoint[ResponsesBody]):
    """``POST /v1/responses``."""

    path = "/v1/responses"
    body = ResponsesBody

    def is_streamed(self, body: ResponsesBody) -> bool:
        """Whether the body asks for a stream."""
        return bool(body.stream)

    def parsed(self, body: ResponsesBody, context: RequestContext) -> ParsedRequest:
        """The command for the conversation."""
        names = ToolNames(body.tools or ())
        messages = _messages(body, names)
        if not any(message.role != "system" for message in messages):
            raise Refusal(
                status=400,
                message="input has nothing in it but instructions",
                code="invalid_value",
                param="input",
            )
        request = command_request(
            self.service,
            context,
            body.punch,
            streamed=self.is_streamed(body),
            command="chat",
            messages=tuple(messages),
            sampling=body.sampling(shortest(body.max_output_tokens)),
            tools=names.tools,
            tool_choice=_tool_choice(body, names),
            parallel_tool_calls=body.parallel_tool_calls if names.tools else None,
            reasoning_effort=body.reasoning and body.reasoning.wanted,
            reasoning_budget=body.reasoning and body.reasoning.max_tokens,
            response_schema=_schema(body),
            logprobs=body.alternatives,
        )
        shape = ResponsesShape(
            request_id=context.request_id,
            created=context.created,
            model=body.model,
            echoed=_echoed(body),
            names=names,
        )
        return ParsedRequest(
            requests=(request,), whole=shape, stream=shape if self.is_streamed(body) else None
        )


def _messages(body: ResponsesBody, names: ToolNames) -> list[ChatMessage]:
    found: list[ChatMessage] = []
    if body.instructions is not None:
        found.append(ChatMessage(role="system", content=body.instructions))
    if isinstance(body.input, str):
        return [*found, ChatMessage(role="user", content=body.input)]
    return [*found, *messages_of(body.input, names)]


def _tool_choice(body: ResponsesBody, names: ToolNames) -> str | None:
    choice = body.tool_choice
    if isinstance(choice, ChosenTool):
        return f"function:{names.ours(choice.name, choice.namespace)}"
    # Programs without a tool left say it all the same.
    return choice if names.tools or choice not in ("auto", "none") else None


def _schema(body: ResponsesBody) -> str | None:
    wanted = body.text.format if body.text is not None else None
    if wanted is None or wanted.type == "text":
        return None
    return json.dumps(wanted.schema_ or {}, ensure_ascii=False)


def _echoed(body: ResponsesBody) -> Echoed:
    wanted = body.text.format if body.text is not None else None
    shown = {"type": "text"} if wanted is None else wanted.model_dump(by_alias=True)
    choice: Any = body.tool_choice or "auto"
    reasoning = body.reasoning or ReasoningOptions()
    return Echoed(
        instructions=body.instructions,
        max_output_tokens=body.max_output_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        tools=[tool.model_dump(exclude_none=True) for tool in body.tools or ()],
        tool_choice=choice if isinstance(choice, str) else choice.model_dump(),
        text={"format": shown},
        metadata=body.metadata or {},
        parallel_tool_calls=body.parallel_tool_calls is not False,
        effort=reasoning.effort,
        summary=reasoning.summary or reasoning.generate_summary,
        user=body.user if isinstance(body.user, str) else None,
        top_logprobs=body.top_logprobs,
        seals_thoughts=_SEALED in (body.include or ()),
    )
