"""Asking one peer: the decision is made on what is known now, and becomes a live attempt."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from ..exceptions import PeerError
from ..routing import MOST_PATIENCE, PATIENCE_FACTOR, Decision, Reason, StopAcrossPeers, Try
from ..wire import CommandRequest
from ._attempt import Attempt
from ._books import Books
from ._dispatch import Dispatch


class Asking:
    """Decides for one request, and asks.

    Args:
      dispatch: What the answers of a dialer share.
      books: What is written down of the request.
      stream: Whether its text is wanted as it is made.

    """

    def __init__(self, dispatch: Dispatch, books: Books, *, stream: bool) -> None:
        self._dispatch = dispatch
        self._books = books
        self._stream = stream

    def decide(
        self, request: CommandRequest, reason: Reason, but: Sequence[Attempt] = ()
    ) -> Decision:
        """Whom to ask *request*, but for the peers that were tried.

        Args:
          request: What is still to be asked.
          reason: Why a peer is asked now.
          but: Attempts that live: their peers are left out, and only one that is well would be
            better.

        """
        dispatch = self._dispatch
        tried = self._books.attempts.tried(dispatch.presence)
        return dispatch.decide(
            request,
            tried=tried | {attempt.peer_id for attempt in but},
            now=trio.current_time(),
            chat_template=self._books.delivered.chat_template,
            alternative=bool(but),
            reason=reason,
        )

    async def ask(
        self, step: Try, decision: Decision, request: CommandRequest, *, deadline: float
    ) -> Attempt | None:
        """Ask the peer of *step*; `None` if that failed, which is booked then."""
        dispatch, peer_id = self._dispatch, step.peer_id
        record, _ = decision.scored[peer_id]
        offer = record.capability.offer(request.model, request.model_digest)
        assert offer is not None, "it passed the filter for models"
        try:
            call = await dispatch.ask(peer_id, request, deadline, offer=offer.id)
        except PeerError as error:
            self._books.not_asked(record, offer.name, step.reason, error)
            return None
        begun, stops = request.continuation, request.sampling.stop
        patience = step.patience
        decode = decision.term(peer_id, "decode")
        if not self._stream and decode is not None:
            # Its first text is its last: the silence before it is as long as the answer.
            patience += min(PATIENCE_FACTOR * decode, MOST_PATIENCE)
        return Attempt(
            call,
            request=request,
            decision=decision,
            record=record,
            offer=offer,
            reason=step.reason,
            patience=patience,
            session_number=dispatch.sent(request, decision, peer_id, offer.name),
            stops=StopAcrossPeers(begun, stops) if begun and stops else None,
        )
