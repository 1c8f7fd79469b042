"""Estimates how long a prompt and its answer will be, in tokens, before a backend has counted.

Only predictions and bounds rest on this; what is reported is always counted. No I/O.
"""

from __future__ import annotations

from ._request import BYTES_PER_TOKEN, CommandRequest, size_of

# Tokens of a chat answer without a limit; the median of public traces is near it.
DEFAULT_OUTPUT_TOKENS = 200


def tokens_of(*texts: str) -> int:
    """Length of *texts*, in tokens (estimated)."""
    # Bytes, not characters: a character of a script without an alphabet is a token or more.
    return int(size_of(*texts) / BYTES_PER_TOKEN) + 1


def usual_output(request: CommandRequest) -> int:
    """Length of the answer to *request*, in tokens (expected), with nothing known of its like."""
    if request.command in ("embed", "count"):
        return 0
    limit = request.sampling.max_tokens
    return DEFAULT_OUTPUT_TOKENS if limit is None else min(limit, DEFAULT_OUTPUT_TOKENS)
