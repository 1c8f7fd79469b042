"""Keeps from dialers what they could not read: an offer that breaks a rule of the wire.

One name with a line break would make the whole advert unreadable, and the listener useless without
a word. Backends clean their names; this is for those that do not, and for what is set by hand.
"""

from __future__ import annotations

from .._logs import get_logger
from ..backends import Backend
from ..capability import ModelOffer
from ..exceptions import ConfigurationError
from ..wire import fault_of_offer, short_word

log = get_logger(__name__)

# Said of so many offers at most, in the life of a lane.
MAX_SAID = 20


class Offered:
    """The offers of one backend that dialers can read."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._seen: tuple[ModelOffer, ...] | None = None
        self._good: tuple[ModelOffer, ...] = ()
        self._said: set[str] = set()

    @property
    def offers(self) -> tuple[ModelOffer, ...]:
        """The good ones, in their order."""
        offers = self._backend.offers
        # Nearly always the same as in the last look, which is several times a second.
        if offers is not self._seen and offers != self._seen:
            self._good = tuple(offer for offer in offers if self._is_good(offer))
        self._seen = offers
        return self._good

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
