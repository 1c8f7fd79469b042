"""``punch rpc``: finds RPC servers that run already, and keeps those that splits may use.

They are used only where plain RPC is allowed: nobody proves who they are.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

import attrs
import trio

from ...exceptions import ConfigurationError
from ...network import OwnNetwork, own_address, own_hosts, own_networks
from ...placement import size_text
from ...settings import (
    ALLOW_PLAIN_RPC,
    RPC_BACKEND,
    RPC_PLACE,
    SWITCH,
    PlainRpcSettings,
    Rule,
    Settings,
    arguments,
    change_items,
    count,
    group,
    of,
    path_to_change,
    setting,
    several,
)
from .._columns import aligned
from .._exits import ExitCode
from .._output import plain
from .._run import command, run_one_of
from ._rpc_looking import (
    DEFAULT_RPC_PORT,
    LOOKS_PER_SECOND,
    Seen,
    ask,
    look,
    network_of,
    place_of,
    search_of,
)

ABOUT = """\
Find and keep RPC servers of llama.cpp that run already, for models that are split.

They have no protection of their own: no server proves that it is the one that was meant, and what
is asked is read on the way. Splits use them with --allow-plain-rpc alone, in this machine's own
networks alone, and say wherever such a split is shown that it is unauthenticated. Where punch may
run on the other machine, `punch worker` there lends the same memory with both."""

PLACES = arguments(
    "place", RPC_PLACE, metavar="HOST:PORT", about="address and port, such as 192.168.1.20:50052"
)
NETWORKS = several(
    "network",
    Rule(network_of),
    flag="",
    variable="",
    metavar="NETWORK",
    help="one of this machine's own networks, or a part of it; all of them unless said",
)
PORT = setting("port", count(1, most=65535), DEFAULT_RPC_PORT, variable="", help="port to look at")
ADD = setting("add", SWITCH, False, variable="", help="keep those that are found")
AS_JSON = setting("json", SWITCH, False, variable="", help="one JSON object a server and line")


@attrs.frozen(kw_only=True)
class ListRpc(Settings):
    """Settings of ``punch rpc list``."""

    rpc: PlainRpcSettings = group(PlainRpcSettings)
    json: bool = of(AS_JSON)


@attrs.frozen(kw_only=True)
class ChangeRpc(Settings):
    """Settings of ``punch rpc add`` and ``punch rpc remove``."""

    place: tuple[str, ...] = of(PLACES)


@attrs.frozen(kw_only=True)
class DiscoverRpc(Settings):
    """Settings of ``punch rpc discover``."""

    network: tuple[OwnNetwork, ...] = of(NETWORKS)
    port: int = of(PORT)
    add: bool = of(ADD)
    json: bool = of(AS_JSON)


def _cells(seen: Seen) -> tuple[str, ...]:
    if seen.facts is None:
        return (seen.place, "does not count:", plain(seen.why))
    version, devices = seen.facts.version, seen.facts.devices
    free = sum(device.free_bytes for device in devices)
    number = f"{len(devices)} device{'s' if devices[1:] else ''}"
    return (seen.place, f"RPC {version}", f"{number}, {size_text(free)} free; unauthenticated")


def _as_data(seen: Seen) -> dict[str, Any]:
    facts = seen.facts
    return {
        "place": seen.place,
        "answers": facts is not None,
        "authenticated": False,
        "version": None if facts is None else str(facts.version),
        "devices": [] if facts is None else [attrs.asdict(each) for each in facts.devices],
        "why": seen.why or None,
    }


def _show(found: Sequence[Seen], *, as_json: bool) -> None:
    if as_json:
        for seen in found:
            print(json.dumps(_as_data(seen)))
    elif found:
        print("\n".join(aligned([_cells(seen) for seen in found])))


async def _ask_all(places: Sequence[str]) -> list[Seen]:
    """Ask all of *places* at the same time, each of them once."""
    answers: dict[str, Seen] = {}

    async def one(place: str) -> None:
        host, _, port = place.rpartition(":")
        address = await own_address(host.strip("[]"))
        if address is None:
            answers[place] = Seen(place=place, why="it is in no private network of this machine")
        else:
            answers[place] = attrs.evolve(await ask(place_of(address, int(port))), place=place)

    async with trio.open_nursery() as nursery:
        for place in places:
            nursery.start_soon(one, place)
    return [answers[place] for place in places]


def _list(settings: ListRpc) -> ExitCode:
    rpc = settings.rpc
    if not rpc.backends:
        print("no RPC server; `punch rpc add HOST:PORT` keeps one", file=sys.stderr)
        return ExitCode.OK
    _show(trio.run(_ask_all, tuple(dict.fromkeys(rpc.backends))), as_json=settings.json)
    print(f"punch: from {plain(str(rpc.origin('backends')))}", file=sys.stderr)
    if not rpc.is_allowed:
        _say_not_allowed()
    return ExitCode.OK


def _say_not_allowed() -> None:
    print(
        "punch: no split uses them: plain RPC is not allowed. --allow-plain-rpc allows it to one "
        f"command, and `punch settings set {ALLOW_PLAIN_RPC.name} true` to all",
        file=sys.stderr,
    )


def _keep(places: Sequence[str]) -> None:
    change_items(
        path_to_change(os.environ),
        RPC_BACKEND,
        lambda items: list(dict.fromkeys([*items, *places])),
    )
    if RPC_BACKEND.variable is not None and os.environ.get(RPC_BACKEND.variable):
        print(
            f"punch: {RPC_BACKEND.variable} is set in this shell, and counts more than the file",
            file=sys.stderr,
        )


def _add(settings: ChangeRpc) -> ExitCode:
    for place in settings.place:
        host = place.rpartition(":")[0].strip("[]")
        if trio.run(own_address, host) is None:
            raise ConfigurationError(
                f"{place} is in no private network of this machine, and plain RPC leaves none: "
                "what is asked would be read on the way. Run `punch worker` there"
            )
    # Kept also while it does not answer: it may be started later.
    _keep(settings.place)
    _show(trio.run(_ask_all, settings.place), as_json=False)
    return ExitCode.OK


def _remove(settings: ChangeRpc) -> ExitCode:
    path = path_to_change(os.environ)

    def change(items: Sequence[str]) -> Sequence[str]:
        for place in settings.place:
            if place not in items:
                raise ConfigurationError(
                    f"there is no RPC server {place} in {path}; `punch rpc list` lists them"
                )
        return [item for item in items if item not in settings.place]

    change_items(path, RPC_BACKEND, change)
    return ExitCode.OK


def _discover(settings: DiscoverRpc) -> ExitCode:
    search = search_of(settings.network, own_networks(), own_hosts())
    for network in search.skipped:
        print(
            f"punch: {network} has {network.num_addresses:,} addresses and is not searched as a "
            "whole; name a part of it",
            file=sys.stderr,
        )
    seconds = len(search.addresses) / LOOKS_PER_SECOND
    print(
        f"punch: looking at port {settings.port} of {len(search.addresses)} addresses, for "
        f"{seconds:.0f} s",
        file=sys.stderr,
    )
    found = trio.run(look, search, settings.port)
    _show(found, as_json=settings.json)
    servers = [seen.place for seen in found if seen.facts is not None]
    if not servers:
        print("punch: no RPC server was found", file=sys.stderr)
    elif settings.add:
        _keep(servers)
    else:
        print(f"punch: `punch rpc add {' '.join(servers)}` keeps them", file=sys.stderr)
    return ExitCode.OK


COMMANDS = {
    "discover": command(
        "look for RPC servers in this machine's own networks", DiscoverRpc, _discover
    ),
    "add": command("keep an RPC server in the settings file, for splits", ChangeRpc, _add),
    "remove": command("take one out of the settings file", ChangeRpc, _remove),
    "list": command("ask those that are kept who they are", ListRpc, _list),
}


def rpc(typed: Sequence[str]) -> int:
    """Run ``punch rpc``; its exit code."""
    return run_one_of("punch rpc", ABOUT, COMMANDS, typed)
