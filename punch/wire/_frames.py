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
