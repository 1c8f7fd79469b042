"""Reads recorded requests: what people asked of real services, and when.

Two formats are read. Which one a file has is seen from its first line:

- Mooncake (FAST'25): one JSON object a line, with ``timestamp`` (ms), ``input_length``,
  ``output_length`` and ``hash_ids``, one id for each 512 tokens of the prompt. Two requests that
  share their first k ids share the first 512 k tokens.
- Azure LLM inference trace 2023: CSV with ``TIMESTAMP,ContextTokens,GeneratedTokens``. It tells
  nothing about what prompts share.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

import attrs

from ..exceptions import ConfigurationError

# What one id stands for in the Mooncake trace.
BLOCK_TOKENS = 512

# Longer than any line of either format by a factor of ten.
MAX_LINE_CHARACTERS = 1 << 16

AZURE_HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"


@attrs.frozen(kw_only=True)
class TraceRequest:
    """A request of a trace."""

    arrival: float
    """When it was asked, in seconds from the first one."""

    input_tokens: int
    """Length of the prompt, in tokens."""

    output_tokens: int
    """Length of the answer, in tokens."""

    blocks: tuple[int, ...]
    """An id for each block of the prompt; equal ids are equal text."""

    block_tokens: int
    """Length of each block but the last, in tokens."""

    conversation: int
    """The conversation, the same for all of its turns."""

    def block_lengths(self) -> Iterator[tuple[int, int]]:
        """Each block's id and its length, in tokens."""
        left = self.input_tokens
        for block in self.blocks[:-1]:
            yield block, self.block_tokens
            left -= self.block_tokens
        yield self.blocks[-1], max(1, left)


@attrs.frozen(kw_only=True)
class Trace:
    """Requests in the order of their arrival."""

    name: str
    """The file or generator that they come from."""

    requests: tuple[TraceRequest, ...]
    """The requests, at least one."""

    def __len__(self) -> int:
        return len(self.requests)

    @property
    def mean_input_tokens(self) -> float:
        """Tokens of a prompt, on the average."""
        return sum(request.input_tokens for request in self.requests) / len(self)

    @property
    def mean_output_tokens(self) -> float:
        """Tokens of an answer, on the average."""
        return sum(request.output_tokens for request in self.requests) / len(self)

    def scaled(self, *, inputs: float, outputs: float) -> Trace:
        """The same trace for smaller machines: prompts and answers shorter by these factors."""
        return attrs.evolve(
            self, requests=tuple(_scaled(request, inputs, outputs) for request in self.requests)
        )

    def at_rate(self, rate: float) -> Trace:
        """The same trace, faster or slower: *rate* requests a second on the average."""
        begin, end = self.requests[0].arrival, self.requests[-1].arrival
        factor = len(self) / rate / (end - begin) if end > begin else 0.0
        return attrs.evolve(
            self,
            requests=tuple(
                attrs.evolve(request, arrival=(request.arrival - begin) * factor)
                for request in self.requests
            ),
        )

    def sample(self, count: int, rng: Random) -> Trace:
        """At most *count* requests, as a smaller service would have seen them.

        Where conversations are known, whole ones are taken: fewer people, each as before.
        Otherwise it is a window, since thinning would take the bursts out.
        """
        if count >= len(self):
            return self
        by_conversation: dict[int, list[TraceRequest]] = {}
        for request in self.requests:
            by_conversation.setdefault(request.conversation, []).append(request)
        if len(by_conversation) == len(self):
            first = rng.randrange(len(self) - count + 1)
            return attrs.evolve(self, requests=self.requests[first : first + count])
        names = sorted(by_conversation)
        rng.shuffle(names)
        taken: list[TraceRequest] = []
        for name in names:
            taken += by_conversation[name]
            if len(taken) >= count:
                break
        # The last conversation may be one too many by a few turns.
        taken.sort(key=lambda request: request.arrival)
        return attrs.evolve(self, requests=tuple(taken[:count]))


def _scaled(request: TraceRequest, inputs: float, outputs: float) -> TraceRequest:
    block_tokens = max(1, round(request.block_tokens * inputs))
    last = request.input_tokens - request.block_tokens * (len(request.blocks) - 1)
    return attrs.evolve(
        request,
        # By blocks, so that equal blocks stay equal in length.
        input_tokens=block_tokens * (len(request.blocks) - 1) + max(1, round(last * inputs)),
        output_tokens=max(1, round(request.output_tokens * outputs)),
        block_tokens=block_tokens,
    )


def read_trace(path: Path) -> Trace:
    """The trace in a file.

    Raises:
      ConfigurationError: if it cannot be read, naming the line, the rule and what to do.

    """
    try:
        with path.open(encoding="utf-8") as file:
            lines = list(iter(lambda: file.readline(MAX_LINE_CHARACTERS), ""))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"--trace {path}: cannot be read: {error}; "
            "name a file, or write conversation or code for a generated trace"
        ) from None
    return parse_trace(path.name, lines)


