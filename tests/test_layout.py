"""The layout of a model: which bytes belong to which layer, and what a context takes."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import pytest
from gguf_writer import LLAMA, Tensor, gguf, tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from punch.exceptions import ConfigurationError, ModelFileError
from punch.gguf import LayerSize, Layout, read_header, read_layout

F32 = 4


def tensor(name: str, *shape: int) -> Tensor:
    """A tensor of F32 numbers."""
    size = F32
    for length in shape:
        size *= length
    return Tensor(name=name, shape=shape, size=size)


def model(
    architecture: str = "llama", layers: int = 4, tensors: list[Tensor] | None = None, **keys: Any
) -> bytes:
    """A file of *architecture*; keyword arguments are its keys, with ``__`` for a dot."""
    pairs: dict[str, Any] = {
        "general.architecture": architecture,
        f"{architecture}.block_count": layers,
        f"{architecture}.context_length": 4096,
        f"{architecture}.embedding_length": 64,
        f"{architecture}.attention.head_count": 4,
        f"{architecture}.attention.head_count_kv": 2,
        "tokenizer.ggml.tokens": ["a", "b", "c"],
    }
    for key, found in keys.items():
        pairs[f"{architecture}.{key.replace('__', '.')}"] = found
    listed = [tensor("token_embd.weight", 64, 3)] if tensors is None else tensors
    return gguf({key: found for key, found in pairs.items() if found is not None}, listed)


def layout(*files: bytes) -> Layout:
    """The layout of a model with these files."""
    return read_layout([io.BytesIO(each) for each in files])


def kv(architecture: str, layers: int = 4, **keys: Any) -> list[int]:
    """What each layer keeps for a token as F16, in bytes; exactly."""
    found = layout(model(architecture, layers, **keys))
    assert found.kv_exact
    return [layer.kv_per_token for layer in found.layers]


def windows(architecture: str, layers: int = 8, **keys: Any) -> list[int | None]:
    """The window of each layer; exactly."""
    found = layout(model(architecture, layers, **keys))
    assert found.kv_exact
    return [layer.window for layer in found.layers]


FULL = 2 * 2 * 16 * 2  # Keys and values, 2 heads of 16 numbers, F16.


def test_every_byte_belongs_to_one_layer_or_to_one_end() -> None:
    """An untied output: nothing is copied."""
    found = layout(
        model(
            layers=2,
            tensors=[
                tensor("token_embd.weight", 64, 3),
                tensor("blk.0.attn_q.weight", 64, 8),
                tensor("blk.0.ffn_up.weight", 64, 16),
                tensor("blk.1.attn_q.weight", 64, 32),
                tensor("output_norm.weight", 64),
                tensor("output.weight", 64, 5),
                tensor("rope_freqs.weight", 8),
            ],
        )
    )
    assert [layer.weights for layer in found.layers] == [64 * 24 * F32 + 8 * F32, 64 * 32 * F32]
    assert found.embeddings == 64 * 3 * F32
    assert found.output == 64 * 6 * F32
    assert (found.is_tied, found.tied_matrix) == (False, 0)
    assert found.largest_tensor == 64 * 32 * F32
    assert found.weights == sum(layer.weights for layer in found.layers) + 64 * 9 * F32


def test_a_tied_output_is_a_copy_of_the_embeddings() -> None:
    """It is counted where it lies, and one time in the sum."""
    tensors = [tensor("token_embd.weight", 64, 3), tensor("output_norm.weight", 64)]
    found = layout(model(tensors=tensors))
    assert found.is_tied
    assert (found.embeddings, found.output) == (64 * 3 * F32, 64 * 3 * F32 + 64 * F32)
    assert found.weights == 64 * 4 * F32


def test_an_embedder_has_no_output_to_tie() -> None:
    """What comes out of its last layer is the answer."""
    found = layout(model("bert", pooling_type=1))
    assert (found.is_tied, found.output) == (False, 0)
    assert [layer.kv_per_token for layer in found.layers] == [0, 0, 0, 0]


def test_experts_are_told_from_what_works_for_every_token() -> None:
    """Shared experts, the router and attention are not counted as experts."""
    found = layout(
        model(
            "qwen3moe",
            layers=1,
            expert_count=8,
            expert_used_count=2,
            tensors=[
                tensor("token_embd.weight", 64, 3),
                tensor("blk.0.attn_q.weight", 64, 2),
                tensor("blk.0.ffn_gate_inp.weight", 64, 8),
                tensor("blk.0.ffn_gate_exps.weight", 64, 4, 8),
                tensor("blk.0.ffn_down_exps.weight", 64, 4, 8),
                tensor("blk.0.ffn_up_shexp.weight", 64, 3),
            ],
        )
    )
    assert found.layers[0].experts == 2 * 64 * 4 * 8 * F32
    assert found.layers[0].weights == found.layers[0].experts + 64 * 13 * F32
    assert (found.experts, found.experts_used) == (8, 2)


def test_experts_of_each_layer_may_be_many_or_few() -> None:
    """Of a list, the largest counts."""
    found = layout(model("nemotron_h_moe", 2, expert_count=8, expert_used_count=[2, 6]))
    assert found.experts_used == 6


def test_a_model_in_many_files_is_added_up_over_all() -> None:
    """A later file has tensors, and nothing of the header."""
    first = gguf({**LLAMA, "split.count": 3, "split.no": 0}, [tensor("token_embd.weight", 64, 3)])
    second = gguf({"split.count": 3, "split.no": 1}, [tensor("blk.0.attn_q.weight", 64, 2)])
    third = gguf(
        {"split.count": 3, "split.no": 2},
        [tensor("blk.0.attn_k.weight", 64, 1), tensor("output.weight", 64, 3)],
    )
    found = layout(first, second, third)
    assert [layer.weights for layer in found.layers] == [64 * 3 * F32, 0]
    assert not found.is_tied
    for wrong in ([first], [first, third, second], [first, second, second], [second, third]):
        with pytest.raises(ModelFileError, match="files"):
            layout(*wrong)


@pytest.mark.parametrize(
    ("keys", "word"),
    [
        ({"block_count": None}, "block_count"),
        ({"block_count": 0}, "block_count"),
        ({"attention__head_count": None, "attention__head_count_kv": None}, "head_count"),
    ],
)
def test_a_header_without_layers_or_attention_has_no_layout(keys: Any, word: str) -> None:
    """It is refused with what is missing: nothing is guessed."""
    with pytest.raises(ModelFileError, match=word):
        layout(model(**keys))


def test_a_plain_model_keeps_all_tokens_in_all_layers() -> None:
    """The number of the header is the same."""
    data = model(layers=3)
    found = layout(data)
    assert found.kv_exact
    assert (
        found.layers == (LayerSize(weights=0, kv_per_token=FULL, values_per_token=FULL // 2),) * 3
    )
    assert read_header(io.BytesIO(data)).kv_bytes_per_token() == 3 * FULL
    assert found.kv_bytes(1000) == (1024 * FULL,) * 3


def test_a_cache_is_counted_by_the_type_it_is_stored_as() -> None:
    """Q8_0 stores 32 numbers in 34 bytes; keys and values may differ."""
    found = layout(model(layers=1))
    assert found.kv_bytes(256, "q8_0", "F16") == (256 * (34 + 64),)
    assert found.kv_bytes(256, "F16", "q4_0") == (256 * (64 + 18),)
    with pytest.raises(ConfigurationError, match="'q9'"):
        found.kv_bytes(256, "q9")


def test_slots_share_the_context() -> None:
    """Each gets a part, filled up to a multiple of 256 cells; unified, all have one cache."""
    found = layout(model(layers=1))
    assert found.kv_bytes(1024, slots=3) == (3 * 512 * FULL,)
    assert found.kv_bytes(1024, slots=3, is_unified=True) == (1024 * FULL,)


def test_latent_attention_keeps_one_latent_for_keys_and_values() -> None:
    """As DeepSeek V2 and V3, and as Kimi with recurrent layers between."""
    latent: dict[str, Any] = {
        "attention__head_count_kv": 1,
        "attention__key_length": 576,
        "attention__value_length": 512,
        "attention__key_length_mla": 192,
        "attention__value_length_mla": 128,
    }
    assert kv("deepseek2", 2, **latent) == [576 * 2] * 2
    found = layout(model("deepseek2", 1, **latent))
    assert found.layers[0].values_per_token == 0
    assert found.kv_bytes(256, "F16", "q4_0") == (256 * 576 * 2,)


def test_an_indexer_keeps_keys_of_its_own() -> None:
    """In every layer, or in those that the header lists."""
    latent: dict[str, Any] = {
        "attention__head_count_kv": 1,
        "attention__key_length": 576,
        "attention__key_length_mla": 192,
        "attention__indexer__key_length": 128,
    }
    assert kv("deepseek32", 2, **latent) == [(576 + 128) * 2] * 2
    listed: dict[str, Any] = {"attention__indexer__types": [1, 0, 1]}
    assert kv("glm-dsa", 3, **latent, **listed) == [1408, 1152, 1408]
    assert kv("glm-dsa", 2, **latent, context_length=131072) == [1408, 1408]
    unlisted = layout(model("glm-dsa", 2, **latent, context_length=1 << 20))
    assert not unlisted.kv_exact
    assert unlisted.layers[0].kv_per_token == 1408


@pytest.mark.parametrize(
    ("architecture", "keys", "sliding"),
    [
        ("gemma3", {}, "wwwww.ww"),
        ("gemma3n", {}, "wwww.www"),
        ("gemma2", {}, "w.w.w.w."),
        ("gpt-oss", {}, "w.w.w.w."),
        ("cohere2", {}, "www.www."),
        ("cohere2moe", {}, ".www.www"),
        ("olmo2", {}, "www.www."),
        ("gemma3", {"attention__sliding_window_pattern": 3}, "ww.ww.ww"),
        ("gemma3", {"attention__sliding_window_pattern": 1}, "........"),
        ("gemma3", {"attention__sliding_window_pattern": 0}, "wwwwwwww"),
        ("gemma3", {"attention__sliding_window_pattern": [True, False] * 4}, "w.w.w.w."),
        ("mimo2", {"attention__sliding_window_pattern": [0, 1, 1, 0, 1]}, ".ww.w..."),
        ("phi3", {}, "........"),
    ],
)
def test_the_layers_with_a_window_follow_the_architecture(
    architecture: str, keys: dict[str, Any], sliding: str
) -> None:
    """By its own rule, unless the header has a list or a number."""
    found = windows(architecture, attention__sliding_window=128, **keys)
    assert "".join("." if each is None else "w" for each in found) == sliding
    assert set(found) <= {None, 128}


def test_some_windows_stand_in_no_header() -> None:
    """llama.cpp knows them by the architecture alone, or does not believe the header."""
    assert windows("gemma2", 2) == [4096, None]
    assert windows("llama4", 4) == [8192, 8192, 8192, None]
    assert windows("llama4", 4, attention__sliding_window=512)[0] == 8192
    assert windows("llama4", 4, attention__sliding_window=0) == [None] * 4
    assert windows("smallthinker", 4, attention__sliding_window=100) == [None, 4096, 4096, 4096]
    assert windows("exaone4", 4, attention__sliding_window=4096) == [None] * 4
    assert windows("exaone4", 64)[:4] == [4096, 4096, 4096, None]
    assert windows("gemma3", 4) == [None] * 4
    assert windows("gemma3", 4, attention__sliding_window=0) == [None] * 4


def test_a_window_keeps_itself_and_one_micro_batch() -> None:
    """Filled up to a multiple of 256 cells, and never more than the context."""
    found = layout(model("gemma2", 2, attention__sliding_window=1000))
    narrow, full = found.kv_bytes(32768)
    assert (narrow, full) == (1536 * FULL, 32768 * FULL)  # 1000 + 512 = 1512
    assert found.kv_bytes(32768, micro_batch=64)[0] == 1280 * FULL
    assert found.kv_bytes(600)[0] == 768 * FULL
    assert found.kv_bytes(32768, slots=4)[0] == 4 * 1536 * FULL
    assert found.kv_bytes(32768, slots=4, is_unified=True)[0] == 4608 * FULL  # 4 * 1000 + 512
    assert not read_header(io.BytesIO(model("gemma2", 2))).kv_exact


def test_layers_with_a_window_may_have_heads_of_another_size() -> None:
    """As Gemma 4."""
    keys: dict[str, Any] = {
        "attention__sliding_window": 512,
        "attention__sliding_window_pattern": [1, 0],
        "attention__key_length": 32,
        "attention__value_length": 32,
        "attention__key_length_swa": 16,
        "attention__value_length_swa": 8,
    }
    assert kv("gemma4", 2, **keys) == [2 * (16 + 8) * 2, 2 * (32 + 32) * 2]


def test_layers_that_share_a_cache_have_none_of_their_own() -> None:
    """The last ones of Gemma 3n and Gemma 4 look into those before."""
    windowed: dict[str, Any] = {"attention__sliding_window": 512}
    assert kv("gemma3n", 30, **windowed) == [FULL] * 20 + [0] * 10
    listed: dict[str, Any] = {"attention__sliding_window_pattern": [1, 1, 0, 1, 0]}
    assert (
        kv("gemma4", 5, **windowed, **listed, attention__shared_kv_layers=2) == [FULL] * 3 + [0] * 2
    )


def test_layers_that_guess_further_tokens_have_no_cache_here() -> None:
    """Nor are their weights loaded: that is done when somebody asks to guess with them."""
    assert kv("glm4moe", 4, nextn_predict_layers=1) == [FULL] * 3 + [0]
    guessing = tensor("blk.3.nextn.eh_proj.weight", 128, 64)
    found = layout(model("glm4moe", 4, [guessing], nextn_predict_layers=1))
    assert found.nextn_layers == 1
    assert [layer.weights for layer in found.layers] == [0] * 4
    assert (found.not_loaded, found.weights) == (guessing.size, guessing.size)


def state(architecture: str, layers: int, **keys: Any) -> list[int]:
    """The state of each layer in bytes; exactly."""
    found = layout(model(architecture, layers, **keys))
    assert found.kv_exact
    return [layer.state for layer in found.layers]


SSM: dict[str, Any] = {
    "ssm__conv_kernel": 4,
    "ssm__inner_size": 128,
    "ssm__state_size": 16,
    "ssm__time_step_rank": 8,
    "ssm__group_count": 2,
}
SSM_BYTES = (3 * (128 + 2 * 2 * 16) + 16 * 128) * 4


def test_a_recurrent_model_keeps_a_state_and_no_tokens() -> None:
    """Mamba by its convolution and state, RWKV by its shifts and heads; both without attention."""
    bare: dict[str, Any] = {"attention__head_count": None, "attention__head_count_kv": None}
    assert state("mamba2", 2, **SSM, **bare) == [SSM_BYTES] * 2
    assert kv("mamba2", 2, **SSM, **bare) == [0, 0]
    assert state("rwkv6", 2, wkv__head_size=16, **bare) == [64 * (2 + 16) * 4] * 2
    assert state("rwkv7", 1, wkv__head_size=16, token_shift_count=1, **bare) == [64 * 17 * 4]
    found = layout(model("mamba2", 2, **SSM, **bare))
    assert found.kv_bytes(100_000) == found.kv_bytes(256) == (SSM_BYTES,) * 2
    assert found.kv_bytes(256, slots=3) == (3 * SSM_BYTES,) * 2


def test_a_hybrid_has_a_state_where_it_has_no_heads() -> None:
    """As Jamba, Granite 4 and LFM2."""
    heads: dict[str, Any] = {"attention__head_count_kv": [0, 2, 0, 2]}
    assert state("jamba", 4, **SSM, **heads) == [SSM_BYTES, 0, SSM_BYTES, 0]
    assert kv("jamba", 4, **SSM, **heads) == [0, FULL, 0, FULL]
    assert state("lfm2", 4, shortconv__l_cache=3, **heads) == [64 * 2 * 4, 0, 64 * 2 * 4, 0]
    assert (
        state(
            "kimi-linear", 2, kda__head_dim=8, ssm__conv_kernel=4, attention__head_count_kv=[0, 1]
        )[0]
        == (3 * 3 * 4 * 8 + 8 * 8 * 4) * 4
    )


def test_a_hybrid_may_attend_in_each_so_many_layers() -> None:
    """As Qwen3-Next; or in those that a list leaves; or in all, as Falcon H1."""
    assert kv("qwen35", 8, **SSM) == [0, 0, 0, FULL] * 2
    assert kv("qwen35", 4, **SSM, full_attention_interval=2) == [0, FULL] * 2
    assert kv("qwen35", 3, **SSM, attention__recurrent_layers=[True, False, True]) == [0, FULL, 0]
    assert kv("qwen35", 5, **SSM, nextn_predict_layers=1) == [0, 0, 0, FULL, 0]
    assert kv("falcon-h1", 2, **SSM) == [FULL] * 2
    assert state("falcon-h1", 2, **SSM) == [SSM_BYTES] * 2


def test_a_layer_may_have_nothing_but_a_feed_forward_network() -> None:
    """As Nemotron H: a state where there are neither heads nor such a network."""
    keys: dict[str, Any] = {
        **SSM,
        "attention__head_count_kv": [0, 0, 2],
        "feed_forward_length": [0, 256, 0],
    }
    assert kv("nemotron_h", 3, **keys) == [0, 0, FULL]
    assert state("nemotron_h", 3, **keys) == [SSM_BYTES, 0, 0]


@pytest.mark.parametrize(
    ("architecture", "keys"),
    [
        ("made-up", {}),
        ("llama", {"attention__sliding_window": 128}),
        ("llama", {"ssm__state_size": 16}),
        ("llama", {"attention__causal": False}),
        ("made-up", {"attention__compress_ratios": [1, 2]}),
        ("mimo2", {"attention__sliding_window": 128}),
        ("nanbeige", {"num_loops": 2}),
        ("graniteswitch", {}),
        ("t5", {}),
    ],
)
def test_what_the_header_does_not_tell_is_an_upper_bound(
    architecture: str, keys: dict[str, Any]
) -> None:
    """Also for architectures that came after these rules. A full cache is the most there is."""
    found = layout(model(architecture, 2, **keys))
    assert not found.kv_exact
    rounds = keys.get("num_loops", 1)
    assert [layer.kv_per_token for layer in found.layers] == [FULL * rounds] * 2


def test_weights_of_an_unknown_type_are_counted_from_their_place() -> None:
    """A fork's types have no size in our table; what follows them tells it."""
    tensors = [
        Tensor(name="token_embd.weight", shape=(64, 2), kind=99, size=128),
        Tensor(name="blk.0.attn_q.weight", shape=(64, 2), kind=99, size=96),
        tensor("output_norm.weight", 64),
        Tensor(name="output.weight", shape=(64, 2), kind=99, size=160),
    ]
    found = read_layout([io.BytesIO(model(layers=1, tensors=tensors))], any_types=True)
    assert (found.embeddings, found.layers[0].weights, found.output) == (128, 96, 256 + 160)


