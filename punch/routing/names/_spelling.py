"""The spellings of a model's name: which of them two names share makes them the same, or nearly."""

from __future__ import annotations

import re
from collections.abc import Iterator

# What programs add to a name and mean nothing by: Ollama's clients the tag, people the file's end.
_ADDED = (":latest", ".gguf")

# A model in several files is called by the first of them.
_PART = re.compile(r"-\d{5}-of-\d{5}$")

# How the weights are stored, where a name ends in that: ``-Q4_K_M``, ``.IQ3_XXS``, ``:q8_0``.
_QUANTIZATION = re.compile(
    r"[-._:@](?:ud-)?(?:i?q\d+(?:_[a-z0-9]{1,3})*|tq\d_\d|mxfp4(?:_moe)?|bf16|fp?16|fp?32|fp8|"
    r"int[48]|[2-8]bit|awq|gptq)$"
)


def plain(name: str) -> str:
    """*name* without what programs add to it: a file's end, a part's number, ``:latest``."""
    while True:
        small = name.lower()
        for added in _ADDED:
            if small.endswith(added) and len(name) > len(added):
                name = name[: -len(added)]
                break
        else:
            found = _PART.search(name)
            if found is None or found.start() == 0:
                return name
            name = name[: found.start()]


def folded(name: str) -> str:
    """`plain`, with all letters alike."""
    return plain(name).casefold()


def shorter_paths(name: str) -> Iterator[str]:
    """*name* with one folder, or owner, less in front, then with two, to the last part."""
    parts = re.split(r"[/\\]", name)
    for first in range(1, len(parts)):
        rest = "/".join(parts[first:])
        if rest:
            yield rest


def shortened(name: str) -> frozenset[str]:
    """What people leave out at the end of a folded *name*: how it is stored, and its tag."""
    found: set[str] = set()
    for one in (name, *shorter_paths(name)):
        found.add(_QUANTIZATION.sub("", one))
        untagged = _without_tag(one)
        found |= {untagged, _QUANTIZATION.sub("", untagged)}
    return frozenset(found - {name, ""})


def _without_tag(name: str) -> str:
    owner, slash, last = name.rpartition("/")
    return owner + slash + last.partition(":")[0]
