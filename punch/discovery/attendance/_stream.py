"""Our side of one stream to a meeting point: registers there, renews, and follows its roster.

1. On a stream one task renews and one task follows.
2. A meeting point may leave members out, but it cannot make any up: what it lists is passed on only
   if the member itself signed it, and in a closed namespace only if its grant holds.
3. Removals come before the roster that they concern, and are told as soon as they are known.

At which address or peer the stream is opened is decided by the sources.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs
import trio

from ..._logs import get_logger
from ...access import Membership
from ...capability import PeerId
from ...exceptions import NotPermitted, PeerUnreachable, PunchError, RemoteProtocolError
from ...network import Stream, is_own
from ...wire import (
    NEWER,
    Goodbye,
    Join,
    Ping,
    Registration,
    Roster,
    Standing,
    decode_registration,
    quoted,
)
from .._dials import Pace
from .._meeting import RENEWAL_SECONDS, SILENCE_SECONDS, FramedStream, pages_of, send_goodbye
from .._source import Announce, Found, Sighting
from ._checks import Checks

log = get_logger(__name__)

# A signature takes a tenth of a millisecond to check: after so many others have their turn.
VERIFIED_AT_ONCE = 16

# Registrations that are checked at once, and a second: a whole namespace that starts together, and
# far more than ever come and go afterwards. Each takes a few signatures.
CHECK_BURST, CHECK_RATE = 4096.0, 400.0

# Rosters that are taken at once, and a second: a namespace of thousands comes in a few dozen, and
# changes are told twenty times a second at most.
ROSTER_BURST, ROSTER_RATE = 64.0, 20.0

# Meeting points of this minor and above say which members came from their own machine. Those of an
# older one list whoever has joined; on loopback alone, where most are, nobody else can.
NEAR_MINOR = 2

# Removals that are looked at at once, and a second.
REVOCATION_BURST, REVOCATION_RATE = 512.0, 64.0


class Attended:
    """The meeting points that we have a stream to: the same one is not met twice."""

    def __init__(self) -> None:
        self._scopes: dict[PeerId, tuple[trio.CancelScope, bool]] = {}

    def __contains__(self, peer_id: PeerId) -> bool:
        return peer_id in self._scopes

    @contextmanager
    def claimed(self, peer_id: PeerId, *, yields: bool = False) -> Iterator[None]:
        """Meet *peer_id* while the context lasts.

        Args:
          peer_id: The meeting point.
          yields: Whether this one leaves, by a cancel, when another wants to meet there.

        Raises:
          PeerUnreachable: if somebody meets there already who does not leave.

        """
        scope, is_yielding = self._scopes.get(peer_id, (None, True))
        if not is_yielding:
            raise PeerUnreachable("is met at already, by another address of it", peer_id=peer_id)
        if scope is not None:
            scope.cancel()
        with trio.CancelScope() as ours:
            self._scopes[peer_id] = ours, yields
            try:
                yield
            finally:
                if self._scopes.get(peer_id) == (ours, yields):
                    del self._scopes[peer_id]


class Attendance:
    """What we say and hear at one meeting point, one stream after the other.

    Args:
      checks: What is asked of each registration.
      namespace: The name of the namespace.

    """

    def __init__(self, checks: Checks, namespace: str) -> None:
        self._checks = checks
        self._namespace = namespace
        # Minor version of the other side; it may be the oldest until it has said otherwise.
        self._minor = 0
        self._heard = trio.Event()
        self._is_here = False
        self._told: set[bytes] = set()
        self._listed: Callable[[], None] = lambda: None
        self._rosters = Pace(ROSTER_BURST, ROSTER_RATE)
        self._pace = Pace(CHECK_BURST, CHECK_RATE)
        self._revocations = Pace(REVOCATION_BURST, REVOCATION_RATE)

    @property
    def _membership(self) -> Membership | None:
        return self._checks.membership

    async def hold(
        self,
        stream: Stream,
        announce: Announce,
        found: Found,
        *,
        listed: Callable[[], None] = lambda: None,
    ) -> None:
        """Stay registered on *stream*, which is closed at the end, until it is lost.

        Args:
          stream: Ours to use.
          announce: Makes our registration.
          found: Called with what is found.
          listed: Called when a roster has come.

        Raises:
          PeerUnreachable: if the stream is lost.
          RemoteProtocolError: if the other side breaks a rule.
          NotPermitted: if we are turned away, or may not stay.

        """
        self._is_here = is_own(stream)
        self._heard, self._told, self._listed = trio.Event(), set(), listed
        frames = FramedStream(stream)
        lost: list[PunchError] = []
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._renew, frames, announce, nursery.cancel_scope, lost)
                nursery.start_soon(self._follow, frames, found, nursery.cancel_scope, lost)
                nursery.start_soon(announce.be_relayed, stream.peer_id)
        except BaseException:
            # We are leaving: tell the other side, which otherwise waits for the expiry.
            with trio.CancelScope(shield=True), trio.move_on_after(1.0):
                await send_goodbye(frames, Goodbye(code="bye", message="leaving"))
            raise
        finally:
            await stream.aclose()
        raise lost[0]

    async def _renew(
        self,
        frames: FramedStream,
        announce: Announce,
        scope: trio.CancelScope,
        lost: list[PunchError],
    ) -> None:
        nonce = 0
        try:
            ours = announce()
            is_old = self._minor < 1 and self._membership is None
            if is_old and decode_registration(ours.registration).roles > {"dialer"}:
                # A bootstrap of minor 0 knows one role a peer, and tells of others only those
                # whose first word on a stream was that they dial. It lists a peer by its latest.
                await frames.send(announce(as_dialer=True))
                ours = announce()
            while True:
                nonce += 1
                altered = announce.altered
                if self._minor >= 1:
                    ours = attrs.evolve(ours, reach=announce.troubles())
                await frames.send(ours)
                await self._tell_revocations(frames)
                await frames.send(Ping(nonce=nonce))
                with trio.move_on_after(RENEWAL_SECONDS) as renewal:
                    await altered.wait()
                if not renewal.cancelled_caught:
                    await self._heard.wait()
                    if self._minor < 1:
                        # It must hear of our roles one after the other, from the first word on.
                        raise PeerUnreachable("our roles are others, and it has to be met anew")
                ours = announce()
        except PeerUnreachable as error:
            lost.append(error)
            scope.cancel()

    async def _tell_revocations(self, frames: FramedStream) -> None:
        """Send the removals that the other side has not heard of from us, nor told us."""
        if self._membership is None:
            return
        known = self._membership.lock.revocations
        news = [each for each in known if each not in self._told]
        self._told.update(news)
        for page in pages_of(news):
            await frames.send(Standing(revocations=page))

    async def _follow(
        self, frames: FramedStream, found: Found, scope: trio.CancelScope, lost: list[PunchError]
    ) -> None:
        try:
            while True:
                with trio.move_on_after(SILENCE_SECONDS) as patience:
                    message = await frames.receive()
                if patience.cancelled_caught:
                    raise PeerUnreachable(f"silent for {SILENCE_SECONDS:.0f} s")
                if message is None:
                    raise PeerUnreachable("the connection was lost")
                if isinstance(message, Goodbye):
                    raise NotPermitted(f"turned away ({message.code}): {quoted(message.message)}")
                if isinstance(message, Standing):
                    await self._learn(message)
                if isinstance(message, Roster):
                    await trio.sleep(self._rosters.wait(trio.current_time()))
                    found(await self._sighting(message))
        except (PeerUnreachable, RemoteProtocolError, NotPermitted) as error:
            lost.append(error)
            scope.cancel()

    async def _learn(self, standing: Standing) -> None:
        """Take the removals that the other side tells, at a bounded pace."""
        if self._membership is None:
            return
        news = [each for each in standing.revocations if each not in self._told]
        self._told.update(news)
        for each in news:
            await trio.sleep(self._revocations.wait(trio.current_time()))
            self._membership.add_revocations((each,))

    async def _sighting(self, roster: Roster) -> Sighting:
        if roster.namespace != self._namespace:
            raise RemoteProtocolError(f"a roster of namespace {roster.namespace!r}")
        if self._membership is not None and roster.minor < NEWER[Standing]:
            raise NotPermitted(
                f"the meeting point speaks minor {roster.minor} of the protocol, and a closed "
                f"namespace needs {NEWER[Standing]}: upgrade it, or meet elsewhere"
            )
        if roster.minor < self._minor:
            # Another program answers there now, which must hear of our roles one after the other.
            self._minor = roster.minor
            raise PeerUnreachable("the bootstrap was replaced by an older one")
        self._minor = roster.minor
        self._heard.set()
        self._listed()
        present = []
        relayed, near = set(), set()
        for number, join in enumerate(roster.present, 1):
            registration = await self._checked(join)
            if registration is not None:
                present.append(registration)
                if join.relayed:
                    relayed.add(registration.peer_id)
                if self._is_near(join):
                    near.add(registration.peer_id)
            if number % VERIFIED_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
        return Sighting(
            present=tuple(present),
            relayed=frozenset(relayed),
            gone=roster.gone,
            is_whole=roster.whole,
            is_ordered=True,
            near=frozenset(near),
            notices=roster.notices if roster.whole else None,
            reach=roster.reach,
        )

    def _is_near(self, join: Join) -> bool:
        """Whether the peer of *join* is on our machine, by the word of a meeting point that is."""
        is_old = self._minor < NEAR_MINOR and self._membership is None
        return self._is_here and (join.near or is_old)

    async def _checked(self, join: Join) -> Registration | None:
        if self._checks.known(join) is None:
            seconds = self._pace.wait(trio.current_time())
            if seconds:
                await trio.sleep(seconds)
        return self._checks.registration(join)
