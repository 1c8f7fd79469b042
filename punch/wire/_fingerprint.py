"""Decides whether two requests with the same id are the same request, by a hash of what they ask.

A request that comes again joins the answer of the first one; another one with its id is a
conflict, which the listener and the dialer say by themselves. No I/O.
"""

from __future__ import annotations

import hashlib

import attrs

from ._request import CommandRequest

# Fields that say nothing of the answer itself: how long and how urgently its caller waits, in which
# pieces it is sent, which of the offers that fit was chosen, and what was wished of the choice.
_MAY_DIFFER = frozenset(
    {"request_id", "timeout", "priority", "stream", "stream_interval", "offer", "hints"}
)
_ASKED = tuple(
    (field.name, field.default)
    for field in attrs.fields(CommandRequest)
    if field.name not in _MAY_DIFFER
)


def fingerprint(request: CommandRequest) -> bytes:
    """Sixteen bytes that two requests share if they ask for the same answer.

    A hash, so that an answer can be kept to be joined without keeping its prompt.
    """
    asked = [
        (name, value)
        for name, default in _ASKED
        if (value := getattr(request, name)) is not default and value != default
    ]
    return hashlib.blake2b(repr(asked).encode(errors="replace"), digest_size=16).digest()


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
