"""Whether two requests with one id are the same request."""

from __future__ import annotations

import hashlib

import attrs

from ._messages import CommandRequest


def fingerprint(request: CommandRequest) -> bytes:
    """Sixteen bytes that two requests share if they ask for the same answer.

    A hash: whoever keeps it keeps no prompt. How long and how urgently somebody waits may differ,
    and in which pieces the answer is sent.
    """
    asked = attrs.evolve(request, request_id="", timeout=None, priority=0, stream=True)
    return hashlib.blake2b(repr(asked).encode(errors="replace"), digest_size=16).digest()
