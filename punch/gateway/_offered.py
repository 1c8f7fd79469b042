"""Which models are on offer, over all peers, and how OpenAI's clients read them. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import attrs

from ..capability import ModelOffer
from ..peers import PeerRecord
from ..wire import MAX_NAME_CHARACTERS
from ._errors import Refusal

AUTO = "auto"
"""The model that is any model."""

# Models that an error names.
MAX_NAMED_MODELS = 32


@attrs.frozen(kw_only=True)
class OfferedModel:
    """A model and the peers that offer it."""

    name: str
    """The name by which a request asks for the model."""

    offers: tuple[tuple[PeerRecord, ModelOffer], ...]
    """Each peer with its offer of the model."""

    @property
    def best(self) -> ModelOffer:
        """The offer that takes the longest context."""
        return max((offer for _, offer in self.offers), key=lambda o: o.context_tokens or 0)


def on_offer(peers: Sequence[PeerRecord]) -> dict[str, OfferedModel]:
    """Every model on offer, by name."""
    found: dict[str, list[tuple[PeerRecord, ModelOffer]]] = {}
    for peer in peers:
        for offer in peer.capability.models:
            found.setdefault(offer.name, []).append((peer, offer))
    return {name: OfferedModel(name=name, offers=tuple(found[name])) for name in sorted(found)}


def model_body(model: OfferedModel, began_at: int) -> dict[str, Any]:
    """A model, as OpenAI's clients read it, and what punch knows of it."""
    best = model.best
    return {
        "id": model.name,
        "object": "model",
        "created": began_at,
        "owned_by": "punch",
        "punch": {
            "peers": [peer.peer_id for peer, _ in model.offers],
            "simulated": all(peer.capability.lane(offer).simulated for peer, offer in model.offers),
            "digest": best.digest,
            "context_tokens": best.context_tokens,
            "features": sorted(set().union(*(offer.features for _, offer in model.offers))),
            "quantization": best.quantization,
            "parameters": best.parameters,
            "size_bytes": best.size_bytes,
        },
    }


def models_body(peers: Sequence[PeerRecord], began_at: int) -> dict[str, Any]:
    """``GET /v1/models``: `AUTO` first, unless nothing is on offer."""
    models = [model_body(model, began_at) for model in on_offer(peers).values()]
    auto = {"id": AUTO, "object": "model", "created": began_at, "owned_by": "punch"}
    return {"object": "list", "data": [auto, *models] if models else []}


def one_model_body(name: str, peers: Sequence[PeerRecord], began_at: int) -> dict[str, Any]:
    """``GET /v1/models/NAME``; raises `Refusal` with the models on offer."""
    offered = on_offer(peers)
    if name == AUTO and offered:
        return {"id": AUTO, "object": "model", "created": began_at, "owned_by": "punch"}
    if name in offered:
        return model_body(offered[name], began_at)
    raise no_such_model(name, offered)


def no_such_model(name: str, offered: Iterable[str]) -> Refusal:
    """A 404 that names the models on offer."""
    names = ", ".join(list(offered)[:MAX_NAMED_MODELS]) or "nothing"
    return Refusal(
        status=404,
        message=f"no listener offers {name[:MAX_NAME_CHARACTERS]!r}; on offer: {names}",
        code="model_not_found",
        param="model",
        cause="unknown_model",
    )
