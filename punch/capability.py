"""What a peer says it can do: the capability vector and its parts.

A capability is a *claim*. Whether to believe it is the business of
`punch.peers` (which measures) and `punch.routing` (which chooses). A value that
the peer could not measure is `None`; nothing in here is ever made up.
"""

from __future__ import annotations

from typing import NewType

import attrs

PeerId = NewType("PeerId", str)
"""The identity of a peer: the base58 hash of its Ed25519 public key, as libp2p spells it."""


@attrs.frozen(kw_only=True)
class Gpu:
    """One GPU, as its driver or the backend describes it."""

    name: str
    """The driver's name for it, such as ``NVIDIA GeForce RTX 4090``."""

    total_bytes: int
    """Memory, in bytes."""

    free_bytes: int | None = None
    """Memory not in use now, in bytes."""

    usage: float | None = None
    """Share of time the GPU was busy lately, 0 to 1."""

    compute_units: int | None = None
    """Number of cores as the vendor counts them."""


@attrs.frozen(kw_only=True)
class ModelOffer:
    """One model that a peer can answer with."""

    name: str
    """The name a request may ask for."""

    digest: str | None = None
    """SHA-256 of the model file, 64 hexadecimal digits."""

    context_tokens: int | None = None
    """Longest prompt plus answer of one request, in tokens."""

    features: frozenset[str] = frozenset({"chat", "complete"})
    """Commands it can serve (``chat``, ``complete``, ``embed``) and what it can do in an answer:
    ``tools``, ``json_schema``, ``logprobs``."""

    parameters: int | None = None
    """Number of weights."""

    quantization: str | None = None
    """How the weights are stored, such as ``Q4_K_M``."""

    size_bytes: int | None = None
    """Size of the weights, in bytes."""

    kv_bytes_per_token: int | None = None
    """Size of the key-value cache for one token of context, in bytes."""

    chat_template: str | None = None
    """SHA-256 of the chat template it writes a conversation with, where that is known."""

    continues: bool = False
    """It can go on with an answer that another peer has begun."""

    load_seconds: float = 0.0
    """Seconds until it can answer: 0 if it is loaded."""

    prefill_rate: float | None = None
    """Prompt tokens per second of one request, measured on this peer."""

    decode_rate: float | None = None
    """Answer tokens per second of one request alone, measured on this peer."""

    usual_tokens: int | None = None
    """Length of a usual answer, in tokens, learned from those it gave."""

    slowdown: float | None = None
    """How much longer a token takes for each further request in the batch, as a share."""


@attrs.frozen(kw_only=True)
class Load:
    """How busy a peer is at one instant. Cheap; it rides on every response."""

    slots: int = 1
    """Requests it can serve side by side."""

    busy: int = 0
    """Requests it is serving."""

    queued: int = 0
    """Requests that wait for a slot."""

    queue_limit: int = 0
    """Requests that may wait; further ones are refused."""

    queued_prompt_tokens: int = 0
    """Prompt tokens still to be read: of the waiting requests, and of those that were begun and
    have given no text yet (estimated from their text)."""

    output_tokens_left: int = 0
    """Answer tokens still to be made, for the requests begun and the waiting ones (expected)."""

    draining: bool = False
    """It finishes what it has and takes nothing new."""


@attrs.frozen(kw_only=True)
class Capability:
    """One peer's claim about itself, at one instant."""

    backend: str
    """Name of the backend, such as ``llama_cpp``."""

    simulated: bool
    """True if the backend makes its answers up (the mock)."""

    models: tuple[ModelOffer, ...] = ()
    """The models it answers with."""

    load: Load = Load()
    """How busy it is."""

    threads: int | None = None
    """Threads the backend computes with."""

    cpu_count: int | None = None
    """Logical CPUs of the machine."""

    cpu_usage: float | None = None
    """Share of all CPUs in use, 0 to 1, over the last second or so."""

    memory_total_bytes: int | None = None
    """Main memory, in bytes."""

    memory_available_bytes: int | None = None
    """Main memory that a new program could use, in bytes."""

    disk_total_bytes: int | None = None
    """Size of the disk that holds the models, in bytes."""

    disk_available_bytes: int | None = None
    """Free space on it, in bytes."""

    gpus: tuple[Gpu, ...] = ()
    """Its GPUs."""

    def offer(self, model: str | None, digest: str | None = None) -> ModelOffer | None:
        """The offer that satisfies a request for *model* and *digest* (`None`: any)."""
        for offer in self.models:
            if model is not None and offer.name != model:
                continue
            if digest is not None and offer.digest != digest:
                continue
            return offer
        return None
