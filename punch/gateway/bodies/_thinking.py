"""How much a model is to think, in the words of OpenAI's clients, and thoughts that come back.

OpenAI has one word for it, other servers have others, and so have the programs that speak to them.
A model that cannot think passes over all of them.

A client that shows no thoughts, or stores nothing, keeps of them what it does not read: Anthropic's
a signature, OpenAI's an encrypted content. Here that holds the thought itself. A client is free to
send back what it likes, so it proves nothing, and nothing is kept secret from who asked.
"""

from __future__ import annotations

import base64
from contextlib import suppress
from typing import Annotated, Any

from ._body import Body, Refused
from ._fields import within

Effort = Annotated[str, within("reasoning_effort")]
"""``none``, ``minimal``, ``low``, ``medium``, ``high``, or a word that a model knows."""

USUAL_EFFORT = "medium"
"""What is asked of a model that is to think, and nothing is said of how much."""


class ReasoningOptions(Body):
    """OpenAI's `reasoning` of a response, with what OpenRouter has added to it."""

    effort: Effort | None = None
    # There is no shorter text than what was thought: that is told.
    summary: str | None = None
    generate_summary: str | None = None
    enabled: bool | None = None
    max_tokens: Annotated[int | None, within("reasoning_budget")] = None
    exclude: Annotated[Any, Refused("what is thought is told; pass over it", nothing=(False,))] = (
        None
    )

    @property
    def wanted(self) -> str | None:
        """How much to think, in one word; `None` if nothing is said of it."""
        return self.effort or switched(self.enabled)


class TemplateOptions(Body):
    """What llama.cpp, vLLM and SGLang hand to a chat template: whether to think."""

    enable_thinking: bool | None = None
    thinking: bool | None = None

    @property
    def wanted(self) -> str | None:
        """How much to think, in one word; `None` if nothing is said of it."""
        return switched(self.enable_thinking if self.thinking is None else self.thinking)


def switched(on: bool | None) -> str | None:
    """The effort for a switch that is on or off."""
    return None if on is None else USUAL_EFFORT if on else "none"


# ---- thoughts that come back ----

_SEALED = "punch-thought-"


def sealed(thought: str) -> str:
    """*thought* as its client keeps it without reading it."""
    return _SEALED + base64.b64encode(thought.encode(errors="replace")).decode()


def thought_in(text: str) -> str:
    """The thought that was sealed as *text*; empty for what another server has made."""
    if not text.startswith(_SEALED):
        return ""
    with suppress(ValueError):
        data = base64.b64decode(text.removeprefix(_SEALED), validate=True)
        return data.decode(errors="replace")
    return ""
