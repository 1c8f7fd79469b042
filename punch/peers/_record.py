"""One peer, as the dialer sees it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import attrs

from ..capability import Capability, PeerId
from ._breaker import CLOSED, Breaker
from ._rates import Rates

_NO_RATES = Rates()
_NO_MODELS: Mapping[str, Rates] = MappingProxyType({})
_NO_BREAKERS: Mapping[str | None, Breaker] = MappingProxyType({})


@attrs.frozen(kw_only=True)
class PeerRecord:
    """What we know of one peer; replaced whole, never edited."""

    peer_id: PeerId
    """Who it is."""

    capability: Capability
    """What it claims."""

    incarnation: int
    """Grows each time the peer starts."""

    sequence: int
    """Grows with each claim."""

    seen_at: float
    """When the claim was measured, in seconds of our own clock."""

    rtt: float | None = None
    """Smoothed round-trip time, in seconds."""

    rates: Mapping[str, Rates] = _NO_MODELS
    """Model name to the speed we saw ourselves."""

    in_flight: int = 0
    """Requests of ours that it is working on."""

    sent_since_report: int = 0
    """Requests we sent since `capability.load` was reported: it cannot have counted them."""

    prompt_tokens_since_report: int = 0
    """Their prompt tokens (estimated)."""

    output_tokens_since_report: int = 0
    """The tokens of their answers (expected); 0 where that was not said."""

    breakers: Mapping[str | None, Breaker] = _NO_BREAKERS
    """Model name to its breaker, if that is not closed; under `None` that of the whole peer."""

    resting_until: float = 0.0
    """It refused a request and is left in peace until then, in seconds of our own clock."""

    fault_share: float = 0.0
    """Share of its recent answers that were a fault or a refusal instead, 0 to 1."""

    reputation: float = 1.0
    """0 to 1: see `PeerTable.succeeded` and `PeerTable.failed`."""

    present: int = attrs.field(init=False, eq=False, repr=False)
    """Requests that are there or on their way, as far as anybody here can know.

    A report may have been on its way while we sent, so it is never taken to be less than what
    we know to be there ourselves.
    """

    @present.default
    def _count_present(self) -> int:
        # Counted once a record and not once a look: every decision looks several times.
        load = self.capability.load
        return max(self.in_flight, load.busy + load.queued + self.sent_since_report)

    @property
    def failures(self) -> int:
        """The most faults in a row, of one of its models or of the whole peer."""
        return max([breaker.failures for breaker in self.breakers.values()], default=0)

    def breaker(self, model: str | None) -> Breaker:
        """What keeps requests for *model* from it: the stricter of the peer's and the model's."""
        whole = self.breakers.get(None, CLOSED)
        if model is None:
            return whole
        own = self.breakers.get(model, CLOSED)
        return max(whole, own, key=lambda breaker: (breaker.probing, breaker.until))

    def rates_of(self, model: str) -> Rates:
        """The measured speed of *model* here; empty if nothing was measured."""
        return self.rates.get(model, _NO_RATES)
