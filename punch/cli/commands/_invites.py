"""``punch invite list|withdraw``: the invites that this machine has made, and taking one back."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from typing import Any

import attrs

from ...access import Invite, Lock
from ...capability import PeerId
from ...membership import (
    MemberRecord,
    read_invites,
    read_members,
    read_removals,
    withdraw_invite,
)
from ...settings import SWITCH, TEXT, argument, of, setting
from .._columns import aligned
from .._exits import ExitCode
from .._namespace import home_of
from .._output import day_of, plain
from .._run import command
from ._namespace import NamespaceSettings

WHICH = argument(
    "which", TEXT, metavar="WHICH", about="as in the list, the beginning of it, or its --name"
)
AS_JSON = setting("json", SWITCH, False, variable="", help="one JSON object an invite and line")

COLUMNS = ("invite", "state", "uses left", "until", "name", "may", "used by")


@attrs.frozen(kw_only=True)
class ListSettings(NamespaceSettings):
    """Settings of ``punch invite list``."""

    json: bool = of(AS_JSON)


@attrs.frozen(kw_only=True)
class WithdrawSettings(NamespaceSettings):
    """Settings of ``punch invite withdraw``."""

    which: str = of(WHICH)


def _list(settings: ListSettings) -> ExitCode:
    home = home_of(settings.namespace)
    lock, members = read_removals(home), read_members(home.folder)
    rows = [_as_data(each, lock, members) for each in read_invites(home).all]
    # What can still be used first.
    rows.sort(key=lambda row: (row["state"] != "open", row["ends"]))
    if settings.json:
        for row in rows:
            print(json.dumps(row))
        return ExitCode.OK
    if not rows:
        print(
            plain(f"this machine has no invites to {home.namespace}; `punch invite` makes one"),
            file=sys.stderr,
        )
        return ExitCode.OK
    print(*aligned([COLUMNS, *map(_cells, rows)]), sep="\n")
    return ExitCode.OK


def _as_data(invite: Invite, lock: Lock, members: Mapping[PeerId, MemberRecord]) -> dict[str, Any]:
    outcome = invite.outcome(time.time(), lock)
    known = (members.get(use.key) for use in invite.used_by)
    return {
        "invite": invite.identifier,
        "state": "guessed wrong" if outcome == "unknown" else outcome.replace("_", " "),
        "uses": invite.uses,
        "uses_left": invite.uses - len(invite.used_by) if outcome == "open" else 0,
        "ends": invite.ends,
        "name": invite.name,
        "scopes": sorted(invite.scopes),
        "mine": invite.is_mine,
        "short": invite.is_short,
        "used_by": [
            (record.name if record is not None else "") or use.key
            for use, record in zip(invite.used_by, known, strict=True)
        ],
    }


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    may = ", ".join(row["scopes"]) + (" (mine)" if row["mine"] else "")
    cells = (
        row["invite"],
        row["state"],
        f"{row['uses_left']} of {row['uses']}",
        day_of(row["ends"], "%Y-%m-%d %H:%M"),
        row["name"] or "-",
        may,
        ", ".join(row["used_by"]) or "-",
    )
    return tuple(map(plain, cells))


def _withdraw(settings: WithdrawSettings) -> ExitCode:
    home = home_of(settings.namespace)
    invite = withdraw_invite(home, settings.which, now=time.time())
    stays = ""
    if invite.used_by:
        stays = (
            f"; the {len(invite.used_by)} that used it stay members, and `punch members remove` "
            "removes these"
        )
    print(
        plain(f"the invite {invite.identifier} is withdrawn: its code lets nobody in{stays}"),
        file=sys.stderr,
    )
    return ExitCode.OK


INVITE_COMMANDS = {
    "list": command("list the invites of this machine, and who used them", ListSettings, _list),
    "withdraw": command(
        "take an invite back, so that it is of no use", WithdrawSettings, _withdraw
    ),
}
