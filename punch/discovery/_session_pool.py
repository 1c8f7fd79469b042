"""Keeps a session with every listener of a namespace, and feeds the table of peers from them.

Which listeners there are is decided by the directory, and which one is asked by the dialer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import trio

from .._logs import get_logger
from ..access import Admit, Membership, admit_everybody
from ..capability import PeerId
from ..events import Bus, PeerJoined, PeerLeft
from ..exceptions import PeerUnreachable
from ..network import LoopbackStream, Node, Stream, ip_of, is_this_machine, relay_of
from ..peers import IN_PROCESS, ON_MACHINE, OVER_NETWORK, OVER_RELAY, PeerTable
from ..session import PeerSession, ServerCall, door_for
from ..wire import PROTOCOL, Advert, Hello, LoadReport, Session, greeting
from ._dials import Dials
from ._directory import Directory
from ._known_member import KnownMember
from ._lane_changes import publish_lane_changes
from ._local import LocalListener
from ._places import ListenerState, Places, troubles_of

log = get_logger(__name__)

# A listener that restarts is back within a second, so the first try comes soon; one that is away is
# dialled six times a minute.
MIN_RETRY_SECONDS = 0.25
MAX_RETRY_SECONDS = 10.0

# Sessions at a time; further listeners wait for one to end. A session is one connection.
MAX_LISTENERS = 1024

# With more listeners than that, their turns are given so often, in seconds.
CROWDED_SECONDS = 0.1


class SessionPool:
    """Sessions by peer, and the table that they feed.

    Args:
      node: Our own node.
      namespace: The namespace of the listeners.
      incarnation: Grows each time we start.
      version: Version of punch, for people.
      admit: Decides whether a listener is let in.
      membership: Our membership, if the namespace is closed; it decides then.
      events: Where it is published that a listener can be asked, or no longer.

    """

    def __init__(
        self,
        node: Node,
        *,
        namespace: str,
        incarnation: int,
        version: str,
        admit: Admit = admit_everybody,
        membership: Membership | None = None,
        events: Bus | None = None,
    ) -> None:
        self.table = PeerTable()
        self._events = Bus() if events is None else events
        self._admit = admit
        self.door = door_for(membership, node.peer_id, {"listen"})
        """Lets listeners in, if the namespace is closed."""
        self._node = node
        self._hello = greeting(namespace=namespace, incarnation=incarnation, version=version)
        self._states: dict[PeerId, ListenerState] = {}
        self._dials = Dials()
        self._places = Places(MAX_LISTENERS)
        self._local: LocalListener | None = None
        self._roster_changed, self._changed = trio.Event(), trio.Event()

    def attach(self, listener: LocalListener) -> None:
        """Also keep a session with the *listener* of this process, by loopback."""
        self._local = listener

    @property
    def peer_id(self) -> PeerId:
        """Our own identity."""
        return self._node.peer_id

    @property
    def sessions(self) -> int:
        """How many sessions with listeners are open."""
        return sum(self.session(peer_id) is not None for peer_id in self._states)

    def session(self, peer_id: PeerId) -> PeerSession | None:
        """The open session with a listener."""
        state = self._states.get(peer_id)
        session = None if state is None else state.session
        return session if session is not None and session.is_open else None

    def is_settled(self) -> bool:
        """True if there are listeners, and each is measured or could not be reached."""
        states = self._states.items()
        return bool(states) and all(
            state.trouble is not None or self._is_measured(peer_id) for peer_id, state in states
        )

    def _is_measured(self, peer_id: PeerId) -> bool:
        record = self.table.get(peer_id)
        return record is not None and record.rtt is not None

    def unreachable(self) -> Mapping[PeerId, str]:
        """Listeners without a session, each with the reason."""
        return {
            peer_id: state.trouble_told()
            for peer_id, state in self._states.items()
            if state.trouble is not None
        }

    async def change(self) -> None:
        """Wait for any change in what the other methods say."""
        await self._changed.wait()

    def listeners_changed(self) -> None:
        """Note that the listeners, or the trouble, are others; called by the directory."""
        self._roster_changed.set()

    async def run(self, directory: Directory) -> None:
        """Keep a session with every listener of *directory*, for ever."""
        directory.report(lambda: troubles_of(self._states.values()))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow)
            nursery.start_soon(self._dials.run)
            nursery.start_soon(trio.sleep_forever if self.door is None else self.door.run)
            while True:
                self._roster_changed = trio.Event()
                listeners = list(self._listeners(directory))
                self._places.look(self._states.values(), sources=directory.source_count)
                for listener in self._places.in_turn(listeners):
                    self._meet(listener, directory, nursery)
                self._signal()
                if len(listeners) > self._places.limit:
                    # A place becomes free with each dial that fails.
                    await trio.sleep(CROWDED_SECONDS)
                await self._roster_changed.wait()

    def _listeners(self, directory: Directory) -> Iterator[KnownMember]:
        """The listeners to have sessions with: the local one, and those of the directory."""
        if self._local is not None:
            yield KnownMember(
                peer_id=self._node.peer_id, addresses=(), incarnation=self._local.incarnation
            )
        yield from directory.listeners.values()

    def _is_listed(self, peer_id: PeerId, directory: Directory) -> bool:
        return self._is_local(peer_id) or peer_id in directory.listeners

    def _is_local(self, peer_id: PeerId) -> bool:
        return self._local is not None and peer_id == self._node.peer_id

    async def _follow(self) -> None:
        """Try every listener at once when the addresses of this machine change."""
        while True:
            await self._node.moved.wait()
            for state in self._states.values():
                state.moved.set()

    def _meet(self, listener: KnownMember, directory: Directory, nursery: trio.Nursery) -> None:
        state = self._states.get(listener.peer_id)
        if state is not None:
            is_news = listener.sequence > state.listener.sequence
            if state.listener != listener or (is_news and state.session is None):
                state.moved.set()
            state.listener = listener
            state.tell(self.table)
        elif self._places.is_free_for(listener):
            state = self._states[listener.peer_id] = self._places.give(listener)
            nursery.start_soon(self._keep, state, directory)

    async def _keep(self, state: ListenerState, directory: Directory) -> None:
        """Stay connected to one listener until it is gone from the roster."""
        peer_id = state.listener.peer_id
        delay = MIN_RETRY_SECONDS
        try:
            while True:
                state.moved = trio.Event()
                try:
                    if await self._connect(state):
                        # Only a session that opened starts the pauses anew: a peer that accepts
                        # and hangs up is not dialled four times a second.
                        delay = MIN_RETRY_SECONDS
                except Exception as bug:
                    # A bug with one listener must not end the sessions with all others.
                    state.trouble = f"a bug: {bug!r}"
                    log.exception("a session has a bug", peer=peer_id)
                log.debug("no session", peer=peer_id, why=state.trouble, retry_seconds=delay)
                self._signal()
                if not self._is_listed(peer_id, directory):
                    return
                if not state.has_met and len(directory.listeners) > self._places.limit:
                    # Another may have the place, which this one has only asked for.
                    self._places.leave(state, now=trio.current_time())
                    return
                if state.has_more_addresses:
                    continue
                with trio.move_on_after(delay):
                    await state.moved.wait()
                if not self._is_listed(peer_id, directory):
                    return
                delay = min(2 * delay, MAX_RETRY_SECONDS)
        finally:
            del self._states[peer_id]
            if len(directory.listeners) > self._places.limit:
                self._roster_changed.set()

    async def _connect(self, state: ListenerState) -> bool:
        """Have one session with a listener, from beginning to end; False if it never opened."""
        peer_id = state.listener.peer_id
        # Within this process nobody has to be let in.
        door = None if self._is_local(peer_id) else self.door
        try:
            stream = await _stream_to(self._node, self._local, state, self._dials)
        except PeerUnreachable as error:
            state.failed(error.message, error.why)
            return False
        state.why, state.path = None, _path_of(stream)
        # The peer there is the one that the directory has checked: it may see our grant.
        rules = Session("dialer", door.greeting(self._hello) if door else self._hello)
        session = state.session = PeerSession(stream, rules, self, admit=self._admit, door=door)
        try:
            await session.run()
        finally:
            state.session = None
            state.trouble = None if session.ended is None else session.ended.message
            # A listener is in the table once it has advertised; before, no request was sent to it.
            was_there = self.table.get(peer_id) is not None
            self.table.lost(peer_id, now=trio.current_time())
            if was_there:
                _publish_left(self._events, peer_id)
        return was_there

    def _signal(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # ---- called by the sessions ----

    def opened(self, session: PeerSession, hello: Hello) -> None:
        """Accept the adverts of this session from the first on, whatever an earlier one said."""
        self.table.met(session.peer_id)
        state = self._states.get(session.peer_id)
        if state is not None:
            state.has_met, state.tries, state.reasons = True, 0, []

    def advertised(self, session: PeerSession, advert: Advert | LoadReport) -> None:
        """Put a listener's capability, or its load, into the table."""
        # An age travels and not a time: the clocks of two machines are never compared.
        seen_at = trio.current_time() - advert.age
        if isinstance(advert, LoadReport):
            self.table.load_reported(
                session.peer_id, advert.loads, sequence=advert.sequence, seen_at=seen_at
            )
        else:
            before = self.table.get(session.peer_id)
            publish_lane_changes(self._events, session.peer_id, before, advert.capability)
            self.table.advertised(
                session.peer_id,
                advert.capability,
                incarnation=advert.incarnation,
                sequence=advert.sequence,
                seen_at=seen_at,
            )
            state = self._states.get(session.peer_id)
            if before is None:
                if state is not None:
                    state.tell(self.table)
                _publish_joined(self._events, session.peer_id)
        state = self._states.get(session.peer_id)
        if state is not None:
            state.trouble = None
        self._signal()

    def round_trip(self, session: PeerSession, seconds: float) -> None:
        """Put the round trip of a heartbeat into the table."""
        is_news = not self._is_measured(session.peer_id)
        self.table.round_trip(session.peer_id, seconds)
        if is_news:
            self._signal()

    def serve_call(self, call: ServerCall) -> None:
        """Never called: the rules of a session refuse a listener that asks."""
        raise AssertionError("a listener asked")


