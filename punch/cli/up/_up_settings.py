"""The settings of `punch up`: those of a gateway with a listener beside it, and how it joins."""

from __future__ import annotations

from pathlib import Path

import attrs

from ...settings import (
    LOG_LEVEL,
    PATH,
    SWITCH,
    TEXT,
    AdoptingSettings,
    GatewaySettings,
    group,
    of,
    optional,
    optional_argument,
    setting,
)

JOIN = setting(
    "join",
    SWITCH,
    False,
    variable="",
    help="join the namespace of an invite first; the code is asked for",
)
CODE = optional_argument(
    "code", TEXT, metavar="CODE", about="the code to join with; - for standard input"
)
FILE = optional("file", PATH, variable="", metavar="FILE", help="the file with the code")

DETACH = setting(
    "detach",
    SWITCH,
    False,
    variable="",
    help="run without this terminal: wait until it is up, show where programs ask, and return",
)
LOG_FILE = optional(
    "log_file",
    PATH,
    variable="",
    metavar="FILE",
    help="write the log there, in place of standard error, 4 MiB and the two before it",
    shown_default="with --detach, up.log in the data folder",
)


@attrs.frozen(kw_only=True)
class UpSettings(GatewaySettings):
    """Settings of ``punch up``."""

    code: str | None = of(CODE)
    join: bool = of(JOIN)
    file: Path | None = of(FILE)

    detach: bool = of(DETACH)
    log_file: Path | None = of(LOG_FILE)

    adopting: AdoptingSettings = group(AdoptingSettings)

    listen_too: bool = True
    """No setting here: there is a listener, whatever it answers with."""

    log_level: str = of(LOG_LEVEL, default="warning")

    @property
    def joins(self) -> bool:
        """Whether another namespace is to be joined first."""
        return self.join or self.code is not None or self.file is not None