def test_a_block_behind_the_last_layer_is_counted_in_it() -> None:
    """An upper bound, and no error for what llama.cpp leaves out."""
    found = layout(model(layers=2, tensors=[tensor("blk.7.attn_q.weight", 64, 2)]))
    assert [layer.weights for layer in found.layers] == [0, 64 * 2 * F32]


ARCHITECTURES = (
    *("llama", "gemma3", "gemma3n", "gemma4", "llama4", "qwen35", "jamba", "mamba2", "rwkv7"),
    *("nemotron_h", "lfm2", "glm-dsa", "kimi-linear", "minimax-01", "granite_swa", "bert"),
)
KEYS = (
    *("attention.sliding_window", "attention.sliding_window_pattern", "attention.key_length"),
    *("attention.key_length_swa", "attention.shared_kv_layers", "attention.recurrent_layers"),
    *("attention.indexer.types", "attention.indexer.key_length", "attention.head_count_kv"),
    *("ssm.state_size", "ssm.group_count", "ssm.conv_kernel", "ssm.inner_size", "kda.head_dim"),
    *("nextn_predict_layers", "full_attention_interval", "num_loops", "feed_forward_length"),
    *("wkv.head_size", "shortconv.l_cache", "expert_used_count", "expert_count"),
    *("token_shift_count",),
)
VALUES = st.one_of(
    st.integers(0, 2**32 - 1),
    st.integers(0, 9),
    st.booleans(),
    st.lists(st.integers(0, 9), min_size=1, max_size=6),
    st.lists(st.booleans(), min_size=1, max_size=6),
    st.just("text"),
)


