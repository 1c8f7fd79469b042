"""Reads the header of a GGUF file into a value, and works out what follows from it.

Bytes and pairs are read by `_reader` and `_values`, tensors by `_tensors`; what each layer keeps of
a text is decided by `_cache`, and whether the file may be offered by the model store.
"""

from __future__ import annotations

import hashlib
from typing import BinaryIO, Final

import attrs

from ..exceptions import ModelFileError
from ._architectures import NO_ATTENTION
from ._cache import AttentionFacts, LayerCache, describe_caches
from ._other_files import HEAD_BYTES, describe_other
from ._quantization import FILE_TYPES, stored_bytes
from ._reader import ByteReader
from ._tensors import TensorSizes, read_tensors
from ._values import MAX_LAYERS, TEMPLATE, Values, read_pair

_MAX_PAIRS: Final = 4096  # Files in use have 20 to 60.
_MAX_TENSORS: Final = 1_000_000  # Files in use have up to a few thousand.
_MAX_KV_BYTES: Final = 2**40  # A token of the largest models takes a few megabytes.
_POOLING_RANK: Final = 4  # LLAMA_POOLING_TYPE_RANK: a reranker, which answers with a score.

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
    """False if some layers may store less than `kv_bytes_per_token` counts (sliding windows, or
    what the header does not tell): then that is an upper bound."""

    caches: tuple[LayerCache, ...] = attrs.field(default=(), eq=False, repr=False)
    """What each layer keeps of a text, which follows from the numbers above and from further keys
    of the architecture; empty where not known."""

    caches_exact: bool = attrs.field(default=False, eq=False, repr=False)
    """Whether `caches` is what llama.cpp allocates, not an upper bound."""

    experts: int = 0
    """Experts in a layer; 0 without."""

    experts_used: int = 0
    """Experts that work for one token, in the layer where that is most."""

    nextn_layers: int = 0
    """Blocks at the end that only guess further tokens; counted in `layers`."""

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

        over the layers that have a cache of their own, as ``llama_kv_cache`` of llama.cpp
        allocates it with flash attention (its default where the device can). Without, it pads the
        values of unlike layers to the largest. An upper bound unless `kv_exact`. `None` if the
        header lacks a number.

        Args:
          key_type: How keys are stored (``--cache-type-k``), such as ``F16`` or ``Q8_0``.
          value_type: How values are stored (``--cache-type-v``).

        Raises:
          ConfigurationError: if a type is not one that llama.cpp knows.

        """
        if not self.caches:
            return None
        return sum(
            stored_bytes(each.keys, key_type) + stored_bytes(each.values, value_type)
            for each in self.caches
        )


@attrs.frozen(kw_only=True)
class GgufPart:
    """What one file of a model tells in front of its weights."""

    header: GgufHeader
    """Its header."""

    tensors: TensorSizes
    """Where the bytes behind it belong."""


def read_header(file: BinaryIO, *, any_types: bool = False) -> GgufHeader:
    """Read the header of *file*; see `read_part`."""
    return read_part(file, any_types=any_types).header


def read_part(file: BinaryIO, *, any_types: bool = False) -> GgufPart:
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
    alignment = 32 if alignment is None else alignment
    if alignment == 0 or alignment & (alignment - 1):
        raise ModelFileError(f"{_ALIGNMENT} is {alignment}, but must be a power of two")
    sizes = read_tensors(reader, tensors, alignment=alignment, any_types=any_types)
    return GgufPart(header=_describe(version, values, sizes), tensors=sizes)


def _describe(version: int, values: Values, weights: TensorSizes) -> GgufHeader:
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
    key_length = head if key_length is None else key_length
    value_length = 0 if latent else head if value_length is None else value_length
    indexer_length = values.integer(of("attention.indexer.key_length")) or 0
    caches, exact = _caches(
        values,
        architecture,
        layers,
        embedding=embedding,
        heads=heads,
        kv_heads=kv_heads,
        key_length=key_length,
        value_length=value_length,
        indexer_length=indexer_length,
    )
    used = values.per_layer(of("expert_used_count"), layers)
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
        key_length=key_length,
        value_length=value_length,
        indexer_length=indexer_length,
        kv_exact=not caches or (exact and all(each.window is None for each in caches)),
        caches=caches,
        caches_exact=exact,
        experts=values.number(of("expert_count")) or 0,
        experts_used=max(used, default=0),
        nextn_layers=min(values.number(of("nextn_predict_layers")) or 0, layers or 0),
        vocabulary=values.integer(of("vocab_size")) if tokens is None else tokens,
        chat_template_digest=None if template is None else _digest(template),
        quantization=_file_type(values.integer("general.file_type")) or weights.dominant,
        parameters=weights.parameters,
        weight_bytes=weights.size,
        tensors=weights.count,
        split_number=values.integer("split.no") or 0,
        split_count=values.integer("split.count") or 1,
        features=_features(kind, pooling, has_template=template is not None),
        is_reranker=pooling == _POOLING_RANK,
        unknown_types=weights.unknown,
    )
    kv_bytes = (header.kv_bytes_per_token() or 0) + sum(each.state for each in caches)
    if kv_bytes > _MAX_KV_BYTES:
        raise ModelFileError(f"a token takes {kv_bytes} bytes of cache: the file is damaged")
    return header


def _caches(
    values: Values,
    architecture: str | None,
    layers: int | None,
    *,
    embedding: int | None,
    heads: tuple[int, ...],
    kv_heads: tuple[int, ...],
    key_length: int | None,
    value_length: int | None,
    indexer_length: int,
) -> tuple[tuple[LayerCache, ...], bool]:
    """What each layer keeps, and whether that is exact; nothing if the header lacks a number."""
    if architecture is None or layers is None:
        return (), False
    has_attention = bool(kv_heads) and key_length is not None and value_length is not None
    if not has_attention and architecture not in NO_ATTENTION:
        return (), False
    return describe_caches(
        AttentionFacts(
            architecture=architecture,
            layers=layers,
            embedding=embedding or 0,
            heads=heads,
            kv_heads=kv_heads,
            key_length=key_length or 0,
            value_length=value_length or 0,
            indexer_length=indexer_length,
            values=values,
        )
    )


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
