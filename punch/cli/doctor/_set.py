"""Reads what is set, one setting at a time, so that a wrong one hides nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import attrs

from ...doctor import SettingFault
from ...exceptions import ConfigurationError
from ...settings import (
    SETTINGS,
    Settings,
    SettingsFile,
    explain,
    load,
    open_settings,
    refuse_unknown,
)

S = TypeVar("S", bound=Settings)

Flags = Mapping[str, tuple[str, ...]]


@attrs.frozen(kw_only=True)
class Surroundings:
    """Where settings are read, without what is wrong there."""

    environment: Mapping[str, str] = attrs.field(repr=False)
    """The variables whose values are good."""

    file: SettingsFile | None = attrs.field(repr=False)
    """The settings file with the values that are good; `None` if it cannot be used at all."""

    faults: tuple[SettingFault, ...] = ()
    """What is wrong."""

    def load(self, kind: type[S], flags: Flags) -> S:
        """The settings of a program, with the default in the place of what is wrong.

        Raises:
          ConfigurationError: if a flag is wrong.

        """
        return load(kind, flags, self.environment, self.file)

    def as_data(self, *, in_full: bool) -> list[dict[str, Any]]:
        """What is set, and by which layer; the values of switches and numbers, or of all *in_full*.

        Secrets are never shown.
        """
        rows = []
        for setting in SETTINGS:
            found = explain(setting, {}, self.environment, self.file)
            if found.origin.layer != "default":
                is_shown = in_full or setting.rule.kind in ("switch", "number")
                row = {"setting": setting.name, "layer": found.origin.layer}
                rows.append({**row, "value": found.text} if is_shown else row)
        return rows


def read_surroundings(environment: Mapping[str, str]) -> Surroundings:
    """What *environment* and the settings file say, every setting by itself."""
    faults: list[SettingFault] = []
    try:
        file = open_settings(environment)
        if file is not None:
            refuse_unknown(file)
    except ConfigurationError as error:
        file = None
        faults.append(SettingFault(name=None, words=str(error)))
    good = dict(environment)
    for setting in SETTINGS:
        try:
            explain(setting, {}, good, file)
        except ConfigurationError as error:
            variable = setting.variable if setting.variable in good else None
            faults.append(SettingFault(name=setting.name, words=str(error), variable=variable))
            # Without both: the value below a wrong one may be wrong, too, and is not told of.
            good.pop(setting.variable or "", None)
            if file is not None and setting.section is not None:
                file = _without(file, setting.section, setting.key)
    return Surroundings(environment=good, file=file, faults=tuple(faults))


def _without(file: SettingsFile, section: str, key: str) -> SettingsFile:
    table = {name: value for name, value in file.tables.get(section, {}).items() if name != key}
    return attrs.evolve(file, tables={**file.tables, section: table})
