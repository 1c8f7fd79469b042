"""Metrics, spans and the canonical log line of each request."""

from ._canonical import CanonicalLog, open_canonical_log
from ._metrics import Metrics, metrics_route, open_metrics
from ._spans import Spans, open_spans

__all__ = [
    "open_metrics",
    "Metrics",
    "metrics_route",
    "open_spans",
    "Spans",
    "open_canonical_log",
    "CanonicalLog",
]
