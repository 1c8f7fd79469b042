"""Joins the parts of an answer into the texts that its readers are sent. No I/O."""

from __future__ import annotations

from ...wire import WINDOW, PromptCount, Thought

# More tokens than any answer has, and the most that one `Chunk` may stand for: a backend that
# claims more is not believed.
MAX_TOKENS = 1 << 20

# Text that a reader gets at a time: it always fits an empty window, at four bytes a character.
PIECE_CHARACTERS = WINDOW // 4


def runs_of(parts: list[tuple[str, int]], takes_thoughts: bool) -> list[tuple[str, int]]:
    """Texts and tokens of *parts*: what was thought in a row, and what was said in a row.

    For a reader that is told no thoughts, their tokens are with the text that follows.
    """
    if len(parts) == 1 and takes_thoughts:
        return parts
    runs: list[tuple[str, int]] = []
    texts: list[str] = []
    total, was_thought = 0, False
    for text, tokens in parts:
        is_thought = type(text) is Thought
        if is_thought and not takes_thoughts:
            total += tokens
            continue
        if texts and is_thought is not was_thought:
            runs.append((_joined(texts), total))
            texts, total = [], 0
        texts.append(text)
        total += tokens
        was_thought = is_thought
    return [*runs, (_joined(texts), total)] if texts else runs


def believed_count(prompt: PromptCount) -> PromptCount:
    """*prompt* with numbers that can travel."""
    tokens = max(0, min(prompt.tokens, MAX_TOKENS))
    cached = prompt.cached
    return PromptCount(tokens, None if cached is None else max(0, min(cached, MAX_TOKENS)))


def _joined(texts: list[str]) -> str:
    """What was thought, or was said, in a row."""
    text = "".join(texts)
    return Thought(text) if type(texts[0]) is Thought else text
