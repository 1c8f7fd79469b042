"""``punch members``: lists who is in a closed namespace or asks, lets in, names and removes."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import attrs

from ...access import Lock
from ...exceptions import ConfigurationError
from ...membership import (
    Home,
    MemberRecord,
    NearbyRequest,
    approve_request,
    find_request,
    is_digits,
    read_members,
    read_removals,
    read_requests,
    refuse_request,
    remove_member,
    rename_member,
    rotate_key,
    shown_digits,
)
from ...settings import (
    LOG_LEVEL,
    SWITCH,
    TEXT,
    ProgramSettings,
    argument,
    of,
    setting,
)
from .._columns import aligned
from .._exits import ExitCode
from .._namespace import home_of
from .._output import day_of, plain
from .._run import Command, Shutdown, command, run_one_of, run_program
from ._invite import MINE, NAME, SCOPE, scopes_of
from ._join import confirmed
from ._namespace import NAMESPACE, NamespaceSettings

WHO = argument("who", TEXT, metavar="NAME", about="name or key of the machine, as in the list")
NEW_NAME = argument("new_name", TEXT, metavar="NEW", about="what to call it on this machine")
ASKER = argument(
    "who", TEXT, metavar="DIGITS|NAME", about="the digits that its screen shows, or its name"
)
YES = setting(
    "yes", SWITCH, False, variable="", help="by its name: do not ask whether the digits are right"
)
AS_JSON = setting("json", SWITCH, False, variable="", help="one JSON object a member and line")
ALL = setting(
    "with_invited",
    SWITCH,
    False,
    variable="",
    help="whom the removed admin has let in go with it; needs the root key",
)

# How long the program that was asked has to let a machine in, which it dials back; how often it is
# looked.
APPROVED_SECONDS = 20.0
CHECK_SECONDS = 0.2

COLUMNS = ("name", "may", "until", "state", "machine")


@attrs.frozen(kw_only=True)
class ListSettings(NamespaceSettings):
    """Settings of ``punch members list``."""

    json: bool = of(AS_JSON)


@attrs.frozen(kw_only=True)
class RemoveSettings(NamespaceSettings):
    """Settings of ``punch members remove``."""

    who: str = of(WHO)
    with_invited: bool = of(ALL)


@attrs.frozen(kw_only=True)
class ApproveSettings(NamespaceSettings):
    """Settings of ``punch members approve``."""

    who: str = of(ASKER)
    scope: tuple[str, ...] = of(SCOPE)
    mine: bool = of(MINE)
    name: str | None = of(NAME)
    yes: bool = of(YES)


@attrs.frozen(kw_only=True)
class RefuseSettings(NamespaceSettings):
    """Settings of ``punch members refuse``."""

    who: str = of(ASKER)


@attrs.frozen(kw_only=True)
class RotateSettings(ProgramSettings):
    """Settings of ``punch members rotate``."""

    namespace: str | None = of(NAMESPACE)
    log_level: str = of(LOG_LEVEL, default="warning")


@attrs.frozen(kw_only=True)
class RenameSettings(NamespaceSettings):
    """Settings of ``punch members rename``."""

    who: str = of(WHO)
    new_name: str = of(NEW_NAME)


def _list(settings: ListSettings) -> ExitCode:
    home = home_of(settings.namespace)
    lock = read_removals(home)
    rows = [_as_data(home, lock, each) for each in read_members(home.folder).values()]
    rows.sort(key=lambda row: (row["state"] in ("removed", "left"), row["name"], row["machine"]))
    requests = read_requests(home, now=time.time())
    rows += [_as_asking(each) for each in requests if each.state == "waiting"]
    if settings.json:
        for row in rows:
            print(json.dumps(row))
        return ExitCode.OK
    cells = [COLUMNS, *(_cells(row) for row in rows)]
    print(*aligned(cells), sep="\n")
    return ExitCode.OK


def _as_data(home: Home, lock: Lock, record: MemberRecord) -> dict[str, Any]:
    if record.number <= lock.removed_up_to(record.machine, by_others=True):
        state = "removed"
    elif record.number <= lock.removed_up_to(record.machine):
        state = "left"
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


def _as_asking(request: NearbyRequest) -> dict[str, Any]:
    """The row of a machine that is no member yet."""
    return {
        "name": request.name,
        "machine": request.machine,
        "owner": None,
        "scopes": [],
        "ends": 0,
        "state": f"asks, shows {shown_digits(request.digits)}",
        "digits": request.digits,
        "host": request.host,
    }


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    may, until = ", ".join(row["scopes"]) or "-", day_of(row["ends"]) if row["ends"] else "-"
    return tuple(
        plain(cell) for cell in (row["name"] or "-", may, until, row["state"], row["machine"])
    )


def _find(home: Home, who: str) -> MemberRecord:
    members = read_members(home.folder)
    lock = read_removals(home)
    known = [each for each in members.values() if each.number > lock.removed_up_to(each.machine)]
    # A machine may call itself by the key of another: a key means the machine that has it.
    found = [each for each in known if who == each.machine]
    found = found or [each for each in known if who == each.name]
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
    remove_member(home, member.machine, keep=not settings.with_invited)
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


async def _rotate(settings: RotateSettings, shutdown: Shutdown) -> ExitCode:
    del shutdown
    home = home_of(settings.namespace)
    before = home.machine
    home = await rotate_key(home)
    print(
        plain(
            f"this machine has the key {home.machine} in {home.namespace} from now on, with all "
            f"that it was allowed before; {before} is removed. Programs that run have taken it"
        ),
        file=sys.stderr,
    )
    return ExitCode.OK


def _rotated(name: str, arguments: Sequence[str]) -> int:
    about = (
        "Give this machine a new key in a closed namespace, by an admin that can be reached, and "
        "remove the old one."
    )
    return run_program(name, about, RotateSettings, _rotate, arguments)


def _approve(settings: ApproveSettings) -> ExitCode:
    home = home_of(settings.namespace)
    request = find_request(home, settings.who, now=time.time())
    digits = shown_digits(request.digits)
    if not is_digits(settings.who) and not settings.yes:
        if not sys.stdin.isatty():
            raise ConfigurationError(
                f"{request.name} from {request.host} asks: say the digits that its own screen "
                f"shows in place of its name; if they are {digits}, it is the one"
            )
        if not confirmed(plain(f"does the screen of {request.name} show {digits}? [y/N] ")):
            print("punch: not approved", file=sys.stderr)
            return ExitCode.USAGE
    scopes = scopes_of(settings.scope)
    approve_request(
        home,
        request,
        now=time.time(),
        scopes=scopes or None,
        mine=settings.mine,
        name=settings.name or "",
    )
    if not _has_joined(home, request):
        raise ConfigurationError(
            f"{request.name} did not take the grant: it has gone, or the program here that it "
            "asked has ended; it has to ask anew"
        )
    called = settings.name or request.name
    print(plain(f"{called} ({digits}) is a member of {home.namespace}"), file=sys.stderr)
    return ExitCode.OK


def _has_joined(home: Home, request: NearbyRequest) -> bool:
    """Wait until the program that was asked has told the machine."""
    ends = time.monotonic() + APPROVED_SECONDS
    while time.monotonic() < ends:
        found = [
            each.state
            for each in read_requests(home, now=time.time())
            if each.identifier == request.identifier
        ]
        if found != ["approved"]:
            return found == ["joined"]
        time.sleep(CHECK_SECONDS)
    return False


def _refuse(settings: RefuseSettings) -> ExitCode:
    home = home_of(settings.namespace)
    request = refuse_request(
        home, find_request(home, settings.who, now=time.time()), now=time.time()
    )
    shown = shown_digits(request.digits)
    print(plain(f"refused {request.name} ({shown}) from {request.host}"), file=sys.stderr)
    return ExitCode.OK


COMMANDS = {
    "list": command(
        "list the members that this machine knows of, and who asks", ListSettings, _list
    ),
    "approve": command(
        "let a machine in that asks with `punch join --nearby`", ApproveSettings, _approve
    ),
    "refuse": command("refuse a machine that asks", RefuseSettings, _refuse),
    "remove": command("remove a machine, at once and everywhere", RemoveSettings, _remove),
    "rotate": Command(about="give this machine a new key, and remove the old one", main=_rotated),
    "rename": command("call a machine something else, on this machine", RenameSettings, _rename),
}


def members(arguments: Sequence[str]) -> int:
    """Run ``punch members``; its exit code."""
    about = "List who is in a closed namespace and who asks, let these in, and remove members."
    return run_one_of("punch members", about, COMMANDS, arguments or ["list"])
