"""Says what a file is that is no GGUF file, and what to do with it, by its first bytes."""

from __future__ import annotations

import struct
from typing import Final

# So many bytes of a file are looked at.
HEAD_BYTES: Final = 512

_CONVERT: Final = "convert it with llama.cpp's convert_hf_to_gguf.py, or download the GGUF file"
_AGAIN: Final = "download the file itself again"
_UNPACK: Final = "unpack it, and give the .gguf file in it"

# How files begin that people have under the name of a model, what they are, and what to do.
_BEGINNINGS: Final = (
    (b"version https://git-lfs", "a pointer of Git LFS", f"run `git lfs pull`, or {_AGAIN}"),
    (b"<", "a page of HTML, such as a login or an error", _AGAIN),
    (b"PK\x03\x04", "a zip archive or a file of PyTorch", f"{_UNPACK}; or {_CONVERT}"),
    (b"\x80\x02", "a file of PyTorch", _CONVERT),
    (b"\x1f\x8b", "a gzip archive", _UNPACK),
    (b"BZh", "a bzip2 archive", _UNPACK),
    (b"\xfd7zXZ", "an xz archive", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", _UNPACK),
    (b"7z\xbc\xaf", "a 7z archive", _UNPACK),
    (b"lmgg", "a GGML file, older than GGUF", _CONVERT),
    (b"fmgg", "a GGML file, older than GGUF", _CONVERT),
    (b"tjgg", "a GGML file, older than GGUF", _CONVERT),
    (b"algg", "a LoRA file, older than GGUF", _CONVERT),
    (b"\x89HDF", "a file of Keras", _CONVERT),
    (b"\x7fELF", "a program", "LLAMA_CPP_EXE is the setting for that; give a model here"),
    (b"MZ", "a program for Windows", "give a model here"),
)


def describe_other(head: bytes) -> str:
    """What a file with these first bytes is, and what to do; empty if nobody knows."""
    if not head:
        return "; it is empty: " + _AGAIN
    if not head.strip(b"\0"):
        return "; it is blank, as a download that did not end: " + _AGAIN
    for beginning, what, remedy in _BEGINNINGS:
        if head.lstrip().startswith(beginning):
            return f"; it is {what}: {remedy}"
    if head[257:262] == b"ustar":
        return f"; it is a tar archive: {_UNPACK}"
    # safetensors: the length of its header, and then a JSON object.
    if len(head) > 8 and head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] < 2**32:
        return f"; it is a safetensors file: {_CONVERT}"
    if head.lstrip()[:1] in (b"{", b"["):
        return f"; it is JSON, perhaps what a server said instead of the file: {_AGAIN}"
    if _is_text(head):
        return f"; it is a text: {_AGAIN}"
    return ""


def _is_text(head: bytes) -> bool:
    return head.decode("utf-8", "replace").rstrip("\ufffd").replace("\n", "").isprintable()
