"""Makes the plain data that the page shows of peers, requests and decisions. No I/O.

Times are seconds since 1970, durations seconds, sizes bytes. A value that is not known is left
as `None`: the page says so, and shows nothing in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..capability import Capability, Gpu, Lane, Load, ModelOffer
from ..decision_log import Attempted, Decided, Ended, Entry
from ..events import RequestRecord
from ..peers import ENOUGH_SAMPLES, PeerRecord
from ..wire import FINISH_REASONS, Segment, short_word

Row = dict[str, Any]

# A peer may claim any number of models, GPUs and lanes; more than these fill no card.
MAX_MODELS = 16
MAX_GPUS = 16
MAX_LANES = 16

# A peer that was silent for less than this is merely between two adverts, which come each second.
MIN_SILENCE_SECONDS = 3.0


# ---- peers ----


def peer_row(peer: PeerRecord, now: float) -> Row:
    """A peer, as its card shows it; *now* in seconds of the router's clock.

    What changes with each look and says nothing, such as the age of its claim, is left out, so
    that a row that is equal to the one before need not be sent again.
    """
    claim = peer.capability
    silent = now - peer.seen_at
    return {
        "id": peer.peer_id,
        "name": short_word(claim.machine_name),
        "backend": short_word(claim.backend),
        "simulated": claim.simulated,
        "rtt": _rounded(peer.rtt, 5),
        "silent": int(silent) if silent >= MIN_SILENCE_SECONDS else None,
        "unreachable": peer.unreachable_why if peer.reachable is False else None,
        "state": _state(peer, None, now),
        "resting": _left(peer.resting_until, now),
        "ours": peer.in_flight,
        "faults": _rounded(peer.fault_share, 2),
        "reputation": _rounded(peer.reputation, 2),
        "load": _load_row(claim.load),
        "lanes": [_lane_row(lane) for lane in claim.lanes[:MAX_LANES]],
        "more_lanes": max(0, len(claim.lanes) - MAX_LANES),
        "machine": _machine_row(claim),
        "gpus": [_gpu_row(gpu) for gpu in claim.gpus[:MAX_GPUS]],
        "models": [_model_row(peer, offer, now) for offer in claim.models[:MAX_MODELS]],
        "more_models": max(0, len(claim.models) - MAX_MODELS),
    }


def _lane_row(lane: Lane) -> Row:
    return {
        "id": short_word(lane.id),
        "backend": short_word(lane.backend),
        "simulated": lane.simulated,
        "state": short_word(lane.state),
        "reason": short_word(lane.reason),
        "load": _load_row(lane.load),
    }


def _load_row(load: Load) -> Row:
    return {
        "slots": load.slots,
        "busy": load.busy,
        "queued": load.queued,
        "queue_limit": load.queue_limit,
        "draining": load.draining,
    }


def _machine_row(claim: Capability) -> Row:
    return {
        "threads": claim.threads,
        "cpus": claim.cpu_count,
        "cpu_usage": _rounded(claim.cpu_usage, 2),
        "memory": claim.memory_total_bytes,
        # In steps of 16 MiB: a byte more or less is no news.
        "memory_free": _stepped(claim.memory_available_bytes),
    }


def _gpu_row(gpu: Gpu) -> Row:
    return {
        "name": short_word(gpu.name),
        "memory": gpu.total_bytes,
        "memory_free": _stepped(gpu.free_bytes),
        "usage": _rounded(gpu.usage, 2),
    }


def _model_row(peer: PeerRecord, offer: ModelOffer, now: float) -> Row:
    rates = peer.rates_of(offer.key)
    return {
        "name": short_word(offer.name),
        "lane": short_word(offer.lane),
        "digest": offer.digest,
        "context": offer.context_tokens,
        "parameters": offer.parameters,
        "quantization": short_word(offer.quantization),
        "size": offer.size_bytes,
        "features": sorted(short_word(word) for word in offer.features)[:MAX_MODELS],
        "continues": offer.continues,
        "loads": _rounded(offer.load_seconds, 0),
        "state": _state(peer, offer, now),
        "prefill": {
            "measured": _rounded(rates.prefill, 1),
            "samples": rates.prefill_samples,
            "believed": rates.prefill_samples >= ENOUGH_SAMPLES,
            "claimed": _rounded(offer.prefill_rate, 1),
        },
        "decode": {
            "measured": _rounded(rates.decode, 1),
            "samples": rates.decode_samples,
            "believed": rates.decode_samples >= ENOUGH_SAMPLES,
            "claimed": _rounded(offer.decode_rate, 1),
        },
    }


def _state(peer: PeerRecord, offer: ModelOffer | None, now: float) -> Row:
    """The state of a breaker, and the seconds until the peer may be asked again."""
    breaker = peer.breaker(None if offer is None else offer.key)
    return {
        "breaker": breaker.state,
        "failures": breaker.failures,
        "cools": _left(breaker.until, now) if breaker.state == "open" else None,
    }


# ---- requests ----


def request_row(record: RequestRecord, *, serial: int, ahead: float) -> Row:
    """A request; *ahead* is what to add to trio's clock for seconds since 1970."""
    made_by, usage, end = record.provenance, record.usage, record.ended_at
    first = record.first_text_at
    return {
        "n": serial,
        "id": record.request_id,
        "endpoint": record.endpoint,
        "model": short_word(record.model),
        "stream": record.stream,
        "key": record.key_id,
        "began": _rounded(record.began_at + ahead, 3),
        "seconds": None if end is None else _rounded(end - record.began_at, 4),
        "first": None if first is None else _rounded(first - record.began_at, 4),
        "status": record.status,
        "error": record.error_code,
        "peer": record.peer_id,
        "made_by": None
        if made_by is None
        else {
            "kind": made_by.kind,
            "backend": short_word(made_by.backend),
            "model": short_word(made_by.model),
            "digest": made_by.model_digest,
        },
        "waits": _waits(record),
        "decisions": len(record.decisions),
        "failed": len(record.attempts),
        "continued": _continued(record.segments),
        "segments": [segment_row(segment) for segment in record.segments],
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
        "tokens": tokens_of(record),
        "counted": usage.completion_tokens is not None,
    }


