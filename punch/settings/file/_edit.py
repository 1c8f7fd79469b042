"""Changes the settings file: one key at a time, and everything else in it stays as it is.

The file is read again under a lock, changed, parsed once more to be sure, written to a temporary
name and renamed: two edits at once both count, and a reader sees the old file or the new one.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING

from ..._locks import try_lock
from ...exceptions import ConfigurationError
from .._rules import boolean, expanded
from .._setting import Setting
from .._table import SECTIONS
from ._file import MAX_FILE_BYTES, SettingsFile, parse_settings, read_text
from ._forms import FORM, VERSION_KEY, copy_of, move

if TYPE_CHECKING:
    from tomlkit import TOMLDocument

# An edit takes milliseconds; one that takes longer than this is of a process that hangs.
LOCK_SECONDS = 5.0
LOCK_POLL_SECONDS = 0.02

# Files of older forms that are kept: one, unless somebody puts an old one back again and again.
MAX_COPIES = 20

Plain = bool | int | float | str
"""A value of the file, or an item of a list there."""


def set_value(path: Path, setting: Setting[object], texts: Sequence[str]) -> None:
    """Write *setting* into the settings file.

    Makes the file, readable by its owner only, if it is not there.

    Args:
      path: The settings file.
      setting: The setting.
      texts: Its value as text: one, unless the setting may have several.

    Raises:
      ConfigurationError: if the text breaks the setting's rule, or the file cannot be changed.

    """
    if setting.section is None:
        raise ConfigurationError(f"{setting.name} is said for each run; the file cannot have it")
    for text in texts:
        try:
            setting.rule.value(text)
        except ValueError as error:
            shown = "the secret" if setting.secret else f"{setting.name} {setting.shown(text)!r}"
            raise ConfigurationError(f"{shown} is not set: {error}") from None
    items = [_plain(setting, text) for text in texts]
    value: Plain | list[Plain] = items if setting.many else items[0]
    section, key = setting.section, setting.key

    def change(document: TOMLDocument) -> object:
        # A key keeps the comment behind it.
        _section_of(document, section, path)[key] = value
        return value

    private = setting.secret or any(setting.shown(text) != text for text in texts)
    edit(path, change, place=(section, key), private=private)


def _section_of(document: TOMLDocument, section: str, path: Path) -> MutableMapping[str, object]:
    import tomlkit

    table: object = document.get(section)
    if table is None:
        table = document[section] = tomlkit.table()
    if not isinstance(table, MutableMapping):
        raise ConfigurationError(
            f"the settings file {path} has {section} as a value; "
            f"`punch settings unset {section}` takes it out"
        )
    return table


def change_items(
    path: Path, setting: Setting[object], change: Callable[[Sequence[str]], Sequence[str]]
) -> None:
    """Change the list of texts that *setting* has in the settings file.

    Two changes at once both count: each is made of what the file has by then.

    Args:
      path: The settings file.
      setting: A setting that may have several values.
      change: What makes of the items in the file those that are to be there. It may raise
        `ConfigurationError`.

    Raises:
      ConfigurationError: if the file cannot be changed.

    """
    section, key = setting.section or "", setting.key

    def edited(document: TOMLDocument) -> object:
        table = _section_of(document, section, path)
        before = table.get(key, [])
        if not isinstance(before, list) or not all(isinstance(item, str) for item in before):
            raise ConfigurationError(
                f"the settings file {path} has something else than a list of texts as "
                f"{setting.name}; `punch settings unset {setting.name}` takes it out"
            )
        after = list(change([str(item) for item in before]))
        if after:
            table[key] = after
            return after
        table.pop(key, None)
        return None

    edit(path, edited, place=(section, key))


def unset_value(path: Path, name: str) -> bool:
    """Remove *name* from the settings file: ``listener.slots``, or a key that is no setting.

    Returns:
      True if it was there.

    Raises:
      ConfigurationError: if the file cannot be changed.

    """
    if name == VERSION_KEY:
        # The form of the file is no setting.
        return False
    section, _, key = name.rpartition(".")
    found = False

    def change(document: TOMLDocument) -> object:
        nonlocal found
        table = document.get(section) if section else document
        if isinstance(table, MutableMapping) and key in table and name not in SECTIONS:
            table.pop(key)
            found = True
            if section and not table and not _has_comments(table):
                document.pop(section)
        return None

    if not path.exists():
        return False
    edit(path, change, place=(section, key))
    return found


def _has_comments(table: Mapping[str, object]) -> bool:
    """True if an empty *table* has comments, which are to stay."""
    as_string = getattr(table, "as_string", None)
    return as_string is not None and "#" in as_string()


def _plain(setting: Setting[object], text: str) -> Plain:
    """The value that the file has for *text*, which has passed the setting's rule."""
    match setting.rule.kind:
        case "switch":
            return boolean(text)
        case "number":
            try:
                return int(text)
            except ValueError:
                return float(text)
    # Absolute: the working folder of this moment means nothing later.
    return str(expanded(text).absolute()) if setting.rule.is_path(text) else text


