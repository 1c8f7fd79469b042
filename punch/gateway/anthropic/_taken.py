"""What Anthropic's clients say that changes nothing here, by the reason why."""

from __future__ import annotations

from typing import Any

Cached = Any
Echoed = Any
Elsewhere = Any
