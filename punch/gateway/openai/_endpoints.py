"""OpenAI's endpoints: chat, completions, embeddings, models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import attrs

from ...wire import ChatMessage, CommandRequest, Sampling, Tool, ToolCall
from .._answering import Question
from .._endpoint import Caller, Endpoint, Service
from .._errors import Refusal
from ._bodies import (
    ChatBody,
    CompletionBody,
    EmbeddingBody,
    FunctionTool,
    Punch,
    ToolChoice,
    Turn,
    Wished,
)
from ._embeddings import EmbeddingShape
from ._shapes import ChatShape, CompletionShape

# How often a peer sends what it has of an answer whose client reads nothing before its end: twice
# as much of it may have to be made again when the peer dies.
GATHER_SECONDS = 0.1


def sampling_of(body: Wished, max_tokens: int | None) -> Sampling:
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


def message_of(turn: Turn) -> ChatMessage:
    """One message, as peers read it."""
    # What OpenAI renamed for its reasoning models is a system message to everybody else.
    role = "system" if turn.role == "developer" else turn.role
    return ChatMessage(
        role=role,
        content=turn.text,
        name=turn.name,
        tool_calls=tuple(
            ToolCall(id=call.id, name=call.function.name, arguments=call.function.arguments)
            for call in turn.tool_calls or ()
        ),
        tool_call_id=turn.tool_call_id,
    )


def tools_of(tools: Sequence[FunctionTool] | None) -> tuple[Tool, ...]:
    """What the model may ask for."""
    return tuple(
        Tool(
            name=tool.function.name,
            description=tool.function.description,
            parameters=json.dumps(tool.function.parameters or {}, ensure_ascii=False),
        )
        for tool in tools or ()
    )


def tool_choice_of(choice: ToolChoice | None) -> str | None:
    """Whether it must ask for one, and for which."""
    if choice is None or isinstance(choice, str):
        return choice
    return f"function:{choice.function.name}"


def side_by_side(request: CommandRequest, answers: int) -> tuple[CommandRequest, ...]:
    """*answers* requests for as many answers; with a seed each has the next one."""
    if answers == 1:
        return (request,)
    found = []
    for index in range(answers):
        sampling = request.sampling
        if sampling.seed is not None:
            # The same seed would give the same answer again.
            sampling = attrs.evolve(sampling, seed=sampling.seed + index)
        found.append(
            attrs.evolve(request, request_id=numbered(request.request_id, index), sampling=sampling)
        )
    return tuple(found)


def numbered(request_id: str, index: int) -> str:
    """The id of one answer of several: ``ID``, ``ID#1``, ``ID#2``."""
    return f"{request_id}#{index}" if index else request_id


def asked(
    service: Service, caller: Caller, wishes: Punch, *, streams: bool = False, **fields: Any
) -> CommandRequest:
    """A request with what every request has; *streams* says whether its client reads along.

    It is streamed from the peer even where the client wants the answer whole: what a peer had
    delivered when it died need not be made again.
    """
    return CommandRequest(
        request_id=caller.request_id,
        model=caller.model,
        strict=service.strict or bool(wishes.strict),
        timeout=wishes.timeout or service.timeout,
        stream_interval=0.0 if streams else GATHER_SECONDS,
        priority=wishes.priority,
        continuable=wishes.continuation,
        **fields,
    )


class Chat(Endpoint[ChatBody]):
    """``POST /v1/chat/completions``."""

    path = "/v1/chat/completions"
    body = ChatBody

    def streams(self, body: ChatBody) -> bool:
        """If it says so."""
        return bool(body.stream)

    def question(self, body: ChatBody, caller: Caller) -> Question:
        """A conversation."""
        streams = self.streams(body)
        tools = tools_of(body.tools)
        request = asked(
            self.service,
            caller,
            body.punch,
            streams=streams,
            command="chat",
            messages=tuple(map(message_of, body.messages)),
            sampling=sampling_of(body, body.max_completion_tokens or body.max_tokens),
            tools=tools,
            tool_choice=tool_choice_of(body.tool_choice),
            response_schema=body.response_format and body.response_format.schema_text,
            logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        )
        shape = ChatShape(
            request_id=caller.request_id,
            created=caller.created,
            model=body.model,
            includes_usage=body.includes_usage,
        )
        return Question(requests=side_by_side(request, body.n or 1), stream=streams, shape=shape)


class Completions(Endpoint[CompletionBody]):
    """``POST /v1/completions``."""

    path = "/v1/completions"
    body = CompletionBody

    def streams(self, body: CompletionBody) -> bool:
        """If it says so."""
        return bool(body.stream)

    def question(self, body: CompletionBody, caller: Caller) -> Question:
        """One text to go on from, or several."""
        streams = self.streams(body)
        prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
        answers = body.n or 1
        if len(prompts) > 1 and answers > 1:
            raise Refusal(
                status=400,
                message="n goes with a single prompt only",
                code="invalid_value",
                param="n",
            )
        request = asked(
            self.service,
            caller,
            body.punch,
            streams=streams,
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
            request_id=caller.request_id,
            created=caller.created,
            model=body.model,
            includes_usage=body.includes_usage,
            one_prompt=len(prompts) == 1,
        )
        return Question(requests=requests, stream=streams, shape=shape)


class Embeddings(Endpoint[EmbeddingBody]):
    """``POST /v1/embeddings``."""

    path = "/v1/embeddings"
    body = EmbeddingBody

    def streams(self, body: EmbeddingBody) -> bool:
        """Never."""
        return False

    def question(self, body: EmbeddingBody, caller: Caller) -> Question:
        """Texts to embed."""
        inputs = (body.input,) if isinstance(body.input, str) else tuple(body.input)
        request = asked(
            self.service, caller, body.punch, command="embed", inputs=inputs, stream=False
        )
        shape = EmbeddingShape(
            request_id=caller.request_id,
            model=body.model,
            packed=body.encoding_format == "base64",
            dimensions=body.dimensions,
        )
        return Question(requests=(request,), stream=False, shape=shape)
