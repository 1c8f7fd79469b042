"""``punch alias``: gives models further names, lists these, and takes them away."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence

import attrs

from ...exceptions import ConfigurationError
from ...routing.names import Alias, Aliases
from ...settings import (
    ALIAS,
    SWITCH,
    TEXT,
    Settings,
    change_items,
    explain,
    of,
    open_settings,
    optional_argument,
    path_to_change,
    setting,
)
from .._columns import aligned
from .._exits import ExitCode
from .._output import plain
from .._run import run_command

ABOUT = """\
Give a model a further name, such as one that a program has built in:

  punch alias gpt-4o-mini llama3.2
  punch alias 'gpt-*' llama3.2
  punch alias --remove gpt-4o-mini

Without a name, list them. They are kept in the settings file, which a running gateway follows."""

NAME = optional_argument(
    "name", TEXT, metavar="NAME", about="the further name; a * stands for any characters"
)
MODEL = optional_argument(
    "model", TEXT, metavar="MODEL", about="the model that it means; auto for any"
)
REMOVE = setting("remove", SWITCH, False, variable="", help="take the name away")
AS_JSON = setting("json", SWITCH, False, variable="", help="one JSON object an alias and line")


@attrs.frozen(kw_only=True)
class AliasSettings(Settings):
    """Settings of ``punch alias``."""

    name: str | None = of(NAME)
    model: str | None = of(MODEL)
    remove: bool = of(REMOVE)
    json: bool = of(AS_JSON)


def _alias(settings: AliasSettings) -> ExitCode:
    name, model = settings.name, settings.model
    if name is None:
        if settings.remove:
            raise ConfigurationError(
                "--remove needs the name of an alias; `punch alias` lists them"
            )
        return _list(as_json=settings.json)
    if settings.remove:
        if model is not None:
            raise ConfigurationError("--remove takes one name: that of the alias")
        _remove(name)
    elif model is None:
        raise ConfigurationError(
            f"{name!r} needs a model: `punch alias {name} MODEL`; --remove takes an alias away"
        )
    else:
        _add(name, model)
    if ALIAS.variable is not None and os.environ.get(ALIAS.variable):
        print(
            f"punch: {ALIAS.variable} is set in this shell, and counts more than the file",
            file=sys.stderr,
        )
    return ExitCode.OK


def _of(text: str) -> Alias:
    try:
        return Alias.of(text)
    except ValueError as error:
        raise ConfigurationError(f"{text!r} is no alias: {error}") from None


def _add(name: str, model: str) -> None:
    if "=" in name:
        raise ConfigurationError(f"{name!r} is no name: no = is in one")
    alias = _of(f"{name}={model}")

    def change(items: Sequence[str]) -> Sequence[str]:
        others = [item for item in items if _of(item).name != alias.name]
        after = [*others, str(alias)]
        known = {each.name for each in map(_of, others)}
        if alias.model in known:
            raise ConfigurationError(
                f"{alias.model!r} is an alias itself, and none stands for another: name its model"
            )
        try:
            Aliases(map(_of, after))
        except ValueError as error:
            raise ConfigurationError(f"{error}; take some away, or write a pattern") from None
        return after

    change_items(path_to_change(os.environ), ALIAS, change)


def _remove(name: str) -> None:
    path = path_to_change(os.environ)

    def change(items: Sequence[str]) -> Sequence[str]:
        left = [item for item in items if item.partition("=")[0].strip() != name]
        if len(left) == len(items):
            raise ConfigurationError(
                f"there is no alias {name!r} in {path}; `punch alias` lists them"
            )
        return left

    change_items(path, ALIAS, change)


def _list(*, as_json: bool) -> ExitCode:
    found = explain(ALIAS, {}, os.environ, open_settings(os.environ))
    aliases = found.value
    assert isinstance(aliases, tuple)
    if as_json:
        for alias in aliases:
            print(json.dumps({"name": alias.name, "model": alias.model}))
        return ExitCode.OK
    if not aliases:
        print("no alias; `punch alias NAME MODEL` makes one", file=sys.stderr)
        return ExitCode.OK
    print(*aligned([(plain(each.name), plain(each.model)) for each in aliases]), sep="\n")
    print(f"punch: from {found.origin}", file=sys.stderr)
    return ExitCode.OK


def alias(arguments: Sequence[str]) -> int:
    """Run ``punch alias``; its exit code."""
    return run_command("punch alias", ABOUT, AliasSettings, _alias, arguments)
