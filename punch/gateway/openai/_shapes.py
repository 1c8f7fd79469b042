"""Answers as OpenAI's clients read them: chat, completions, embeddings. No I/O.

Shapes: https://platform.openai.com/docs/api-reference; where a field says something that no peer
has counted, it is null rather than made up.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from ...wire import CommandResponse, Completion, TokenLogprob, ToolCall, Usage
from .._errors import Refusal
from .._headers import usage_of
from .._json import as_json, completion_of, model_of, punch_body

SSE = "text/event-stream; charset=utf-8"
DONE = b"data: [DONE]\n\n"


def event(value: Any) -> bytes:
    """*value* as a server-sent event."""
    return f"data: {as_json(value)}\n\n".encode(errors="replace")


def comment(words: str) -> bytes:
    """A comment, which clients skip by the standard; it keeps proxies from closing the stream."""
    return f": {words}\n\n".encode("ascii", "replace")


def usage_body(usage: Usage) -> dict[str, Any] | None:
    """OpenAI's `usage`; `None` if no backend has counted."""
    prompt, answer = usage.prompt_tokens, usage.completion_tokens
    # Both or none: clients add the numbers up, and a made-up 0 would be billed as a fact.
    if prompt is None or answer is None:
        return None
    body: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": prompt + answer,
    }
    if usage.cached_tokens is not None:
        body["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
    if usage.reasoning_tokens is not None:
        body["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return body


def one_prompt(responses: Sequence[CommandResponse]) -> Usage:
    """The tokens of several answers to one prompt, which is counted once."""
    usage = usage_of(responses)
    if not responses or usage.prompt_tokens is None:
        return usage
    return Usage(
        prompt_tokens=responses[0].usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cached_tokens=responses[0].usage.cached_tokens,
        reasoning_tokens=usage.reasoning_tokens,
    )


def tool_calls_body(calls: Sequence[ToolCall], *, numbered: bool = False) -> list[dict[str, Any]]:
    """Calls of tools; in a stream each has its number."""
    return [
        ({"index": index} if numbered else {})
        | {
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for index, call in enumerate(calls)
    ]


def logprobs_body(logprobs: Sequence[TokenLogprob]) -> dict[str, Any] | None:
    """Log probabilities of the tokens, in the form of chat."""
    if not logprobs:
        return None
    return {"content": tokens_body(logprobs), "refusal": None}


def tokens_body(logprobs: Sequence[TokenLogprob]) -> list[dict[str, Any]]:
    """Each token with its log probability, and those that were likely in its place."""
    return [_token(each) for each in logprobs]


def _token(each: TokenLogprob) -> dict[str, Any]:
    return _likely(each.token, each.logprob) | {
        "top_logprobs": [_likely(token, logprob) for token, logprob in each.top]
    }


def _likely(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode(errors="replace"))}


def old_logprobs_body(logprobs: Sequence[TokenLogprob]) -> dict[str, Any] | None:
    """Log probabilities of the tokens, in the form of completions."""
    if not logprobs:
        return None
    offsets, place = [], 0
    for each in logprobs:
        offsets.append(place)
        place += len(each.token)
    return {
        "tokens": [each.token for each in logprobs],
        "token_logprobs": [each.logprob for each in logprobs],
        "top_logprobs": [dict(each.top) for each in logprobs],
        "text_offset": offsets,
    }


class TextShape(ABC):
    """The part that the shapes of chat and of completions share.

    Args:
      request_id: Id of the whole request.
      created: When the request came, in seconds since 1970.
      model: The model asked for, named until it is known which one answers.
      answers: How many there will be.
      includes_usage: The stream ends with the tokens that were used. `None` if nothing is said of
        it: then the last event of a single answer has them, as programs count on that do not ask.

    """

    stream_type = SSE
    prefix = ""
    whole_object = ""
    part_object = ""

    def __init__(
        self,
        *,
        request_id: str,
        created: int,
        model: str,
        includes_usage: bool | None = False,
        answers: int = 1,
    ) -> None:
        self.request_id = request_id
        self.created = created
        self.model = model
        self.includes_usage = bool(includes_usage)
        self._counts_unasked = includes_usage is None and answers == 1
        # Of every event; spelled when a stream begins, which an answer in one piece never does.
        self._head = ""
        self._tails: dict[int, tuple[str, str]] = {}
        self._opened: set[int] = set()

    # ---- what differs ----

    @abstractmethod
    def first(self, index: int) -> dict[str, Any] | None:
        """The delta of an answer's first event, before its text; `None` for no such event."""

    @abstractmethod
    def part(self, index: int) -> Mapping[str, Any]:
        """A choice with U+0000 in place of its text."""

    @abstractmethod
    def last(self, index: int, result: Completion) -> list[dict[str, Any]]:
        """The choices that end an answer, each for an event of its own."""

    @abstractmethod
    def choice(self, index: int, result: Completion) -> dict[str, Any]:
        """A whole answer."""

    # ---- streams ----

    def began(self, model: str, prompt: Usage) -> bytes:
        """Empty: the first event of each answer comes with its first text."""
        self.named(model)
        self._tails, self._opened = {}, set()
        return b""

    def named(self, model: str) -> None:
        """Name *model* in every later event."""
        self.model = model
        head = {
            "id": f"{self.prefix}-{self.request_id}",
            "object": self.part_object,
            "created": self.created,
            "model": model,
        }
        self._head = as_json(head)[:-1]

    def text(self, index: int, parts: Sequence[str]) -> bytes:
        """An event for each part, all in one write."""
        opening = b""
        ends = self._tails.get(index)
        if ends is None:
            # All but the text is the same for every event: it is spelled out once.
            before, after = as_json([self.part(index)]).split(as_json("\0"))
            usage = ',"usage":null' if self.includes_usage else ""
            ends = (f'data: {self._head},"choices":{before}', f"{after}{usage}}}\n\n")
            self._tails[index] = ends
            opening = self._opening(index)
        before, after = ends
        pieces = [f"{before}{as_json(part)}{after}" for part in parts]
        return opening + "".join(pieces).encode(errors="replace")

    def reasoning(self, index: int, parts: Sequence[str]) -> bytes:
        """Empty: completions have no field for what is thought."""
        return b""

    def _opening(self, index: int) -> bytes:
        """The first event of an answer, once."""
        first = None if index in self._opened else self.first(index)
        self._opened.add(index)
        return b"" if first is None else self._event([first])

    def comment(self, words: str) -> bytes:
        """A comment of server-sent events."""
        return comment(words)

    def finished(self, index: int, response: CommandResponse) -> bytes:
        """Tool calls, probabilities and the reason for the end, none of which is known earlier."""
        data = self._opening(index)
        payload: dict[str, Any] = {"punch": punch_body(self.request_id, [response])}
        if self._counts_unasked and (usage := usage_body(response.usage)) is not None:
            payload["usage"] = usage
        choices = self.last(index, completion_of(response))
        for place, choice in enumerate(choices):
            is_last = place == len(choices) - 1
            data += self._event([choice], payload if is_last else {})
        return data

    def ended(self, responses: Sequence[CommandResponse]) -> bytes:
        """The usage, if it was asked for, and ``[DONE]``."""
        if not self.includes_usage:
            return DONE
        usage = usage_body(one_prompt(responses))
        payload = {"usage": usage, "punch": punch_body(self.request_id, responses)}
        return self._event([], payload) + DONE

    def failed(self, refusal: Refusal) -> bytes:
        """An event that the official client raises as an error."""
        return event(refusal.openai())

    def _event(self, choices: Sequence[Any], more: Mapping[str, Any] | None = None) -> bytes:
        fields = {"choices": choices} | ({"usage": None} if self.includes_usage else {})
        text = as_json(fields | dict(more or {}))[1:]
        return f"data: {self._head},{text}\n\n".encode(errors="replace")

    # ---- all at once ----

    def whole(self, responses: Sequence[CommandResponse]) -> dict[str, Any]:
        """The whole body."""
        return {
            "id": f"{self.prefix}-{self.request_id}",
            "object": self.whole_object,
            "created": self.created,
            "model": model_of(responses, self.model),
            "choices": [
                self.choice(index, completion_of(response))
                for index, response in enumerate(responses)
            ],
            "usage": usage_body(self.usage(responses)),
            "punch": punch_body(self.request_id, responses),
        }

    def usage(self, responses: Sequence[CommandResponse]) -> Usage:
        """The tokens of all answers."""
        return one_prompt(responses)


class ChatShape(TextShape):
    """``/v1/chat/completions``."""

    prefix = "chatcmpl"
    whole_object = "chat.completion"
    part_object = "chat.completion.chunk"

    def first(self, index: int) -> dict[str, Any]:
        """The role, which OpenAI's first event has."""
        delta = {"role": "assistant", "content": ""}
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}

    def part(self, index: int) -> dict[str, Any]:
        """A piece of the message."""
        delta = {"content": "\0"}
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}

    def reasoning(self, index: int, parts: Sequence[str]) -> bytes:
        """An event for each part, with the field that servers of OpenAI's interface agree on."""
        data = self._opening(index)
        for part in parts:
            delta = {"reasoning_content": part}
            data += self._event(
                [{"index": index, "delta": delta, "logprobs": None, "finish_reason": None}]
            )
        return data

    def last(self, index: int, result: Completion) -> list[dict[str, Any]]:
        """The tool calls, if there are any, and the end."""
        found: list[dict[str, Any]] = []
        if result.tool_calls:
            delta = {"tool_calls": tool_calls_body(result.tool_calls, numbered=True)}
            found.append({"index": index, "delta": delta, "logprobs": None, "finish_reason": None})
        logprobs = logprobs_body(result.logprobs)
        end = {"index": index, "delta": {}, "logprobs": logprobs}
        found.append(end | {"finish_reason": result.finish_reason})
        return found

    def choice(self, index: int, result: Completion) -> dict[str, Any]:
        """A whole answer: the message and its end."""
        calls = result.tool_calls
        message: dict[str, Any] = {
            "role": "assistant",
            # OpenAI says null, not an empty text, beside calls; clients test for it.
            "content": None if calls and not result.text else result.text,
            "refusal": None,
        }
        if result.reasoning:
            message["reasoning_content"] = result.reasoning
        if calls:
            message["tool_calls"] = tool_calls_body(calls)
        return {
            "index": index,
            "message": message,
            "logprobs": logprobs_body(result.logprobs),
            "finish_reason": result.finish_reason,
        }


class CompletionShape(TextShape):
    """``/v1/completions``."""

    prefix = "cmpl"
    whole_object = "text_completion"
    part_object = "text_completion"

    def __init__(self, *, one_prompt: bool = True, **fields: Any) -> None:
        self._one_prompt = one_prompt
        super().__init__(**fields)

    def first(self, index: int) -> None:
        """`None`: completions have no first event."""
        return

    def part(self, index: int) -> dict[str, Any]:
        """A piece of the text."""
        return {"index": index, "text": "\0", "logprobs": None, "finish_reason": None}

    def last(self, index: int, result: Completion) -> list[dict[str, Any]]:
        """The end: no text, and its reason."""
        return [
            {
                "index": index,
                "text": "",
                "logprobs": old_logprobs_body(result.logprobs),
                "finish_reason": result.finish_reason,
            }
        ]

    def choice(self, index: int, result: Completion) -> dict[str, Any]:
        """A whole answer: the text and its end."""
        (last,) = self.last(index, result)
        return last | {"text": result.text}

    def usage(self, responses: Sequence[CommandResponse]) -> Usage:
        """The tokens of all answers; a prompt counts once for each time it was read."""
        return one_prompt(responses) if self._one_prompt else usage_of(responses)
