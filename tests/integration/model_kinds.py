"""Makes other models of a real one: with an output matrix of its own, or stored smaller."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

# GGUF's types of values, to their bytes; 8 is a string and 9 an array.
SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
ALIGNMENT = 32

# llama_ftype of llama.cpp.
Q4_0 = 2

# What llama-quantize calls, through the binding: the program itself is in none of our builds.
QUANTIZE = """
import sys
import llama_cpp
settings = llama_cpp.llama_model_quantize_default_params()
settings.ftype, settings.nthread, settings.allow_requantize = int(sys.argv[3]), 2, True
sys.exit(llama_cpp.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), settings))
"""


def quantize(source: Path, target: Path, kind: int = Q4_0) -> Path:
    """Store the model *source* as *kind*, as llama-quantize does with ``--allow-requantize``."""
    subprocess.run(
        [sys.executable, "-c", QUANTIZE, source, target, str(kind)],
        capture_output=True,
        timeout=300,
        check=True,
    )
    return target


class _Reader:
    def __init__(self, data: memoryview) -> None:
        self.data, self.at = data, 0

    def number(self, layout: str) -> int:
        (found,) = struct.unpack_from(layout, self.data, self.at)
        self.at += struct.calcsize(layout)
        return int(found)

    def text(self) -> bytes:
        length = self.number("<Q")
        self.at += length
        return bytes(self.data[self.at - length : self.at])

    def skip_value(self) -> None:
        kind = self.number("<I")
        if kind == 8:
            self.text()
        elif kind == 9:
            kind, count = self.number("<I"), self.number("<Q")
            if kind != 8:
                self.at += count * SCALARS[kind]
            for _ in range(count if kind == 8 else 0):
                self.text()
        else:
            self.at += SCALARS[kind]


def untie(source: Path, target: Path) -> Path:
    """Give the model *source* an output matrix of its own: a copy of the embeddings.

    It answers as before, and llama.cpp treats it as a model whose output is not tied.
    """
    data = memoryview(source.read_bytes())
    reader = _Reader(data)
    reader.at = 8
    tensors, pairs = reader.number("<Q"), reader.number("<Q")
    for _ in range(pairs):
        reader.text()
        reader.skip_value()
    copied = b""
    offsets = []
    for _ in range(tensors):
        begin = reader.at
        name = reader.text()
        dimensions = reader.number("<I")
        reader.at += 8 * dimensions + 4
        offsets.append(reader.number("<Q"))
        if name == b"token_embd.weight":
            shape_and_type = bytes(data[begin + 8 + len(name) : reader.at - 8])
            copied, place = shape_and_type, offsets[-1]
    weights = data[reader.at + -reader.at % ALIGNMENT :]
    size = min([one for one in offsets if one > place], default=len(weights)) - place
    end = len(weights) + -len(weights) % ALIGNMENT
    name = b"output.weight"
    head = bytes(data[:8]) + struct.pack("<QQ", tensors + 1, pairs)
    head += bytes(data[24 : reader.at]) + struct.pack("<Q", len(name)) + name + copied
    head += struct.pack("<Q", end)
    assert copied
    with target.open("wb") as file:
        file.write(head + bytes(-len(head) % ALIGNMENT))
        file.write(weights)
        file.write(bytes(end - len(weights)))
        file.write(weights[place : place + size])
    return target
