"""Decides where punch keeps its files, by the customs of the platform."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import platformdirs

from ...exceptions import ConfigurationError
from .._rules import expanded

FILE_VARIABLE = "PUNCH_SETTINGS"
"""Names another settings file; ``none`` for no file at all."""


def data_folder() -> Path:
    """The folder of identities, known bootstraps and models: what is lost with it is lost."""
    return platformdirs.user_data_path("punch", appauthor=False)


def cache_folder() -> Path:
    """The folder of what can be made again at any time."""
    return platformdirs.user_cache_path("punch", appauthor=False)


def configuration_folder() -> Path:
    """The folder of the settings file."""
    return platformdirs.user_config_path("punch", appauthor=False)


def settings_path(environment: Mapping[str, str]) -> Path | None:
    """The settings file that `FILE_VARIABLE` names, else the usual one; `None` if it says none."""
    text = environment.get(FILE_VARIABLE, "").strip()
    if text.lower() == "none":
        return None
    if not text:
        return configuration_folder() / "settings.toml"
    try:
        return expanded(text)
    except ValueError as error:
        raise ConfigurationError(f"{FILE_VARIABLE} is {text!r}: {error}") from None


def path_to_change(environment: Mapping[str, str]) -> Path:
    """The settings file, for a command that changes what stands in it.

    Raises:
      ConfigurationError: if there is to be none.

    """
    path = settings_path(environment)
    if path is None:
        raise ConfigurationError(f"{FILE_VARIABLE} is none: unset it, or name a file with it")
    return path
