"""What the bodies of answers have in common in every dialect. No I/O."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ..wire import CommandResponse, Completion, Segment
from ._errors import Refusal

Vector = Sequence[float]


def as_json(value: Any) -> str:
    """*value*, in the fewest bytes."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def segments_body(segments: Sequence[Segment]) -> list[dict[str, Any]]:
    """Who has delivered what, as plain data."""
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
    """What only punch says: which peers the answer is from, and under what id it is known."""
    segments = [
        part | ({"index": index} if len(responses) > 1 else {})
        for index, response in enumerate(responses)
        for part in segments_body(response.segments)
    ]
    return {"request_id": request_id, "segments": segments}


def model_of(responses: Sequence[CommandResponse], otherwise: str) -> str:
    """The model that answered."""
    for response in responses:
        if response.provenance is not None and response.provenance.model is not None:
            return response.provenance.model
    return otherwise


def completion_of(response: CommandResponse) -> Completion:
    """The answer in a response."""
    return response.result or Completion()


def check_dimensions(vectors: Sequence[Vector], wanted: int | None) -> None:
    """Refuse to give vectors of another length than was *wanted*."""
    for vector in vectors:
        if wanted not in (None, len(vector)):
            raise Refusal(
                status=400,
                message=f"dimensions is {wanted}; the embeddings of this model have "
                f"{len(vector)}, and cannot be shortened",
                code="invalid_value",
                param="dimensions",
            )
