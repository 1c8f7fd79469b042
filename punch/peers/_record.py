"""One peer, as the dialer sees it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import attrs

from ..capability import Capability, PeerId
from ._rates import Rates

_NO_RATES = Rates()
_NO_MODELS: Mapping[str, Rates] = MappingProxyType({})


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

    cooling_until: float = 0.0
    """It is left alone until then, in seconds of our own clock."""

    failures: int = 0
    """Faults in a row."""

    reputation: float = 1.0
    """0 to 1: see `PeerTable.succeeded` and `PeerTable.failed`."""

    @property
    def present(self) -> int:
        """Requests that are there or on their way, as far as anybody here can know.

        A report may have been on its way while we sent, so it is never taken to be less than
        what we know to be there ourselves.
        """
        load = self.capability.load
        known = load.busy + load.queued + self.sent_since_report
        # `max` takes longer than all of the rest, for every peer of every decision.
        if self.in_flight > known:
            return self.in_flight
        return known

    def rates_of(self, model: str) -> Rates:
        """The measured speed of *model* here; empty if nothing was measured."""
        return self.rates.get(model, _NO_RATES)
