"""Reads the header of a GGUF file into a value, and works out what follows from it.

Bytes and pairs are read by `_reader` and `_values`; whether the file may be offered is decided by
the model store.
"""

from __future__ import annotations

import hashlib
from typing import BinaryIO, Final

import attrs

from ..exceptions import ModelFileError
from ._other_files import HEAD_BYTES, describe_other
from ._quantization import FILE_TYPES, TENSOR_TYPES, stored_bytes
from ._reader import ByteReader
from ._values import MAX_LAYERS, TEMPLATE, Values, read_pair

_MAX_PAIRS: Final = 4096  # Files in use have 20 to 60.
_MAX_TENSORS: Final = 1_000_000  # Files in use have up to a few thousand.
_MAX_KV_BYTES: Final = 2**40  # A token of the largest models takes a few megabytes.
_MAX_DIMENSIONS: Final = 4  # GGML_MAX_DIMS
_POOLING_RANK: Final = 4  # LLAMA_POOLING_TYPE_RANK: a reranker, which answers with a score.

# Keys (after the architecture) of layers whose cache is smaller than a full one.
_SMALLER_CACHE: Final = (
    "attention.compress_ratios",
    "attention.recurrent_layers",
    "attention.shared_kv_layers",
    "attention.sliding_window",
    "full_attention_interval",
    "nextn_predict_layers",
    "shortconv.l_cache",
    "ssm.state_size",
    "wkv.head_size",
)

_ALIGNMENT: Final = "general.alignment"
_TOKENS: Final = "tokenizer.ggml.tokens"


@attrs.frozen(kw_only=True)
class GgufHeader:
    """The facts in the header of a GGUF file; `None` for those that it does not give."""

    version: int
    """Version of the format, 2 or 3."""

    name: str | None = None
    """The author's name for the model (``general.name``)."""

    kind: str = "model"
    """``model``, or ``adapter``, ``mmproj``, ``imatrix`` ... (``general.type``)."""

    architecture: str | None = None
    """llama.cpp's word for the kind of network, such as ``llama``. A later shard has none."""

    layers: int | None = None
    """Number of blocks."""

    context_tokens: int | None = None
    """Longest context the model was trained for, in tokens; `None` too where it says 0."""

    embedding: int | None = None
    """Numbers in one embedding."""

    heads: tuple[int, ...] = ()
    """Attention heads of each layer; empty where not known."""

    kv_heads: tuple[int, ...] = ()
    """Key-value heads of each layer; empty where not known."""

    key_length: int | None = None
    """Numbers in one key of one head. With latent attention: in the one latent it stores."""

    value_length: int | None = None
    """Numbers in one value of one head; 0 where only a latent is stored."""

    indexer_length: int = 0
    """Further numbers a layer stores for a token to find the tokens it attends to."""

    kv_exact: bool = True
    """False if some layers store less than `kv_bytes_per_token` counts (sliding window,
    recurrent, shared or skipped layers, encoders): then that is an upper bound."""

    vocabulary: int | None = None
    """Number of tokens."""

    chat_template_digest: str | None = None
    """SHA-256 of the chat template in hexadecimal digits, or `None` without a template."""

    quantization: str | None = None
    """How most weights are stored, such as ``Q4_K_M``."""

    parameters: int = 0
    """Weights in this file, exactly."""

    weight_bytes: int = 0
    """Bytes of the weights in this file, exactly, without padding."""

    tensors: int = 0
    """Number of tensors in this file."""

    split_number: int = 0
    """Which shard this is, from 0."""

    split_count: int = 1
    """Number of shards of the model."""

    features: frozenset[str] = frozenset()
    """Commands the model is made for: ``complete``, with a template ``chat``; or ``embed``;
    none for a reranker, an adapter and the like."""

    is_reranker: bool = False
    """Whether it scores texts, and answers nothing."""

    unknown_types: frozenset[int] = frozenset()
    """Types of weights that are not in our table. Then `weight_bytes` is what is left of the file
    behind its header, and a block of such weights is not known to fit their rows."""

    def kv_bytes_per_token(self, key_type: str = "F16", value_type: str = "F16") -> int | None:
        """Bytes of key-value cache that one token of context takes, over all layers.

            sum over layers of kv_heads * (key_length * size(K) + value_length * size(V))

        as ``llama_kv_cache`` of llama.cpp allocates it with flash attention (its default
        where the device can). Without, it pads the values of unlike layers to the largest.
        An upper bound unless `kv_exact`. `None` if the header lacks a number.

        Args:
          key_type: How keys are stored (``--cache-type-k``), such as ``F16`` or ``Q8_0``.
          value_type: How values are stored (``--cache-type-v``).

        Raises:
          ConfigurationError: if a type is not one that llama.cpp knows.

        """
        if not self.kv_heads or self.key_length is None or self.value_length is None:
            return None
        total = 0
        for heads in self.kv_heads:
            total += stored_bytes(heads * self.key_length, key_type)
            total += stored_bytes(heads * self.value_length, value_type)
            total += stored_bytes(self.indexer_length, key_type)
        return total


