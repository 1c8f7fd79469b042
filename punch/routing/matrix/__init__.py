"""The models on offer beside the places where each could run. No I/O."""

from ._rows import Cell, SizeRow, size_rows

__all__ = [
    "size_rows",
    "SizeRow",
    "Cell",
]
