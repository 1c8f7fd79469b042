"""The part of a request that routing may look at."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import attrs

from ..wire import DEFAULT_OUTPUT_TOKENS, CommandRequest, tokens_of, usual_output
from .names._peers import NO_WISHES, Wishes

# Nearly no answer is so many times as long as the one that is expected: with lengths that are about
# log-normal, see `_lengths`, it is one in thirty.
LONG_ANSWER = 4

_NOBODY: Mapping[str, int] = MappingProxyType({})


@attrs.frozen(kw_only=True)
class RouteRequest:
    """What is to be routed."""

    model: str | None = None
    """Name of the model, or `None` for any."""

    model_digest: str | None = None
    """SHA-256 of the model file, or `None` for any."""

    alike: str | None = None
    """SHA-256 of the file of `model`, where all who offer it agree: under another name it is the
    same model. `None` if only the name counts."""

    ambiguous: tuple[str, ...] = ()
    """The models on offer that `model` may mean, if they are several and none is meant."""

    wishes: Wishes = NO_WISHES
    """What the caller wishes of the choice."""

    command: str = "chat"
    """The feature that the model must have."""

    needs: frozenset[str] = frozenset()
    """What it must have besides: ``tools``, ``json_schema``, ``logprobs``."""

    prompt_tokens: int = 0
    """Length of the prompt, in tokens (estimated)."""

    longest_tokens: int | None = None
    """Of several texts that are read one by one, the longest (estimated); `None` for one prompt."""

    output_tokens: int = DEFAULT_OUTPUT_TOKENS
    """Length of the answer, in tokens (expected)."""

    max_tokens: int | None = None
    """Longest answer that is asked for, in tokens; `None` for as long as it gets."""

    priority: int = 0
    """Priority that it is asked with."""

    strict: bool = False
    """Real inference only."""

    continuing: bool = False
    """An answer that another peer has begun is to be gone on with."""

    chat_template: str | None = None
    """SHA-256 of the chat template that it was begun with, if `continuing`; `None` for any."""

    alternative: bool = False
    """Another peer works on it already: only one that is well would be better."""

    cached_tokens: Mapping[str, int] = _NOBODY
    """Prompt tokens that a candidate probably has in its cache (expected), by its id; 0 where it
    is not named."""

    tried: frozenset[str] = frozenset()
    """Ids of the candidates, and of whole peers, that were already asked."""

    offer: str | None = None
    """Id of the very offer that is meant, or `None` for any."""

    real_only: bool = False
    """A real backend was asked already, and none that simulates may take its place."""

    serial: int = 0
    """How many requests were routed before this one; what round-robin turns by."""

    @property
    def is_usual(self) -> bool:
        """Whether it is the first try of a request that says nothing of whom it wants."""
        return (
            self.wishes is NO_WISHES and not self.tried and not self.strict and not self.continuing
        )

    @property
    def context_tokens(self) -> int:
        """Tokens that the model must have room for at a time (estimated)."""
        return self.prompt_tokens if self.longest_tokens is None else self.longest_tokens

    @property
    def rooms(self) -> tuple[int, ...]:
        """Sizes that a context should have, in tokens (estimated), the best first.

        Room for the longest answer that is allowed, so that none is cut short that need not be;
        for nearly all answers; for the one that is expected; and for the prompt alone.
        """
        prompt, output, limit = self.context_tokens, self.output_tokens, self.max_tokens
        long = LONG_ANSWER * output
        if limit is None:
            limit = long
        return prompt + max(limit, output), prompt + min(limit, long), prompt + output, prompt


def route_request(
    request: CommandRequest,
    *,
    output_tokens: int | None = None,
    **known: Any,
) -> RouteRequest:
    """What routing needs to know of *request*.

    Args:
      request: What is asked.
      output_tokens: Length of its answer, where more is known than is usual.
      known: Further fields of a `RouteRequest`.

    """
    return RouteRequest(
        model=request.model,
        model_digest=request.model_digest,
        offer=request.offer,
        command=request.command,
        needs=request.needs,
        prompt_tokens=request.prompt_tokens,
        longest_tokens=max(map(tokens_of, request.inputs)) if request.inputs else None,
        output_tokens=usual_output(request) if output_tokens is None else output_tokens,
        max_tokens=request.sampling.max_tokens,
        priority=request.priority,
        strict=request.strict,
        **known,
    )
