"""Answers as OpenAI's Responses API spells them. No I/O.

Shapes and the order of events: https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from ...wire import CommandResponse, Completion, TokenLogprob, ToolCall, Usage
from .._errors import Refusal
from .._json import as_json, completion_of, model_of, punch_body
from ..bodies import sealed
from ._response_tools import ToolNames
from ._shapes import SSE, comment, tokens_body

Keep = Callable[[Sequence[Mapping[str, Any]], Sequence[ToolCall]], None]


def _usage(usage: Usage) -> dict[str, Any] | None:
    prompt, answer = usage.prompt_tokens, usage.completion_tokens
    if prompt is None or answer is None:
        return None
    return {
        "input_tokens": prompt,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens or 0,
            # No caller pays for what a cache takes in.
            "cache_write_tokens": 0,
        },
        "output_tokens": answer,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens or 0},
        "total_tokens": prompt + answer,
    }


def _status(result: Completion) -> str:
    return "incomplete" if result.finish_reason == "length" else "completed"


@attrs.frozen(kw_only=True)
class _Field:
    """How the text of one kind of item is spelled."""

    list: str
    """The field of the item that has it."""

    type: str
    """The type of the part that it is."""

    index: str
    """What its events call the number of the part."""

    of_part: str
    """In the names of events about the part."""

    of_text: str
    """In the names of events about its text."""

    has_logprobs: bool = False
    """Whether its tokens may come with log probabilities."""


_TEXT = _Field(
    list="content",
    type="output_text",
    index="content_index",
    of_part="content_part",
    of_text="output_text",
    has_logprobs=True,
)
_THOUGHT = _Field(
    list="content",
    type="reasoning_text",
    index="content_index",
    of_part="content_part",
    of_text="reasoning_text",
)
_SUMMARY = _Field(
    list="summary",
    type="summary_text",
    index="summary_index",
    of_part="reasoning_summary_part",
    of_text="reasoning_summary_text",
)


def _part(field: _Field, text: str, logprobs: Sequence[TokenLogprob] = ()) -> dict[str, Any]:
    part: dict[str, Any] = {"type": field.type, "text": text}
    return part | {"annotations": []} | _likely(field, logprobs) if field.has_logprobs else part


def _likely(field: _Field, logprobs: Sequence[TokenLogprob] = ()) -> dict[str, Any]:
    return {"logprobs": tokens_body(logprobs)} if field.has_logprobs else {}


@attrs.define(kw_only=True)
class _OpenItem:
    """An item of a stream whose text is still coming."""

    item: Mapping[str, Any]
    field: _Field
    index: int
    parts: list[str] = attrs.field(factory=list)


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
    parallel_tool_calls: bool = True
    effort: str | None = None
    summary: str | None = None
    """Which kind of summary of what is thought was asked for."""
    user: str | None = None
    top_logprobs: int | None = None
    previous_response_id: str | None = None
    store: bool = False
    """Whether the response can be referred to later."""
    seals_thoughts: bool = False
    """Whether what is thought comes in a form for programs that keep no text of it, too."""

    def fields(self) -> dict[str, Any]:
        """The fields of the response that repeat it."""
        return {
            "instructions": self.instructions,
            "max_output_tokens": self.max_output_tokens,
            "parallel_tool_calls": self.parallel_tool_calls,
            "previous_response_id": self.previous_response_id,
            "reasoning": {"effort": self.effort, "summary": self.summary},
            "store": self.store,
            "temperature": self.temperature,
            "text": dict(self.text),
            "tool_choice": self.tool_choice,
            "tools": list(self.tools),
            "top_logprobs": self.top_logprobs,
            "top_p": self.top_p,
            "truncation": "disabled",
            "user": self.user,
            "metadata": dict(self.metadata),
        }


class ResponsesShape:
    """``/v1/responses``.

    Args:
      request_id: Of the request.
      created: When it came, in seconds since 1970.
      model: As asked for.
      echoed: What is repeated of it.
      names: What the caller calls the functions.
      keep: Called with the items of the output, and the calls among them, once all are there.

    """

    stream_type = SSE

    def __init__(
        self,
        *,
        request_id: str,
        created: int,
        model: str,
        echoed: Echoed,
        names: ToolNames | None = None,
        keep: Keep | None = None,
    ) -> None:
        self._request_id = request_id
        self._created = created
        self._model = model
        self._echoed = echoed
        self._names = names or ToolNames(())
        self._keep = keep
        self._number = 0
        # What has been spelled of a stream: the items that are done, and the one that is open.
        self._done: list[Mapping[str, Any]] = []
        self._open: _OpenItem | None = None
        self._has_message = False

    # ---- streams ----

    def began(self, model: str, prompt: Usage) -> bytes:
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
        data = self._opened(self._message(self._new_id("msg"), "in_progress"), _TEXT)
        return data + self._told(parts)

    def reasoning(self, index: int, parts: Sequence[str]) -> bytes:
        """The next parts of a reasoning item, which the first one opens.

        What was thought stands in the item's content; where a summary was asked for, in its
        place: programs that ask for one show nothing else.
        """
        field = _SUMMARY if self._echoed.summary else _THOUGHT
        return self._opened(self._reasoning(self._new_id("rs"), None), field) + self._told(parts)

    def comment(self, words: str) -> bytes:
        """A comment of server-sent events."""
        return comment(words)

    def finished(self, index: int, response: CommandResponse) -> bytes:
        """The end of the message, and the tool calls after it."""
        result = completion_of(response)
        data = b""
        # An empty answer still is a message; only calls may come without one.
        if not self._has_message and not result.tool_calls:
            data += self._opened(self._message(self._new_id("msg"), "in_progress"), _TEXT)
        data += self._closed(_status(result), result.logprobs)
        for call in result.tool_calls:
            data += self._call(call)
        return data

    def ended(self, responses: Sequence[CommandResponse]) -> bytes:
        """The event with the whole response."""
        body = self._ended(responses, self._done)
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
        output: list[Mapping[str, Any]] = []
        if result.reasoning:
            output.append(self._reasoning(f"rs_{self._request_id}", result.reasoning))
        if result.text or not result.tool_calls:
            item = self._message(f"msg_{self._request_id}", _status(result))
            item["content"] = [_part(_TEXT, result.text, result.logprobs)]
            output.append(item)
        for call in result.tool_calls:
            output.append({**self._item(call, len(output)), "status": "completed"})
        return self._ended(responses, output)

    def _ended(
        self, responses: Sequence[CommandResponse], output: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        """The whole body with this *output*."""
        (response,) = responses
        result = completion_of(response)
        cut = result.finish_reason == "length"
        self._model = model_of(responses, self._model)
        if self._keep is not None:
            self._keep(output, result.tool_calls)
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

    def _new_id(self, prefix: str) -> str:
        """An id for the next item of a stream: by its place, but for the first of its kind."""
        place = len(self._done)
        first = f"{prefix}_{self._request_id}"
        return first if all(item["id"] != first for item in self._done) else f"{first}_{place}"

    def _message(self, item_id: str, status: str) -> dict[str, Any]:
        return {
            "id": item_id,
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": [],
        }

    def _reasoning(self, item_id: str, text: str | None) -> dict[str, Any]:
        field = _SUMMARY if self._echoed.summary else _THOUGHT
        item: dict[str, Any] = {"id": item_id, "type": "reasoning", "summary": []}
        if text is not None:
            item[field.list] = [_part(field, text)]
            item |= self._sealed(text)
        return item

    def _sealed(self, thought: str) -> dict[str, str]:
        """The field of a thought for programs that keep no text of it."""
        return {"encrypted_content": sealed(thought)} if self._echoed.seals_thoughts else {}

    def _opened(self, item: Mapping[str, Any], field: _Field) -> bytes:
        """Open *item*, unless one of its type is; whatever else is open is closed."""
        if self._open is not None and self._open.item["type"] == item["type"]:
            return b""
        data = self._closed("completed")
        self._open = _OpenItem(item=item, field=field, index=len(self._done))
        self._has_message |= item["type"] == "message"
        return (
            data
            + self._event("response.output_item.added", output_index=self._open.index, item=item)
            + self._of_part(f"response.{field.of_part}.added", part=_part(field, ""))
        )

    def _told(self, parts: Sequence[str]) -> bytes:
        """The next parts of the open item."""
        assert self._open is not None, "parts are of an item that was opened"
        self._open.parts += parts
        field = self._open.field
        return b"".join(
            self._of_part(f"response.{field.of_text}.delta", delta=part, **_likely(field))
            for part in parts
        )

    def _closed(self, status: str, logprobs: Sequence[TokenLogprob] = ()) -> bytes:
        """The end of the item that is open, if one is; *logprobs* are known at the end alone."""
        if self._open is None:
            return b""
        item, field, text = self._open.item, self._open.field, "".join(self._open.parts)
        part = _part(field, text, logprobs)
        done = {**item, field.list: [part]}
        if item["type"] == "reasoning":
            done |= self._sealed(text)
        if "status" in item:
            done["status"] = status
        data = (
            self._of_part(f"response.{field.of_text}.done", text=text, **_likely(field, logprobs))
            + self._of_part(f"response.{field.of_part}.done", part=part)
            + self._event("response.output_item.done", output_index=self._open.index, item=done)
        )
        self._done.append(done)
        self._open = None
        return data

    def _of_part(self, kind: str, **fields: Any) -> bytes:
        assert self._open is not None, "a part is of an item that was opened"
        place = {"item_id": self._open.item["id"], "output_index": self._open.index}
        return self._event(kind, **place, **{self._open.field.index: 0}, **fields)

    def _item(self, call: ToolCall, place: int) -> Mapping[str, Any]:
        return self._names.item(call, f"{self._request_id}_{place}")

    def _call(self, call: ToolCall) -> bytes:
        item = self._item(call, len(self._done))
        place = {"output_index": len(self._done)}
        field, kind = "arguments", "response.function_call_arguments"
        if item["type"] == "custom_tool_call":
            field, kind = "input", "response.custom_tool_call_input"
        of_item = {"item_id": item["id"], **place}
        done = {**item, "status": "completed"}
        self._done.append(done)
        added = {**item, field: "", "status": "in_progress"}
        named = {"name": item["name"]} if field == "arguments" else {}
        return (
            self._event("response.output_item.added", item=added, **place)
            + self._event(f"{kind}.delta", delta=item[field], **of_item)
            + self._event(f"{kind}.done", **{field: item[field]}, **named, **of_item)
            + self._event("response.output_item.done", item=done, **place)
        )

    def _body(self, status: str, output: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {
            "id": f"resp_{self._request_id}",
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "model": self._model,
            "output": list(output),
            "usage": None,
            **self._echoed.fields(),
        }
