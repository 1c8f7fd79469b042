"""Predicted seconds from now to the whole answer."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from statistics import median

import attrs

from ..peers import PeerRecord
from ._request import RouteRequest

# What a peer is taken for while nobody has measured it or any other: a laptop without a GPU
# and a model of seven billion parameters.
UNKNOWN_PREFILL_RATE = 50.0
UNKNOWN_DECODE_RATE = 8.0

# A round trip nobody has measured: between a home network and a far continent.
UNKNOWN_RTT = 0.05

# Each further request in the batch slows the others by about half on the CPUs and small GPUs
# this is for; see the batched numbers of `llama-bench`.
SLOWDOWN_PER_REQUEST = 0.5

# A peer that has just failed must look this much better to be asked again.
SECONDS_PER_FAILURE = 2.0


def _usual(rates: Sequence[float | None], unknown: float) -> float:
    """The rate to take for a peer without one; not worked out where every peer has one."""
    measured = [rate for rate in rates if rate]
    if len(measured) == len(rates):
        return unknown
    return median(measured) if measured else unknown


@attrs.frozen
class CompletionTime:
    """The lowest predicted time to the whole answer wins.

    ::

        total   = rtt + load + queue + prefill + decode + penalty
        load    = seconds until the model is loaded
        queue   = (prompt tokens ahead) / prefill rate
                  + (requests ahead of a free slot) / slots * (decode of one request)
        prefill = prompt tokens / prefill rate
        decode  = output tokens * slowdown(batch) / decode rate
        slowdown(batch) = 1 + 0.5 * (batch - 1)
        penalty = 2 s for each fault in a row

    Requests we sent since the peer's last report are counted as ahead of this one: the report
    cannot know them, and without it many requests herd onto the same peer.

    Rates are those measured here after three answers, the peer's claim before. A peer without
    either is taken for the median of those that have one, so that it neither attracts every
    request nor is never tried; where nobody has one, for a modest laptop.
    """

    term_names: tuple[str, ...] = ("rtt", "load", "queue", "prefill", "decode", "penalty")
    unit: str = "s"
    lowest_is_best: bool = True

    def terms(
        self, request: RouteRequest, peers: Sequence[PeerRecord], rng: Random
    ) -> Sequence[tuple[float, ...]]:
        """See the class."""
        claims: list[tuple[float, float | None, float | None]] = []
        for peer in peers:
            offer = peer.capability.offer(request.model, request.model_digest)
            if offer is None:
                claims.append((0.0, None, None))
                continue
            rates = peer.rates.get(offer.name)
            if rates is None:
                claims.append((offer.load_seconds, offer.prefill_rate, offer.decode_rate))
            else:
                claims.append(
                    (
                        offer.load_seconds,
                        rates.prefill_or(offer.prefill_rate),
                        rates.decode_or(offer.decode_rate),
                    )
                )
        usual_prefill = _usual([prefill for _, prefill, _ in claims], UNKNOWN_PREFILL_RATE)
        usual_decode = _usual([decode for _, _, decode in claims], UNKNOWN_DECODE_RATE)

        prompt, output = request.prompt_tokens, request.output_tokens
        found = []
        for peer, (load_seconds, prefill_rate, decode_rate) in zip(peers, claims, strict=True):
            prefill_rate = prefill_rate or usual_prefill
            decode = output / (decode_rate or usual_decode)
            load = peer.capability.load
            slots = load.slots
            present = peer.present
            tokens_ahead = load.queued_prompt_tokens + peer.prompt_tokens_since_report
            queue = tokens_ahead / prefill_rate if tokens_ahead else 0.0
            if present >= slots:
                queue += (present - slots + 1) / slots * decode
                batch = slots
            else:
                batch = present + 1
            found.append(
                (
                    UNKNOWN_RTT if peer.rtt is None else peer.rtt,
                    load_seconds,
                    queue,
                    prompt / prefill_rate,
                    decode * (1 + SLOWDOWN_PER_REQUEST * (batch - 1)),
                    SECONDS_PER_FAILURE * peer.failures,
                )
            )
        return found
