"""Counts how big a regular expression is to an engine that holds an answer to it.

* *Places*: its characters and classes, with every repetition written out. ``(ab){3}`` has 6.
  Some engines do write it out, and all need memory for it.
* *Ways*: in how many places one may be at once after the same text. One, as long as each
  round of a repetition can be told from the next: by its length, by a character that stands
  nowhere else in it, or because no round can continue with what begins the next. Where it cannot,
  as in ``(a{0,99}){0,99}``, every place is a way. So it is where two parts follow each other,
  as in ``a{0,99}a{0,99}``: the second may have begun after each place of the first.

* *Skips*: how many rounds or parts that may match nothing stand in a row, so that each of them may
  take the next character. One, for nearly every pattern; ``([a-z]?){30}`` has 30. An engine that
  looks ahead by a token tries all of them for each character: 30 to the power of its length.

All are upper bounds. ``*``, ``+`` and ``{n,}`` loop, which takes one round, or *n*.

Sources: ECMA-262, section 22.2.1 (patterns); A. Brüggemann-Klein and D. Wood, "One-Unambiguous
Regular Languages" (1998), for what can be told apart without looking ahead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

# Counting ends here: what is more than this is too much anyway.
CEILING = 10**15

# One bit for each ASCII character, and one for all others.
_ALL = (1 << 129) - 1
_OTHER = 1 << 128
_DOT = _ALL & ~(1 << 10 | 1 << 13)


def _bits(low: int, high: int) -> int:
    """The characters from *low* to *high*, by code point."""
    if low > 127:
        return _OTHER
    ascii_part = ((1 << (min(high, 127) + 1)) - 1) & ~((1 << low) - 1)
    return ascii_part | (_OTHER if high > 127 else 0)


_DIGITS = _bits(48, 57)
_LETTERS = _bits(65, 90) | _bits(97, 122)
_SPACES = _bits(9, 13) | _bits(32, 32) | _OTHER
_CLASSES: Mapping[str, int] = {
    "d": _DIGITS,
    "D": _ALL & ~_DIGITS,
    "w": _DIGITS | _LETTERS | _bits(95, 95),
    "W": _ALL & ~(_DIGITS | _LETTERS | _bits(95, 95)),
    "s": _SPACES,
    "S": _ALL & ~_SPACES | _OTHER,
    # A property of Unicode, or what an earlier group has matched: unknown here.
    "p": _ALL,
    "P": _ALL,
    "k": _ALL,
    **dict.fromkeys("123456789", _ALL),
}
_CONTROLS = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13, "0": 0}
_ESCAPE = re.compile(
    r"x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|u\{([0-9a-fA-F]{1,6})\}|[pPk][{<][^}>]*[}>]"
)
_BRACES = re.compile(r"\{(\d*)(,?)(\d*)\}")
_GROUP_KIND = re.compile(r"\?(?:<?[=!]|P?<\w*>|[a-zA-Z^-]*:|[a-zA-Z^-]*(?=\)))")


class Size(NamedTuple):
    """How big a pattern is."""

    places: int
    ways: int
    skips: int


class _Part(NamedTuple):
    """What is known of a part of a pattern. Sets of characters are bits, see `_ALL`."""

    first: int = 0
    """Characters that the part may begin with."""
    after: int = 0
    """Characters that the part may continue with where it may also have ended."""
    chars: int = 0
    """Characters anywhere in the part."""
    empty: bool = True
    """True if the part can match no character at all."""
    length: int | None = 0
    """Characters that the part matches, if that is always the same number."""
    places: int = 0
    ways: int = 1
    is_sure: bool = True
    """True if the text read so far says which place the part is in, but for loops."""
    is_fenced: bool = False
    """True if one of its characters comes once, and can be nothing else in the part."""
    heads: int = 1
    """Places that may take the first character."""
    skips: int = 1
    """The most heads of a row within it, or of its rounds."""


_NOTHING = _Part()


def _one(chars: int, length: int | None = 1) -> _Part:
    return _Part(first=chars, chars=chars, empty=False, length=length, places=1)


def _sequence(parts: list[_Part]) -> _Part:
    if len(parts) == 1:
        return parts[0]
    first = after = once = twice = places = 0
    empty = is_sure = True
    length: int | None = 0
    unsure: list[int] = []
    for part in parts:
        # Where the next part may begin, an earlier one may still continue: which is it?
        unsure.append(places if after & part.first else 0)
        after = part.after | (after | part.first if part.empty else 0)
        first |= part.first if empty else 0
        twice |= once & part.chars
        once |= part.chars
        empty = empty and part.empty
        length = None if length is None or part.length is None else length + part.length
        places += part.places
        is_sure = is_sure and part.is_sure and not unsure[-1]
    # The rest may have begun after each place of what stands before it.
    ways, rest = 1, 0
    for part, before in zip(reversed(parts), reversed(unsure), strict=True):
        rest += part.places
        ways = max(ways, part.ways)
        if before:
            ways = max(ways, min(rest, before * ways))
    heads, begun, skips = 1, 0, max(part.skips for part in parts)
    for part in reversed(parts):
        # What the parts of a row may begin with, all that stand before it being skipped.
        is_row = part.empty and bool(part.first & begun)
        heads = part.heads + heads if is_row else max(part.heads, heads if part.empty else 1)
        begun = part.first | begun if part.empty else part.first
        skips = max(skips, heads if is_row else 1)
    # A part of one place and one character is not repeated, and always there.
    is_fenced = any(part.places == part.length == 1 and not part.chars & twice for part in parts)
    return _Part(
        first=first, after=after, chars=once, empty=empty, length=length,
        places=min(places, CEILING), ways=ways, is_sure=is_sure, is_fenced=is_fenced,
        heads=min(heads, CEILING), skips=min(skips, CEILING),
    )  # fmt: skip


def _either(parts: list[_Part]) -> _Part:
    if len(parts) == 1:
        return parts[0]
    is_sure = all(part.is_sure for part in parts)
    begins: dict[int | None, int] = {}
    for part in parts:
        # Two that begin alike and end at different times: which of them was it?
        for length, first in begins.items():
            if first & part.first and (length is None or length != part.length):
                is_sure = False
        begins[part.length] = begins.get(part.length, 0) | part.first
    first = after = chars = 0
    for part in parts:
        first |= part.first
        after |= part.after
        chars |= part.chars
    return _Part(
        first=first, after=after, chars=chars, empty=any(part.empty for part in parts),
        length=parts[0].length if len(begins) == 1 else None,
        places=min(sum(part.places for part in parts), CEILING),
        ways=max(part.ways for part in parts), is_sure=is_sure,
        heads=_most_heads(parts), skips=max(part.skips for part in parts),
    )  # fmt: skip


def _most_heads(parts: list[_Part]) -> int:
    """Places that may take the same first character in a choice of *parts*.

    A choice of words is followed by their second characters; only short ones come again at once.
    """
    short: dict[int, int] = {}
    for part in parts:
        if part.length == 1:
            short[part.first] = short.get(part.first, 0) + part.heads
    # Of characters beyond ASCII it is not known which they are: most are different ones.
    alike = [
        sum(count for other, count in short.items() if other & first & ~_OTHER) for first in short
    ]
    return min(max(*alike, *(part.heads for part in parts), 1), CEILING)


def _repeated(part: _Part, low: int, high: int | None) -> _Part:
    if high == 0:
        return _NOTHING
    rounds = max(low, 1) if high is None else high
    loops = high is None or (high > 1 and high > low)
    told_apart = (
        (rounds == 1 and not loops)
        or bool(part.length)
        or part.is_fenced
        or (part.is_sure and not part.empty and not part.after & part.first)
    )
    places = min(part.places * rounds, CEILING)
    is_fixed = part.length is not None and low == high
    # Of a loop without an end the engine has one round, whichever it is in.
    heads = min(part.heads * (rounds if part.empty else 1), CEILING)
    return _Part(
        first=part.first,
        after=part.after | (part.first if loops else 0),
        chars=part.chars,
        empty=part.empty or low == 0,
        length=min((part.length or 0) * low, CEILING) if is_fixed else None,
        places=places,
        ways=part.ways if told_apart else max(part.ways, places),
        is_sure=part.is_sure and told_apart,
        heads=heads,
        skips=max(part.skips, heads if rounds > 1 or loops else 1),
    )


def pattern_size(pattern: str) -> Size:
    """Count the places and the ways of *pattern*, a regular expression as JSON Schema has them.

    What is no expression is counted as well as it can be: the engine will say so itself.
    """
    # No recursion: a pattern may be nothing but parentheses.
    outer: list[tuple[list[_Part], list[_Part]]] = []
    choices: list[_Part] = []
    parts: list[_Part] = []
    at = 0
    while at < len(pattern):
        mark = pattern[at]
        at += 1
        if mark == "(":
            outer.append((choices, parts))
            choices, parts = [], []
            if kind := _GROUP_KIND.match(pattern, at):
                at = kind.end()
        elif mark == ")" and outer:
            group = _either([*choices, _sequence(parts) if parts else _NOTHING])
            choices, parts = outer.pop()
            parts.append(group)
        elif mark == "|":
            choices.append(_sequence(parts) if parts else _NOTHING)
            parts = []
        elif parts and (bounds := _bounds(pattern, at - 1)):
            low, high, at = bounds
            parts[-1] = _repeated(parts[-1], low, high)
        elif mark == "[":
            chars, at = _class(pattern, at)
            parts.append(_one(chars))
        elif mark == "\\":
            part, at = _escaped(pattern, at)
            parts.append(part)
        elif mark == ".":
            parts.append(_one(_DOT))
        elif mark in "^$":
            continue
        else:
            parts.append(_one(_bits(ord(mark), ord(mark))))
    while True:
        whole = _either([*choices, _sequence(parts) if parts else _NOTHING])
        if not outer:
            return Size(places=whole.places, ways=whole.ways, skips=whole.skips)
        choices, parts = outer.pop()
        parts.append(whole)


def _bounds(pattern: str, at: int) -> tuple[int, int | None, int] | None:
    """How often what stands before *at* is repeated, and where the pattern continues."""
    mark = pattern[at]
    if mark in "*+?":
        return int(mark == "+"), 1 if mark == "?" else None, at + 1
    found = _BRACES.match(pattern, at)
    if found is None or not (found[1] or found[3]):
        return None  # A brace that stands for itself.
    low = _number(found[1])
    if not found[2]:
        return low, low, found.end()
    return low, max(low, _number(found[3])) if found[3] else None, found.end()


def _number(digits: str) -> int:
    # Python refuses to read very long numbers.
    return int(digits or "0") if len(digits) < 16 else CEILING


def _escaped(pattern: str, at: int) -> tuple[_Part, int]:
    """What a backslash before *at* stands for, and where the pattern continues."""
    mark = pattern[at : at + 1]
    if mark in ("b", "B"):
        return _NOTHING, at + 1
    chars, after = _escaped_chars(pattern, at)
    # What an earlier group has matched has any length.
    return _one(chars, None if mark and mark in "k123456789" else 1), after


def _escaped_chars(pattern: str, at: int) -> tuple[int, int]:
    mark = pattern[at : at + 1]
    if not mark:
        return _bits(92, 92), at
    found = _ESCAPE.match(pattern, at)
    after = found.end() if found else at + 1
    if mark in _CLASSES:
        return _CLASSES[mark], after
    digits = found and (found[1] or found[2] or found[3])
    code = int(digits, 16) if digits else _CONTROLS.get(mark, ord(mark))
    return _bits(code, code), after


def _class(pattern: str, at: int) -> tuple[int, int]:
    """The characters of the class that begins at *at*, and where the pattern continues."""
    is_not = pattern.startswith("^", at)
    at += is_not
    chars = 0
    low: int | None = None
    while at < len(pattern) and pattern[at] != "]":
        if pattern[at] == "-" and low is not None and pattern[at + 1 : at + 2] not in ("", "]"):
            at += 1
            is_range = True
        else:
            is_range = False
        if pattern[at] == "\\":
            found, at = _escaped_chars(pattern, at + 1)
        else:
            found = _bits(ord(pattern[at]), ord(pattern[at]))
            at += 1
        if is_range and low is not None:
            high = found.bit_length() - 1
            chars |= _bits(low, high) if low <= high else found
            low = None
            continue
        chars |= found
        # The lower end of a range, if this is one character.
        low = found.bit_length() - 1 if found.bit_count() == 1 else None
    return (_ALL & ~chars | chars & _OTHER if is_not else chars), at + 1
