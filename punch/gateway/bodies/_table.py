"""The table of a body's fields: what is honoured, taken or refused, and why."""

from __future__ import annotations

from typing import Any, Literal

import attrs

from ._body import Body, Taken, mark_of, names_of

Verdict = Literal["honoured", "taken", "refused"]


@attrs.frozen(kw_only=True)
class FieldRule:
    """What becomes of one field."""

    name: str
    """As clients write it."""

    verdict: Verdict
    """What becomes of it."""

    why: str = ""
    """The reason, of what is taken or refused; the description, of what is honoured."""

    nothing: tuple[Any, ...] = ()
    """Values of a refused field that are taken, besides null and what is empty."""


def rules_of(kind: type[Body]) -> tuple[FieldRule, ...]:
    """What becomes of each field of a body, in the order of its model."""
    found = []
    for key, field in kind.model_fields.items():
        mark = mark_of(field)
        (name, *_) = names_of(key, field)
        if mark is None:
            rule = FieldRule(name=name, verdict="honoured", why=field.description or "")
        elif isinstance(mark, Taken):
            rule = FieldRule(name=name, verdict="taken", why=mark.why)
        else:
            why = mark.why if isinstance(mark.why, str) else mark.why.__doc__ or ""
            rule = FieldRule(name=name, verdict="refused", why=why, nothing=mark.nothing)
        found.append(rule)
    return tuple(found)
