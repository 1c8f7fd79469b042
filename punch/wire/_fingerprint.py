"""Decides whether two requests with the same id are the same request, by a hash of what they ask.

A request that comes again joins the answer of the first one; another one with its id is a
conflict, which the listener and the dialer say by themselves. No I/O.
"""

from __future__ import annotations

import hashlib

from ._request import CommandRequest


def fingerprint(request: CommandRequest) -> bytes:
    """`CommandRequest.fingerprint`, which see."""
    return request.fingerprint


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