def _continued(segments: Sequence[Segment]) -> int:
    """How often another peer continued: after any end but one that makes an answer whole.

    Several answers to one request are parts that each end so.
    """
    return sum(segment.reason not in FINISH_REASONS for segment in segments[:-1])


def tokens_of(record: RequestRecord) -> int:
    """Tokens of the answer: the backend's count at its end, those delivered until then."""
    counted = record.usage.completion_tokens
    return record.tokens if counted is None else counted


def segment_row(segment: Segment) -> Row:
    """The part of an answer that one peer delivered."""
    return {
        "peer": segment.peer_id,
        "tokens": segment.tokens,
        "characters": segment.characters,
        "seconds": _rounded(segment.seconds, 4),
        "reason": short_word(segment.reason),
    }


def _waits(record: RequestRecord) -> Row | None:
    progress = record.progress
    if progress is None or record.first_text_at is not None or record.ended_at is not None:
        return None
    return {"state": progress.state, "ahead": progress.ahead, "seconds": progress.seconds}


# ---- what happened ----


def event_row(entry: Entry) -> Row:
    """A line of the decision log in a few words and numbers; the story has the rest."""
    if isinstance(entry, Decided):
        return {
            "kind": "decided",
            "id": entry.request_id,
            "reason": short_word(entry.reason),
            "policy": short_word(entry.policy),
            "peer": entry.chosen,
            "score": _rounded(entry.score_of(entry.chosen), 4),
            "unit": short_word(entry.unit),
            "able": sum(w.removed_by is None for w in entry.weighed),
            "of": len(entry.weighed) + entry.left_out,
            "starts": bool(entry.chosen and entry.weighed and entry.weighed[0].start),
        }
    if isinstance(entry, Attempted):
        return {
            "kind": "attempted",
            "id": entry.request_id,
            "reason": short_word(entry.reason),
            "peer": entry.peer_id,
            "outcome": short_word(entry.outcome),
            "error": entry.error,
            "seconds": _rounded(entry.seconds, 4),
            "tokens": entry.tokens,
        }
    if isinstance(entry, Ended):
        return {
            "kind": "ended",
            "id": entry.request_id,
            "status": short_word(entry.status),
            "error": entry.error,
            "peer": entry.executor,
            "seconds": _rounded(entry.seconds, 4),
            "tokens": entry.usage.completion_tokens,
            "segments": len(entry.segments),
        }
    return {"kind": "dropped", "count": entry.count}


def _rounded(value: float | None, digits: int) -> float | None:
    """*value* rounded; `None` for infinity and NaN, which JSON cannot say."""
    if value is None or value != value or value in (float("inf"), float("-inf")):
        return None
    return round(value, digits)


def _stepped(size: int | None) -> int | None:
    return None if size is None else size >> 24 << 24


def _left(until: float, now: float) -> float | None:
    """Whole seconds from *now* until *until*; `None` if that has passed."""
    left = until - now
    return _rounded(float(-int(-left // 1)), 0) if 0 < left < float("inf") else None
