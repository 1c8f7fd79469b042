"""Sentences whose private parts are marked, so that a report for strangers can leave them out.

What is private is decided where a sentence is made, and never by a search in it afterwards: a name,
an address, a path and the words of somebody else enter a sentence as a `Private` or not at all.
"""

from __future__ import annotations

from typing import Literal

import attrs

Kind = Literal["address", "name", "peer", "model", "path", "program", "words"]
"""What a private part is: of ``words`` somebody else has written all."""


@attrs.frozen
class Private:
    """A part of a sentence that says who or where somebody is, or what somebody else said."""

    kind: Kind
    """What the part is; a stranger sees this."""

    value: str
    """The part itself."""


@attrs.frozen
class Text:
    """A sentence, in parts. Made by `text`."""

    parts: tuple[str | Private, ...] = ()
    """What is said, in order."""

    def __str__(self) -> str:
        return "".join(part if isinstance(part, str) else part.value for part in self.parts)


NOTHING = Text()
"""No sentence."""


def text(template: str, *private: Private) -> Text:
    """The sentence that *template* makes with a private part in the place of each ``{}``."""
    literals = template.split("{}")
    assert len(literals) == len(private) + 1, template
    parts: list[str | Private] = [literals[0]]
    for part, literal in zip(private, literals[1:], strict=True):
        parts += [part, literal]
    return Text(tuple(part for part in parts if part != ""))


class Disguise:
    """Shows sentences without their private parts: the same part has the same number everywhere."""

    def __init__(self) -> None:
        self._numbers: dict[Private, int] = {}

    def of(self, sentence: Text) -> str:
        """*sentence* as strangers may read it, such as ``<address 1> does not answer``."""
        return "".join(
            part if isinstance(part, str) else self._shown(part) for part in sentence.parts
        )

    def _shown(self, part: Private) -> str:
        known = self._numbers.get(part)
        if known is None:
            known = 1 + sum(each.kind == part.kind for each in self._numbers)
            self._numbers[part] = known
        return f"<{part.kind} {known}>"
