"""OpenAI's Responses API, as far as it is about text and functions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal

import trio
from pydantic import Discriminator, Field, Tag, model_validator

from ...wire import ChatMessage, Tool, ToolCall
from .._asking import command_request
from .._endpoint import Endpoint, RequestContext, Service
from .._errors import Refusal
from .._handler import ParsedRequest
from ..bodies import (
    Body,
    ReasoningOptions,
    Refused,
    Taken,
    Text,
    shown,
    text_or_list,
    within,
)
from ._bodies import QuestionBody, StreamOptions
from ._response_items import AnyItem, Reference, joined, said_in
from ._response_tools import ToolNames, Tools
from ._responses_shapes import Echoed, ResponsesShape
from ._sampling import SamplingBody, shortest
from ._stored import ResponseStore
from ._tools import ChosenMode, choice_kind

# ---- what is sent ----


_STORED = "nothing but responses is stored that could be looked up; send it in input"

# What an answer can include that it does not have unasked.
_LOGPROBS = "message.output_text.logprobs"
_SEALED = "reasoning.encrypted_content"
MAX_INCLUDED = 64


class ChosenTool(Body):
    """The one tool that is to be called."""

    type: Literal["function", "custom"]
    name: str
    namespace: str | None = None


class ChosenAmong(Body):
    """The tools that may be called, of those that there are."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"] = "auto"
    tools: Annotated[list[ChosenTool], within("tools")]


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
        Discriminator(text_or_list),
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
            | Annotated[ChosenMode, Tag("~mode")]
            | Annotated[ChosenAmong, Tag("~allowed")]
            | Annotated[ChosenTool, Tag("~function")],
            Discriminator(choice_kind),
        ]
        | None
    ) = None
    parallel_tool_calls: bool | None = None
    reasoning: ReasoningOptions | None = None
    metadata: dict[str, Any] | None = Field(default=None, max_length=16)
    store: bool | None = Field(
        default=None, description="Whether the response can be referred to later; it can."
    )
    previous_response_id: str | None = None
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

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self._stored = ResponseStore(seconds=service.stored_seconds)

    def is_streamed(self, body: ResponsesBody) -> bool:
        """Whether the body asks for a stream."""
        return bool(body.stream)

    def parsed(self, body: ResponsesBody, context: RequestContext) -> ParsedRequest:
        """The command for the conversation."""
        names = ToolNames(body.tools or ())
        now = trio.current_time()
        asked = self._asked(body, names, context.key_id, now)
        before = self._before(body.previous_response_id, context.key_id, now)
        messages = joined([*before, *asked])
        if body.instructions is not None:
            messages.insert(0, ChatMessage(role="system", content=body.instructions))
        if not any(message.role != "system" for message in messages):
            raise Refusal(
                status=400,
                message="input has nothing in it but instructions",
                code="invalid_value",
                param="input",
            )
        tools, tool_choice = _callable(body, names)
        request = command_request(
            self.service,
            context,
            body.punch,
            streamed=self.is_streamed(body),
            command="chat",
            messages=tuple(messages),
            sampling=body.sampling(shortest(body.max_output_tokens)),
            tools=tools,
            tool_choice=tool_choice,
            parallel_tool_calls=body.parallel_tool_calls if tools else None,
            reasoning_effort=body.reasoning and body.reasoning.wanted,
            reasoning_budget=body.reasoning and body.reasoning.max_tokens,
            response_schema=_schema(body),
            logprobs=body.alternatives,
        )
        store = body.store is not False and self._stored.seconds > 0
        shape = ResponsesShape(
            request_id=context.request_id,
            created=context.created,
            model=body.model,
            echoed=_echoed(body, store=store),
            names=names,
            keep=partial(self._keep, body, context, asked) if store else None,
        )
        return ParsedRequest(
            requests=(request,), whole=shape, stream=shape if self.is_streamed(body) else None
        )

    def _keep(
        self,
        body: ResponsesBody,
        context: RequestContext,
        asked: Sequence[ChatMessage],
        output: Sequence[Mapping[str, Any]],
        calls: Sequence[ToolCall],
    ) -> None:
        self._stored.keep(
            context.key_id,
            f"resp_{context.request_id}",
            asked=asked,
            answered=said_in(output, calls),
            before=body.previous_response_id,
            now=trio.current_time(),
        )

    def _asked(
        self, body: ResponsesBody, names: ToolNames, key: str | None, now: float
    ) -> list[ChatMessage]:
        """What is new in the input, a message for each item."""
        if isinstance(body.input, str):
            return [ChatMessage(role="user", content=body.input)]
        return [
            self._referred(item.id, f"input[{place}].id", key, now)
            if isinstance(item, Reference)
            else item.message(names)
            for place, item in enumerate(body.input)
        ]

    def _referred(self, item_id: str, param: str, key: str | None, now: float) -> ChatMessage:
        try:
            return self._stored.item(key, item_id, now)
        except KeyError:
            raise self._not_there(
                f"there is no item {shown(item_id)}",
                "send the item itself (Vercel AI SDK: providerOptions.openai.store = false)",
                code="item_not_found",
                param=param,
            ) from None

    def _before(self, response_id: str | None, key: str | None, now: float) -> list[ChatMessage]:
        """The conversation up to the end of an earlier response."""
        if response_id is None:
            return []
        try:
            return self._stored.conversation(key, response_id, now)
        except KeyError:
            raise self._not_there(
                f"there is no response {shown(response_id)}, or none that it followed",
                "send the conversation in input",
                code="previous_response_not_found",
                param="previous_response_id",
            ) from None

    def _not_there(self, what: str, remedy: str, *, code: str, param: str) -> Refusal:
        seconds = self._stored.seconds
        rule = (
            f"responses are kept for {seconds:g} s after their last use, in memory, for the key "
            "that asked, and within bounds; with store: false not at all"
            if seconds > 0
            else "this gateway stores no responses (--store-responses)"
        )
        return Refusal(status=400, message=f"{what}: {rule}; {remedy}", code=code, param=param)


