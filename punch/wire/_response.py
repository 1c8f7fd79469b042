"""The values of a response: what a listener answers.

Times are durations in seconds. Tokens are counted by a backend, never made up; whether the counts
can be true is judged where they enter, by the listener and by the dialer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import attrs

from ..capability import Capability, Load, PeerId
from ._request import ToolCall

Status = Literal["success", "error", "refused", "timeout", "cancelled"]


class Thought(str):
    """Text that the model thinks, which is marked by its type as no part of the answer."""

    __slots__ = ()


class PromptCount(str):
    """No text, in the place of one: the backend has counted the tokens of the prompt.

    Args:
      tokens: Tokens of the prompt, the cached ones included.
      cached: How many of them were cached; `None` if the backend does not say.

    """

    __slots__ = ("cached", "tokens")

    def __new__(cls, tokens: int, cached: int | None = None) -> PromptCount:
        count = super().__new__(cls)
        count.tokens, count.cached = tokens, cached
        return count

    tokens: int
    cached: int | None


@attrs.frozen(kw_only=True)
class Usage:
    """Tokens, as the backend counted them. `None` where it did not say."""

    prompt_tokens: int | None = None
    """Tokens of the prompt, the cached ones included."""

    completion_tokens: int | None = None
    """Tokens of the answer."""

    cached_tokens: int | None = None
    """Tokens of the prompt that were found in the backend's cache."""

    reasoning_tokens: int | None = None
    """Tokens of the answer that were thought and not said. Minor 1."""

    @property
    def computed_tokens(self) -> int | None:
        """Tokens of the prompt that were not in the cache: what prefill took time for."""
        if self.prompt_tokens is None:
            return None
        return self.prompt_tokens - (self.cached_tokens or 0)


@attrs.frozen(kw_only=True)
class Timings:
    """Seconds that the executor spent, by what on. `None` where that is not known."""

    queue: float | None = None
    """Waiting for a slot."""

    first_token: float | None = None
    """From arrival to the first text."""

    total: float | None = None
    """From arrival to the end."""

    prefill: float | None = None
    """The backend's own count for the prompt tokens that were not cached."""

    decode: float | None = None
    """The backend's own count for the answer tokens."""

    batch: float | None = None
    """Requests that the backend worked on meanwhile, this one included: the mean over `total`."""


@attrs.frozen(kw_only=True)
class Provenance:
    """Where an answer comes from."""

    kind: Literal["real", "simulated"]
    """``simulated`` if no model was involved."""

    backend: str
    """Name of the backend."""

    model: str | None = None
    """Name of the model."""

    model_digest: str | None = None
    """SHA-256 of the model file."""


@attrs.frozen(kw_only=True)
class TokenLogprob:
    """A token of an answer with its log-probability."""

    token: str
    """Text of the token; part of a character has no text of its own and reads U+FFFD."""

    logprob: float
    """Natural logarithm of its probability, at most 0."""

    top: tuple[tuple[str, float], ...] = ()
    """The likeliest tokens at its place with theirs, likeliest first."""


@attrs.frozen(kw_only=True)
class Completion:
    """A finished answer."""

    text: str = ""
    """The answer. On the wire it is empty if it was already sent in chunks."""

    finish_reason: str = "stop"
    """``stop`` (a stop sequence or the model's own end), ``length`` (`max_tokens`) or
    ``tool_calls`` (it waits for tools)."""

    stopped_by: str | None = None
    """The stop sequence that ended the answer; `None` if none did, or if that is not known. Minor
    1."""

    tool_calls: tuple[ToolCall, ...] = ()
    """What the model asks its caller to run."""

    logprobs: tuple[TokenLogprob, ...] = ()
    """The log-probability of each token of the text, if they were asked for."""

    embeddings: tuple[tuple[float, ...], ...] = ()
    """A vector for each input, in their order, for ``embed``."""

    reasoning: str = ""
    """What the model thought before the answer, and no part of it. On the wire it is empty if it
    was already sent."""


@attrs.frozen(kw_only=True)
class Fault:
    """Why there is no answer."""

    code: str
    """The `code` of the exception class, see `punch.exceptions`."""

    message: str
    """What happened, for a person."""

    retryable: bool = False
    """Another peer may do better."""

    retry_after: float | None = None
    """Seconds after which this peer may do better."""

    param: str | None = None
    """The field of the request that is at fault, spelled ``messages[0].content``."""

    engine_died: bool = False
    """The engine died, or was killed, while it worked at the request. Minor 1."""

    engine_restarts: bool = False
    """The engine ended by no fault of the request, and is being started again: this very offer may
    be asked once more, and answers when it is there. Minor 2."""

    prompt_tokens: int | None = None
    """Of a prompt that does not fit: its length, in tokens. Minor 1."""

    context_tokens: int | None = None
    """Of a prompt that does not fit: the length of the context, in tokens. Minor 1."""


@attrs.frozen(kw_only=True)
class Segment:
    """The part of an answer that one peer delivered."""

    peer_id: PeerId
    """The peer that delivered it."""

    tokens: int
    """Tokens of this part."""

    characters: int
    """Characters of this part."""

    seconds: float
    """From asking this peer to its last word."""

    reason: str
    """Why the part ended there: the finish reason, or what went wrong with the peer."""


@attrs.frozen(kw_only=True)
class CommandResponse:
    """The end of a request: its answer, or the reason why there is none."""

    request_id: str
    """The id of the request."""

    status: Status
    """How the request ended."""

    result: Completion | None = None
    """The answer, if `status` is ``success``."""

    error: Fault | None = None
    """The reason, if it is not."""

    executor: PeerId | None = None
    """The peer that answered."""

    provenance: Provenance | None = None
    """Where the answer comes from."""

    usage: Usage = Usage()
    """Tokens counted."""

    timings: Timings = Timings()
    """Seconds taken on the executor."""

    capability: Capability | None = None
    """The executor's vector, for ``capabilities``."""

    load: Load | None = None
    """How busy the executor is now: its lane, if `lane` says which, or all of it."""

    lane: str | None = None
    """The id of the lane that `load` is about."""

    decision: Mapping[str, Any] | None = None
    """Why this peer; filled in by the router, never sent."""

    attempts: tuple[Mapping[str, Any], ...] = ()
    """What was tried and failed, in order; filled in by the router, never sent."""

    segments: tuple[Segment, ...] = ()
    """The parts of the answer and the peers that delivered them; filled in by the router, never
    sent."""

    @property
    def text(self) -> str:
        """The answer, or nothing if there is none."""
        return "" if self.result is None else self.result.text

    def told(self, result: Completion | None, *, load: Load, lane: str | None) -> CommandResponse:
        """The response as a listener sends it, without what a router fills in.

        Spelled out, since each request ends with it: `attrs.evolve` takes three times as long.
        """
        return CommandResponse(
            request_id=self.request_id,
            status=self.status,
            result=result,
            error=self.error,
            executor=self.executor,
            provenance=self.provenance,
            usage=self.usage,
            timings=self.timings,
            capability=self.capability,
            load=load,
            lane=lane,
        )
