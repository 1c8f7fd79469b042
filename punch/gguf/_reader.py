"""Reads a file from front to back, a piece at a time, and checks each length before it is used.

What the bytes mean is decided by `_values` and `_header`.
"""

from __future__ import annotations

import struct
from typing import BinaryIO, Final

from ..exceptions import ModelFileError

_PIECE_BYTES: Final = 64 * 1024  # Bytes read at a time.
_MAX_HEADER_BYTES: Final = 256 * 1024 * 1024  # The largest token lists in use take about 20 MB.
_MAX_NAME_BYTES: Final = 1024  # Bytes of a key or a tensor name; those in use stay below 64.


class ByteReader:
    """Reads numbers, texts and bytes of a file in their order, and holds one piece of it.

    Args:
      file: A readable and seekable binary file.

    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = file.seek(0, 2)
        file.seek(0)
        self._piece = b""
        self._used = 0
        self._before = 0  # Bytes of the file in front of `_piece`.

    @property
    def position(self) -> int:
        """Bytes consumed so far."""
        return self._before + self._used

    def consume_rest(self) -> bytes:
        """All of a file that is shorter than the magic number."""
        return self._file.read(4)

    def expect(self, length: int, what: str) -> None:
        """Check that *length* bytes can follow.

        Raises:
          ModelFileError: if the file ends before, or a sane header does; *what* is in its text.

        """
        if length > self.size - self.position:
            raise ModelFileError(
                f"{what} takes {length} bytes at offset {self.position}, but the file ends at "
                f"{self.size}: it is cut short or damaged. Download it again"
            )
        if self.position + length > _MAX_HEADER_BYTES:
            raise ModelFileError(
                f"the header goes on past {_MAX_HEADER_BYTES} bytes (in {what}): "
                "the file is damaged"
            )

    def consume(self, length: int, what: str) -> bytes:
        """The next *length* bytes. *length* was checked or is small.

        Raises:
          ModelFileError: if the file ends before.

        """
        end = self._used + length
        if end <= len(self._piece):
            taken = self._piece[self._used : end]
            self._used = end
            return taken
        self.expect(length, what)
        taken = self._piece[self._used :]
        self._before += len(self._piece)
        missing = length - len(taken)
        self._piece = self._file.read(max(_PIECE_BYTES, missing))
        self._used = missing
        if len(self._piece) < missing:  # The file shrank while it was read.
            raise ModelFileError(f"the file ended in {what}")
        return taken + self._piece[:missing]

    def skip(self, length: int, what: str) -> None:
        """Pass over *length* bytes."""
        end = self._used + length
        if end <= len(self._piece):
            self._used = end
            return
        self.expect(length, what)
        self._before = self._file.seek(self._before + end)
        self._piece = b""
        self._used = 0

    def number(self, layout: str, length: int, what: str) -> int:
        """The next number, of *length* bytes in the struct format *layout*."""
        return int(struct.unpack(layout, self.consume(length, what))[0])

    def count(self, layout: str, length: int, what: str, limit: int) -> int:
        """The next number, which may not be above *limit*."""
        found = self.number(layout, length, what)
        if found > limit:
            raise ModelFileError(f"{what} is {found}; at most {limit} is plausible")
        return found

    def name(self, what: str) -> str:
        """The next string, which names something."""
        length = self.count("<Q", 8, f"the length of {what}", _MAX_NAME_BYTES)
        return self.consume(length, what).decode("utf-8", "replace")

    def skip_strings(self, count: int, what: str) -> None:
        """Pass over *count* strings.

        Nearly all time goes here, in the tokens of a vocabulary, so the lengths are read from
        the piece itself, without a call for each string.
        """
        self.expect(8 * count, what)
        while count:
            piece, at, last = self._piece, self._used, len(self._piece) - 8
            while count and at <= last:
                following = at + 8 + int.from_bytes(piece[at : at + 8], "little")
                if following > len(piece):
                    break
                at = following
                count -= 1
            self._used = at
            if count:
                self.skip(self.number("<Q", 8, what), what)
                count -= 1
