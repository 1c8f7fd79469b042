"""Reads the key-value pairs of a GGUF header and keeps the few that are used.

What they mean for a model is decided by `_header`.
"""

from __future__ import annotations

import struct
from typing import Final

from ..exceptions import ModelFileError
from ._reader import ByteReader

_MAX_TEXT_BYTES: Final = 1024 * 1024  # Of a text that is kept. Chat templates take up to 20 KB.
_MAX_NUMBER: Final = 2**31 - 1  # llama.cpp keeps all of these in 32 bits.
MAX_LAYERS: Final = 4096  # Elements of a per-layer list that is kept.

TEMPLATE: Final = "tokenizer.chat_template"
_KEPT_TEXTS: Final = {"general.architecture", "general.name", "general.type", TEMPLATE}
_KEPT_LISTS: Final = (
    ".attention.head_count",
    ".attention.head_count_kv",
    ".attention.indexer.types",
    ".attention.recurrent_layers",
    ".attention.sliding_window_pattern",
    ".expert_used_count",
    ".feed_forward_length",
)

# Number of the value type to (struct format, bytes, word). 8 is a string, 9 an array.
_SCALARS: Final[dict[int, tuple[str, int, str]]] = {
    0: ("<B", 1, "uint8"),
    1: ("<b", 1, "int8"),
    2: ("<H", 2, "uint16"),
    3: ("<h", 2, "int16"),
    4: ("<I", 4, "uint32"),
    5: ("<i", 4, "int32"),
    6: ("<f", 4, "float32"),
    7: ("<?", 1, "bool"),
    10: ("<Q", 8, "uint64"),
    11: ("<q", 8, "int64"),
    12: ("<d", 8, "float64"),
}
_STRING: Final = 8
_ARRAY: Final = 9

Scalar = int | float | bool | str


class Values:
    """The values of the header that are kept, with their keys."""

    def __init__(self) -> None:
        self.scalars: dict[str, Scalar] = {}
        self.lists: dict[str, tuple[Scalar, ...]] = {}
        self.lengths: dict[str, int] = {}
        self.present: set[str] = set()

    def text(self, key: str) -> str | None:
        """The text of *key*; `None` if the header lacks it.

        Raises:
          ModelFileError: if the value is no text.

        """
        found = self.scalars.get(key)
        if key in self.present and not isinstance(found, str):
            raise ModelFileError(f"{key} is {_shown(found)}, but must be text")
        return found if isinstance(found, str) else None

    def integer(self, key: str) -> int | None:
        """The whole number of *key*; `None` if the header lacks it.

        Raises:
          ModelFileError: if the value is no whole number in range.

        """
        return _integer(key, self.scalars.get(key)) if key in self.present else None

    def scalar(self, key: str) -> Scalar | None:
        """The value of *key* as it is; `None` if the header lacks it or has a list."""
        return self.scalars.get(key)

    def is_set(self, key: str) -> bool:
        """Whether the header has *key*, and not as 0 or false."""
        return key in self.present and self.scalars.get(key) != 0

    def number(self, key: str) -> int | None:
        """The whole number of *key*; `None` where there is none that llama.cpp could use."""
        found = self.scalars.get(key)
        if isinstance(found, bool) or not isinstance(found, int):
            return None
        return found if 0 <= found <= _MAX_NUMBER else None

    def flags(self, key: str, layers: int) -> tuple[bool, ...] | None:
        """Whether the list *key* is set for each layer, false past its end; `None` without a list.

        llama.cpp copies such a list over an array of zeros.
        """
        if key not in self.lists:
            return None
        found = [bool(each) for each in self.lists[key][:layers]]
        return tuple(found + [False] * (layers - len(found)))

    def per_layer(self, key: str, layers: int | None) -> tuple[int, ...]:
        """The whole numbers of *key*, one a layer; one number alone stands for every layer."""
        if layers is None or key not in self.present:
            return ()
        if key not in self.lists:
            return (_integer(key, self.scalars.get(key)),) * layers
        found = tuple(_integer(key, each) for each in self.lists[key])
        if len(found) < layers:
            raise ModelFileError(f"{key} has {len(found)} values for {layers} layers")
        return found[:layers]


def _integer(key: str, found: Scalar | None) -> int:
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found <= _MAX_NUMBER:
        raise ModelFileError(
            f"{key} is {_shown(found)}, but must be a whole number from 0 to {_MAX_NUMBER}"
        )
    return found


def _shown(found: Scalar | None) -> str:
    return "a text or a list" if found is None else repr(found)


def read_pair(reader: ByteReader, values: Values) -> None:
    """Read the next key and its value into *values*, if the value is used.

    Raises:
      ModelFileError: if the key is empty or there twice, or the value is damaged.

    """
    key = reader.name("a key")
    if not key or key in values.present:
        raise ModelFileError(f"the key {key[:80]!r} is empty or there twice: the file is damaged")
    values.present.add(key)
    what = f"the value of {key[:80]!r}"
    kind = reader.number("<I", 4, what)
    if kind == _STRING:
        length = reader.number("<Q", 8, what)
        reader.expect(length, what)
        if key in _KEPT_TEXTS:
            if length > _MAX_TEXT_BYTES:
                raise ModelFileError(
                    f"{what} is {length} bytes; at most {_MAX_TEXT_BYTES} is plausible"
                )
            values.scalars[key] = reader.consume(length, what).decode("utf-8", "surrogateescape")
        else:
            reader.skip(length, what)
    elif kind == _ARRAY:
        _read_array(reader, values, key, what)
    else:
        layout, length, _ = _scalar(kind, what)
        values.scalars[key] = struct.unpack(layout, reader.consume(length, what))[0]


def _read_array(reader: ByteReader, values: Values, key: str, what: str) -> None:
    kind = reader.number("<I", 4, what)
    count = reader.number("<Q", 8, what)
    values.lengths[key] = count
    if kind == _STRING:
        reader.skip_strings(count, what)
        return
    if kind == _ARRAY:
        raise ModelFileError(f"{what} is a list of lists, which llama.cpp does not read either")
    layout, length, _ = _scalar(kind, what)
    reader.expect(count * length, what)
    if key.endswith(_KEPT_LISTS) and count <= MAX_LAYERS:
        taken = reader.consume(count * length, what)
        values.lists[key] = tuple(value for (value,) in struct.iter_unpack(layout, taken))
    else:
        reader.skip(count * length, what)


def _scalar(kind: int, what: str) -> tuple[str, int, str]:
    if kind not in _SCALARS:
        raise ModelFileError(f"{what} has the type {kind}; types 0 to 12 exist")
    return _SCALARS[kind]
