"""``punch members``: lists who is in a closed namespace or asks, lets in, names and removes."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import attrs

from ...capability import PeerId
from ...exceptions import ConfigurationError
from ...membership import (
    Home,
    MemberStatus,
    NearbyRequest,
    approve_request,
    decided_words,
    find_request,
    is_digits,
    list_members,
    list_newcomers,
    read_requests,
    refuse_request,
    remove_member,
    rename_member,
    rotate_key,
    shown_digits,
)
from ...network import parse_address
from ...peers import short_id
from ...settings import (
    LOG_LEVEL,
    SWITCH,
    TEXT,
    ProgramSettings,
    argument,
    of,
    setting,
)
from .._columns import aligned, shortened
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

COLUMNS = ("name", "state", "may", "until", "machine", "at")

# A name has up to 64 characters, each of which may be two columns wide.
MAX_NAME_COLUMNS = 32


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
    now = time.time()
    rows = [_as_data(each, now) for each in list_members(home)]
    rows += [_as_asking(each) for each in list_newcomers(home)]
    if settings.json:
        for row in rows:
            print(json.dumps(row))
        return ExitCode.OK
    print(*aligned([COLUMNS, *(_cells(row) for row in rows)]), sep="\n")
    _warn_of_namesakes(home)
    return ExitCode.OK


def _warn_of_namesakes(home: Home, among: str | None = None) -> None:
    """Say which names several members have; of a machine *among* them, only its own.

    One was installed anew, perhaps, or two came with the name that their maker gave them.
    """
    named: dict[str, list[PeerId]] = {}
    for each in list_members(home):
        if not each.is_out and each.name:
            named.setdefault(each.name.casefold(), []).append(each.machine)
    for name, machines in named.items():
        if len(machines) > 1 and among in (None, *machines):
            ends = ", ".join(short_id(machine) for machine in machines)
            print(
                plain(
                    f"punch: {len(machines)} machines are called {name}: {ends}. Say these ends in "
                    "place of the name; `punch members rename END NAME` tells them apart on this "
                    "machine, `punch members remove END` takes out one that is no more"
                ),
                file=sys.stderr,
            )


def _as_data(member: MemberStatus, now: float) -> dict[str, Any]:
    return {
        "name": member.name,
        "own_name": member.own_name,
        "machine": member.machine,
        "owner": member.owner,
        "scopes": sorted(member.scopes),
        "ends": member.ends,
        "state": "this machine" if _is_here(member) else member.state,
        "connected": member.is_connected,
        "seen": member.seen or None,
        # The clock may have been set back meanwhile.
        "seen_seconds_ago": max(0, int(now - member.seen)) if member.seen else None,
        "addresses": list(member.addresses),
    }


def _is_here(member: MemberStatus) -> bool:
    return member.is_this_machine and member.state == "member"


def _as_asking(request: NearbyRequest) -> dict[str, Any]:
    """The row of a machine that is no member yet."""
    return {
        "name": request.name,
        "machine": request.machine,
        "owner": None,
        "scopes": [],
        "ends": 0,
        "addresses": [],
        "state": f"asks, shows {shown_digits(request.digits)}",
        "digits": request.digits,
        "host": request.host,
    }


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    ends = row["ends"]
    until = day_of(ends) if ends else "-"
    cells = (
        row["name"] or "-",
        _state(row),
        ", ".join(row["scopes"]) or "-",
        until,
        row["machine"],
        _where(row["addresses"]),
    )
    first, *others = map(plain, cells)
    return shortened(first, MAX_NAME_COLUMNS), *others


def _state(row: Mapping[str, Any]) -> str:
    if row["state"] == "ended":
        return "its grant has ended"
    if row["state"] == "left":
        return "has left"
    if row["state"] != "member":
        return str(row["state"])
    if row["connected"]:
        return "connected"
    ago = row["seen_seconds_ago"]
    return "not seen yet" if ago is None else f"seen {_span(ago)} ago"


def _span(seconds: int) -> str:
    """A time of *seconds* as people say it, rounded down."""
    for unit, length in (("day", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            number = seconds // length
            return f"{number} {unit}{'s' if unit == 'day' and number > 1 else ''}"
    return f"{seconds} s"


def _where(addresses: Sequence[str]) -> str:
    """One of *addresses*, in short; JSON has them all."""
    found = []
    for text in addresses:
        with suppress(ConfigurationError):
            found.append(parse_address(text))
    # Of the one that other machines reach, and that people know.
    found.sort(key=lambda each: (each.is_loopback(), each.kind != "ip4"))
    return found[0].place if found else "-"


def _remove(settings: RemoveSettings) -> ExitCode:
    home = home_of(settings.namespace)
    were = {each.machine for each in list_members(home) if each.state == "removed"}
    machine = remove_member(home, settings.who, keep=not settings.with_invited)
    out = [each for each in list_members(home) if each.state == "removed"]
    also = [each for each in out if each.machine not in (*were, machine)]
    shown = settings.who if settings.who == machine else f"{settings.who} ({machine})"
    print(
        plain(
            f"removed {shown} from {home.namespace}: programs of punch on this machine end its "
            "sessions at once and tell the others; where none runs, they are told when one starts"
        ),
        file=sys.stderr,
    )
    if also:
        names = ", ".join(each.name or each.machine for each in also)
        print(plain(f"whom it had let in went with it: {names}"), file=sys.stderr)
    return ExitCode.OK


def _rename(settings: RenameSettings) -> ExitCode:
    home = home_of(settings.namespace)
    member = rename_member(home, settings.who, settings.new_name)
    print(plain(f"{member.machine} is called {member.name} on this machine"), file=sys.stderr)
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
    joined = _joined(home, request)
    if joined is None:
        raise ConfigurationError(
            f"{request.name} did not take the grant: it has gone, or the program here that it "
            "asked has ended; it has to ask anew"
        )
    print(plain(decided_words(home, joined)), file=sys.stderr)
    _warn_of_namesakes(home, joined.machine)
    return ExitCode.OK


def _joined(home: Home, request: NearbyRequest) -> NearbyRequest | None:
    """The request once the program that was asked has told the machine; `None` if it does not."""
    ends = time.monotonic() + APPROVED_SECONDS
    while time.monotonic() < ends:
        found = [
            each
            for each in read_requests(home, now=time.time())
            if each.identifier == request.identifier
        ]
        if not found or found[0].state != "approved":
            return found[0] if found and found[0].state == "joined" else None
        time.sleep(CHECK_SECONDS)
    return None


def _refuse(settings: RefuseSettings) -> ExitCode:
    home = home_of(settings.namespace)
    request = refuse_request(
        home, find_request(home, settings.who, now=time.time()), now=time.time()
    )
    print(plain(decided_words(home, request)), file=sys.stderr)
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
