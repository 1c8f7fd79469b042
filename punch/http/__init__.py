"""The gateway: an HTTP server in front of a router, in the shapes of OpenAI and Ollama."""

from ._canonical import CanonicalLog
from ._charging import Cost
from ._dashboard import dashboard_routes
from ._errors import TABLE, Refusal, Row, refusal_of
from ._exchange import DISCONNECTED, STOPPED, Exchange, Observer, Observers
from ._feed import Feed, open_feed
from ._gateway import DEFAULT_PORT, Gateway, GatewaySettings, build_application, open_gateway
from ._keys import Key, KeyStore, open_keys
from ._limits import Limits
from ._metrics import Metrics, metrics_route
from ._quotas import Grant, Quotas, QuotaStatistics
from ._spans import Spans, open_spans
from ._usage import DayUsage, UsageBook, open_usage, read_usage

__all__ = [
    # a gateway
    "open_gateway",
    "build_application",
    "Gateway",
    "GatewaySettings",
    "Limits",
    "DEFAULT_PORT",
    # who may ask
    "open_keys",
    "KeyStore",
    "Key",
    "Quotas",
    "QuotaStatistics",
    "Grant",
    # what happens
    "Exchange",
    "Cost",
    "Observer",
    "Observers",
    "DISCONNECTED",
    "STOPPED",
    # who counts
    "open_usage",
    "UsageBook",
    "DayUsage",
    "read_usage",
    "Metrics",
    "metrics_route",
    "open_spans",
    "Spans",
    "CanonicalLog",
    # who looks
    "open_feed",
    "Feed",
    "dashboard_routes",
    # what goes wrong
    "TABLE",
    "Row",
    "Refusal",
    "refusal_of",
]
