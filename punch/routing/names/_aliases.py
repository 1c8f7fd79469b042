"""Further names for models, as this machine's owner has set them: ``gpt-4o-mini = llama3.2``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import attrs

from ...wire import LIMITS, MAX_NAME_CHARACTERS
from ._spelling import folded

# More names than programs have; a pattern stands for any number.
MAX_ALIASES = 256

WILD = "*"


@attrs.frozen
class Alias:
    """One further name of a model."""

    name: str
    """The name; a ``*`` in it stands for any characters, also for none."""

    model: str
    """The model that it means, by any name but another alias's; ``auto`` for any model."""

    def __str__(self) -> str:
        return f"{self.name}={self.model}"

    @property
    def is_pattern(self) -> bool:
        """Whether it stands for many names."""
        return WILD in self.name

    @classmethod
    def of(cls, text: str) -> Alias:
        """The alias that *text* says, as ``NAME=MODEL``.

        Raises:
          ValueError: with the rule that it breaks.

        """
        name, sign, model = (part.strip() for part in text.partition("="))
        if not sign or not name or not model:
            raise ValueError("write NAME=MODEL, such as gpt-4o-mini=llama3.2 or gpt-*=llama3.2")
        for one in (name, model):
            if len(one) > MAX_NAME_CHARACTERS or not one.isprintable():
                limit = LIMITS["model"]
                raise ValueError(f"a name is {limit.span} {limit.unit}")
        if WILD in model:
            raise ValueError("the model is one, so no * is in its name")
        if WILD not in name and folded(name) == folded(model):
            raise ValueError("a model has its own name already")
        return cls(name, model)

    def matches(self, name: str) -> bool:
        """Whether a pattern stands for *name*, in whatever case."""
        return stands_for(self.name, name)


def stands_for(pattern: str, name: str) -> bool:
    """Whether *pattern* stands for *name*, in whatever case; a ``*`` for any characters, or none.

    Both may have, or lack, what programs add to a name.
    """
    if WILD not in pattern:
        return folded(pattern) == folded(name)
    first, *middle, last = pattern.casefold().split(WILD)
    for text in {name.casefold(), folded(name)}:
        if len(text) < len(first) + len(last) or not text.startswith(first):
            continue
        end = len(text) - len(last)
        if not text.endswith(last):
            continue
        place = len(first)
        for part in middle:
            found = text.find(part, place, end)
            if found < 0:
                break
            place = found + len(part)
        else:
            return True
    return False


def _distinct(aliases: Iterable[Alias]) -> tuple[Alias, ...]:
    named = {alias.name: alias for alias in aliases}
    if len(named) > MAX_ALIASES:
        raise ValueError(f"there are {len(named)} aliases; {MAX_ALIASES} are the most")
    return tuple(named.values())


@attrs.frozen
class Aliases:
    """The aliases of one machine.

    Raises:
      ValueError: if there are more than `MAX_ALIASES`.

    """

    all: tuple[Alias, ...] = attrs.field(default=(), converter=_distinct)
    """Each of them, in the order in which they were set; of two with the same name, the later."""

    _literal: Mapping[str, Alias] = attrs.field(init=False, eq=False, repr=False)
    _folded: Mapping[str, Alias] = attrs.field(init=False, eq=False, repr=False)
    _patterns: Sequence[Alias] = attrs.field(init=False, eq=False, repr=False)

    @_literal.default
    def _by_name(self) -> Mapping[str, Alias]:
        return {alias.name: alias for alias in self.all if not alias.is_pattern}

    @_folded.default
    def _by_spelling(self) -> Mapping[str, Alias]:
        single = [alias for alias in self.all if not alias.is_pattern]
        return {folded(alias.name): alias for alias in reversed(single)}

    @_patterns.default
    def _the_longest_first(self) -> Sequence[Alias]:
        # The one that says the most comes first.
        patterns = (alias for alias in self.all if alias.is_pattern)
        return sorted(patterns, key=lambda alias: -len(alias.name.replace(WILD, "")))

    def __len__(self) -> int:
        return len(self.all)

    def literal(self, name: str) -> Alias | None:
        """The alias of exactly this name."""
        return self._literal.get(name)

    def spelled(self, name: str) -> Alias | None:
        """The alias of this name in another case, or with what programs add to a name."""
        return self._folded.get(folded(name)) if self._folded else None

    def pattern(self, name: str) -> Alias | None:
        """The pattern that stands for *name* and says the most."""
        return next((alias for alias in self._patterns if alias.matches(name)), None)


NO_ALIASES = Aliases()
"""None."""
