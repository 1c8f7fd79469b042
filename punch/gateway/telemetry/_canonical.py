"""Logs one line for every request at its end, with everything that is known of it.

The idea is Stripe's canonical log line: to find one request, or to count over a million of them,
takes no other line. It has no text of a prompt or an answer.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from ..._logs import get_logger, record_of
from ..._subscribers import open_subscriber
from ...events import Bus, Event, RequestEnded, RequestRecord, RequestRefused
from ...wire import short_word

log = get_logger(__name__)
_requests = logging.getLogger(__name__)

# Seconds between two warnings of requests with no valid key: a guesser sends many.
WARNING_SECONDS = 60.0


class CanonicalLog:
    """Logs each request when it is over: a subscriber of `KINDS`."""

    KINDS = (RequestEnded, RequestRefused)

    def __init__(self) -> None:
        self._strangers = 0
        self._warned_at = -math.inf

    def hear(self, event: Event) -> None:
        """Write a request's line, or warn of requests with no valid key once in a while."""
        if isinstance(event, RequestEnded):
            if _requests.isEnabledFor(logging.INFO):
                said = fields_of(event.request) | {"event": "request"}
                _requests.handle(record_of(__name__, logging.INFO, said))
        elif isinstance(event, RequestRefused) and event.status == 401:
            self._strangers += 1
            if event.at - self._warned_at >= WARNING_SECONDS:
                log.warning("refused: no API key, or none that is valid", requests=self._strangers)
                self._strangers, self._warned_at = 0, event.at

    def lose(self, count: int) -> None:
        """Say that lines are missing."""
        log.warning("the log of requests is behind: lines are missing", lost=count)


@asynccontextmanager
async def open_canonical_log(events: Bus) -> AsyncIterator[CanonicalLog]:
    """Log every request that ends, for as long as the context lasts."""
    lines = CanonicalLog()
    async with open_subscriber(events, *lines.KINDS, handle=lines.hear, lost=lines.lose):
        yield lines


def fields_of(record: RequestRecord) -> dict[str, Any]:
    """The line's fields, always all of them and in this order; times in seconds."""
    made_by = record.provenance
    began, first, ended = record.began_at, record.first_text_at, record.ended_at
    return {
        "request_id": record.request_id,
        "endpoint": record.endpoint,
        "key": record.key_id,
        "model": short_word(record.model),
        "stream": record.stream,
        "status": record.status,
        "error": record.error_code,
        "peer": record.peer_id,
        "provenance": None if made_by is None else made_by.kind,
        "backend": None if made_by is None else short_word(made_by.backend),
        "answered_by": None if made_by is None else short_word(made_by.model),
        "prompt_tokens": record.cost.prompt,
        "completion_tokens": record.cost.answer,
        "seconds": None if ended is None else round(ended - began, 6),
        "first_token_seconds": None if first is None else round(first - began, 6),
        "decisions": len(record.decisions),
        "attempts": len(record.attempts),
        "segments": len(record.segments),
    }
