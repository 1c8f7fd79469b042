"""Answers as Ollama's clients read them: JSON, a line for each part. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from ...wire import CommandResponse, Completion, Timings, TokenLogprob, ToolCall, Usage
from .._errors import Refusal
from .._json import arguments_of, as_json, completion_of, punch_body

NDJSON = "application/x-ndjson"


def moment(seconds: float) -> str:
    """A time as Go writes it, from seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def nanoseconds(seconds: float | None) -> int:
    """*seconds* in Ollama's unit; 0 if not measured, since its clients accept no null."""
    return 0 if seconds is None else round(seconds * 1e9)


class OllamaShape:
    """``/api/chat`` and ``/api/generate``.

    Args:
      request_id: Of the request.
      created: When the request came, in seconds since 1970.
      model: The model asked for, which the answer names again.
      chat: Whether the text is a message.
      without: The reason for an end without an answer: nothing was asked.

    """

    stream_type = NDJSON

    def __init__(
        self, *, request_id: str, created: float, model: str, chat: bool, without: str = "load"
    ) -> None:
        self._request_id = request_id
        self._without = without
        self._head = {"model": model, "created_at": moment(created)}
        self._chat = chat
        # All but the text is the same for every line: it is spelled out once.
        line = as_json(self._head | self._said("\0") | {"done": False})
        # The last one: the model's name comes before the text.
        self._before, _, self._after = line.rpartition(as_json("\0"))

    def _said(
        self, text: str, calls: Sequence[ToolCall] = (), *, thinking: str = ""
    ) -> dict[str, Any]:
        thought = {"thinking": thinking} if thinking else {}
        if not self._chat:
            return {"response": text, **thought}
        message: dict[str, Any] = {"role": "assistant", "content": text, **thought}
        if calls:
            message["tool_calls"] = [
                {"id": call.id, "function": {"name": call.name, "arguments": arguments_of(call)}}
                for call in calls
            ]
        return {"message": message}

    def began(self, model: str, prompt: Usage) -> bytes:
        """Empty: the first line comes with the first text."""
        return b""

    def named(self, model: str) -> None:
        """No effect: every line names the model that was asked for, as Ollama does."""

    def text(self, index: int, parts: Sequence[str]) -> bytes:
        """A line for each part."""
        lines = [f"{self._before}{as_json(part)}{self._after}\n" for part in parts]
        return "".join(lines).encode(errors="replace")

    def reasoning(self, index: int, parts: Sequence[str]) -> bytes:
        """A line for each part, with no text."""
        lines = [
            _line(self._head | self._said("", thinking=part) | {"done": False}) for part in parts
        ]
        return b"".join(lines)

    def comment(self, words: str) -> bytes:
        """Empty: JSON has no comments."""
        return b""

    def finished(self, index: int, response: CommandResponse) -> bytes:
        """A line with the tool calls, if there are any."""
        calls = completion_of(response).tool_calls
        if not calls:
            return b""
        return _line(self._head | self._said("", calls) | {"done": False})

    def ended(self, responses: Sequence[CommandResponse]) -> bytes:
        """The last line, with what was counted."""
        return _line(self._whole(responses, text="", calls=()))

    def failed(self, refusal: Refusal) -> bytes:
        """A line that the official client raises as an error."""
        return _line(refusal.ollama())

    def whole(self, responses: Sequence[CommandResponse]) -> dict[str, Any]:
        """The whole body."""
        result = completion_of(responses[0]) if responses else Completion()
        return self._whole(
            responses, text=result.text, calls=result.tool_calls, thinking=result.reasoning
        )

    def _whole(
        self,
        responses: Sequence[CommandResponse],
        *,
        text: str,
        calls: Sequence[ToolCall],
        thinking: str = "",
    ) -> dict[str, Any]:
        if not responses:
            return {**self._head, **self._said(""), "done": True, "done_reason": self._without}
        (response,) = responses
        result = completion_of(response)
        logprobs = [_logprob(each) for each in result.logprobs]
        return {
            **self._head,
            **self._said(text, calls, thinking=thinking),
            "done": True,
            "done_reason": _reason(result),
            # Nothing is kept between requests, and a client for Vercel's kit insists on a list.
            **({} if self._chat else {"context": []}),
            # All at the end: the tokens of a stream are not known one by one.
            **({"logprobs": logprobs} if logprobs else {}),
            **counted(response),
            "punch": punch_body(self._request_id, responses),
        }


def _logprob(each: TokenLogprob) -> dict[str, Any]:
    likely = [_likely(token, logprob) for token, logprob in each.top]
    return _likely(each.token, each.logprob) | ({"top_logprobs": likely} if likely else {})


def _likely(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode(errors="replace"))}


def _reason(result: Completion) -> str:
    # Ollama has no word of its own for a stop that waits for tools.
    return "length" if result.finish_reason == "length" else "stop"


def _line(value: Any) -> bytes:
    return f"{as_json(value)}\n".encode(errors="replace")


def counted(response: CommandResponse) -> dict[str, Any]:
    """Tokens and nanoseconds; tokens that no backend has counted are left out."""
    usage, timings = response.usage, response.timings
    body: dict[str, Any] = {
        "total_duration": nanoseconds(timings.total or _sum(timings)),
        "load_duration": nanoseconds(timings.queue),
        "prompt_eval_duration": nanoseconds(timings.prefill),
        "eval_duration": nanoseconds(timings.decode),
    }
    if usage.prompt_tokens is not None:
        body["prompt_eval_count"] = usage.prompt_tokens
    if usage.completion_tokens is not None:
        body["eval_count"] = usage.completion_tokens
    return body


def _sum(timings: Timings) -> float:
    return (timings.queue or 0.0) + (timings.prefill or 0.0) + (timings.decode or 0.0)
