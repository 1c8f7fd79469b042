"""Decides what an answer says of what is there, and when to look again. No I/O.

* A gateway of punch is never adopted, of whichever version: its answers would come back to it. What
  tells is a field that every version has, and not a word in a text.
* What is no server of models is asked politely once, and then seldom.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

Seen = Literal["nothing", "silent", "other", "locked", "busy", "gateway", "models"]
"""What is at a place: nobody, somebody without an answer, no server of models, one that wants a
key, one that is not ready, a gateway of punch, a server of models."""

# Seconds between two looks at a place where nobody is: a refused connection costs nothing, and who
# has started a server waits for it.
LOOK_SECONDS = 3.0

# Seconds until a server that is not ready, or wants a key, is asked again; then twice as long.
FIRST_WAIT_SECONDS = 5.0

# The same of what is no server of models: a developer's web server, say.
FIRST_POLITE_SECONDS = 60.0
MAX_POLITE_SECONDS = 600.0

# A person has said of this one that it is a server of models.
MAX_GIVEN_SECONDS = 30.0

WORDS: Mapping[Seen, str] = {
    "nothing": "its server cannot be reached",
    "silent": "what is there accepts connections and does not answer",
    "other": "what answers there is no server of models",
    "locked": "its server wants a key",
    "busy": "its server is not ready",
    "gateway": "a gateway of punch answers there: its namespace can be joined, not adopted",
    "models": "its server is there",
}


def seen_in(status: int, data: bytes, *, is_given: bool) -> Seen:
    """What gives this answer to ``/v1/models``.

    Args:
      status: HTTP status. Of 403 it is known of no program here that it means a missing key, and
        of some others that they say it to everything: macOS has one at port 5000.
      data: The body.
      is_given: Whether a person has said that it is a server of models: then any list counts.

    """
    if status == 401 or (status == 403 and is_given):
        return "locked"
    if status in (429, 503):
        return "busy"
    value = read(data) if status == 200 else None
    if not isinstance(value, dict):
        return "other"
    rows = value.get("data") if "data" in value else value.get("models")
    if rows is None and value.get("object") == "list":
        # So have some versions of Ollama it while they have no model.
        return "models"
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return "other"
    if any(row.get("owned_by") == "punch" for row in rows):
        return "gateway"
    is_openai = value.get("object") == "list" and all(
        isinstance(row.get("id"), str) for row in rows
    )
    return "models" if is_given or is_openai else "other"


def is_gateway(status: int, data: bytes) -> bool:
    """Whether what gives this answer to ``/api/version`` is a gateway of punch.

    Each of them has said its own version there since it has had Ollama's interface.
    """
    value = read(data) if status == 200 else None
    return isinstance(value, dict) and "punch" in value


def read(data: bytes) -> Any:
    """The JSON in *data*; `None` if it is none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def pause_after(seen: Seen, times: int, *, is_given: bool) -> float:
    """Seconds until the next look at a place.

    Args:
      seen: What was seen there.
      times: How often in a row the same was seen before.
      is_given: Whether a person has named it.

    """
    if seen in ("nothing", "models"):
        return LOOK_SECONDS
    is_polite = seen in ("other", "gateway") and not is_given
    first = FIRST_POLITE_SECONDS if is_polite else FIRST_WAIT_SECONDS
    most = MAX_GIVEN_SECONDS if is_given else MAX_POLITE_SECONDS
    return float(min(most, first * 2 ** min(times, 16)))
