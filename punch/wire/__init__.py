"""What travels between peers: messages, their encoding, and the session's rules. No I/O."""

from ._codec import Encoded, decode, decode_registration, encode, encode_registration
from ._fingerprint import fingerprint
from ._frame_buffer import FrameBuffer
from ._limits import (
    LIMITS,
    MAX_ADDRESSES,
    MAX_ARGUMENTS_CHARACTERS,
    MAX_FRAME_BYTES,
    MAX_LOGPROBS,
    MAX_NAME_CHARACTERS,
    MAX_TOKEN_CHARACTERS,
    MAX_TOOL_CALLS,
    MIN_LOGPROB,
    SAMPLING_NUMBERS,
    Limit,
)
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
    LoadReport,
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
    TokenLogprob,
    Tool,
    ToolCall,
    Usage,
)
from ._registration import SIGNING_CONTEXT, Join, Registration, Roster
from ._registrations import Registrations
from ._request import check_request
from ._schema import MINOR
from ._session import PROTOCOL, WINDOW, Session, State, diagram, greeting

__all__ = [
    # what is asked and answered
    "CommandRequest",
    "CommandResponse",
    "Command",
    "ChatMessage",
    "Tool",
    "ToolCall",
    "Sampling",
    "Status",
    "Completion",
    "TokenLogprob",
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
    "LoadReport",
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
    "MINOR",
    "FrameBuffer",
    "Encoded",
    # what may be in a message
    "LIMITS",
    "Limit",
    "SAMPLING_NUMBERS",
    "MAX_FRAME_BYTES",
    "MAX_TOOL_CALLS",
    "MAX_ARGUMENTS_CHARACTERS",
    "MAX_NAME_CHARACTERS",
    "MAX_LOGPROBS",
    "MAX_TOKEN_CHARACTERS",
    "MIN_LOGPROB",
    # encoding
    "encode",
    "decode",
    "encode_registration",
    "decode_registration",
    "check_request",
    "fingerprint",
]
