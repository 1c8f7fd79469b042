"""The dialer's side of a request: asks, listens, fails over, continues, and tells it all."""

from ._answer import Answer
from ._dispatch import Dispatch
from ._hedging import Hedge
from ._router import Router, chat_request, new_request_id, open_router
from ._runs import Attribution, Runs
from .starting import Start, Startables

__all__ = [
    "Answer",
    "Attribution",
    "Dispatch",
    "Hedge",
    "Runs",
    "Router",
    "open_router",
    "Start",
    "Startables",
    "chat_request",
    "new_request_id",
]
