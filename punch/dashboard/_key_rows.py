"""Shows the API keys: what each may do, what it used by the day, and what it has left.

A row has the public id and never the secret, of which nobody has more than a digest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Protocol

import attrs
import trio

from ..gateway.keys import DayUsage, Key, KeyStore, Left, QuotaStatistics, read_usage
from ._rows import Row

# Days that the page shows of each key: a month, with the day that is not over. The file has more,
# and so does `punch keys list --json`.
SHOWN_DAYS = 31

# Keys that the page shows, those that are still good first.
MAX_SHOWN_KEYS = 200

# Models that a row names.
MAX_SHOWN_MODELS = 16


class Counted(Protocol):
    """What knows how full a gateway is, and what a key has left: its `Quotas`."""

    def left(self, key: Key) -> Left:
        """What *key* may use now."""

    def statistics(self) -> QuotaStatistics:
        """How full the gateway is."""


class KeyBook:
    """The keys of a gateway, for the dashboard.

    Args:
      quotas: What knows what is left.
      keys: The keys; `None` if the gateway asks for none. `keys` may be set later.
      wall: The time, in seconds since 1970.

    """

    def __init__(
        self,
        quotas: Counted,
        *,
        keys: KeyStore | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.keys = keys
        """The keys; `None` while the gateway asks for none."""
        self.quotas = quotas
        """What knows what is left."""
        self._wall = wall
        # A page that asks often makes one thread busy, and no more.
        self._reading = trio.CapacityLimiter(1)

    async def as_data(self) -> dict[str, Any]:
        """The keys as the page gets them; ``keys`` is None if the gateway asks for none.

        Raises:
          ConfigurationError: if the file cannot be read.

        """
        now = self._wall()
        today = datetime.fromtimestamp(now, UTC).date()
        data: dict[str, Any] = {
            "time": round(now, 3),
            "today": today.isoformat(),
            "days": SHOWN_DAYS,
            "keys": None,
            "more": 0,
        }
        store = self.keys
        if store is None:
            return data
        since = (today - timedelta(days=SHOWN_DAYS - 1)).isoformat()
        usage = await trio.to_thread.run_sync(
            partial(read_usage, store.database, since=since), limiter=self._reading
        )
        keys = sorted(store.known(), key=lambda key: (key.state(now) != "active", -key.created_at))
        data["more"] = max(0, len(keys) - MAX_SHOWN_KEYS)
        data["keys"] = [
            key_row(key, usage.get(key.key_id, ()), self.quotas.left(key), now)
            for key in keys[:MAX_SHOWN_KEYS]
        ]
        return data


def key_row(key: Key, days: Sequence[DayUsage], left: Left, now: float) -> Row:
    """A key as plain data; the days in which it was not used are left out."""
    return {
        "id": key.key_id,
        "name": key.name,
        "state": key.state(now),
        "models": list(key.models[:MAX_SHOWN_MODELS]),
        "more_models": max(0, len(key.models) - MAX_SHOWN_MODELS),
        "created": round(key.created_at),
        "expires": None if key.expires_at is None else round(key.expires_at),
        "revoked": None if key.revoked_at is None else round(key.revoked_at),
        "limits": {
            "requests": key.requests_per_minute,
            "tokens": key.tokens_per_minute,
            "concurrency": key.concurrency,
        },
        "left": attrs.asdict(left),
        "days": [attrs.asdict(day) for day in days],
    }
