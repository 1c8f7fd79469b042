"""The kinds of machines that do not do what they should, and what makes each of them so.

Hostile ones misbehave at their sessions, and their listener goes on saying that it is free; broken
ones are an engine behind an honest listener.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..testing import Blaming, Dripping, Manner, Silent
from ..wire import Provenance

BLAMING = "blaming"
SILENT = "silent"
DRIPPING = "dripping"
BOASTING = "boasting"
STUCK = "stuck"
FRAGILE = "fragile"

KINDS: Mapping[str, str] = {
    BLAMING: "says of every request, at once, that the caller is at fault",
    SILENT: "pings, and never answers",
    DRIPPING: "answers with a character every 4 s",
    BOASTING: "claims and reports ten times its speed; mended, it is as fast as that",
    STUCK: "has an engine that begins every request and makes nothing",
    FRAGILE: "has an engine that dies of long prompts, and of everything else with them",
}
"""Kind to what a machine of that kind does."""

# What a boasting machine multiplies its speed by, where nothing else is said.
BOAST = 10.0

# What kills a fragile machine, where nothing else is said: the longest sixth of the prompts of a
# conversation whose mean prompt has 1,000 tokens.
LONG_PROMPT_TOKENS = 1500

# How long an engine that died takes until it is there again: a middling model from a disk.
RESTART_SECONDS = 10.0


def manner_of(kind: str, provenance: Provenance) -> Manner | None:
    """How a machine of this *kind* behaves at its sessions; `None` for as it should.

    Args:
      kind: One of `KINDS`, or nothing.
      provenance: Where its listener's answers come from.

    """
    if kind == BLAMING:
        return Blaming()
    if kind == SILENT:
        return Silent()
    if kind == DRIPPING:
        return Dripping(provenance=provenance)
    return None
