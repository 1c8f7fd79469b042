"""Writes whole models of many architectures that llama.cpp loads: tiny ones, with weights of 0."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gguf_writer import Tensor, gguf

EMBEDDING = 64
FEED = 96
HEADS = 4
HEAD = EMBEDDING // HEADS
KV_HEADS = 2
INNER = 2 * EMBEDDING
STATE = 16
CONVOLUTION = 4
EXPERTS = 4

# A vocabulary of bytes alone, as SentencePiece's.
TOKENS = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "a"]
KINDS = [2, 3, 3, *([6] * 256), 1]

Shapes = dict[str, tuple[int, ...]]


def attention(kv_heads: int = KV_HEADS) -> Shapes:
    """Queries, keys, values and output."""
    return {
        "attn_q.weight": (EMBEDDING, EMBEDDING),
        "attn_k.weight": (EMBEDDING, kv_heads * HEAD),
        "attn_v.weight": (EMBEDDING, kv_heads * HEAD),
        "attn_output.weight": (EMBEDDING, EMBEDDING),
    }


FORWARD: Shapes = {
    "ffn_norm.weight": (EMBEDDING,),
    "ffn_gate.weight": (EMBEDDING, FEED),
    "ffn_up.weight": (EMBEDDING, FEED),
    "ffn_down.weight": (FEED, EMBEDDING),
}
MIXTURE: Shapes = {
    "ffn_norm.weight": (EMBEDDING,),
    "ffn_gate_inp.weight": (EMBEDDING, EXPERTS),
    "ffn_gate_exps.weight": (EMBEDDING, FEED, EXPERTS),
    "ffn_up_exps.weight": (EMBEDDING, FEED, EXPERTS),
    "ffn_down_exps.weight": (FEED, EMBEDDING, EXPERTS),
}
NORM: Shapes = {"attn_norm.weight": (EMBEDDING,)}
HEAD_NORMS: Shapes = {"attn_q_norm.weight": (HEAD,), "attn_k_norm.weight": (HEAD,)}


def write_model(
    path: Path,
    architecture: str,
    layers: Sequence[Shapes],
    *,
    ends: Shapes | None = None,
    parts: int = 1,
    **keys: Any,
) -> Path:
    """Write a model of *architecture*; keyword arguments are its keys, with ``__`` for a dot.

    In several *parts*, it returns the first.
    """
    pairs: dict[str, Any] = {
        "general.architecture": architecture,
        "general.name": f"tiny {architecture}",
        f"{architecture}.block_count": len(layers),
        f"{architecture}.context_length": 4096,
        f"{architecture}.embedding_length": EMBEDDING,
        f"{architecture}.feed_forward_length": FEED,
        f"{architecture}.attention.head_count": HEADS,
        f"{architecture}.attention.head_count_kv": KV_HEADS,
        f"{architecture}.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.scores": floats([0.0] * len(TOKENS)),
        "tokenizer.ggml.token_type": integers(KINDS),
    }
    pairs |= {f"{architecture}.{key.replace('__', '.')}": each for key, each in keys.items()}
    shapes: Shapes = {"token_embd.weight": (EMBEDDING, len(TOKENS))}
    shapes |= {"output_norm.weight": (EMBEDDING,)} if ends is None else ends
    for i, layer in enumerate(layers):
        shapes |= {f"blk.{i}.{name}": shape for name, shape in layer.items()}
    tensors = []
    for name, shape in shapes.items():
        size = 4
        for length in shape:
            size *= length
        tensors.append(Tensor(name=name, shape=shape, size=size))
    if parts == 1:
        path.write_bytes(gguf(pairs, tensors))
        return path
    paths = [path.with_name(f"{path.stem}-{i + 1:05}-of-{parts:05}.gguf") for i in range(parts)]
    for i, part in enumerate(paths):
        split = {
            "split.no": struct.pack("<IH", 2, i),
            "split.count": struct.pack("<IH", 2, parts),
            "split.tensors.count": struct.pack("<Ii", 5, len(tensors)),
        }
        part.write_bytes(gguf((pairs if i == 0 else {}) | split, tensors[i::parts]))
    return paths[0]


def integers(found: Sequence[int]) -> bytes:
    """A list of int32, with its type."""
    return struct.pack(f"<IIQ{len(found)}i", 9, 5, len(found), *found)


def floats(found: Sequence[float]) -> bytes:
    """A list of float32, with its type."""
    return struct.pack(f"<IIQ{len(found)}f", 9, 6, len(found), *found)


def gemma2(path: Path) -> Path:
    """Every other layer has a window of 480 tokens; the output is tied."""
    layer = {
        **NORM,
        **attention(),
        "post_attention_norm.weight": (EMBEDDING,),
        **FORWARD,
        "post_ffw_norm.weight": (EMBEDDING,),
    }
    return write_model(path, "gemma2", [layer] * 6, attention__sliding_window=480)


def qwen3moe(path: Path) -> Path:
    """Experts, and an output of its own, in three files."""
    ends: Shapes = {
        "output_norm.weight": (EMBEDDING,),
        "output.weight": (EMBEDDING, len(TOKENS)),
    }
    layer = {**NORM, **attention(), **HEAD_NORMS, **MIXTURE}
    return write_model(
        path,
        "qwen3moe",
        [layer] * 4,
        ends=ends,
        parts=3,
        expert_count=EXPERTS,
        expert_used_count=2,
        expert_feed_forward_length=FEED,
    )


def deepseek2(path: Path) -> Path:
    """Latent attention; the first layer without experts."""
    latent, rope, nope, value = 32, 8, 16, 16
    attending: Shapes = {
        **NORM,
        "attn_q.weight": (EMBEDDING, HEADS * (nope + rope)),
        "attn_kv_a_mqa.weight": (EMBEDDING, latent + rope),
        "attn_kv_a_norm.weight": (latent,),
        "attn_k_b.weight": (nope, latent, HEADS),
        "attn_v_b.weight": (latent, value, HEADS),
        "attn_output.weight": (HEADS * value, EMBEDDING),
    }
    shared: Shapes = {
        "ffn_gate_shexp.weight": (EMBEDDING, FEED),
        "ffn_up_shexp.weight": (EMBEDDING, FEED),
        "ffn_down_shexp.weight": (FEED, EMBEDDING),
    }
    return write_model(
        path,
        "deepseek2",
        [{**attending, **FORWARD}, *[{**attending, **MIXTURE, **shared}] * 26],
        leading_dense_block_count=1,
        expert_count=EXPERTS,
        expert_used_count=2,
        expert_feed_forward_length=FEED,
        expert_shared_count=1,
        attention__kv_lora_rank=latent,
        attention__head_count_kv=1,
        attention__key_length=latent + rope,
        attention__value_length=latent,
        attention__key_length_mla=nope + rope,
        attention__value_length_mla=value,
        rope__dimension_count=rope,
    )


def jamba(path: Path) -> Path:
    """A state in three layers of four."""
    rank = 4
    recurrent: Shapes = {
        **NORM,
        "ssm_in.weight": (EMBEDDING, 2 * INNER),
        "ssm_conv1d.weight": (CONVOLUTION, INNER),
        "ssm_conv1d.bias": (INNER,),
        "ssm_x.weight": (INNER, rank + 2 * STATE),
        "ssm_dt_norm.weight": (rank,),
        "ssm_dt.weight": (rank, INNER),
        "ssm_dt.bias": (INNER,),
        "ssm_b_norm.weight": (STATE,),
        "ssm_c_norm.weight": (STATE,),
        "ssm_a": (STATE, INNER),
        "ssm_d": (INNER,),
        "ssm_out.weight": (INNER, EMBEDDING),
        **FORWARD,
    }
    return write_model(
        path,
        "jamba",
        [recurrent, recurrent, {**NORM, **attention(), **FORWARD}, recurrent],
        attention__head_count_kv=[0, 0, KV_HEADS, 0],
        ssm__conv_kernel=CONVOLUTION,
        ssm__inner_size=INNER,
        ssm__state_size=STATE,
        ssm__time_step_rank=rank,
    )


def lfm2(path: Path) -> Path:
    """A short convolution in two layers of three; the last norm has the name of another."""
    recurrent: Shapes = {
        **NORM,
        "shortconv.conv.weight": (3, EMBEDDING),
        "shortconv.in_proj.weight": (EMBEDDING, 3 * EMBEDDING),
        "shortconv.out_proj.weight": (EMBEDDING, EMBEDDING),
        **FORWARD,
    }
    return write_model(
        path,
        "lfm2",
        [recurrent, {**NORM, **attention(), **HEAD_NORMS, **FORWARD}, recurrent],
        ends={"token_embd_norm.weight": (EMBEDDING,)},
        attention__head_count_kv=[0, KV_HEADS, 0],
        shortconv__l_cache=3,
    )


def qwen35(path: Path) -> Path:
    """A state in all but each third layer, and a layer that guesses further tokens."""
    groups, heads = 2, 4
    keys, values = STATE * groups, STATE * heads
    recurrent: Shapes = {
        **NORM,
        "post_attention_norm.weight": (EMBEDDING,),
        "attn_qkv.weight": (EMBEDDING, 2 * keys + values),
        "attn_gate.weight": (EMBEDDING, values),
        "ssm_conv1d.weight": (CONVOLUTION, 2 * keys + values),
        "ssm_dt.bias": (heads,),
        "ssm_a": (heads,),
        "ssm_beta.weight": (EMBEDDING, heads),
        "ssm_alpha.weight": (EMBEDDING, heads),
        "ssm_norm.weight": (STATE,),
        "ssm_out.weight": (values, EMBEDDING),
        **FORWARD,
    }
    attending: Shapes = {
        **NORM,
        **attention(),
        **HEAD_NORMS,
        "post_attention_norm.weight": (EMBEDDING,),
        "attn_q.weight": (EMBEDDING, 2 * EMBEDDING),
        **FORWARD,
    }
    guessing: Shapes = {
        **attending,
        "nextn.eh_proj.weight": (2 * EMBEDDING, EMBEDDING),
        "nextn.enorm.weight": (EMBEDDING,),
        "nextn.hnorm.weight": (EMBEDDING,),
    }
    for shapes in (recurrent, attending, guessing):  # It has another norm before that network.
        del shapes["ffn_norm.weight"]
    return write_model(
        path,
        "qwen35",
        [*[recurrent, recurrent, attending] * 2, guessing],
        nextn_predict_layers=1,
        full_attention_interval=3,
        rope__dimension_sections=integers([2, 2, 2, 0]),
        ssm__conv_kernel=CONVOLUTION,
        ssm__inner_size=values,
        ssm__state_size=STATE,
        ssm__time_step_rank=heads,
        ssm__group_count=groups,
    )


def gemma4(path: Path) -> Path:
    """Windows by a list, narrower heads there, and two layers without a cache of their own."""
    sliding = [1, 1, 0, 1, 0]
    layers = []
    for narrow in sliding:
        head = HEAD if narrow else 2 * HEAD
        layers.append(
            {
                **NORM,
                "attn_q.weight": (EMBEDDING, HEADS * head),
                "attn_k.weight": (EMBEDDING, KV_HEADS * head),
                "attn_v.weight": (EMBEDDING, KV_HEADS * head),
                "attn_output.weight": (HEADS * head, EMBEDDING),
                "attn_q_norm.weight": (head,),
                "attn_k_norm.weight": (head,),
                "post_attention_norm.weight": (EMBEDDING,),
                **FORWARD,
                "post_ffw_norm.weight": (EMBEDDING,),
            }
        )
    return write_model(
        path,
        "gemma4",
        layers,
        ends={"output_norm.weight": (EMBEDDING,), "rope_freqs.weight": (HEAD,)},
        attention__sliding_window=480,
        attention__sliding_window_pattern=integers(sliding),
        attention__shared_kv_layers=2,
        attention__key_length=2 * HEAD,
        attention__value_length=2 * HEAD,
        attention__key_length_swa=HEAD,
        attention__value_length_swa=HEAD,
        embedding_length_per_layer_input=0,
    )


def mamba2(path: Path) -> Path:
    """A state in each layer, and no attention at all."""
    groups, heads = 2, 8
    across = INNER + 2 * groups * STATE
    layer: Shapes = {**NORM, **_second_mamba(across, heads, groups)}
    return write_model(
        path,
        "mamba2",
        [layer] * 3,
        attention__head_count=0,
        attention__head_count_kv=0,
        ssm__conv_kernel=CONVOLUTION,
        ssm__inner_size=INNER,
        ssm__state_size=STATE,
        ssm__time_step_rank=heads,
        ssm__group_count=groups,
    )


def nemotron_h(path: Path) -> Path:
    """Layers with a state, with attention, and with a feed-forward network alone."""
    groups, heads = 2, 8
    across = INNER + 2 * groups * STATE
    recurrent: Shapes = {**NORM, **_second_mamba(across, heads, groups)}
    feeding: Shapes = {
        **NORM,
        "ffn_up.weight": (EMBEDDING, FEED),
        "ffn_down.weight": (FEED, EMBEDDING),
    }
    attending: Shapes = {**NORM, **attention()}
    return write_model(
        path,
        "nemotron_h",
        [recurrent, feeding, attending, feeding, recurrent],
        attention__head_count_kv=[0, 0, KV_HEADS, 0, 0],
        attention__layer_norm_epsilon=1e-5,
        feed_forward_length=[0, FEED, 0, FEED, 0],
        ssm__conv_kernel=CONVOLUTION,
        ssm__inner_size=INNER,
        ssm__state_size=STATE,
        ssm__time_step_rank=heads,
        ssm__group_count=groups,
    )


def _second_mamba(across: int, heads: int, groups: int) -> Shapes:
    return {
        "ssm_in.weight": (EMBEDDING, INNER + across + heads),
        "ssm_conv1d.weight": (CONVOLUTION, across),
        "ssm_conv1d.bias": (across,),
        "ssm_dt.bias": (heads,),
        "ssm_a": (1, heads),
        "ssm_d": (1, heads),
        "ssm_norm.weight": (INNER // groups, groups),
        "ssm_out.weight": (INNER, EMBEDDING),
    }


def gpt_oss(path: Path) -> Path:
    """Experts with biases, and a window in every other layer."""
    layer: Shapes = {
        **NORM,
        **attention(),
        "post_attention_norm.weight": (EMBEDDING,),
        "attn_output.bias": (EMBEDDING,),
        "attn_sinks.weight": (HEADS,),
        **MIXTURE,
        "ffn_gate_inp.bias": (EXPERTS,),
        "ffn_gate_exps.bias": (FEED, EXPERTS),
        "ffn_up_exps.bias": (FEED, EXPERTS),
        "ffn_down_exps.bias": (EMBEDDING, EXPERTS),
    }
    del layer["ffn_norm.weight"]
    return write_model(
        path,
        "gpt-oss",
        [layer] * 4,
        ends={"output_norm.weight": (EMBEDDING,), "output.weight": (EMBEDDING, len(TOKENS))},
        attention__sliding_window=480,
        expert_count=EXPERTS,
        expert_used_count=2,
        expert_feed_forward_length=FEED,
    )


MODELS = (
    *(gemma2, gemma4, gpt_oss, qwen3moe, deepseek2),
    *(jamba, lfm2, qwen35, nemotron_h, mamba2),
)
