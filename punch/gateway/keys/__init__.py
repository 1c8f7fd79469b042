"""API keys, quotas, and the book of what was used."""

from ._keys import Key, KeyStore, open_keys
from ._quotas import (
    DEFAULT_LIMIT,
    DEFAULT_QUEUE_LIMIT,
    Grant,
    Left,
    Quotas,
    QuotaStatistics,
)
from ._usage import DayUsage, UsageBook, open_usage, read_usage

__all__ = [
    "open_keys",
    "KeyStore",
    "Key",
    "Quotas",
    "QuotaStatistics",
    "Grant",
    "Left",
    "DEFAULT_LIMIT",
    "DEFAULT_QUEUE_LIMIT",
    "open_usage",
    "UsageBook",
    "DayUsage",
    "read_usage",
]
