"""Peers of the namespace that have a model whole: a split that they would beat is refused."""

from __future__ import annotations

from collections.abc import Iterable

import trio

from ..._logs import get_logger
from ...capability import ModelOffer, PeerId
from ...dialer import open_router
from ...listener import Listener
from ...peers import ANSWERING, Candidate, PeerRecord, shown_names
from ...placement import Mix, Solo

log = get_logger("punch.coordinator")

# How long the listeners that are known have to say what they offer.
SECONDS = 5.0
QUIET_SECONDS = 0.5


async def find_solos(listener: Listener, offer: ModelOffer, mix: Mix) -> tuple[Solo, ...]:
    """Those of the namespace of *listener* that have the model of *offer* whole, and say how fast.

    Args:
      listener: Has joined; it is none of them itself.
      offer: The model.
      mix: The usual request, which they could serve.

    """
    async with open_router(listener=listener) as router:
        with trio.move_on_after(SECONDS) as patience:
            await router.wait_until_settled(quiet=QUIET_SECONDS)
        if patience.cancelled_caught:
            log.info("not all listeners have said yet what they offer", seconds=SECONDS)
        return solos_among(router.peers, offer, mix, but=listener.peer_id)


def solos_among(
    peers: Iterable[PeerRecord], offer: ModelOffer, mix: Mix, *, but: PeerId
) -> tuple[Solo, ...]:
    """Those of *peers* that could serve *mix* with the model of *offer* whole."""
    known = [peer for peer in peers if peer.peer_id != but]
    names = shown_names((peer.peer_id, peer.capability.machine_name) for peer in known)
    return tuple(
        solo
        for peer in known
        for candidate in peer.candidates(model=offer.name, alike=offer.digest)
        if (solo := _solo(candidate, names[peer.peer_id], offer, mix)) is not None
    )


def _solo(candidate: Candidate, name: str, wanted: ModelOffer, mix: Mix) -> Solo | None:
    offer, lane = candidate.offer, candidate.lane
    if not candidate.is_offered or offer.split or lane.simulated:
        return None
    if lane.state not in ANSWERING or lane.load.draining or lane.closed_for is not None:
        return None
    if wanted.digest is not None and offer.digest not in (None, wanted.digest):
        return None  # Another model of the same name.
    tokens = mix.prompt_tokens + mix.answer_tokens
    if offer.context_tokens is not None and offer.context_tokens < tokens:
        return None
    decode = candidate.rates.decode_or(offer.decode_rate)
    prefill = candidate.rates.prefill_or(offer.prefill_rate)
    if not decode or not prefill:
        return None
    return Solo(
        peer=name,
        decode_rate=decode,
        prefill_rate=prefill,
        wait=(candidate.peer.rtt or 0.0) + offer.load_seconds,
        slots=lane.load.slots or None,
    )
