"""Works out what each layer keeps of a text: keys and values, a window of them, a fixed state.

The rules are those of ``src/llama-hparams.cpp`` and of the constructors of `llama_kv_cache*` and
`llama_memory_recurrent` in llama.cpp. An architecture that `_architectures` does not know is
counted as a full cache, and said to be an upper bound.
"""

from __future__ import annotations

from typing import Final

import attrs

from ._architectures import (
    EXAONE4_LAYERS,
    GEMMA3N_OWN_CACHES,
    GLM_ALL_INDEXED,
    HYBRID_BY_FEED_FORWARD,
    HYBRID_BY_HEADS,
    HYBRID_BY_INTERVAL,
    HYBRID_EVERYWHERE,
    INDEXED,
    NO_ATTENTION,
    NO_CACHE,
    PLAIN,
    SPECIAL_KEYS,
    STATE_KEYS,
    WINDOW_IGNORED,
    WINDOWS,
)
from ._values import Values

_FLOAT_BYTES: Final = 4  # States are kept as F32, whatever the cache is kept as.


@attrs.frozen(kw_only=True)
class LayerCache:
    """What one layer keeps of the tokens it has seen."""

    keys: int = 0
    """Numbers kept for each token as keys, or as a latent; those of an indexer too."""

    values: int = 0
    """Numbers kept for each token as values."""

    window: int | None = None
    """Tokens that the layer looks back, if it forgets those before; `None`: all."""

    state: int = 0
    """Bytes kept for each sequence, however long it is."""


@attrs.frozen(kw_only=True)
class AttentionFacts:
    """What the rules start from; see `GgufHeader` for the fields."""

    architecture: str
    layers: int
    embedding: int
    heads: tuple[int, ...]
    kv_heads: tuple[int, ...]
    key_length: int
    value_length: int
    indexer_length: int
    values: Values

    @property
    def trunk(self) -> int:
        """Layers without those at the end that only guess further tokens (nextn)."""
        return max(0, self.layers - (self.number("nextn_predict_layers") or 0))

    @property
    def is_known(self) -> bool:
        """Whether the rules here are made for this architecture."""
        return self.architecture in PLAIN or bool(_keys_read(self))

    def number(self, key: str) -> int | None:
        """The whole number of *key* of this architecture; `None` where there is none."""
        return self.values.number(f"{self.architecture}.{key}")

    def flags(self, key: str) -> tuple[bool, ...] | None:
        """Whether *key*, a list, is set for each layer; `None` where there is no list."""
        return self.values.flags(f"{self.architecture}.{key}", self.layers)


def describe_caches(facts: AttentionFacts) -> tuple[tuple[LayerCache, ...], bool]:
    """What each layer keeps, and whether that is exact or an upper bound."""
    architecture = facts.architecture
    if architecture in NO_CACHE:
        return (LayerCache(),) * facts.layers, True
    windows, windows_exact = _windows(facts)
    indexed, indexed_exact = _indexed(facts)
    recurrent = _recurrent(facts)
    attending = _attending(facts, recurrent)
    state = _state_bytes(facts)
    loops = facts.number("num_loops") or 1  # Each round through the layers has its own cache.
    caches = []
    for i in range(facts.layers):
        cache = LayerCache()
        if attending[i]:
            cache = _attention(facts, i, windows[i], indexed[i], loops)
        caches.append(attrs.evolve(cache, state=state) if recurrent[i] else cache)
    unread = SPECIAL_KEYS - _keys_read(facts)
    exact = (
        facts.is_known
        and windows_exact
        and indexed_exact
        and facts.values.scalar(f"{architecture}.attention.causal") is not False
        and not any(facts.values.is_set(f"{architecture}.{key}") for key in unread)
    )
    return tuple(caches), exact


def _keys_read(facts: AttentionFacts) -> set[str]:
    """The special keys that the rules of this architecture take into account."""
    name = facts.architecture
    read: set[str] = set()
    if name in PLAIN or name in WINDOWS or name in INDEXED:
        read.add("nextn_predict_layers")
    if name in WINDOWS or name in WINDOW_IGNORED or name == "lfm2":
        read.add("attention.sliding_window")
    if name in NO_ATTENTION or name in HYBRID_BY_HEADS or name in HYBRID_BY_FEED_FORWARD:
        read |= STATE_KEYS
    if name in HYBRID_BY_INTERVAL or name in HYBRID_EVERYWHERE:
        read |= STATE_KEYS
    if name in HYBRID_BY_INTERVAL or name in HYBRID_BY_HEADS:
        read.add("nextn_predict_layers")
    if name == "gemma4":
        read.add("attention.shared_kv_layers")
    if name in INDEXED:
        read.add("attention.indexer.key_length")
    return read


def _attending(facts: AttentionFacts, recurrent: tuple[bool, ...]) -> tuple[bool, ...]:
    """Which layers have keys and values of their own (the filters of `create_memory`)."""
    name, layers = facts.architecture, range(facts.layers)
    # The layers behind the trunk have a context of their own, when somebody asks for it.
    count = facts.trunk if facts.is_known and name not in HYBRID_BY_HEADS else facts.layers
    # `n_layer_kv_from_start`: the later layers look into the caches of the earlier ones.
    if name == "gemma3n":
        count = min(count, GEMMA3N_OWN_CACHES)
    if name == "gemma4":
        count = min(count, facts.layers - (facts.number("attention.shared_kv_layers") or 0))
    if name in HYBRID_EVERYWHERE:
        return tuple(i < count for i in layers)
    if name in HYBRID_BY_FEED_FORWARD:
        feeding = _feeding(facts)
        return tuple(i < count and not recurrent[i] and not feeding[i] for i in layers)
    return tuple(i < count and not recurrent[i] for i in layers)


