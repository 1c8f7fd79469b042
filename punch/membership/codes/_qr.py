"""Draws a code to be scanned: on a terminal, or as the outline that a page fills.

How a code is drawn is left to segno (ISO/IEC 18004); nothing of it is kept.
"""

from __future__ import annotations

from typing import Any, TextIO

import attrs

# Modules of white around it, without which a scanner does not find it (ISO/IEC 18004, 6.3.8).
QUIET_ZONE = 4


@attrs.frozen(kw_only=True)
class Drawing:
    """A code as an SVG has it."""

    size: int
    """Width and height of the whole, its white border with it, in modules."""

    path: str = attrs.field(repr=False)
    """What is black, as the data of an SVG path; it says what the code says."""


def draw(code: str) -> Drawing:
    """The text of a code as a drawing."""
    rows = [list(row) for row in _made(code).matrix_iter(border=QUIET_ZONE)]
    parts = []
    for number, row in enumerate(rows):
        begin = 0
        while begin < len(row):
            end = begin + 1
            if row[begin]:
                while end < len(row) and row[end]:
                    end += 1
                parts.append(f"M{begin} {number}h{end - begin}v1H{begin}z")
            begin = end
    return Drawing(size=len(rows), path="".join(parts))


def draw_on(code: str, terminal: TextIO) -> None:
    """Draw the text of a code on a terminal."""
    _made(code).terminal(out=terminal, compact=True)


def _made(code: str) -> Any:
    import segno

    # In capitals a code takes two thirds of the space, and is the same.
    return segno.make(code.upper(), error="l")
