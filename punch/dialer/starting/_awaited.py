"""One request that waits for a start, and decides anew meanwhile."""

from __future__ import annotations

import trio

from ...exceptions import PeerFailed
from ...peers import Candidate
from ...routing import Decision, StartableOffer
from ...wire import Progress
from .._books import Books
from .._dispatch import Dispatch
from ._starter import Starter

# How often a request that waits looks whether another peer would be done earlier by now: a start
# takes many seconds, and a decision among a thousand peers some thousandths of one.
LOOK_SECONDS = 1.0

# The same once it has started, and only has to be heard of.
APPEARING_SECONDS = 0.25

# Requests that waited for one start ask one after another, as they came: so long apart, which is
# about a decision. The last of them does not wait longer for its turn than for the news.
TURN_SECONDS = 0.002


class AwaitedStart:
    """The start that one request waits for.

    Args:
      dispatch: What the answers of a dialer share.
      starter: Its starts.
      books: What is written down of the request.

    """

    def __init__(self, dispatch: Dispatch, starter: Starter, books: Books) -> None:
        self._dispatch = dispatch
        self._starter = starter
        self._books = books
        self._offer: StartableOffer | None = None
        self._candidate: Candidate | None = None
        self._since = 0.0

    async def wait(self, candidate: Candidate, decision: Decision, *, deadline: float) -> Progress:
        """Wait for what *candidate* starts, for as long as that needs no second thought.

        The very first time it is begun, and the decision noted. Returns what the request waits for.
        """
        start, now = decision.starts[candidate.id], trio.current_time()
        offer, request = start.offer, decision.request
        if self._offer is None or self._offer.id != offer.id:
            self.leave()
            self._offer, self._candidate, self._since = offer, candidate, now
            self._books.decided(decision)
        self._starter.wants(
            self._books,
            offer,
            prompt_tokens=request.prompt_tokens,
            output_tokens=request.output_tokens,
        )
        self._books.attempts.awaits = (
            f"{offer.offer.name} is being started, for about {start.seconds:.0f} s more"
        )
        appears = start.is_under_way and not start.seconds
        limit = now + (APPEARING_SECONDS if appears else LOOK_SECONDS)
        with trio.move_on_at(min(limit, deadline)):
            if appears:
                await self._dispatch.pool.change()
            else:
                await self._starter.change()
        if self._starter.runs(offer) or self._starter.why_failed(offer) is not None:
            await trio.sleep(min(start.waiting * TURN_SECONDS, APPEARING_SECONDS))
            self.leave()
        return Progress(
            request_id=self._books.request.request_id,
            state="loading",
            ahead=start.waiting or None,
            seconds=start.seconds,
        )

    def leave(self) -> None:
        """The request waits for it no more, however that came."""
        offer, candidate = self._offer, self._candidate
        if offer is None or candidate is None:
            return
        self._offer = self._candidate = None
        self._starter.leaves(self._books)
        self._books.attempts.awaits = None
        why = self._starter.why_failed(offer)
        outcome = "success" if self._starter.runs(offer) else "cancelled"
        self._books.log.awaited(
            candidate,
            outcome=outcome if why is None else PeerFailed.code,
            error=why,
            seconds=trio.current_time() - self._since,
        )
