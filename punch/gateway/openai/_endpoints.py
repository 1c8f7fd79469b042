"""OpenAI's endpoints: makes commands of chat, completions and embeddings."""

from __future__ import annotations

import attrs

from .._asking import command_request, numbered, side_by_side
from .._endpoint import Endpoint, RequestContext
from .._errors import Refusal
from .._handler import ParsedRequest
from ._bodies import ChatBody, CompletionBody, EmbeddingBody, GenerationBody
from ._embeddings import EmbeddingShape
from ._messages import conversation
from ._shapes import ChatShape, CompletionShape


def _unused(body: GenerationBody) -> tuple[str, ...]:
    """Fields of *body* that only matter beside another one, which is not there."""
    return ("stream_options",) if body.stream_options is not None and not body.stream else ()


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
        tools, tool_choice = body.callable
        messages = conversation(body.messages)
        if not messages:
            raise Refusal(
                status=400,
                message="messages has nothing in it that could be answered",
                code="invalid_value",
                param="messages",
            )
        request = command_request(
            self.service,
            context,
            body.punch,
            streamed=streamed,
            command="chat",
            messages=messages,
            sampling=body.sampling(body.longest),
            tools=tools,
            tool_choice=tool_choice,
            parallel_tool_calls=body.parallel_tool_calls if tools else None,
            reasoning_effort=body.effort,
            reasoning_budget=body.thought,
            response_schema=body.schema_text,
            logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        )
        shape = ChatShape(
            request_id=context.request_id,
            created=context.created,
            model=body.model,
            includes_usage=body.includes_usage,
            answers=body.n or 1,
        )
        return ParsedRequest(
            requests=side_by_side(request, body.n or 1),
            whole=shape,
            stream=shape if streamed else None,
            taken=_unused(body),
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
            sampling=body.sampling(body.longest),
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
            answers=len(requests),
            one_prompt=len(prompts) == 1,
        )
        return ParsedRequest(
            requests=requests,
            whole=shape,
            stream=shape if streamed else None,
            taken=_unused(body),
        )


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
