"""How many bytes a share takes on its device, beside its weights."""

from __future__ import annotations

from typing import Final

from ..gguf import Layout
from ._wants import Wants

# What computing takes for each token of a micro-batch, in numbers of an embedding at F32: the
# widest feed-forward layers in use are some four times as wide, and their gate and its product,
# input and residual lie beside them. An upper bound: llama.cpp reuses what it has done with.
_NUMBERS_PER_TOKEN: Final = 16

# Allocations are padded, and a server has some memory of its own.
_FIXED_BYTES: Final = 8 * 2**20


def cache_bytes(layout: Layout, wants: Wants, *, slots: int, micro_batch: int) -> tuple[int, ...]:
    """What each layer keeps of the contexts of all slots."""
    return layout.kv_bytes(
        slots * wants.context_tokens,
        wants.key_type,
        wants.value_type,
        slots=slots,
        micro_batch=micro_batch,
    )


def cache_bytes_per_token(layout: Layout, wants: Wants) -> tuple[float, ...]:
    """What each layer keeps of one token, in the wanted types."""
    tokens = 256  # llama.cpp keeps multiples of so many.
    kept = layout.kv_bytes(tokens, wants.key_type, wants.value_type)
    return tuple((size - one.state) / tokens for size, one in zip(kept, layout.layers, strict=True))


def buffer_bytes(layout: Layout, wants: Wants, *, micro_batch: int, has_output: bool) -> int:
    """What computing takes beside weights and cache; an upper bound."""
    numbers = _NUMBERS_PER_TOKEN * layout.embedding + wants.context_tokens
    if has_output:
        numbers += layout.vocabulary
    return _FIXED_BYTES + 4 * micro_batch * numbers


def message_bytes(layout: Layout, weights: int) -> int:
    """What a worker needs beside *weights* while it loads them.

    The server has each tensor twice: whole in its message (SET_TENSOR), and where it stays.
    """
    return min(layout.largest_tensor, weights)


def head_bytes(layout: Layout, *, output_on_head: bool) -> int:
    """What lies in the head's memory, wherever the layers are."""
    copied = layout.output - layout.tied_matrix if output_on_head else 0
    return layout.embeddings + copied
