"""Backend `mock`: makes its answers up, for tests and demonstrations.

No model runs. Every offer and every answer says ``simulated``, and nothing falls back to this
backend from a real one.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from itertools import chain
from random import Random

import attrs
import trio

from ...capability import Gpu, ModelOffer
from ...exceptions import ConfigurationError, ContextTooLong, GenerationFailed
from ...wire import (
    CommandRequest,
    Completion,
    PromptCount,
    Thought,
    Timings,
    TokenLogprob,
    ToolCall,
    Usage,
)
from .._base import Emit, Generation, Loading
from ._forms import call_for, instance, made_up_logprob

WORDS = [
    "a",
    "able",
    "about",
    "after",
    "all",
    "also",
    "and",
    "any",
    "are",
    "as",
    "at",
    "back",
    "be",
    "because",
    "but",
    "by",
    "can",
    "come",
    "could",
    "day",
    "do",
    "even",
    "few",
    "find",
    "first",
    "for",
    "from",
    "get",
    "give",
    "go",
    "good",
    "great",
    "have",
    "he",
    "her",
    "him",
    "his",
    "how",
    "if",
    "in",
    "into",
    "it",
    "its",
    "just",
    "know",
    "last",
    "like",
    "long",
    "look",
    "make",
    "many",
    "me",
    "more",
    "most",
    "my",
    "new",
    "no",
    "not",
    "now",
    "of",
    "on",
    "one",
    "only",
    "or",
    "other",
    "our",
    "out",
    "over",
    "own",
    "people",
    "person",
    "say",
    "see",
    "she",
    "so",
    "some",
    "take",
    "than",
    "that",
    "the",
    "their",
    "them",
    "then",
    "there",
    "these",
    "they",
    "thing",
    "think",
    "this",
    "time",
    "to",
    "two",
    "up",
    "us",
    "use",
    "very",
    "want",
    "way",
    "we",
    "well",
    "what",
    "when",
    "which",
    "who",
    "will",
    "with",
    "work",
    "would",
    "year",
    "you",
    "your",
]

DEFAULT_TOKENS = 32

# Drawing these takes five milliseconds. Who allows more asks for no length, but for no end before
# the model's own: Anthropic's clients must say a limit, and say the highest.
MAX_TOKENS = 8192

# Tokens that are made before all other tasks have their turn: half a millisecond.
TURN_TOKENS = 16

EMBEDDING_SIZE = 16

# What stands for its model file and its chat template: two mocks that draw from the same words
# give the same answer, so each can continue the other's.
DIGEST = hashlib.sha256(" ".join(WORDS).encode()).hexdigest()
CHAT_TEMPLATE = hashlib.sha256(b"mock").hexdigest()

FEATURES = frozenset({"chat", "complete", "embed", "count", "tools", "json_schema", "logprobs"})


@attrs.frozen(kw_only=True)
class MockScript:
    """How a mock behaves, for tests and demonstrations."""

    decode_rate: float | None = None
    """Tokens per second of one answer; `None` is all at once."""

    prefill_rate: float | None = None
    """Prompt tokens per second; `None` is at once."""

    delay: float = 0.0
    """Seconds before anything happens."""

    fail_after: int | None = None
    """Fail when this many tokens were sent."""

    slots: int = 4
    """Requests at a time."""

    model: str = "mock"
    """The name it offers."""

    context_tokens: int = 8192
    """The context it claims."""

    thinks: int = 0
    """Tokens that it thinks before an answer of usual effort; 0 is a model that cannot think."""

    sees: bool = False
    """Whether it takes pictures, of which it sees nothing."""

    def __attrs_post_init__(self) -> None:
        for name in ("decode_rate", "prefill_rate"):
            rate = getattr(self, name)
            if rate is not None and not rate > 0:
                raise ConfigurationError(f"the mock's {name} is {rate!r}; it must be above 0")
        if not self.delay >= 0:
            raise ConfigurationError(f"the mock's delay is {self.delay!r} s; it must be 0 or more")
        if self.thinks < 0:
            raise ConfigurationError(f"the mock's thinks is {self.thinks}; it must be 0 or more")
        if self.slots < 1:
            raise ConfigurationError(f"the mock has {self.slots} slots; it needs at least 1")


def mock_words(request: CommandRequest) -> list[str]:
    """The words of a mock's whole answer: a pure function of the request but its id and timeout.

    One word is one token. They do not depend on `stream` or on who is asked, so that two mocks
    give the same answer; nor on `continuation`, whose words are the first of them: `max_tokens`
    is then what is left.
    """
    draw = Random(_key(request))
    # One by one: a shorter answer is the beginning of a longer one.
    return [draw.choice(WORDS) for _ in range(_length(request) or DEFAULT_TOKENS)]


def _length(request: CommandRequest) -> int | None:
    """Words that the whole answer is to have; `None` for as many as a mock makes by itself."""
    limit = request.sampling.max_tokens
    if limit is None:
        return None
    limit += len((request.continuation or "").split())
    return None if limit > MAX_TOKENS else limit


def mock_thoughts(request: CommandRequest, usual: int) -> list[str]:
    """What a mock thinks before it answers *request*; *usual* words are for no special effort.

    An answer that another peer has begun is thought about no more.
    """
    if not usual or request.command != "chat" or request.continuation:
        return []
    words = math.ceil(usual * _EFFORTS.get(request.reasoning_effort or "", 1.0))
    limits = (request.reasoning_budget, request.sampling.max_tokens)
    words = min([words, *(limit for limit in limits if limit is not None)])
    draw = Random(_key(request) + b"thoughts")
    return [draw.choice(WORDS) for _ in range(words)]


# How much more, or less, is thought than usual.
_EFFORTS = {"none": 0.0, "minimal": 0.25, "low": 0.5, "high": 2.0, "xhigh": 3.0, "max": 4.0}


def _key(request: CommandRequest) -> bytes:
    """What all that is made up for *request* is drawn by."""
    turns = ["\n".join((message.role, *message.texts)) for message in request.messages]
    text = "\n".join([request.command, *turns, request.prompt or ""])
    key = hashlib.sha256(f"{text}\n{request.sampling.seed}".encode())
    for message in request.messages:
        for part in message.parts:
            key.update(part.data or b"")
    return key.digest()


def _json_pieces(request: CommandRequest, schema: str) -> tuple[list[tuple[str, int]], str]:
    """JSON that fits *schema*, word by word and sign by sign, and why it ends there."""
    pieces = [(piece, 1) for piece in re.findall(r"\w+|\W", instance(schema))]
    limit = request.sampling.max_tokens
    cut = limit is not None and limit < len(pieces)
    return pieces[:limit], "length" if cut else "stop"


def _pieces(request: CommandRequest) -> Iterator[tuple[str, int]]:
    """The rest of the answer word by word, each with the tokens that it stands for."""
    words = mock_words(request)
    said = request.continuation or ""
    begun = len(said.split())
    whole = " ".join(words[:begun])
    if begun and whole.startswith(said) and whole != said:
        # Cut inside a word: its token was counted with its beginning.
        yield whole[len(said) :], 0
    for index in range(begun, len(words)):
        apart = index > 0 and not (index == begun and said.endswith(" "))
        yield f" {words[index]}" if apart else words[index], 1


class MockBackend:
    """Answers with words drawn from the prompt; a `Backend`. Made by `open_mock`."""

    name = "mock"
    simulated = True
    threads: int | None = None
    gpus: tuple[Gpu, ...] = ()

    def __init__(self, script: MockScript) -> None:
        self.script = script
        self.slots = script.slots
        self.offers: tuple[ModelOffer, ...] = (
            ModelOffer(
                name=script.model,
                context_tokens=script.context_tokens,
                digest=DIGEST,
                architecture="mock",
                features=FEATURES
                | ({"reasoning"} if script.thinks else frozenset())
                | ({"image"} if script.sees else frozenset()),
                chat_template=CHAT_TEMPLATE,
                continues=True,
            ),
        )

    async def ready(self, loading: Loading) -> None:
        """Return at once: there is nothing to load."""

    async def generate(self, request: CommandRequest, emit: Emit) -> Generation:
        """Answer with words drawn from the prompt, at the speeds of the script.

        Raises:
          ContextTooLong: if the words of the prompt are more than the context.
          GenerationFailed: after `MockScript.fail_after` tokens.

        """
        script = self.script
        began = trio.current_time()
        if script.delay:
            await trio.sleep(script.delay)
        prompt = _count(request)
        longest = max(len(text.split()) for text in request.inputs) if request.inputs else prompt
        if longest > script.context_tokens:
            raise ContextTooLong.of(
                f"the prompt has {longest} tokens and the context is {script.context_tokens} "
                "tokens; shorten the prompt or ask a model with a longer context",
                longest,
                script.context_tokens,
            )
        if request.command == "count":
            return Generation(
                completion=Completion(), usage=Usage(prompt_tokens=prompt), timings=Timings()
            )
        if script.prefill_rate is not None:
            await trio.sleep(prompt / script.prefill_rate)
        if request.command == "embed":
            return Generation(
                completion=Completion(embeddings=tuple(map(_embedding, request.inputs))),
                usage=Usage(prompt_tokens=prompt, completion_tokens=0),
                timings=Timings(prefill=trio.current_time() - began),
            )
        await emit(PromptCount(prompt), 0)
        first = trio.current_time()
        said = request.continuation or ""
        sent: list[str] = []
        made = 0
        stop: str | None = None
        thoughts = mock_thoughts(request, script.thinks)
        request, is_used_up = _after(request, len(thoughts))
        reason = "stop" if _length(request) is None else "length"
        call = call_for(request)
        pieces: Iterable[tuple[str, int]] = _pieces(request)
        if call is not None:
            # A call is made of tokens and has no text.
            call, made_of, reason = _as_far_as(call, request.sampling.max_tokens)
            pieces = [("", 1)] * made_of
        elif request.response_schema is not None:
            pieces, reason = _json_pieces(request, request.response_schema)
        if is_used_up:
            call, pieces, reason = None, (), "length"
        logprobs: list[TokenLogprob] = []
        thought = [(Thought(f" {word}" if i else word), 1) for i, word in enumerate(thoughts)]
        for text, tokens in chain(thought, pieces):
            if script.fail_after is not None and made + tokens > script.fail_after:
                raise GenerationFailed(f"the mock was told to fail after {script.fail_after}")
            made += tokens
            if script.decode_rate is not None:
                # Against the beginning, not the last word: a late timer is made up for.
                await trio.sleep_until(first + made / script.decode_rate)
            elif made % TURN_TOKENS == 0:
                await trio.lowlevel.checkpoint()
            if type(text) is Thought:
                await emit(text, tokens)
                continue
            # Across the seam: a stop may have begun in what another peer delivered.
            stops = request.sampling.stop
            cut = _before_stop(said + "".join(sent), text, stops) if stops else None
            if cut is not None:
                (text, stop), reason = cut, "stop"
            sent.append(text)
            await emit(text, tokens)
            if request.logprobs is not None and text:
                logprobs.append(made_up_logprob(text, made, request.logprobs, WORDS))
            if cut is not None:
                break
        return Generation(
            completion=Completion(
                text="".join(sent),
                finish_reason=reason,
                stopped_by=stop,
                tool_calls=() if call is None else (call,),
                logprobs=tuple(logprobs),
                reasoning=" ".join(thoughts),
            ),
            usage=Usage(
                prompt_tokens=prompt,
                completion_tokens=made,
                reasoning_tokens=len(thoughts) if script.thinks else None,
            ),
            timings=Timings(prefill=first - began, decode=trio.current_time() - first),
        )


def _after(request: CommandRequest, thoughts: int) -> tuple[CommandRequest, bool]:
    """*request* with the tokens that so many *thoughts* have left; whether they left none."""
    limit = request.sampling.max_tokens
    if limit is None or not thoughts:
        return request, False
    left = limit - thoughts
    sampling = attrs.evolve(request.sampling, max_tokens=max(1, left))
    return attrs.evolve(request, sampling=sampling), left <= 0


def _as_far_as(call: ToolCall, limit: int | None) -> tuple[ToolCall, int, str]:
    """*call* cut off after *limit* words, how many it has, and why it ends there."""
    words = list(re.finditer(r"\S+", call.arguments))
    if limit is None or limit >= len(words):
        return call, len(words), "tool_calls"
    return attrs.evolve(call, arguments=call.arguments[: words[limit - 1].end()]), limit, "length"


def _count(request: CommandRequest) -> int:
    """Words of the prompt, and of the answer so far: a real backend reads that, too."""
    return len(" ".join(request.texts).split())


def _before_stop(before: str, text: str, stops: tuple[str, ...]) -> tuple[str, str] | None:
    """The part of *text* before the first stop, and that stop; `None` if there is none.

    A stop of several words is found in its last one; what came before it is out already, as
    with any backend that streams words.
    """
    places = [(place, stop) for stop in stops if (place := (before + text).find(stop)) >= 0]
    if not places:
        return None
    place, stop = min(places)
    return (before + text)[len(before) : max(place, len(before))], stop


def _embedding(text: str) -> tuple[float, ...]:
    draw = Random(hashlib.sha256(text.encode()).digest())
    return tuple(draw.uniform(-1, 1) for _ in range(EMBEDDING_SIZE))


@asynccontextmanager
async def open_mock(script: MockScript | None = None) -> AsyncIterator[MockBackend]:
    """Give a backend that makes up its answers.

    Args:
      script: How fast it answers and whether it fails; by default at once and never.

    """
    yield MockBackend(script or MockScript())