def _callable(body: ResponsesBody, names: ToolNames) -> tuple[tuple[Tool, ...], str | None]:
    """The functions that the model may call, and whether it must, as peers read both."""
    tools, choice = names.tools, _mode(body)
    if isinstance(choice, ChosenTool):
        return tools, f"function:{names.ours(choice.name, choice.namespace)}"
    if isinstance(choice, ChosenAmong):
        allowed = {names.ours(each.name, each.namespace) for each in choice.tools}
        tools, choice = tuple(tool for tool in tools if tool.name in allowed), choice.mode
    # Programs without a tool left say it all the same.
    return tools, choice if tools or choice not in ("auto", "none") else None


def _mode(body: ResponsesBody) -> Any:
    """The choice of tools; one of the words for it where an object says no more."""
    choice = body.tool_choice
    if isinstance(choice, ChosenMode):
        return "required" if choice.type == "any" else choice.type
    return choice


def _schema(body: ResponsesBody) -> str | None:
    wanted = body.text.format if body.text is not None else None
    if wanted is None or wanted.type == "text":
        return None
    return json.dumps(wanted.schema_ or {}, ensure_ascii=False)


def _echoed(body: ResponsesBody, *, store: bool) -> Echoed:
    wanted = body.text.format if body.text is not None else None
    shown = {"type": "text"} if wanted is None else wanted.model_dump(by_alias=True)
    choice: Any = _mode(body) or "auto"
    reasoning = body.reasoning or ReasoningOptions()
    return Echoed(
        instructions=body.instructions,
        max_output_tokens=body.max_output_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        tools=[tool.model_dump(exclude_none=True) for tool in body.tools or ()],
        tool_choice=choice if isinstance(choice, str) else choice.model_dump(exclude_none=True),
        text={"format": shown},
        metadata=body.metadata or {},
        parallel_tool_calls=body.parallel_tool_calls is not False,
        effort=reasoning.effort,
        summary=reasoning.summary or reasoning.generate_summary,
        user=body.user if isinstance(body.user, str) else None,
        top_logprobs=body.top_logprobs,
        previous_response_id=body.previous_response_id,
        store=store,
        seals_thoughts=_SEALED in (body.include or ()),
    )
