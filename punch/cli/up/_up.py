"""``punch up``: makes of this machine what it can be, and shows one address for programs.

Where one runs already, that one is shown, or moved into the namespace of a code.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import trio

from ..._logs import get_logger
from ...admin import call, open_admin
from ...discovery.lan import real_lan
from ...exceptions import NotRunning, PeerUnreachable
from ...membership import Home, LongCode, homes, list_members, parse_code
from .._exits import ExitCode
from .._namespace import namespaces_folder
from .._output import plain
from .._run import Shutdown, run_command, run_program
from ..commands._join import read_code, redeem, warned_of
from ..running._asking import admin_folder, move_running
from ..running._detach import detach, runs_already
from ..running._log_kept import open_kept_log
from ..running._table import table_of
from ._control import handlers_of
from ._running import RunningUp, say
from ._up_settings import UpSettings

log = get_logger("punch.up")

# How often a member is looked for that is not there yet.
JOIN_AGAIN_SECONDS = 3.0

ABOUT = """\
Make of this machine what it can be, behind one address for programs: a listener with the engines
and servers of models that are here, a gateway and a meeting point of one closed namespace.

It is in the namespace that this machine has joined, and makes one if there is none; --join moves it
into another. Whatever comes later is taken as it comes: a server, a model, a network. It runs until
it is told to end; a second one shows the first."""


async def up(settings: UpSettings, shutdown: Shutdown) -> ExitCode:
    """Be up until told to end, or show what is."""
    running = await running_status()
    home = await _join(settings) if settings.joins else None
    if running is not None:
        await _show(running, home)
        return ExitCode.OK
    with open_kept_log(settings.log_level, settings.log_file) as kept:
        # What people read at the terminal is in the log of one that has none.
        this = RunningUp(settings, tell=say if settings.log_file is None else log.info)
        async with open_admin(admin_folder(), handlers_of(this, kept)):
            await this.run(shutdown, home)
    return ExitCode.OK


async def _join(settings: UpSettings) -> Home:
    """Join with the code; where no member is there yet, as soon as one is.

    A service has its code in a file, and starts with it each time: what was joined is entered.
    """
    code = await read_code(settings)
    parsed = parse_code(code)
    folder = namespaces_folder()
    if isinstance(parsed, LongCode):
        for home in homes(folder):
            if home.namespace.key == parsed.root and _is_member(home):
                return home
    network = settings.network
    lan = None if network.lan is False else real_lan(network.lan_interfaces)
    told = False
    while True:
        try:
            return await redeem(code, called=settings.listener.name, lan=lan)
        except PeerUnreachable as error:
            if not told:
                print(plain(f"waits for a member to join by: {error.message}"), flush=True)
            told = True
        await trio.sleep(JOIN_AGAIN_SECONDS)


def _is_member(home: Home) -> bool:
    return any(each.is_this_machine and each.state == "member" for each in list_members(home))


async def running_status() -> Mapping[str, Any] | None:
    """What the `punch up` of this user is that runs already; `None` if none does."""
    try:
        status: Mapping[str, Any] = await call(admin_folder(), "status")
    except NotRunning:
        return None
    return status


async def _show(running: Mapping[str, Any], home: Home | None) -> None:
    if home is not None:
        await move_running(home)
        running = await running_status() or running
    process = running.get("process")
    print(f"punch: `punch up` runs already (process {process}); this is it", file=sys.stderr)
    print(*table_of(running), sep="\n")


def main(arguments: Sequence[str]) -> int:
    """Run ``punch up``; its exit code."""

    def run(settings: UpSettings) -> ExitCode:
        if settings.detach and not runs_already():
            code = None if settings.code == "-" else settings.code
            asks = settings.joins and settings.file is None and code is None
            if code is not None:
                warned_of(code)
            return detach(arguments, log_file=settings.log_file, asks_code=asks, code=code)
        return ExitCode(run_program("punch up", ABOUT, UpSettings, up, arguments, stays=True))

    return run_command("punch up", ABOUT, UpSettings, run, arguments)
