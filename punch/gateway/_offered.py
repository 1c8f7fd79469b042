"""Which models are on offer, over all peers, and which of them a name means. No I/O.

Also how OpenAI's clients read them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import attrs

from ..capability import ModelOffer
from ..peers import PeerRecord
from ..routing.names import ANY, Ambiguous, Meaning, ModelNames
from ..wire import MAX_NAME_CHARACTERS
from ..wire import Naming as Exactness
from ._errors import Refusal
from .keys._keys import Key

AUTO = ANY
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


@attrs.frozen(kw_only=True)
class Wanted:
    """The model that a request is answered with, as far as its name says."""

    model: str | None
    """The name that it is offered under, or as it was said if none is on offer; `None` for any."""

    asked: str | None
    """What the router is asked for."""

    naming: Exactness = "near"
    """How exactly that names it."""

    entry: str | None = None
    """The same in the words of the API key's list, if it has one."""


@attrs.define(kw_only=True)
class Naming:
    """Decides which model a name means, in every dialect."""

    any_name: bool | None = None
    """Whether any name means the one model that is on offer, if it is one; `None` where no API key
    is needed."""

    is_keyed: bool = False
    """Whether requests need an API key."""

    strict: bool = False
    """Real inference only."""

    def wanted(
        self, said: str | None, names: ModelNames, *, command: str, key: Key | None = None
    ) -> Wanted:
        """The model for a request that names it as *said*, with this API *key*.

        Raises:
          Refusal: if it may be any of several.
          ModelForbidden: if the key may not use it.

        """
        if key is not None and key.models:
            return self._allowed(said, names, command, key)
        if said is None:
            return Wanted(model=None, asked=None)
        found = names.meaning(
            said, command=command, strict=self.strict, any_name=self._takes_any_name
        )
        if isinstance(found, Ambiguous):
            raise ambiguous(said, found)
        model = said if found is None else found.name
        naming: Exactness = "any" if self._takes_any_name else "near"
        return Wanted(model=model, asked=said, naming=naming, entry=model)

    def found(self, said: str, names: ModelNames, *, any_name: bool = True) -> str | None:
        """The name on offer that *said* means, whatever it is to do; `None` for any model.

        Args:
          said: The name as a client has written it.
          names: What the models on offer are called.
          any_name: Whether any name may mean the only model, if that is set.

        Raises:
          Refusal: if there is none, or if it may be any of several.

        """
        any_name = any_name and self._takes_any_name
        meaning = names.meaning(said, strict=self.strict, any_name=any_name)
        if isinstance(meaning, Ambiguous):
            raise ambiguous(said, meaning)
        if meaning is None:
            raise no_such_model(said, names.offered)
        return meaning.name

    @property
    def _takes_any_name(self) -> bool:
        return not self.is_keyed if self.any_name is None else self.any_name

    def _allowed(self, said: str | None, names: ModelNames, command: str, key: Key) -> Wanted:
        """The same for a key that is limited to some models.

        Its list says models and no aliases: whoever sets an alias does not change what it may use.
        """
        allowed = {names.spelled(entry) or entry: entry for entry in reversed(key.models)}
        model = None if said is None else names.spelled(said)
        if said is not None and model not in allowed:
            found = names.meaning(
                said, command=command, strict=self.strict, any_name=self._takes_any_name
            )
            if isinstance(found, Ambiguous):
                left = [name for name in found.names if name in allowed]
                if len(left) != 1:
                    raise key.forbidden(said) if not left else ambiguous(said, found)
                model = left[0]
            else:
                model = said if found is None else found.name
        if model is None:
            only = key.model_for(None)
            model = next(name for name, entry in allowed.items() if entry == only)
        if model not in allowed:
            raise key.forbidden(said)
        return Wanted(model=model, asked=model, naming="exact", entry=allowed[model])


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


def models_body(
    peers: Sequence[PeerRecord], began_at: int, names: ModelNames | None = None
) -> dict[str, Any]:
    """``GET /v1/models``: `AUTO` first, unless nothing is on offer, and at the end the aliases.

    Programs ask for nothing that is not in the list.
    """
    offered = on_offer(peers)
    models = [model_body(model, began_at) for model in offered.values()]
    plain = {"object": "model", "created": began_at, "owned_by": "punch"}
    for alias in () if names is None else names.aliases.all:
        meant = None if alias.is_pattern else names and names.meaning(alias.name)
        if isinstance(meant, Meaning) and alias.name not in offered:
            models.append({"id": alias.name, **plain, "punch": {"alias_of": meant.name or AUTO}})
    return {"object": "list", "data": [{"id": AUTO, **plain}, *models] if models else []}


def one_model_body(name: str | None, peers: Sequence[PeerRecord], began_at: int) -> dict[str, Any]:
    """``GET /v1/models/NAME``, for the *name* on offer, or `None` for any.

    Raises:
      Refusal: with the models on offer, if it is none of them.

    """
    offered = on_offer(peers)
    if name is None and offered:
        return {"id": AUTO, "object": "model", "created": began_at, "owned_by": "punch"}
    if name is None or name not in offered:
        raise no_such_model(name or AUTO, offered)
    return model_body(offered[name], began_at)


def model_on_offer(
    said: str, naming: Naming, names: ModelNames, peers: Sequence[PeerRecord], *, any_name: bool
) -> OfferedModel:
    """The model on offer that *said* means: for `AUTO`, all of them as one.

    Raises:
      Refusal: if there is none, or if it may be any of several.

    """
    name, offered = naming.found(said, names, any_name=any_name), on_offer(peers)
    if name is None and offered:
        every = tuple(pair for model in offered.values() for pair in model.offers)
        return OfferedModel(name=AUTO, offers=every)
    if name is None or name not in offered:
        raise no_such_model(said, offered)
    return offered[name]


def ambiguous(name: str, found: Ambiguous) -> Refusal:
    """A 404 that names the models which *name* may mean."""
    names = ", ".join(found.names[:MAX_NAMED_MODELS])
    return Refusal(
        status=404,
        message=f"{name[:MAX_NAME_CHARACTERS]!r} may mean several models; name one: {names}",
        code="model_not_found",
        param="model",
        cause="unknown_model",
    )


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
