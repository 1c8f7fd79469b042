"""Pictures in a body: read from data addresses and base64, checked by their own first bytes.

Nothing is fetched: an address on the network is refused by name, whoever's it is. How many bytes
of pictures one request may have is checked where it is made.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from ...wire import ContentPart
from ._words import shown

# RFC 2397; other parameters, such as a character set, mean nothing for a picture.
_DATA_ADDRESS = re.compile(r"data:([^;,]{0,128})((?:;[^;,]{0,128})*?)(;base64)?,", re.IGNORECASE)

# What each kind of picture begins with: the servers behind peers read these.
_KINDS = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
    (re.compile(rb"BM.{4}\0\0\0\0", re.DOTALL), "image/bmp"),
)


def media_type_of(data: bytes) -> str | None:
    """The media type of a picture, by its first bytes; `None` if it is of no kind that is known."""
    return next((kind for begins, kind in _KINDS if begins.match(data)), None)


def picture(data: bytes) -> ContentPart:
    """A part with the picture *data*, which says by itself what kind it is of.

    Raises:
      ValueError: if it is no picture that could be read.

    """
    kind = media_type_of(data)
    if kind is None:
        kinds = ", ".join(kind.removeprefix("image/") for _, kind in _KINDS)
        raise ValueError(f"its bytes are no picture of a kind that is read ({kinds})")
    return ContentPart(type="image", media_type=kind, data=data)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("it is not base64") from None


def _at(value: Any) -> Any:
    """The picture at a data address."""
    if isinstance(value, ContentPart):
        return value
    if not isinstance(value, str):
        raise ValueError(f"is {shown(value)}; it must be text")
    found = _DATA_ADDRESS.match(value)
    if found is None:
        scheme = value.split(":", 1)[0].lower()
        if scheme in ("http", "https", "file", "ftp"):
            raise ValueError(
                f"{scheme} addresses are not fetched; send the picture itself, as "
                "data:image/png;base64,..."
            )
        raise ValueError(f"is {shown(value)}; it must be an address data:image/...;base64,...")
    if found[3] is None:
        raise ValueError("a data address of a picture must be in base64")
    return picture(_decoded(value[found.end() :]))


def _in_base64(value: Any) -> Any:
    """The picture in a text of base64, or at a data address: Ollama's clients send either."""
    if isinstance(value, str) and not value.startswith(("data:", "http:", "https:", "file:")):
        return picture(_decoded(value))
    return _at(value)


PictureAddress = Annotated[
    Any, BeforeValidator(_at), WithJsonSchema({"type": "string", "format": "uri"})
]
"""A picture at a data address; a `ContentPart` once it is read."""

PictureText = Annotated[
    Any,
    BeforeValidator(_in_base64),
    WithJsonSchema({"type": "string", "contentEncoding": "base64"}),
]
"""A picture in base64; a `ContentPart` once it is read."""
