"""``punch members``: lists who is in a closed namespace, calls them names, and removes them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import attrs

from ...access import Lock
from ...exceptions import ConfigurationError
from ...membership import (
    Home,
    MemberRecord,
    read_members,
    read_removals,
    remove_member,
    rename_member,
)
from ...settings import SWITCH, TEXT, Settings, argument, of, optional, setting
from .._exits import ExitCode
from .._output import plain
from .._run import command, run_one_of
from ._namespace import home_of

WHO = argument("who", TEXT, metavar="NAME", about="name or key of the machine, as in the list")
NEW_NAME = argument("new_name", TEXT, metavar="NEW", about="what to call it on this machine")
NAMESPACE = optional(
    "namespace", TEXT, metavar="NAME", help="which one; may be left out if it is the only one"
)
AS_JSON = setting("json", SWITCH, False, variable="", help="one JSON object a member and line")
ALL = setting(
    "all_it_let_in",
    SWITCH,
    False,
    variable="",
    help="whom the removed admin has let in go with it; needs the root key",
)

COLUMNS = ("name", "may", "until", "state", "machine")


@attrs.frozen(kw_only=True)
class ListSettings(Settings):
    """Settings of ``punch members list``."""

    namespace: str | None = of(NAMESPACE)
    json: bool = of(AS_JSON)


@attrs.frozen(kw_only=True)
class RemoveSettings(Settings):
    """Settings of ``punch members remove``."""

    who: str = of(WHO)
    namespace: str | None = of(NAMESPACE)
    all_it_let_in: bool = of(ALL)


@attrs.frozen(kw_only=True)
class RenameSettings(Settings):
    """Settings of ``punch members rename``."""

    who: str = of(WHO)
    new_name: str = of(NEW_NAME)
    namespace: str | None = of(NAMESPACE)


def _list(settings: ListSettings) -> ExitCode:
    home = home_of(settings.namespace)
    lock = read_removals(home)
    rows = [_as_data(home, lock, each) for each in read_members(home.folder).values()]
    rows.sort(key=lambda row: (row["state"] == "removed", row["name"], row["machine"]))
    if settings.json:
        for row in rows:
            print(json.dumps(row))
        return ExitCode.OK
    cells = [COLUMNS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(COLUMNS))]
    for line in cells:
        print("  ".join(f"{c:{w}}" for c, w in zip(line, widths, strict=True)).rstrip())
    return ExitCode.OK


def _as_data(home: Home, lock: Lock, record: MemberRecord) -> dict[str, Any]:
    if record.number <= lock.removed_up_to(record.machine):
        state = "removed"
    elif record.ends and record.ends < time.time():
        state = "ended"
    else:
        state = "this machine" if record.machine == home.machine else "member"
    return {
        "name": record.name,
        "machine": record.machine,
        "owner": record.owner,
        "scopes": sorted(record.scopes),
        "ends": record.ends,
        "state": state,
    }


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    ends = row["ends"]
    until = datetime.fromtimestamp(ends, UTC).strftime("%Y-%m-%d") if ends else "-"
    may = ", ".join(row["scopes"]) or "-"
    return tuple(
        plain(cell) for cell in (row["name"] or "-", may, until, row["state"], row["machine"])
    )


def _find(home: Home, who: str) -> MemberRecord:
    members = read_members(home.folder)
    lock = read_removals(home)
    found = [
        each
        for each in members.values()
        if who in (each.machine, each.name) and each.number > lock.removed_up_to(each.machine)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        keys = ", ".join(each.machine for each in found)
        raise ConfigurationError(f"several machines are called {who!r}: say which by key: {keys}")
    raise ConfigurationError(
        f"no member of {home.namespace} is called {who!r}, as far as this machine knows; "
        "`punch members list` has them"
    )


def _remove(settings: RemoveSettings) -> ExitCode:
    home = home_of(settings.namespace)
    member = _find(home, settings.who)
    if member.machine == home.machine:
        raise ConfigurationError("that is this machine: `punch leave` takes it out")
    remove_member(home, member.machine, keep=not settings.all_it_let_in)
    print(
        plain(
            f"removed {member.name or member.machine} from {home.namespace}: programs of punch on "
            "this machine end its sessions at once and tell the others; where none runs, they are "
            "told when one starts"
        ),
        file=sys.stderr,
    )
    return ExitCode.OK


def _rename(settings: RenameSettings) -> ExitCode:
    home = home_of(settings.namespace)
    member = _find(home, settings.who)
    rename_member(home.folder, member.machine, settings.new_name)
    print(plain(f"{member.machine} is called {settings.new_name} on this machine"), file=sys.stderr)
    return ExitCode.OK


COMMANDS = {
    "list": command("list the members that this machine knows of", ListSettings, _list),
    "remove": command("remove a machine, at once and everywhere", RemoveSettings, _remove),
    "rename": command("call a machine something else, on this machine", RenameSettings, _rename),
}


def members(arguments: Sequence[str]) -> int:
    """Run ``punch members``; its exit code."""
    about = "List who is in a closed namespace, call them names, and remove them."
    return run_one_of("punch members", about, COMMANDS, arguments or ["list"])
