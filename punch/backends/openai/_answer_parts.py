"""Gathers what comes with an answer besides its text: tool calls and log-probabilities. No I/O.

Both are gathered while the answer streams, and are bounded: a server that sends without end, or
what no peer would accept, fails its own answer. The text itself is read by `_answer`.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from ...exceptions import GenerationFailed, InvalidRequest
from ...wire import (
    LIMITS,
    MAX_ARGUMENTS_CHARACTERS,
    MAX_LOGPROBS,
    MAX_NAME_CHARACTERS,
    MAX_TOKEN_CHARACTERS,
    MAX_TOOL_CALLS,
    MIN_LOGPROB,
    Thought,
    TokenLogprob,
    ToolCall,
)
from .._characters import Characters, whole_characters
from .._stop import StopMatcher

# Bytes. With the text of an answer and its calls they must fit one frame of 8 MiB.
MAX_LOGPROB_BYTES = 3 << 20

# Of what a model thinks, so much is kept for a whole answer: with the rest of a response it must
# fit a frame. All of it is told as it comes.
MAX_THOUGHT_CHARACTERS = 256 * 1024

# On the wire: a float, and the head of a text.
_PAIR_BYTES = 12


class Thoughts:
    """Puts together what a model thinks, of which a bounded beginning is kept for the end."""

    def __init__(self) -> None:
        self.length = 0
        """Characters of all of it."""
        self._characters = Characters()
        self._kept: list[str] = []
        self._fresh: list[str] = []

    def __bool__(self) -> bool:
        return bool(self._kept)

    def feed(self, text: str) -> None:
        """Add what one event has of it."""
        text = self._characters.feed(text)
        if text:
            self._fresh.append(text)
            if self.length < MAX_THOUGHT_CHARACTERS:
                self._kept.append(text[: MAX_THOUGHT_CHARACTERS - self.length])
            self.length += len(text)

    def fresh(self) -> Thought | None:
        """What has come since this was last asked."""
        if not self._fresh:
            return None
        thought, self._fresh = Thought("".join(self._fresh)), []
        return thought

    def finish(self) -> str:
        """What is kept of it."""
        return whole_characters("".join(self._kept))


def new_call_id() -> str:
    """A random id for a call that its server gave none; unique within a conversation."""
    return f"call_{secrets.token_hex(12)}"


@attrs.frozen(kw_only=True)
class _Piece:
    """A piece of a call, or all of it."""

    place: int | None
    id: str
    name: str
    arguments: str


@attrs.define(eq=False)
class _Begun:
    """A call as far as it has come."""

    place: int
    """Where it stands among the calls."""

    id: str = ""
    name: str = ""
    arguments: list[str] = attrs.field(factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether its arguments are complete."""
        try:
            json.loads("".join(self.arguments), strict=False)
        except (ValueError, RecursionError):
            return False
        return True


