"""Reads the header of a GGUF model: what it is, how big, what memory each of its layers takes.

Rules:

* No I/O of its own: it gets a readable, seekable binary file and reads it once, forwards.
* Arbitrary bytes raise `ModelFileError` and nothing else. The text says what was found
  and what was expected.
* Memory is bounded: it holds one 64 KiB piece and the few values it reports; the token
  lists are walked over. Counts and lengths are checked before they are believed.
* Numbers are exact or absent. Nothing is guessed from a file name.

Source: the head of ``ggml/include/gguf.h`` and ``gguf_init_from_reader`` in llama.cpp.
"""

from __future__ import annotations

from ._cache import LayerCache
from ._header import GgufHeader, GgufPart, read_header, read_part
from ._layout import LayerSize, Layout, lay_out, read_layout
from ._quantization import TENSOR_TYPES

__all__ = [
    # One file
    "GgufHeader",
    "LayerCache",
    "GgufPart",
    "read_header",
    "read_part",
    # A whole model
    "LayerSize",
    "Layout",
    "lay_out",
    "read_layout",
    # How weights are stored
    "TENSOR_TYPES",
]
