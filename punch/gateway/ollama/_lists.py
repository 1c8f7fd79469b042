"""What is on offer, as Ollama's clients read it: lists, details, a digest of each. No I/O.

Its Go client cuts the first twelve digits of a digest without looking whether there are any, and
VS Code looks up the context under the word for the architecture: so both are always there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from ...peers import PeerRecord
from .._offered import OfferedModel, on_offer
from ._shapes import moment

# What Ollama itself writes where a file does not say how its weights are stored.
UNKNOWN = "unknown"

# A loaded model stays until its listener ends. Ollama says "for ever" as the longest time that Go
# can count from now on, and its command line prints that as such.
FOR_EVER_SECONDS = ((1 << 63) - 1) // 10**9

# A word of an offer's features to Ollama's word for it, in the order in which Ollama has them.
_CAPABILITIES = (
    ("complete", "completion"),
    ("chat", "completion"),
    ("image", "vision"),
    ("tools", "tools"),
    ("insert", "insert"),
    ("reasoning", "thinking"),
)


def digest_of(model: OfferedModel) -> str:
    """64 hexadecimal digits: of the model's file, or where no peer knows them, of its name.

    Those of the name are the same for every gateway and every time, and no file has them.
    """
    known = (model.best.digest, *(offer.digest for _, offer in model.offers))
    named = hashlib.sha256(f"punch offers {model.name}".encode(errors="replace")).hexdigest()
    return next((digest for digest in known if digest is not None), named)


def architecture_of(model: OfferedModel) -> str:
    """llama.cpp's word for the kind of network, as far as any peer says it."""
    known = (model.best.architecture, *(offer.architecture for _, offer in model.offers))
    return next((word for word in known if word is not None), UNKNOWN)


def capabilities_of(model: OfferedModel) -> list[str]:
    """What a model is for, in Ollama's words.

    `embedding` is there for models that do nothing else: `ollama run` takes each one that says so
    for one of these.
    """
    features = set().union(*(offer.features for _, offer in model.offers))
    words = dict.fromkeys(theirs for ours, theirs in _CAPABILITIES if ours in features)
    if "completion" not in words and "embed" in features:
        return ["embedding"]
    return list(words)


def details_body(model: OfferedModel) -> dict[str, Any]:
    """What Ollama calls the details of a model."""
    best = model.best
    architecture = architecture_of(model)
    found: dict[str, Any] = {
        "parent_model": "",
        "format": "gguf",
        "family": architecture,
        "families": [architecture],
        "parameter_size": "" if best.parameters is None else _in_short(best.parameters),
        "quantization_level": best.quantization or UNKNOWN,
    }
    if best.context_tokens is not None:
        found["context_length"] = best.context_tokens
    if best.embedding_length is not None:
        found["embedding_length"] = best.embedding_length
    return found


def _in_short(parameters: int) -> str:
    for least, letter in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K")):
        if parameters >= least:
            places = 2 if letter == "M" else 1
            return f"{parameters / least:.{places}f}{letter}"
    return str(parameters)


def tag_body(model: OfferedModel, began_at: int) -> dict[str, Any]:
    """A model, in a list."""
    return {
        "name": model.name,
        "model": model.name,
        "modified_at": moment(began_at),
        "size": model.best.size_bytes or 0,
        "digest": digest_of(model),
        "details": details_body(model),
        "capabilities": capabilities_of(model),
    }


def tags_body(peers: Sequence[PeerRecord], began_at: int) -> dict[str, Any]:
    """``GET /api/tags``."""
    return {"models": [tag_body(model, began_at) for model in on_offer(peers).values()]}


def running_body(model: OfferedModel, began_at: int) -> dict[str, Any]:
    """A loaded model."""
    best = model.best
    size, on_gpus = _in_memory(model)
    return {
        "name": model.name,
        "model": model.name,
        "size": size,
        "digest": digest_of(model),
        "details": details_body(model),
        "expires_at": moment(began_at + FOR_EVER_SECONDS),
        "size_vram": on_gpus,
        "context_length": best.context_tokens or 0,
    }


def _in_memory(model: OfferedModel) -> tuple[int, int]:
    """The bytes that it takes where it is loaded, and those of them in GPUs; 0 if nobody says.

    Both are of one peer, for ``ollama ps`` writes their quotient, and of more in GPUs than there is
    in all that it does not know.
    """
    loaded = [offer for _, offer in model.offers if offer.load_seconds == 0]
    for offer in loaded:
        if offer.gpu_bytes is not None:
            whole = offer.loaded_bytes or offer.size_bytes or 0
            return max(whole, offer.gpu_bytes), offer.gpu_bytes
    known = (offer.loaded_bytes or offer.size_bytes for offer in (*loaded, model.best))
    return next(filter(None, known), 0), 0


def ps_body(peers: Sequence[PeerRecord], began_at: int) -> dict[str, Any]:
    """``GET /api/ps``: the models that at least one peer has loaded."""
    loaded = [
        model
        for model in on_offer(peers).values()
        if any(offer.load_seconds == 0 for _, offer in model.offers)
    ]
    return {"models": [running_body(model, began_at) for model in loaded]}


def show_body(model: OfferedModel, began_at: int, *, system: str = "") -> dict[str, Any]:
    """All that is known of a model; *system* is a text that the request brought, told again."""
    best = model.best
    architecture = architecture_of(model)
    info: dict[str, Any] = {
        "general.architecture": architecture,
        "general.basename": model.name,
    }
    if best.parameters is not None:
        info["general.parameter_count"] = best.parameters
    # What a request can have. What the model was trained for may be more, and clients ask for as
    # much as stands here.
    if best.context_tokens is not None:
        info[f"{architecture}.context_length"] = best.context_tokens
    if best.embedding_length is not None:
        info[f"{architecture}.embedding_length"] = best.embedding_length
    settings = [] if best.context_tokens is None else [("num_ctx", best.context_tokens)]
    lines = ["# Written by punch: listeners offer this model", f"FROM {model.name}"]
    lines += [f"PARAMETER {name} {value}" for name, value in settings]
    found: dict[str, Any] = {
        "license": "",
        "modelfile": "\n".join([*lines, ""]),
        "parameters": "\n".join(f"{name:<30} {value}" for name, value in settings),
        "template": "",
        "details": details_body(model),
        "model_info": info,
        "capabilities": capabilities_of(model),
        "modified_at": moment(began_at),
    }
    if system:
        found["system"] = system
    return found
