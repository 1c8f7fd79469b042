"""Ollama's endpoints that ask a model: makes commands of chat, generate and embed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ...wire import ChatMessage, ContentPart, Sampling, Tool, ToolCall
from .._asking import command_request
from .._endpoint import Endpoint, RequestContext, Service
from .._errors import Refusal
from .._handler import ParsedRequest
from .._offered import no_such_model, on_offer
from ._bodies import (
    EmbedBody,
    GenerateBody,
    MessageBody,
    OldEmbedBody,
    OllamaChatBody,
    OllamaGenerationBody,
)
from ._embeddings import OllamaEmbeddingShape
from ._shapes import OllamaShape


def turn_of(
    role: str, text: str | None, images: Sequence[ContentPart] | None, **fields: Any
) -> ChatMessage:
    """A turn of pictures, if there are any, and a text after them."""
    parts = [*(images or ()), ContentPart(type="text", text=text or "")]
    return ChatMessage.of_parts(role, parts if text or not images else parts[:-1], **fields)


def messages_of(bodies: Sequence[MessageBody]) -> tuple[ChatMessage, ...]:
    """The messages between peers for *bodies*.

    Ollama's clients may leave out the ids of calls: the output of a tool then belongs to the first
    call of that tool that has none, or to the first call. A message of the assistant's that says
    nothing is left out: programs put one where the answer is to come.
    """
    found = []
    open_calls: dict[str, str] = {}
    for place, message in enumerate(bodies):
        if message.says_nothing:
            continue
        calls = tuple(
            ToolCall(
                id=call.id or f"call_{place}_{index}",
                name=call.function.name,
                arguments=json.dumps(call.function.arguments, ensure_ascii=False),
            )
            for index, call in enumerate(message.tool_calls or ())
        )
        open_calls |= {call.id: call.name for call in calls}
        answers = message.tool_call_id
        if message.role == "tool":
            named = (each for each, name in open_calls.items() if name == message.tool_name)
            answers = answers or next(named, None) or next(iter(open_calls), f"call_{place}")
            open_calls.pop(answers, None)
        found.append(
            turn_of(
                "system" if message.role == "developer" else message.role,
                message.content,
                message.images,
                tool_calls=calls,
                tool_call_id=answers if message.role == "tool" else None,
                reasoning=message.thinking or None,
            )
        )
    return tuple(found)


class OllamaChat(Endpoint[OllamaChatBody]):
    """``POST /api/chat``."""

    path = "/api/chat"
    body = OllamaChatBody

    def is_streamed(self, body: OllamaChatBody) -> bool:
        """Whether the body asks for a stream: Ollama's default, unlike OpenAI's, is to."""
        return body.stream is not False

    def parsed(self, body: OllamaChatBody, context: RequestContext) -> ParsedRequest:
        """The command for the conversation."""
        tools = tuple(
            Tool(
                name=tool.function.name,
                description=tool.function.description,
                parameters=json.dumps(tool.function.parameters or {}, ensure_ascii=False),
            )
            for tool in body.tools or ()
        )
        return _parsed(
            self,
            body,
            context,
            chat=True,
            command="chat",
            messages=messages_of(body.messages),
            tools=tools,
            tool_choice=body.chosen_tool,
        )


class Generate(Endpoint[GenerateBody]):
    """``POST /api/generate``: one question, or with ``raw`` a text to continue."""

    path = "/api/generate"
    body = GenerateBody

    def is_streamed(self, body: GenerateBody) -> bool:
        """Whether the body asks for a stream: Ollama's default, unlike OpenAI's, is to."""
        return body.stream is not False

    def parsed(self, body: GenerateBody, context: RequestContext) -> ParsedRequest:
        """The command: a conversation of one question, or with ``raw`` a text to continue."""
        prompt = body.prompt or ""
        if body.raw:
            if body.system:
                raise Refusal(status=400, message="system does not go with raw", param="system")
            if body.images:
                raise Refusal(status=400, message="images does not go with raw", param="images")
            return _parsed(self, body, context, chat=False, command="complete", prompt=prompt)
        messages = [turn_of("user", prompt, body.images)] if prompt or body.images else []
        if messages and body.system:
            messages.insert(0, ChatMessage(role="system", content=body.system))
        return _parsed(self, body, context, chat=False, command="chat", messages=tuple(messages))


def _parsed(
    endpoint: Endpoint[Any],
    body: OllamaGenerationBody,
    context: RequestContext,
    *,
    chat: bool,
    **fields: Any,
) -> ParsedRequest:
    streamed = endpoint.is_streamed(body)
    shape = OllamaShape(
        request_id=context.request_id,
        created=context.created,
        model=body.model,
        chat=chat,
        without="unload" if body.unloads else "load",
    )
    if not fields.get("messages") and not fields.get("prompt"):
        # To Ollama an empty prompt means: load the model, or unload it.
        _check_offered(endpoint.service, context, body.model)
        return ParsedRequest(requests=(), whole=shape, stream=shape if streamed else None)
    request = command_request(
        endpoint.service,
        context,
        body.punch,
        streamed=streamed,
        sampling=Sampling(**body.all_chosen()),
        response_schema=body.schema_text,
        reasoning_effort=body.reasoning_effort,
        logprobs=body.alternatives,
        **fields,
    )
    return ParsedRequest(requests=(request,), whole=shape, stream=shape if streamed else None)


def _check_offered(service: Service, context: RequestContext, said: str) -> None:
    """Refuse a model that nobody offers, where nothing is asked of it but to be loaded.

    Listeners load theirs by themselves, so the answer only says whether there is such a model.
    """
    offered = on_offer(service.router.offering)
    if context.model is not None and context.model not in offered:
        raise no_such_model(said, offered)


class Embed(Endpoint[EmbedBody]):
    """``POST /api/embed``."""

    path = "/api/embed"
    body = EmbedBody
    command = "embed"

    def is_streamed(self, body: EmbedBody) -> bool:
        """Always false: there is no stream of embeddings."""
        return False

    def parsed(self, body: EmbedBody, context: RequestContext) -> ParsedRequest:
        """The command for the texts to embed."""
        shape = OllamaEmbeddingShape(
            request_id=context.request_id,
            model=body.model,
            single=False,
            dimensions=body.dimensions or None,
        )
        return _embedding(self.service, body, context, body.texts, shape)


class OldEmbed(Endpoint[OldEmbedBody]):
    """``POST /api/embeddings``."""

    path = "/api/embeddings"
    body = OldEmbedBody
    command = "embed"

    def is_streamed(self, body: OldEmbedBody) -> bool:
        """Always false: there is no stream of embeddings."""
        return False

    def parsed(self, body: OldEmbedBody, context: RequestContext) -> ParsedRequest:
        """The command for the one text to embed."""
        shape = OllamaEmbeddingShape(request_id=context.request_id, model=body.model, single=True)
        texts = (body.prompt,) if body.prompt else ()
        return _embedding(self.service, body, context, texts, shape)


def _embedding(
    service: Service,
    body: EmbedBody | OldEmbedBody,
    context: RequestContext,
    texts: tuple[str, ...],
    shape: OllamaEmbeddingShape,
) -> ParsedRequest:
    if not texts:
        # As with a question: load the model.
        _check_offered(service, context, body.model)
        return ParsedRequest(requests=(), whole=shape)
    request = command_request(
        service, context, body.punch, command="embed", inputs=texts, stream=False
    )
    return ParsedRequest(requests=(request,), whole=shape)
