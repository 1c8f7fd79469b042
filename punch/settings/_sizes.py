"""Rules for sizes, rates and times that are written with a unit: ``8GB``, ``1Gbit/s``, ``20ms``."""

from __future__ import annotations

import math
import re
from typing import Final

from ._rules import Rule

_WRITTEN: Final = re.compile(r"([0-9]*\.?[0-9]+(?:[eE][0-9]+)?)\s*([A-Za-zµ/]*)")

_PREFIXES: Final = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY: Final = {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}

# Unit, in small letters, to bytes. A letter alone is what people write for GB.
_BYTES: Final = {
    **{f"{prefix}b": float(size) for prefix, size in _PREFIXES.items()},
    **{prefix: float(size) for prefix, size in _PREFIXES.items() if prefix},
    **{f"{prefix}b": float(size) for prefix, size in _BINARY.items()},
    **{prefix: float(size) for prefix, size in _BINARY.items()},
}
_BITS: Final = {f"{prefix}bit": size / 8 for prefix, size in _PREFIXES.items()}
_SECONDS: Final = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}

_MAX_BYTES: Final = float(2**60)  # A million terabytes.
_MAX_SECONDS: Final = 3600.0


def _size(text: str) -> int:
    return round(_of(text, _BYTES, "8GB, 512MB or 6GiB", _MAX_BYTES, least=1.0))


def _rate(text: str) -> float:
    units = {**_BYTES, **_BITS}
    units |= {f"{unit}/s": size for unit, size in units.items()}
    return _of(text, units, "20GB/s or 100Mbit/s", _MAX_BYTES, least=1.0)


def _duration(text: str) -> float:
    return _of(text, _SECONDS, "0.2ms, 20ms or 1s", _MAX_SECONDS, least=0.0)


def _of(text: str, units: dict[str, float], examples: str, most: float, *, least: float) -> float:
    match = _WRITTEN.fullmatch(text.strip())
    if match is None or match[2].lower() not in units:
        raise ValueError(f"write a number with its unit, such as {examples}")
    value = float(match[1]) * units[match[2].lower()]
    if not math.isfinite(value) or value > most:
        raise ValueError("that is more than there is anywhere")
    if value < least:
        raise ValueError("it must be above 0")
    return value


SIZE: Rule[int] = Rule(_size)
"""Bytes, written with a unit: ``8GB`` is 8,000,000,000 and ``8GiB`` is 8,589,934,592."""

RATE: Rule[float] = Rule(_rate)
"""Bytes a second, written with a unit of bytes or bits: ``20GB/s``, ``100Mbit/s``."""

DURATION: Rule[float] = Rule(_duration)
"""Seconds, written with a unit: ``20ms``."""
