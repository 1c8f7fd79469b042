"""The signature of a thinking block: what holds the thought where the client wants none shown.

Anthropic signs thoughts so that nobody can alter them. Here a client is free to send back what it
likes, so a signature proves nothing: it is the same for the same thought, and it brings a thought
that was left out of its block back to the model that had it.
"""

from __future__ import annotations

import base64
import hashlib
from contextlib import suppress

_OF_SHOWN = "punch-sha256-"
_OF_HIDDEN = "punch-thought-"


def signature_of(thought: str, *, shown: bool) -> str:
    """The signature of a block; a *shown* thought stands in the block itself."""
    data = thought.encode(errors="replace")
    if shown:
        return _OF_SHOWN + hashlib.sha256(data).hexdigest()[:32]
    return _OF_HIDDEN + base64.b64encode(data).decode()


def thought_in(signature: str) -> str:
    """The thought that *signature* holds; empty for all but our own of hidden thoughts."""
    if not signature.startswith(_OF_HIDDEN):
        return ""
    with suppress(ValueError):
        data = base64.b64decode(signature.removeprefix(_OF_HIDDEN), validate=True)
        return data.decode(errors="replace")
    return ""
