"""The messages of a session, as values.

Times are relative: seconds left, seconds taken, seconds of age. The clocks of
two machines are never compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import attrs

from ..capability import Capability, Load, PeerId

Command = Literal["chat", "complete", "embed", "count", "capabilities", "ping"]
Status = Literal["success", "error", "refused", "timeout", "cancelled"]


@attrs.frozen(kw_only=True)
class ToolCall:
    """A model asks its caller to run one of the tools."""

    id: str
    """What the tool's result refers to."""

    name: str
    """Which tool."""

    arguments: str
    """Its arguments, as JSON text; as the model wrote it, so perhaps no JSON at all."""


@attrs.frozen(kw_only=True)
class Tool:
    """A function of the caller's that the model may ask for."""

    name: str
    """1 to 64 letters, digits, ``_`` and ``-``."""

    description: str | None = None
    """What it does, for the model."""

    parameters: str = "{}"
    """JSON Schema of its arguments, as text; ``{}`` says nothing about them."""

    @property
    def texts(self) -> tuple[str, ...]:
        """What a model reads of it."""
        return self.name, self.description or "", self.parameters


@attrs.frozen(kw_only=True)
class ContentPart:
    """One part of what was said in a turn that is not text alone."""

    type: str
    """``text``, ``image`` or ``audio``; may grow. An offer takes the types that are among its
    features; text it always takes."""

    text: str | None = None
    """What a part of type ``text`` says."""

    media_type: str | None = None
    """What `data` is, such as ``image/png``."""

    data: bytes | None = None
    """The picture or sound itself."""

    url: str | None = None
    """Where it can be fetched, in place of `data`."""


@attrs.frozen(kw_only=True)
class ChatMessage:
    """One turn of a conversation."""

    role: str
    """``system``, ``user``, ``assistant`` or ``tool``."""

    content: str
    """What was said; of a ``tool``, what it returned."""

    name: str | None = None
    """Who says it, where several share a role."""

    tool_calls: tuple[ToolCall, ...] = ()
    """What the assistant asked for in this turn."""

    tool_call_id: str | None = None
    """The call that a ``tool`` answers."""

    parts: tuple[ContentPart, ...] = ()
    """What was said, part by part, if it was not text alone; `content` is then the text of all of
    them, in a row. See `of_parts`."""

    reasoning: str | None = None
    """What the assistant thought before it said this, if it is to be told of that again."""

    @classmethod
    def of_parts(cls, role: str, parts: Iterable[ContentPart], **fields: Any) -> ChatMessage:
        """A turn of several parts; of text alone if all of them are.

        Args:
          role: ``system``, ``user``, ``assistant`` or ``tool``.
          parts: What was said.
          fields: Further fields of the message.

        """
        parts = tuple(parts)
        text = "".join(part.text or "" for part in parts)
        plain = all(part.type == "text" for part in parts)
        return cls(role=role, content=text, parts=() if plain else parts, **fields)

    @property
    def texts(self) -> tuple[str, ...]:
        """What a model reads of it."""
        if not self.tool_calls and self.reasoning is None:
            return (self.content,)
        calls = (text for call in self.tool_calls for text in (call.name, call.arguments))
        return self.reasoning or "", self.content, *calls


@attrs.frozen(kw_only=True)
class Sampling:
    """How the next token is chosen. `None` leaves it to the backend's default."""

    max_tokens: int | None = None
    """Longest answer, in tokens."""

    temperature: float | None = None
    """0 always takes the likeliest token."""

    top_p: float | None = None
    """Keep the likeliest tokens that together reach this probability."""

    top_k: int | None = None
    """Keep this many of the likeliest tokens."""

    min_p: float | None = None
    """Drop tokens less likely than this share of the likeliest one."""

    repeat_penalty: float | None = None
    """Above 1, tokens that were just used become less likely."""

    presence_penalty: float | None = None
    """Above 0, tokens that were used become less likely, -2 to 2."""

    frequency_penalty: float | None = None
    """Above 0, tokens become less likely with each use, -2 to 2."""

    stop: tuple[str, ...] = ()
    """The answer ends before any of these."""

    seed: int | None = None
    """The same seed gives the same answer, as far as the backend can."""


