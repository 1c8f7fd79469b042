"""Embeddings, as OpenAI's clients read them. No I/O."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from typing import Any

from ...wire import CommandResponse
from .._json import Vector, check_dimensions, completion_of, model_of, punch_body


class EmbeddingShape:
    """``/v1/embeddings``.

    Args:
      request_id: Of the request.
      model: As asked for.
      packed: In base64 of 32-bit floats instead of numbers: a quarter of the bytes.
      dimensions: Length that each vector must have, if the request names one.

    """

    def __init__(
        self, *, request_id: str, model: str, packed: bool, dimensions: int | None
    ) -> None:
        self._request_id = request_id
        self._model = model
        self._packed = packed
        self._dimensions = dimensions

    def whole(self, responses: Sequence[CommandResponse]) -> dict[str, Any]:
        """The whole body."""
        (response,) = responses
        vectors = completion_of(response).embeddings
        check_dimensions(vectors, self._dimensions)
        tokens = response.usage.prompt_tokens
        return {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": self._spelled(vector)}
                for index, vector in enumerate(vectors)
            ],
            "model": model_of(responses, self._model),
            "usage": None if tokens is None else {"prompt_tokens": tokens, "total_tokens": tokens},
            "punch": punch_body(self._request_id, responses),
        }

    def _spelled(self, vector: Vector) -> list[float] | str:
        if not self._packed:
            return list(vector)
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
