"""Gathers what comes with an answer besides its text: tool calls and log-probabilities. No I/O.

Both are gathered while the answer streams, and are bounded: a server that sends without end, or
what no peer would accept, fails its own answer. The text itself is read by `_completions`.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator
from typing import Any

import attrs

from ...exceptions import GenerationFailed, InvalidRequest
from ...wire import (
    MAX_ARGUMENTS_CHARACTERS,
    MAX_LOGPROBS,
    MAX_NAME_CHARACTERS,
    MAX_TOKEN_CHARACTERS,
    MAX_TOOL_CALLS,
    MIN_LOGPROB,
    TokenLogprob,
    ToolCall,
)

# Bytes. With the text of an answer and its calls they must fit one frame of 8 MiB.
MAX_LOGPROB_BYTES = 3 << 20

# On the wire: a float, and the head of a text.
_PAIR_BYTES = 12


def new_call_id() -> str:
    """A random id for a call that its server gave none; unique within a conversation."""
    return f"call_{secrets.token_hex(12)}"


@attrs.define
class _Begun:
    """A call as far as it has come."""

    id: str = ""
    name: str = ""
    arguments: list[str] = attrs.field(factory=list)


class ToolCalls:
    """Puts the calls of one answer together from their pieces."""

    def __init__(self) -> None:
        self._begun: dict[int, _Begun] = {}
        self._characters = 0

    def feed(self, pieces: Any) -> bool:
        """Add ``delta.tool_calls`` of an event; whether there was anything in it.

        Raises:
          GenerationFailed: if there are too many calls, or their arguments are too long.

        """
        if not isinstance(pieces, list) or not pieces:
            return False
        for piece in pieces:
            if isinstance(piece, dict):
                self._feed(piece)
        return True

    def _feed(self, piece: dict[str, Any]) -> None:
        index = piece.get("index")
        if not isinstance(index, int) or isinstance(index, bool):
            # Some servers send each call whole, and count none.
            index = len(self._begun)
        call = self._begun.setdefault(index, _Begun())
        if len(self._begun) > MAX_TOOL_CALLS:
            raise GenerationFailed(f"the answer calls more than {MAX_TOOL_CALLS} tools")
        function = piece.get("function")
        function = function if isinstance(function, dict) else {}
        call.id = call.id or _text(piece.get("id"))
        # Once: some servers repeat it with every piece.
        call.name = call.name or _text(function.get("name"))
        arguments = _text(function.get("arguments"))
        self._characters += len(arguments)
        if self._characters > MAX_ARGUMENTS_CHARACTERS:
            raise GenerationFailed(
                f"the arguments of the answer's tools are longer than {MAX_ARGUMENTS_CHARACTERS} "
                "characters"
            )
        call.arguments.append(arguments)

    def finish(self) -> tuple[ToolCall, ...]:
        """The calls, in their order.

        Raises:
          GenerationFailed: if a call has no name, or one that no tool can have.

        """
        calls = []
        for _, call in sorted(self._begun.items()):
            if not _is_label(call.name):
                raise GenerationFailed(f"the answer calls a tool named {call.name[:80]!r}")
            found = call.id if _is_label(call.id) else new_call_id()
            arguments = _sendable("".join(call.arguments)) or "{}"
            calls.append(ToolCall(id=found, name=call.name, arguments=arguments))
        return tuple(calls)


class Logprobs:
    """Gathers the log-probabilities of one answer.

    Args:
      alternatives: How many of each token were asked for; `None` if no log-probabilities were.

    """

    def __init__(self, alternatives: int | None) -> None:
        self._alternatives = alternatives
        self._found: list[TokenLogprob] = []
        self._bytes = 0

    def feed(self, value: Any) -> None:
        """Add ``logprobs`` of an event.

        Raises:
          InvalidRequest: if the answer has more of them than one frame can carry.

        """
        if self._alternatives is None or not isinstance(value, dict):
            return
        content = value.get("content")
        rows = _chat_rows(content) if isinstance(content, list) else _plain_rows(value)
        for token, logprob, others in rows:
            top = tuple(others)[: self._alternatives]
            self._found.append(TokenLogprob(token=token, logprob=logprob, top=top))
            for text, _ in ((token, logprob), *top):
                self._bytes += _PAIR_BYTES + len(text.encode())
        if len(self._found) > MAX_LOGPROBS or self._bytes > MAX_LOGPROB_BYTES:
            raise InvalidRequest(
                f"the answer is too long to be sent with its log-probabilities ({MAX_LOGPROBS} "
                "tokens at most): set max_tokens, or ask for fewer alternatives"
            )

    def finish(self) -> tuple[TokenLogprob, ...]:
        """The log-probabilities of all tokens, in their order."""
        return tuple(self._found)


_Row = tuple[str, float, list[tuple[str, float]]]


def _chat_rows(content: list[Any]) -> Iterator[_Row]:
    """The form of chats, which llama-server uses for plain completions, too."""
    for row in content:
        if isinstance(row, dict):
            top = row.get("top_logprobs")
            others = [one for one in top if isinstance(one, dict)] if isinstance(top, list) else []
            yield (*_pair(row), [_pair(other) for other in others])


def _plain_rows(value: dict[str, Any]) -> Iterator[_Row]:
    """OpenAI's older form: lists side by side, and a map of alternatives for each token."""
    tokens, logprobs = value.get("tokens"), value.get("token_logprobs")
    if not isinstance(tokens, list) or not isinstance(logprobs, list):
        return
    tops = value.get("top_logprobs")
    tops = tops if isinstance(tops, list) else []
    for index, (token, logprob) in enumerate(zip(tokens, logprobs, strict=False)):
        top = tops[index] if index < len(tops) and isinstance(tops[index], dict) else {}
        others = [(_token(text), _logprob(its)) for text, its in top.items()]
        yield _token(token), _logprob(logprob), sorted(others, key=lambda pair: -pair[1])


def _pair(row: dict[str, Any]) -> tuple[str, float]:
    return _token(row.get("token")), _logprob(row.get("logprob"))


def _token(value: Any) -> str:
    return _sendable(_text(value))[:MAX_TOKEN_CHARACTERS]


def _logprob(value: Any) -> float:
    """*value* in the range of the wire; the least stands for no number and for minus infinity."""
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return MIN_LOGPROB
    return min(0.0, max(MIN_LOGPROB, float(value)))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _sendable(text: str) -> str:
    """Without halves of surrogate pairs, which JSON may hold and the wire cannot."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def _is_label(text: str) -> bool:
    return 1 <= len(text) <= MAX_NAME_CHARACTERS and text.isprintable()
