"""The tables of what llama.cpp knows of architectures: which layers keep what, and which output.

They are those of llama.cpp as of llama-cpp-python 0.3.36: `create_memory` in
``src/llama-model.cpp``, ``src/llama-arch.cpp`` and `load_arch_hparams` in ``src/models/*.cpp``.
What follows from them for one model is worked out by `_cache` and `_layout`.
"""

from __future__ import annotations

from typing import Final

import attrs


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


@attrs.frozen(kw_only=True)
class Windows:
    """How an architecture says which of its layers have a sliding window."""

    pattern: int | None
    """Each so many layers, one is without a window, unless the header has a number or a list of
    its own. 0: none is without. `None`: the header must have a list."""

    is_first: bool = False
    """Whether the one without a window is the first of them, not the last."""

    missing: int | None = None
    """Tokens of the window where the header does not say; `None`: then there are no windows."""

    fixed: int | None = None
    """Tokens of the window whatever the header says, unless it says 0."""


WINDOWS: Final[dict[str, Windows]] = {
    "afmoe": Windows(pattern=4),
    "cohere2": Windows(pattern=4),
    "cohere2moe": Windows(pattern=4, is_first=True),
    "exaone-moe": Windows(pattern=4, missing=128),
    "exaone4": Windows(pattern=4, missing=4096),
    "gemma2": Windows(pattern=2, missing=4096),
    "gemma3": Windows(pattern=6),
    "gemma3n": Windows(pattern=5),
    "gemma4": Windows(pattern=None),
    "gpt-oss": Windows(pattern=2),
    "granite_swa": Windows(pattern=None),
    "laguna": Windows(pattern=4, is_first=True),
    "llama4": Windows(pattern=4, missing=8192, fixed=8192),
    "maple": Windows(pattern=None),
    "mellum": Windows(pattern=4),
    "mimo2": Windows(pattern=None),
    "muse-glimmer": Windows(pattern=4),
    "olmo2": Windows(pattern=4),
    "plamo3": Windows(pattern=8),
    "smallthinker": Windows(pattern=4, is_first=True, fixed=4096),
    "spark2_5": Windows(pattern=None),
    "step35": Windows(pattern=None),
}
WINDOW_IGNORED: Final = frozenset({"phi3"})  # "Phi SWA is currently disabled".
EXAONE4_LAYERS: Final = 64  # The only size of it with windows.

# `llm_arch_is_recurrent`: no attention at all.
NO_ATTENTION: Final = _names("mamba mamba2 rwkv6 rwkv6qwen2 rwkv7 arwkv7")
# `llm_arch_is_hybrid`: layers without key-value heads have a state instead.
HYBRID_BY_HEADS: Final = _names(
    "jamba plamo2 granitehybrid lfm2 lfm2moe kimi-linear kimi-k3 bailingmoe3"
)
# The same, by a list, or else all but each so many.
HYBRID_BY_INTERVAL: Final = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4, "minimax-01": 8}
HYBRID_BY_FEED_FORWARD: Final = frozenset({"nemotron_h", "nemotron_h_moe"})
HYBRID_EVERYWHERE: Final = frozenset({"falcon-h1"})  # Both in every layer.

# Architectures for which `create_memory` makes no cache: they see the whole text at once.
NO_CACHE: Final = _names(
    "bert jina-bert-v2 jina-bert-v3 nomic-bert nomic-bert-moe neo-bert eurobert wavtokenizer-dec "
    "modern-bert gemma-embedding dream llada llada-moe rnd1"
)

GEMMA3N_OWN_CACHES: Final = 20  # Its first layers; the later ones look into theirs.

# Which layers keep keys for their indexer too (`filter_lid`, `filter_idx`).
INDEXED: Final = frozenset({"deepseek32", "glm-dsa", "hy_v4", "minimax-m3"})
GLM_ALL_INDEXED: Final = 1 << 20  # Tokens of context of the first that has a list built in.

# Architectures that keep a full cache in every layer with key-value heads, and read none of the
# keys below.
PLAIN: Final = _names(
    "llama deci falcon grok gpt2 gptj gptneox mpt baichuan starcoder refact bloom stablelm qwen "
    "qwen2 qwen2moe qwen2vl qwen3 qwen3moe qwen3vl qwen3vlmoe phi2 phi3 phimoe plamo codeshell "
    "orion internlm2 minicpm minicpm3 gemma starcoder2 xverse command-r dbrx olmo olmoe openelm "
    "arctic deepseek deepseek2 deepseek2-ocr chatglm glm4 glm4moe bitnet jais jais2 nemotron "
    "exaone granite granitemoe chameleon plm bailingmoe bailingmoe2 dots1 arcee ernie4_5 "
    "ernie4_5-moe hunyuan-moe hunyuan-dense hunyuan_vl hy_v3 smollm3 seed_oss grovemoe apertus "
    "minimax-m2 cogvlm pangu-embedded mistral3 mistral4 paddleocr maincoder talkie"
)

# Keys of layers whose cache is smaller than a full one. Where one is set that the rules of the
# architecture do not read, nothing exact can be said.
SPECIAL_KEYS: Final = frozenset(
    {
        "attention.compress_ratios",
        "attention.indexer.key_length",
        "attention.recurrent_layers",
        "attention.shared_kv_layers",
        "attention.sliding_window",
        "full_attention_interval",
        "nextn_predict_layers",
        "num_loops",
        "shortconv.l_cache",
        "ssm.state_size",
        "wkv.head_size",
    }
)
STATE_KEYS: Final = frozenset(
    {
        "attention.recurrent_layers",
        "full_attention_interval",
        "shortconv.l_cache",
        "ssm.state_size",
        "wkv.head_size",
    }
)

# Networks whose result is what comes out of the last layer: there is no output matrix to tie.
NO_OUTPUT: Final = _names(
    "bert jina-bert-v2 jina-bert-v3 nomic-bert nomic-bert-moe neo-bert eurobert wavtokenizer-dec "
    "modern-bert t5encoder"
)
# LLM_TENSOR_OUTPUT_NORM_LFM2: the norm behind their last layer has the name of the first one.
NORM_MISNAMED: Final = frozenset({"lfm2", "lfm2moe"})

# TENSOR_SKIP: layers that guess further tokens are not loaded, unless ``--spec-type`` asks for it.
NEXTN_SKIPPED: Final = _names(
    "bailingmoe2 bailingmoe3 cohere2moe deepseek2 deepseek32 deepseek4 dots3note exaone-moe "
    "exaone4 glm-dsa glm4 glm4moe glm5-next hy_v3 mimo2 nemotron_h nemotron_h_moe qwen35 "
    "qwen35moe qwen3next step35"
)
