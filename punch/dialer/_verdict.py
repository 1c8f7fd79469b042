"""What a dialer accepts from a peer, and what it makes of a response that is none."""

from __future__ import annotations

from ..capability import ModelOffer, PeerId
from ..exceptions import (
    AnswerUnfit,
    ContextTooLong,
    InvalidRequest,
    OfferUnavailable,
    PeerError,
    PeerFailed,
    PeerRefused,
    PeerSimulated,
    PeerUnable,
    PunchError,
    RequestCancelled,
    RequestConflict,
    RequestError,
)
from ..peers import Candidate
from ..wire import CommandRequest, CommandResponse, Completion, Provenance, broken_rule, quoted

_ERRORS: dict[str, type[RequestError] | type[PeerError]] = {
    error.code: error
    for error in (
        InvalidRequest,
        ContextTooLong,
        RequestConflict,
        RequestCancelled,
        PeerRefused,
        OfferUnavailable,
        PeerUnable,
        PeerSimulated,
        PeerFailed,
    )
}


def check_provenance(
    provenance: Provenance,
    *,
    request: CommandRequest,
    candidate: Candidate,
    before: Provenance | None,
) -> None:
    """Refuse an answer that is not what was asked for, or not what it claims.

    Args:
      provenance: What the peer says of its answer.
      request: What this peer was asked.
      candidate: What it was chosen for.
      before: What it said of the same answer earlier.

    Raises:
      PeerSimulated: if it is simulated and must not be, or called real and is not.
      PeerFailed: if it comes from another model than was agreed on.

    """
    name = candidate.peer_id
    # The candidate may have the file that is asked for under a name of its own.
    agreed = (request.model, candidate.offer.name)
    if provenance.kind == "real" and (candidate.lane.simulated or provenance.backend == "mock"):
        raise PeerSimulated("calls the answer of a mock real", peer_id=name)
    if request.strict and provenance.kind != "real":
        raise PeerSimulated("answers with simulated inference", peer_id=name)
    offer: ModelOffer | None = candidate.offer
    if candidate.offer.id is None:
        # A peer of minor 0 cannot be told which of its offers is meant.
        offer = candidate.peer.capability.offer(provenance.model)
    if (
        offer is None
        or offer.name != provenance.model
        or (request.model is not None and provenance.model not in agreed)
    ):
        raise PeerFailed(f"answers with {provenance.model}, which was not agreed on", peer_id=name)
    if offer.digest != provenance.model_digest:
        raise PeerFailed(f"answers with another file than the {offer.name} it offers", peer_id=name)
    wanted = request.model_digest
    if wanted is not None and provenance.model_digest != wanted:
        raise PeerFailed(
            f"answers with model {provenance.model_digest}, not {wanted}", peer_id=name
        )
    if before is not None and provenance != before:
        raise PeerFailed("changed where its answer comes from", peer_id=name)


def check_response(
    response: CommandResponse,
    *,
    request: CommandRequest,
    candidate: Candidate,
    before: Provenance | None,
) -> None:
    """Refuse a peer's last word, if it is no success or is not what was asked for.

    Args:
      response: What it says.
      request: What it was asked.
      candidate: What it was chosen for.
      before: Where the answer comes from, as it said earlier.

    Raises:
      PunchError: what went wrong.

    """
    peer_id = candidate.peer_id
    if response.executor != peer_id:
        raise PeerFailed(f"answers in the name of {response.executor}", peer_id=peer_id)
    if response.status != "success":
        raise _error_in(response, peer_id)
    if request.command in ("chat", "complete", "embed", "count"):
        if response.provenance is None:
            raise PeerFailed("does not say where its answer comes from", peer_id=peer_id)
        check_provenance(response.provenance, request=request, candidate=candidate, before=before)
    result = response.result
    if result is not None and result.tool_calls and not request.tools:
        raise PeerFailed("calls tools, and was given none", peer_id=peer_id)
    if result is not None and result.logprobs and request.logprobs is None:
        raise PeerFailed("sends log-probabilities that nobody asked for", peer_id=peer_id)


def check_fit(request: CommandRequest, result: Completion, text: str, *, peer_id: PeerId) -> None:
    """Refuse a whole answer that breaks a rule of the schema it was asked to fit.

    What was cut off fits nothing, such as the last call, and its finish reason says so. A call that
    the model made of its own will is the caller's to judge.

    Raises:
      AnswerUnfit: naming the rule, and where it is broken.

    """
    if result.tool_calls:
        if request.tool_choice in (None, "auto", "none"):
            return
        schemas = {tool.name: tool.parameters for tool in request.tools}
        is_cut = result.finish_reason == "length"
        for call in result.tool_calls[:-1] if is_cut else result.tool_calls:
            rule = broken_rule(schemas.get(call.name, "{}"), call.arguments)
            if rule is not None:
                what = f"the arguments of its call of {call.name} do not fit: {rule}"
                raise AnswerUnfit(what, peer_id=peer_id)
    elif request.response_schema is not None and result.finish_reason == "stop":
        rule = broken_rule(request.response_schema, text)
        # A stop sequence ends an answer anywhere, and that is what was asked for.
        if rule is not None and not request.sampling.stop:
            raise AnswerUnfit(f"its answer does not fit response_schema: {rule}", peer_id=peer_id)


def _error_in(response: CommandResponse, peer: PeerId) -> PunchError:
    """What a response that is no success says went wrong, as an error of ours."""
    if response.status == "cancelled":
        return PeerFailed("stopped on its own", peer_id=peer)
    fault = response.error
    if fault is None:
        return PeerFailed(f"ended with {response.status} and no reason", peer_id=peer)
    words = quoted(fault.message)
    kind = _ERRORS.get(fault.code, PeerFailed if fault.retryable else InvalidRequest)
    if issubclass(kind, PeerError) != fault.retryable:
        kind = PeerFailed if fault.retryable else InvalidRequest
    if fault.engine_died or (fault.engine_restarts and fault.retryable):
        return PeerFailed(
            words,
            peer_id=peer,
            retry_after=fault.retry_after,
            engine_died=fault.engine_died,
            engine_restarts=not fault.engine_died,
        )
    if issubclass(kind, PeerRefused):
        return kind(words, peer_id=peer, retry_after=fault.retry_after, param=fault.param)
    if issubclass(kind, PeerError):
        return kind(words, peer_id=peer, retry_after=fault.retry_after)
    if issubclass(kind, ContextTooLong):
        return ContextTooLong.of(words, fault.prompt_tokens, fault.context_tokens)
    # The peer's words stay its words: what it calls the field is in them, and in `param`.
    return kind(words, param=fault.param, retry_after=fault.retry_after)
