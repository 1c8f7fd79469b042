"""The membership that a program has, kept on disk and shared with the other programs of a machine.

What another process writes (a removal by `punch members remove`, a grant that was renewed) is seen
within `LOOK_SECONDS`. The chain of this process is made anew before it ends, by the machine's key.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import (
    AbstractContextManager,
    ExitStack,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import attrs
import trio

from .._background import open_background
from .._logs import get_logger
from ..access import (
    PROCESS_SECONDS,
    Grant,
    Issuer,
    Lock,
    Namespace,
    Refusal,
    encode_chain,
)
from ..capability import PeerId
from ..exceptions import ConfigurationError, NotPermitted
from ..libp2p import Key, load_key, verify
from ..network import Node
from ..wire import Registration
from ._home import (
    CHAIN,
    REVOCATIONS,
    Home,
    add_revocations,
    find_home,
    home_in,
    read_revocations,
    record_of,
    renewed_by_root,
    retire_key,
)
from ._members import MemberNames, MemberRecord, add_members
from ._places import Places, dialled
from ._running import SEEING, Heard, Sightings, running, serving

log = get_logger(__name__)

LOOK_SECONDS = 0.25
"""How often the files are looked at. A removal is to be known everywhere within 2 s."""

FLUSH_SECONDS = 10.0
"""How often what was learnt of members and their addresses is written."""

NEWS_SECONDS = 2.0
"""How often it is written while members come and go."""

# How long a program goes on after its machine has left: its sessions end by themselves meanwhile.
LEAVING_SECONDS = 1.0

# How often it is looked which other programs of this machine serve, and who is there, in seconds.
SERVED_SECONDS = 1.0

# A process grant is made anew when half of it is over: a machine that sleeps for some hours wakes
# with one that still counts.
RENEW_SECONDS = PROCESS_SECONDS / 2


class DiskMembership:
    """The membership that one process has of a closed namespace. Made by `open_membership`.

    A `punch.access.Membership`.
    """

    def __init__(
        self, home: Home, identity: str | Path, *, now: Callable[[], float] = time.time
    ) -> None:
        self.home = home
        """The namespace as it is on disk."""
        self.identity = str(identity)
        """File with the key of this process."""
        self.process: PeerId = load_key(Path(identity)).peer_id
        """The key that the chain is for."""
        retire_key(home)
        self.lock = Lock(home.namespace, verify)
        self.now = now
        """The time, in seconds of UTC since 1970."""
        self._machine: Key = home.key()
        self._watchers: list[Callable[[], None]] = []
        self._places = Places(home.folder)
        self._names = MemberNames(home.folder)
        self._stamp = home.folder.stamp(CHAIN, REVOCATIONS)
        self.lock.add(read_revocations(home))
        self._has_warned = False
        self.heard_at = -math.inf
        """When a registration was last heard of, on trio's clock."""
        self.sightings = Sightings()
        """Which members are there, and when each was heard of."""
        self._served: tuple[str, ...] = ()
        self._served_at = -math.inf
        self._make_chain()

    @property
    def namespace(self) -> Namespace:
        """The namespace."""
        return self.home.namespace

    @property
    def name(self) -> str:
        """What people call this machine in the namespace."""
        return self.home.name

    @property
    def grant(self) -> Grant:
        """The grant of this machine, as of now."""
        return self._grant

    @property
    def takes_newcomers(self) -> bool:
        """Whether a machine that is no member may ask this one to be let in: an admin's only."""
        return self._grant.kind == "admin"

    def called(self, machine: PeerId) -> str:
        """What people call a machine on this one; empty if that is not known here."""
        return self._names.of(machine)

    def chain(self) -> bytes:
        """The chain of this process's key, encoded."""
        return self._chain

    def key(self) -> Key:
        """The key of this machine."""
        return self._machine

    @asynccontextmanager
    async def kept_up(self, node: Node, *, serves: bool) -> AsyncIterator[None]:
        """Keep the membership up by means of a node of this process; see `open_door`."""
        # Here: both need this module.
        from ._serving import open_door, open_upkeep

        async with open_door(self, node) if serves else open_upkeep(self, node):
            yield

    @contextmanager
    def watch(self, changed: Callable[[], None]) -> Iterator[None]:
        """Call *changed* whenever removals or the own chain have changed, until left."""
        self._watchers.append(changed)
        try:
            yield
        finally:
            self._watchers.remove(changed)

    def add_revocations(self, revocations: Iterable[bytes]) -> None:
        """Learn of removals: what is news goes into the lock, to disk, and to all watchers."""
        news = self.lock.add(revocations)
        if not news:
            return
        try:
            add_revocations(self.home, news)
        except ConfigurationError as error:
            # This process holds to them all the same.
            log.warning("a removal could not be written", why=str(error))
        self._tell()

    def seeing(self, who: Callable[[], Iterable[PeerId]]) -> AbstractContextManager[None]:
        """Know from *who* which members are there now, until left."""
        return self.sightings.by(who)

    def remember(self, registrations: Iterable[Registration]) -> None:
        """Keep where members are, for the next start."""
        self.heard_at = trio.current_time()
        machines = {member.peer_id: member.machine for member in self.lock.remembered}
        for registration in registrations:
            if registration.peer_id != self.process:
                machine = machines.get(registration.peer_id)
                # One that has shown its grant too long ago comes with its next news.
                if machine is not None:
                    self._places.remember(registration.peer_id, registration.addresses, machine)
                self.sightings.hear(registration.peer_id, self.now(), registration.addresses)

    def places(self) -> tuple[str, ...]:
        """Where members were, those that were heard of last first."""
        return tuple(dict.fromkeys([*self._own(), *self._places.all()]))

    def machine_of(self, peer_id: PeerId) -> PeerId | None:
        """The machine of a peer whose place is kept; `None` if it has not shown a grant here."""
        return self._places.machine_of(peer_id)

    def bare_places(self) -> tuple[str, ...]:
        """Where members were, whoever is there now."""
        return self._places.bare()

    def found(self, peer_id: PeerId, address: str) -> None:
        """Note that *peer_id* is at *address*, which proves nothing of it."""
        if peer_id != self.process:
            self._places.remember(peer_id, [f"{address}/p2p/{peer_id}"])

    def _own(self) -> tuple[str, ...]:
        """Where other programs of this machine serve the namespace, which know it already."""
        # Also called in threads, which know no other clock.
        if time.monotonic() > self._served_at + SERVED_SECONDS:
            self._served_at = time.monotonic()
            self._served = tuple(
                str(place) for place in serving(self.home) if place.peer_id != self.process
            )
        return self._served

    # ---- the files ----

    def check(self) -> None:
        """Raise if this machine's own grant does not count.

        Raises:
          NotPermitted: with the rule, and what to do.

        """
        chain = encode_chain(self.home.chain())
        found = self.lock.judge(self.home.machine, chain, self.now())
        if isinstance(found, Refusal):
            raise NotPermitted(
                f"this machine is no member of {self.namespace} any more: {found.reason}. "
                "Redeem the invite here with: punch join"
            )

    async def run(self, say: Callable[[Sequence[str]], None] | None = None) -> None:
        """Follow the files and the clock, and write what was learnt, until this machine leaves.

        Args:
          say: Tells other programs of this machine which machines this one sees.

        Raises:
          NotPermitted: a moment after it has left: nothing of this process is a member then.

        """
        flushed = looked = trio.current_time()
        while True:
            await trio.sleep(LOOK_SECONDS)
            if has_left(self.home, self.lock, self._grant):
                # Those who watch have told all others of it, who end what was under way.
                await trio.sleep(LEAVING_SECONDS)
                raise NotPermitted(
                    f"this machine has left {self.namespace}, so what ran in it here has ended. "
                    "To come back, ask an admin for an invite, and redeem it with: punch join"
                )
            if trio.current_time() >= looked + SERVED_SECONDS:
                looked = trio.current_time()
                there = self.sightings.look(looked, self.now())
                if there is not None and say is not None:
                    machines = _machines_of(self.lock, there) - {self.home.machine}
                    await trio.to_thread.run_sync(say, sorted(machines))
            try:
                self.look()
                pause = NEWS_SECONDS if self.sightings.is_news else FLUSH_SECONDS
                if trio.current_time() > flushed + pause:
                    flushed = trio.current_time()
                    await trio.to_thread.run_sync(self.flush)
            except ConfigurationError as error:
                # A full disk, or a folder that is gone. What is known still holds.
                if not self._has_warned:
                    log.warning("the files of the namespace cannot be used", why=str(error))
                self._has_warned = True
            else:
                self._has_warned = False

    def look(self) -> None:
        """Read what other processes have written, and tell the watchers of news.

        Raises:
          ConfigurationError: if a file is damaged.

        """
        if self._read():
            self._tell()

    def flush(self) -> None:
        """Write what was learnt of the members: addresses, grants, and when they were seen.

        Raises:
          ConfigurationError: if that cannot be written.

        """
        self._places.flush()
        add_members(self.home.folder, _records(self.lock, self.sightings.take()))

    def _read(self) -> bool:
        """Read what other processes have written; True if it was news."""
        stamp = self.home.folder.stamp(CHAIN, REVOCATIONS)
        is_due = self.now() > self._ends - RENEW_SECONDS and self._ends < self._grant.ends
        if stamp == self._stamp and not is_due:
            return False
        before = self._chain
        self._make_chain()
        news = self.lock.add(read_revocations(self.home))
        self._stamp = stamp
        return bool(news) or self._chain != before

    def _make_chain(self) -> None:
        """Sign a grant for this process with the machine's key."""
        chain = self.home.chain()
        if chain[-1].grant.subject != self.home.machine:
            # Its key was changed, or it has joined anew.
            self.home = home_in(self.home.folder)
            self._machine = self.home.key()
        machine = self._grant = chain[-1].grant
        issuer = Issuer(key=self.home.machine, sign=self._machine.sign, chain=chain)
        # Where the machine's own grant has ended, all others hear that, and nothing worse.
        now = min(self.now(), machine.ends - 1)
        try:
            whole = issuer.issue_process(self.lock, self.process, now=now)
        except NotPermitted:
            # A chain that allows nothing. Shown as it is, it tells why.
            whole = chain
        self._ends = whole[-1].grant.ends
        self._chain = encode_chain(whole)

    def _tell(self) -> None:
        for changed in tuple(self._watchers):
            changed()


