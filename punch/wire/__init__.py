"""What travels between peers: messages, their encoding, and the session's rules. No I/O."""

from ._codec import (
    decode,
    decode_registration,
    encode,
    encode_registration,
)
from ._fingerprint import fingerprint
from ._messages import (
    Advert,
    Cancel,
    ChatMessage,
    Chunk,
    Command,
    CommandRequest,
    CommandResponse,
    Completion,
    Credit,
    Fault,
    Goodbye,
    Hello,
    Message,
    Ping,
    Pong,
    Progress,
    Provenance,
    Request,
    Response,
    Sampling,
    Segment,
    Started,
    Status,
    Timings,
    Usage,
)
from ._registration import SIGNING_CONTEXT, Join, Registration, Roster
from ._registrations import Registrations
from ._request import check_request
from ._schema import MAX_ADDRESSES, MAX_FRAME
from ._session import PROTOCOL, WINDOW, Session, State, diagram, greeting

__all__ = [
    # what is asked and answered
    "CommandRequest",
    "CommandResponse",
    "Command",
    "ChatMessage",
    "Sampling",
    "Status",
    "Completion",
    "Usage",
    "Timings",
    "Provenance",
    "Fault",
    "Segment",
    # the messages of a session
    "Message",
    "Hello",
    "Goodbye",
    "Advert",
    "Request",
    "Progress",
    "Started",
    "Chunk",
    "Response",
    "Cancel",
    "Credit",
    "Ping",
    "Pong",
    # a session, without I/O
    "PROTOCOL",
    "WINDOW",
    "Session",
    "State",
    "greeting",
    "diagram",
    # meeting at a bootstrap
    "SIGNING_CONTEXT",
    "Registration",
    "Join",
    "Roster",
    "Registrations",
    "MAX_ADDRESSES",
    # encoding
    "MAX_FRAME",
    "encode",
    "decode",
    "encode_registration",
    "decode_registration",
    "check_request",
    "fingerprint",
]
