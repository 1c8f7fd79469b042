"""Everything punch raises on purpose, sorted by whose fault it is.

* PunchError
  x ConfigurationError          the operator's: a setting is missing or wrong
  x RequestError                the caller's: no other peer would do better
    + InvalidRequest
    + ContextTooLong
    + RequestConflict
    + RequestCancelled
    + Unauthorized
    + ModelForbidden
    + QuotaExceeded
    + EnginesDied
  x NoPeerAvailable             nobody's in particular: every peer was tried or ruled out
    + UnknownModel
    + NoRealPeer
  x AnswerInterrupted           nobody's: an answer had begun, and nobody could go on with it
  x DeadlineExceeded            the caller's time ran out
  x PeerError                   a peer's: the next one may do better
    + PeerUnreachable
    + PeerTimeout
    + PeerRefused
      + OfferUnavailable
      + PeerUnable
    + PeerFailed
    + AnswerUnfit
    + PeerSimulated
  x ProtocolError
    + LocalProtocolError        ours: a bug on this side
    + RemoteProtocolError       the peer's: end the session
  x BackendError                our own backend's
    + BackendCrashed
    + GenerationFailed
  x NetworkError                the network's, or this machine's part of it
    + AddressUnavailable
    + IdentityChanged
    + NotPermitted
    + BootstrapFull
  x ModelFileError              a model file is not what it should be
  x NotRunning                  no program of punch runs here that could be told

Every class has a `code`, the word for it on the wire, in logs and in documents. What a program
wants to know of an error is an attribute of it, such as `param`. The text is for people alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class PunchError(Exception):
    """Base class for everything this library raises on purpose.

    What is known of an error is given by the names of its class's attributes, which say what each
    of them means; all but the message by keyword.

    Args:
      message: What happened, in a sentence for people; of a `PeerError` without the peer's name.
      retry_after: Seconds after which asking again makes sense; `None` if nobody knows.

    """

    code: ClassVar[str] = "internal"
    """The word for this error on the wire and in logs."""

    def __init__(self, message: str = "", *, retry_after: float | None = None) -> None:
        # Only the message: copying and pickling call the class with it, and bring the attributes.
        super().__init__(message)
        self.message = message
        """What happened, without what the other attributes say; `str()` has all of it."""
        self.retry_after = retry_after
        """Seconds after which asking again makes sense, where somebody knows."""


class ConfigurationError(PunchError):
    """A setting is missing or wrong. The text names it, the rule and the remedy."""

    code = "configuration"


class RequestError(PunchError):
    """The request itself cannot be served as it is.

    One peer's word for that is not enough while another can be asked: see `punch.routing`.
    """

    code = "request"

    def __init__(
        self, message: str = "", *, param: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.param = param
        """The field at fault, spelled ``messages[0].content``; `None` for no single one."""


class InvalidRequest(RequestError):
    """A value in the request breaks a rule. The text names the value and the rule."""

    code = "invalid_request"

    rule: str | None = None
    """What is wrong with the field `param`: the text behind its name. `None` in the words of
    others, such as a peer, which may call the field something else."""

    @classmethod
    def about(cls, param: str, rule: str) -> InvalidRequest:
        """The error that the field *param* breaks *rule*, as ``is 3; it must be 4``."""
        error = cls(f"{param} {rule}", param=param)
        error.rule = rule
        return error


class ContextTooLong(RequestError):
    """Prompt and answer do not fit the model's context. The text has both numbers."""

    code = "context_too_long"

    prompt_tokens: int | None = None
    context_tokens: int | None = None
    """Of both the length, in tokens; `None` where it was said in words only."""

    @classmethod
    def of(cls, message: str, *counts: int | None) -> ContextTooLong:
        """The error with these *counts*: tokens of the prompt, and of the context."""
        error = cls(message)
        error.prompt_tokens, error.context_tokens = counts
        return error


class RequestConflict(RequestError):
    """The same `request_id` was already used for a different request."""

    code = "conflict"


class RequestCancelled(RequestError):
    """The caller cancelled the request."""

    code = "cancelled"


class Unauthorized(RequestError):
    """The gateway asks for an API key, and none was given or it is not good any more."""

    code = "unauthorized"


class ModelForbidden(RequestError):
    """The API key may not use this model. The text names those that it may."""

    code = "model_forbidden"


class QuotaExceeded(RequestError):
    """The API key has had its share, or the gateway is full; `retry_after` says until when."""

    code = "quota"


class EnginesDied(RequestError):
    """Two engines died while they worked at this request, so no other is asked for it."""

    code = "engines_died"


