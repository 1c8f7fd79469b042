"""Tells which branch of a union a value belongs to, before the branch itself is read."""

from __future__ import annotations

from typing import Any

from pydantic import Discriminator


def field_of(value: Any, name: str) -> Any:
    """A field of an object that is to be read, or of a body: pydantic asks about both."""
    return value.get(name) if isinstance(value, dict) else getattr(value, name, None)


def text_or_list(value: Any) -> str | None:
    """The branch of a field that is a text, or a list."""
    if isinstance(value, str):
        return "~text"
    return "~list" if isinstance(value, list) else None


def text_or(other: str) -> Discriminator:
    """Tells a text from the branch *other*, which all else is."""
    return Discriminator(lambda value: "~text" if isinstance(value, str) else other)
