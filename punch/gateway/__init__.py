"""The gateway: an HTTP server in front of a router, in the shapes of OpenAI and Ollama."""

from ._errors import TABLE, Refusal, Row, refusal_of
from ._fields import BODIES, fields_table, refused_table, taken_table
from ._gateway import (
    DEFAULT_PORT,
    Gateway,
    GatewayParts,
    GatewaySettings,
    Shared,
    build_application,
    open_gateway,
)
from .keys import (
    DayUsage,
    Grant,
    Key,
    KeyStore,
    Quotas,
    QuotaStatistics,
    UsageBook,
    open_keys,
    open_usage,
    read_usage,
)
from .server import Limits
from .telemetry import (
    CanonicalLog,
    Metrics,
    Spans,
    metrics_route,
    open_canonical_log,
    open_metrics,
    open_spans,
)

__all__ = [
    "open_gateway",
    "build_application",
    "Gateway",
    "GatewayParts",
    "GatewaySettings",
    "Shared",
    "DEFAULT_PORT",
    "Limits",
    "open_keys",
    "KeyStore",
    "Key",
    "Quotas",
    "QuotaStatistics",
    "Grant",
    "open_usage",
    "UsageBook",
    "DayUsage",
    "read_usage",
    "open_metrics",
    "Metrics",
    "metrics_route",
    "open_spans",
    "Spans",
    "open_canonical_log",
    "CanonicalLog",
    "TABLE",
    "Row",
    "Refusal",
    "refusal_of",
    "BODIES",
    "fields_table",
    "taken_table",
    "refused_table",
]