def read_header(file: BinaryIO, *, any_types: bool = False) -> GgufHeader:
    """Read the header of *file*, a readable and seekable binary file, from its start.

    About 25 ms for 50,000 tokens of vocabulary. The file is left somewhere in its header.

    Args:
      file: The file.
      any_types: Take weights of types that are not in our table: the engine may know them.

    Raises:
      ModelFileError: if this is not a GGUF file of version 2 or 3 in little-endian order,
        or it is damaged, or it ends before the last of its weights.

    """
    reader = ByteReader(file)
    magic = reader.consume(4, "the magic number") if reader.size >= 4 else reader.consume_rest()
    if magic != b"GGUF":
        file.seek(0)
        raise ModelFileError(
            f"not a GGUF file: it starts with {magic!r}, a GGUF file with b'GGUF'"
            + describe_other(file.read(HEAD_BYTES))
        )
    version = reader.number("<I", 4, "the format version")
    if version & 0xFFFF == 0:
        raise ModelFileError(
            f"GGUF version {version:#010x}: the file is in big-endian order; "
            "convert it to little-endian, the only order llama.cpp's usual builds read"
        )
    if version not in (2, 3):
        raise ModelFileError(
            f"GGUF version {version}; versions 2 and 3 can be read. Convert the model anew"
        )
    tensors = reader.count("<Q", 8, "the number of tensors", _MAX_TENSORS)
    pairs = reader.count("<Q", 8, "the number of key-value pairs", _MAX_PAIRS)
    values = Values()
    for _ in range(pairs):
        read_pair(reader, values)
    alignment = values.integer(_ALIGNMENT)
    return _describe(version, values, _read_tensors(reader, tensors, alignment, any_types))


@attrs.frozen(kw_only=True)
class _Weights:
    tensors: int
    parameters: int
    size: int
    dominant: str | None
    unknown: frozenset[int]