class NoPeerAvailable(PunchError):
    """Nobody could be asked, or everybody who could be asked failed."""

    code = "no_peer"

    def __init__(
        self,
        message: str = "",
        reasons: Mapping[Any, str] | None = None,
        *,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.reasons: Mapping[Any, str] = dict(reasons or {})
        """Peer id to the reason why it did not answer; they follow the message in `str()`."""

    def __str__(self) -> str:
        # A reason may come from a peer: its lines stay below its own name.
        lines = [f"  {peer}: {why}".replace("\n", "\n    ") for peer, why in self.reasons.items()]
        return "\n".join([self.message, *lines])


class UnknownModel(NoPeerAvailable):
    """No peer offers the model. The text names the models on offer."""

    code = "unknown_model"


class NoRealPeer(NoPeerAvailable):
    """The caller is strict, and everybody who could be asked simulates."""

    code = "no_real_peer"


class AnswerInterrupted(PunchError):
    """An answer had begun, its peer failed, and nobody could go on with it."""

    code = "interrupted"

    def __init__(
        self,
        message: str = "",
        *,
        tokens: int = 0,
        characters: int = 0,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.tokens = tokens
        """How many tokens were delivered."""
        self.characters = characters
        """How many characters were delivered."""


class DeadlineExceeded(PunchError):
    """The caller's time ran out before the answer was complete."""

    code = "deadline"


class PeerError(PunchError):
    """A chosen peer did not answer; the router may try the next one."""

    code = "peer"

    def __init__(
        self, message: str = "", *, peer_id: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.peer_id = peer_id
        """Which peer it is about; `None` where it speaks of itself. `str()` puts it in front."""

    def __str__(self) -> str:
        return self.message if self.peer_id is None else f"{self.peer_id}: {self.message}"


CONNECTION_LOST = "the connection was lost"
"""How a segment ends whose peer was lost with its connection: our own words, not the peer's."""


class PeerUnreachable(PeerError):
    """No connection or stream to the peer could be opened, or it broke."""

    code = "unreachable"

    def __init__(
        self,
        message: str = "",
        *,
        peer_id: str | None = None,
        why: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, peer_id=peer_id, retry_after=retry_after)
        self.why = why
        """``no_answer``, ``refused``, ``no_route``, ``no_name``, ``other_peer``, ``no_peer`` (what
        answers is none), ``no_protocol`` or ``no_relay`` of a dial; ``lost`` of a
        connection that was open, whose message is then `CONNECTION_LOST`; or else `None`."""


class PeerTimeout(PeerError):
    """The peer was connected and stayed silent for too long."""

    code = "silent"


class PeerRefused(PeerError):
    """The peer will not or cannot serve this request: it is full, draining, or not able to."""

    code = "refused"

    def __init__(
        self,
        message: str = "",
        *,
        peer_id: str | None = None,
        retry_after: float | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message, peer_id=peer_id, retry_after=retry_after)
        self.param = param
        """The field of the request that this peer does not take as it is, where it is a single
        one. Another peer may take it."""

    rule: str | None = None
    """The word for why a worker does not lend; see `punch.cluster.leases.REFUSALS`."""


class OfferUnavailable(PeerRefused):
    """The offer that the request names is not to be had now, or is gone; another one may be."""

    code = "unavailable"


class PeerUnable(PeerRefused):
    """The offer cannot serve this request, and is well: it is too large for its server, say.

    Another offer may have a higher limit. Where none has, the caller hears it as an
    `InvalidRequest`.
    """

    code = "unable"


class PeerFailed(PeerError):
    """The peer accepted the request and its backend failed."""

    code = "backend_failed"

    def __init__(
        self,
        message: str = "",
        *,
        peer_id: str | None = None,
        retry_after: float | None = None,
        engine_died: bool = False,
        engine_restarts: bool = False,
    ) -> None:
        super().__init__(message, peer_id=peer_id, retry_after=retry_after)
        self.engine_died = engine_died
        """Whether the peer's engine died, or was killed, while it worked at the request."""
        self.engine_restarts = engine_restarts
        """Whether its engine ended by no fault of the request, and is being started again: the same
        offer may be asked once more, and waits until it can answer."""


class AnswerUnfit(PeerError):
    """The answer is whole and breaks a rule of the schema that it was asked to fit.

    The model's doing, not its peer's: an engine holds a model to what a grammar can say. Another
    answer may fit.
    """

    code = "unfit"


class PeerSimulated(PeerError):
    """The answer is not real inference, and the caller is strict."""

    code = "simulated"


class ProtocolError(PunchError):
    """A message was sent or received that the session does not allow."""

    code = "protocol"


class LocalProtocolError(ProtocolError):
    """*We* tried to send something illegal. This is a bug on this side."""

    code = "local_protocol"


class RemoteProtocolError(ProtocolError):
    """The peer sent something illegal. Its session ends; nothing else does."""

    code = "remote_protocol"


class BackendError(PunchError):
    """The backend on this machine did not do its work."""

    code = "backend"


class BackendCrashed(BackendError):
    """The backend's process ended, or ends again and again."""

    code = "backend_crashed"

    def __init__(
        self,
        message: str = "",
        *,
        retry_after: float | None = None,
        engine_died: bool = False,
        engine_restarts: bool = False,
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.engine_died = engine_died
        """Whether the engine ended, or was killed, while it worked at this request, which may
        be why."""
        self.engine_restarts = engine_restarts
        """Whether the engine ended by no fault of the request, as a split does that has lost a
        worker, and is being started again."""


class GenerationFailed(BackendError):
    """The backend lives, but this one answer failed."""

    code = "generation_failed"


class NetworkError(PunchError):
    """The network, or this machine's part of it, does not do what was asked."""

    code = "network"


class AddressUnavailable(NetworkError):
    """An address cannot be listened on. The text names who holds the port, if known."""

    code = "address_unavailable"

    def __init__(
        self, message: str = "", *, is_taken: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.is_taken = is_taken
        """True if another program has the port, so that another port may do."""


class IdentityChanged(NetworkError):
    """A known address answers with another identity. The text says how to accept it."""

    code = "identity_changed"


class NotPermitted(NetworkError):
    """A peer is not allowed to do this here; `rule` is the word for why, where it is known."""

    code = "not_permitted"
    rule: str | None = None


class BootstrapFull(NetworkError):
    """A bootstrap has no room for another peer. The text names the limit."""

    code = "bootstrap_full"


class ModelFileError(PunchError):
    """A model file cannot be used. The text says what was found and what was expected."""

    code = "model_file"


def _codes(kind: type[PunchError]) -> frozenset[str]:
    return frozenset({kind.code}).union(*map(_codes, kind.__subclasses__()))


CODES = _codes(PunchError)  # Of all errors here.


class NotRunning(PunchError):
    """A command is for the punch that runs, and none of this user does, or it does not answer."""

    code = "not_running"
