"""The starts of one router: what could be started, what is, and what came of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Sequence

import trio

from ..._logs import get_logger
from ...capability import PeerId
from ...exceptions import PunchError
from ...peers import ENOUGH_SAMPLES, PeerRecord, PeerTable, Sample
from ...routing import Startable, StartableOffer, Starts
from ...routing.starts import MAX_STARTABLE, patience_of, records_of, running

log = get_logger(__name__)

# An answer's length that times an engine well.
PREDICTED_TOKENS = 1000

Startables = Callable[[], Sequence[StartableOffer]] | Sequence[StartableOffer]
"""What could be started: values, or something that returns them as they are now, at once."""

Start = Callable[[StartableOffer], Awaitable[None]]
"""Starts an offer; returns when it can answer, or raises a `PunchError` that says why not."""


class Starter:
    """See the module.

    Args:
      offers: What could be started.
      start: Starts one.
      table: The peers that are known: what runs at its peer need not be started.
      nursery: Where starts run; one that was begun goes on without the request that began it.

    """

    def __init__(
        self, offers: Startables, start: Start, *, table: PeerTable, nursery: trio.Nursery
    ) -> None:
        self._offers = offers
        self._start = start
        self._table = table
        self._nursery = nursery
        self._starts = Starts()
        self._changed = trio.Event()
        # What has started here and is not seen to run yet: it may be told of no more.
        self._recent: dict[str, StartableOffer] = {}
        self._told: tuple[StartableOffer, ...] = ()
        self._left: tuple[StartableOffer, ...] = ()
        self._records: tuple[PeerRecord, ...] = ()

    def look(self, *, now: float, waiter: Hashable = None) -> tuple[Startable, ...]:
        """What could be started and does not run, as it is for a request of *waiter*."""
        return self._starts.look(self._not_running(), now=now, waiter=waiter, rtt=self._rtt)

    def records(self) -> tuple[PeerRecord, ...]:
        """Those that can be started, as the peers that they would be: their names, and whose."""
        self._not_running()
        return self._records

    def runs(self, offer: StartableOffer) -> bool:
        """Whether its peer offers what *offer* would start."""
        return running(offer, self._table.get(offer.peer_id)) is not None

    def _not_running(self) -> tuple[StartableOffer, ...]:
        told = tuple(self._offers() if callable(self._offers) else self._offers)
        if self._recent:
            self._recent = {i: o for i, o in self._recent.items() if self._starts.appears(i)}
            ids = {offer.id for offer in told}
            told = (*told, *(o for i, o in self._recent.items() if i not in ids))
        if told != self._told:
            # Otherwise the very values of before: what was made of them, such as names, is true.
            self._told = told
        left = []
        for offer in self._told[:MAX_STARTABLE]:
            found = running(offer, self._table.get(offer.peer_id))
            if found is None:
                left.append(offer)
            elif self._starts.appeared(offer):
                self._believe(offer, found.key)
        if len(left) != len(self._left) or any(
            now is not before for now, before in zip(left, self._left, strict=True)
        ):
            self._left = tuple(left)
            idle = [
                Startable(offer=offer, seconds=offer.seconds)
                for offer in left
                if offer.why_not is None
            ]
            self._records = tuple(records_of(idle, now=0.0)[0])
        return self._left

    def _believe(self, offer: StartableOffer, key: str) -> None:
        """Take what was predicted of what has started for what was measured, until more is.

        Those that waited for it are more than a peer is trusted with that only claims.
        """
        prefill, decode = offer.offer.prefill_rate, offer.offer.decode_rate
        sample = Sample(
            prefill_tokens=PREDICTED_TOKENS if prefill else None,
            prefill_seconds=PREDICTED_TOKENS / prefill if prefill else None,
            decode_tokens=PREDICTED_TOKENS if decode else None,
            decode_seconds=PREDICTED_TOKENS / decode if decode else None,
        )
        for _ in range(ENOUGH_SAMPLES):
            self._table.succeeded(offer.peer_id, key, sample)

    def _rtt(self, peer_id: PeerId) -> float | None:
        peer = self._table.get(peer_id)
        return None if peer is None else peer.rtt

    # ---- waiting and starting ----

    def wants(
        self, waiter: Hashable, offer: StartableOffer, *, prompt_tokens: int, output_tokens: int
    ) -> None:
        """A request waits for *offer*, which is started if it can be now and is not already."""
        self._starts.waits(waiter, offer, prompt_tokens=prompt_tokens, output_tokens=output_tokens)
        if self._starts.begins(offer, now=trio.current_time()):
            log.info(
                "starting a model for a request",
                offer=offer.id,
                model=offer.offer.name,
                peer=offer.peer_id,
                seconds=round(offer.seconds, 1),
            )
            self._nursery.start_soon(self._run, offer)

    def leaves(self, waiter: Hashable) -> None:
        """A request waits for no start any more."""
        self._starts.leaves(waiter)

    def why_failed(self, offer: StartableOffer) -> str | None:
        """Why the start of *offer* has failed, if it has and it rests since."""
        found = self._starts.look((offer,), now=trio.current_time())
        return found[0].why_not

    async def change(self) -> None:
        """Wait until a start is over."""
        await self._changed.wait()

    async def _run(self, offer: StartableOffer) -> None:
        patience = patience_of(offer)
        try:
            with trio.fail_after(patience):
                await self._start(offer)
        except trio.TooSlowError:
            self._failed(offer, f"it was not done after {patience:.0f} s")
        except PunchError as error:
            self._failed(offer, error.message)
        except Exception:
            # Whatever is wrong there is no fault of the requests, nor of the other peers.
            log.exception("a start has failed in an unforeseen way", offer=offer.id)
            self._failed(offer, "it failed in an unforeseen way; the log has it")
        else:
            self._starts.started(offer, now=trio.current_time())
            self._recent[offer.id] = offer
            log.info("a model was started", offer=offer.id)
        self._changed.set()
        self._changed = trio.Event()

    def _failed(self, offer: StartableOffer, why: str) -> None:
        log.warning("a model could not be started", offer=offer.id, why=why)
        self._starts.failed(offer.id, why, now=trio.current_time())
