"""What people may call a worker and its devices: its identity, or the end of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ...placement import HEAD, Device

MIN_END_CHARACTERS = 6
"""An end of an identity that is as long means one worker of a namespace, in all likelihood."""


def is_meant(name: str, worker: str) -> bool:
    """Whether *name* is the identity of *worker*, or an end of it, as tables show it too."""
    end = name.lstrip(".")
    return name == worker or (len(end) >= MIN_END_CHARACTERS and worker.endswith(end))


def ids_of(names: Iterable[str], devices: Sequence[Device]) -> tuple[frozenset[str], list[str]]:
    """What a plan calls the workers and devices that *names* mean, and the names that mean none.

    A worker's device is ``WORKER/DEVICE``; a device of the head has a name of its own.
    """
    found: set[str] = set()
    unknown = []
    for name in names:
        worker, slash, device = name.partition("/")
        meant = {
            f"{each.holder}/{device}" if slash else each.holder
            for each in devices
            if each.holder != HEAD and is_meant(worker, each.holder)
        }
        meant &= {each.id for each in devices} | {each.holder for each in devices}
        meant |= {each.id for each in devices if each.id == name}
        found |= meant
        if not meant:
            unknown.append(name)
    return frozenset(found), unknown