def parse_trace(name: str, lines: Sequence[str]) -> Trace:
    """The trace that *lines* hold; see `read_trace`."""
    first = lines[0].strip().lstrip("\ufeff") if lines else ""
    if first.startswith("{"):
        requests = _mooncake(name, lines)
    elif first == AZURE_HEADER:
        requests = _azure(name, lines)
    else:
        raise ConfigurationError(
            f"{name}, line 1: {first[:80]!r} is neither a JSON object (Mooncake) nor the header "
            f"{AZURE_HEADER} (Azure); give a file of one of these two formats"
        )
    if not requests:
        raise ConfigurationError(f"{name}: holds no request; is the download complete?")
    return Trace(name=name, requests=tuple(requests))


def _bad(name: str, number: int, found: str, rule: str) -> ConfigurationError:
    return ConfigurationError(
        f"{name}, line {number}: {found}: {rule}; correct the line or fetch the file again"
    )


def _whole(name: str, number: int, field: str, value: Any, least: int) -> int:
    if type(value) is not int or value < least:
        raise _bad(
            name, number, f"{field} is {value!r}", f"it must be a whole number from {least} on"
        )
    return value


def _mooncake(name: str, lines: Sequence[str]) -> list[TraceRequest]:
    requests: list[TraceRequest] = []
    owner: dict[int, int] = {}  # Block to the conversation that had it last.
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            raise _bad(name, number, repr(line[:60]), "it must be a JSON object") from None
        if not isinstance(row, dict):
            raise _bad(name, number, repr(line[:60]), "it must be a JSON object")
        arrival = _whole(name, number, "timestamp", row.get("timestamp"), 0) / 1000
        inputs = _whole(name, number, "input_length", row.get("input_length"), 1)
        outputs = _whole(name, number, "output_length", row.get("output_length"), 0)
        ids = row.get("hash_ids")
        if not isinstance(ids, list) or not all(type(i) is int for i in ids):
            raise _bad(name, number, "hash_ids", "it must be a list of whole numbers")
        if len(ids) != -(-inputs // BLOCK_TOKENS):
            rule = f"{inputs} tokens need {-(-inputs // BLOCK_TOKENS)}, one for each {BLOCK_TOKENS}"
            raise _bad(name, number, f"hash_ids has {len(ids)} entries", rule)
        if requests and arrival < requests[-1].arrival:
            rule = "it must not be earlier than that of the line before"
            raise _bad(name, number, f"timestamp is {row['timestamp']}", rule)
        requests.append(
            TraceRequest(
                arrival=arrival,
                input_tokens=inputs,
                output_tokens=max(1, outputs),
                blocks=tuple(ids),
                block_tokens=BLOCK_TOKENS,
                conversation=_conversation(ids, owner, len(requests)),
            )
        )
    return requests


def _conversation(ids: Sequence[int], owner: dict[int, int], fresh: int) -> int:
    """The conversation that a prompt continues: the one with its longest known prefix.

    The first block is the system prompt, which all conversations share: it tells nothing.
    """
    found = fresh
    for block in ids[1:]:
        if block not in owner:
            break
        found = owner[block]
    for block in ids[1:]:
        owner[block] = found
    return found


def _azure(name: str, lines: Sequence[str]) -> list[TraceRequest]:
    requests: list[TraceRequest] = []
    began: datetime | None = None
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        cells = line.strip().split(",")
        if len(cells) != 3:
            raise _bad(name, number, repr(line.strip()[:60]), "it must have three cells")
        try:
            # Seven digits of a second; Python reads six.
            moment = datetime.fromisoformat(cells[0][:26])
            inputs, outputs = int(cells[1]), int(cells[2])
        except ValueError:
            rule = "it must be a time and two whole numbers"
            raise _bad(name, number, repr(line.strip()[:60]), rule) from None
        _whole(name, number, "ContextTokens", inputs, 1)
        _whole(name, number, "GeneratedTokens", outputs, 0)
        began = moment if began is None else began
        arrival = (moment - began).total_seconds()
        if requests and arrival < requests[-1].arrival:
            rule = "it must not be earlier than that of the line before"
            raise _bad(name, number, f"TIMESTAMP is {cells[0]}", rule)
        requests.append(
            TraceRequest(
                arrival=arrival,
                input_tokens=inputs,
                output_tokens=max(1, outputs),
                # Nothing is known of what is in it, so it shares nothing.
                blocks=(number,),
                block_tokens=inputs,
                conversation=number,
            )
        )
    return requests
