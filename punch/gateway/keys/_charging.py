"""Decides what a key pays: the tokens of prompts and answers, as far as they can be true. No I/O.

* A prompt is paid for as soon as a peer has taken it, and so is every part of the answer that was
  delivered: a client that hangs up pays for what was made until then. A request that no peer has
  begun, because all have refused it, costs nothing.
* A backend's count is believed as far as it can be right. A prompt has no more tokens than bytes,
  and what a chat template puts around it; an answer no more than bytes, or than its peers had
  counted when they sent its parts, and what its end held back, and than were asked for. One that
  ends because of its limit has as many as that.
* Where no backend has counted, a prompt has a token for every four bytes, and an answer what its
  peers had counted when they sent its parts, at least one for each.
* To have tokens counted costs nothing: no model reads them.
* An answer is paid for once, by the reader that it is made for (`Answer.billed`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs

from ...dialer import Answer
from ...events import Cost
from ...wire import CommandRequest, CommandResponse, Usage, size_of, usual_output

# Bytes of English text for each token of the usual vocabularies, where no backend has counted.
BYTES_PER_TOKEN = 4

# What a chat template puts before a conversation and around each part of it, at most, in tokens.
# Some have a page of rules for tools, and each of ours take a dozen.
TEMPLATE_TOKENS = 1024
PART_TOKENS = 64

# What ends an answer is counted by some servers, and has no text.
END_TOKENS = 1

# Bytes of a character that an answer's end has left unfinished.
UNFINISHED_BYTES = 3


def prompt_tokens(request: CommandRequest) -> int:
    """Length of a prompt, in tokens (estimated)."""
    return math.ceil(request.size / BYTES_PER_TOKEN)


def expected_tokens(requests: Sequence[CommandRequest]) -> int:
    """Tokens of prompts and answers of all *requests* together (expected)."""
    return sum(
        prompt_tokens(each) + usual_output(each) for each in requests if each.command != "count"
    )


def believed(response: CommandResponse, answer: Answer) -> CommandResponse:
    """*response* with its counts cut to what the *answer* can have: peers may claim too much."""
    usage = response.usage
    prompt = _at_most(usage.prompt_tokens, _most_of_prompt(answer.request))
    made = _at_most(usage.completion_tokens, _most_of_answer(response, answer))
    counts = Usage(
        prompt_tokens=prompt,
        completion_tokens=made,
        cached_tokens=_at_most(usage.cached_tokens, prompt),
        reasoning_tokens=_at_most(usage.reasoning_tokens, made),
    )
    return response if counts == usage else attrs.evolve(response, usage=counts)


def believed_prompt(answer: Answer) -> Usage:
    """What was counted of the prompt before any text came, cut as in `believed`."""
    prompt = _at_most(answer.prompt.prompt_tokens, _most_of_prompt(answer.request))
    return Usage(prompt_tokens=prompt, cached_tokens=_at_most(answer.prompt.cached_tokens, prompt))


def cost_of(answer: Answer, response: CommandResponse | None) -> Cost:
    """The cost of *answer* to its reader so far; *response* is its `believed` end, if there."""
    billed = answer.billed
    if billed is None or answer.request.command == "count":
        return Cost()
    usage = None if response is None else response.usage
    counted = None if usage is None else usage.completion_tokens
    own = billed.tokens if counted is None else max(0, counted - billed.earlier)
    prompt = 0
    if billed.prompt:
        counts = None if usage is None else usage.prompt_tokens
        prompt = prompt_tokens(answer.request) if counts is None else counts
    return Cost(prompt=prompt, answer=own)


def _at_most(count: int | None, most: int | None) -> int | None:
    return count if count is None or most is None else min(count, most)


def _most_of_prompt(request: CommandRequest) -> int:
    parts = len(request.messages) + len(request.tools) + len(request.inputs)
    return request.size + TEMPLATE_TOKENS + PART_TOKENS * parts


def _most_of_answer(response: CommandResponse, answer: Answer) -> int:
    result, limit = response.result, answer.request.sampling.max_tokens
    is_cut = result is not None and result.finish_reason == "length"
    if is_cut and limit is not None:
        return limit
    texts = [] if result is None else [result.text, result.reasoning]
    calls = () if result is None else result.tool_calls
    texts += [text for call in calls for text in (call.name, call.arguments)]
    # A stop sequence was made, and is no part of the text.
    stops = max(map(size_of, answer.request.sampling.stop), default=0)
    held_back = UNFINISHED_BYTES if is_cut else stops
    most = size_of(*texts) + held_back + PART_TOKENS * len(calls) + END_TOKENS
    most = max(answer.tokens, most)
    return most if limit is None else min(most, limit)
