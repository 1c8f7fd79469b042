"""Limits what a peer says of its answer to what could be true, for whoever asked. No I/O.

What is beyond that is unknown, not cut: a made-up number that was cut is still made up. The bounds
are wide, for no honest count may be lost: a tokenizer makes at most a token of a byte,
and a template writes around each message.
"""

from __future__ import annotations

import attrs

from ._request import CommandRequest
from ._response import CommandResponse, Completion, Timings, Usage

# Tokens that a template writes in front of everything: its own system prompt, the rules for tools.
_HEAD_TOKENS = 8192

# Tokens around each message, call and text to embed.
_EACH_TOKENS = 256

# Tokens of a picture or a sound, the most that any model that was seen makes of one.
_PART_TOKENS = 65_536

# A schema in a template is written out with blanks, and its quotes escaped.
_ESCAPING = 4

# Seconds of a day: no listener works on one answer for longer than an hour.
_MAX_SECONDS = 86_400.0
_MOST = dict.fromkeys(("queue", "first_token", "total", "prefill", "decode"), _MAX_SECONDS)
_MOST["batch"] = 65_536.0

FINISH_REASONS = frozenset({"stop", "length", "tool_calls"})
"""How a whole answer ends. More may come: one that is not known here is told as ``stop``."""


def most_prompt_tokens(request: CommandRequest) -> int:
    """More tokens than the prompt of *request* can have."""
    parts = sum(len(message.parts) for message in request.messages)
    each = len(request.messages) + len(request.inputs) + len(request.tools)
    return _HEAD_TOKENS + _ESCAPING * request.size + _EACH_TOKENS * each + _PART_TOKENS * parts


def believed(response: CommandResponse, request: CommandRequest) -> CommandResponse:
    """*response* to *request* with the numbers and words that can be true."""
    usage, timings = _usage(response.usage, request), _timings(response.timings)
    result = response.result
    if result is not None:
        if result.finish_reason not in FINISH_REASONS:
            result = attrs.evolve(result, finish_reason="stop")
        result = with_calls_asked_for(result, request)
    if usage is response.usage and timings is response.timings and result is response.result:
        return response
    return attrs.evolve(response, result=result, usage=usage, timings=timings)


def _usage(usage: Usage, request: CommandRequest) -> Usage:
    prompt, cached = usage.prompt_tokens, usage.cached_tokens
    wrong = []
    if prompt is not None and not 0 <= prompt <= most_prompt_tokens(request):
        wrong += ["prompt_tokens", "cached_tokens"]
    elif cached is not None and (prompt is None or not 0 <= cached <= prompt):
        wrong.append("cached_tokens")
    if usage.reasoning_tokens is not None and reasoning_within(usage) is None:
        wrong.append("reasoning_tokens")
    return attrs.evolve(usage, **dict.fromkeys(wrong)) if wrong else usage


def _timings(timings: Timings) -> Timings:
    wrong = [
        name
        for name, most in _MOST.items()
        if (value := getattr(timings, name)) is not None and not 0.0 <= value <= most
    ]
    return attrs.evolve(timings, **dict.fromkeys(wrong)) if wrong else timings


def with_calls_asked_for(result: Completion, request: CommandRequest) -> Completion:
    """*result* with one call at most, if *request* asks for no more: the first.

    What the others would have brought, the model asks for when it has seen what the first has.
    """
    if request.parallel_tool_calls is not False or len(result.tool_calls) < 2:
        return result
    return attrs.evolve(result, tool_calls=result.tool_calls[:1])


def reasoning_within(usage: Usage) -> int | None:
    """The thought tokens of *usage* if it has as many tokens in all; else `None`."""
    thought, answer = usage.reasoning_tokens, usage.completion_tokens
    return thought if thought is not None and answer is not None and thought <= answer else None
