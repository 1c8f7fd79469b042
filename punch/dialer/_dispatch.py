"""What the answers of one dialer share: whom there is to ask, and what was learned of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from random import Random
from typing import Any

import trio

from .._alarms import Alarms
from ..capability import PeerId
from ..discovery import Directory, SessionPool
from ..events import Attempted, Bus
from ..exceptions import (
    CONNECTION_LOST,
    NoPeerAvailable,
    PeerError,
    PeerFailed,
    PeerRefused,
    PeerTimeout,
    PeerUnreachable,
    PunchError,
)
from ..peers import MAX_PEERS, Candidate, PeerRecord, PeerTable, Sample, is_far_slower
from ..routing import (
    HEDGE_RESERVE,
    Budget,
    Decision,
    LearnedState,
    Policy,
    Presence,
    Reason,
    Startable,
)
from ..routing.names import Found, ModelNames
from ..session import ClientCall
from ..wire import Addressed, CommandRequest, CommandResponse
from ._hedging import Hedge
from ._probing import Prober
from .starting import Starter

# How long a first request waits for the namespace to be known: a few round trips, and the
# dials of peers that are gone.
SETTLE_SECONDS = 5.0

# What it waits beyond that for any word of a bootstrap: a dial takes as long, and its end says what
# was met there.
WORD_SECONDS = 3.0

# How long the same id waits for an earlier call of its own to be over: a listener has 100 ms to
# stop, and the word has to travel.
CANCEL_SECONDS = 2.0

# The shortest time that a request can be given, in seconds.
MIN_TIMEOUT_SECONDS = 1e-3

# How long a cancelled peer has to say how far it got; it has 100 ms to stop.
CONFIRM_SECONDS = 5.0


class Meeting:
    """The peers of the namespace that were met, and whether there was the time to meet all.

    Args:
      membership: Our place in the namespace.
      pool: Sessions with the listeners.

    """

    def __init__(self, membership: Directory, pool: SessionPool) -> None:
        self._membership = membership
        self._pool = pool
        self._began = trio.current_time()

    def is_new(self) -> bool:
        """Whether there may be peers that nobody had the time to meet."""
        return trio.current_time() < self._began + SETTLE_SECONDS

    async def settle(self, deadline: float) -> None:
        """Wait until somebody is known to be there, and all of them were heard or failed to be.

        Raises:
          NetworkError: if nobody was ever met, and why.

        """
        membership, pool = self._membership, self._pool
        limit = min(deadline, trio.current_time() + SETTLE_SECONDS)
        joined, refused = membership.joined, membership.refused
        with trio.move_on_at(limit):
            while not (refused.is_set() or (joined.is_set() and pool.is_settled())):
                await pool.change()
        with trio.move_on_at(min(deadline, limit + WORD_SECONDS)):
            while not joined.is_set() and membership.trouble is None:
                await pool.change()
        if not joined.is_set() and membership.trouble is not None:
            raise membership.trouble

    def presence(self, peer_id: PeerId) -> Presence | None:
        """How a peer is there now, if it is."""
        record, session = self._pool.table.get(peer_id), self._pool.session(peer_id)
        if record is None or session is None:
            return None
        return Presence(incarnation=record.incarnation, session=session)

    def with_unreachable(self, error: PunchError) -> PunchError:
        """The same error, with the listeners in it that could not even be connected."""
        if type(error) is not NoPeerAvailable:
            return error
        reasons = {**self._pool.unreachable(), **error.reasons}
        if reasons.keys() == error.reasons.keys():
            return error
        return NoPeerAvailable("no listener could answer", reasons, retry_after=error.retry_after)


class PromptsSent:
    """The prompts that one dialer has sent, and how long they may hold up the answers before them.

    A backend with several slots reads a prompt before it goes on with an answer.
    """

    def __init__(self, table: PeerTable) -> None:
        self._table = table
        self._tokens: Counter[str] = Counter()

    def sent(self, candidate: Candidate, tokens: int) -> None:
        """A prompt is on its way."""
        if len(self._tokens) > MAX_PEERS:
            self._tokens.clear()
        self._tokens[candidate.id] += tokens

    def held_up(
        self, candidate: Candidate, *, seconds: float | None, tokens: int
    ) -> Callable[[], float]:
        """Tells for how many seconds its lane may have read the prompts that it got since now.

        A prompt of so many *tokens* takes it so many *seconds*, as predicted.
        """
        if not seconds or candidate.load.slots < 2:
            return float
        seconds /= max(1, tokens)
        before = self._tokens[candidate.id]

        def held_up() -> float:
            record = self._table.get(candidate.peer_id)
            lanes = () if record is None else record.capability.lanes
            # Those of other dialers are in what it says of its queue.
            others = sum(
                lane.load.queued_prompt_tokens for lane in lanes if lane.id == candidate.lane.id
            )
            return seconds * max(others, self._tokens[candidate.id] - before)

        return held_up


class Dispatch:
    """See the module.

    Args:
      pool: Sessions with the listeners, and the table they feed.
      membership: Our place in the namespace.
      policy: How to choose.
      rng: Draws among equals.
      nursery: Where the ends of cancelled calls are waited for.
      names: What people call the models.
      hedge: When to ask a second peer; `None` for never.
      events: Where decisions, attempts and ends are published.
      starter: What could be started, if there is anything.

    """

    def __init__(
        self,
        pool: SessionPool,
        membership: Directory,
        *,
        policy: Policy,
        rng: Random,
        nursery: trio.Nursery,
        names: ModelNames | None = None,
        hedge: Hedge | None = None,
        events: Bus,
        starter: Starter | None = None,
    ) -> None:
        self.pool = pool
        self.table = pool.table
        self.membership = membership
        self.policy = policy
        self.names = ModelNames() if names is None else names
        self.hedge = hedge
        self.events = events
        self.starter = starter
        self.retries = Budget()
        share = hedge.share if hedge else 0.0
        self.hedges = Budget(share=share, reserve=HEDGE_RESERVE, per_second=0.0)
        self.learned = LearnedState(rng)
        self.alarms = Alarms(nursery)
        self.prober = Prober(pool.table, self.ask, nursery)
        self._last_faults: dict[PeerId, float] = {}
        self.prompts = PromptsSent(pool.table)
        self._nursery, self._rng = nursery, rng
        self._serial, self.has_simulated = 0, False
        self.meeting = Meeting(membership, pool)

    def decide(
        self,
        request: CommandRequest,
        *,
        tried: frozenset[str],
        now: float,
        reason: Reason = "first",
        waiter: Hashable = None,
        **known: Any,
    ) -> Decision:
        """Whom to ask, but for those that were *tried*.

        Args:
          request: What to ask; one with a `continuation` goes on with a begun answer.
          tried: Ids of candidates and of peers not to ask.
          now: The current time, in seconds of trio's clock.
          reason: Why a peer is asked.
          waiter: What stands for the request in `Starter.wants`.
          known: Further fields of a `RouteRequest`.

        """
        startable: Sequence[Startable] = ()
        if self.starter is not None and not known.get("alternative"):
            # Nothing is started for a request that a peer works on already. What has just started
            # is believed by this look, so the peers are looked at after it.
            startable = self.starter.look(now=now, waiter=waiter)
        peers = self.table.snapshot()
        self.learned.guess_length(request, peers, alike=known.get("alike"))
        route = self.learned.route_request(
            request,
            now=now,
            tried=tried,
            serial=self._serial,
            continuing=request.continuation is not None,
            **known,
        )
        self._serial += not tried
        return self.policy.decide(
            route, peers, now=now, rng=self._rng, reason=reason, startable=startable
        )

    def known(self) -> Sequence[PeerRecord]:
        """The peers that are there, and those that could be started as if they were."""
        peers = self.table.snapshot()
        return peers if self.starter is None else (*peers, *self.starter.records())

    def meaning(self, request: CommandRequest) -> Found:
        """The model that *request* asks for by its name, if that is one of those on offer."""
        self.names.look(self.known())
        return self.names.asked_for(request)

    async def ask(
        self, candidate: Candidate, request: CommandRequest, deadline: float
    ) -> ClientCall:
        """Send *request*, which is wanted until *deadline*, for the offer of *candidate*.

        Raises:
          PeerError: if that cannot be done.

        """
        peer_id = candidate.peer_id
        session = self.pool.session(peer_id)
        if session is None:
            raise PeerUnreachable(CONNECTION_LOST, peer_id=peer_id, why="lost")
        if (before := session.cancelling(request.request_id)) is not None:
            with trio.move_on_after(CANCEL_SECONDS):
                await before.confirmed()
            if session.cancelling(request.request_id) is not None:
                raise PeerTimeout(
                    "has not stopped an earlier request with this id", peer_id=peer_id
                )
        timeout = max(deadline - trio.current_time(), MIN_TIMEOUT_SECONDS)
        # A peer that names its offers knows the field, and serves the one that was chosen. Its
        # name for the model may be another than the caller's.
        model = None if request.model is None else candidate.offer.name
        offer = candidate.offer.id
        return session.ask(request, Addressed(request, timeout=timeout, offer=offer, model=model))

    # ---- what is learned ----

    def sent(
        self, request: CommandRequest, decision: Decision, candidate: Candidate, *, now: float
    ) -> int:
        """A request is on its way; the peer's session in the table, for `ended`."""
        route = decision.request
        self.learned.sent(request, candidate.id, now=now)
        prompt_tokens = max(0, route.prompt_tokens - route.cached_tokens.get(candidate.id, 0))
        self.prompts.sent(candidate, prompt_tokens)
        return self.table.sent(
            candidate.peer_id,
            offer=candidate.offer.key,
            lane=candidate.lane.id,
            prompt_tokens=prompt_tokens,
            output_tokens=route.output_tokens,
            now=now,
        )

    def ended(self, candidate: Candidate, *, session_number: int) -> None:
        """A request is no longer there, however it ended."""
        self.table.ended(
            candidate.peer_id,
            offer=candidate.offer.key,
            lane=candidate.lane.id,
            session_number=session_number,
        )

    def reported(self, candidate: Candidate, response: CommandResponse) -> None:
        """Take the load that rides on a response: that of the lane which answered."""
        if response.load is not None:
            self.table.reported(candidate.peer_id, response.load, lane=response.lane)

    def failed(self, candidate: Candidate, error: PeerError, *, asked_at: float) -> None:
        """Learn from an attempt that failed, of a request sent at *asked_at*."""
        now, retry_after = trio.current_time(), error.retry_after
        peer_id, lane = candidate.peer_id, candidate.lane.id
        if isinstance(error, PeerRefused):
            self.table.refused(peer_id, lane=lane, now=now, retry_after=retry_after)
            return
        if self._last_faults.get(peer_id, -math.inf) < asked_at:
            # What was in flight when a peer failed fails with it: one fault, and one payment.
            self.retries.withdraw(now)
        if len(self._last_faults) > MAX_PEERS:
            self._last_faults.clear()
        self._last_faults[peer_id] = now
        lost = isinstance(error, PeerUnreachable)
        if lost or isinstance(error, PeerTimeout):
            self.learned.lost(peer_id)
        key = None if lost else candidate.offer.key
        died = isinstance(error, PeerFailed) and error.engine_died
        self.table.failed(peer_id, offer=key, now=now, retry_after=retry_after, engine_died=died)
        self.prober.look_at(peer_id)

    def doubted(self, candidate: Candidate, weight: float) -> None:
        """Learn what counts against a candidate in part: *weight* is a share of a fault."""
        now, key = trio.current_time(), candidate.offer.key
        self.table.doubted(candidate.peer_id, offer=key, weight=weight, now=now)
        self.prober.look_at(candidate.peer_id)

    def answered(
        self,
        request: CommandRequest,
        candidate: Candidate,
        response: CommandResponse,
        *,
        session_number: int,
        text: str,
        sample: Sample,
        now: float,
    ) -> None:
        """Learn from what one peer said of its part of an answer, which is no longer there.

        Args:
          request: What it was asked.
          candidate: What it was sent to.
          response: What it said.
          session_number: The peer's session in the table.
          text: Its part of the answer.
          sample: What it took.
          now: The current time, in seconds of trio's clock.

        """
        made_by, offer = response.provenance, candidate.offer
        model = None if made_by is None else made_by.model
        rates = self.table.answered(
            candidate.peer_id,
            model if model is None or offer.id is None else offer.id,
            offer=offer.key,
            lane=candidate.lane.id,
            session_number=session_number,
            load=response.load,
            load_lane=response.lane,
            sample=sample,
        )
        if model is None:
            return
        if is_far_slower(rates.decode, offer.decode_rate):
            self.prober.look_at(candidate.peer_id)
        self.learned.answered(
            request,
            candidate.id,
            text=text,
            usage=response.usage,
            cut=response.result is not None and response.result.finish_reason == "length",
            now=now,
        )

    def when_stopped(self, call: ClientCall, then: Callable[[int | None], None]) -> None:
        """Call *then* with the tokens a cancelled call had made, once its peer has said so."""
        if self.events.wants(Attempted):
            self._nursery.start_soon(self._confirm, call, then)

    async def _confirm(self, call: ClientCall, then: Callable[[int | None], None]) -> None:
        with trio.move_on_after(CONFIRM_SECONDS):
            await call.confirmed()
        then(call.produced)

    def began(self, now: float) -> None:
        """A request was asked for the first time: it earns further tries for all."""
        self.retries.deposit(now)
        if self.hedge is not None:
            self.hedges.deposit(now)
