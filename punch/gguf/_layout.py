"""Adds up what a model takes: bytes for each layer, its ends, and its cache for a context.

Sizes are those that llama.cpp as of llama-cpp-python 0.3.36 allocates, without the padding
between tensors. Which machine holds what is decided by `punch.placement`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import BinaryIO, Final

import attrs

from ..exceptions import ModelFileError
from ._architectures import NEXTN_SKIPPED, NO_OUTPUT, NORM_MISNAMED
from ._header import GgufPart, read_part
from ._quantization import stored_bytes

_F16_BYTES: Final = 2
_MAX_WORD_CHARACTERS: Final = 64  # Of a word of the file, in an error.
_CELLS: Final = 256  # `llama_context`: a cache has a multiple of so many cells.
_DEFAULT_MICRO_BATCH: Final = 512  # ``--ubatch-size`` of llama.cpp.


@attrs.frozen(kw_only=True)
class LayerSize:
    """What one layer takes."""

    weights: int
    """Bytes of its weights."""

    experts: int = 0
    """The part of `weights` in matrices of experts, in bytes: few of them work for a token."""

    kv_per_token: int = 0
    """Bytes of cache that a token takes, keys and values stored as F16."""

    values_per_token: int = 0
    """The part of `kv_per_token` in values, in bytes; 0 where a latent stands for both."""

    window: int | None = None
    """Tokens that the layer looks back, if it keeps no more; `None`: it keeps all."""

    state: int = 0
    """Bytes that a sequence takes, however long it is: the state of a recurrent layer."""

    def cells(self, context: int, *, slots: int, micro_batch: int, is_unified: bool) -> int:
        """Tokens that llama.cpp makes room for: `llama_context`, `llama_kv_cache_iswa`."""
        each = _padded(context) if is_unified else _padded(_padded(context) // slots)
        streams = 1 if is_unified else slots
        if self.window is not None:
            kept = self.window * (slots if is_unified else 1) + micro_batch
            each = _padded(min(each, kept))
        return each * streams


@attrs.frozen(kw_only=True)
class Layout:
    """A whole model: what its layers and its ends take."""

    layers: tuple[LayerSize, ...]
    """Its layers, first to last; those that only guess further tokens (nextn) included."""

    embeddings: int
    """Bytes of what turns tokens into embeddings; stays in main memory of the head."""

    output: int
    """Bytes of what follows the last layer: norms and output matrix. Where `is_tied`, the matrix
    is the copy of the embeddings that llama.cpp makes on a device other than the head's CPU."""

    is_tied: bool
    """Whether the matrix of the embeddings is the output matrix too."""

    tied_matrix: int = 0
    """Bytes of the copy in `output`; 0 unless `is_tied`."""

    largest_tensor: int
    """Bytes of the largest tensor: an RPC server receives each whole."""

    embedding: int
    """Numbers in one embedding, which go from layer to layer for each token."""

    vocabulary: int
    """Number of tokens, and of numbers that come out for each (logits)."""

    context_tokens: int | None
    """Longest context the model was trained for, in tokens."""

    experts: int
    """Experts in a layer; 0 without."""

    experts_used: int
    """Experts that work for one token, in the layer where that is most."""

    nextn_layers: int = 0
    """The layers at the end that only guess further tokens."""

    not_loaded: int = 0
    """Bytes of weights in the file that llama.cpp does not load: those of nextn layers, unless it
    is asked to guess with them. They are in none of the layers."""

    parameters: int = 0
    """Numbers in all weights, each counted once; 0 where not known."""

    quantization: str | None = None
    """How most weights are stored, such as ``Q4_K_M``; `None` where not known. Processors compute
    with some types several times as fast as with others."""

    kv_exact: bool
    """Whether caches and states are exact; an upper bound where not."""

    @property
    def weights(self) -> int:
        """Bytes of all weights, each counted once: those of a copy are not there."""
        ends = self.embeddings + self.output - self.tied_matrix
        return ends + self.layer_weights + self.not_loaded

    @property
    def layer_weights(self) -> int:
        """Bytes of the weights in layers."""
        return sum(layer.weights for layer in self.layers)

    def kv_bytes(
        self,
        context: int,
        key_type: str = "F16",
        value_type: str = "F16",
        *,
        slots: int = 1,
        micro_batch: int = _DEFAULT_MICRO_BATCH,
        is_unified: bool = False,
    ) -> tuple[int, ...]:
        """Bytes of cache and states that each layer takes.

        As `llama_kv_cache`, `llama_kv_cache_iswa` and `llama_memory_recurrent` allocate them,
        with flash attention and without ``--swa-full``.

        Args:
          context: Tokens of all slots together (``--ctx-size``).
          key_type: How keys are stored (``--cache-type-k``), such as ``F16`` or ``Q8_0``.
          value_type: How values are stored (``--cache-type-v``).
          slots: Sequences at the same time (``--parallel``).
          micro_batch: Tokens computed at the same time (``--ubatch-size``).
          is_unified: Whether slots share one cache (``--kv-unified``).

        Raises:
          ConfigurationError: if a type is not one that llama.cpp knows.

        """
        sizes = []
        for layer in self.layers:
            values = layer.values_per_token // _F16_BYTES
            keys = layer.kv_per_token // _F16_BYTES - values
            cells = layer.cells(
                context, slots=slots, micro_batch=micro_batch, is_unified=is_unified
            )
            each = stored_bytes(keys, key_type) + stored_bytes(values, value_type)
            sizes.append(each * cells + layer.state * slots)
        return tuple(sizes)


