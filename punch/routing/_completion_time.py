"""Predicted seconds from now to the whole answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from statistics import median, median_low

import attrs

from ..peers import Candidate
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

# A peer that has just failed must look this much better to be asked again.
SECONDS_PER_FAILURE = 2.0

# A peer that was found far slower than it claims is charged so many times what the request itself
# would take: its word on its queue, and on how long it read a prompt, is worth as little.
BOAST_HANDICAP = 2.0

# Nine attempts lost for one answer are bad enough; past that the odds only look like a rate.
MAX_FAULT_SHARE = 0.9


def _rates(
    believed: Sequence[float],
    is_measured: Sequence[bool],
    measured: Sequence[float | None],
    unknown: float,
) -> Sequence[float]:
    """The rate of each: what is *believed* of it, no further than the pool allows, or the usual.

    *measured* are the rates of those of which it was, *unknown* is where nobody has one.
    """
    if measured and len(measured) < len(believed):
        most = MAX_BEYOND_POOL * max([rate for rate in measured if rate], default=math.inf)
        believed = [
            rate if known or rate < most else most
            for rate, known in zip(believed, is_measured, strict=True)
        ]
    if all(believed):
        return believed
    known = [rate for rate in believed if rate]
    usual = median(known) if known else unknown
    return [rate or usual for rate in believed]


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
        beliefs = [candidate.belief for candidate in candidates]
        is_measured = [belief.is_measured for belief in beliefs]
        seen = [one.rates for one in candidates if one.belief.is_measured]
        prefills = _rates(
            [belief.prefill for belief in beliefs],
            is_measured,
            [rates.prefill for rates in seen],
            UNKNOWN_PREFILL_RATE,
        )
        decodes = _rates(
            [belief.decode for belief in beliefs],
            is_measured,
            [rates.decode for rates in seen],
            UNKNOWN_DECODE_RATE,
        )

        prompt, output = request.prompt_tokens, request.output_tokens
        cached = request.cached_tokens if self.affinity else {}
        found = []
        guarded = False
        for candidate, belief, prefill, decode in zip(
            candidates, beliefs, prefills, decodes, strict=True
        ):
            peer, load, ours = candidate.peer, candidate.load, candidate.ours
            slots, slowdown = load.slots, belief.slowdown
            present = candidate.present
            ahead = load.queued_prompt_tokens + ours.prompt_tokens_since_report
            queue = ahead / prefill if ahead else 0.0
            if present < slots:
                crowd = 1.0 + slowdown * present
            else:
                crowd = 1.0 + slowdown * (slots - 1)
                twice = 2 * (present - slots)
                left = _tokens_left(candidate, output) * (twice + 1) / (twice + slots)
                queue += left * crowd / (slots * decode)
            hit = 0.0
            if cached and (tokens := cached.get(candidate.id)):
                hit = -min(tokens, prompt) / prefill
            answer = output * crowd / decode
            penalty = 0.0
            if candidate.is_troubled:
                guarded = guarded or peer.fault_share > 0
                penalty = SECONDS_PER_FAILURE * max(peer.failures, peer.engine_deaths)
            if belief.boasts:
                penalty += BOAST_HANDICAP * (prompt / prefill + answer)
            found.append(
                (
                    UNKNOWN_RTT if peer.rtt is None else peer.rtt,
                    candidate.offer.load_seconds,
                    queue,
                    prompt / prefill,
                    hit,
                    answer,
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
