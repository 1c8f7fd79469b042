"""What a gateway's process holds while it runs, memory and descriptors, and whether that grows."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Sequence

import attrs
from _alternatives import Side

SAMPLE_SECONDS = 1.0
# Rings of events and caches fill first.
WARM_UP = 0.1


@attrs.frozen
class Sample:
    """What the gateway held at one moment."""

    at: float
    """Seconds from the beginning."""

    memory: int
    """Resident bytes."""

    descriptors: int
    """Files and sockets, without clients' connections."""


class Watch(threading.Thread):
    """Notes what the gateway holds, until stopped."""

    def __init__(self, gateway: Side) -> None:
        super().__init__()
        self.samples: list[Sample] = []
        self._gateway = gateway
        self._stopped = threading.Event()

    def run(self) -> None:
        """See the class."""
        began = time.monotonic()
        while not self._stopped.wait(SAMPLE_SECONDS):
            self.samples.append(held_by(self._gateway, time.monotonic() - began))

    def finish(self) -> list[Sample]:
        """All of them, without the warm-up."""
        self._stopped.set()
        self.join()
        return self.samples[int(len(self.samples) * WARM_UP) :]


def held_by(gateway: Side, at: float = 0.0) -> Sample:
    """What it holds now."""
    (process,) = gateway.processes
    descriptors = process.num_fds()
    clients = sum(
        connection.laddr.port == gateway.address.port and bool(connection.raddr)
        for connection in process.net_connections("tcp")
    )
    return Sample(at, process.memory_info().rss, descriptors - clients)


@attrs.frozen(kw_only=True)
class Trend:
    """How a number went on."""

    first: float
    """Mean of the first quarter."""

    last: float
    """Mean of the last quarter."""

    slope: float
    """By a linear fit, per second."""

    seconds: float
    """From the first to the last."""

    @classmethod
    def of(cls, times: Sequence[float], values: Sequence[float]) -> Trend:
        """Of numbers at moments."""
        quarter = max(1, len(values) // 4)
        return cls(
            first=statistics.fmean(values[:quarter]),
            last=statistics.fmean(values[-quarter:]),
            slope=statistics.linear_regression(times, values).slope,
            seconds=times[-1] - times[0],
        )

    def is_flat(self, spare: float) -> bool:
        """Whether neither the quarters nor the fit grew by more than that."""
        return max(self.last - self.first, self.slope * self.seconds) <= spare
