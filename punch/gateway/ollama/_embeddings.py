"""Embeddings, as Ollama's clients read them. No I/O."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...wire import CommandResponse
from .._json import Vector, check_dimensions, completion_of, punch_body
from ._shapes import counted


class OllamaEmbeddingShape:
    """``/api/embed``, and ``/api/embeddings`` with a single vector.

    Args:
      request_id: Of the request.
      model: As asked for.
      single: Give one vector, the old way.
      dimensions: How many numbers of each vector are wanted; `None` for all.

    """

    def __init__(
        self, *, request_id: str, model: str, single: bool, dimensions: int | None = None
    ) -> None:
        self._request_id = request_id
        self._model = model
        self._single = single
        self._dimensions = dimensions

    def whole(self, responses: Sequence[CommandResponse]) -> dict[str, Any]:
        """The whole body."""
        if not responses:
            empty = {"model": self._model, "embeddings": []}
            return {"embedding": []} if self._single else empty
        (response,) = responses
        vectors = [
            _first(vector, self._dimensions) for vector in completion_of(response).embeddings
        ]
        check_dimensions(vectors, self._dimensions)
        if self._single:
            return {"embedding": list(vectors[0]) if vectors else []}
        numbers = counted(response)
        return {
            "model": self._model,
            "embeddings": [list(vector) for vector in vectors],
            **{name: numbers[name] for name in numbers if not name.startswith("eval")},
            "punch": punch_body(self._request_id, responses),
        }


def _first(vector: Vector, dimensions: int | None) -> Vector:
    """The first *dimensions* numbers, brought to length 1 as Ollama does; *vector* if it has less.

    Models that are made for it put what matters most first; of any other the client has to know.
    """
    if dimensions is None or dimensions >= len(vector):
        return vector
    first = vector[:dimensions]
    length = math.hypot(*first)
    return [number / length for number in first] if length else first
