"""Cuts words of callers and peers, and takes out of them what they repeat of a prompt. No I/O.

Errors and names come from programs that are not ours, and go into logs, rows and other peers'
errors. A prompt belongs to its caller alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import overload

from ._request import CommandRequest

# An error may come from any program; what is longer than a few sentences is cut.
MAX_ERROR_CHARACTERS = 300

# The same for words of a caller or a peer, such as the name of a model or a backend, which stand in
# logs, spans, labels and rows.
MAX_WORD_CHARACTERS = 120

# A run of this many characters that is also in the prompt was copied from it; shorter ones are
# words that both happen to use.
MIN_COPY_CHARACTERS = 12

GAP = "[...]"


@overload
def bounded(text: str, longest: int = ...) -> str: ...
@overload
def bounded(text: None, longest: int = ...) -> None: ...
@overload
def bounded(text: str | None, longest: int = ...) -> str | None: ...
def bounded(text: str | None, longest: int = MAX_ERROR_CHARACTERS) -> str | None:
    """*text*, cut to *longest* characters."""
    if text is None or len(text) <= longest:
        return text
    return text[: longest - 3] + "..."


@overload
def short_word(text: str) -> str: ...
@overload
def short_word(text: None) -> None: ...
@overload
def short_word(text: str | None) -> str | None: ...
def short_word(text: str | None) -> str | None:
    """A word of a caller's or a peer's, cut to `MAX_WORD_CHARACTERS` characters of one line."""
    if text is None or (len(text) <= MAX_WORD_CHARACTERS and text.isprintable()):
        return text
    return "".join(c if c.isprintable() else "\ufffd" for c in bounded(text, MAX_WORD_CHARACTERS))


def scrubbed(message: str, request: CommandRequest, answer: str = "") -> str:
    """*message*, bounded, without what it repeats of the texts of *request* or of *answer*.

    Runs of at least 12 characters count as repeated, and every text that is shorter than that
    if it is longer than three. An answer's parts count where the message has them in one piece.
    """
    text = bounded(message)
    texts = [part for part in _texts(request, answer) if len(part) > 3]
    copied = [False] * len(text)
    for part in texts:
        length = min(MIN_COPY_CHARACTERS, len(part))
        for start in range(len(text) - length + 1):
            if text[start : start + length] in part:
                copied[start : start + length] = [True] * length
    return _without(text, copied)


def _texts(request: CommandRequest, answer: str) -> Iterable[str]:
    yield from request.texts
    yield answer
    yield from request.sampling.stop


def _without(text: str, copied: Iterable[bool]) -> str:
    parts: list[str] = []
    for letter, is_copy in zip(text, copied, strict=True):
        if not is_copy:
            parts.append(letter)
        elif not parts or parts[-1] != GAP:
            parts.append(GAP)
    return "".join(parts)
