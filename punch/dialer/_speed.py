"""How fast a peer was: what it says of that, as far as it can be believed.

A backend's own timing is exact, and leaves out the network; what is seen from here cannot be lied
to. What is seen counts where it is longer by more than a network explains.
"""

from __future__ import annotations

from ..peers import Sample
from ..routing import PATIENCE_FACTOR
from ..wire import CommandResponse
from ._attempt import Attempt

# How much longer than it says a text may take to come: so many times, and so many seconds.
MAX_UNSEEN_FACTOR = 2.0
MAX_UNSEEN_SECONDS = 0.25

# Seconds before a first text that need no explanation.
MIN_SURPRISE_SECONDS = 1.0

# Who had to read fewer tokens than this did not take its time for that.
MIN_PROMPT = 4


def sample_of(attempt: Attempt, response: CommandResponse, *, now: float) -> Sample:
    """What to learn from the part of an answer that *attempt* has finished *now*.

    * A text, or a thought, cannot have been made much quicker than it came, nor of more tokens than
      it has bytes.
    * A peer whose text came far slower than it says is not believed in how long it read the prompt.
    * A prompt may have waited for other prompts, so only what is far beyond the prediction counts.
    """
    usage, timings = response.usage, response.timings
    tokens, prefill, decode = usage.completion_tokens, timings.prefill, timings.decode
    seen = _decode_seen(attempt)
    if tokens is not None and seen is not None:
        if decode is None or seen > MAX_UNSEEN_FACTOR * (decode + MAX_UNSEEN_SECONDS):
            # A peer that is not believed in the one is not believed in the other.
            prefill = prefill if decode is None else _first_seen(attempt) or prefill
            decode = seen
        size = len(attempt.text.encode("utf-8", "surrogatepass")) + attempt.thought_bytes
        if seen > MAX_UNSEEN_SECONDS and tokens * seen > size * decode:
            tokens, decode = size, seen
    surprise = _surprise(_first_seen(attempt), attempt.predicted.first_text)
    if surprise is not None and (usage.computed_tokens or 0) >= MIN_PROMPT:
        prefill = surprise
    whole = _surprise(_whole_seen(attempt, now), _predicted_whole(attempt))
    if whole is not None and (prefill or 0.0) + (decode or 0.0) < whole / MAX_UNSEEN_FACTOR:
        # It does not say where the time went, so that goes where it counts most.
        decode = whole - (prefill or 0.0)
    return Sample(
        prefill_tokens=usage.computed_tokens,
        prefill_seconds=prefill,
        decode_tokens=tokens,
        decode_seconds=decode,
        batch=timings.batch,
    )


def _surprise(seen: float | None, predicted: float | None) -> float | None:
    """The seconds that were *seen*, if they are far more than were *predicted*."""
    if seen is None or predicted is None:
        return None
    return seen if seen > PATIENCE_FACTOR * predicted + MIN_SURPRISE_SECONDS else None


def _first_seen(attempt: Attempt) -> float | None:
    """Seconds from its start to its first text, as they passed here."""
    first = attempt.call.first_text_at
    return None if first is None or attempt.started_at is None else first - attempt.started_at


def _decode_seen(attempt: Attempt) -> float | None:
    """Seconds from its first text to its last, as they arrived here."""
    first, last = attempt.call.first_text_at, attempt.call.last_text_at
    return None if first is None or last is None else last - first


def _whole_seen(attempt: Attempt, now: float) -> float | None:
    """Seconds from its start to its last word, as far as somebody waited for it."""
    if attempt.started_at is None:
        return None
    return min(attempt.awaited, now - attempt.started_at)


def _predicted_whole(attempt: Attempt) -> float | None:
    """Seconds for as much as it has delivered, as predicted."""
    first, decode = attempt.predicted.first_text, attempt.predicted.decode
    if first is None or decode is None:
        return None
    share = max(1.0, attempt.tokens / max(1, attempt.decision.request.output_tokens))
    return first + share * decode
