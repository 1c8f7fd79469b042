"""Finds members on the LAN that let newcomers ask: candidates, of whatever namespace."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from ...discovery.lan import Lan, LanRecord, open_nearby
from ...exceptions import ConfigurationError
from ...network import Address

# A member answers at once; a machine that sleeps, or a radio that saves power, needs a second or
# two. After the first one, others have a moment.
FIND_SECONDS = 6.0
MORE_SECONDS = 1.0

# Programs of one machine, and ports that others have named there.
MAX_PORTS_TRIED = 16


async def find_joining(lan: Lan | None) -> tuple[Sequence[Address], ...]:
    """The addresses of each machine on the LAN that lets newcomers ask.

    Raises:
      ConfigurationError: if there is none, with the reason as far as it is known.

    """
    why = "this machine does not look on the LAN"
    if lan is not None:
        async with open_nearby(lan) as nearby:
            if await nearby.wait_for(_joins, FIND_SECONDS):
                await trio.sleep(MORE_SECONDS)
            found = _machines(tuple(filter(_joins, nearby.records)))
            failed = "; ".join(f"{name}: {reason}" for name, reason in nearby.failed.items())
        if found:
            return found
        why = failed or f"none was heard within {FIND_SECONDS:.0f} s"
    raise ConfigurationError(
        f"no member is found on the LAN ({why}): see that punch runs on a machine that is an "
        "admin, or name it with --at HOST[:PORT], which works where mDNS does not"
    )


def _joins(record: LanRecord) -> bool:
    return record.joins and bool(record.addresses)


def _machines(records: tuple[LanRecord, ...]) -> tuple[Sequence[Address], ...]:
    """The addresses of *records*, once for each host: any program of a machine will do.

    What stands in no record hides what stands in another: whoever names an address of another
    machine, with a wrong port say, has its own tried first there and no more.
    """
    hosts: dict[str, dict[Address, None]] = {}
    for record in records:
        for address in record.addresses:
            hosts.setdefault(address.host, {})[address] = None
    return tuple(tuple(addresses)[:MAX_PORTS_TRIED] for addresses in hosts.values())
