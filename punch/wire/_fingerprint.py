"""Whether two requests with one id are the same request."""

from __future__ import annotations

import hashlib

import attrs

from ._request import CommandRequest

# How long and how urgently somebody waits may differ, in which pieces the answer is sent, and which
# of the offers that fit was chosen.
_MAY_DIFFER = frozenset({"request_id", "timeout", "priority", "stream", "stream_interval", "offer"})
_ASKED = tuple(
    (field.name, field.default)
    for field in attrs.fields(CommandRequest)
    if field.name not in _MAY_DIFFER
)


def fingerprint(request: CommandRequest) -> bytes:
    """Sixteen bytes that two requests share if they ask for the same answer.

    A hash: whoever keeps it keeps no prompt.
    """
    asked = [
        (name, value)
        for name, default in _ASKED
        if (value := getattr(request, name)) is not default and value != default
    ]
    return hashlib.blake2b(repr(asked).encode(errors="replace"), digest_size=16).digest()
