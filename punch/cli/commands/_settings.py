"""``punch settings``: shows what is set and by which layer, and changes the settings file."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from ...exceptions import ConfigurationError
from ...settings import (
    PATH,
    SETTINGS,
    SWITCH,
    TEXT,
    Explained,
    Setting,
    Settings,
    SettingsFile,
    Taken,
    argument,
    arguments,
    change_items,
    explain,
    find_setting,
    of,
    open_settings,
    path_to_change,
    read_import,
    read_settings_file,
    refuse_unknown,
    set_value,
    setting,
    unset_value,
)
from .._columns import aligned, shortened
from .._exits import ExitCode
from .._output import plain
from .._run import command, run_one_of

ABOUT = "Show and change the settings that are kept in a file, for all programs."

# Values are cut there in the table; `punch settings get` has the whole one.
WIDEST = 44

NAME = argument("name", TEXT, metavar="NAME", about="as `punch settings list` has it")
VALUE = arguments(
    "value",
    TEXT,
    metavar="VALUE",
    about="what it shall be; several where there may be several; - reads it from standard input",
)
FILE = argument(
    "file",
    PATH,
    metavar="FILE",
    about="SynapticLlamas' ~/.synapticllamas.json, or its ~/.synapticllamas_nodes.json",
)
REPLACE = setting(
    "replace", SWITCH, False, variable="", help="also what the settings file has already"
)
AS_JSON = setting("json", SWITCH, False, variable="", help="one JSON object a setting and line")


@attrs.frozen(kw_only=True)
class ListSettings(Settings):
    """Settings of ``punch settings list``."""

    json: bool = of(AS_JSON)


@attrs.frozen(kw_only=True)
class GetSettings(Settings):
    """Settings of ``punch settings get``."""

    name: str = of(NAME)
    json: bool = of(AS_JSON)


@attrs.frozen(kw_only=True)
class SetSettings(Settings):
    """Settings of ``punch settings set``."""

    name: str = of(NAME)
    value: tuple[str, ...] = of(VALUE)


@attrs.frozen(kw_only=True)
class UnsetSettings(Settings):
    """Settings of ``punch settings unset``."""

    name: str = of(NAME)


@attrs.frozen(kw_only=True)
class ImportSettings(Settings):
    """Settings of ``punch settings import``."""

    file: Path = of(FILE)
    replace: bool = of(REPLACE)


def _list(settings: ListSettings) -> ExitCode:
    file = open_settings(os.environ)
    problems = list(_unknown(file))
    found: list[Explained] = []
    for each in SETTINGS:
        try:
            found.append(explain(each, {}, os.environ, file))
        except ConfigurationError as problem:
            # The others are shown all the same: the list must show what is wrong.
            problems.append(problem)
    if settings.json:
        for explained in found:
            print(json.dumps(_as_data(explained)))
    else:
        print("\n".join(_table(found)))
    for each_problem in problems:
        print(f"punch: {plain(str(each_problem))}", file=sys.stderr)
    return ExitCode.USAGE if problems else ExitCode.OK


def _unknown(file: SettingsFile | None) -> Iterator[ConfigurationError]:
    if file is not None:
        try:
            refuse_unknown(file)
        except ConfigurationError as problem:
            yield problem


def _table(found: Sequence[Explained]) -> list[str]:
    rows = [(each.setting.name, each.text or "-", str(each.origin)) for each in found]
    cells = [[plain(cell).replace("\n", " ") for cell in row] for row in rows]
    return aligned([(name, shortened(value, WIDEST), origin) for name, value, origin in cells])


def _as_data(explained: Explained) -> dict[str, str | None]:
    return {
        "name": explained.setting.name,
        "value": explained.text or None,
        "layer": explained.origin.layer,
        "origin": str(explained.origin),
        "flag": explained.setting.flag,
        "variable": explained.setting.variable,
        "help": explained.setting.help,
    }


def _get(settings: GetSettings) -> ExitCode:
    explained = explain(find_setting(settings.name), {}, os.environ, open_settings(os.environ))
    if settings.json:
        print(json.dumps(_as_data(explained)))
        return ExitCode.OK
    # Alone on standard output: a script takes it from there.
    print(plain(explained.text))
    print(f"punch: {explained.setting.name} is from {explained.origin}", file=sys.stderr)
    return ExitCode.OK


def _set(settings: SetSettings) -> ExitCode:
    found = find_setting(settings.name)
    texts = settings.value
    if texts == ("-",):
        # A secret that is typed as an argument is in the shell's history.
        texts = tuple(sys.stdin.read().splitlines())
    if not texts or (len(texts) > 1 and not found.many):
        raise ConfigurationError(f"{found.name} is one value, and {len(texts)} were given")
    set_value(path_to_change(os.environ), found, texts)
    _warn(found)
    return ExitCode.OK


def _warn(found: Setting[object]) -> None:
    """Say that a variable hides what was just set."""
    if found.variable is not None and os.environ.get(found.variable):
        print(
            f"punch: {found.variable} is set in this shell, and counts more than the file",
            file=sys.stderr,
        )


def _unset(settings: UnsetSettings) -> ExitCode:
    path = path_to_change(os.environ)
    # A slip that the file has is taken out as it is spelled there.
    if not unset_value(path, settings.name) and not unset_value(
        path, find_setting(settings.name).name
    ):
        print(f"punch: {settings.name} is not in {plain(str(path))}", file=sys.stderr)
    return ExitCode.OK


def _import(settings: ImportSettings) -> ExitCode:
    found, path = read_import(settings.file), path_to_change(os.environ)
    rows = [("taken", each.key, _took(path, each, settings.replace)) for each in found.taken]
    rows += [("left", each.key, each.why) for each in found.left]
    cells = [(outcome, plain(key), plain(words)) for outcome, key, words in rows]
    print("\n".join(aligned(cells)) if cells else "there is nothing in it to take")
    return ExitCode.OK


def _took(path: Path, taken: Taken, replace: bool) -> str:
    """Write what was *taken* into the file at *path*; what became of it, for people."""
    ours, texts = taken.setting, list(taken.texts)
    before = explain(ours, {}, {}, read_settings_file(path))
    if ours.many:
        # A list grows: what it has was put there on purpose.
        change_items(path, ours, lambda items: list(dict.fromkeys([*items, *texts])))
    elif before.origin.layer == "file" and before.text != texts[0] and not replace:
        return f"not yet: {before.origin} has {ours.name} = {before.text}; --replace takes this one"
    else:
        set_value(path, ours, texts)
    words = f"{ours.name} = {', '.join(map(ours.shown, texts))}"
    return f"{words}; {taken.note}" if taken.note else words


def _path(_: Settings) -> ExitCode:
    print(path_to_change(os.environ))
    return ExitCode.OK


COMMANDS = {
    "list": command("show every setting, its value and where that is from", ListSettings, _list),
    "get": command("show one setting, and where its value is from", GetSettings, _get),
    "set": command("write a setting into the file", SetSettings, _set),
    "unset": command("take a setting out of the file", UnsetSettings, _unset),
    "import": command(
        "take over the settings of SynapticLlamas, and say what was taken", ImportSettings, _import
    ),
    "path": command("say where the file is", Settings, _path),
}


def settings(typed: Sequence[str]) -> int:
    """Run ``punch settings``; its exit code."""
    return run_one_of("punch settings", ABOUT, COMMANDS, typed)
