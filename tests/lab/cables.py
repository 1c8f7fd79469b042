"""Cables of the laboratory that are as long, as thin and as bad as one likes.

::

    with long_cable(shed, "eth0", Quality(delay=0.15, loss=0.1)) as cable:
        ...
        cable.change(Quality(loss=1.0))          # cut, and nobody is told

The cable of one interface is replaced by one whose frames go through a process of ours, by two TAP
devices: what a machine sends and gets is delayed, lost and slowed, whatever protocol it speaks. The
kernel's own way (netem) is not in every kernel.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from lab.machines import Machine

# From linux/if_tun.h and linux/sched.h.
TUNSETIFF = 0x400454CA
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
CLONE_NEWNET = 0x40000000

# What waits for its turn on a thin cable before more is lost: as in a usual home router.
MAX_WAITING_SECONDS = 0.25
MAX_FRAMES = 20_000
MAX_FRAME_BYTES = 65536

READY_SECONDS = 20.0


@attrs.frozen(kw_only=True)
class Quality:
    """What a cable does to a frame, each way by itself."""

    delay: float = 0.0
    """Seconds that a frame is under way."""

    loss: float = 0.0
    """Share of the frames that are lost."""

    rate: float = 0.0
    """Bytes a second; 0 for as many as come."""


class Way:
    """One direction: what is under way, and when it arrives."""

    def __init__(self, seed: int) -> None:
        self._under_way: list[tuple[float, int, bytes]] = []
        self._free_at = 0.0
        self._count = 0
        self._random = random.Random(seed)

    def take(self, frame: bytes, quality: Quality, now: float) -> None:
        """Send a frame on its way, or lose it."""
        if self._random.random() < quality.loss or len(self._under_way) >= MAX_FRAMES:
            return
        begins = max(now, self._free_at)
        if quality.rate:
            if begins - now > MAX_WAITING_SECONDS:
                return
            self._free_at = begins = begins + len(frame) / quality.rate
        self._count += 1
        heapq.heappush(self._under_way, (begins + quality.delay, self._count, frame))

    def arrived(self, now: float) -> Iterator[bytes]:
        """The frames whose time has come."""
        while self._under_way and self._under_way[0][0] <= now:
            yield heapq.heappop(self._under_way)[2]

    def next_at(self) -> float | None:
        """When the next arrives."""
        return self._under_way[0][0] if self._under_way else None


# ---- the process that carries ----


def _open_end(namespace: str, interface: str) -> int:
    """A new TAP device in a network *namespace*, which must be there."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/run/netns", namespace).open() as place:
        if libc.setns(place.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
    end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH22x", interface.encode(), IFF_TAP | IFF_NO_PI))
    return end


def _carry(ends: tuple[int, int], quality: Quality) -> None:
    """Carry frames between *ends* until standard input ends; its lines say what changes."""
    ways = {ends[0]: (Way(1), ends[1]), ends[1]: (Way(2), ends[0])}
    typed = b""
    while True:
        dues = [due for way, _ in ways.values() if (due := way.next_at()) is not None]
        wait = max(0.0, min(dues) - time.monotonic()) if dues else None
        ready, _, _ = select.select([*ends, 0], [], [], wait)
        now = time.monotonic()
        if 0 in ready:
            data = os.read(0, 65536)
            if not data:
                return
            *lines, typed = (typed + data).split(b"\n")
            for line in lines:
                quality = Quality(**json.loads(line))
        for end in ends:
            if end in ready:
                with contextlib.suppress(BlockingIOError):
                    while True:
                        ways[end][0].take(os.read(end, MAX_FRAME_BYTES), quality, now)
            way, sink = ways[end]
            for frame in way.arrived(now):
                # An interface that is down, or full, takes nothing.
                with contextlib.suppress(OSError):
                    os.write(sink, frame)


# ---- its handle ----


class Cable:
    """A cable that is there. Made by `long_cable`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def change(self, quality: Quality) -> None:
        """Be of another quality from now on, for what is not yet under way."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(attrs.asdict(quality)) + "\n")
        self._process.stdin.flush()


@contextlib.contextmanager
def long_cable(machine: Machine, interface: str, quality: Quality) -> Iterator[Cable]:
    """Replace the cable of an *interface*, with its addresses and routes; at the end it is gone."""
    wire, outside = machine.plugged[interface]
    addresses = json.loads(machine.ip("-json", "addr", "show", "dev", interface))[0]["addr_info"]
    routes: list[dict[str, Any]] = json.loads(machine.ip("-json", "route", "show", "default"))
    machine.ip("link", "delete", interface)
    process = subprocess.Popen(
        [
            sys.executable,
            __file__,
            machine.namespace,
            interface,
            wire.namespace,
            outside,
            json.dumps(attrs.asdict(quality)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "carrying\n", "the cable did not come up"
        wire.attach(outside)
        machine.ip("link", "set", interface, "up")
        for each in addresses:
            if each["scope"] == "global":
                place = f"{each['local']}/{each['prefixlen']}"
                words = ("nodad",) if each["family"] == "inet6" else ()
                machine.ip("addr", "add", place, "dev", interface, *words)
        for each in routes:
            if each["dev"] == interface:
                machine.ip("route", "add", "default", "via", each["gateway"])
        yield Cable(process)
    finally:
        process.communicate(timeout=READY_SECONDS)


def main(words: list[str]) -> None:
    """Be the process of a cable."""
    near, near_name, far, far_name, quality = words
    ends = (_open_end(near, near_name), _open_end(far, far_name))
    print("carrying", flush=True)
    _carry(ends, Quality(**json.loads(quality)))


if __name__ == "__main__":
    main(sys.argv[1:])
