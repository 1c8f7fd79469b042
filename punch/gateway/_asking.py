"""Makes the `CommandRequest` of an HTTP request, for every dialect. No I/O.

Decides what all dialects share: ids of answers side by side, seeds, time limits, how often a peer
sends. The fields of a dialect are left to its endpoints.
"""

from __future__ import annotations

from typing import Any

import attrs

from ..wire import CommandRequest
from ._endpoint import RequestContext, Service
from .bodies import PunchOptions

# How often a peer sends what it has of an answer whose client reads nothing before its end: twice
# as much of it may have to be made again when the peer dies.
GATHER_SECONDS = 0.1


def side_by_side(request: CommandRequest, answers: int) -> tuple[CommandRequest, ...]:
    """*answers* requests for as many answers; with a seed each has the next one."""
    if answers == 1:
        return (request,)
    found = []
    for index in range(answers):
        sampling = request.sampling
        if sampling.seed is not None:
            # The same seed would give the same answer again.
            sampling = attrs.evolve(sampling, seed=sampling.seed + index)
        found.append(
            attrs.evolve(request, request_id=numbered(request.request_id, index), sampling=sampling)
        )
    return tuple(found)


def numbered(request_id: str, index: int) -> str:
    """The id of one answer of several: ``ID``, ``ID#1``, ``ID#2``."""
    return f"{request_id}#{index}" if index else request_id


def command_request(
    service: Service,
    context: RequestContext,
    wishes: PunchOptions,
    *,
    streamed: bool = False,
    **fields: Any,
) -> CommandRequest:
    """A request with what every request has; *streamed* says whether its client reads along.

    It is streamed from the peer even where the client wants the answer whole: what a peer had
    delivered when it died need not be made again.
    """
    return CommandRequest(
        request_id=context.request_id,
        model=context.asked,
        hints=context.hints,
        strict=service.strict or bool(wishes.strict),
        timeout=wishes.timeout or service.timeout,
        stream_interval=0.0 if streamed else GATHER_SECONDS,
        priority=wishes.priority,
        continuable=wishes.continuation,
        **fields,
    )