def _attention(
    facts: AttentionFacts, i: int, window: int | None, indexed: bool, loops: int
) -> LayerCache:
    heads = _heads(facts, i)
    key_length, value_length = facts.key_length, facts.value_length
    if window is not None:
        narrow_key = facts.number("attention.key_length_swa")
        narrow_value = facts.number("attention.value_length_swa")
        key_length = key_length if narrow_key is None else narrow_key
        value_length = value_length if narrow_value is None else narrow_value
    return LayerCache(
        keys=(heads * key_length + (facts.indexer_length if indexed else 0)) * loops,
        values=heads * value_length * loops,
        window=window,
    )


def _windows(facts: AttentionFacts) -> tuple[tuple[int | None, ...], bool]:
    """The window of each layer, and whether the header says it."""
    none: tuple[int | None, ...] = (None,) * facts.layers
    key = "attention.sliding_window"
    found = facts.number(key)
    if facts.architecture == "lfm2" and found:  # All layers but the recurrent ones.
        return (found,) * facts.layers, True
    rule = WINDOWS.get(facts.architecture)
    if rule is None or found == 0:
        return none, True
    if facts.architecture == "exaone4" and facts.trunk != EXAONE4_LAYERS:
        return none, True
    tokens = found if found is not None else rule.missing
    if tokens is None:
        return none, True
    tokens = tokens if rule.fixed is None else rule.fixed
    sliding = facts.flags(f"{key}_pattern")
    if sliding is None:
        own = facts.number(f"{key}_pattern")
        if rule.pattern is None:
            return none, False
        sliding = _pattern(facts, rule.pattern if own is None else own, rule.is_first)
    return tuple(tokens if each else None for each in sliding), True


def _pattern(facts: AttentionFacts, period: int, is_first: bool) -> tuple[bool, ...]:
    """`llama_hparams::set_swa_pattern`."""
    full = 0 if is_first else period - 1
    return tuple(
        i < facts.trunk and (period == 0 or i % period != full) for i in range(facts.layers)
    )


def _recurrent(facts: AttentionFacts) -> tuple[bool, ...]:
    """Which layers have a state."""
    name, layers = facts.architecture, range(facts.layers)
    if name in NO_ATTENTION or name in HYBRID_EVERYWHERE:
        return tuple(i < facts.trunk for i in layers)
    if name in HYBRID_BY_HEADS:
        return tuple(i < facts.trunk and not _heads(facts, i) for i in layers)
    if name in HYBRID_BY_FEED_FORWARD:
        feeding = _feeding(facts)
        return tuple(i < facts.trunk and not _heads(facts, i) and not feeding[i] for i in layers)
    if name in HYBRID_BY_INTERVAL:
        listed = facts.flags("attention.recurrent_layers")
        if listed is not None:
            return tuple(i < facts.trunk and listed[i] for i in layers)
        period = facts.number("full_attention_interval") or HYBRID_BY_INTERVAL[name]
        return tuple(i < facts.trunk and (i + 1) % period != 0 for i in layers)
    return (False,) * facts.layers


def _heads(facts: AttentionFacts, i: int) -> int:
    return facts.kv_heads[i] if facts.kv_heads else 0


def _feeding(facts: AttentionFacts) -> tuple[bool, ...]:
    """Which layers have a feed-forward network; there, those have nothing else."""
    listed = facts.flags("feed_forward_length")
    if listed is not None:
        return listed
    return (bool(facts.number("feed_forward_length")),) * facts.layers


def _indexed(facts: AttentionFacts) -> tuple[tuple[bool, ...], bool]:
    """Which layers keep keys for an indexer, and whether the header says it."""
    name, layers = facts.architecture, range(facts.layers)
    if not facts.indexer_length:
        return (False,) * facts.layers, True
    if name == "minimax-m3":
        dense = facts.number("leading_dense_block_count") or 0
        return tuple(i >= dense for i in layers), True
    if name in ("glm-dsa", "hy_v4"):
        listed = facts.flags("attention.indexer.types")
        if listed is not None:
            return listed, True
        all_of_them = name == "glm-dsa" and (
            (facts.number("context_length") or 0) < GLM_ALL_INDEXED
        )
        return (True,) * facts.layers, all_of_them
    return (True,) * facts.layers, name in INDEXED


def _state_bytes(facts: AttentionFacts) -> int:
    """`n_embd_r` and `n_embd_s` of `llama_hparams`, for one sequence in one layer."""

    def of(key: str) -> int:
        return facts.number(key) or 0

    heads = facts.heads[0] if facts.heads else 0
    convolution = max(0, of("ssm.conv_kernel") - 1)
    if of("wkv.head_size"):
        shifts = facts.number("token_shift_count")
        numbers = facts.embedding * ((2 if shifts is None else shifts) + of("wkv.head_size"))
    elif of("shortconv.l_cache"):
        numbers = facts.embedding * (of("shortconv.l_cache") - 1)
    elif of("kda.head_dim"):
        head = of("kda.head_dim")
        numbers = 3 * (convolution or 3) * heads * head + head * head * heads
    elif facts.architecture == "minimax-01":
        numbers = facts.key_length * facts.key_length * heads
    else:
        inner, state = of("ssm.inner_size"), of("ssm.state_size")
        numbers = convolution * (inner + 2 * of("ssm.group_count") * state) + state * inner
    return numbers * _FLOAT_BYTES
