"""Models for tests of the planner: SmolLM2 as it is, and others made from a few numbers."""

from __future__ import annotations

from collections.abc import Iterable

from punch.gguf import LayerSize, Layout


def make_layout(
    layers: Iterable[LayerSize],
    *,
    embeddings: int = 0,
    output: int = 0,
    is_tied: bool = False,
    largest_tensor: int = 0,
    embedding: int = 64,
    vocabulary: int = 1000,
    experts: int = 0,
    experts_used: int = 0,
) -> Layout:
    """A model of which nothing matters that is not given."""
    return Layout(
        layers=tuple(layers),
        embeddings=embeddings,
        output=output,
        is_tied=is_tied,
        tied_matrix=output if is_tied else 0,
        largest_tensor=largest_tensor,
        embedding=embedding,
        vocabulary=vocabulary,
        context_tokens=None,
        experts=experts,
        experts_used=experts_used,
        kv_exact=True,
    )


# SmolLM2-135M Q4_1: 97 MB go to one worker; 36 and 61 to two, with the tied output matrix (30 MB)
# copied to the second.
SMOL = make_layout(
    [LayerSize(weights=2_250_000, kv_per_token=768, values_per_token=384)] * 30,
    embeddings=30_081_024,
    output=30_081_024,
    is_tied=True,
    largest_tensor=30_081_024,
    embedding=576,
    vocabulary=49_152,
)
