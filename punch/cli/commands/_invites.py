"""``punch invite list|withdraw``: the invites that this machine has made, and taking one back."""

from __future__ import annotations

import json
import sys
from typing import Any

import attrs

from ...membership import InviteStatus, list_invites, withdraw_invite
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
    rows = list_invites(home)
    if settings.json:
        for row in rows:
            print(json.dumps(_as_data(row)))
        return ExitCode.OK
    if not rows:
        print(
            plain(f"this machine has no invites to {home.namespace}; `punch invite` makes one"),
            file=sys.stderr,
        )
        return ExitCode.OK
    print(*aligned([COLUMNS, *map(_cells, rows)]), sep="\n")
    return ExitCode.OK


def _as_data(row: InviteStatus) -> dict[str, Any]:
    fields = attrs.asdict(row, recurse=False)
    return {"invite": fields.pop("identifier"), **fields, "scopes": sorted(row.scopes)}


def _cells(row: InviteStatus) -> tuple[str, ...]:
    may = ", ".join(sorted(row.scopes)) + (" (mine)" if row.mine else "")
    cells = (
        row.identifier,
        row.state,
        f"{row.uses_left} of {row.uses}",
        day_of(row.ends, "%Y-%m-%d %H:%M"),
        row.name or "-",
        may,
        ", ".join(row.used_by) or "-",
    )
    return tuple(map(plain, cells))


def _withdraw(settings: WithdrawSettings) -> ExitCode:
    home = home_of(settings.namespace)
    invite = withdraw_invite(home, settings.which)
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
