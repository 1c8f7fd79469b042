"""Serves a listener's sessions: takes requests, has a lane make each answer, and drains.

A request that is there already is not given to a lane again; see `punch.listener.recordings`.
Which lane has the others is decided in `punch.listener._lanes`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import attrs
import trio

from .._background import open_background
from .._logs import get_logger
from .._version import __version__
from ..access import Membership
from ..admission import NO_CAPS, Caps
from ..capability import Capability, Load, ModelOffer, PeerId
from ..events import Bus
from ..exceptions import PeerRefused, PeerUnreachable, PunchError
from ..machine import Machine
from ..network import LoopbackStream, Node, Stream, open_loopback
from ..session import PeerSession, ServerCall, door_for
from ..wire import (
    PROTOCOL,
    Advert,
    CommandRequest,
    CommandResponse,
    Hello,
    LoadReport,
    Session,
    check_combination,
    greeting,
)
from ._adverts import DEFAULT_REPORT_DELAY_SECONDS, Adverts
from ._lane import DRAIN_SECONDS, LaneStatistics, RunningLane
from ._lanes import Lanes, OneOrMore, each_of
from ._outcomes import Outcomes
from ._reports import Reports
from .members import Askers, MemberUsage
from .recordings import Reader, Recording, Recordings, RecordingStatistics

log = get_logger(__name__)

# How long saying goodbye to the dialers may take.
FAREWELL_SECONDS = 2.0


@attrs.frozen(kw_only=True)
class ListenerStatistics:
    """Counts of a listener at one instant, and totals since its start."""

    sessions: int
    """Dialers connected."""

    busy: int
    """Requests being answered."""

    queued: int
    """Requests waiting."""

    served: int
    """Answers completed so far."""

    refused: int
    """Requests refused so far."""

    cancelled: int
    """Requests cancelled so far."""

    recordings: RecordingStatistics
    """Answers being made, and those that are kept for a dialer that asks again."""

    lanes: tuple[LaneStatistics, ...] = ()
    """The same by lane."""

    members: tuple[MemberUsage, ...] = ()
    """What each member of a closed namespace has asked so far; the first 256 of them."""


Welcome = Callable[[Stream], Awaitable[None]]
"""Waits until a dialer may say who it is."""


async def welcome_at_once(stream: Stream) -> None:
    """Return at once."""


class Executor:
    """Answers requests with any number of lanes. Made by `open_executor`."""

    def __init__(
        self,
        node: Node,
        nursery: trio.Nursery,
        *,
        namespace: str,
        incarnation: int,
        machine: Machine | None,
        events: Bus | None,
        report_delay: float,
        strangers: Caps,
        name: str | None,
        membership: Membership | None = None,
        welcome: Welcome = welcome_at_once,
        limits: Mapping[str, Caps] | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._node = node
        self._welcome = welcome
        self._nursery = nursery
        self._namespace = namespace
        self._incarnation = incarnation
        self._recordings = Recordings()
        self._door = door_for(membership, self.peer_id, {"dial"}, self._recordings.forget)
        self.askers = Askers(self._door, membership, strangers, limits, wall)
        """The dialers, and what each may ask for."""
        self._outcomes = Outcomes(node.peer_id)
        self._reports = Reports(events, self.askers.usage)
        self._adverts = Adverts(
            incarnation=incarnation,
            machine=machine,
            reports=self._reports,
            delay=report_delay,
            caps=self.askers.caps,
            name=name,
        )
        self.lanes = Lanes(self._adverts, self._outcomes, self._reports, nursery)
        """The lanes, which may be added and removed."""
        self._draining = self._has_left = False
        self._left = trio.Event()
        self._refused = self._cancelled = self._calls = 0
        self._quiet = trio.Event()

    @property
    def peer_id(self) -> PeerId:
        """The identity of this process."""
        return self._node.peer_id

    def statistics(self) -> ListenerStatistics:
        """Counts of sessions, requests and recordings, in all and by lane."""
        lanes = self.lanes.statistics()
        return ListenerStatistics(
            sessions=len(self._adverts.sessions),
            busy=sum(lane.busy for lane in lanes),
            queued=sum(lane.queued for lane in lanes),
            served=self.lanes.served_before + sum(lane.served for lane in lanes),
            refused=self._refused,
            cancelled=self._cancelled,
            recordings=self._recordings.statistics(),
            lanes=lanes,
            members=self.askers.usage.all(),
        )

    def load(self) -> Load:
        """How busy all lanes are together."""
        return self._adverts.load()

    def capability(self) -> Capability:
        """The vector that is advertised."""
        return self._adverts.capability()

    # ---- sessions ----

    async def advertise(self) -> None:
        """Tell the dialers of every change, until cancelled."""
        await self._adverts.run()

    async def serve(self, stream: Stream) -> None:
        """Serve the session with the dialer at the other end of *stream*, to its end."""
        hello = greeting(
            namespace=self._namespace, incarnation=self._incarnation, version=__version__
        )
        # Within this process nobody has to be let in.
        door = None if isinstance(stream, LoopbackStream) else self._door
        if door is not None:
            await self._welcome(stream)
            hello = door.greeting(hello)
        session = PeerSession(stream, Session("listener", hello), self, door=door)
        try:
            await session.run()
        finally:
            self._adverts.forget(session)
            self._left.set()

    def connect(self) -> Stream:
        """The dialing end of a new loopback stream, which is served here.

        Raises:
          PeerUnreachable: if nothing is served any more.

        """
        if self._has_left:
            raise PeerUnreachable("the listener of this process has ended")
        near, far = open_loopback(self.peer_id)
        self._nursery.start_soon(self._serve_loopback, far)
        return near

    async def _serve_loopback(self, stream: LoopbackStream) -> None:
        try:
            await self.serve(stream)
        except Exception:
            # As with a stream of the node: a bug ends its stream and nothing else.
            log.exception("a loopback session has a bug")
        finally:
            stream.end()

    def opened(self, session: PeerSession, hello: Hello) -> None:
        """Tell a new dialer what the lanes can do."""
        self._adverts.greet(session)

    def advertised(self, session: PeerSession, advert: Advert | LoadReport) -> None:
        """No effect: dialers advertise nothing."""

    def round_trip(self, session: PeerSession, seconds: float) -> None:
        """No effect: only the dialer routes by round trips, and measures its own."""

    # ---- requests ----

    def serve_call(self, call: ServerCall) -> None:
        """Have one request answered; `ended` is called at its end, whatever happens."""
        self._calls += 1
        machine = self.askers.machine(call)
        reader = Reader(call, self, arrived_at=trio.current_time(), machine=machine)
        try:
            self._begin(reader)
        except PunchError as error:
            self.ended(reader, self._outcomes.failure(call.request, error))

    def _begin(self, reader: Reader) -> None:
        call = reader.call
        request = call.request
        # Each value by itself was checked when it was read.
        check_combination(request)
        if request.command == "ping":
            self.ended(reader, self._outcomes.response(request, "success"))
        elif request.command == "capabilities":
            capability = self.askers.told(call, self.capability())
            self.ended(reader, self._outcomes.response(request, "success", capability=capability))
        else:
            call.left = reader.left
            self._recording(reader).join(reader)

    def _recording(self, reader: Reader) -> Recording:
        """The recording for *reader*: the one that is there already, or a new one."""
        call, now = reader.call, reader.arrived_at
        request = call.request
        recording = self._recordings.find(call.dialer, request, now=now)
        if recording is None:
            if self._draining:
                raise PeerRefused("shutting down")
            asker = self.askers.within(call, reader.machine)
            lane, offer = self.lanes.choose(request, asker.caps)
            recording = self._recordings.open(call.dialer, request, asker, deadline=reader.deadline)
            request = asker.caps.within(request)
            self._nursery.start_soon(self._make, lane, recording, request, offer, now)
        return recording

    async def _make(
        self,
        lane: RunningLane,
        recording: Recording,
        request: CommandRequest,
        offer: ModelOffer,
        arrived_at: float,
    ) -> None:
        """Have the answer made, in a task of its own: the session of its dialer may end first."""
        try:
            await lane.make(recording, request, offer, arrived_at=arrived_at)
        finally:
            self._recordings.finish(recording, now=trio.current_time())

    def follow(self, reader: Reader) -> None:
        """Pass an answer on to a reader that needs a task of its own."""
        self._nursery.start_soon(self._follow, reader)

    async def _follow(self, reader: Reader) -> None:
        recording, request, response = reader.recording, reader.call.request, None
        assert reader.scope is not None
        try:
            with reader.scope:
                response = await recording.follow(reader)
        except PunchError as error:
            response = self._outcomes.failure(request, error)
        if not reader.is_over:
            recording.leave(reader, comes_back=False)
            reader.end(response or self._outcomes.timeout(request))

    def ended(self, reader: Reader, response: CommandResponse | None) -> None:
        """Tell the dialer how its request ended, and count it; `None` if the dialer has left."""
        if response is None:
            self._cancelled += 1
        else:
            self._refused += response.status == "refused"
            reader.call.respond(self._as_told(response, reader))
        self._reports.served(reader.call, reader.machine, reader.arrived_at, response)
        self._calls -= 1
        if not self._calls:
            self._quiet.set()

    def _as_told(self, response: CommandResponse, reader: Reader) -> CommandResponse:
        """*response* with the load of now, and without what was sent in chunks already."""
        result = response.result
        if result is not None and reader.is_streaming:
            thought = "" if reader.recording.has_thoughts else result.reasoning
            result = attrs.evolve(result, text="", reasoning=thought)
        # A dialer of minor 0 knows of no lanes.
        asked = self.lanes if reader.call.minor >= 1 else ()
        lane = next((lane for lane in asked if lane.id == response.lane), None)
        load = self.load() if lane is None else lane.load()
        return response.told(result, load=load, lane=None if lane is None else lane.id)

    # ---- the end ----

    async def drain(self) -> None:
        """Refuse new requests, and wait for a bounded time until all others are answered."""
        self._draining = True
        with trio.move_on_after(DRAIN_SECONDS):
            async with trio.open_nursery() as nursery:
                for lane in self.lanes:
                    nursery.start_soon(lane.drain)
            # The lanes are done, but what they made may still be on its way to slow readers.
            while self._calls:
                self._quiet = trio.Event()
                await self._quiet.wait()

    async def leave(self) -> None:
        """Say goodbye to the dialers, and wait until that has reached them."""
        self._has_left = True
        self.askers.usage.say(trio.current_time(), at_once=True)
        sessions = self._adverts.sessions
        for session in tuple(sessions):
            session.close("bye", "shutting down")
        with trio.move_on_after(FAREWELL_SECONDS):
            while sessions:
                self._left = trio.Event()
                await self._left.wait()


@asynccontextmanager
async def open_executor(
    node: Node,
    backends: OneOrMore = (),
    *,
    namespace: str,
    incarnation: int,
    queue_limit: int = 16,
    strict: bool = False,
    calibrate: bool = True,
    machine: Machine | None = None,
    events: Bus | None = None,
    report_delay: float = DEFAULT_REPORT_DELAY_SECONDS,
    strangers: Caps = NO_CAPS,
    name: str | None = None,
    membership: Membership | None = None,
    welcome: Welcome = welcome_at_once,
    limits: Mapping[str, Caps] | None = None,
    wall: Callable[[], float] = time.time,
) -> AsyncIterator[Executor]:
    """Answer the requests that come to *node*, for as long as the context lasts.

    Args:
      node: Where requests come in.
      backends: One backend, or several, each a lane of its own.
      namespace: Dialers of any other namespace are turned away.
      incarnation: Grows each time the listener starts.
      queue_limit: Requests that may wait for a slot, by lane.
      strict: Refuse every request that a simulating backend would have to answer.
      calibrate: Time each real backend first; see `punch.listener._speeds`.
      machine: Measures the machine; `None` to advertise nothing of it.
      events: Where it publishes what it serves, and how its lanes are.
      report_delay: Seconds between a change of load and its report.
      strangers: What dialers of other owners may ask for.
      name: The machine's name for people; see `Capability.machine_name`.
      membership: Our membership, if the namespace is closed.
      limits: What single members may ask for, by the name of their machine or its identity; what
        is left out there is as for strangers, or for the owner.
      welcome: Waits until a dialer of a closed namespace may say who it is.
      wall: The time, in seconds of UTC since 1970, by which the hours of limits go.

    Raises:
      ConfigurationError: if a value makes no sense.
      BackendError: if calibration finds a backend unable to answer.

    """
    async with open_background() as nursery:
        executor = Executor(
            node,
            nursery,
            namespace=namespace,
            incarnation=incarnation,
            machine=machine,
            events=events,
            report_delay=report_delay,
            strangers=strangers,
            name=name,
            membership=membership,
            welcome=welcome,
            limits=limits,
            wall=wall,
        )
        for backend in each_of(backends):
            await executor.lanes.add(
                backend, queue_limit=queue_limit, strict=strict, calibrate=calibrate
            )
        nursery.start_soon(executor.advertise)
        if executor._door is not None:
            nursery.start_soon(executor._door.run)
        node.handle(PROTOCOL, executor.serve)
        yield executor
        await executor.leave()
