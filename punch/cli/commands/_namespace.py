"""``punch namespace``: makes closed namespaces, shows them, and keeps their root keys."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from ...membership import (
    Home,
    create_namespace,
    export_root,
    homes,
    import_root,
    read_members,
    read_removals,
)
from ...settings import (
    PATH,
    SWITCH,
    TEXT,
    Settings,
    argument,
    of,
    optional,
    optional_argument,
    setting,
)
from .._exits import ExitCode
from .._namespace import home_of, namespaces_folder
from .._output import day_of, plain
from .._run import Command, command, run_one_of

NAME = argument("name", TEXT, metavar="NAME", about="what to call it")
WHICH = optional_argument(
    "which",
    TEXT,
    metavar="NAME",
    about="NAME or NAME@FINGERPRINT; may be left out if it is the only",
)
FILE = argument("file", PATH, metavar="FILE", about="the file with the key")
CALLED = optional(
    "called",
    TEXT,
    variable="",
    metavar="NAME",
    help="what people call this machine in it",
    shown_default="the host's name",
)
KEEP = setting("keep", SWITCH, False, variable="", help="leave the key on this machine, too")
AS_JSON = setting("json", SWITCH, False, variable="", help="JSON, one object a line")
NAMESPACE = optional(
    "namespace", TEXT, metavar="NAME", help="which one; may be left out if it is the only one"
)


@attrs.frozen(kw_only=True)
class NamespaceSettings(Settings):
    """Settings of every command about one closed namespace."""

    namespace: str | None = of(NAMESPACE)


@attrs.frozen(kw_only=True)
class CreateSettings(Settings):
    """Settings of ``punch namespace create``."""

    name: str = of(NAME)
    called: str | None = of(CALLED)
    json: bool = of(AS_JSON)


@attrs.frozen(kw_only=True)
class ListSettings(Settings):
    """Settings of ``punch namespace list``."""

    json: bool = of(AS_JSON)


@attrs.frozen(kw_only=True)
class ShowSettings(Settings):
    """Settings of ``punch namespace show``."""

    which: str | None = of(WHICH)
    json: bool = of(AS_JSON)


@attrs.frozen(kw_only=True)
class ExportSettings(NamespaceSettings):
    """Settings of ``punch namespace root export``."""

    file: Path = of(FILE)
    keep: bool = of(KEEP)


@attrs.frozen(kw_only=True)
class ImportSettings(NamespaceSettings):
    """Settings of ``punch namespace root import``."""

    file: Path = of(FILE)


def _create(settings: CreateSettings) -> ExitCode:
    home = _made(settings)
    _warn(home, settings)
    return ExitCode.OK


def _close(settings: CreateSettings) -> ExitCode:
    home = _made(settings)
    _warn(home, settings)
    name = plain(home.namespace.name)
    print(
        f"punch: on this machine {name} means the closed namespace from now on. The open one of "
        f"that name is as it was: whoever is in it stays there until invited here "
        f"(`punch invite`), and --namespace {name}@open still means it",
        file=sys.stderr,
    )
    return ExitCode.OK


def _made(settings: CreateSettings) -> Home:
    return create_namespace(settings.name, called=settings.called, folder=namespaces_folder())


def _warn(home: Home, settings: CreateSettings) -> None:
    if settings.json:
        print(json.dumps(_as_data(home)))
    else:
        print(plain(str(home.namespace)), flush=True)
    print(
        f"punch: this machine, {plain(home.name)}, is its first member and an admin; "
        "`punch invite` lets others in. Its root key is on this machine: "
        "`punch namespace root export FILE` takes it off",
        file=sys.stderr,
    )


def _list(settings: ListSettings) -> ExitCode:
    found = homes(namespaces_folder())
    if settings.json:
        for home in found:
            print(json.dumps(_as_data(home)))
        return ExitCode.OK
    if not found:
        print(
            "this machine is a member of no closed namespace; `punch namespace create NAME` makes "
            "one, and `punch join` redeems an invite",
            file=sys.stderr,
        )
    for home in found:
        grant = home.grant
        print(plain(f"{home.namespace}  as {home.name}  {_ends(grant.ends)}"))
    return ExitCode.OK


def _show(settings: ShowSettings) -> ExitCode:
    home = home_of(settings.which)
    data = _as_data(home)
    if settings.json:
        print(json.dumps(data))
        return ExitCode.OK
    width = max(map(len, data))
    for name, value in data.items():
        text = ", ".join(value) if isinstance(value, list) else str(value)
        print(plain(f"{name:{width}}  {text}"))
    return ExitCode.OK


def _export(settings: ExportSettings) -> ExitCode:
    home = home_of(settings.namespace)
    export_root(home, settings.file, keeps=settings.keep)
    rest = "and still on this machine" if settings.keep else "and no longer on this machine"
    print(
        plain(
            f"the root key of {home.namespace} is in {settings.file}, {rest}; whoever has it can "
            "let anybody in and remove every admin"
        ),
        file=sys.stderr,
    )
    return ExitCode.OK


def _import(settings: ImportSettings) -> ExitCode:
    home = home_of(settings.namespace)
    is_new = import_root(home, settings.file)
    also = ", which is an admin from now on" if is_new else ""
    print(plain(f"the root key of {home.namespace} is on this machine{also}"), file=sys.stderr)
    return ExitCode.OK


def _as_data(home: Home) -> dict[str, Any]:
    grant, lock = home.grant, read_removals(home)
    members = read_members(home.folder).values()
    return {
        "namespace": str(home.namespace),
        "root": home.namespace.root,
        "machine": home.machine,
        "name": home.name,
        "scopes": sorted(grant.scopes),
        "admin": home.is_admin,
        "ends": day_of(grant.ends, "%Y-%m-%dT%H:%M:%S+00:00"),
        "root_key": "here" if home.folder.exists("root.key") else "not on this machine",
        "members": sum(each.number > lock.removed_up_to(each.machine) for each in members),
        "folder": str(home.folder.path),
    }


def _ends(ends: int) -> str:
    when = day_of(ends)
    return f"until {when}" if ends > time.time() else f"ended {when}"


COMMANDS = {
    "create": command(
        "make a closed namespace, with this machine as admin", CreateSettings, _create
    ),
    "list": command("list the closed namespaces of this machine", ListSettings, _list),
    "show": command("show one: its root, and what this machine may do in it", ShowSettings, _show),
    "close": command("make a closed namespace of the name of an open one", CreateSettings, _close),
}

ROOT_COMMANDS = {
    "export": command("write the root key to a file, and take it off", ExportSettings, _export),
    "import": command("bring the root key back; makes an admin", ImportSettings, _import),
}


def _root(name: str, arguments: Sequence[str]) -> int:
    return run_one_of(name, "Keep the root key of a namespace.", ROOT_COMMANDS, arguments)


def namespace(arguments: Sequence[str]) -> int:
    """Run ``punch namespace``; its exit code."""
    about = "Make closed namespaces, list these, and keep their root keys."
    commands = COMMANDS | {"root": Command(about="export or import the root key", main=_root)}
    return run_one_of("punch namespace", about, commands, arguments)
