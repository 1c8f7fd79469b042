"""Puts one answer together from the events of its stream. No I/O.

* An answer is whole once its server says so, by the reason for its end, by ``[DONE]``, or by
  sending all of it as one JSON value. A stream with none of these was cut off.
* An answer without text, call or thought is one only if the server says that it ends there, with
  a reason or with a count of tokens. Otherwise it has failed, with the server's own words.
* No text counts twice, however often the server repeats it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import attrs

from ...exceptions import GenerationFailed
from ...wire import CommandRequest, Completion, PromptCount, Timings, Usage
from .._base import Generation
from .._characters import Characters, whole_characters
from ._answer_parts import Logprobs, Stops, Thoughts, ToolCalls
from ._choices import (
    Said,
    complaint_in,
    index_in,
    is_at_limit,
    is_for_tools,
    is_given_up,
    read_message,
    reason_in,
    status_in,
    words_in,
)
from ._completions import Dialect, count_in, fault_of, finds_stops, usage_in
from ._sse import DONE, Kind

# The longest answer kept in memory; a million tokens of four bytes.
MAX_ANSWER_CHARACTERS = 4 * 1024 * 1024

# Characters of a server's words that are told.
_MAX_WORDS = 500

# What some servers send as an event to keep a connection open.
_HEARTBEATS = frozenset({"", "heartbeat", "keep-alive", "keepalive", "null", "ping", "pong", "{}"})

_WRAPPED = re.compile(r"(?:data:\s*)+")

_NO_WORD = "an error without a word"


class AnswerReader:
    """Puts one answer together from the events of its stream.

    Args:
      logprobs: How many alternatives of each token were asked for; `None` for no
        log-probabilities.
      max_tokens: How many tokens were asked for, if that was limited.
      stops: The sequences that end the answer and are unknown to the server.

    """

    def __init__(
        self,
        logprobs: int | None = None,
        *,
        max_tokens: int | None = None,
        stops: Sequence[str] = (),
    ) -> None:
        self.stops = Stops(stops)
        """The sequences that are looked for here, and whether one was found."""
        self._max_tokens = max_tokens
        self._calls = ToolCalls()
        self._logprobs = Logprobs(logprobs)
        self._characters = Characters()
        self.thoughts = Thoughts()
        """What is thought, of which nothing is in the text."""
        self._parts: list[str] = []
        self._length = self._counted = 0
        self._reason: str | None = None
        self._goes_on = self._has_deltas = False
        self._events = self._bare = 0
        self._usage: dict[str, Any] = {}
        self._timings: dict[str, Any] = {}
        self._index: int | None = None
        self._words = self._unknown = ""
        self.done = False
        """True once the server has said that nothing more comes."""

    @property
    def is_whole(self) -> bool:
        """Whether the server has said that the answer is whole, so that a cut takes nothing away.

        A reason for the end is no end if text has come after one.
        """
        return self.done or (self._reason is not None and not self._goes_on)

    def feed(self, event: str, kind: Kind = "data") -> tuple[str, int]:
        """The new text of *event* and the tokens it stands for; ``("", 0)`` if there is none.

        A thought has tokens and no text here, and so has a piece of a tool call.

        Raises:
          GenerationFailed: if the event is not JSON, or says that the answer failed.
          PunchError: the error that `fault_of` finds in it.

        """
        if self.done:
            return "", 0
        try:
            # Some servers leave control characters in texts as they are.
            value = json.loads(event, strict=False)
        except (ValueError, RecursionError):
            return self._feed_odd(event, kind)
        if kind == "error":
            complaint = complaint_in(value) if isinstance(value, dict) else None
            raise _failed(complaint or value or _NO_WORD)
        if isinstance(value, dict):
            return self._value(value, kind)
        if isinstance(value, list) and all(isinstance(one, dict) for one in value):
            found = [self._value(one, kind) for one in value]
            return "".join(text for text, _ in found), sum(tokens for _, tokens in found)
        if isinstance(value, str):
            return self._feed_odd(value, kind)
        if value:
            raise _no_event(event, "no JSON object")
        return "", 0

    def _feed_odd(self, event: str, kind: Kind) -> tuple[str, int]:
        """Take an event that is no JSON."""
        text = event.strip()
        if _WRAPPED.match(text):
            # A proxy has wrapped an event into others.
            return self.feed(_WRAPPED.sub("", text), kind)
        if kind == "error":
            raise _failed(text or _NO_WORD)
        if text.upper() == DONE:
            self.done = True
        elif text.lower() not in _HEARTBEATS and not text.startswith(":"):
            raise _no_event(text, "not JSON")
        return "", 0

    def _value(self, value: dict[str, Any], kind: Kind) -> tuple[str, int]:
        if (complaint := complaint_in(value)) is not None:
            raise _failed(complaint)
        self._usage = _newer(self._usage, value.get("usage"))
        if isinstance(more := value.get("x_groq"), dict):
            self._usage = _newer(self._usage, more.get("usage"))
        made = None
        if isinstance(timings := value.get("timings"), dict):
            self._timings = timings
            made = count_in(timings, "predicted_n")
        choices = value.get("choices")
        if isinstance(choices, dict):
            choices = [choices]
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            self._words = self._words or words_in(value)
            if value and not self._unknown and "choices" not in value and "usage" not in value:
                self._unknown = json.dumps(value, ensure_ascii=False)[:_MAX_WORDS]
            return "", 0
        self._events += 1
        self._bare += kind == "bare"
        if self._index is None:
            self._index = index_in(choices[0])
        texts, has_made = [], False
        for choice in choices:
            # One was asked for; its pieces may come several at a time.
            if isinstance(choice, dict) and index_in(choice) in (None, self._index):
                text, is_more = self._choice(choice)
                texts.append(text)
                has_made |= is_more
        return "".join(texts), self._count_more(made) if has_made else 0

    def _choice(self, choice: dict[str, Any]) -> tuple[str, bool]:
        """The new text of *choice*, and whether it stands for tokens."""
        if choice.get("error"):
            raise _failed(choice["error"])
        self._usage = _newer(self._usage, choice.get("usage"))
        self._logprobs.feed(choice.get("logprobs"))
        said = self._said(choice)
        if said:
            self._goes_on |= self._reason is not None
        self._reason = reason_in(choice) or self._reason
        is_call = self._calls.feed(said.calls)
        self.thoughts.feed(said.thought)
        text = self.stops.feed(self._characters.feed(said.text), choice.get("stop_reason"))
        if self.stops.stopped:
            self.done, self._reason = True, "stop"
        if text:
            self._parts.append(text)
            self._length += len(text)
        if self._length + self.thoughts.length > MAX_ANSWER_CHARACTERS:
            raise GenerationFailed(f"the answer is longer than {MAX_ANSWER_CHARACTERS} characters")
        return text, is_call or bool(said.text or said.thought)

    def _said(self, choice: dict[str, Any]) -> Said:
        """What *choice* says that was not said before."""
        said = Said()
        if (delta := choice.get("delta")) is not None:
            said = read_message(delta)
            self._has_deltas |= bool(said)
        message = choice.get("message")
        if message is None:
            text = choice.get("text")
            return Said(text) if not said and isinstance(text, str) else said
        if not self._has_deltas:
            return read_message(message)
        # After pieces, a message is all of the answer once more.
        whole, so_far = read_message(message), "".join(self._parts)
        return said or Said(
            whole.text[len(so_far) :] if whole.text.startswith(so_far) else "",
            "" if self.thoughts else whole.thought,
            () if self._calls else whole.calls,
        )

    def _count_more(self, made: int | None) -> int:
        """The tokens of an event: by the server's own count of all it has *made*, or one."""
        if made is None:
            so_far = count_in(self._usage, "completion_tokens") or 0
            made = so_far if so_far > self._counted else self._counted + 1
        tokens = max(0, made - self._counted)
        self._counted += tokens
        return tokens

    def prompt_count(self) -> PromptCount | None:
        """The tokens of the prompt, if the server has said so by now."""
        usage = usage_in(self._usage, self._timings)
        count = usage.prompt_tokens
        return PromptCount(count, usage.cached_tokens) if count else None

    def rest(self) -> str:
        """The text that was held back, once the stream of a whole answer has ended."""
        if not self._has_ended:
            return ""
        text = self.stops.feed(self._characters.finish()) + self.stops.finish()
        if text:
            self._parts.append(text)
        return text

    @property
    def _is_begun(self) -> bool:
        """Whether there is any of the answer."""
        return bool(self._parts or self.thoughts or self._calls)

    @property
    def _has_ended(self) -> bool:
        """Whether the answer is whole, given that its stream has ended."""
        is_one_value = self._events == self._bare == 1 and not self._has_deltas
        return self.done or self._reason is not None or is_one_value

    def finish(
        self, *, first_token: float | None, last_token: float | None, words: str = ""
    ) -> Generation:
        """The whole answer, now that its stream has ended.

        Args:
          first_token: Seconds from the request to the first text, as we saw it.
          last_token: Seconds from the request to the last text, as we saw it.
          words: What the server sent besides events.

        Raises:
          GenerationFailed: if the stream ended before the answer did, or holds none.

        """
        words = words or self._words or ("" if self._is_begun else self._unknown)
        says = f"; the server says: {_cut(words)}" if words else ""
        if not self._has_ended:
            if not self._is_begun and (words or not self._events):
                raise GenerationFailed(f"the server sent no answer{says}")
            raise GenerationFailed(
                "the server's answer ended without a finish: it was cut off "
                f"after {self._length} characters{says}"
            )
        if is_given_up(self._reason):
            raise GenerationFailed(f"the server gave up on the answer: {self._reason}{says}")
        usage = _counted(usage_in(self._usage, self._timings), is_begun=self._is_begun)
        is_cut = is_at_limit(self._reason)
        if self._reason is None and usage.completion_tokens is not None:
            is_cut = usage.completion_tokens == self._max_tokens
        calls = self._calls.finish(is_cut=is_cut)
        text = "".join(self._parts)
        if not self._is_begun:
            is_told = self._reason is not None or usage.completion_tokens is not None
            if is_for_tools(self._reason) or not is_told:
                raise GenerationFailed(
                    f"the server's answer has no text, no call and no thought{says}"
                )
        # For a call that was forced, OpenAI and vLLM say "stop".
        return Generation(
            completion=Completion(
                text=text,
                finish_reason="length" if is_cut else "tool_calls" if calls else "stop",
                stopped_by=self.stops.found or self.stops.told,
                tool_calls=calls,
                logprobs=self._logprobs.finish(),
                reasoning=self.thoughts.finish(),
            ),
            usage=usage,
            timings=_timed(self._timings, first_token, last_token),
            guesses=guesses_in(self._timings),
        )