class ToolCalls:
    """Puts the calls of one answer together from their pieces.

    OpenAI numbers the calls, and sends id and name with the first piece of each. Other servers
    send a call whole, number none, give all the same number, or repeat the name or the id.
    """

    def __init__(self) -> None:
        self._begun: list[_Begun] = []
        self._characters = 0

    def __bool__(self) -> bool:
        return bool(self._begun)

    def feed(self, pieces: Sequence[Any]) -> bool:
        """Add the calls, or pieces of them, of one event; whether there was anything in it.

        Raises:
          GenerationFailed: if there are too many calls, or their arguments are too long.

        """
        fresh: list[_Begun] = []
        for piece in pieces:
            if isinstance(piece, dict):
                self._feed(piece, fresh)
        return bool(pieces)

    def _feed(self, written: dict[str, Any], fresh: list[_Begun]) -> None:
        piece = _read_piece(written)
        call = self._find(piece, fresh) or self._begin(piece, fresh)
        call.id = call.id or piece.id
        # Once: some servers repeat it with every piece.
        call.name = call.name or piece.name
        self._characters += len(piece.arguments)
        if self._characters > MAX_ARGUMENTS_CHARACTERS:
            raise GenerationFailed(
                f"the arguments of the answer's tools are longer than {MAX_ARGUMENTS_CHARACTERS} "
                "characters"
            )
        call.arguments.append(piece.arguments)

    def _find(self, piece: _Piece, fresh: list[_Begun]) -> _Begun | None:
        """The call that *piece* belongs to, if that has begun; *fresh* have in the same event."""
        if not self._begun:
            return None
        last = self._begun[-1]
        if piece.place is not None:
            same = [call for call in self._begun if call.place == piece.place]
        elif piece.id:
            same = [call for call in self._begun if call.id == piece.id]
            # A server that makes up an id for each piece has not begun another call in the middle.
            if not same and not (last.id and (last.is_whole or not any(last.arguments))):
                same = [last]
        else:
            same = [last]
        if not same or _is_another(same[-1], piece, is_fresh=same[-1] in fresh):
            return None
        return same[-1]

    def _begin(self, piece: _Piece, fresh: list[_Begun]) -> _Begun:
        if len(self._begun) == MAX_TOOL_CALLS:
            raise GenerationFailed(f"the answer calls more than {MAX_TOOL_CALLS} tools")
        place, places = piece.place, {call.place for call in self._begun}
        if place is None or place in places:
            place = max(places, default=-1) + 1
        call = _Begun(place=place)
        self._begun.append(call)
        fresh.append(call)
        return call

    def finish(self, *, is_cut: bool = False) -> tuple[ToolCall, ...]:
        """The calls, in their order.

        Args:
          is_cut: Whether the answer ended before it was complete: the last call may be unfinished,
            and is left out if not even its name is there.

        Raises:
          GenerationFailed: if a call has no name, or one that no tool can have.

        """
        calls = []
        for call in sorted(self._begun, key=lambda call: call.place):
            if is_cut and not call.name and call is self._begun[-1]:
                continue
            if not _is_label(call.name):
                raise GenerationFailed(f"the answer calls a tool named {call.name[:80]!r}")
            found = call.id if _is_label(call.id) else new_call_id()
            arguments = whole_characters("".join(call.arguments))
            calls.append(
                ToolCall(id=found, name=call.name, arguments=arguments or ("" if is_cut else "{}"))
            )
        return tuple(calls)


def _is_another(call: _Begun, piece: _Piece, *, is_fresh: bool) -> bool:
    """Whether *piece* begins another call, although its number or place is that of *call*."""
    if not piece.name or not call.name:
        return False
    if piece.name != call.name:
        return True
    if is_fresh and piece.place is None:
        # Calls beside each other are whole ones.
        return True
    has_other_id = bool(piece.id and call.id and piece.id != call.id)
    if piece.place is not None and not has_other_id and not is_fresh:
        return False
    return call.is_whole and (has_other_id or bool(piece.arguments.strip()))


def _read_piece(written: dict[str, Any]) -> _Piece:
    function = written.get("function")
    function = function if isinstance(function, dict) else written
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        # Some servers send the value itself.
        arguments = "" if arguments is None else json.dumps(arguments, ensure_ascii=False)
    return _Piece(
        place=_number(written.get("index")),
        id=_text(written.get("id")),
        name=_text(function.get("name")),
        arguments=arguments,
    )


def _number(index: Any) -> int | None:
    if isinstance(index, str) and index.isascii() and index.isdecimal():
        index = int(index[:9])
    return index if isinstance(index, int) and not isinstance(index, bool) else None


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
    return whole_characters(_text(value))[:MAX_TOKEN_CHARACTERS]


def _logprob(value: Any) -> float:
    """*value* in the range of the wire; the least stands for no number and for minus infinity."""
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return MIN_LOGPROB
    return min(0.0, max(MIN_LOGPROB, float(value)))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _is_label(text: str) -> bool:
    return 1 <= len(text) <= MAX_NAME_CHARACTERS and text.isprintable()


class Stops(StopMatcher):
    """The stop sequences that are found here, and the one that a server says it has found."""

    told: str | None = None
    """The server's word for it; vLLM has one."""

    def feed(self, text: str, word: Any = None) -> str:
        """The part of the text so far that can be delivered now; *word* is the server's."""
        if isinstance(word, str) and LIMITS["stop[]"].allows(len(word)):
            self.told = word
        return super().feed(text)