def _read_tensors(
    reader: ByteReader, count: int, alignment: int | None, any_types: bool
) -> _Weights:
    alignment = 32 if alignment is None else alignment
    if alignment == 0 or alignment & (alignment - 1):
        raise ModelFileError(f"{_ALIGNMENT} is {alignment}, but must be a power of two")
    parameters = end = 0
    sizes: dict[str, int] = {}
    unknown: set[int] = set()
    for _ in range(count):
        what = f"the tensor {reader.name('the name of a tensor')[:80]!r}"
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
        if kind not in TENSOR_TYPES:
            unknown.add(kind)
        # An unknown block takes no less than nothing: the end of the file is checked by the rest.
        name, block, block_bytes = TENSOR_TYPES.get(kind, (f"type {kind}", 1, 0))
        if row % block:
            raise ModelFileError(f"{what} has rows of {row}; {name} needs a multiple of {block}")
        size = elements // block * block_bytes
        sizes[name] = sizes.get(name, 0) + size
        parameters += elements
        end = max(end, reader.number("<Q", 8, what) + size)
    if count:
        needed = -(-reader.position // alignment) * alignment + end
        if needed > reader.size:
            raise ModelFileError(
                f"the weights reach to byte {needed}, but the file ends at {reader.size}: "
                "it was not downloaded completely. Download it again"
            )
    return _Weights(
        tensors=count,
        parameters=parameters,
        size=reader.size - reader.position if unknown else sum(sizes.values()),
        unknown=frozenset(unknown),
        dominant=max(sizes, key=lambda each: sizes[each]) if sizes else None,
    )


def _describe(version: int, values: Values, weights: _Weights) -> GgufHeader:
    architecture = values.text("general.architecture")
    kind = values.text("general.type") or "model"

    def of(key: str) -> str:
        return f"{architecture}.{key}"

    layers = values.integer(of("block_count"))
    if layers is not None and layers > MAX_LAYERS:
        raise ModelFileError(f"{layers} layers; at most {MAX_LAYERS} is plausible")
    embedding = values.integer(of("embedding_length"))
    heads = values.per_layer(of("attention.head_count"), layers)
    # `llama_model_base::load_hparams`: without a number of their own, they are all there.
    kv_heads = values.per_layer(of("attention.head_count_kv"), layers) or heads
    head = embedding // heads[0] if embedding is not None and heads and heads[0] else None
    key_length = values.integer(of("attention.key_length"))
    value_length = values.integer(of("attention.value_length"))
    # Latent attention stores one latent for keys and values (`has_v = !is_mla`).
    latent = values.integer(of("attention.key_length_mla")) is not None
    template = values.text(TEMPLATE)
    tokens = values.lengths.get(_TOKENS)
    pooling = values.integer(of("pooling_type"))
    causal = values.scalars.get(of("attention.causal"), True)
    smaller = any(
        values.scalars.get(of(key)) != 0 for key in _SMALLER_CACHE if of(key) in values.present
    )
    header = GgufHeader(
        version=version,
        name=_clean(values.text("general.name")),
        kind=kind,
        architecture=_clean(architecture),
        layers=layers,
        # 0 is what converters write that do not know it; no model was trained for that.
        context_tokens=values.integer(of("context_length")) or None,
        embedding=embedding,
        heads=heads,
        kv_heads=kv_heads,
        key_length=head if key_length is None else key_length,
        value_length=0 if latent else head if value_length is None else value_length,
        indexer_length=values.integer(of("attention.indexer.key_length")) or 0,
        kv_exact=not smaller and bool(causal),
        vocabulary=values.integer(of("vocab_size")) if tokens is None else tokens,
        chat_template_digest=None if template is None else _digest(template),
        quantization=_file_type(values.integer("general.file_type")) or weights.dominant,
        parameters=weights.parameters,
        weight_bytes=weights.size,
        tensors=weights.tensors,
        split_number=values.integer("split.no") or 0,
        split_count=values.integer("split.count") or 1,
        features=_features(kind, pooling, has_template=template is not None),
        is_reranker=pooling == _POOLING_RANK,
        unknown_types=weights.unknown,
    )
    kv_bytes = header.kv_bytes_per_token() or 0
    if kv_bytes > _MAX_KV_BYTES:
        raise ModelFileError(f"a token takes {kv_bytes} bytes of cache: the file is damaged")
    return header


def _file_type(number: int | None) -> str | None:
    if number is None:
        return None
    number &= ~1024  # LLAMA_FTYPE_GUESSED: only says that the number was guessed.
    name = FILE_TYPES[number] if number < len(FILE_TYPES) else "-"
    return None if name == "-" else name


def _features(kind: str, pooling: int | None, *, has_template: bool) -> frozenset[str]:
    if kind != "model" or pooling == _POOLING_RANK:
        return frozenset()
    if pooling:
        return frozenset({"embed"})
    return frozenset({"chat", "complete"} if has_template else {"complete"})


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _clean(text: str | None) -> str | None:
    """*text* without what UTF-8 does not allow: it goes into messages and logs."""
    return text and text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
