"""The signature of a thinking block: what holds the thought where the client wants none shown.

Anthropic signs thoughts so that nobody can alter them. Here a signature proves nothing: it is the
same for the same thought, and brings one that was left out of its block back to its model.
"""

from __future__ import annotations

import hashlib

from ..bodies import sealed

_OF_SHOWN = "punch-sha256-"


def signature_of(thought: str, *, shown: bool) -> str:
    """The signature of a block; a *shown* thought stands in the block itself."""
    if not shown:
        return sealed(thought)
    return _OF_SHOWN + hashlib.sha256(thought.encode(errors="replace")).hexdigest()[:32]
