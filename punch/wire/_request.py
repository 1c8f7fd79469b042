"""The values of a request: what a dialer asks of a listener.

Nothing is checked here; what can be answered is decided by `punch.wire.checks`. What is measured of
a request is measured once for each value, when it is first asked for: a copy (`attrs.evolve`) adds
up again what its messages and tools keep, and reads none of their texts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cached_property
from typing import Any, Literal

import attrs

Command = Literal["chat", "complete", "embed", "count", "capabilities", "ping"]
Privacy = Literal["any", "whole", "own"]
Naming = Literal["near", "exact", "any"]

# Bytes of English text per token, a little low so that prompts are rather over- than
# underestimated.
BYTES_PER_TOKEN = 3.5


def size_of(*texts: str) -> int:
    """Bytes of *texts* in UTF-8; half of a surrogate pair, which has none, counts as one."""
    # Python knows of each text whether it is ASCII, without looking at it.
    return sum(
        [len(text) if text.isascii() else len(text.encode(errors="replace")) for text in texts]
    )


@attrs.frozen(kw_only=True)
class ToolCall:
    """A model asks its caller to run one of the tools."""

    id: str
    """What the tool's result refers to."""

    name: str
    """Name of the tool."""

    arguments: str
    """Arguments of the call, as JSON text; as the model wrote it, so perhaps no JSON at all."""


