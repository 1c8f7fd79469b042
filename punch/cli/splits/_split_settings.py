"""The settings of ``punch coordinator`` and ``punch plan``."""

from __future__ import annotations

import math
from pathlib import Path

import attrs

from ...settings import (
    PATH,
    SWITCH,
    TEXT,
    NetworkSettings,
    ProgramSettings,
    Rule,
    count,
    group,
    of,
    optional,
    setting,
    several,
)
from .._backends import DEFAULT_SLOTS


def _shares(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError("shares are numbers, with commas between them") from None
    if not all(0.0 <= value < math.inf for value in values) or not any(values):
        raise ValueError("shares are 0 or more, and one is above 0")
    return values


def _names(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (part.strip() for part in text.split(","))))


_NAMES = Rule(_names)

MODEL = optional(
    "model",
    TEXT,
    variable="LLAMA_GGUF_PATH",
    metavar="FILE",
    help="the model, as a GGUF file or the name of one that was pulled; only this machine needs it",
)
WORKERS = optional(
    "workers",
    _NAMES,
    variable="PUNCH_WORKERS",
    metavar="NAMES",
    help="who may lend, with commas between them: a worker by name or identity, or 127.0.0.1:PORT "
    "for an RPC server of this machine",
    shown_default="every worker of the namespace",
)
EXCLUDE = optional(
    "exclude",
    _NAMES,
    variable="",
    metavar="NAMES",
    help="workers and devices that hold nothing",
)
TENSOR_SPLIT = optional(
    "tensor_split",
    Rule(_shares),
    variable="",
    metavar="SHARES",
    help="shares of the layers for each device, in their order, such as 3,1; 0 for none",
    shown_default="as the plan has them",
)
MIN_WORKERS = setting(
    "min_workers",
    count(0, most=64),
    0,
    variable="",
    metavar="N",
    help="wait until so many workers are there, and give layers to that many at least",
)
MIN_PEERS = setting(
    "min_peers", count(0, most=64), 0, variable="", metavar="N", help="the same as --min-workers"
)
DEVICE = optional(
    "device",
    _NAMES,
    variable="",
    metavar="NAMES",
    help="use these devices alone, such as CUDA0 of this machine or a worker by its name",
    shown_default="all",
)
BIN_DIR = optional(
    "bin_dir",
    PATH,
    variable="",
    metavar="FOLDER",
    help="the folder of llama.cpp's programs",
    shown_default="that of LLAMA_CPP_EXE, or of what works here",
)
PROGRAM = optional(
    "program",
    TEXT,
    variable="LLAMA_CPP_EXE",
    metavar="FILE",
    help="llama-server of a build with RPC",
)
THREADS = optional(
    "threads",
    count(1),
    variable="LLAMA_THREADS",
    metavar="N",
    help="threads that the head computes with",
)
CONTEXT = optional(
    "context",
    count(1),
    variable="",
    metavar="TOKENS",
    help="longest prompt and answer of one request",
    shown_default="4096, or less if the model has less",
)
SLOTS = setting(
    "slots",
    count(1, most=256),
    DEFAULT_SLOTS,
    variable="",
    metavar="N",
    help="requests to answer side by side; they share the way to the workers",
)
PROMPT = setting("prompt", count(0), 512, variable="", help="tokens of a usual prompt")
ANSWER = setting("answer", count(1), 128, variable="", help="tokens of a usual answer")
FORCE = setting(
    "force",
    SWITCH,
    False,
    variable="",
    help="split it even where that is slower, and with workers of other builds",
)
LISTEN = several("listen", TEXT, variable="", metavar="ADDRESS", help="address to be dialled at")
ANNOUNCE = several(
    "announce", TEXT, variable="", metavar="ADDRESS", help="address that others are told besides"
)
QUEUE = setting("queue", count(0), 16, variable="", help="requests that may wait for a slot")
NAME = optional("name", TEXT, variable="", help="what people call this machine")
IDENTITY = optional(
    "identity",
    TEXT,
    variable="",
    metavar="FILE",
    help="the file of its key",
    shown_default="one of its own in the data folder",
)
AS_JSON = setting("json", SWITCH, False, variable="", help="print one JSON object")


@attrs.frozen(kw_only=True)
class SplitSettings(ProgramSettings):
    """What a split is made of; the settings of ``punch plan`` and ``punch coordinator``."""

    model: str | None = of(MODEL)
    workers: tuple[str, ...] | None = of(WORKERS)
    exclude: tuple[str, ...] | None = of(EXCLUDE)
    tensor_split: tuple[float, ...] | None = of(TENSOR_SPLIT)
    min_workers: int = of(MIN_WORKERS)
    min_peers: int = of(MIN_PEERS)
    device: tuple[str, ...] | None = of(DEVICE)
    bin_dir: Path | None = of(BIN_DIR)
    program: str | None = of(PROGRAM)
    threads: int | None = of(THREADS)
    context: int | None = of(CONTEXT)
    slots: int = of(SLOTS)
    prompt: int = of(PROMPT)
    answer: int = of(ANSWER)
    force: bool = of(FORCE)
    network: NetworkSettings = group(NetworkSettings)
    identity: str | None = of(IDENTITY)

    @property
    def least(self) -> int:
        """Workers that must hold layers."""
        return max(self.min_workers, self.min_peers)


@attrs.frozen(kw_only=True)
class CoordinatorSettings(SplitSettings):
    """Settings of ``punch coordinator``."""

    listen: tuple[str, ...] = of(LISTEN)
    announce: tuple[str, ...] = of(ANNOUNCE)
    name: str | None = of(NAME)
    queue: int = of(QUEUE)


@attrs.frozen(kw_only=True)
class PlanSettings(SplitSettings):
    """Settings of ``punch plan``."""

    json: bool = of(AS_JSON)
