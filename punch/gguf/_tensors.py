"""Reads the list of tensors in a GGUF header, and sums their bytes by where llama.cpp puts them.

What the sums mean for a model of one or several files is worked out by `_layout`.
"""

from __future__ import annotations

import re
from typing import Final

import attrs

from ..exceptions import ModelFileError
from ._quantization import TENSOR_TYPES
from ._reader import ByteReader

_MAX_DIMENSIONS: Final = 4  # GGML_MAX_DIMS

# `LLM_TENSOR_NAMES` of llama.cpp: "blk.%d.attn_q", and of encoders with a decoder "dec.blk.%d...".
_BLOCK: Final = re.compile(r"(?:enc\.|dec\.)?blk\.(\d{1,5})\.")
# One matrix of all experts, or one a file of the time before ("ffn_gate.0.weight"). Shared experts
# (`_shexp`) work for every token.
_EXPERTS: Final = re.compile(r"ffn_\w+?_(?:ch)?exps\b|ffn_(?:gate|down|up)\.\d+\.")
# LLM_TENSOR_LAYER_INPUT in `LLM_TENSOR_INFOS`: these stay in the memory of the head.
_EMBEDDINGS: Final = ("token_embd", "position_embd", "token_types", "per_layer_token_embd")
# LLM_TENSOR_LAYER_REPEATING without a number of a block: llama.cpp puts them with the first block.
_FIRST_BLOCK: Final = (
    "token_embd_norm",
    "per_layer_model_proj",
    "per_layer_proj_norm",
    "rope_freqs",
    "rope_factors_long",
    "rope_factors_short",
)


@attrs.define(kw_only=True)
class TensorSizes:
    """The tensors of one file in numbers. All sizes are in bytes, without padding."""

    count: int = 0
    """Number of tensors."""

    parameters: int = 0
    """Weights in them."""

    size: int = 0
    """Size of all of them. With `unknown` types: what is left of the file behind its header."""

    dominant: str | None = None
    """The type of most bytes."""

    unknown: frozenset[int] = frozenset()
    """Types that are not in our table."""

    blocks: dict[int, int] = attrs.Factory(dict)
    """Size of each block of layers, by its number."""

    experts: dict[int, int] = attrs.Factory(dict)
    """The part of `blocks` in matrices of experts."""

    embeddings: int = 0
    """Size of what turns tokens into embeddings."""

    token_matrix: int = 0
    """The part of `embeddings` in the matrix that a model may use for its output too."""

    token_norm: int = 0
    """Size of the norms behind the embeddings, a part of the first block."""

    output: int = 0
    """Size of everything else: the output matrix, the last norms, heads of classifiers."""

    output_matrix: int = 0
    """The part of `output` in the output matrix; 0 without one."""

    largest: int = 0
    """Size of the largest tensor."""

    def add(self, name: str, size: int) -> None:
        """Count a tensor of *size* bytes where its name puts it."""
        self.largest = max(self.largest, size)
        part = name.partition(".")[0]
        block = _BLOCK.match(name)
        if block is not None or part in _FIRST_BLOCK:
            number = 0 if block is None else int(block[1])
            self.blocks[number] = self.blocks.get(number, 0) + size
            if part == "token_embd_norm":
                self.token_norm += size
            if _EXPERTS.search(name):
                self.experts[number] = self.experts.get(number, 0) + size
        elif part in _EMBEDDINGS:
            self.embeddings += size
            if name == "token_embd.weight":
                self.token_matrix += size
        else:
            self.output += size
            if name == "output.weight":
                self.output_matrix += size


def read_tensors(reader: ByteReader, count: int, *, alignment: int, any_types: bool) -> TensorSizes:
    """Read the descriptions of *count* tensors, which stand behind the key-value pairs.

    Raises:
      ModelFileError: if one is damaged, or the file ends before the last weight.

    """
    sizes = TensorSizes(count=count)
    by_type: dict[str, int] = {}
    unknown: set[int] = set()
    end = 0
    # The last tensor, while its size is not known: it reaches to the next one, or to the end.
    open_name, open_offset = "", -1
    for _ in range(count):
        name, kind, elements, offset, size = _read_tensor(reader, any_types)
        if open_offset >= 0:
            sizes.add(open_name, max(0, offset - open_offset))
            open_offset = -1
        if kind in TENSOR_TYPES:
            sizes.add(name, size)
        else:
            unknown.add(kind)
            open_name, open_offset = name, offset
        word = TENSOR_TYPES[kind][0] if kind in TENSOR_TYPES else f"type {kind}"
        by_type[word] = by_type.get(word, 0) + size
        sizes.parameters += elements
        end = max(end, offset + size)
    start = -(-reader.position // alignment) * alignment
    if count and start + end > reader.size:
        raise ModelFileError(
            f"the weights reach to byte {start + end}, but the file ends at {reader.size}: "
            "it was not downloaded completely. Download it again"
        )
    if open_offset >= 0:
        sizes.add(open_name, max(0, reader.size - start - open_offset))
    placed = sizes.embeddings + sizes.output + sum(sizes.blocks.values())
    if count and placed > reader.size - start:
        # llama.cpp wants each behind the one before; a plan would reserve what is not there.
        raise ModelFileError(
            f"the weights take {placed} bytes, but only {reader.size - start} follow the header: "
            "some lie on others, so the file is damaged. Download it again"
        )
    sizes.size = reader.size - reader.position if unknown else sum(by_type.values())
    sizes.unknown = frozenset(unknown)
    sizes.dominant = max(by_type, key=lambda each: by_type[each]) if by_type else None
    return sizes


def _read_tensor(reader: ByteReader, any_types: bool) -> tuple[str, int, int, int, int]:
    """One description: name, number of the type, elements, offset, bytes."""
    full_name = reader.name("the name of a tensor")
    what = f"the tensor {full_name[:80]!r}"
    dimensions = reader.count("<I", 4, f"the dimensions of {what}", _MAX_DIMENSIONS)
    row, elements = 1, 1
    for i in range(dimensions):
        length = reader.number("<q", 8, what)
        if length < 0:
            raise ModelFileError(f"{what} has {length} elements in one dimension")
        row = length if i == 0 else row
        elements *= length
    if elements > 2**63 - 1:
        raise ModelFileError(f"{what} has {elements} elements: the file is damaged")
    kind = reader.number("<I", 4, what)
    if kind not in TENSOR_TYPES and not any_types:
        raise ModelFileError(
            f"{what} is stored as type {kind}, which llama.cpp removed or added after this "
            "version of punch, or which a fork of llama.cpp has. Use a file in a current "
            "quantisation, such as Q4_K_M, or a llama-server that knows the type: "
            "PUNCH_INFERENCE_BACKEND=llama_cpp and LLAMA_CPP_EXE take any"
        )
    # An unknown block takes no less than nothing: the end of the file is checked by the rest.
    name, block, block_bytes = TENSOR_TYPES.get(kind, (f"type {kind}", 1, 0))
    if row % block:
        raise ModelFileError(f"{what} has rows of {row}; {name} needs a multiple of {block}")
    offset = reader.number("<Q", 8, what)
    return full_name, kind, elements, offset, elements // block * block_bytes
