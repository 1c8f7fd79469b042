"""Marks a request to a server that is not ours, so that a circle is noticed. No I/O."""

from __future__ import annotations

import hashlib

MARK = "X-Punch-Of"
"""The header by which a request to a server that is not ours says what it was made of."""


def mark_of(request_id: str) -> str:
    """What `MARK` says of the request with this id: the same for each of several answers to it.

    A digest: the id may be a client's own, and a key's name may be in it, which are no business of
    other servers. A gateway that gets the mark of a request that it works at itself has asked
    itself, through whatever is between.
    """
    whole = request_id.partition("#")[0]
    return hashlib.blake2b(whole.encode("utf-8", "replace"), digest_size=16).hexdigest()
