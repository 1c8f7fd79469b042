"""Answers as Anthropic's clients read them: a message, or the events of which one is made. No I/O.

Shapes and the order of events: https://docs.claude.com/en/api/messages-streaming
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...wire import CommandResponse, Completion, ToolCall, Usage
from .._errors import Refusal
from .._json import arguments_of, as_json, completion_of, model_of, punch_body
from ._signature import signature_of

SSE = "text/event-stream; charset=utf-8"

_REASONS = {"length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}


def event(kind: str, **fields: Any) -> bytes:
    """An event, with its kind in both places where clients look for it."""
    return f"event: {kind}\ndata: {as_json({'type': kind, **fields})}\n\n".encode(errors="replace")


def usage_body(usage: Usage) -> dict[str, Any]:
    """Anthropic's `usage`, whose counts of the prompt add up to all of it.

    Clients add the numbers up and know no null: what no backend has counted is 0.
    """
    cached = usage.cached_tokens or 0
    return {
        "input_tokens": max(0, (usage.prompt_tokens or 0) - cached),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": usage.completion_tokens or 0,
    }


def end_of(result: Completion, stops: Sequence[str]) -> dict[str, Any]:
    """Why an answer ended, in Anthropic's words; *stops* are the sequences that could end it."""
    reason, stop = _REASONS.get(result.finish_reason, "end_turn"), None
    if result.tool_calls and result.finish_reason != "length":
        reason = "tool_use"
    elif result.finish_reason == "stop" and result.stopped_by in stops:
        reason, stop = "stop_sequence", result.stopped_by
    return {"stop_reason": reason, "stop_sequence": stop}


def call_body(call: ToolCall) -> dict[str, Any]:
    """A call, as a block; arguments that are no object go under a name."""
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments_of(call)}


class MessageShape:
    """``/v1/messages``.

    Args:
      request_id: Of the request.
      model: The model asked for, named until it is known which one answers.
      shows_thoughts: Whether the client wants to see what the model thinks; if not, it gets a
        block with a signature only, as Anthropic has it.
      is_mute: The client wants no answer, only that its prompt is read.
      stops: The sequences that may end the answer.

    """

    stream_type = SSE

    def __init__(
        self,
        *,
        request_id: str,
        model: str,
        shows_thoughts: bool = True,
        is_mute: bool = False,
        stops: Sequence[str] = (),
    ) -> None:
        self._request_id = request_id
        self._model = model
        self._shows_thoughts = shows_thoughts
        self._is_mute = is_mute
        self._stops = stops
        self._next = 0
        self._open: str | None = None
        self._thought: list[str] = []
        self._before = self._after = ""

    # ---- streams ----

    def began(self, model: str, prompt: Usage) -> bytes:
        """The message without its content, and with the tokens of the prompt."""
        self._model = model
        end = {"stop_reason": None, "stop_sequence": None}
        message = self._message(content=[], end=end, usage=usage_body(prompt))
        return event("message_start", message=message)

    def named(self, model: str) -> None:
        """No effect: only the first event names the model."""

    def text(self, index: int, parts: Sequence[str]) -> bytes:
        """An event for each part, in a block of text."""
        if self._is_mute:
            return b""
        opening = b""
        if self._open != "text":
            opening = self._begin("text", {"type": "text", "text": ""})
            # All but the text is the same for every event of a block: it is spelled out once.
            delta = {"type": "text_delta", "text": "\0"}
            whole = event("content_block_delta", index=self._next, delta=delta).decode()
            self._before, self._after = whole.split(as_json("\0"))
        pieces = [f"{self._before}{as_json(part)}{self._after}" for part in parts]
        return opening + "".join(pieces).encode(errors="replace")

    def reasoning(self, index: int, parts: Sequence[str]) -> bytes:
        """An event for each part, in a block of thoughts; only the block where they are hidden."""
        if self._is_mute:
            return b""
        data = b""
        if self._open != "thinking":
            self._thought = []
            data = self._begin("thinking", {"type": "thinking", "thinking": "", "signature": ""})
        self._thought += parts
        if self._shows_thoughts:
            for part in parts:
                data += self._delta({"type": "thinking_delta", "thinking": part})
        return data

    def comment(self, words: str) -> bytes:
        """A ping, which clients skip."""
        return event("ping")

    def finished(self, index: int, response: CommandResponse) -> bytes:
        """The end of the open block, and the calls after it."""
        result = completion_of(response)
        data = self._end()
        if self._is_mute:
            return data
        for call in result.tool_calls:
            data += self._begin("tool_use", call_body(call) | {"input": {}})
            spelled = as_json(arguments_of(call))
            data += self._delta({"type": "input_json_delta", "partial_json": spelled})
            data += self._end()
        if not self._next:
            data += self._begin("text", {"type": "text", "text": ""}) + self._end()
        return data

    def ended(self, responses: Sequence[CommandResponse]) -> bytes:
        """Why the message ended, and what was counted."""
        (response,) = responses
        result = completion_of(response)
        delta = end_of(result, self._stops)
        body = punch_body(self._request_id, responses)
        data = event("message_delta", delta=delta, usage=usage_body(response.usage), punch=body)
        return data + event("message_stop")

    def failed(self, refusal: Refusal) -> bytes:
        """An event that the official client raises as an error."""
        return event("error", **refusal.anthropic(self._request_id))

    def _begin(self, kind: str, block: dict[str, Any]) -> bytes:
        data = self._end()
        self._open = kind
        return data + event("content_block_start", index=self._next, content_block=block)

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return event("content_block_delta", index=self._next, delta=delta)

    def _end(self) -> bytes:
        if self._open is None:
            return b""
        data = b""
        if self._open == "thinking":
            signature = signature_of("".join(self._thought), shown=self._shows_thoughts)
            data = self._delta({"type": "signature_delta", "signature": signature})
        data += event("content_block_stop", index=self._next)
        self._open = None
        self._next += 1
        return data

    # ---- all at once ----

    def whole(self, responses: Sequence[CommandResponse]) -> dict[str, Any]:
        """The whole body."""
        (response,) = responses
        result = completion_of(response)
        self._model = model_of(responses, self._model)
        body = self._message(
            content=[] if self._is_mute else self._content(result),
            end=end_of(result, self._stops),
            usage=usage_body(response.usage),
        )
        return body | {"punch": punch_body(self._request_id, responses)}

    def _content(self, result: Completion) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        if thought := result.reasoning:
            signature = signature_of(thought, shown=self._shows_thoughts)
            shown = thought if self._shows_thoughts else ""
            found.append({"type": "thinking", "thinking": shown, "signature": signature})
        if result.text:
            found.append({"type": "text", "text": result.text})
        found += [call_body(call) for call in result.tool_calls]
        return found or [{"type": "text", "text": ""}]

    def _message(
        self, *, content: list[dict[str, Any]], end: dict[str, Any], usage: dict[str, Any]
    ) -> dict[str, Any]:
        return {
            "id": f"msg_{self._request_id}",
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": content,
            **end,
            "usage": usage,
        }


class CountShape:
    """``/v1/messages/count_tokens``."""

    def whole(self, responses: Sequence[CommandResponse]) -> dict[str, Any]:
        """The tokens of the prompt, as a backend has counted them."""
        (response,) = responses
        tokens = response.usage.prompt_tokens
        if tokens is None:
            raise Refusal(
                status=502,
                message="the backend that was asked counts no tokens; ask another model",
                type="server_error",
                code="not_counted",
                cause="backend_failed",
            )
        return {"input_tokens": tokens}
