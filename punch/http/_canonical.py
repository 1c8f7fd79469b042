"""One line in the log for every request, with all that is known of it at its end.

The idea is Stripe's canonical log line: who looks for one request, or counts over a million of
them, needs no other. It has no text of a prompt or an answer.
"""

from __future__ import annotations

from typing import Any

from ..logs import get_logger
from ._exchange import Exchange
from ._usage import tokens_used

log = get_logger(__name__)

# A word of a caller's or a peer's: longer ones are cut.
LONGEST_WORD = 120


class CanonicalLog:
    """An `Observer` that logs each request when it is over."""

    def began(self, exchange: Exchange) -> None:
        """Its line comes at the end."""

    def changed(self, exchange: Exchange) -> None:
        """Its line has only how it ended."""

    def ended(self, exchange: Exchange) -> None:
        """Log it."""
        log.info("request", **fields_of(exchange))


def fields_of(exchange: Exchange) -> dict[str, Any]:
    """The line's fields, always all of them and in this order; times in seconds."""
    made_by = exchange.provenance
    _, answer = tokens_used(exchange)
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
        "prompt_tokens": exchange.usage.prompt_tokens,
        "completion_tokens": answer,
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
