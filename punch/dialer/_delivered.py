"""The answer so far: its text, who delivered which part, and what is still to be asked for."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from ..capability import PeerId
from ..exceptions import PeerFailed
from ..wire import (
    CommandRequest,
    CommandResponse,
    Completion,
    Provenance,
    Segment,
    Thought,
    Usage,
)
from ._attempt import Attempt

# The longest answer there can be: a million tokens of four characters. Where the caller set a
# limit, so many characters for each token, which is far more than any tokenizer has.
MAX_CHARACTERS = 4 << 20

# Characters of a part of an answer that is over and kept.
PIECE = 4096

# Between what two peers thought for one answer: the second has begun anew.
APART = "\n\n"
MAX_TOKEN_CHARACTERS = 64
SPARE_CHARACTERS = 4096


class Delivered:
    """What the caller of one request has got.

    Args:
      request: What was asked for.

    """

    def __init__(self, request: CommandRequest) -> None:
        self.parts: list[str] = []
        """The text, and in its place among it each `Thought`."""
        self.tokens = 0
        """Tokens of it, as those who made them count."""
        self.characters = 0
        """Characters of its text."""
        self.segments: list[Segment] = []
        """Who has delivered which part, as far as that is over."""
        self.first_text_at: float | None = None
        """When its first text came, in seconds of trio's clock."""
        self.provenance: Provenance | None = None
        """Where the last part comes from."""
        self.chat_template: str | None = None
        """SHA-256 of the template that the last part was made with."""
        self._request = request
        self._tokens_of_others = 0
        self._thoughts_of_others = 0
        self._in_vain = 0
        self._thought_characters = 0
        self._thinker: Attempt | None = None

    @property
    def text(self) -> str:
        """All of its text."""
        if self._thinker is None:
            return "".join(self.parts)
        return "".join(part for part in self.parts if type(part) is not Thought)

    @property
    def reasoning(self) -> str:
        """All that was thought for it."""
        if self._thinker is None:
            return ""
        return "".join(part for part in self.parts if type(part) is Thought)

    @property
    def counted(self) -> int:
        """Tokens of it, as those who made them count; at least one for each part."""
        return max(self.tokens, len(self.parts))

    @property
    def digest(self) -> str | None:
        """The model file that whoever goes on with it must have; `None` if that is not known."""
        if self.provenance is None:
            return None
        if self._request.command == "chat" and self.chat_template is None:
            return None
        return self.provenance.model_digest

    def pieces(self) -> Sequence[str]:
        """Its parts, put together: a part for each token takes fifteen times what its text does."""
        if len(self.parts) < 2:
            return self.parts
        return [
            kind(text[i : i + PIECE])
            for kind, text in _runs(self.parts)
            for i in range(0, len(text), PIECE)
        ]

    def take_over(self, parts: Sequence[str], tokens: int, segments: Sequence[Segment]) -> None:
        """Be what was delivered of an answer that was made before."""
        self.parts += parts
        self.tokens = tokens
        self.segments += segments

    def begins(self, now: float) -> None:
        """Text has come, even if none of it can be given to the caller yet."""
        if self.first_text_at is None:
            self.first_text_at = now

    def check_length(self, peer_id: PeerId, text: str) -> None:
        """Raise `PeerFailed` if *text* is more than the answer can have."""
        limit, most = self._request.sampling.max_tokens, MAX_CHARACTERS
        if limit is not None:
            most = min(most, SPARE_CHARACTERS + MAX_TOKEN_CHARACTERS * limit)
        if self.characters + self._thought_characters + len(text) > most:
            raise PeerFailed(f"sent more than the {most} characters there can be", peer_id=peer_id)

    def append(self, attempt: Attempt, text: str, tokens: int) -> None:
        """Give the caller *text*."""
        self.parts.append(text)
        self.tokens += tokens
        self.characters += len(text)
        attempt.delivered(text, tokens)
        self.provenance = attempt.provenance
        self.chat_template = attempt.candidate.offer.chat_template

    def think(self, attempt: Attempt, text: str, tokens: int, now: float) -> None:
        """Tell the caller what a peer thinks; *text* is no part of the answer."""
        if self._thinker is not None and self._thinker is not attempt:
            text = APART + text
        self._thinker = attempt
        self.parts.append(Thought(text))
        self._thought_characters += len(text)
        tokens = attempt.thought(text, tokens, now)
        self.tokens += tokens
        self.provenance, self.chat_template = (
            attempt.provenance,
            attempt.candidate.offer.chat_template,
        )

    def close_segment(self, attempt: Attempt, reason: str, *, now: float) -> None:
        """A peer delivers no more, and the answer is whole *now*; *reason* says why.

        An answer without text is that of its last peer: it may be a call, vectors, or an end at
        once.
        """
        if attempt.characters or attempt.tokens or not self.segments:
            self._close(attempt, reason, now)

    def _close(self, attempt: Attempt, reason: str, now: float) -> None:
        self.segments.append(
            Segment(
                peer_id=attempt.peer_id,
                tokens=attempt.tokens,
                characters=attempt.characters,
                seconds=now - attempt.asked_at,
                reason=reason,
            )
        )

    def hand_over(self, attempt: Attempt, reason: str, *, now: float) -> None:
        """A peer delivers no more, and another one has to deliver the rest."""
        # Its text is part of the next one's prompt; what it thought is not.
        self._tokens_of_others += attempt.tokens - attempt.thought_tokens
        self._thoughts_of_others += attempt.thought_tokens
        if not attempt.characters:
            # The next one thinks anew, with all the tokens that there are.
            self._in_vain += attempt.thought_tokens
        if attempt.characters or attempt.thought_bytes:
            self._close(attempt, reason, now)

    def remaining_request(self) -> CommandRequest | None:
        """What the next peer is to be asked; `None` if the answer has all its tokens."""
        request, so_far = self._request, self.text
        if not so_far:
            return request
        assert self.provenance is not None, "text is taken from a peer that said where it is from"
        sampling = request.sampling
        if sampling.max_tokens is not None:
            left = sampling.max_tokens - (self.tokens - self._in_vain)
            if left <= 0 and not request.needs:
                return None
            # Of an answer that comes from one peer only, more is missing than tokens of text.
            left = max(left, 1)
            sampling = attrs.evolve(sampling, max_tokens=left)
        return attrs.evolve(
            request,
            sampling=sampling,
            continuation=(request.continuation or "") + so_far,
            model_digest=self.provenance.model_digest or request.model_digest,
        )

    def ended_by(self, last: Attempt | None, result: Completion, **story: Any) -> CommandResponse:
        """The response for an answer that nobody has to be asked about any more; see `whole`."""
        response = CommandResponse(
            request_id=self._request.request_id,
            status="success",
            executor=last.peer_id if last is not None else self.segments[-1].peer_id,
            provenance=self.provenance or (last.provenance if last is not None else None),
            usage=Usage(completion_tokens=0 if last is None else last.tokens),
        )
        return self.whole(response, result, **story)

    def whole(self, response: CommandResponse, result: Completion, **story: Any) -> CommandResponse:
        """The last peer's response, made that of the whole answer.

        Args:
          response: What the last peer said.
          result: The result in it.
          story: Fields that say how the answer came about.

        """
        usage = response.usage
        if self._tokens_of_others or self._thoughts_of_others:
            usage = _of_the_whole(usage, self._tokens_of_others, self._thoughts_of_others)
        text, reasoning = self.text, self.reasoning or result.reasoning
        if result.text != text or result.reasoning != reasoning:
            result = attrs.evolve(result, text=text, reasoning=reasoning)
        # Each field by its name, which takes a third of the time of `attrs.evolve`.
        return CommandResponse(
            request_id=response.request_id,
            status=response.status,
            result=result,
            error=response.error,
            executor=response.executor,
            provenance=response.provenance,
            usage=usage,
            timings=response.timings,
            capability=response.capability,
            load=response.load,
            lane=response.lane,
            segments=tuple(self.segments),
            **story,
        )


def _of_the_whole(usage: Usage, earlier: int, thought: int) -> Usage:
    """What the last peer counted, and what others had delivered before it.

    Args:
      usage: What the last peer counted.
      earlier: Tokens of the text of others, which was part of its prompt.
      thought: Tokens that others thought, which were not.

    """
    prompt, answer, cached = usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens
    own = None if prompt is None else max(0, prompt - earlier)
    last = usage.reasoning_tokens
    return Usage(
        prompt_tokens=own,
        completion_tokens=None if answer is None else answer + earlier + thought,
        cached_tokens=cached if cached is None or own is None else min(cached, own),
        reasoning_tokens=None if last is None else last + thought,
    )


def _runs(parts: Sequence[str]) -> Iterator[tuple[type[str], str]]:
    """What was thought in a row, and what was said in a row."""
    for kind, run in itertools.groupby(parts, key=type):
        yield kind, "".join(run)
