"""What is said to the worker of the binding, and what its last line of an answer means.

The lines themselves are described in `_binding_worker`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import attrs

from ...exceptions import PeerRefused
from ...wire import CommandRequest, Completion, Timings, Usage
from .._base import Generation

_IGNORED: Final = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}


def check_schema(schema: str) -> None:
    """Raise `PeerRefused` for a schema that the binding would not hold an answer to.

    It ignores the ranges of numbers without a word, and an answer out of range would be wrong.
    """
    if ignored := sorted(_IGNORED & set(_keywords(json.loads(schema)))):
        raise PeerRefused(
            f"response_schema has {', '.join(ignored)}, which llama-cpp-python does not know"
        )


def _keywords(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        yield from schema
        for one in schema.values():
            yield from _keywords(one)
    elif isinstance(schema, list):
        for one in schema:
            yield from _keywords(one)


def asked(number: int, request: CommandRequest) -> dict[str, Any]:
    return {
        "id": number,
        "command": request.command,
        "messages": [
            {"role": message.role, "content": message.content} for message in request.messages
        ],
        "prompt": request.prompt,
        "inputs": list(request.inputs),
        "continuation": request.continuation,
        "sampling": attrs.asdict(request.sampling),
        "schema": request.response_schema,
    }


def generation_of(
    end: dict[str, Any], text: str, vectors: tuple[tuple[float, ...], ...]
) -> Generation:
    return Generation(
        completion=Completion(
            text=text,
            finish_reason=end["finish_reason"],
            stopped_by=end.get("stop"),
            embeddings=vectors,
        ),
        usage=Usage(
            prompt_tokens=end["prompt_tokens"],
            completion_tokens=end["completion_tokens"],
            cached_tokens=end.get("cached_tokens"),
        ),
        timings=Timings(prefill=end.get("prefill"), decode=end.get("decode")),
    )
