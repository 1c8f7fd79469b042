"""Puts characters together that a server sends in pieces. No I/O.

JSON writes a character outside the Basic Multilingual Plane as two halves, a surrogate pair
(RFC 8259, section 7), and a server may send each half in an event of its own. Others write the
raw bytes of one character into several events. Neither piece can be sent to anybody alone.

* Pieces that belong together are joined; until the rest is there, they are held back.
* A piece whose rest never comes reads U+FFFD.
"""

from __future__ import annotations

import re

# What `surrogateescape` makes of bytes that are no UTF-8; the second halves of pairs are among
# these, so pairs are joined first.
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_BYTES = re.compile("[\udc80-\udcff]+")
_LONE = re.compile("[\ud800-\udfff]")

# The end of a text that the next one may complete: the first half of a pair, or at most three
# bytes of a character of four.
_UNFINISHED = re.compile("(?:[\ud800-\udbff]|[\udcc2-\udcf4][\udc80-\udcbf]{0,2})\\Z")

# By the first byte of a character (RFC 3629, section 3).
_LENGTHS = ((0xC2, 2), (0xE0, 3), (0xF0, 4))


class Characters:
    """Joins the texts of one answer where a character goes across them."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> str:
        """*text* with what was held back before it, and without what is held back now."""
        if not self._held and text.isascii():
            return text
        text, self._held = self._held + text, ""
        if (found := _UNFINISHED.search(_PAIR.sub(_joined, text))) is not None:
            held = found.group()
            if not _is_whole(held):
                self._held = held
                text = text[: -len(held)]
        return whole_characters(text)

    def finish(self) -> str:
        """What was held back, now that nothing more comes."""
        held, self._held = self._held, ""
        return whole_characters(held)


def whole_characters(text: str) -> str:
    """*text* with its pieces of characters joined, and U+FFFD for each that stands alone."""
    if text.isascii():
        return text
    text = _PAIR.sub(_joined, text)
    text = _BYTES.sub(lambda found: _decoded(found.group()), text)
    return _LONE.sub("\ufffd", text)


def _joined(pair: re.Match[str]) -> str:
    return pair.group().encode("utf-16", "surrogatepass").decode("utf-16")


def _decoded(escaped: str) -> str:
    return escaped.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _is_whole(held: str) -> bool:
    first = ord(held[0]) - 0xDC00
    needed = [length for least, length in _LENGTHS if first >= least]
    return bool(needed) and len(held) >= needed[-1]