def has_left(home: Home, lock: Lock, grant: Grant) -> bool:
    """Whether a machine is out by its own word, or the namespace is gone from its disk."""
    folder = home.folder.path
    if not folder.is_dir():
        # Unless all of the disk is away for a moment.
        return folder.parent.is_dir()
    by_others = lock.removed_up_to(home.machine, by_others=True)
    return lock.removed_up_to(home.machine) >= grant.number > by_others


def _machines_of(lock: Lock, peers: frozenset[PeerId]) -> set[PeerId]:
    """The machines on which *peers* run."""
    return {each.machine for each in lock.remembered if each.peer_id in peers}


def _records(lock: Lock, heard: Mapping[PeerId, Heard]) -> list[MemberRecord]:
    """Of the machines of those that were *heard* of, by the chains that they have shown."""
    found: dict[PeerId, MemberRecord] = {}
    for member in lock.remembered:
        seen = heard.get(member.peer_id)
        if seen is None or lock.is_removed(member):
            continue
        chain = member.chain
        if chain[-1].grant.kind == "process":
            chain = chain[:-1]
        record = attrs.evolve(
            record_of(chain, called="", now=seen.at), addresses=dialled(seen.addresses)
        )
        before = found.get(record.machine)
        found[record.machine] = record if before is None else before.merged(record)
    return list(found.values())


