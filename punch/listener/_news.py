"""Decides which dialer gets the whole vector and which the load alone, and sends it.

A vector has all models and the machine; its load alone takes a few tens of bytes. Each is encoded
once for all sessions. A peer of minor 0 knows no load reports and gets whole vectors instead.
"""

from __future__ import annotations

import attrs

from ..admission import Caps, CapsByPeer
from ..capability import Capability, Lane, ModelOffer
from ..session import PeerSession
from ..wire import Advert, Encoded, LoadReport

# Rates, and what the machine is doing, change with every answer: what else a vector says is news
# at once, and these when they have changed for so long, in seconds.
RATES_SECONDS = 1.0

# The whole vector goes out at least this often, in seconds: it has figures of the machine that
# nothing else carries. Load reports say meanwhile that the listener lives.
VECTOR_SECONDS = 5.0


def _of_lane(lane: Lane) -> Lane:
    return Lane(
        id=lane.id,
        backend=lane.backend,
        simulated=lane.simulated,
        state=lane.state,
        threads=lane.threads,
        reason=lane.reason,
    )


class News:
    """Sends adverts and load reports to sessions. Knows no clock: *now* is in seconds.

    Args:
      incarnation: Grows each time the listener starts.
      caps: What each dialer is told that it may ask for; by default all that there is.

    """

    def __init__(self, incarnation: int, caps: CapsByPeer | None = None) -> None:
        self._incarnation = incarnation
        self._caps = caps or CapsByPeer()
        self._sequence = 0
        self._shape: object = None
        self._plain: dict[str | None, tuple[ModelOffer, ModelOffer]] = {}
        self._rates: object = None
        self._vector_at = 0.0
        # Sessions that were behind in reading when a vector went out, and so have an old one.
        self._owed: set[PeerSession] = set()

    def greet(self, session: PeerSession, capability: Capability) -> None:
        """Tell a new dialer everything."""
        if not session.advertise(self._advert(capability, self._caps_of(session))):
            self._owed.add(session)

    def forget(self, session: PeerSession) -> None:
        """Forget a session that has ended."""
        self._owed.discard(session)

    def push(self, sessions: set[PeerSession], capability: Capability, *, now: float) -> None:
        """Send every session what is new: the whole vector, or the load."""
        everybody = self._is_due(capability, now=now)
        report = None
        adverts: dict[Caps, Encoded] = {}
        for session in sessions:
            if everybody or session.minor < 1 or session in self._owed:
                caps = self._caps_of(session)
                advert = adverts.get(caps)
                if advert is None:
                    advert = adverts[caps] = self._advert(capability, caps)
                if session.advertise(advert):
                    self._owed.discard(session)
                else:
                    self._owed.add(session)
            else:
                report = report or self._report(capability)
                session.advertise(report)

    def _is_due(self, capability: Capability, *, now: float) -> bool:
        shape = (
            tuple(map(_of_lane, capability.lanes)),
            tuple(map(self._without_rates, capability.models)),
            capability.load.draining,
            self._caps.changes,
        )
        age = now - self._vector_at
        is_due = (
            shape != self._shape
            or age >= VECTOR_SECONDS
            or (age >= RATES_SECONDS and capability.models != self._rates)
        )
        if len(self._plain) > len(capability.models):
            self._plain.clear()
        if is_due:
            self._shape, self._rates, self._vector_at = shape, capability.models, now
        return is_due

    def _without_rates(self, offer: ModelOffer) -> ModelOffer:
        # An answer changes one of all the offers: the others are the same values as before.
        known = self._plain.get(offer.id)
        if known is None or known[0] is not offer:
            plain = attrs.evolve(
                offer, prefill_rate=None, decode_rate=None, slowdown=None, usual_tokens=None
            )
            known = self._plain[offer.id] = offer, plain
        return known[1]

    def _caps_of(self, session: PeerSession) -> Caps:
        return self._caps.of(session.peer_id, is_own=session.is_own)

    def _advert(self, capability: Capability, caps: Caps) -> Encoded:
        return Encoded(
            Advert(
                incarnation=self._incarnation,
                sequence=self._next(),
                age=0.0,
                capability=caps.on(capability, self._caps.now()),
            )
        )

    def _report(self, capability: Capability) -> Encoded:
        loads = {lane.id: lane.load for lane in capability.lanes}
        return Encoded(LoadReport(sequence=self._next(), loads=loads))

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence
