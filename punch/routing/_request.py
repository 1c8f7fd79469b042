"""The part of a request that routing may look at."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import attrs

from ..capability import PeerId
from ..wire import CommandRequest
from ._lengths import USUAL_OUTPUT_TOKENS

# Bytes of English text per token, a little low so that prompts are rather over- than
# underestimated. Only the prediction rests on it; what is reported is always counted.
BYTES_PER_TOKEN = 3.5

_NOBODY: Mapping[PeerId, int] = MappingProxyType({})


@attrs.frozen(kw_only=True)
class RouteRequest:
    """What is to be routed."""

    model: str | None = None
    """Name of the model, or `None` for any."""

    model_digest: str | None = None
    """SHA-256 of the model file, or `None` for any."""

    command: str = "chat"
    """The feature that the model must have."""

    needs: frozenset[str] = frozenset()
    """What it must have besides: ``tools``, ``json_schema``, ``logprobs``."""

    prompt_tokens: int = 0
    """Length of the prompt, in tokens (estimated)."""

    longest_tokens: int | None = None
    """Of several texts that are read one by one, the longest (estimated); `None` for one prompt."""

    output_tokens: int = USUAL_OUTPUT_TOKENS
    """Length of the answer, in tokens (expected)."""

    strict: bool = False
    """Real inference only."""

    continuing: bool = False
    """An answer that another peer has begun is to be gone on with."""

    chat_template: str | None = None
    """SHA-256 of the chat template that it was begun with, if `continuing`; `None` for any."""

    alternative: bool = False
    """Another peer works on it already: only one that is well would be better."""

    cached_tokens: Mapping[PeerId, int] = _NOBODY
    """Prompt tokens that a peer probably has in its cache (expected); 0 where it is not named."""

    tried: frozenset[PeerId] = frozenset()
    """Peers that were already asked."""

    serial: int = 0
    """How many requests were routed before this one; what round-robin turns by."""

    @property
    def context_tokens(self) -> int:
        """Tokens that the model must have room for at a time (estimated)."""
        return self.prompt_tokens if self.longest_tokens is None else self.longest_tokens


def tokens_of(*texts: str) -> int:
    """Length of *texts*, in tokens (estimated)."""
    # Bytes, not characters: one of a script without an alphabet is a token or more.
    size = sum(len(text) if text.isascii() else len(text.encode()) for text in texts)
    return int(size / BYTES_PER_TOKEN) + 1


def usual_output(request: CommandRequest) -> int:
    """Length of the answer to *request*, in tokens (expected), with nothing known of its like."""
    if request.command == "embed":
        return 0
    limit = request.sampling.max_tokens
    return USUAL_OUTPUT_TOKENS if limit is None else min(limit, USUAL_OUTPUT_TOKENS)


def route_request(
    request: CommandRequest,
    *,
    prompt_tokens: int | None = None,
    output_tokens: int | None = None,
    **known: Any,
) -> RouteRequest:
    """What routing needs to know of *request*.

    Args:
      request: What is asked.
      prompt_tokens: Length of its prompt, where that was estimated already.
      output_tokens: Length of its answer, where more is known than is usual.
      known: Further fields of a `RouteRequest`.

    """
    return RouteRequest(
        model=request.model,
        model_digest=request.model_digest,
        command=request.command,
        needs=request.needs,
        prompt_tokens=tokens_of(*request.texts) if prompt_tokens is None else prompt_tokens,
        longest_tokens=max(map(tokens_of, request.inputs), default=None),
        output_tokens=usual_output(request) if output_tokens is None else output_tokens,
        strict=request.strict,
        **known,
    )
