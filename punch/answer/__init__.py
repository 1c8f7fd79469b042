"""The dialer's side of a request: asks, listens, fails over, goes on, and tells it all."""

from ._answer import Answer
from ._dispatch import Dispatch, Hedge
from ._runs import Made, Runs

__all__ = ["Answer", "Dispatch", "Hedge", "Made", "Runs"]
