# Which model a name means.
#
# Rule 1: an alias of exactly this name comes first: it is what the owner of this machine has said.
# Then the name that a model is offered under. Neither is a guess.
#
# Rule 2: then whatever is spelled nearly so, the nearest first, see `ModelNames._levels`. At the
# first step where any model is found, it is found or it is ambiguous: no later step is tried.
#
# Rule 3: names that were offered for one and the same file are one model. Only real offers count
# for that: what a simulation claims of a file says nothing.
#
# Rule 4: where several are left, those that can do what is asked are meant, and of these the real
# ones before any that simulates.
"""Decides which of the models on offer a name means, from the offers of all peers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal

import attrs

from ...capability import ModelOffer
from ...peers import PeerRecord
from ...wire import CommandRequest
from ._aliases import NO_ALIASES, Aliases
from ._spelling import folded, plain, shortened, shorter_paths

ANY = "auto"
"""The name that means any model."""

_DIGEST = re.compile(r"(?:sha256[:-])?([0-9a-f]{64})", re.IGNORECASE)

By = Literal["name", "alias", "only"]


@attrs.frozen
class PulledModel:
    """A model that can be fetched by a name of its own."""

    file: str
    """The name of its file."""

    digest: str
    """SHA-256 of its file."""


@attrs.frozen(kw_only=True)
class Meaning:
    """The model that a name means."""

    name: str | None
    """The name that it is offered under; `None` for any model."""

    digest: str | None = None
    """SHA-256 of its file, where all offers of that name agree: then it is the same model, by
    whatever name somebody offers it."""

    by: By = "name"
    """Whether that is its name, more or less, or an alias; or whether it is ``only`` meant because
    nothing else is on offer."""


@attrs.frozen
class Ambiguous:
    """A name that may mean several models."""

    names: tuple[str, ...]
    """The names that they are offered under."""


Found = Meaning | Ambiguous | None
"""What a look for a model comes to; `None` if none is on offer that the name could mean."""


@attrs.define(eq=False)
class _Model:
    """What is offered under one name."""

    name: str
    real: set[str] = attrs.field(factory=set)
    """Features of the real offers."""
    simulated: set[str] = attrs.field(factory=set)
    """Features of those that simulate."""
    digests: set[str | None] = attrs.field(factory=set)
    """Of the real offers."""

    @property
    def digest(self) -> str | None:
        """The file of all of its offers, if it is one."""
        return next(iter(self.digests)) if len(self.digests) == 1 and not self.simulated else None

    @property
    def identity(self) -> tuple[bool, str]:
        """What two names of one model have in common."""
        digest = self.digest
        return digest is not None, digest or self.name

    def serves(self, command: str | None) -> bool:
        return command is None or command in self.real or command in self.simulated


class ModelNames:
    """Finds models by name among the offers that were looked at last.

    Args:
      aliases: Further names; may be changed at any time.
      pulled: The models that can be fetched, by name.

    """

    def __init__(
        self, aliases: Aliases = NO_ALIASES, *, pulled: Mapping[str, PulledModel] | None = None
    ) -> None:
        self.aliases = aliases
        """Further names."""
        self._pulled = {folded(name): model for name, model in (pulled or {}).items()}
        self._seen: list[Sequence[ModelOffer]] = []
        self._models: dict[str, _Model] = {}
        self._spelled: dict[str, dict[str, list[str]]] | None = None

    def look(self, peers: Sequence[PeerRecord]) -> None:
        """Look at the offers of *peers*; cheap if they are as they were."""
        claims = [peer.capability.models for peer in peers]
        seen = self._seen
        if len(claims) == len(seen) and all(map(_is_same, claims, seen)):
            return
        self._seen, self._models, self._spelled = list(claims), {}, None
        for peer in peers:
            simulates = {lane.id: lane.simulated for lane in peer.capability.lanes}
            for offer in peer.capability.models:
                model = self._models.get(offer.name)
                if model is None:
                    model = self._models[offer.name] = _Model(offer.name)
                if simulates.get(offer.lane, False):
                    model.simulated |= offer.features
                else:
                    model.real |= offer.features
                    model.digests.add(offer.digest)

    def meaning(
        self,
        said: str,
        *,
        command: str | None = None,
        strict: bool = False,
        any_name: bool = False,
    ) -> Found:
        """The model that *said* means; `None` if none is on offer that it could mean.

        Args:
          said: The name as somebody has written it.
          command: The feature that is asked for, such as ``chat``; `None` if that is not known.
          strict: Real inference only.
          any_name: A name that means nothing means the one model that is on offer, if it is one.

        """
        alias = self.aliases.literal(said)
        if alias is None and said in self._models:
            return self._as_meaning(said)
        if alias is None:
            alias = self.aliases.spelled(said)
        if alias is not None:
            found = self._by_alias(alias.model, command, strict)
            return self._only(command, strict) if found is None and any_name else found
        if folded(said) == ANY:
            return Meaning(name=None)
        found = self._nearest(said, self._levels(said), command, strict)
        if found is not None:
            return found
        pattern = self.aliases.pattern(said)
        if pattern is not None:
            found = self._by_alias(pattern.model, command, strict)
        if found is None:
            found = self._nearest(said, self._short(said), command, strict)
        if found is None and any_name:
            return self._only(command, strict)
        return found

    def asked_for(self, request: CommandRequest) -> Found:
        """The model that *request* names, as its hints say that it does."""
        if request.model is None:
            return None
        return self.meaning(
            request.model,
            command=request.command,
            strict=request.strict,
            any_name=request.hints.naming == "any",
        )

    @property
    def offered(self) -> tuple[str, ...]:
        """Every name on offer."""
        return tuple(sorted(self._models))

    def spelled(self, said: str) -> str | None:
        """The one name on offer that *said* is another spelling of, and nothing looser than that.

        No alias and no part of a name: what somebody may use is written down by names.
        """
        if said in self._models:
            return said
        found = self._nearest(said, self._spellings(said), None, False)
        return found.name if isinstance(found, Meaning) else None

    # ---- the steps ----

    def _levels(self, said: str) -> Iterator[Iterable[str]]:
        """Names that *said* may mean, the nearest first."""
        yield from self._spellings(said)
        tables, small = self._tables(), folded(said)
        with_less = (tables["folded"].get(rest, ()) for rest in shorter_paths(small))
        yield [*tables["path"].get(small, ()), *(name for names in with_less for name in names)]

    def _spellings(self, said: str) -> Iterator[Iterable[str]]:
        """The same as far as it is the whole name, or that of the file."""
        tables, small = self._tables(), folded(said)
        yield tables["plain"].get(plain(said), ())
        yield tables["case"].get(said.casefold(), ())
        yield tables["folded"].get(small, ())
        yield self._as_pulled(small)
        digest = _DIGEST.fullmatch(said)
        if digest is not None:
            yield [m.name for m in self._models.values() if m.digest == digest[1].lower()]

    def _short(self, said: str) -> Iterator[Iterable[str]]:
        """Names of which *said* leaves something out at the end."""
        yield self._tables()["short"].get(folded(said), ())

    def _as_pulled(self, small: str) -> list[str]:
        """The model that can be fetched by this name, or has a file of it, as it is offered."""
        for name, pulled in self._pulled.items():
            names = {name, folded(pulled.file)}
            if small in names:
                return [
                    model.name
                    for model in self._models.values()
                    if model.digest == pulled.digest
                    or (model.digest is None and folded(model.name) in names)
                ]
        return []

    def _tables(self) -> dict[str, dict[str, list[str]]]:
        """The names on offer by each way of spelling them; made when one is spelled otherwise."""
        if self._spelled is None:
            ways: Mapping[str, Callable[[str], Iterable[str]]] = {
                "plain": lambda name: (plain(name),),
                "case": lambda name: (name.casefold(),),
                "folded": lambda name: (folded(name),),
                "path": lambda name: shorter_paths(folded(name)),
                "short": lambda name: shortened(folded(name)),
            }
            self._spelled = {way: {} for way in ways}
            for name in self._models:
                for way, spell in ways.items():
                    for spelling in spell(name):
                        self._spelled[way].setdefault(spelling, []).append(name)
        return self._spelled

    # ---- what comes of them ----

    def _by_alias(self, model: str, command: str | None, strict: bool) -> Found:
        """What an alias stands for: a model by any name, but no other alias."""
        found: Found
        if model in self._models:
            found = self._as_meaning(model)
        elif folded(model) == ANY:
            found = Meaning(name=None)
        else:
            steps = (*self._levels(model), *self._short(model))
            found = self._nearest(model, steps, command, strict)
        return attrs.evolve(found, by="alias") if isinstance(found, Meaning) else found

    def _nearest(
        self, said: str, levels: Iterable[Iterable[str]], command: str | None, strict: bool
    ) -> Found:
        for names in levels:
            found = self._among([self._models[name] for name in names], command, strict)
            if found is not None:
                return found
        return None

    def _among(self, models: Sequence[_Model], command: str | None, strict: bool) -> Found:
        """What a name means that may mean any of *models*."""
        left = [model for model in models if model.real] if strict else models
        for is_better in (lambda model: model.serves(command), lambda model: bool(model.real)):
            if len({model.identity for model in left}) > 1:
                left = [model for model in left if is_better(model)] or left
        names = sorted({model.name for model in left})
        if not names:
            return None
        if len({model.identity for model in left}) > 1:
            return Ambiguous(tuple(names))
        return self._as_meaning(names[0])

    def _only(self, command: str | None, strict: bool) -> Meaning | None:
        """The one model that is on offer for *command*, if it is one."""
        if command is None:
            # One that embeds is meant where nothing chats, not where several do.
            command = "chat" if self._able("chat", strict) else "embed"
        able = self._able(command, strict)
        if len({model.identity for model in able}) != 1:
            return None
        return attrs.evolve(self._as_meaning(min(model.name for model in able)), by="only")

    def _able(self, command: str, strict: bool) -> Sequence[_Model]:
        """The models on offer for *command*; those that simulate it where no real one is."""
        models = self._models.values()
        able = [model for model in models if command in model.real]
        if not able and not strict:
            able = [model for model in models if command in model.simulated]
        return able

    def _as_meaning(self, name: str) -> Meaning:
        return Meaning(name=name, digest=self._models[name].digest)


def _is_same(claim: Sequence[ModelOffer], seen: Sequence[ModelOffer]) -> bool:
    return claim is seen
