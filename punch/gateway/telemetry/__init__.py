"""Metrics, spans and the canonical log line of each request."""

from ._canonical import CanonicalLog
from ._metrics import Metrics, metrics_route
from ._spans import Spans, open_spans

__all__ = [
    "Metrics",
    "metrics_route",
    "open_spans",
    "Spans",
    "CanonicalLog",
]
