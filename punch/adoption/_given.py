"""Servers that a person has named, with what is known of them beyond what they tell."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class Given:
    """A server that is to be adopted, on this machine or another."""

    url: str
    """Its address, with or without ``/v1``; without user and password."""

    model: str | None = None
    """Offer this one of its models only; `None` for all."""

    features: frozenset[str] | None = None
    """What its models that chat can do, in place of what it tells."""

    context: int | None = None
    """Tokens of one request, in place of what it tells."""

    slots: int | None = None
    """Requests side by side, in place of what it tells."""

    key: str | None = attrs.field(default=None, repr=False)
    """Sent as a bearer token."""