@attrs.frozen(kw_only=True)
class CommandRequest:
    """What a dialer asks of a listener."""

    request_id: str
    """The caller's own or a fresh UUIDv7: 1 to 128 printable ASCII characters."""

    command: Command = "chat"
    """What to do."""

    model: str | None = None
    """Name of the model, or `None` for any."""

    model_digest: str | None = None
    """SHA-256 of the model file, or `None` for any."""

    offer: str | None = None
    """The id of the one offer that is wanted, or `None` for any that fits. It is no part of what
    makes two requests the same: a dialer fills it in once it has chosen a peer."""

    messages: tuple[ChatMessage, ...] = ()
    """The conversation so far, for ``chat``."""

    prompt: str | None = None
    """The text to go on from, for ``complete``."""

    inputs: tuple[str, ...] = ()
    """The texts to embed, for ``embed``."""

    sampling: Sampling = Sampling()
    """How to choose tokens."""

    tools: tuple[Tool, ...] = ()
    """What the model may ask for, in a ``chat``."""

    tool_choice: str | None = None
    """``auto``, ``none``, ``required`` or ``function:NAME``; `None` is ``auto``."""

    response_schema: str | None = None
    """JSON Schema that the answer must fit, as text; ``{}`` means any JSON object."""

    logprobs: int | None = None
    """Give the log-probability of each token, and of so many alternatives, 0 to 20."""

    stream: bool = True
    """Send the answer as it is made."""

    stream_interval: float = 0.0
    """Seconds between two messages whose text may be gathered, 0 to 1; the first comes at once."""

    strict: bool = False
    """Accept real inference only."""

    timeout: float | None = None
    """Seconds left until the caller gives up."""

    priority: int = 0
    """Higher goes first in a queue, -100 to 100."""

    continuable: bool = True
    """If its peer fails after the first text, another one may go on from there."""

    continuation: str | None = None
    """Text of this answer that another peer already delivered."""

    @property
    def needs(self) -> frozenset[str]:
        """Features that a model must have for it, besides its command.

        They are for the form of its answer, and the types of what was said besides text. An
        answer that needs any comes from one peer or not at all: where tool calls, or JSON that
        fits a schema, may go on depends on how far a grammar had come, and of the
        log-probabilities of a peer that was lost nothing is left.
        """
        wanted = {
            "tools": bool(self.tools),
            "json_schema": self.response_schema is not None,
            "logprobs": self.logprobs is not None,
        }
        return self.part_types | {name for name, is_wanted in wanted.items() if is_wanted}

    @property
    def part_types(self) -> frozenset[str]:
        """The types of what was said in its messages besides text."""
        return frozenset(
            part.type
            for message in self.messages
            if message.parts
            for part in message.parts
            if part.type != "text"
        )

    @property
    def texts(self) -> tuple[str, ...]:
        """What a model reads of it, in about that order."""
        texts = [text for tool in self.tools for text in tool.texts]
        texts += [text for message in self.messages for text in message.texts]
        # A schema is not read by the model, but some servers write it into the prompt.
        texts += [self.response_schema or "", self.prompt or "", self.continuation or ""]
        return *texts, *self.inputs

    def without_prompt(self) -> CommandRequest:
        """The same request with nothing in it of what the caller said."""
        return attrs.evolve(
            self,
            messages=(),
            prompt=None,
            inputs=(),
            continuation=None,
            tools=(),
            tool_choice=None,
            response_schema=None,
        )


@attrs.frozen(kw_only=True)
class Usage:
    """Tokens, as the backend counted them. `None` where it did not say."""

    prompt_tokens: int | None = None
    """Tokens of the prompt, the cached ones included."""

    completion_tokens: int | None = None
    """Tokens of the answer."""

    cached_tokens: int | None = None
    """Tokens of the prompt that were found in the backend's cache."""

    @property
    def computed_tokens(self) -> int | None:
        """Tokens of the prompt that were not in the cache: what prefill took time for."""
        if self.prompt_tokens is None:
            return None
        return self.prompt_tokens - (self.cached_tokens or 0)


@attrs.frozen(kw_only=True)
class Timings:
    """Where the time went on the executor, in seconds. `None` where it is not known."""

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
    """How likely a token of an answer was."""

    token: str
    """Its text; part of a character has no text of its own and reads U+FFFD."""

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

    tool_calls: tuple[ToolCall, ...] = ()
    """What the model asks its caller to run."""

    logprobs: tuple[TokenLogprob, ...] = ()
    """One for each token of the text, if they were asked for."""

    embeddings: tuple[tuple[float, ...], ...] = ()
    """One vector an input, for ``embed``."""

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


@attrs.frozen(kw_only=True)
class Segment:
    """The part of an answer that one peer delivered."""

    peer_id: PeerId
    """Who."""

    tokens: int
    """Tokens of it."""

    characters: int
    """Characters of it."""

    seconds: float
    """From asking this peer to its last word."""

    reason: str
    """Why it ended there: the finish reason, or what went wrong with the peer."""


