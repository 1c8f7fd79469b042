"""Reads the settings file: TOML, one table a section, of a bounded size.

What the keys mean is decided by `_layers`; the file is changed by `_edit`.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping, MutableMapping
from pathlib import Path

import attrs

from ...exceptions import ConfigurationError
from .._setting import Origin
from ._folders import FILE_VARIABLE, settings_path
from ._forms import FORM, VERSION_KEY, form_of, move

# A file with every setting and a comment at each has 8 KiB. tomllib takes time in the square of
# one dotted key: 64 KiB of it take twenty seconds, 16 KiB take one and a half.
MAX_FILE_BYTES = 16 * 1024

# A file that cannot be read is never written to, so nothing of it is lost.
_MEND = "; mend it there, or name another file with PUNCH_SETTINGS: punch changes nothing in it"

_TABLE = re.compile(r"\s*\[\s*[\"']?([\w-]+)[\"']?\s*\]")
_KEY = re.compile(r"\s*[\"']?([\w-]+)[\"']?(?:\s*\.\s*[\"']?([\w-]+)[\"']?)?\s*=")


@attrs.frozen(kw_only=True)
class SettingsFile:
    """The content of a settings file."""

    path: Path
    """Path of the file."""

    tables: Mapping[str, Mapping[str, object]] = attrs.field(factory=dict, repr=False)
    """Section to key to value, as TOML has them; keys outside of a section are in ``""``."""

    text: str = attrs.field(default="", repr=False)
    """The whole text of the file."""

    form: int = FORM
    """The form of the file; see `_forms`."""

    was: Mapping[str, str] = attrs.field(factory=dict)
    """The name that a key has in the file, by its name of today, where it is another one."""

    def get(self, section: str | None, key: str) -> object | None:
        """The value of a key, or `None` if the file does not have it: TOML has no null."""
        return None if section is None else self.tables.get(section, {}).get(key)

    def origin(self, section: str, key: str) -> Origin:
        """The place of a value, for people: the file with the line, or else with the key."""
        section, _, key = self.was.get(f"{section}.{key}", f"{section}.{key}").rpartition(".")
        line = self._line(section, key)
        place = f"{section}.{key}" if section and line is None else (line or key)
        return Origin(layer="file", name=f"{self.path}:{place}")

    def _line(self, section: str, key: str) -> int | None:
        table = ""
        for number, line in enumerate(self.text.splitlines(), 1):
            if (match := _TABLE.match(line)) is not None:
                table = match[1]
                if (table, "") == (section, key):
                    return number
            elif (match := _KEY.match(line)) is not None:
                names = [table, match[1], match[2]]
                if (section, key) in {(names[0], names[1]), (names[1], names[2])}:
                    return number
        return None


def read_settings_file(path: Path) -> SettingsFile:
    """The settings file at *path*; an empty one if there is none.

    Raises:
      ConfigurationError: if it cannot be read, is too long or is no TOML, with the line.

    """
    text = read_text(path)
    # The parser is imported behind this: most machines have no such file and need none.
    return SettingsFile(path=path) if not text.strip() else parse_settings(path, text)


def open_settings(environment: Mapping[str, str]) -> SettingsFile | None:
    """The settings file that *environment* names, else the usual one; `None` if it says none.

    Raises:
      ConfigurationError: if the named file is not there, or as `read_settings_file`.

    """
    path = settings_path(environment)
    if path is None:
        return None
    if environment.get(FILE_VARIABLE) and not path.exists():
        raise ConfigurationError(
            f"{FILE_VARIABLE} is {str(path)!r}: there is no such file; "
            "`punch settings set` makes it"
        )
    return read_settings_file(path)


def read_text(path: Path) -> str:
    """The text of the settings file, with its line ends as they are; empty if it is not there."""
    try:
        # A pipe or a terminal is not opened: that may take for ever.
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConfigurationError(
                f"the settings file {path} is not a file: name one with PUNCH_SETTINGS"
            )
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, ValueError) as error:
        problem = error.strerror if isinstance(error, OSError) else "there is a NUL in its name"
        raise ConfigurationError(
            f"the settings file {path} cannot be read: {problem}; "
            "PUNCH_SETTINGS names another one, or none"
        ) from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigurationError(
            f"the settings file {path} has more than {MAX_FILE_BYTES} bytes, the most that is "
            "read: shorten it"
        )
    try:
        # Editors on Windows begin a file with a byte order mark.
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigurationError(
            f"the settings file {path} is not UTF-8: save it as such"
        ) from None


def parse_settings(path: Path, text: str) -> SettingsFile:
    """The settings in *text*, the content of the file at *path*.

    Raises:
      ConfigurationError: if it is no TOML, with the line.

    """
    import tomllib

    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"the settings file {path} is no TOML: {error}{_MEND}") from None
    except (ValueError, RecursionError):
        # A number of thousands of digits; arrays in arrays in arrays.
        raise ConfigurationError(
            f"the settings file {path} is no TOML that can be read: "
            f"a value is too long or nested too deep{_MEND}"
        ) from None
    outside = {name: value for name, value in data.items() if not isinstance(value, dict)}
    form = form_of(path, outside)
    outside.pop(VERSION_KEY, None)
    tables: dict[str, MutableMapping[str, object]] = {
        name: value for name, value in data.items() if isinstance(value, dict)
    }
    was = move(path, tables, form)
    return SettingsFile(path=path, tables={**tables, "": outside}, text=text, form=form, was=was)
