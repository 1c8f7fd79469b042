"""The settings of ``punch coordinator`` and ``punch plan``, beside those of any split."""

from __future__ import annotations

import attrs

from ...settings import (
    CALIBRATE,
    SWITCH,
    TEXT,
    NetworkSettings,
    SplitOptions,
    count,
    group,
    of,
    optional,
    setting,
    several,
)

MODEL = optional(
    "model",
    TEXT,
    variable="LLAMA_GGUF_PATH",
    metavar="FILE",
    help="the model, as a GGUF file or the name of one that was pulled; only this machine needs it",
)
PROGRAM = optional(
    "program",
    TEXT,
    variable="LLAMA_CPP_EXE",
    metavar="FILE",
    help="llama-server of a build with RPC",
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
class SplitSettings(SplitOptions):
    """What a split is made of, and of which model; the settings of ``punch plan`` too."""

    model: str | None = of(MODEL)
    program: str | None = of(PROGRAM)
    network: NetworkSettings = group(NetworkSettings)
    identity: str | None = of(IDENTITY)


@attrs.frozen(kw_only=True)
class CoordinatorSettings(SplitSettings):
    """Settings of ``punch coordinator``."""

    listen: tuple[str, ...] = of(LISTEN)
    announce: tuple[str, ...] = of(ANNOUNCE)
    name: str | None = of(NAME)
    queue: int = of(QUEUE)
    calibrate: bool = of(
        CALIBRATE, about="time the split at the start, so that dialers know its speed"
    )


@attrs.frozen(kw_only=True)
class PlanSettings(SplitSettings):
    """Settings of ``punch plan``."""

    json: bool = of(AS_JSON)
