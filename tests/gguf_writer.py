"""Writes small GGUF files, right or wrong on purpose."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any

import attrs

UINT32, FLOAT32, BOOL, STRING, ARRAY, UINT64 = 4, 6, 7, 8, 9, 10
_LAYOUTS = {UINT32: "<I", FLOAT32: "<f", BOOL: "<?", UINT64: "<Q", 5: "<i"}


@attrs.frozen(kw_only=True)
class Tensor:
    """One tensor of a file."""

    name: str
    """Its name."""

    shape: tuple[int, ...]
    """Elements a dimension, the row first."""

    kind: int = 0
    """Number of its type; 0 is F32."""

    size: int = 0
    """Bytes of it."""


def text(value: str | bytes) -> bytes:
    """A string as GGUF writes it."""
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def value(found: Any) -> bytes:
    """A value with its type."""
    if isinstance(found, bool):
        return struct.pack("<I?", BOOL, found)
    if isinstance(found, int):
        return struct.pack("<II", UINT32, found)
    if isinstance(found, float):
        return struct.pack("<If", FLOAT32, found)
    if isinstance(found, str):
        return struct.pack("<I", STRING) + text(found)
    kind = STRING if isinstance(found[0], str) else BOOL if isinstance(found[0], bool) else UINT32
    body = b"".join(
        text(each) if kind == STRING else struct.pack(_LAYOUTS[kind], each) for each in found
    )
    return struct.pack("<IIQ", ARRAY, kind, len(found)) + body


def gguf(
    pairs: dict[str, Any] | Iterable[tuple[str, Any]],
    tensors: Sequence[Tensor] = (),
    *,
    version: int = 3,
    data: bool = True,
) -> bytes:
    """A whole file. A value of type `bytes` is written as it is, its type included."""
    listed = list(pairs.items() if isinstance(pairs, dict) else pairs)
    out = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(listed))
    for key, found in listed:
        out += text(key) + (found if isinstance(found, bytes) else value(found))
    offset = 0
    for tensor in tensors:
        out += text(tensor.name) + struct.pack("<I", len(tensor.shape))
        out += b"".join(struct.pack("<q", length) for length in tensor.shape)
        out += struct.pack("<IQ", tensor.kind, offset)
        offset += -(-tensor.size // 32) * 32
    if tensors and data:
        out += bytes(-len(out) % 32) + bytes(offset)
    return out


LLAMA: dict[str, Any] = {
    "general.architecture": "llama",
    "general.name": "Tiny",
    "general.file_type": 15,
    "llama.block_count": 2,
    "llama.context_length": 512,
    "llama.embedding_length": 64,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "tokenizer.ggml.tokens": ["a", "b", "c"],
    "tokenizer.ggml.scores": [0, 1, 2],
    "tokenizer.chat_template": "{{ messages }}",
}
TENSORS = (
    Tensor(name="token_embd.weight", shape=(64, 3), size=64 * 3 * 4),
    Tensor(name="blk.0.attn_q.weight", shape=(256, 4), kind=12, size=4 * 144),
    Tensor(name="output_norm.weight", shape=(64,), size=64 * 4),
)


def tiny(**changes: Any) -> bytes:
    """A right file; keyword arguments (``_`` for ``.``) change or, if `None`, drop pairs."""
    pairs = dict(LLAMA)
    for key, found in changes.items():
        name = next((each for each in pairs if each.replace(".", "_") == key), key)
        if found is None:
            pairs.pop(name)
        else:
            pairs[name] = found
    return gguf(pairs, TENSORS)
