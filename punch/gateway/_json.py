"""Parts that the bodies of answers share in every dialect: JSON, segments, `punch`. No I/O."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ..wire import CommandResponse, Completion, Segment, ToolCall
from ._errors import Refusal

Vector = Sequence[float]

# Made once: `json.dumps` makes one for each call that is not all defaults.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def as_json(value: Any) -> str:
    """*value* as JSON in the fewest bytes."""
    return _encode(value)


def arguments_of(call: ToolCall) -> dict[str, Any]:
    """A call's arguments, for dialects that give an object; text that is none goes under a name."""
    try:
        value = json.loads(call.arguments or "{}")
        # Arguments that cannot be serialised again (NaN, or nested too deep) go as text.
        json.dumps([[[[[[[[value]]]]]]]], allow_nan=False)
    except (ValueError, RecursionError):
        value = call.arguments
    return value if isinstance(value, dict) else {"arguments": value}


def segments_body(segments: Sequence[Segment]) -> list[dict[str, Any]]:
    """Which peer delivered which part, as plain data."""
    return [
        {
            "peer_id": segment.peer_id,
            "tokens": segment.tokens,
            "characters": segment.characters,
            "seconds": round(segment.seconds, 6),
            "reason": segment.reason,
        }
        for segment in segments
    ]


def punch_body(request_id: str, responses: Sequence[CommandResponse]) -> dict[str, Any]:
    """The `punch` field of an answer: its request id, and which peers it is from."""
    segments = [
        part | ({"index": index} if len(responses) > 1 else {})
        for index, response in enumerate(responses)
        for part in segments_body(response.segments)
    ]
    return {"request_id": request_id, "segments": segments}


def model_of(responses: Sequence[CommandResponse], otherwise: str) -> str:
    """The model that answered, or *otherwise* if no response says."""
    for response in responses:
        if response.provenance is not None and response.provenance.model is not None:
            return response.provenance.model
    return otherwise


def completion_of(response: CommandResponse) -> Completion:
    """The completion of *response*, empty if there is none."""
    return response.result or Completion()


def check_dimensions(vectors: Sequence[Vector], wanted: int | None) -> None:
    """Raise `Refusal` if a vector has not the *wanted* length; `None` accepts any."""
    for vector in vectors:
        if wanted not in (None, len(vector)):
            raise Refusal(
                status=400,
                message=f"dimensions is {wanted}; the embeddings of this model have "
                f"{len(vector)}, and cannot be shortened",
                code="invalid_value",
                param="dimensions",
            )
