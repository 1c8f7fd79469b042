"""Where punch keeps its files, as the platform has it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import platformdirs

FILE_VARIABLE = "PUNCH_SETTINGS"
"""Names another settings file; ``none`` for no file at all."""


def data_folder() -> Path:
    """Where identities, known bootstraps and models are."""
    return platformdirs.user_data_path("punch", appauthor=False)


def cache_folder() -> Path:
    """Where things are that can be made again."""
    return platformdirs.user_cache_path("punch", appauthor=False)


def configuration_folder() -> Path:
    """Where the settings file is."""
    return platformdirs.user_config_path("punch", appauthor=False)


def settings_path(environment: Mapping[str, str]) -> Path | None:
    """The settings file: the one that `FILE_VARIABLE` names, else the usual one; or none."""
    text = environment.get(FILE_VARIABLE, "").strip()
    if text.lower() == "none":
        return None
    return Path(text).expanduser() if text else configuration_folder() / "settings.toml"
