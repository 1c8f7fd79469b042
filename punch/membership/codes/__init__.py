"""Codes of invites, and how two peers prove to each other that they know one. No I/O."""

from ._codes import (
    MAX_CODE_ADDRESSES,
    MAX_CODE_CHARACTERS,
    SECRET_BYTES,
    Code,
    LongCode,
    ShortCode,
    new_secret,
    new_short_code,
    parse_code,
)
from ._pake import Exchange, is_same
from ._qr import Drawing, draw, draw_on

__all__ = [
    "Code",
    "LongCode",
    "ShortCode",
    "parse_code",
    "new_secret",
    "new_short_code",
    "SECRET_BYTES",
    "MAX_CODE_ADDRESSES",
    "MAX_CODE_CHARACTERS",
    "draw",
    "draw_on",
    "Drawing",
    "Exchange",
    "is_same",
]
