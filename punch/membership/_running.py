"""What the programs of this machine that run now say to its other programs and commands.

A program leaves a file in a folder of its namespace, under a lock that the system releases when the
program ends, however it ends: with its addresses if it serves, and with the machines that it sees.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs

from .._locks import try_lock
from ..capability import PeerId
from ..exceptions import ConfigurationError
from ..network import Address, parse_address
from ._folder import Folder
from ._home import Home

SERVING = "serving"
SEEING = "seeing"

# Programs of one machine in one namespace whose files are looked at.
MAX_RUNNING = 64

# Peers that are noted between two writings.
MAX_HEARD = 4096

# How often it is noted that those are still there who are: what a crash may take of "last seen".
NOTED_SECONDS = 300.0


class Running:
    """The file of one program. Made by `running`."""

    def __init__(self, folder: Folder, name: str) -> None:
        self._folder = folder
        self._name = name

    def say(self, words: Sequence[str]) -> None:
        """Write what the program has to say."""
        # A folder that is gone, since the machine has left, is not made anew.
        if self._folder.exists(self._name):
            with suppress(ConfigurationError):
                self._folder.write(self._name, json.dumps(words).encode())


@contextmanager
def running(home: Home, peer_id: PeerId, name: str = SERVING) -> Iterator[Running]:
    """Keep the file of a program in the folder *name*, for as long as the context lasts.

    Raises:
      ConfigurationError: if it cannot be made.

    """
    folder = Folder(home.folder / name)
    folder.write(f"{peer_id}.json", b"[]")
    try:
        file = (folder / f"{peer_id}.lock").open("ab")
    except OSError as error:
        raise ConfigurationError(f"{folder.path} cannot be written: {error.strerror}") from None
    with file:
        try_lock(file)
        try:
            yield Running(folder, f"{peer_id}.json")
        finally:
            folder.remove(f"{peer_id}.json")
            folder.remove(f"{peer_id}.lock")


def serving(home: Home) -> tuple[Address, ...]:
    """Where programs of this machine serve the namespace now; none if none runs."""
    found: dict[Address, None] = {}
    for text in _said(home, SERVING):
        with suppress(ConfigurationError):
            found[parse_address(text)] = None
    # Others reach any address of this machine sooner than its loopback.
    return tuple(sorted(found, key=Address.is_loopback))


def programs_running(home: Home) -> int:
    """How many programs of this machine serve the namespace now."""
    return len(_held(Folder(home.folder / SERVING)))


def seen_now(home: Home) -> frozenset[PeerId]:
    """The machines that programs of this machine have sessions with now, or meet now."""
    return frozenset(map(PeerId, _said(home, SEEING)))


def running_now(home: Home) -> int:
    """How many programs of this machine are in the namespace now."""
    return len(_held(Folder(home.folder / SEEING)))


def _held(folder: Folder) -> list[Path]:
    """The locks of the programs that run now."""
    try:
        locks = sorted(folder.path.glob("*.lock"))[:MAX_RUNNING]
    except OSError:
        return []
    return [lock for lock in locks if not _is_free(lock)]


def _said(home: Home, name: str) -> Iterator[str]:
    """What all programs say that run now."""
    folder = Folder(home.folder / name)
    for lock in _held(folder):
        with suppress(ValueError, ConfigurationError, RecursionError):
            words = json.loads(folder.read(f"{lock.stem}.json") or b"[]")
            if isinstance(words, list):
                yield from (word for word in words if isinstance(word, str))


def _is_free(path: Path) -> bool:
    """True if the program that had the lock has ended."""
    try:
        with path.open("ab") as file:
            return try_lock(file)
    except OSError:
        return True


@attrs.define
class Heard:
    """What was heard of a peer."""

    at: float
    """When, by the clock of this machine, in seconds since 1970."""

    addresses: tuple[str, ...] = ()
    """Where it said to be; empty if it did not."""


class Sightings:
    """Which members one program sees, and when each was heard of. It knows no clock."""

    def __init__(self) -> None:
        self._seers: list[Callable[[], Iterable[PeerId]]] = []
        self._there: frozenset[PeerId] = frozenset()
        self._heard: dict[PeerId, Heard] = {}
        self._noted_at = -math.inf
        self.is_news = False
        """Whether somebody has come or gone since the last `take`."""

    @contextmanager
    def by(self, who: Callable[[], Iterable[PeerId]]) -> Iterator[None]:
        """Ask *who* which members are there, until left."""
        self._seers.append(who)
        try:
            yield
        finally:
            self._seers.remove(who)

    def hear(self, peer_id: PeerId, now: float, addresses: tuple[str, ...] = ()) -> None:
        """Note that a peer was heard of."""
        if peer_id in self._heard or len(self._heard) < MAX_HEARD:
            before = self._heard.get(peer_id)
            self._heard[peer_id] = Heard(
                at=now, addresses=addresses or (() if before is None else before.addresses)
            )

    def look(self, now: float, clock: float) -> frozenset[PeerId] | None:
        """The peers that are there, if these are others than at the last look.

        Args:
          now: Seconds of a clock that is never set.
          clock: Seconds since 1970, as people see them.

        """
        there = frozenset(each for who in tuple(self._seers) for each in who())
        is_due = now >= self._noted_at + NOTED_SECONDS
        for peer_id in there | self._there if is_due else there ^ self._there:
            self.hear(peer_id, clock)
        if is_due:
            self._noted_at = now
        if there == self._there:
            return None
        self._there, self.is_news = there, True
        return there

    def take(self) -> Mapping[PeerId, Heard]:
        """What was heard since this was called last."""
        heard, self._heard, self.is_news = self._heard, {}, False
        return heard
