"""Sets texts in columns: how wide a text is on a terminal, and how it is made to fit.

A character of Chinese, Japanese or Korean and most pictures take two columns there, and a mark on
another character none (Unicode Standard Annex 11). All texts here are printable; see `plain`.
"""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Collection, Sequence

# Between the beginning and the end of what is shortened; the ends of identities begin with it, too.
GAP = ".."

# Columns that each text keeps; the end of an identity, for one, fits.
MIN_COLUMNS = 12

# No character that is printable, and so in no text here.
_FILLER = "\uffff"


def _width(character: str) -> int:
    # The second and third letters of a Korean syllable are drawn into the first.
    if "\u1160" <= character <= "\u11ff" or unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def width_of(text: str) -> int:
    """Columns that *text* takes on a terminal."""
    return len(text) if text.isascii() else sum(map(_width, text))


def padded(text: str, width: int) -> str:
    """*text* with space behind it up to *width* columns."""
    return text + " " * (width - width_of(text))


def _beginning(text: str, width: int) -> str:
    """As much of *text* as *width* columns hold."""
    for end, character in enumerate(text):
        width -= _width(character)
        if width < 0:
            return text[:end]
    return text


def _end(text: str, width: int) -> str:
    for start in range(len(text) - 1, -1, -1):
        width -= _width(text[start])
        if width < 0:
            # A mark stays with what it is a mark on.
            return text[start + 1 :].lstrip("".join(c for c in text if not _width(c)))
    return text


def cut(text: str, width: int) -> str:
    """*text*, at most *width* columns of it."""
    return text if width_of(text) <= width else _beginning(text, width)


def shortened(text: str, width: int) -> str:
    """*text* in *width* columns: what gives way is the middle, since names differ at both ends."""
    if width_of(text) <= width:
        return text
    space = width - len(GAP)
    begins = _beginning(text, space - space // 2)
    return f"{begins}{GAP}{_end(text, space // 2)}"


def folded(
    text: str, width: int, *, indent: str = "", most: int | None = None, cut_mark: str = "..."
) -> list[str]:
    """*text* in lines of *width* columns, the further ones behind *indent*; at most *most* of them.

    What is left out of the last one is shown as *cut_mark*.
    """
    counted = "".join(c + _FILLER if _width(c) == 2 else c for c in text)
    lines = textwrap.wrap(
        counted, width, subsequent_indent=indent, max_lines=most, placeholder=cut_mark
    )
    return [line.replace(_FILLER, "") for line in lines]


def aligned(
    rows: Sequence[Sequence[str]], *, width: int | None = None, give_way: Collection[int] = ()
) -> list[str]:
    """A line for each of *rows*, with the cells of a column below each other.

    Args:
      rows: Their cells, of each row as many.
      width: Columns to be used if possible; a line may still be longer.
      give_way: The numbers of the columns whose cells may be shortened for that, the widest first.
        Cells that differ go on to differ.

    """
    columns = [list(cells) for cells in zip(*rows, strict=True)]
    widths = [max(map(width_of, cells)) for cells in columns]
    over = 0 if width is None else sum(widths) + 2 * (len(widths) - 1) - width
    if over > 0:
        least = {number: _least(columns[number], widths[number]) for number in give_way}
        while over > 0 and (wide := [n for n in give_way if widths[n] > least[n]]):
            widths[max(wide, key=lambda number: widths[number])] -= 1
            over -= 1
        for number in give_way:
            columns[number] = [shortened(cell, widths[number]) for cell in columns[number]]
    return ["  ".join(map(padded, cells, widths)).rstrip() for cells in zip(*columns, strict=True)]


def _least(cells: Sequence[str], width: int) -> int:
    """The fewest columns in which *cells* that differ do so still."""
    different = set(cells)
    for fewer in range(min(width, MIN_COLUMNS), width):
        if len({shortened(cell, fewer) for cell in different}) == len(different):
            return fewer
    return width
