"""The messages of a session, one a frame, as values.

Times are relative: seconds left, seconds taken, seconds of age. The clocks of
two machines are never compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import attrs

from ..capability import Capability, Load
from ._request import CommandRequest
from ._response import CommandResponse, Provenance


@attrs.frozen(kw_only=True)
class Hello:
    """The first message, both ways: who a peer is, and what it takes."""

    minor: int
    """Minor version of the protocol; the major one is in its name."""

    version: str
    """Version of punch, for people."""

    incarnation: int
    """Grows each time the peer starts."""

    namespace: str
    """The namespace that the two met in; both must name the same."""

    max_frame: int
    """Longest frame that the peer accepts, in bytes."""

    max_requests: int
    """Most requests that the peer accepts at a time on this session."""

    grant: bytes | None = None
    """The chain of grants of the peer's key, in a closed namespace."""


@attrs.frozen(kw_only=True)
class Goodbye:
    """The last message: the session ends, and why."""

    code: str
    """The `code` of an exception class; ``bye`` where nothing is wrong."""

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
    """The load of a listener's lanes, and so a sign of life; between two adverts. Minor 1."""

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
    """The backend works on the request now.

    Comes before the first chunk, so that a strict dialer knows where the text comes from before
    it delivers any.
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
    """The state of a request without text to deliver: keeps a waiting dialer informed.

    Once the backend works on the request, this is a sign of life: tokens were made since the last
    one, although their text is not sent yet, or never.
    """

    request_id: str
    """The request it is about."""

    state: Literal["queued", "loading", "working"]
    """What the request waits for: a slot, the model, or the next text of its answer."""

    ahead: int | None = None
    """Requests that are before it in the queue."""

    seconds: float | None = None
    """Seconds that this will take from now, as far as the listener can tell."""

    prompt_tokens: int | None = None
    """Tokens of the prompt, once the backend has counted them. Minor 2."""

    cached_tokens: int | None = None
    """How many of these were cached, where the backend says so. Minor 2."""


@attrs.frozen(kw_only=True)
class Response:
    """The end of a request."""

    response: CommandResponse
    """The answer, or the reason why there is none."""


@attrs.frozen(kw_only=True)
class Cancel:
    """Asks the listener to stop; answered with a `Response` whose status is ``cancelled``."""

    request_id: str
    """The request to stop."""


@attrs.frozen(kw_only=True)
class Credit:
    """Tells the listener how much more of an answer was read, so that it may send as much."""

    request_id: str
    """The answer it is about."""

    amount: int
    """Bytes of the frames that its chunks came in; towards minor 0, of their text in UTF-8."""


@attrs.frozen(kw_only=True)
class Standing:
    """News of who is a member of a closed namespace: from either side, at any time. Minor 2."""

    grant: bytes | None = None
    """The chain of grants of the sender's key, renewed; `None` if that is as it was."""

    revocations: tuple[bytes, ...] = ()
    """Removals that the sender has learnt of, each encoded and signed."""


@attrs.frozen(kw_only=True)
class Ping:
    """Asks for a sign of life."""

    nonce: int
    """Comes back in the `Pong`."""


@attrs.frozen(kw_only=True)
class Pong:
    """Answers a `Ping`."""

    nonce: int
    """The nonce of the `Ping`."""


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
    | Standing
    | Ping
    | Pong
)
