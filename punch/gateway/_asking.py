"""Makes the `CommandRequest` of an HTTP request, for every dialect. No I/O.

Decides what all dialects share: ids of answers side by side, seeds, time limits, how often a peer
sends. The fields of a dialect are left to its endpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from ..peers import PeerRecord
from ..wire import MAX_PICTURE_BYTES, CommandRequest
from ._endpoint import RequestContext, Service
from ._errors import Refusal
from ._offered import MAX_NAMED_MODELS, on_offer
from .bodies import PunchOptions, with_wishes

# How often a peer sends what it has of an answer whose client reads nothing before its end: twice
# as much of it may have to be made again when the peer dies.
GATHER_SECONDS = 0.1

IMAGE = "image"
"""The feature of an offer that takes pictures, and the type of a part that is one."""


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

    Raises:
      Refusal: if its pictures are too many bytes, or its model sees none.

    """
    request = CommandRequest(
        request_id=context.request_id,
        model=context.asked,
        hints=with_wishes(context.hints, wishes),
        strict=service.strict or bool(wishes.strict),
        timeout=wishes.timeout or service.timeout,
        stream_interval=0.0 if streamed else GATHER_SECONDS,
        priority=wishes.priority,
        continuable=wishes.continuation,
        **fields,
    )
    if IMAGE in request.part_types:
        _check_pictures(request)
        _check_sight(service.router.offering, context.model)
    return request


def _check_pictures(request: CommandRequest) -> None:
    parts = [part for message in request.messages for part in message.parts]
    size = sum(len(part.data or b"") for part in parts)
    if size > MAX_PICTURE_BYTES:
        raise Refusal(
            status=413,
            message=f"the pictures have {size} bytes; at most {MAX_PICTURE_BYTES} "
            f"({MAX_PICTURE_BYTES >> 20} MiB) are taken in one request: send fewer or smaller ones",
            code="images_too_large",
            param="messages",
        )


def _check_sight(peers: Sequence[PeerRecord], model: str | None) -> None:
    """Refuse pictures for a model that sees none, and say which would see them."""
    offered = on_offer(peers)
    seeing = [
        name
        for name, each in offered.items()
        if any(IMAGE in offer.features for _, offer in each.offers)
    ]
    # Of what is not on offer, something else is wrong, or it is not known yet.
    if not offered or model in seeing or (model is None and seeing):
        return
    if model is not None and model not in offered:
        return
    names = ", ".join(seeing[:MAX_NAMED_MODELS])
    if model is None:
        words = "no model on offer takes pictures"
    else:
        others = f"these on offer do: {names}" if names else "no other model on offer does"
        words = f"{model!r} does not take pictures; {others}"
    raise Refusal(
        status=400,
        message=words,
        code="invalid_value",
        param="messages",
    )
