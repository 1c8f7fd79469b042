"""Answers as OpenAI's Responses API spells them. No I/O.

Shapes and the order of events: https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from ...wire import CommandResponse, Completion, ToolCall, Usage
from .._errors import Refusal
from .._json import as_json, completion_of, model_of, punch_body
from ._shapes import SSE, comment


def _usage(usage: Usage) -> dict[str, Any] | None:
    prompt, answer = usage.prompt_tokens, usage.completion_tokens
    if prompt is None or answer is None:
        return None
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens or 0},
        "output_tokens": answer,
        # No backend of ours tells reasoning from the rest.
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + answer,
    }


def _status(result: Completion) -> str:
    return "incomplete" if result.finish_reason == "length" else "completed"


@attrs.frozen(kw_only=True)
class Echoed:
    """The fields of a request that its response repeats."""

    instructions: str | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    tools: Sequence[Mapping[str, Any]] = ()
    tool_choice: Any = "auto"
    text: Mapping[str, Any] = attrs.field(factory=lambda: {"format": {"type": "text"}})
    metadata: Mapping[str, str] = attrs.field(factory=dict)
    user: str | None = None


class ResponsesShape:
    """``/v1/responses``.

    Args:
      request_id: Of the request.
      created: When it came, in seconds since 1970.
      model: As asked for.
      echoed: What is repeated of it.

    """

    stream_type = SSE

    def __init__(self, *, request_id: str, created: int, model: str, echoed: Echoed) -> None:
        self._request_id = request_id
        self._created = created
        self._model = model
        self._echoed = echoed
        self._number = 0
        self._message_is_open = False
        self._text: list[str] = []
        self._calls = 0

    # ---- streams ----

    def began(self, model: str) -> bytes:
        """The events that a response was created and is in progress."""
        self._model = model
        body = self._body("in_progress", [])
        return self._event("response.created", response=body) + self._event(
            "response.in_progress", response=body
        )

    def named(self, model: str) -> None:
        """Name *model* in the response at the end."""
        self._model = model

    def text(self, index: int, parts: Sequence[str]) -> bytes:
        """The next parts of the message, which the first one opens."""
        opening = b"" if self._message_is_open else self._open_message()
        self._text += parts
        return opening + b"".join(
            self._of_part("response.output_text.delta", delta=part, logprobs=[]) for part in parts
        )

    def reasoning(self, index: int, parts: Sequence[str]) -> bytes:
        """Empty: what is thought is not told."""
        return b""

    def comment(self, words: str) -> bytes:
        """A comment of server-sent events."""
        return comment(words)

    def finished(self, index: int, response: CommandResponse) -> bytes:
        """The end of the message, and the tool calls after it."""
        result = completion_of(response)
        data = b""
        # An empty answer still is a message; only calls may come without one.
        if not self._message_is_open and not result.tool_calls:
            data += self._open_message()
        if self._message_is_open:
            data += self._close_message(_status(result))
        for call in result.tool_calls:
            data += self._call(call)
        return data

    def ended(self, responses: Sequence[CommandResponse]) -> bytes:
        """The event with the whole response."""
        body = self.whole(responses)
        return self._event(f"response.{body['status']}", response=body)

    def failed(self, refusal: Refusal) -> bytes:
        """An event that the official client raises as an error."""
        error = {"code": refusal.code, "message": refusal.message, "param": refusal.param}
        return self._event("error", **error, **refusal.openai())

    # ---- all at once ----

    def whole(self, responses: Sequence[CommandResponse]) -> dict[str, Any]:
        """The whole body."""
        (response,) = responses
        result = completion_of(response)
        output: list[dict[str, Any]] = []
        if result.text or not result.tool_calls:
            output.append(self._message(result.text, _status(result)))
        output += [self._call_item(call, "completed") for call in result.tool_calls]
        cut = result.finish_reason == "length"
        self._model = model_of(responses, self._model)
        return self._body(_status(result), output) | {
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "usage": _usage(response.usage),
            "punch": punch_body(self._request_id, responses),
        }

    # ---- parts ----

    def _event(self, kind: str, **fields: Any) -> bytes:
        value = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return f"event: {kind}\ndata: {as_json(value)}\n\n".encode(errors="replace")

    @property
    def _message_id(self) -> str:
        return f"msg_{self._request_id}"

    def _message(self, text: str | None, status: str) -> dict[str, Any]:
        content = [] if text is None else [self._part(text)]
        return {
            "id": self._message_id,
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": content,
        }

    @staticmethod
    def _part(text: str) -> dict[str, Any]:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def _of_part(self, kind: str, **fields: Any) -> bytes:
        place = {"item_id": self._message_id, "output_index": 0, "content_index": 0}
        return self._event(kind, **place, **fields)

    def _open_message(self) -> bytes:
        self._message_is_open = True
        item = self._message(None, "in_progress")
        return self._event("response.output_item.added", output_index=0, item=item) + (
            self._of_part("response.content_part.added", part=self._part(""))
        )

    def _close_message(self, status: str) -> bytes:
        text = "".join(self._text)
        item = self._message(text, status)
        return (
            self._of_part("response.output_text.done", text=text, logprobs=[])
            + self._of_part("response.content_part.done", part=self._part(text))
            + self._event("response.output_item.done", output_index=0, item=item)
        )

    def _call_item(self, call: ToolCall, status: str) -> dict[str, Any]:
        return {
            "id": f"fc_{call.id}",
            "type": "function_call",
            "status": status,
            "call_id": call.id,
            "name": call.name,
            "arguments": call.arguments if status == "completed" else "",
        }

    def _call(self, call: ToolCall) -> bytes:
        place: dict[str, Any] = {"output_index": self._calls + self._message_is_open}
        self._calls += 1
        of_item = {"item_id": f"fc_{call.id}", **place}
        added, done = (self._call_item(call, status) for status in ("in_progress", "completed"))
        arguments = call.arguments
        kind = "response.function_call_arguments"
        return (
            self._event("response.output_item.added", item=added, **place)
            + self._event(f"{kind}.delta", delta=arguments, **of_item)
            + self._event(f"{kind}.done", arguments=arguments, name=call.name, **of_item)
            + self._event("response.output_item.done", item=done, **place)
        )

    def _body(self, status: str, output: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        echoed = self._echoed
        return {
            "id": f"resp_{self._request_id}",
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": echoed.instructions,
            "max_output_tokens": echoed.max_output_tokens,
            "model": self._model,
            "output": list(output),
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "store": False,
            "temperature": echoed.temperature,
            "text": dict(echoed.text),
            "tool_choice": echoed.tool_choice,
            "tools": list(echoed.tools),
            "top_p": echoed.top_p,
            "truncation": "disabled",
            "usage": None,
            "user": echoed.user,
            "metadata": dict(echoed.metadata),
        }