@asynccontextmanager
async def open_membership(
    namespace: str | Home | None = None,
    *,
    identity: str | os.PathLike[str] | None = None,
    folder: Path | None = None,
) -> AsyncIterator[DiskMembership]:
    """Be a member of a closed namespace with one process, for as long as the context lasts.

    ::

        async with (
            punch.open_membership("home") as home,
            punch.open_router(membership=home) as router,
        ):
            ...

    What is opened with it is in that namespace: a router asks its members, a listener answers them
    and lets newcomers in, if this machine is an admin.

    Args:
      namespace: The namespace, ``NAME`` or ``NAME@FINGERPRINT``; by default the one that this
        machine has joined.
      identity: File with the key of this process, made if it is not there; by default a fresh
        one, that is kept for as long as the context lasts.
      folder: Where the namespaces of this machine are kept; by default in the data folder.

    Raises:
      ConfigurationError: if this machine is a member of no such namespace, several could be meant,
        or its files are damaged.
      NotPermitted: if the machine's grant has ended, or the machine was removed; later, once the
        machine has left, see `leave_namespace`.

    """
    home = namespace if isinstance(namespace, Home) else find_home(namespace, folder)
    if home is None:
        raise ConfigurationError(
            f"this machine is a member of no closed namespace {namespace or ''!r}: make one with "
            "`punch namespace create NAME`, or redeem an invite with `punch join`"
        )
    # Where the root's key is, no admin is needed for the machine's own grant.
    await trio.to_thread.run_sync(partial(renewed_by_root, home, now=time.time()))
    with ExitStack() as stack:
        if identity is None:
            own = stack.enter_context(TemporaryDirectory(prefix="punch-"))
            identity = Path(own) / "process.key"
        membership = DiskMembership(home, Path(identity))
        membership.check()
        say = None
        try:
            say = stack.enter_context(running(home, membership.process, SEEING)).say
        except ConfigurationError as error:
            log.warning("`punch members` will not know whom this program sees", why=str(error))
        async with open_background() as nursery:
            nursery.start_soon(membership.run, say)
            try:
                yield membership
            finally:
                with suppress(ConfigurationError):
                    membership.flush()
