"""The checks of a machine in a namespace, each with the facts that it is judged by."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import attrs
import trio

from ...admin import call
from ...doctor import (
    EngineFacts,
    EngineTry,
    Finding,
    judge_clock,
    judge_engines,
    judge_firewall,
    judge_gpus,
    judge_grant,
    judge_hello,
    judge_interfaces,
    judge_meeting,
    judge_minors,
    judge_models,
    judge_name,
    judge_relay,
)
from ...exceptions import PunchError
from ...peers import PeerRecord
from ...settings import BackendSettings, NetworkSettings
from ...wire import MINOR
from .._namespace import Place
from .._shared import lan_of, meets_here
from ..running._asking import admin_folder
from ..up import UpSettings
from ._examine import Examination
from ._facts import clock_facts, grant_facts, name_facts, offer_facts, own_listener, peer_fact
from ._machine_facts import measure_gpus, measure_interfaces
from ._programs import try_programs
from ._seen import lanes_that_rest, look_around, models_at_work, models_on_cpu, models_to_load

# A look at this machine takes a tenth of a second, unless a disk or a driver hangs.
MACHINE_SECONDS = 6.0

# A look at the namespace, and then a token of each model that runs here, or of two programs.
NAMESPACE_SECONDS = 90.0

# `punch up` answers in milliseconds.
STATUS_SECONDS = 3.0

OF_NAMESPACE = (
    *("meeting points", "hello", "firewall", "minors", "models"),
    *("relay", "name", "clock", "interfaces", "grant"),
)
"""The checks for which it must be known which namespace is meant."""

T = TypeVar("T")


async def off(measure: Callable[[], T]) -> T:
    """Measure what may block, such as a disk that hangs, where it holds up nobody."""
    return await trio.to_thread.run_sync(measure, abandon_on_cancel=True)


def of_machine(check: str, run: Callable[[], Awaitable[Sequence[Finding]]]) -> Examination:
    """A check of this machine alone."""
    return Examination(checks=(check,), seconds=MACHINE_SECONDS, run=run)


def of_namespace(
    network: NetworkSettings, place: Place, up: UpSettings, identity: str | None
) -> list[Examination]:
    """The checks of a machine in a namespace.

    Args:
      network: Where it is met.
      place: The namespace.
      up: What a `punch up` of this machine would run with.
      identity: The file with the key to look around with; `None` for one that no other process has.

    """
    home, is_closed = place.home, place.home is not None
    elsewhere = is_closed or not meets_here(network)

    async def interfaces() -> list[Finding]:
        uses_lan = lan_of(network, is_closed=is_closed) is not None
        measure = partial(measure_interfaces, meets_elsewhere=elsewhere, uses_lan=uses_lan)
        return judge_interfaces(await off(measure))

    async def grant() -> list[Finding]:
        return judge_grant(None if home is None else await off(partial(grant_facts, home)))

    here = _Here()

    async def namespace() -> list[Finding]:
        try:
            return await _around(network, place, up, identity, here, elsewhere=elsewhere)
        finally:
            here.is_known.set()

    async def engines() -> list[Finding]:
        await here.is_known.wait()
        return await of_engines(here.peers, here.tries, up.listener.backend)

    seen = tuple(check for check in OF_NAMESPACE if check not in ("interfaces", "grant"))
    return [
        of_machine("interfaces", interfaces),
        of_machine("grant", grant),
        Examination(checks=seen, seconds=NAMESPACE_SECONDS, run=namespace),
        Examination(checks=("GPU", "engines"), seconds=2 * NAMESPACE_SECONDS, run=engines),
    ]


@attrs.define
class _Here:
    """What answers on this machine, once the namespace was looked at; nothing if it cannot be."""

    peers: tuple[PeerRecord, ...] = ()
    """The listeners."""

    tries: tuple[EngineTry, ...] = ()
    """What came of asking them for a token."""

    is_known: trio.Event = attrs.field(factory=trio.Event)
    """Set when there is no more to come."""


async def _around(
    network: NetworkSettings,
    place: Place,
    up: UpSettings,
    identity: str | None,
    here: _Here,
    *,
    elsewhere: bool,
) -> list[Finding]:
    status = await _status()
    seen = await look_around(network, place, identity)
    here.peers, here.tries = seen.here, seen.tries
    own = tuple(own_listener(peer, status) for peer in seen.here)
    peers = tuple(peer_fact(peer, seen) for peer in seen.peers if peer.peer_id in seen.minors)
    return [
        *judge_meeting(seen.meeting),
        *judge_hello(len(seen.peers), seen.unreached, is_met=seen.is_met),
        *judge_firewall(own, elsewhere=elsewhere),
        *judge_relay(own),
        *judge_minors(peers, MINOR),
        *judge_models(offer_facts(seen.peers)),
        *judge_name(name_facts(place, seen, up)),
        *judge_clock(clock_facts(place.home, seen.peers, time.time())),
    ]


async def _status() -> Mapping[str, Any]:
    """What the `punch up` of this user says; nothing if none runs or it does not answer."""
    said: Any = None
    with trio.move_on_after(STATUS_SECONDS), suppress(PunchError):
        said = await call(admin_folder(), "status")
    return said if isinstance(said, dict) else {}


async def of_engines(
    here: Sequence[PeerRecord], tries: tuple[EngineTry, ...], backend: BackendSettings
) -> list[Finding]:
    """What is wrong with the engines and the GPUs of this machine.

    Args:
      here: The listeners of this machine.
      tries: What came of asking them for a token; where there are none, programs are tried.
      backend: What a listener here would run.

    """
    lanes = [lane for peer in here for lane in peer.capability.lanes]
    if not lanes:
        tries = await try_programs(backend)
    engines = EngineFacts(
        tries=tries,
        lanes=lanes_that_rest(here),
        on_demand=models_to_load(here),
        busy=models_at_work(here),
        simulates=any(lane.simulated for lane in lanes),
        has_lanes=bool(lanes),
    )
    gpus = await off(partial(measure_gpus, models_on_cpu(here)))
    return [*judge_gpus(gpus), *judge_engines(engines)]
