"""Makes the `CommandResponse` that ends a request, and decides the code of an exception in it."""

from __future__ import annotations

from traceback import format_tb
from typing import Any

import attrs

from .._logs import get_logger
from ..capability import PeerId
from ..exceptions import (
    BackendCrashed,
    BackendError,
    ContextTooLong,
    PeerFailed,
    PeerRefused,
    PeerSimulated,
    PunchError,
    RequestError,
)
from ..wire import CommandRequest, CommandResponse, Fault, Status, scrubbed

log = get_logger(__name__)

# What a `Fault` has room for, with some to spare for the bytes of one character.
MAX_MESSAGE_CHARACTERS = 4000

# The largest count that a peer reads.
MAX_TOKENS = 1 << 53


class Outcomes:
    """Makes the responses of one listener.

    Args:
      executor: The listener, as every response names it.

    """

    def __init__(self, executor: PeerId) -> None:
        self._executor = executor

    def response(self, request: CommandRequest, status: Status, **fields: Any) -> CommandResponse:
        """A response with what is the same in all of them; the executor adds the load."""
        return CommandResponse(
            request_id=request.request_id, status=status, executor=self._executor, **fields
        )

    def timeout(self, request: CommandRequest) -> CommandResponse:
        """The response to a request whose time ran out here."""
        fault = Fault(code="deadline", message="the time ran out on the listener")
        return self.response(request, "timeout", error=fault)

    def failure(
        self, request: CommandRequest, error: Exception, answer: str = ""
    ) -> CommandResponse:
        """The response for *error*. What that quotes of the prompt or *answer* is not logged."""
        request_id = request.request_id
        if isinstance(error, PeerRefused | PeerSimulated):
            return self.response(request, "refused", error=_fault(error, retryable=True))
        if isinstance(error, RequestError):
            return self.response(request, "error", error=_fault(error))
        if isinstance(error, BackendError):
            why = scrubbed(str(error), request, answer)
            log.warning("an answer failed", request_id=request_id, why=why)
            fault = attrs.evolve(
                _fault(error, retryable=True),
                code=PeerFailed.code,
                engine_died=isinstance(error, BackendCrashed) and error.engine_died,
                engine_restarts=isinstance(error, BackendCrashed) and error.engine_restarts,
            )
            return self.response(request, "error", error=fault)
        # A backend's bug ends its own answer, not the session and the other answers in it. Its text
        # may name files of this machine, so it stays in our log.
        name = type(error).__name__
        why = f"{name}: {scrubbed(str(error), request, answer)}"
        where = "".join(format_tb(error.__traceback__))
        log.error("a backend has a bug", request_id=request_id, why=why, where=where)
        message = f"a bug in the listener's backend ({name})"
        fault = Fault(code=PeerFailed.code, message=message, retryable=True)
        return self.response(request, "error", error=fault)


def _fault(error: PunchError, *, retryable: bool = False) -> Fault:
    counts = error if isinstance(error, ContextTooLong) else ContextTooLong
    return Fault(
        code=error.code,
        message=str(error)[:MAX_MESSAGE_CHARACTERS],
        retryable=retryable,
        retry_after=error.retry_after,
        param=error.param if isinstance(error, RequestError | PeerRefused) else None,
        prompt_tokens=_readable(counts.prompt_tokens),
        context_tokens=_readable(counts.context_tokens),
    )


def _readable(tokens: int | None) -> int | None:
    """A count as far as a peer can read it: a server may say any number."""
    return None if tokens is None or tokens > MAX_TOKENS else tokens
