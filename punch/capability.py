"""What a peer says it can do: the capability vector and its parts.

A capability is a *claim*. Whether to believe it is the business of
`punch.peers` (which measures) and `punch.routing` (which chooses). A value that
the peer could not measure is `None`; nothing in here is ever made up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NewType

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
    """Whether it can continue an answer that another peer has begun."""

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

    id: str | None = None
    """Names this very offer in a request's `offer`, 1 to 64 characters, unique within its peer;
    `None` from a peer of minor 0."""

    lane: str = ""
    """The id of its lane."""

    max_output: int | None = None
    """Tokens of the longest answer that this peer makes for another owner's, `None` for no cap."""

    architecture: str | None = None
    """llama.cpp's word for the kind of network, such as ``llama``; minor 1."""

    embedding_length: int | None = None
    """Numbers in one embedding; minor 1."""

    split: bool = False
    """Whether it runs over several machines, each of which reads what is asked; minor 1."""

    own_workers: bool = False
    """Whether all machines of a split are of its peer's owner; false also where that is not known.
    Minor 2."""

    plain_rpc: bool = False
    """Whether a machine of a split is reached by plain RPC, where nobody proves who it is and
    nothing is hidden on the way; minor 2."""

    machines: int | None = None
    """Machines that it runs over, the one of its head among them, if it is split; `None` where that
    is not told. Minor 2."""

    loaded_bytes: int | None = None
    """Memory that the loaded model takes, in bytes, as its engine says; minor 2."""

    gpu_bytes: int | None = None
    """How much of that is in GPUs, in bytes, as its engine says; minor 2."""

    @property
    def key(self) -> str:
        """Tells it from the other offers of its peer: its id, or its name where it has none."""
        return self.name if self.id is None else self.id


@attrs.frozen(kw_only=True)
class Load:
    """How busy a lane is at one instant, or a whole peer. Cheap; it rides on every response."""

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
    """Whether it only finishes what it has, and takes nothing new."""


@attrs.frozen(kw_only=True)
class Lane:
    """One backend of a listener, with its slots and its queue."""

    id: str = ""
    """Names it within its peer, 1 to 64 characters; empty only for a peer of minor 0, which has
    one lane."""

    backend: str
    """Name of the backend, such as ``llama_cpp``."""

    simulated: bool
    """True if the backend makes its answers up (the mock)."""

    load: Load = Load()
    """How busy it is."""

    state: str = "ready"
    """``ready``, ``starting``, ``resting`` or ``failed``; may grow. A lane in a state that is not
    known here is not chosen."""

    threads: int | None = None
    """Threads the backend computes with."""

    max_seconds: float | None = None
    """Seconds that it works on one answer for the peer that is told so, `None` for no cap."""

    max_priority: int | None = None
    """The highest priority that it takes from the peer that is told so, `None` for no cap."""

    closed_for: float | None = None
    """Seconds until it takes requests of the peer that is told so, by the hours that its owner has
    set for that peer; `None` if it takes them now."""

    reason: str | None = None
    """Why it is not ready, in a sentence of its peer's; `None` if there is no more to say."""


_IDLE = Load()

# What a peer without any lane tells: it takes nothing.
_NOTHING_TAKEN = Load(draining=True)


# Characters of a machine's name: it stands in tables, in the place of an identity.
MAX_MACHINE_NAME_CHARACTERS = 64


@attrs.frozen(kw_only=True)
class Capability:
    """One peer's claim about itself, at one instant.

    What is said of models is said by offer and by lane; `backend`, `simulated`, `load` and
    `threads` are what peers of minor 0 are told instead.
    """

    lanes: tuple[Lane, ...] = ()
    """Its backends. The ids differ, and each offer is of one of them."""

    models: tuple[ModelOffer, ...] = ()
    """The models it answers with."""

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

    machine_name: str | None = None
    """The machine's name for people, in the peer's own word; `None` where it has none. No rule
    goes by it."""

    @classmethod
    def of_one_lane(
        cls,
        *,
        backend: str,
        simulated: bool,
        load: Load = _IDLE,
        threads: int | None = None,
        lane: str = "",
        **fields: Any,
    ) -> Capability:
        """The claim of a peer with one backend, whose offers are all of that lane.

        Args:
          backend: Name of the backend.
          simulated: Whether it makes its answers up.
          load: How busy it is.
          threads: Threads it computes with.
          lane: The id of the lane.
          fields: Further fields of the capability.

        """
        one = Lane(id=lane, backend=backend, simulated=simulated, load=load, threads=threads)
        models = tuple(
            offer if offer.lane == lane else attrs.evolve(offer, lane=lane)
            for offer in fields.pop("models", ())
        )
        return cls(lanes=(one,), models=models, **fields)

    @property
    def backend(self) -> str:
        """The name of the first real lane's backend, else of the first lane's, else nothing."""
        for lane in self.lanes:
            if not lane.simulated:
                return lane.backend
        return self.lanes[0].backend if self.lanes else ""

    @property
    def simulated(self) -> bool:
        """True if any lane simulates."""
        return any(lane.simulated for lane in self.lanes)

    @property
    def load(self) -> Load:
        """How busy all lanes are together; draining if all of them drain."""
        # Nearly every peer has one lane, and every decision looks here several times.
        if len(self.lanes) == 1:
            return self.lanes[0].load
        loads = [lane.load for lane in self.lanes]
        if not loads:
            return _NOTHING_TAKEN
        return Load(
            slots=sum(load.slots for load in loads),
            busy=sum(load.busy for load in loads),
            queued=sum(load.queued for load in loads),
            queue_limit=sum(load.queue_limit for load in loads),
            queued_prompt_tokens=sum(load.queued_prompt_tokens for load in loads),
            output_tokens_left=sum(load.output_tokens_left for load in loads),
            draining=all(load.draining for load in loads),
        )

    @property
    def threads(self) -> int | None:
        """Threads of the first lane that says how many."""
        return next((lane.threads for lane in self.lanes if lane.threads is not None), None)

    def lane(self, offer: ModelOffer) -> Lane:
        """The lane of one of its offers.

        Raises:
          KeyError: if the offer is none of this peer's.

        """
        for lane in self.lanes:
            if lane.id == offer.lane:
                return lane
        raise KeyError(offer.lane)

    def with_loads(self, loads: Mapping[str, Load]) -> Capability:
        """The same claim with newer loads, by the id of their lane; other ids are ignored."""
        if all(loads.get(lane.id, lane.load) == lane.load for lane in self.lanes):
            return self
        lanes = tuple(
            attrs.evolve(lane, load=loads[lane.id]) if lane.id in loads else lane
            for lane in self.lanes
        )
        return attrs.evolve(self, lanes=lanes)

    def offer(self, model: str | None, digest: str | None = None) -> ModelOffer | None:
        """The first offer that satisfies a request for *model* and *digest* (`None`: any)."""
        for offer in self.models:
            if model is not None and offer.name != model:
                continue
            if digest is not None and offer.digest != digest:
                continue
            return offer
        return None

    def offers(self, model: str | None, digest: str | None = None) -> tuple[ModelOffer, ...]:
        """All offers that satisfy a request for *model* and *digest* (`None`: any), in order."""
        return tuple(
            offer
            for offer in self.models
            if (model is None or offer.name == model) and (digest is None or offer.digest == digest)
        )