def reader_of(request: CommandRequest, dialect: Dialect) -> AnswerReader:
    """A reader for the answer that a server of *dialect* gives to *request*."""
    sampling = request.sampling
    stops = sampling.stop if finds_stops(request, dialect) else ()
    return AnswerReader(request.logprobs, max_tokens=sampling.max_tokens, stops=stops)


def _counted(usage: Usage, *, is_begun: bool) -> Usage:
    """*usage* without zeros for what is there: they are no count."""
    if usage.completion_tokens == 0 and is_begun:
        usage = attrs.evolve(usage, completion_tokens=None)
    return attrs.evolve(usage, prompt_tokens=usage.prompt_tokens or None)


def _timed(timings: dict[str, Any], first: float | None, last: float | None) -> Timings:
    """What the server has measured; if it says nothing, what was seen from here.

    The prompt takes until the *first* token and the answer from there to the *last*; the network
    is part of it.
    """
    prefill, decode = _seconds(timings, "prompt_ms"), _seconds(timings, "predicted_ms")
    if prefill is None and decode is None and first is not None:
        return Timings(prefill=first, decode=None if last is None else last - first)
    return Timings(prefill=prefill, decode=decode)


def guesses_in(timings: dict[str, Any]) -> tuple[int, int]:
    """How many tokens llama.cpp guessed, and how many of these were right."""
    return count_in(timings, "draft_n") or 0, count_in(timings, "draft_n_accepted") or 0


def _newer(known: dict[str, Any], usage: Any) -> dict[str, Any]:
    """The last count; many servers send an empty one with every event before it."""
    is_count = isinstance(usage, dict) and usage_in(usage, {}) != usage_in({}, {})
    return usage if is_count else known


def _failed(complaint: Any) -> Exception:
    return fault_of(complaint, status=status_in(complaint))


def _no_event(event: str, what: str) -> Exception:
    return GenerationFailed(f"the server sent an event that is {what}: {_cut(event)}")


def _cut(words: str) -> str:
    return whole_characters(words[:_MAX_WORDS])


def _seconds(values: dict[str, Any], name: str) -> float | None:
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        return None
    return value / 1000
