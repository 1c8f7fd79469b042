"""Writes a model whose weights are zeros: something to load, to ask and to measure with, anywhere.

The file is a header and a hole, so that it takes no space where the file system has holes. Its
weights are stored as is asked for, since llama.cpp computes with some types several times as fast
as with others; computing with zeros takes as long as with other numbers. What it answers means
nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import attrs

from ..gguf import TENSOR_TYPES

_UINT32, _INT32, _FLOAT32, _STRING, _ARRAY = 4, 5, 6, 8, 9
_ALIGNMENT: Final = 32

DEFAULT_KIND: Final = "Q4_K"
"""The type that people load most."""

# Name of a type to its number, elements of a block and bytes of one.
_TYPES: Final = {
    name: (number, elements, size) for number, (name, elements, size) in TENSOR_TYPES.items()
}
_F32: Final = _TYPES["F32"]

# What weights are not stored as, though numbers in a file may be.
_NO_WEIGHTS: Final = frozenset({"Q8_1", "Q8_K", "I8", "I16", "I32", "I64", "F64"})

_HEAD_WIDTH: Final = 64
_TOKENS: Final = 512
_CONTEXT: Final = 4096


def kind_of(quantization: str | None) -> str:
    """The type of most weights of a model that is stored as *quantization*, such as ``Q4_K_M``.

    `DEFAULT_KIND` if that is not known.
    """
    name = (quantization or "").upper()
    for found in (name, name.rpartition("_")[0]):
        if found in _TYPES and found not in _NO_WEIGHTS:
            return found
    return DEFAULT_KIND


@attrs.frozen(kw_only=True)
class ZerosModel:
    """The size of such a model. Width and hidden width are multiples of 256."""

    layers: int = 8
    """Layers of attention and of the part behind it."""

    width: int = 1024
    """Numbers of a token's vector between two layers."""

    hidden: int = 2816
    """Numbers in the middle of a layer."""

    kind: str = attrs.field(default=DEFAULT_KIND, converter=kind_of)
    """How its weights are stored, such as ``Q4_1``."""

    @property
    def parameters(self) -> int:
        """Weights that one token is multiplied with."""
        return self.layers * (4 * self.width**2 + 3 * self.width * self.hidden) + self._output

    @property
    def weight_bytes(self) -> int:
        """Bytes that are read to make one token."""
        _, elements, size = _TYPES[self.kind]
        return self.parameters // elements * size

    @property
    def _output(self) -> int:
        return self.width * _TOKENS

    def write(self, path: Path) -> None:
        """Write the model to *path*.

        Raises:
          OSError: if that cannot be.

        """
        tensors = list(self._tensors())
        described = b""
        offset = 0
        for name, shape, (kind, elements, size) in tensors:
            described += _text(name) + struct.pack("<I", len(shape))
            described += struct.pack(f"<{len(shape)}QIQ", *shape, kind, offset)
            count = 1
            for length in shape:
                count *= length
            offset += _aligned(count // elements * size)
        pairs = list(self._pairs())
        head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs))
        head += b"".join(pairs) + described
        head = head.ljust(_aligned(len(head)), b"\0")
        with path.open("wb") as file:
            file.write(head)
            file.truncate(len(head) + offset)

    def _tensors(self) -> Iterable[tuple[str, tuple[int, ...], tuple[int, int, int]]]:
        width, hidden, stored = self.width, self.hidden, _TYPES[self.kind]
        yield "token_embd.weight", (width, _TOKENS), stored
        yield "output.weight", (width, _TOKENS), stored
        yield "output_norm.weight", (width,), _F32
        for layer in range(self.layers):
            for name in ("attn_norm", "ffn_norm"):
                yield f"blk.{layer}.{name}.weight", (width,), _F32
            for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
                yield f"blk.{layer}.{name}.weight", (width, width), stored
            for name in ("ffn_gate", "ffn_up"):
                yield f"blk.{layer}.{name}.weight", (width, hidden), stored
            yield f"blk.{layer}.ffn_down.weight", (hidden, width), stored

    def _pairs(self) -> Iterable[bytes]:
        heads = self.width // _HEAD_WIDTH
        yield _pair("general.architecture", _STRING, _text("llama"))
        yield _pair("general.name", _STRING, _text("zeros"))
        for name, number in (
            ("context_length", _CONTEXT),
            ("embedding_length", self.width),
            ("block_count", self.layers),
            ("feed_forward_length", self.hidden),
            ("attention.head_count", heads),
            ("attention.head_count_kv", heads),
            ("rope.dimension_count", _HEAD_WIDTH),
            ("vocab_size", _TOKENS),
        ):
            yield _pair(f"llama.{name}", _UINT32, struct.pack("<I", number))
        epsilon = struct.pack("<f", 1e-5)
        yield _pair("llama.attention.layer_norm_rms_epsilon", _FLOAT32, epsilon)
        # Three tokens with a meaning, one for each byte, and others.
        tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
        kinds = [2, 3, 3, *[6] * 256]
        tokens += [f"t{number}" for number in range(len(tokens), _TOKENS)]
        kinds += [1] * (_TOKENS - len(kinds))
        yield _pair("tokenizer.ggml.model", _STRING, _text("llama"))
        yield _many("tokenizer.ggml.tokens", _STRING, b"".join(map(_text, tokens)))
        scores = (-float(number) for number in range(_TOKENS))
        yield _many("tokenizer.ggml.scores", _FLOAT32, struct.pack(f"<{_TOKENS}f", *scores))
        yield _many("tokenizer.ggml.token_type", _INT32, struct.pack(f"<{_TOKENS}i", *kinds))
        yield _pair("tokenizer.ggml.bos_token_id", _UINT32, struct.pack("<I", 1))
        yield _pair("tokenizer.ggml.eos_token_id", _UINT32, struct.pack("<I", 2))


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _pair(name: str, kind: int, value: bytes) -> bytes:
    return _text(name) + struct.pack("<I", kind) + value


def _many(name: str, kind: int, values: bytes) -> bytes:
    return _pair(name, _ARRAY, struct.pack("<IQ", kind, _TOKENS) + values)