@attrs.frozen(kw_only=True)
class Tool:
    """A function of the caller's that the model may ask for."""

    name: str
    """1 to 64 letters, digits, ``_`` and ``-``."""

    description: str | None = None
    """What the function does, written for the model."""

    parameters: str = "{}"
    """JSON Schema of its arguments, as text; ``{}`` says nothing about them."""

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts of the tool that a model reads."""
        return self.name, self.description or "", self.parameters

    @cached_property
    def size(self) -> int:
        """Bytes of `texts`."""
        return size_of(*self.texts)


@attrs.frozen(kw_only=True)
class ContentPart:
    """A part of a turn that is not text alone."""

    type: str
    """``text``, ``image`` or ``audio``; may grow. An offer takes the types that are among its
    features; text it always takes."""

    text: str | None = None
    """What a part of type ``text`` says."""

    media_type: str | None = None
    """Media type of `data`, such as ``image/png``."""

    data: bytes | None = None
    """The picture or sound itself."""

    url: str | None = None
    """Address where the picture or sound can be fetched, in place of `data`."""


@attrs.frozen(kw_only=True)
class ChatMessage:
    """A turn of a conversation."""

    role: str
    """``system``, ``user``, ``assistant`` or ``tool``."""

    content: str
    """What was said; of a ``tool``, what it returned."""

    name: str | None = None
    """Name of the speaker, where several share a role."""

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
        """The texts of the turn that a model reads."""
        if not self.tool_calls and self.reasoning is None:
            return (self.content,)
        calls = (text for call in self.tool_calls for text in (call.name, call.arguments))
        return self.reasoning or "", self.content, *calls

    @cached_property
    def size(self) -> int:
        """Bytes of `texts`."""
        return size_of(*self.texts)


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
class Hints:
    """What a caller wishes of the choice. It stays with the dialer: no peer is told.

    A peer is named by its identity, by an end of it that no other peer has, or by the name of its
    machine, which may be that of several.
    """

    prefer: tuple[str, ...] = ()
    """Peers that are asked before any other, if they can be."""

    avoid: tuple[str, ...] = ()
    """Peers that are asked only where no other can be."""

    only: tuple[str, ...] = ()
    """The peers that may be asked at all; empty for all."""

    privacy: Privacy = "any"
    """``any`` peer may read it; ``whole``: no model that is split over several machines, each of
    which can; ``own``: only peers of the same owner, which in an open namespace are those of this
    machine, and no model that is split over machines of others."""

    min_rate: float = 0.0
    """Tokens a second that a peer must make of one answer, as far as is known; 0 for any."""

    max_load: float | None = None
    """Requests that a lane may have for each of its slots, such as 0.8, to be asked one more;
    `None` for any."""

    naming: Naming = "near"
    """How `CommandRequest.model` names the model: ``near`` by any spelling of its name, or by an
    alias; ``exact`` by the very name that it is offered under; ``any``: near, and where one model
    alone is on offer, by whatever name."""


NO_HINTS = Hints()
"""None."""


@attrs.frozen(kw_only=True)
class CommandRequest:
    """What a dialer asks of a listener."""

    request_id: str = ""
    """The caller's own, 1 to 128 printable ASCII characters; empty for a fresh UUIDv7, which
    `Router` gives it where it enters: here is neither time nor chance."""

    command: Command = "chat"
    """What the listener is to do."""

    model: str | None = None
    """Name of the model, or `None` for any. A dialer takes an alias, a digest, or another spelling
    of it as well, see `Hints.naming`; a peer is asked by the name that it offers."""

    model_digest: str | None = None
    """SHA-256 of the model file, or `None` for any."""

    offer: str | None = None
    """The id of the one offer that is wanted, or `None` for any that fits. It is no part of what
    makes two requests the same: a dialer fills it in once it has chosen a peer."""

    messages: tuple[ChatMessage, ...] = ()
    """The conversation so far, for ``chat``."""

    prompt: str | None = None
    """The text to continue, for ``complete``."""

    inputs: tuple[str, ...] = ()
    """The texts to embed, for ``embed``."""

    sampling: Sampling = Sampling()
    """How to choose tokens."""

    tools: tuple[Tool, ...] = ()
    """What the model may ask for, in a ``chat``."""

    tool_choice: str | None = None
    """``auto``, ``none``, ``required`` or ``function:NAME``; `None` is ``auto``."""

    parallel_tool_calls: bool | None = None
    """False: at most one call in the answer. True, or `None` for no matter: any number. Minor 1."""

    reasoning_effort: str | None = None
    """How much the model thinks before it answers: ``none``, ``minimal``, ``low``, ``medium``,
    ``high``; may grow. `None` leaves it to the backend. A model that cannot think passes over it.
    Minor 1."""

    reasoning_budget: int | None = None
    """Tokens that the model may think for; `None` for no limit of their own. Minor 1."""

    response_schema: str | None = None
    """JSON Schema that the answer must fit, as text; ``{}`` means any JSON object."""

    logprobs: int | None = None
    """Alternatives to give with the log-probability of each token, 0 to 20; `None` gives none."""

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
    """If the peer fails after the first text, another peer may continue the answer there."""

    continuation: str | None = None
    """Text of this answer that another peer already delivered."""

    hints: Hints = NO_HINTS
    """Whom to ask. No part of what makes two requests the same, and told to nobody."""

    @cached_property
    def needs(self) -> frozenset[str]:
        """Features that a model must have for the request, besides its command.

        They concern the form of the answer, and the types of content besides text. An answer that
        needs any comes from one peer or not at all: where tool calls, or JSON that fits a schema,
        can be continued depends on how far a grammar had come, and the log-probabilities of a
        peer that was lost are lost with it.
        """
        wanted = {
            "tools": bool(self.tools),
            "json_schema": self.response_schema is not None,
            "logprobs": self.logprobs is not None,
        }
        return self.part_types | {name for name, is_wanted in wanted.items() if is_wanted}

    @property
    def part_types(self) -> frozenset[str]:
        """The types of content in the messages besides text."""
        return frozenset(
            part.type
            for message in self.messages
            if message.parts
            for part in message.parts
            if part.type != "text"
        )

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts that a model reads, in about the order in which it reads them."""
        texts = [text for tool in self.tools for text in tool.texts]
        texts += [text for message in self.messages for text in message.texts]
        # A schema is not read by the model, but some servers write it into the prompt.
        texts += [self.response_schema or "", self.prompt or "", self.continuation or ""]
        return *texts, *self.inputs

    @cached_property
    def size(self) -> int:
        """Bytes of `texts`."""
        size = 0
        for tool in self.tools:
            size += tool.size
        for message in self.messages:
            size += message.size
        for text in (self.response_schema, self.prompt, self.continuation, *self.inputs):
            if text:
                size += size_of(text)
        return size

    @cached_property
    def prompt_tokens(self) -> int:
        """Length of `texts`, in tokens (estimated)."""
        return int(self.size / BYTES_PER_TOKEN) + 1

    @cached_property
    def fingerprint(self) -> bytes:
        """Sixteen bytes that two requests share if they ask for the same answer.

        A hash, so that an answer can be kept to be joined without keeping its prompt.
        """
        asked = [
            (name, value)
            for name, default in _ASKED
            if (value := getattr(self, name)) is not default and value != default
        ]
        return hashlib.blake2b(repr(asked).encode(errors="replace"), digest_size=16).digest()

    def without_prompt(self) -> CommandRequest:
        """The same request without the caller's texts, to be kept when they are not needed."""
        return attrs.evolve(
            self,
            messages=(),
            prompt=None,
            inputs=(),
            continuation=None,
            tools=(),
            tool_choice=None,
            parallel_tool_calls=None,
            response_schema=None,
        )


# Fields that say nothing of the answer itself: how long and how urgently its caller waits, in which
# pieces it is sent, which of the offers that fit was chosen, and what was wished of the choice.
_MAY_DIFFER = frozenset(
    {"request_id", "timeout", "priority", "stream", "stream_interval", "offer", "hints"}
)
_ASKED = tuple(
    (field.name, field.default)
    for field in attrs.fields(CommandRequest)
    if field.name not in _MAY_DIFFER
)
