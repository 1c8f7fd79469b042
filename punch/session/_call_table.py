"""Keeps the calls of a session that are not over, and hands each message to the call it is about.

No I/O: what a call does with a message is its own affair, and writing is the outbox's.
"""

from __future__ import annotations

from ..exceptions import PeerError
from ..wire import (
    Chunk,
    Credit,
    Progress,
    Reasoning,
    Response,
    Started,
)
from ._calls import ClientCall, ServerCall

AboutCalls = Chunk | Reasoning | Progress | Started | Response | Credit
"""Messages about a call that there is already."""


class CallTable:
    """Calls by the id of their request. What comes for a call that is over is dropped."""

    def __init__(self) -> None:
        self.asked: dict[str, ClientCall] = {}
        """Calls of ours that we still want."""
        self.cancelled: dict[str, ClientCall] = {}
        """Calls of ours that we cancelled, until that is acknowledged."""
        self.served: dict[str, ServerCall] = {}
        """Calls that we answer."""

    def deliver(self, message: AboutCalls, charged: int) -> None:
        """Hand *message* to the call that it is about, if there still is one.

        Args:
          message: What came.
          charged: Bytes of the window that it takes, which the call returns as it is read.

        """
        match message:
            case Chunk() | Reasoning():
                if call := self.asked.get(message.request_id):
                    call.add(message, charged)
            case Progress() | Started():
                if call := self.asked.get(message.request_id):
                    call.add(message)
            case Response(response=response):
                if call := self.asked.pop(response.request_id, None):
                    call.add(response)
                elif call := self.cancelled.pop(response.request_id, None):
                    call.confirm(response.usage.completion_tokens)
            case Credit(request_id=request_id):
                if served := self.served.get(request_id):
                    served.caught_up()

    def abandon(self, call: ClientCall) -> bool:
        """Drop what still arrives of *call*; True if the peer must be told to stop."""
        request_id = call.request.request_id
        if self.asked.get(request_id) is not call:
            return False
        del self.asked[request_id]
        call.forget()
        self.cancelled[request_id] = call
        return True

    def fail(self, error: PeerError) -> None:
        """End all calls: the session is over, because of *error*."""
        calls = [*self.asked.values(), *self.cancelled.values()]
        served = self.served
        self.asked, self.cancelled, self.served = {}, {}, {}
        for call in calls:
            call.fail(error)
        for one in served.values():
            one.leave(unwanted=False)
