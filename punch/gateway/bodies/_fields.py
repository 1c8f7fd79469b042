"""Fields and limits that the bodies of every dialect share."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, StrictStr, Tag
from pydantic_core import PydanticCustomError

from ...wire import LIMITS, MAX_HINTS, MAX_PEER_CHARACTERS
from ._body import Body
from ._branches import text_or_list


def _is_false(value: Any) -> Any:
    # To Python 0 equals False and 1 equals True, so a plain `Literal` would accept the number.
    if value is not False:
        raise PydanticCustomError("must", "Input should be false")
    return value


def _is_true(value: Any) -> Any:
    if value is not True:
        raise PydanticCustomError("must", "Input should be true")
    return value


Never = Annotated[Literal[False], BeforeValidator(_is_false)]
"""A field that may say ``false`` and nothing else."""
Always = Annotated[Literal[True], BeforeValidator(_is_true)]
"""A field that may say ``true`` and nothing else."""


def within(name: str, **other: Any) -> Any:
    """The limits of a body's field: those of *name*, a field of a request between peers.

    Args:
      name: As in `punch.wire.LIMITS`.
      **other: Limits of the dialect itself, in pydantic's words, in place of ours.

    """
    limit = LIMITS[name]
    if limit.type in (int, float):
        found: dict[str, Any] = {"gt" if limit.above else "ge": limit.least, "le": limit.most}
    else:
        found = {"max_length": int(limit.most)}
        if limit.least:
            found["min_length"] = int(limit.least)
        if limit.type is tuple:
            # A list is checked up to the first item that breaks a rule: a body of a million
            # wrong ones is one fault.
            found["fail_fast"] = True
    return Field(**(found | other))


# Parts of one message, which are one text to a peer.
MAX_PARTS = 256

# JSON's integers are signed 64-bit ones to many clients, and so they are in OpenAI's own schema.
MAX_SEED = (1 << 63) - 1

Text = Annotated[StrictStr, Tag("~text")]


def printable(value: str) -> str:
    """*value*, the name of a model; raises `ValueError` if it cannot be shown."""
    if not value.isprintable():
        limit = LIMITS["model"]
        raise ValueError(f"it must be {limit.span} {limit.unit}")
    return value


ModelName = Annotated[str, within("model"), AfterValidator(printable)]
"""The name of a model, which goes into logs, headers and labels."""


PeerNames = Annotated[
    Text
    | Annotated[
        list[Annotated[str, Field(min_length=1, max_length=MAX_PEER_CHARACTERS)]],
        Field(max_length=MAX_HINTS, fail_fast=True),
        Tag("~list"),
    ],
    Discriminator(text_or_list),
]
"""Peers: a list of names, or a text with commas between them."""


class PunchOptions(Body):
    """Punch's own options, under ``punch``."""

    priority: Annotated[int, within("priority")] = Field(
        default=0, description="Higher goes first in a queue."
    )
    strict: bool | None = Field(default=None, description="Real inference only, never simulated.")
    timeout: Annotated[float | None, within("timeout")] = Field(
        default=None, description="Seconds until the whole answer must be there."
    )
    continuation: bool = Field(
        default=True, description="If its peer fails in the middle, another one may continue."
    )
    prefer: PeerNames | None = Field(
        default=None, description="Peers to ask before any other, if they can be asked."
    )
    avoid: PeerNames | None = Field(
        default=None, description="Peers to ask only where no other can be asked."
    )
    only: PeerNames | None = Field(default=None, description="The peers that may be asked at all.")
    privacy: Literal["any", "whole", "own"] | None = Field(
        default=None,
        description="`own`: only peers of the same owner; `whole`: no model that is split.",
    )


class Function(Body):
    """A function that the model may ask for."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    # llama.cpp writes the arguments of every call under a grammar of their schema.
    strict: bool | None = None