def edit(
    path: Path,
    change: Callable[[TOMLDocument], object],
    *,
    place: tuple[str, str],
    private: bool = False,
) -> None:
    """Change the settings file at *path*.

    Args:
      path: The file; a link to it stays one.
      change: Changes the document in place; returns the value that must be at *place* then,
        `None` for no such key.
      place: Section and key.
      private: Take the file from everybody but its owner.

    """
    # Imported here: only an edit needs it, and it is bigger than all other modules here.
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    path = path.resolve()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _locked(path):
            text = read_text(path)
            before = parse_settings(path, text)
            document = tomlkit.parse(text)
            copy = _to_this_form(path, document, before)
            unchanged = tomlkit.dumps(document)
            value = change(document)
            after = tomlkit.dumps(document)
            _check(path, before, after, (*place, value))
            if after != unchanged:
                if copy is not None:
                    _replace(copy, text, private=True)
                _replace(path, after, private=private)
    except (OSError, TOMLKitError) as error:
        if isinstance(error, OSError):
            problem = f"{error.strerror}; make it writable and see that the disk has room"
        else:
            problem = "punch cannot edit this TOML; edit it by hand"
        raise ConfigurationError(f"the settings file {path} cannot be changed: {problem}") from None


def _to_this_form(path: Path, document: TOMLDocument, before: SettingsFile) -> Path | None:
    """Make *document* one of today's form; where the file is to be kept as it was, if it is."""
    import tomlkit

    if before.text and before.form == FORM:
        return None
    move(path, document, before.form)
    version = tomlkit.item(FORM)
    copy = None
    if before.text.strip():
        numbers = range(MAX_COPIES)
        copies = (copy_of(path, before.form, number) for number in numbers)
        # An old file that was put back is kept beside the one that was kept before.
        free = (each for each in copies if not each.exists() or read_text(each) == before.text)
        copy = next(free, None)
        if copy is None:
            raise ConfigurationError(
                f"the settings file {path} is of an old form, and {MAX_COPIES} copies of such "
                "files are beside it: take some away"
            )
        version.comment(f"as it was before: {copy.name}")
        if "\r\n" in before.text:
            version.trivia.trail = "\r\n"
    document[VERSION_KEY] = version
    return copy


def _check(path: Path, before: SettingsFile, text: str, expected: tuple[str, str, object]) -> None:
    """Check that *text* has the new value, and everything else as it was before."""
    if len(text.encode()) > MAX_FILE_BYTES:
        raise ConfigurationError(
            f"the settings file {path} would have more than {MAX_FILE_BYTES} bytes"
        )
    section, key, value = expected
    after = parse_settings(path, text)
    if after.get(section, key) != value or _rest(before, expected) != _rest(after, expected):
        # tomlkit and tomllib disagree: a defect of one of them, and the file stays as it is.
        raise ConfigurationError(
            f"the settings file {path} cannot be changed: punch cannot edit this TOML; "
            "edit it by hand"
        )


def _rest(file: SettingsFile, expected: tuple[str, str, object]) -> dict[tuple[str, str], object]:
    """The tables of *file* without the key, or whole section, that is changed."""
    section, key, _ = expected
    return {
        (table, name): value
        for table, keys in file.tables.items()
        for name, value in keys.items()
        if (table, name) != (section, key) and (section or table != key)
    }


def _replace(path: Path, text: str, *, private: bool) -> None:
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o600
    with NamedTemporaryFile("wb", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(text.encode())
            file.flush()
            # A machine that loses power has the old file or the new one, and no empty one.
            os.fsync(file.fileno())
            file.close()
            Path(file.name).chmod(mode & 0o600 if private else mode)
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let no other process of this machine edit *path* for as long as the context lasts.

    The lock is on a file of its own, which stays: the settings file is another one after each edit.
    """
    deadline = time.monotonic() + LOCK_SECONDS
    with path.with_name(f".{path.name}.lock").open("ab") as file:
        while not try_lock(file):
            if time.monotonic() > deadline:
                raise ConfigurationError(
                    f"the settings file {path} is being changed by another process; try again"
                )
            time.sleep(LOCK_POLL_SECONDS)
        yield