@settings(max_examples=150, deadline=None)
@given(
    architecture=st.sampled_from(ARCHITECTURES),
    keys=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6),
)
def test_no_value_of_a_key_does_harm(architecture: str, keys: dict[str, Any]) -> None:
    """A layout, or one kind of error; and no layer keeps less for more context."""
    data = model(architecture, 4, **{key.replace(".", "__"): each for key, each in keys.items()})
    with contextlib.suppress(ModelFileError):
        found = layout(data)
        less, more = found.kv_bytes(512), found.kv_bytes(4096)
        assert all(0 <= each <= other for each, other in zip(less, more, strict=True))


def test_a_file_of_the_writer_has_a_layout_too() -> None:
    """As every file that can be offered and tells its attention."""
    assert len(layout(tiny()).layers) == 2


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_flipped_bytes_give_another_layout_or_one_kind_of_error(data: st.DataObject) -> None:
    """And no layout with less than nothing."""
    damaged = bytearray(
        model(
            "qwen3moe",
            2,
            [tensor("token_embd.weight", 64, 3), tensor("blk.1.ffn_up_exps.weight", 64, 2, 4)],
            expert_count=4,
            expert_used_count=[1, 2],
            attention__sliding_window_pattern=[True, False],
        )
    )
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ModelFileError):
        found = read_layout([io.BytesIO(bytes(damaged))], any_types=True)
        assert found.weights >= 0
        assert all(0 <= layer.experts <= layer.weights for layer in found.layers)
