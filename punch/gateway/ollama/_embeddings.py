"""Embeddings, as Ollama's clients read them. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...wire import CommandResponse
from .._json import check_dimensions, completion_of, punch_body
from ._shapes import counted


class OllamaEmbeddingShape:
    """``/api/embed``, and ``/api/embeddings`` with a single vector.

    Args:
      request_id: Of the request.
      model: As asked for.
      single: Give one vector, the old way.
      dimensions: Length that each vector must have, if the request names one.

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
        (response,) = responses
        vectors = completion_of(response).embeddings
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
