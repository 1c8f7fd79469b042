"""The two protocols by which an endpoint spells answers: in one piece, or as they are made.

A shape makes bodies and bytes, and knows neither the network nor how the answer is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from ..wire import CommandResponse, Usage
from ._errors import Refusal


class WholeShape(Protocol):
    """Spells an answer in one piece, such as embeddings, of which there is no stream."""

    def whole(self, responses: Sequence[CommandResponse]) -> dict[str, Any]:
        """The body, from the responses to all that was asked; may raise `Refusal`."""


class StreamShape(WholeShape, Protocol):
    """Spells an answer as it is made, in bytes of UTF-8."""

    stream_type: str
    """Media type of a stream."""

    def began(self, model: str, prompt: Usage) -> bytes:
        """What opens a stream, answered by *model*; *prompt* has what is counted already."""

    def named(self, model: str) -> None:
        """Spell *model* from now on: a stream may begin before it is known who answers."""

    def text(self, index: int, parts: Sequence[str]) -> bytes:
        """The next parts of the text of one answer, each in an event of its own."""

    def reasoning(self, index: int, parts: Sequence[str]) -> bytes:
        """The next parts of what the model thinks, as it comes: before the text, or within it.

        Empty if the format has no place for it.
        """

    def comment(self, words: str) -> bytes:
        """What the client waits for; empty if the format has no comments."""

    def finished(self, index: int, response: CommandResponse) -> bytes:
        """The end of one answer, and all that is known only then."""

    def ended(self, responses: Sequence[CommandResponse]) -> bytes:
        """The end of the stream."""

    def failed(self, refusal: Refusal) -> bytes:
        """The end of a stream that broke."""
