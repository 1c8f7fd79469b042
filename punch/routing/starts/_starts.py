# Starts, without any I/O: what is under way, what waits for it, and what failed.
#
# Rule 1: a start is begun once, however many requests have chosen it.
#
# Rule 2: few are under way at a time. What is chosen meanwhile waits, and is chosen anew then.
#
# Rule 3: a start that failed rests, longer each time. Meanwhile it is a candidate that says why.
#
# Rule 4: what was started and is not seen to be offered soon after is a start that failed.
"""What a router knows of the starts that it has asked for."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import attrs

from ...capability import ModelOffer, PeerId
from ...peers import PeerRecord
from ._offer import MAX_PLAN_CHARACTERS, Startable, StartableOffer

# A start reads a model from disk or over a link, and takes memory of machines that others use. Two
# at once are as slow together as one after the other, and may not fit both.
MAX_STARTS = 1

# Startable offers that are looked at; a cluster has a plan or two for each of its models.
MAX_STARTABLE = 64

# What failed once may fail again at once: for lack of memory, or of a worker. A minute later that
# may be otherwise; after several failures in a row it hardly is.
FIRST_REST_SECONDS = 15.0
MAX_REST_SECONDS = 900.0

# What has started is advertised within a second, and heard a round trip later.
APPEAR_SECONDS = 10.0

# However late a start is, it is not over before it says so.
MIN_LEFT_SECONDS = 0.5

# A start that takes so many times what was predicted, and at least so long, is given up.
START_PATIENCE_FACTOR = 4.0
MIN_START_PATIENCE_SECONDS = 120.0
MAX_START_PATIENCE_SECONDS = 1800.0


@attrs.frozen(kw_only=True)
class _Begun:
    at: float
    seconds: float

    def left(self, now: float) -> float:
        """Predicted seconds until it is done; one that is late is taken to need as long again."""
        return max(MIN_LEFT_SECONDS, abs(self.seconds - (now - self.at)))


@attrs.frozen(kw_only=True)
class _Rest:
    failures: int
    until: float
    why: str


class Starts:
    """The starts of one router. Knows no clock: *now* is in seconds of the router's.

    Args:
      limit: Starts that may be under way at a time.

    """

    def __init__(self, *, limit: int = MAX_STARTS) -> None:
        self._limit = limit
        self._begun: dict[str, _Begun] = {}
        # What has started and is not seen to run yet, each with the time until which it may.
        self._appearing: dict[str, float] = {}
        self._rests: dict[str, _Rest] = {}
        # Of each that is waited for: who waits, with the tokens of its prompt and its answer.
        self._waiting: dict[str, dict[Hashable, tuple[int, int]]] = {}

    def look(
        self,
        offers: Sequence[StartableOffer],
        *,
        now: float,
        waiter: Hashable = None,
        rtt: Callable[[PeerId], float | None] = lambda peer_id: None,
    ) -> tuple[Startable, ...]:
        """*offers* as they are now, for the request that is or is not a *waiter* already.

        Args:
          offers: What could be started, without what runs already.
          now: The current time.
          waiter: Who asks: it does not wait for itself.
          rtt: The round trip to a peer, in seconds, where it is known.

        """
        self._expire(now)
        seen = {offer.id for offer in offers}
        for books in (self._rests, self._appearing):
            for gone in [each for each in books if each not in seen]:
                del books[gone]
        return tuple(
            self._as_it_is(offer, now, waiter, rtt(offer.peer_id) or 0.0)
            for offer in offers[:MAX_STARTABLE]
        )

    def _as_it_is(
        self, offer: StartableOffer, now: float, waiter: Hashable, rtt: float
    ) -> Startable:
        # What waits already is before all that come later, and behind all that came before.
        others: list[tuple[int, int]] = []
        for who, tokens in self._waiting.get(offer.id, {}).items():
            if waiter is not None and who is waiter:
                break
            others.append(tokens)
        if len(offer.plan) > MAX_PLAN_CHARACTERS:
            offer = attrs.evolve(offer, plan=offer.plan[: MAX_PLAN_CHARACTERS - 3] + "...")
        found = Startable(
            offer=offer,
            seconds=offer.seconds,
            rtt=rtt,
            waiting=len(others),
            prompt_tokens=sum(prompt for prompt, _ in others),
            output_tokens=sum(output for _, output in others),
        )
        if offer.why_not is not None:
            return attrs.evolve(found, why_not=offer.why_not)
        begun = self._begun.get(offer.id)
        if begun is not None:
            return attrs.evolve(found, seconds=begun.left(now), is_under_way=True)
        if offer.id in self._appearing:
            return attrs.evolve(found, seconds=0.0, is_under_way=True)
        rest = self._rests.get(offer.id)
        if rest is not None and rest.until > now:
            times = "" if rest.failures == 1 else f" {rest.failures} times in a row"
            left = rest.until - now
            return attrs.evolve(
                found,
                why_not=f"could not be started{times}: {rest.why}; tried again in {left:.0f} s",
                retry_after=left,
            )
        if len(self._begun) >= self._limit:
            first = min(each.left(now) for each in self._begun.values())
            return attrs.evolve(found, seconds=first + offer.seconds)
        return found

    # ---- waiting ----

    def waits(
        self, waiter: Hashable, offer: StartableOffer, *, prompt_tokens: int, output_tokens: int
    ) -> None:
        """A request has chosen *offer*, and waits for it and for nothing else.

        One that waits for it already keeps its place.
        """
        if waiter not in self._waiting.get(offer.id, {}):
            self.leaves(waiter)
        self._waiting.setdefault(offer.id, {})[waiter] = (prompt_tokens, output_tokens)

    def leaves(self, waiter: Hashable) -> None:
        """A request waits no more."""
        for key in [key for key, each in self._waiting.items() if each.pop(waiter, None)]:
            if not self._waiting[key]:
                del self._waiting[key]

    # ---- starting ----

    def begins(self, offer: StartableOffer, *, now: float) -> bool:
        """Whether *offer* is to be started now; it counts as begun then."""
        self._expire(now)
        rest = self._rests.get(offer.id)
        if offer.why_not is not None or offer.id in self._begun or offer.id in self._appearing:
            return False
        if len(self._begun) >= self._limit or (rest is not None and rest.until > now):
            return False
        self._begun[offer.id] = _Begun(at=now, seconds=offer.seconds)
        return True

    def started(self, offer: StartableOffer, *, now: float) -> None:
        """A start is over, and will be seen in a moment."""
        self._begun.pop(offer.id, None)
        self._appearing[offer.id] = now + APPEAR_SECONDS

    def failed(self, offer_id: str, why: str, *, now: float) -> None:
        """A start has failed: it is left alone for a while."""
        self._begun.pop(offer_id, None)
        self._appearing.pop(offer_id, None)
        before = self._rests.get(offer_id)
        failures = 1 if before is None else before.failures + 1
        # A power beyond the cap is no number that anybody needs.
        wait = min(MAX_REST_SECONDS, FIRST_REST_SECONDS * 2.0 ** min(failures - 1, 16))
        self._rests[offer_id] = _Rest(failures=failures, until=now + wait, why=why)

    def appeared(self, offer: StartableOffer) -> bool:
        """It runs: what was held against it is over. True if it was started here a moment ago."""
        self._rests.pop(offer.id, None)
        return self._appearing.pop(offer.id, None) is not None

    def appears(self, offer_id: str) -> bool:
        """Whether it has started, and is not seen to run yet."""
        return offer_id in self._appearing

    def _expire(self, now: float) -> None:
        for late in [key for key, until in self._appearing.items() if until <= now]:
            self.failed(late, "was started, and its peer does not offer it", now=now)


def patience_of(offer: StartableOffer) -> float:
    """Seconds after which a start of *offer* is given up."""
    patience = max(MIN_START_PATIENCE_SECONDS, START_PATIENCE_FACTOR * offer.seconds)
    return min(patience, MAX_START_PATIENCE_SECONDS)


def running(offer: StartableOffer, peer: PeerRecord | None) -> ModelOffer | None:
    """What its *peer*, as it is known now, offers and *offer* would start; `None` if nothing."""
    claimed = () if peer is None else peer.capability.models
    return next((one for one in claimed if _is_the_same(offer.offer, one)), None)


def _is_the_same(wanted: ModelOffer, running: ModelOffer) -> bool:
    if wanted.split != running.split:
        return False
    if wanted.digest is not None and running.digest is not None:
        return wanted.digest == running.digest
    return wanted.name == running.name
