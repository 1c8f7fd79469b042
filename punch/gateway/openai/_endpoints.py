"""OpenAI's endpoints: makes commands of chat, completions and embeddings."""

from __future__ import annotations

import json
from collections.abc import Sequence

import attrs

from ...wire import ChatMessage, Sampling, Tool, ToolCall
from .._asking import command_request, numbered, side_by_side
from .._endpoint import Endpoint, RequestContext
from .._errors import Refusal
from .._handler import ParsedRequest
from ._bodies import (
    ChatBody,
    CompletionBody,
    EmbeddingBody,
    FunctionTool,
    GenerationBody,
    MessageBody,
    ToolChoice,
)
from ._embeddings import EmbeddingShape
from ._shapes import ChatShape, CompletionShape


def sampling_of(body: GenerationBody, max_tokens: int | None) -> Sampling:
    """How to choose tokens."""
    return Sampling(
        max_tokens=max_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        min_p=body.min_p,
        repeat_penalty=body.repeat_penalty,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        stop=body.stops,
        seed=body.seed,
    )


def message_of(body: MessageBody) -> ChatMessage:
    """*body* as a message between peers."""
    # OpenAI renamed the system role for its reasoning models; all chat templates say system.
    role = "system" if body.role == "developer" else body.role
    return ChatMessage.of_parts(
        role,
        body.parts,
        name=body.name,
        tool_calls=tuple(
            ToolCall(id=call.id, name=call.function.name, arguments=call.function.arguments)
            for call in body.tool_calls or ()
        ),
        tool_call_id=body.tool_call_id,
        reasoning=body.reasoning_content or body.reasoning or None,
    )


def tools_of(tools: Sequence[FunctionTool] | None) -> tuple[Tool, ...]:
    """The functions that the model may call, as peers read them."""
    return tuple(
        Tool(
            name=tool.function.name,
            description=tool.function.description,
            parameters=json.dumps(tool.function.parameters or {}, ensure_ascii=False),
        )
        for tool in tools or ()
    )


def tool_choice_of(choice: ToolChoice | None) -> str | None:
    """Whether the model must call a function, and which, as peers read it."""
    if choice is None or isinstance(choice, str):
        return choice
    return f"function:{choice.function.name}"


class Chat(Endpoint[ChatBody]):
    """``POST /v1/chat/completions``."""

    path = "/v1/chat/completions"
    body = ChatBody

    def is_streamed(self, body: ChatBody) -> bool:
        """Whether the body asks for a stream."""
        return bool(body.stream)

    def parsed(self, body: ChatBody, context: RequestContext) -> ParsedRequest:
        """The command for the conversation, or one for each answer."""
        streamed = self.is_streamed(body)
        tools = tools_of(body.tools)
        request = command_request(
            self.service,
            context,
            body.punch,
            streamed=streamed,
            command="chat",
            messages=tuple(map(message_of, body.messages)),
            sampling=sampling_of(body, body.max_completion_tokens or body.max_tokens),
            tools=tools,
            tool_choice=tool_choice_of(body.tool_choice),
            parallel_tool_calls=body.parallel_tool_calls if tools else None,
            reasoning_effort=body.effort,
            reasoning_budget=body.reasoning and body.reasoning.max_tokens,
            response_schema=body.response_format and body.response_format.schema_text,
            logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        )
        shape = ChatShape(
            request_id=context.request_id,
            created=context.created,
            model=body.model,
            includes_usage=body.includes_usage,
        )
        return ParsedRequest(
            requests=side_by_side(request, body.n or 1),
            whole=shape,
            stream=shape if streamed else None,
        )


class Completions(Endpoint[CompletionBody]):
    """``POST /v1/completions``."""

    path = "/v1/completions"
    body = CompletionBody
    command = "complete"

    def is_streamed(self, body: CompletionBody) -> bool:
        """Whether the body asks for a stream."""
        return bool(body.stream)

    def parsed(self, body: CompletionBody, context: RequestContext) -> ParsedRequest:
        """A command for each prompt, or for each of the answers to one."""
        streamed = self.is_streamed(body)
        prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
        answers = body.n or 1
        if len(prompts) > 1 and answers > 1:
            raise Refusal(
                status=400,
                message="n goes with a single prompt only",
                code="invalid_value",
                param="n",
            )
        request = command_request(
            self.service,
            context,
            body.punch,
            streamed=streamed,
            command="complete",
            prompt=prompts[0],
            sampling=sampling_of(body, body.max_tokens),
            logprobs=body.logprobs,
        )
        requests = side_by_side(request, answers)
        if len(prompts) > 1:
            requests = tuple(
                attrs.evolve(request, request_id=numbered(request.request_id, i), prompt=prompt)
                for i, prompt in enumerate(prompts)
            )
        shape = CompletionShape(
            request_id=context.request_id,
            created=context.created,
            model=body.model,
            includes_usage=body.includes_usage,
            one_prompt=len(prompts) == 1,
        )
        return ParsedRequest(requests=requests, whole=shape, stream=shape if streamed else None)


class Embeddings(Endpoint[EmbeddingBody]):
    """``POST /v1/embeddings``."""

    path = "/v1/embeddings"
    body = EmbeddingBody
    command = "embed"

    def is_streamed(self, body: EmbeddingBody) -> bool:
        """Whether to stream: there is no stream of embeddings."""
        return False

    def parsed(self, body: EmbeddingBody, context: RequestContext) -> ParsedRequest:
        """Texts to embed."""
        inputs = (body.input,) if isinstance(body.input, str) else tuple(body.input)
        request = command_request(
            self.service, context, body.punch, command="embed", inputs=inputs, stream=False
        )
        shape = EmbeddingShape(
            request_id=context.request_id,
            model=body.model,
            packed=body.encoding_format == "base64",
            dimensions=body.dimensions,
        )
        return ParsedRequest(requests=(request,), whole=shape)
