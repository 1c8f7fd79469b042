# Finding out whether an offer is well again, without the request of anybody who waits for it.
#
# Rule 1: an offer that failed several times in a row gets no request of a caller while another can
# answer. It gets a short one of our own each time that its breaker has cooled; one that failed less
# often, if no caller's request has found out soon.
#
# Rule 2: what is short is answered by many that would fail at more. So an answer does not close the
# breaker of those that failed often: it lets one request of a caller through, and that decides.
#
# Rule 3: an offer that was seen to be far slower than it claims is timed anew from time to time,
# since nobody asks it any more.
"""Asks offers that failed, or are far slower than they claim, whether they are well again."""

from __future__ import annotations

import math
import uuid
from collections.abc import Awaitable, Callable

import attrs
import trio

from .._logs import get_logger
from ..capability import PeerId
from ..exceptions import PeerError, PeerRefused, PunchError, RequestError
from ..peers import FAR_FACTOR, Candidate, PeerTable, is_far_slower
from ..session import ClientCall
from ..wire import ChatMessage, CommandRequest, CommandResponse, Sampling
from ._verdict import check_response

log = get_logger(__name__)

# How often it is looked whether a breaker has cooled.
LOOK_SECONDS = 1.0

# A breaker that few faults have opened is left to the next caller's request for so long.
CALLERS_SECONDS = 5.0

# An offer that is slower than it claims is timed this often.
TIMING_SECONDS = 30.0

# Tokens that are asked for, and the text that makes a model say as many.
PROBE_TOKENS = 16
PROBE_TEXT = "Count from one to twenty."

# Seconds that an answer to that may take: several times what the offer claims, within these.
MIN_PROBE_SECONDS = 6.0
MAX_PROBE_SECONDS = 60.0

# Below the requests of everybody, in any queue.
PROBE_PRIORITY = -100

# Probes under way at a time.
MAX_PROBES = 8

Ask = Callable[[Candidate, CommandRequest, float], Awaitable[ClientCall]]


class Prober:
    """Sees to the offers of one dialer that are not well.

    Args:
      table: What is known of the peers.
      ask: Sends a request to a candidate, until a deadline; raises `PeerError`.
      nursery: Where probes run.

    """

    def __init__(self, table: PeerTable, ask: Ask, nursery: trio.Nursery) -> None:
        self._table = table
        self._ask = ask
        self._nursery = nursery
        self._suspects: set[PeerId] = set()
        self._under_way: set[tuple[PeerId, str]] = set()
        self._timed_at: dict[tuple[PeerId, str], float] = {}
        self._is_running = False

    def look_at(self, peer_id: PeerId) -> None:
        """Something of this peer went wrong, or slowly."""
        self._suspects.add(peer_id)
        if not self._is_running:
            self._is_running = True
            self._nursery.start_soon(self._run)

    async def _run(self) -> None:
        while self._suspects:
            for peer_id in tuple(self._suspects):
                if not self._see_to(peer_id):
                    self._suspects.discard(peer_id)
            await trio.sleep(LOOK_SECONDS)
        self._is_running = False

    def _see_to(self, peer_id: PeerId) -> bool:
        """Probe the offers of a peer that are due; false if there is no need to look again."""
        record, now = self._table.get(peer_id), trio.current_time()
        if record is None:
            # What is remembered of one that left is looked at when it fails again.
            return False
        is_needed = False
        for offer in record.capability.models:
            key = (peer_id, offer.key)
            breaker = record.breaker(offer.key)
            is_slow = is_far_slower(record.rates_of(offer.key).decode, offer.decode_rate)
            is_needed |= breaker.failures > 0 or is_slow
            due = math.inf
            if breaker.failures and not breaker.cleared and not breaker.probing:
                due = breaker.until if breaker.is_out else breaker.until + CALLERS_SECONDS
            elif is_slow and not breaker.failures:
                due = self._timed_at.setdefault(key, now) + TIMING_SECONDS
            if now < due or key in self._under_way or len(self._under_way) >= MAX_PROBES:
                continue
            found = record.candidates(offer.name, offer.digest, offer.id)
            if found and found[0].is_offered and not found[0].load.draining:
                self._under_way.add(key)
                self._nursery.start_soon(self._probe, found[0])
        return is_needed

    async def _probe(self, candidate: Candidate) -> None:
        key = (candidate.peer_id, candidate.offer.key)
        try:
            await self._find_out(candidate)
        finally:
            self._under_way.discard(key)
            self._timed_at[key] = trio.current_time()
            if len(self._timed_at) > 1024:
                del self._timed_at[next(iter(self._timed_at))]

    async def _find_out(self, candidate: Candidate) -> None:
        """Ask, and note what that says of the offer."""
        table, peer_id, offer = self._table, candidate.peer_id, candidate.offer
        began = trio.current_time()
        seconds = _allowed(candidate)
        call: ClientCall | None = None
        response: CommandResponse | None = None
        try:
            with trio.move_on_after(seconds):
                call = await self._ask(candidate, _request_for(candidate), began + seconds)
                while not isinstance(part := await call.receive(), CommandResponse):
                    pass
                response = part
                check_response(response, request=call.request, candidate=candidate, before=None)
        except PeerRefused:
            # Full, or not for this: that says nothing of what it does with others.
            table.spared(peer_id, offer.key, now=trio.current_time())
            return
        except (PeerError, RequestError) as error:
            self._note(candidate, error)
            return
        finally:
            if call is not None:
                call.cancel()
        if response is None:
            self._note(candidate, None)
            return
        took = trio.current_time() - began
        table.probed(peer_id, offer.key, tokens=response.usage.completion_tokens, seconds=took)
        log.info("an offer answered again", peer=peer_id, offer=offer.key, seconds=round(took, 3))

    def _note(self, candidate: Candidate, error: PunchError | None) -> None:
        """It is not well: its breaker opens for longer."""
        peer_id, key = candidate.peer_id, candidate.offer.key
        record = self._table.get(peer_id)
        if record is not None and record.breaker(key).failures:
            self._table.failed(peer_id, offer=key, now=trio.current_time())
        code = "silent" if error is None else error.code
        log.info("an offer is still not well", peer=peer_id, offer=key, why=code)


def _allowed(candidate: Candidate) -> float:
    """Seconds that an answer to a probe may take."""
    claimed = candidate.offer.decode_rate
    due = MAX_PROBE_SECONDS if not claimed else FAR_FACTOR * PROBE_TOKENS / claimed
    return min(max(MIN_PROBE_SECONDS, due), MAX_PROBE_SECONDS)


def _request_for(candidate: Candidate) -> CommandRequest:
    """A short request that the offer can answer."""
    features = candidate.offer.features
    request = CommandRequest(
        request_id=f"probe-{uuid.uuid4().hex}",
        command="chat",
        model=candidate.offer.name,
        messages=(ChatMessage(role="user", content=PROBE_TEXT),),
        sampling=Sampling(max_tokens=PROBE_TOKENS),
        stream=False,
        priority=PROBE_PRIORITY,
        continuable=False,
    )
    if "chat" in features:
        return request
    if "complete" in features:
        return attrs.evolve(request, command="complete", messages=(), prompt=PROBE_TEXT)
    return attrs.evolve(
        request, command="embed", messages=(), inputs=(PROBE_TEXT,), sampling=Sampling()
    )
