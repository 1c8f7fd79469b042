"""Plans, without keeping the program from its other work."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from ...placement import Device, Plan, Refused

Planner = Callable[[Sequence[Device]], Plan | Refused]
"""Places a model on devices, or says why not."""

# Plans of more devices take up to seconds, and a peer that says nothing for five is taken for lost.
MAX_DEVICES_AT_ONCE = 6


async def planned(planner: Planner, devices: Sequence[Device]) -> Plan | Refused:
    """What *planner* decides; in a thread where that may take long."""
    if len(devices) <= MAX_DEVICES_AT_ONCE:
        return planner(devices)
    return await trio.to_thread.run_sync(planner, devices)
