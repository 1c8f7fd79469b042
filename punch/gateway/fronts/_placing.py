"""Decides which process of a gateway answers a request, by what its head says. No I/O.

Several *fronts* serve HTTP for one gateway, each a process with a router of its own. The process
that accepts a connection reads the head of each request, and answers it unless

* it needs what the gateway's own process alone has: the dashboard, the metrics, whatever else a
  front has no route for;
* its API key has limits. The quotas of a key are counted in one front, its *home*, so that they
  are exact and nobody is asked: the key's id says which front that is;
* it may refer to a stored response. Those of one key have one home, too, and all of a gateway that
  needs no keys;
* its caller has chosen its id. The same id again joins the first one's answer, which is kept where
  that was asked: the id says where, as it does for the mark of a request that has gone round
  (`X-Punch-Of`), so that a front finds its own requests under that rule. A front makes its own ids
  so that they lead to it.

The connection then goes to that process, with what was read of it: nothing is copied to and fro,
and a client that goes away is seen where its answer is made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Final

import attrs

from ...wire import MARK, mark_of
from ..keys import Key

GATEWAY: Final = -1
"""The number of the gateway's own process; those of the fronts count from 0."""

# What every front answers itself, of what asks no model.
OWN_PATHS = frozenset(
    {"/health", "/ready", "/openapi.json", "/v1/models", "/api/version", "/api/tags", "/api/show"}
)
OWN_FOLDER = "/v1/models/"

# Whose requests may refer to stored responses.
STORING_PATH = "/v1/responses"

_MARK = MARK.lower().encode()


@attrs.frozen(kw_only=True)
class Placing:
    """Decides for one front."""

    number: int
    """Its own number, from 0."""

    count: int
    """How many fronts there are."""

    def home_of(
        self, path: str, headers: Mapping[bytes, bytes], *, asks: bool, key: Key | None
    ) -> int:
        """The number of the process that answers a request; `GATEWAY` for none of the fronts.

        Args:
          path: Its path, as the gateway has it.
          headers: Its headers, with names in lower case.
          asks: Whether the path is that of an endpoint that asks a model.
          key: Its API key, if it has a good one.

        """
        if not asks:
            is_own = path in OWN_PATHS or path.startswith(OWN_FOLDER)
            return self.number if is_own else GATEWAY
        if key is not None and is_limited(key):
            return home_of_key(key.key_id, self.count)
        if path == STORING_PATH:
            return home_of_key("" if key is None else key.key_id, self.count)
        if (mark := headers.get(_MARK)) is not None:
            home = home_of_mark(mark.decode("latin-1"), self.count)
            return self.number if home is None else home
        chosen = headers.get(b"x-request-id")
        if chosen is None:
            return self.number
        text = chosen.decode("latin-1")
        return home_of_id(text if key is None else f"{text}@{key.key_id}", self.count)

    def own_id(self, make: Callable[[], str]) -> str:
        """A fresh id that leads here; *make* gives one that leads anywhere."""
        while home_of_id(found := make(), self.count) != self.number:
            pass
        return found


def is_limited(key: Key) -> bool:
    """Whether something is counted for *key* beside its usage."""
    limits = (key.requests_per_minute, key.tokens_per_minute, key.concurrency)
    return any(limit is not None for limit in limits)


def home_of_id(request_id: str, count: int) -> int:
    """The front where a request of this id is answered, and found again."""
    home = home_of_mark(mark_of(request_id), count)
    assert home is not None, "we make marks ourselves"
    return home


def home_of_mark(mark: str, count: int) -> int | None:
    """The front of the request with this mark; `None` for what is no mark of a gateway."""
    try:
        return int(mark[:8], 16) % count
    except ValueError:
        return None


def home_of_key(key_id: str, count: int) -> int:
    """The front where the quotas and the stored responses of a key are kept."""
    digest = hashlib.blake2b(key_id.encode("utf-8", "replace"), digest_size=4).digest()
    return int.from_bytes(digest, "big") % count