def _padded(tokens: int) -> int:
    return -(-tokens // _CELLS) * _CELLS


def read_layout(files: Iterable[BinaryIO], *, any_types: bool = False) -> Layout:
    """Read the layout of a model from all of its files, the first one first; see `lay_out`."""
    return lay_out([read_part(file, any_types=any_types) for file in files])


def lay_out(parts: Sequence[GgufPart]) -> Layout:
    """Add up the parts of a model: all its files, in order.

    Weights of a type that is not in our table are counted from their place in the file.

    Raises:
      ModelFileError: if the parts are not those of one model, or its header does not tell the
        number of layers or their attention.

    """
    header = parts[0].header
    numbers = [part.header.split_number + 1 for part in parts]
    if numbers != list(range(1, header.split_count + 1)):
        raise ModelFileError(
            f"these are the files {', '.join(map(str, numbers[:20]))} of a model in "
            f"{header.split_count}: a layout takes all of them, each one time and in order"
        )
    count = header.layers
    if not count or not header.caches:
        missing = "block_count" if not count else "attention.head_count or embedding_length"
        name = header.architecture or "architecture"
        if len(name) > _MAX_WORD_CHARACTERS or not name.isprintable():
            name = repr(name[:_MAX_WORD_CHARACTERS])
        raise ModelFileError(
            f"the header has no {name}.{missing}, so nobody knows what its layers take; give a "
            "model that llama.cpp can run"
        )
    weights, experts = [0] * count, [0] * count
    for part in parts:
        for number, size in part.tensors.blocks.items():
            weights[min(number, count - 1)] += size
        for number, size in part.tensors.experts.items():
            experts[min(number, count - 1)] += size
    norm = 0
    if header.architecture in NORM_MISNAMED:
        norm = sum(part.tensors.token_norm for part in parts)
        weights[0] -= norm
    not_loaded = 0
    if header.architecture in NEXTN_SKIPPED:
        for i in range(count - header.nextn_layers, count):
            not_loaded += weights[i]
            weights[i] = experts[i] = 0
    tokens = sum(part.tensors.token_matrix for part in parts)
    has_matrix = any(part.tensors.output_matrix for part in parts)
    is_tied = not has_matrix and tokens > 0 and header.architecture not in NO_OUTPUT
    tied = tokens if is_tied else 0
    return Layout(
        layers=tuple(
            LayerSize(
                weights=weights[i],
                experts=experts[i],
                kv_per_token=(cache.keys + cache.values) * _F16_BYTES,
                values_per_token=cache.values * _F16_BYTES,
                window=cache.window,
                state=cache.state,
            )
            for i, cache in enumerate(header.caches)
        ),
        embeddings=sum(part.tensors.embeddings for part in parts),
        output=sum(part.tensors.output for part in parts) + norm + tied,
        is_tied=is_tied,
        tied_matrix=tied,
        largest_tensor=max(part.tensors.largest for part in parts),
        embedding=header.embedding or 0,
        vocabulary=header.vocabulary or 0,
        context_tokens=header.context_tokens,
        experts=header.experts,
        experts_used=header.experts_used,
        nextn_layers=header.nextn_layers,
        not_loaded=not_loaded,
        parameters=sum(part.tensors.parameters for part in parts),
        quantization=header.quantization,
        kv_exact=header.caches_exact,
    )