@attrs.frozen(kw_only=True)
class CommandResponse:
    """What became of a request."""

    request_id: str
    """The one of the request."""

    status: Status
    """How it ended."""

    result: Completion | None = None
    """The answer, if `status` is ``success``."""

    error: Fault | None = None
    """The reason, if it is not."""

    executor: PeerId | None = None
    """Who answered."""

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
    """Who delivered which part of the text; filled in by the router, never sent."""


@attrs.frozen(kw_only=True)
class Hello:
    """First message, both ways."""

    minor: int
    """Minor version of the protocol; the major one is in its name."""

    version: str
    """Version of punch, for people."""

    incarnation: int
    """Grows each time the peer starts."""

    namespace: str
    """Where the two met; both must say the same."""

    max_frame: int
    """Longest frame it takes, in bytes."""

    max_requests: int
    """Most requests it takes at a time on this session."""

    grant: bytes | None = None
    """The chain of grants of its key, in a closed namespace."""


@attrs.frozen(kw_only=True)
class Goodbye:
    """Last message: the session ends, and why."""

    code: str
    """One word, see `punch.exceptions`; ``bye`` for a farewell in peace."""

    message: str
    """The reason, for a person."""


@attrs.frozen(kw_only=True)
class Advert:
    """A listener's capability, pushed to every dialer."""

    incarnation: int
    """Grows each time the listener starts."""

    sequence: int
    """Grows with every advert of one incarnation."""

    age: float
    """Seconds since the vector was measured."""

    capability: Capability
    """The claim."""


@attrs.frozen(kw_only=True)
class LoadReport:
    """How busy a listener's lanes are, and that it lives; between two adverts. Minor 1."""

    sequence: int
    """Grows with every advert and load report of one incarnation."""

    age: float = 0.0
    """Seconds since the loads were measured."""

    loads: Mapping[str, Load]
    """The id of each lane to its load; a lane that is not named is as it was."""


@attrs.frozen(kw_only=True)
class Request:
    """Asks for an answer."""

    request: CommandRequest
    """The request, whole."""


@attrs.frozen(kw_only=True)
class Started:
    """The backend works on it now.

    Comes before the first chunk, so that a strict dialer knows where the text comes from
    before it takes any.
    """

    request_id: str
    """The request it is about."""

    provenance: Provenance
    """Where the answer will come from; the `Response` says the same."""


@attrs.frozen(kw_only=True)
class Chunk:
    """The next part of an answer."""

    request_id: str
    """The answer it belongs to."""

    text: str
    """The text, never empty."""

    tokens: int = 1
    """Tokens it stands for."""


@attrs.frozen(kw_only=True)
class Reasoning:
    """The next part of what the model thinks before its answer. Minor 1."""

    request_id: str
    """The answer it belongs to."""

    text: str
    """The text, never empty; no part of the answer's own."""

    tokens: int = 1
    """Tokens it stands for."""


@attrs.frozen(kw_only=True)
class Progress:
    """Nothing to deliver yet, and why: keeps a waiting dialer informed.

    Once the backend works on a request it is a sign of life: tokens were made since the last one,
    though their text is not sent yet, or never.
    """

    request_id: str
    """The request it is about."""

    state: Literal["queued", "loading", "working"]
    """What it waits for: a slot, the model, or the end of what is being made."""

    ahead: int | None = None
    """Requests that are before it in the queue."""

    seconds: float | None = None
    """How much longer that will take, as far as the listener can tell."""


@attrs.frozen(kw_only=True)
class Response:
    """The end of a request."""

    response: CommandResponse
    """What became of it."""


@attrs.frozen(kw_only=True)
class Cancel:
    """Stop working on this. Answered with a `Response` whose status is ``cancelled``."""

    request_id: str
    """The request to stop."""


@attrs.frozen(kw_only=True)
class Credit:
    """The dialer has taken this much more of an answer."""

    request_id: str
    """The answer it is about."""

    amount: int
    """Bytes of the frames that its chunks came in; towards minor 0, of their text in UTF-8."""


@attrs.frozen(kw_only=True)
class Ping:
    """Asks for a sign of life."""

    nonce: int
    """Comes back in the `Pong`."""


@attrs.frozen(kw_only=True)
class Pong:
    """Gives it."""

    nonce: int
    """The one of the `Ping`."""


Message = (
    Hello
    | Goodbye
    | Advert
    | LoadReport
    | Request
    | Progress
    | Started
    | Chunk
    | Reasoning
    | Response
    | Cancel
    | Credit
    | Ping
    | Pong
)
