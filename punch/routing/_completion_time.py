"""Predicted seconds from now to the whole answer."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from statistics import median, median_low

import attrs

from ..capability import ModelOffer
from ..peers import DEFAULT_SLOWDOWN, ENOUGH_SAMPLES, Candidate, Rates, is_far_slower
from ._request import RouteRequest

# What a peer is taken for while nobody has measured it or any other: a laptop without a GPU
# and a model of seven billion parameters.
UNKNOWN_PREFILL_RATE = 50.0
UNKNOWN_DECODE_RATE = 8.0

# A round trip nobody has measured: between a home network and a far continent.
UNKNOWN_RTT = 0.05

# A claim is believed up to so many times the best rate measured anywhere in the pool: one step
# of hardware above everything we know, and not the 1e9 tokens a second of a liar.
MAX_BEYOND_POOL = 4.0

# A claimed slowdown is believed up to here: at 1 a batch gains nothing at all.
MAX_CLAIMED_SLOWDOWN = 1.0

# A peer that has just failed must look this much better to be asked again.
SECONDS_PER_FAILURE = 2.0

# A peer that was found far slower than it claims is charged so many times what the request itself
# would take: its word on its queue, and on how long it read a prompt, is worth as little.
BOAST_HANDICAP = 2.0

# Nine attempts lost for one answer are bad enough; past that the odds only look like a rate.
MAX_FAULT_SHARE = 0.9

_Belief = tuple[float, float | None, float | None, float, bool]
_NOTHING_KNOWN: _Belief = (0.0, None, None, DEFAULT_SLOWDOWN, False)


# A prompt's tokens are computed many at a time: up to a few hundred times as fast as an answer's on
# the largest GPUs, where memory is what limits the latter.
MAX_PREFILL_SHARE = 1000.0


def _beliefs(candidates: Sequence[Candidate]) -> list[_Belief]:
    """Of each, as we believe it: seconds to load, both rates, slowdown, whether it boasts."""
    best_prefill = best_decode = 0.0
    found: list[_Belief] = []
    claims: list[tuple[int, ModelOffer, Rates]] = []
    for candidate in candidates:
        offer, rates = candidate.offer, candidate.rates
        if not rates.enough:
            claims.append((len(found), offer, rates))
            found.append(_NOTHING_KNOWN)
            continue
        prefill, decode, slowdown = rates.prefill, rates.decode, rates.slowdown
        if slowdown is None:
            slowdown = _claimed_slowdown(offer)
        if prefill is not None and prefill > best_prefill:
            best_prefill = prefill
        if decode is not None and decode > best_decode:
            best_decode = decode
        if rates.prefill_samples < ENOUGH_SAMPLES:
            prefill = _prefill_beside(rates.prefill_or(offer.prefill_rate), decode)
        if rates.decode_samples < ENOUGH_SAMPLES:
            decode = rates.decode_or(offer.decode_rate)
        claim = offer.decode_rate
        # Most are not slower at all: a look of this loop's own spares a call for each.
        boasts = decode is not None and claim is not None and decode < claim
        boasts = boasts and is_far_slower(decode, claim)
        found.append((offer.load_seconds, prefill, decode, slowdown, boasts))
    for place, offer, rates in claims:
        prefill, decode = offer.prefill_rate, offer.decode_rate
        slowdown = rates.slowdown
        if rates.prefill_samples or rates.decode_samples:
            prefill, decode = rates.prefill_or(prefill), rates.decode_or(decode)
        if slowdown is None:
            slowdown = _claimed_slowdown(offer)
        prefill, decode = _capped(prefill, best_prefill), _capped(decode, best_decode)
        found[place] = (offer.load_seconds, prefill, decode, slowdown, False)
    return found


def _prefill_beside(prefill: float | None, decode: float | None) -> float | None:
    """A prefill rate, believed no further than the *decode* rate that was measured allows."""
    if prefill is None or decode is None:
        return prefill
    return min(prefill, MAX_PREFILL_SHARE * decode)


def _claimed_slowdown(offer: ModelOffer) -> float:
    claim = offer.slowdown
    return DEFAULT_SLOWDOWN if claim is None else min(max(0.0, claim), MAX_CLAIMED_SLOWDOWN)


def _capped(claim: float | None, best: float) -> float | None:
    if claim is None or not best:
        return claim
    return min(claim, MAX_BEYOND_POOL * best)


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

        total   = rtt + load + queue + prefill + cached + decode + penalty
        load    = seconds until the model is loaded
        queue   = (prompt tokens ahead) / p
                  + (answer tokens ahead of a free slot) / R, if no slot is free
        prefill = prompt / p
        cached  = - (prompt tokens in its cache) / p
        decode  = output * (1 + s * (batch - 1)) / d
        penalty = 2 s for each fault in a row, or engine that died lately, whichever are more
                  + f / (1 - f) * (usual total of the pool)
                  + 2 * (prefill + decode), if it was found far slower than it claims

    p and d are its rates of prompt and answer tokens a second for one request alone, s its
    slowdown: with *b* requests in the batch each of them decodes at ``d / (1 + s * (b - 1))``.
    Prompts are read one after another at p, and hold up what is decoded. A peer with *S* slots
    and *n* requests present, n < S, takes one more at once, into a batch of n + 1. Otherwise the
    batch is S, whose total rate is ``R = S * d / (1 + s * (S - 1))``, and m = n - S requests wait
    already. Of the answer tokens left (`Load.output_tokens_left`, and what we sent since) the
    share ``(2m + 1) / (2m + S)`` is made before a slot is free: those in the slots are half
    over on average, and the last of them go on while this one has begun.
    Where a peer does not say how much is left, it is ``(m + S/2) * output``.

    Requests we sent since the peer's last report are counted as ahead of this one: the report
    cannot know them, and without it many requests herd onto the same peer.

    Rates are those measured here after three answers, the peer's claim before, which counts for
    at most twice what the first answers show and four times the best measured in the pool. A
    peer without either is taken for the median of those that have one, so that it neither
    attracts every request nor is never tried; where nobody has one, for a modest laptop.

    f is the share of its recent attempts that failed or were refused: so many tries are lost
    for each answer, and each costs about what is usual elsewhere. Without it a peer that fails
    fast would look fast (sinkholing: Prequal, NSDI'24).

    The formula is DESIGN.md's: the shortest expected delay, which is near-optimal for unlike
    servers; the cache as a term in seconds yields by itself when its owner is busy.
    """

    affinity: bool = True
    """Count what is in a peer's cache."""

    term_names: tuple[str, ...] = (
        "rtt",
        "load",
        "queue",
        "prefill",
        "cached",
        "decode",
        "penalty",
    )
    unit: str = "s"
    lowest_is_best: bool = True

    def terms(
        self, request: RouteRequest, candidates: Sequence[Candidate], rng: Random
    ) -> Sequence[tuple[float, ...]]:
        """See the class."""
        beliefs = _beliefs(candidates)
        usual_prefill = _usual([prefill for _, prefill, _, _, _ in beliefs], UNKNOWN_PREFILL_RATE)
        usual_decode = _usual([decode for _, _, decode, _, _ in beliefs], UNKNOWN_DECODE_RATE)

        prompt, output = request.prompt_tokens, request.output_tokens
        cached = request.cached_tokens if self.affinity else {}
        found = []
        guarded = False
        for candidate, belief in zip(candidates, beliefs, strict=True):
            peer = candidate.peer
            load_seconds, prefill_rate, decode_rate, slowdown, boasts = belief
            prefill_rate = prefill_rate or usual_prefill
            decode_rate = decode_rate or usual_decode
            load = candidate.load
            slots = load.slots
            present = candidate.present
            ahead = load.queued_prompt_tokens + candidate.ours.prompt_tokens_since_report
            queue = ahead / prefill_rate if ahead else 0.0
            if present < slots:
                crowd = 1.0 + slowdown * present
            else:
                crowd = 1.0 + slowdown * (slots - 1)
                twice = 2 * (present - slots)
                left = _tokens_left(candidate, output) * (twice + 1) / (twice + slots)
                queue += left * crowd / (slots * decode_rate)
            hit = 0.0
            if cached and (tokens := cached.get(candidate.id)):
                hit = -min(tokens, prompt) / prefill_rate
            penalty = 0.0
            if candidate.is_troubled:
                guarded = guarded or peer.fault_share > 0
                penalty = SECONDS_PER_FAILURE * max(peer.failures, peer.engine_deaths)
            if boasts:
                penalty += BOAST_HANDICAP * (prompt / prefill_rate + output * crowd / decode_rate)
            found.append(
                (
                    UNKNOWN_RTT if peer.rtt is None else peer.rtt,
                    load_seconds,
                    queue,
                    prompt / prefill_rate,
                    hit,
                    output * crowd / decode_rate,
                    penalty,
                )
            )
        return _with_odds(candidates, found) if guarded else found


def _tokens_left(candidate: Candidate, output: int) -> float:
    """Answer tokens to be made for all that is there, of which *output* is usual."""
    load, ours = candidate.load, candidate.ours
    left: float = load.output_tokens_left
    if not left:
        left = (max(0, load.busy) / 2 + load.queued) * output
    sent = ours.sent_since_report
    left += ours.output_tokens_since_report or sent * output
    # Requests of ours that the report says nothing of, and that were sent before it.
    return left + max(0, ours.in_flight - load.busy - load.queued - sent) * output


def _with_odds(
    candidates: Sequence[Candidate], found: Sequence[tuple[float, ...]]
) -> list[tuple[float, ...]]:
    """The terms with the guard against those that fail fast."""
    # The lower one of two: one absurd claim must not make the other's penalty absurd.
    usual = median_low(list(map(sum, found)))
    return [
        (
            (*terms[:-1], terms[-1] + usual * share / (1 - share))
            if (share := min(candidate.peer.fault_share, MAX_FAULT_SHARE))
            else terms
        )
        for candidate, terms in zip(candidates, found, strict=True)
    ]