def _publish_joined(events: Bus, peer_id: PeerId) -> None:
    if events.wants(PeerJoined):
        events.publish(PeerJoined(at=trio.current_time(), peer_id=peer_id))


def _publish_left(events: Bus, peer_id: PeerId) -> None:
    if events.wants(PeerLeft):
        events.publish(PeerLeft(at=trio.current_time(), peer_id=peer_id))


def _path_of(stream: Stream) -> str | None:
    if isinstance(stream, LoopbackStream):
        return IN_PROCESS
    if relay_of(stream) is not None:
        return OVER_RELAY
    ip = ip_of(stream)
    if ip is None:
        return None
    return ON_MACHINE if is_this_machine(ip) else OVER_NETWORK


async def _stream_to(
    node: Node, local: LocalListener | None, state: ListenerState, dials: Dials
) -> Stream:
    if local is not None and state.listener.peer_id == node.peer_id:
        return local.connect()
    return await _dialled(node, state, dials)


async def _dialled(node: Node, state: ListenerState, dials: Dials) -> Stream:
    """A stream to a listener, once it is its turn to be dialled.

    Raises:
      PeerUnreachable: if none can be opened.

    """
    listener = state.listener
    if listener.unfit and not listener.addresses:
        raise PeerUnreachable(f"has no address to dial from here: {'; '.join(listener.unfit)}")
    addresses = state.next_addresses()
    tries = -1 if state.has_met else state.tries
    async with dials.turn(addresses, sources=listener.sources, tries=tries, age=state.age) as dial:
        try:
            return await node.open_stream(listener.peer_id, addresses, PROTOCOL)
        except PeerUnreachable:
            dial.has_failed = True
            raise
