"""``punch up``: makes of this machine what it can be, and shows one address for programs.

Where one runs already, that one is shown, or moved into the namespace of a code.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ...admin import Call, Handler, call, open_admin
from ...discovery.lan import real_lan
from ...exceptions import ConfigurationError, NotRunning
from ...membership import Home, find_namespace
from .._exits import ExitCode
from .._namespace import namespaces_folder
from .._run import Shutdown, run_program
from ..commands._join import redeem
from ..running._asking import admin_folder, move_running
from ..running._table import table_of
from ._running import RunningUp
from ._up_settings import UpSettings

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
    this = RunningUp(settings)
    async with open_admin(admin_folder(), handlers_of(this)):
        await this.run(shutdown, home)
    return ExitCode.OK


async def _join(settings: UpSettings) -> Home:
    network = settings.network
    lan = None if network.lan is False else real_lan(network.lan_interfaces)
    return await redeem(settings, called=settings.listener.name, lan=lan)


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


def handlers_of(running: RunningUp) -> dict[str, Handler]:
    """What commands may ask of *running*."""

    async def status(asked: Call) -> Any:
        return running.status().as_data()

    async def stop(asked: Call) -> Any:
        running.stop()
        return None

    async def join(asked: Call) -> Any:
        which = asked.arguments.get("namespace")
        if not isinstance(which, str):
            raise ConfigurationError("say which namespace: a text `namespace`")
        home = find_namespace(which, folder=namespaces_folder())
        dropped = await running.join(home)
        return {"namespace": str(home.namespace), "dropped": list(dropped)}

    return {"status": status, "stop": stop, "join": join}


def main(arguments: Sequence[str]) -> int:
    """Run ``punch up``; its exit code."""
    return run_program("punch up", ABOUT, UpSettings, up, arguments, stays=True)
