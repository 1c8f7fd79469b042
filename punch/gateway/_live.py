"""Keeps the records of requests under way, and publishes their changes and ends.

Reads the state of a request from its answers; headers, events and the bill are made from that.
Nothing is sent to the client from here.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from ..dialer import Answer
from ..events import (
    Bus,
    RequestChanged,
    RequestEnded,
    RequestRecord,
    RequestRefused,
    RequestStarted,
)
from ..routing import Decision, FailedAttempt
from ..wire import CommandResponse, Progress, Provenance, Segment, Usage, mark_of
from ._errors import dialect_of
from ._headers import as_many_as_fit, header_value, in_short, usage_of, where_from
from .keys._charging import believed_prompt, cost_of


class LiveRequests:
    """Publishes what becomes of each request, in order.

    Args:
      events: The bus; by default one without subscribers.

    """

    def __init__(self, events: Bus | None = None) -> None:
        self.events = Bus() if events is None else events
        """The bus on which requests are published."""
        self.under_way: set[RequestRecord] = set()
        """Requests that have started and not ended."""

    def works_at(self, mark: str) -> bool:
        """Whether the request that `mark_of` makes *mark* of is under way."""
        return any(mark_of(record.request_id) == mark for record in self.under_way)

    def start(self, record: RequestRecord) -> None:
        """Publish that *record* started, unless that was published."""
        # Endpoints start a request once it is understood, `end` the refused ones: once in all.
        if record in self.under_way or record.ended_at is not None:
            return
        self.under_way.add(record)
        if self.events.wants(RequestStarted):
            self.events.publish(RequestStarted(at=trio.current_time(), request=record))

    def change(self, record: RequestRecord) -> None:
        """Publish that *record* changed, if it is under way."""
        if record in self.under_way and self.events.wants(RequestChanged):
            self.events.publish(RequestChanged(at=trio.current_time(), request=record))

    def end(self, record: RequestRecord) -> None:
        """Publish that *record* is over, unless that was published."""
        if record.ended_at is not None:
            return
        self.start(record)
        self.under_way.discard(record)
        record.ended_at = now = trio.current_time()
        if self.events.wants(RequestEnded):
            self.events.publish(RequestEnded(at=now, request=record))

    def refuse(self, status: int) -> None:
        """Publish that a request was refused before it reached an endpoint."""
        if self.events.wants(RequestRefused):
            self.events.publish(RequestRefused(at=trio.current_time(), status=status))


class RequestAccount:
    """The state of one request and its answers, for its record, headers and bill.

    Args:
      record: Of the request; written here.
      live: Publishes the record's changes.
      answers: How many answers the request asks for.

    """

    def __init__(self, record: RequestRecord, live: LiveRequests, *, answers: int) -> None:
        self.record = record
        """Newest at `refresh`."""
        self.answers: dict[int, Answer] = {}
        """The answers that were asked for so far, by index."""
        self.responses: dict[int, CommandResponse] = {}
        """The responses of the answers that have ended, by index."""
        self._live = live
        self._is_single = answers == 1

    def publish(self) -> None:
        """Publish that the record changed."""
        self._live.change(self.record)

    def queued(self, ahead: int, seconds: float | None) -> None:
        """Note that the request waits in the gateway's own queue, and publish it."""
        record = self.record
        record.progress = Progress(
            request_id=record.request_id, state="queued", ahead=ahead, seconds=seconds
        )
        self.publish()

    def received(self, answer: Answer) -> None:
        """Count what is there of *answer*; publish the first text, and a peer that takes over."""
        record = self.record
        if self._is_single:
            record.tokens = answer.tokens
        else:
            record.tokens = sum(each.tokens for each in self.answers.values())
        if record.first_text_at is None:
            record.first_text_at = trio.current_time()
        elif answer.peer_id == record.peer_id or not self._is_single:
            # Answers side by side come from several peers at once, in turns: that is no change.
            return
        self.refresh()
        self.publish()

    def charge(self, index: int) -> None:
        """Add what the answer *index* has cost, ended or not, to the request's bill."""
        cost = cost_of(self.answers[index], self.responses.get(index))
        self.record.cost = self.record.cost.plus(cost)

    def refresh(self) -> None:
        """Bring the record up to date with the answers."""
        record = self.record
        decisions: tuple[Decision, ...] = ()
        attempts: tuple[FailedAttempt, ...] = ()
        segments: tuple[Segment, ...] = ()
        for answer in self.answers.values():
            decisions += answer.decisions
            attempts += answer.attempts
            segments += answer.segments
            record.progress = answer.progress or record.progress
            record.peer_id = answer.peer_id or record.peer_id
            record.provenance = answer.provenance or record.provenance
        record.decisions, record.attempts, record.segments = decisions, attempts, segments

    def close(self) -> None:
        """Bring the record up to date for the last time, with the tokens of all answers."""
        self.refresh()
        self.record.usage = usage_of(self.responses.values())

    def in_order(self) -> Sequence[CommandResponse]:
        """The responses, in the order in which they were asked for."""
        return [self.responses[index] for index in sorted(self.responses)]

    def model(self) -> str:
        """Name of the model that answers, as far as that is known."""
        provenance = self.record.provenance
        if provenance is not None and provenance.model is not None:
            return provenance.model
        return self.record.model or "auto"

    def prompt(self) -> Usage:
        """The tokens of the prompt, as far as its peer has counted them already."""
        answer = self.answers.get(0)
        return Usage() if answer is None else believed_prompt(answer)

    def headers(self, *, streamed: bool) -> list[tuple[bytes, bytes]]:
        """The ``X-`` headers; *streamed*: they leave before it is known which peers take part."""
        self.refresh()
        record = self.record
        found = {b"x-request-id": record.request_id}
        if dialect_of(record.endpoint) == "anthropic":
            found[b"request-id"] = record.request_id
        if record.peer_id is not None:
            found[b"x-punch-peer"] = record.peer_id
        if record.decisions:
            found[b"x-punch-decision"] = in_short(record.decisions[-1])
        elif self.responses:
            found[b"x-punch-decision"] = "replayed"
        # Headers often leave before the peer has said where its answer comes from. Then its claim
        # stands here: the answer must say the same later.
        provenance = record.provenance or self._expected()
        if provenance is not None:
            found[b"x-punch-provenance"] = where_from(provenance)
            if provenance.model not in (None, record.said):
                found[b"x-punch-model"] = provenance.model
        if record.taken:
            found[b"x-punch-taken"] = as_many_as_fit(record.taken)
        if self.responses and not streamed:
            found[b"x-punch-segments"] = str(len(record.segments))
        return [(name, header_value(value)) for name, value in found.items()]

    def _expected(self) -> Provenance | None:
        """Where the answer will come from, as its peer claims: it must say the same later."""
        record = self.record
        if record.peer_id is None or not record.decisions:
            return None
        decision = record.decisions[-1]
        candidate = decision.best_of(record.peer_id)
        if candidate is None:
            return None
        return Provenance(
            kind="simulated" if candidate.lane.simulated else "real",
            backend=candidate.lane.backend,
            model=candidate.offer.name,
            model_digest=candidate.offer.digest,
        )
