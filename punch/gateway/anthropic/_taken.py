"""What Anthropic's clients say that changes nothing here, by the reason why."""

from __future__ import annotations

from typing import Annotated, Any

from ..bodies import Taken

Cached = Annotated[Any, Taken("what is cached of a prompt is decided by the backend")]
"""A hint where a prompt may be cut for a cache."""

Echoed = Annotated[Any, Taken("it was part of an answer, and no model reads it")]
"""What comes back with an answer."""

Elsewhere = Annotated[Any, Taken("a matter of Anthropic's machines, billing and statistics")]
"""A hint about machines, billing or statistics."""

OfAnswers = Annotated[Any, Taken("it says how to answer, and changes no prompt")]
"""Of a prompt whose tokens are to be counted."""
