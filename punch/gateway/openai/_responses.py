"""OpenAI's Responses API, as far as it is about text and functions: nothing is stored."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator

from ...wire import ChatMessage, Sampling, Tool, ToolCall
from .._asking import command_request
from .._endpoint import Endpoint, RequestContext
from .._errors import Refusal
from .._handler import ParsedRequest
from ..bodies import MAX_PARTS, Always, Body, ModelName, Never, PunchOptions, Refused, Text, within
from ._bodies import StreamOptions
from ._responses_shapes import Echoed, ResponsesShape

# ---- what is sent ----


class InputText(Body):
    """A part of a message; only text is supported."""

    type: Literal["input_text", "output_text", "text"]
    text: str
    # What an earlier answer had, sent back as it was.
    annotations: list[Any] | None = Field(default=None, max_length=0, fail_fast=True)
    logprobs: list[Any] | None = Field(default=None, max_length=0, fail_fast=True)


Content = Annotated[
    Text | Annotated[list[InputText], Field(max_length=MAX_PARTS, fail_fast=True), Tag("~list")],
    Discriminator(lambda value: "~text" if isinstance(value, str) else "~list"),
]


class Message(Body):
    """A message of the conversation."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Content
    id: str | None = None
    status: str | None = None

    def to_chat_message(self) -> ChatMessage:
        """The item as a message between peers."""
        content = self.content
        text = content if isinstance(content, str) else "".join(part.text for part in content)
        role = "system" if self.role == "developer" else self.role
        return ChatMessage(role=role, content=text)


class Called(Body):
    """A function that the assistant asked for."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    id: str | None = None
    status: str | None = None

    def to_chat_message(self) -> ChatMessage:
        """The item as a message between peers."""
        call = ToolCall(id=self.call_id, name=self.name, arguments=self.arguments)
        return ChatMessage(role="assistant", content="", tool_calls=(call,))


class Returned(Body):
    """The output of a function."""

    type: Literal["function_call_output"]
    call_id: str
    output: str
    id: str | None = None
    status: str | None = None

    def to_chat_message(self) -> ChatMessage:
        """The item as a message between peers."""
        return ChatMessage(role="tool", content=self.output, tool_call_id=self.call_id)


class OtherItem(Body):
    """An item of a kind that cannot be read here."""

    model_config = ConfigDict(extra="ignore")

    type: Annotated[Any, Refused("no peer can read items of this type")]

    def to_chat_message(self) -> ChatMessage:
        """The item as a message between peers; there is none."""
        raise Refusal(status=400, message="an item needs a type", param="input")


def _kind_of_item(value: Any) -> str:
    kind = value.get("type", "message") if isinstance(value, dict) else "message"
    known = ("message", "function_call", "function_call_output")
    return f"~{kind}" if kind in known else "~other"


Item = Annotated[
    Annotated[Message, Tag("~message")]
    | Annotated[Called, Tag("~function_call")]
    | Annotated[Returned, Tag("~function_call_output")]
    | Annotated[OtherItem, Tag("~other")],
    Discriminator(_kind_of_item),
]


class FunctionTool(Body):
    """A function that the model may ask for."""

    type: Literal["function"]
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    # llama.cpp writes the arguments of every call under a grammar of their schema.
    strict: bool | None = None


class ChosenFunction(Body):
    """The one function that is to be called."""

    type: Literal["function"]
    name: str


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


class ResponsesBody(Body):
    """``POST /v1/responses``."""

    model: ModelName = "auto"
    input: Annotated[
        Text
        | Annotated[
            list[Item],
            within("messages", min_length=1),
            Tag("~list"),
        ],
        Discriminator(lambda value: "~text" if isinstance(value, str) else "~list"),
    ]
    instructions: str | None = None
    max_output_tokens: Annotated[int | None, within("max_tokens")] = None
    temperature: Annotated[float | None, within("temperature")] = None
    top_p: Annotated[float | None, within("top_p")] = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    text: TextOptions | None = None
    tools: Annotated[list[FunctionTool] | None, within("tools")] = None
    tool_choice: (
        Annotated[
            Annotated[Literal["none", "auto", "required"], Tag("~text")]
            | Annotated[ChosenFunction, Tag("~function")],
            Discriminator(lambda value: "~text" if isinstance(value, str) else "~function"),
        ]
        | None
    ) = None
    parallel_tool_calls: Always | None = None
    metadata: dict[str, str] | None = Field(default=None, max_length=16)
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    # Nothing is stored, so no response can be continued or looked up later.
    store: Never | None = None
    previous_response_id: None = None
    conversation: None = None
    background: Never | None = None
    truncation: Literal["disabled"] | None = None
    include: list[Any] | None = Field(default=None, max_length=0, fail_fast=True)
    service_tier: Literal["auto", "default"] | None = None
    punch: PunchOptions = PunchOptions()


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
        messages = _messages(body)
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
            sampling=Sampling(
                max_tokens=body.max_output_tokens, temperature=body.temperature, top_p=body.top_p
            ),
            tools=tuple(
                Tool(
                    name=tool.name,
                    description=tool.description,
                    parameters=json.dumps(tool.parameters or {}, ensure_ascii=False),
                )
                for tool in body.tools or ()
            ),
            tool_choice=_tool_choice(body),
            response_schema=_schema(body),
        )
        shape = ResponsesShape(
            request_id=context.request_id,
            created=context.created,
            model=body.model,
            echoed=_echoed(body),
        )
        return ParsedRequest(
            requests=(request,), whole=shape, stream=shape if self.is_streamed(body) else None
        )


def _messages(body: ResponsesBody) -> list[ChatMessage]:
    found: list[ChatMessage] = []
    if body.instructions is not None:
        found.append(ChatMessage(role="system", content=body.instructions))
    if isinstance(body.input, str):
        return [*found, ChatMessage(role="user", content=body.input)]
    for item in body.input:
        message = item.to_chat_message()
        last = found[-1] if found else None
        if isinstance(item, Called) and last is not None and last.role == "assistant":
            # Calls that were asked for together are one turn of a conversation.
            found[-1] = ChatMessage(
                role="assistant",
                content=last.content,
                tool_calls=last.tool_calls + message.tool_calls,
            )
        else:
            found.append(message)
    return found


def _tool_choice(body: ResponsesBody) -> str | None:
    choice = body.tool_choice
    return f"function:{choice.name}" if isinstance(choice, ChosenFunction) else choice


def _schema(body: ResponsesBody) -> str | None:
    wanted = body.text.format if body.text is not None else None
    if wanted is None or wanted.type == "text":
        return None
    return json.dumps(wanted.schema_ or {}, ensure_ascii=False)


def _echoed(body: ResponsesBody) -> Echoed:
    wanted = body.text.format if body.text is not None else None
    shown = {"type": "text"} if wanted is None else wanted.model_dump(by_alias=True)
    choice: Any = body.tool_choice or "auto"
    return Echoed(
        instructions=body.instructions,
        max_output_tokens=body.max_output_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        tools=[tool.model_dump() for tool in body.tools or ()],
        tool_choice=choice if isinstance(choice, str) else choice.model_dump(),
        text={"format": shown},
        metadata=body.metadata or {},
        user=body.user,
    )
