"""Anthropic's endpoints: makes commands of messages, and of the counting of their tokens."""

from __future__ import annotations

from typing import Any

from ...wire import Sampling
from .._asking import command_request
from .._endpoint import Endpoint, RequestContext
from .._errors import Refusal
from .._handler import ParsedRequest
from .._offered import on_offer
from ._bodies import CountBody, MessagesBody, PromptBody, ToolChoiceBody
from ._shapes import CountShape, MessageShape
from ._turns import conversation, tools_of

_CHOICES = {"auto": "auto", "any": "required", "none": "none"}

# Anthropic's words for more effort than others have words for.
_EFFORTS = {"xhigh": "high", "max": "high"}


def tool_choice_of(choice: ToolChoiceBody | None, *, has_tools: bool) -> str | None:
    """Whether the model must call a tool, and which, as peers read it."""
    if choice is None or (not has_tools and choice.type in ("auto", "none")):
        return None
    return f"function:{choice.name}" if choice.type == "tool" else _CHOICES[choice.type]


def effort_of(body: PromptBody) -> str | None:
    """How much the model is to think, as peers read it; `None` for as much as it does by itself.

    Without a word about it, Anthropic's models do not think, and clients expect text first.
    """
    thinking = body.thinking.type if body.thinking is not None else None
    if thinking in ("disabled", "between_tools"):
        return "none"
    efforts = [body.output_config.effort if body.output_config is not None else None]
    efforts += [turn.output_config.effort for turn in body.messages if turn.output_config]
    effort = next((each for each in reversed(efforts) if each is not None), None)
    if effort is not None:
        return _EFFORTS.get(effort, effort)
    if thinking is None:
        return "none"
    return "medium" if thinking == "enabled" else None


def asked(body: PromptBody) -> dict[str, Any]:
    """The fields of a request between peers that say what a model reads."""
    messages, tools = conversation(body), tools_of(body)
    if not any(message.role != "system" for message in messages):
        raise Refusal(
            status=400,
            message="messages has nothing in it that could be answered",
            code="invalid_value",
            param="messages",
        )
    choice = body.tool_choice
    one_call = choice is not None and choice.disable_parallel_tool_use
    return {
        "messages": messages,
        "tools": tools,
        "tool_choice": tool_choice_of(choice, has_tools=bool(tools)),
        "parallel_tool_calls": False if one_call and tools else None,
        "reasoning_effort": effort_of(body),
        "reasoning_budget": body.thinking.budget_tokens if body.thinking is not None else None,
    }


class Messages(Endpoint[MessagesBody]):
    """``POST /v1/messages``."""

    path = "/v1/messages"
    body = MessagesBody

    def is_streamed(self, body: MessagesBody) -> bool:
        """Whether the body asks for a stream."""
        return bool(body.stream)

    def parsed(self, body: MessagesBody, context: RequestContext) -> ParsedRequest:
        """The command for the conversation."""
        streamed = self.is_streamed(body)
        # Nothing is to be said: the prompt is to be read for a later question.
        is_mute = body.max_tokens == 0
        request = command_request(
            self.service,
            context,
            body.punch,
            streamed=streamed,
            command="chat",
            sampling=Sampling(
                max_tokens=1 if is_mute else body.max_tokens,
                temperature=body.temperature,
                top_p=body.top_p,
                top_k=body.top_k,
                stop=tuple(body.stop_sequences or ()),
            ),
            response_schema=body.schema_text,
            **asked(body),
        )
        thinking = body.thinking
        shape = MessageShape(
            request_id=context.request_id,
            model=body.model,
            shows_thoughts=thinking is None or thinking.display != "omitted",
            is_mute=is_mute,
            stops=body.stop_sequences or (),
        )
        return ParsedRequest(requests=(request,), whole=shape, stream=shape if streamed else None)


class CountTokens(Endpoint[CountBody]):
    """``POST /v1/messages/count_tokens``."""

    path = "/v1/messages/count_tokens"
    body = CountBody

    def is_streamed(self, body: CountBody) -> bool:
        """Whether to stream: there is no stream of a number."""
        return False

    def parsed(self, body: CountBody, context: RequestContext) -> ParsedRequest:
        """The command to count; where no peer knows it, one for the shortest answer.

        Every backend counts the prompt that it has read.
        """
        fields = asked(body)
        if self._can_count(context.model, needs_tools=bool(fields["tools"])):
            fields |= {"command": "count", "tool_choice": None, "parallel_tool_calls": None}
        else:
            fields |= {
                "command": "chat",
                "sampling": Sampling(max_tokens=1),
                "response_schema": body.schema_text,
            }
        request = command_request(self.service, context, body.punch, **fields)
        return ParsedRequest(requests=(request,), whole=CountShape())

    def _can_count(self, model: str | None, *, needs_tools: bool) -> bool:
        needed = {"count", "tools"} if needs_tools else {"count"}
        offered = on_offer(self.service.router.peers)
        models = offered.values() if model is None else filter(None, [offered.get(model)])
        return any(needed <= offer.features for each in models for _, offer in each.offers)
