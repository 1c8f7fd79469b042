"""One line in the log for every request, with all that is known of it at its end.

The idea is Stripe's canonical log line: who looks for one request, or counts over a million of
them, needs no other. It has no text of a prompt or an answer.
"""

from __future__ import annotations

import math
from typing import Any

import trio

from ..._logs import get_logger
from .._exchange import Exchange

log = get_logger(__name__)

# A word of a caller's or a peer's: longer ones are cut.
LONGEST_WORD = 120


# Seconds between two warnings of requests with no valid key: whoever tries them tries many.
WARNING_SECONDS = 60.0


class CanonicalLog:
    """An `Observer` that logs each request when it is over."""

    def __init__(self) -> None:
        self._strangers = 0
        self._warned_at = -math.inf

    def began(self, exchange: Exchange) -> None:
        """Its line comes at the end."""

    def changed(self, exchange: Exchange) -> None:
        """Its line has only how it ended."""

    def ended(self, exchange: Exchange) -> None:
        """Log it."""
        log.info("request", **fields_of(exchange))

    def refused(self, status: int) -> None:
        """Warn of those who have no key, once in a while."""
        if status != 401:
            return
        self._strangers += 1
        if trio.current_time() - self._warned_at < WARNING_SECONDS:
            return
        log.warning("refused: no API key, or none that is valid", requests=self._strangers)
        self._strangers, self._warned_at = 0, trio.current_time()


def fields_of(exchange: Exchange) -> dict[str, Any]:
    """The line's fields, always all of them and in this order; times in seconds."""
    made_by = exchange.provenance
    began, first, ended = exchange.began_at, exchange.first_text_at, exchange.ended_at
    return {
        "request_id": exchange.request_id,
        "endpoint": exchange.endpoint,
        "key": exchange.key_id,
        "model": _word(exchange.model),
        "stream": exchange.stream,
        "status": exchange.status,
        "error": exchange.error_code,
        "peer": exchange.peer_id,
        "provenance": None if made_by is None else made_by.kind,
        "backend": None if made_by is None else _word(made_by.backend),
        "answered_by": None if made_by is None else _word(made_by.model),
        "prompt_tokens": exchange.cost.prompt,
        "completion_tokens": exchange.cost.answer,
        "seconds": None if ended is None else round(ended - began, 6),
        "first_token_seconds": None if first is None else round(first - began, 6),
        "decisions": len(exchange.decisions),
        "attempts": len(exchange.attempts),
        "segments": len(exchange.segments),
    }


def _word(text: str | None) -> str | None:
    """A word that somebody else has chosen, such that it stays a word of one line."""
    if text is None or (len(text) <= LONGEST_WORD and text.isprintable()):
        return text
    return "".join(c if c.isprintable() else "\ufffd" for c in text[:LONGEST_WORD])
