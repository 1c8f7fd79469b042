"""Keeps from dialers what they could not read: an offer that breaks a rule of the wire.

One name with a line break would make the whole advert unreadable, and the listener useless without
a word. Backends clean their names; this is for those that do not, and for what is set by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any

import attrs

from .._logs import get_logger
from ..backends import Backend
from ..capability import ModelOffer
from ..exceptions import ConfigurationError
from ..wire import fault_of_offer, short_word

log = get_logger(__name__)

# Said of so many offers at most, in the life of a lane.
MAX_SAID = 20


# What the id of an offer may have, by the rules of the wire.
MAX_OFFER_ID_CHARACTERS = 64


def offer_id(lane_id: str, offer: ModelOffer) -> str:
    """The id of a lane's offer: the same for as long as the lane has that model.

    And for as long as its machines are all of one owner, or are not: who has chosen it for that is
    answered by no others.
    """
    model = f"own/{offer.name}" if offer.own_workers else offer.name
    text = f"{lane_id}/{model}"
    if len(text) <= MAX_OFFER_ID_CHARACTERS and text.isprintable():
        return text
    return f"{lane_id}/{blake2b(model.encode(errors='replace'), digest_size=10).hexdigest()}"


class Offered:
    """The offers of one backend, and those of them that dialers can read.

    Args:
      backend: The backend.
      lane_id: The id of its lane.

    """

    def __init__(self, backend: Backend, lane_id: str) -> None:
        self._backend = backend
        self._lane_id = lane_id
        self._seen: tuple[ModelOffer, ...] | None = None
        self._named: tuple[tuple[str, ModelOffer], ...] = ()
        self._good: tuple[tuple[str, ModelOffer], ...] = ()
        self._told: dict[str, tuple[Mapping[str, Any], ModelOffer]] = {}
        self._said: set[str] = set()

    @property
    def offers(self) -> tuple[ModelOffer, ...]:
        """The good ones, in their order."""
        self._look()
        return tuple(offer for _, offer in self._good)

    @property
    def named(self) -> tuple[tuple[str, ModelOffer], ...]:
        """All there are, and their ids."""
        self._look()
        return self._named

    def told(self, claims: Callable[[ModelOffer], Mapping[str, Any]]) -> tuple[ModelOffer, ...]:
        """The good ones as dialers are told them: named, and with what *claims* says of each."""
        self._look()
        told = []
        for name, offer in self._good:
            claimed = claims(offer)
            known = self._told.get(name)
            # Of fifty models, the last answer has changed one or none.
            if known is None or known[0] != claimed:
                as_told = attrs.evolve(offer, id=name, lane=self._lane_id, **claimed)
                known = self._told[name] = claimed, as_told
            told.append(known[1])
        return tuple(told)

    def _look(self) -> None:
        offers = self._backend.offers
        # Nearly always the same as in the last look, which is several times a second.
        if offers is not self._seen and offers != self._seen:
            self._named = tuple((offer_id(self._lane_id, offer), offer) for offer in offers)
            self._good = tuple(each for each in self._named if self._is_good(each[1]))
            self._told = {}
        self._seen = offers

    def check(self) -> None:
        """Return if there is anything to offer.

        Raises:
          ConfigurationError: if the backend offers nothing, or nothing that a dialer could read.

        """
        offers = self._backend.offers
        if not offers:
            raise ConfigurationError(f"backend {self._backend.name} offers no model")
        faults = [fault_of_offer(offer) for offer in offers]
        if None not in faults:
            raise ConfigurationError(
                f"backend {self._backend.name} offers {offers[0].name[:80]!r}, which no peer could "
                f"ask for: {faults[0]}"
            )

    def _is_good(self, offer: ModelOffer) -> bool:
        fault = fault_of_offer(offer)
        if fault is None:
            return True
        name = short_word(offer.name)
        if name not in self._said and len(self._said) < MAX_SAID:
            self._said.add(name)
            log.warning("a model is not offered", model=name, why=fault)
        return False
