"""What travels between peers: messages, their limits, their encoding, the rules of a session.

No I/O: bytes come in and go out as arguments. Who may be a peer is decided by `punch.access`.
"""

from ._belief import believed, reasoning_within
from ._codec import Encoded, decode, decode_registration, encode, encode_registration
from ._estimates import DEFAULT_OUTPUT_TOKENS, tokens_of, usual_output
from ._fingerprint import fingerprint
from ._frame_buffer import FrameBuffer
from ._frames import (
    Advert,
    Cancel,
    Chunk,
    Credit,
    Goodbye,
    Hello,
    LoadReport,
    Message,
    Ping,
    Pong,
    Progress,
    Reasoning,
    Request,
    Response,
    Started,
)
from ._limits import (
    LIMITS,
    MAX_ADDRESSES,
    MAX_ARGUMENTS_CHARACTERS,
    MAX_FRAME_BYTES,
    MAX_LOGPROBS,
    MAX_NAME_CHARACTERS,
    MAX_OFFERS,
    MAX_REACH,
    MAX_REASON_CHARACTERS,
    MAX_TOKEN_CHARACTERS,
    MAX_TOOL_CALLS,
    MIN_LOGPROB,
    SAMPLING_NUMBERS,
    Limit,
)
from ._redaction import (
    HIDDEN,
    MAX_WORD_CHARACTERS,
    Secrets,
    bounded,
    clean_name,
    quoted,
    scrubbed,
    short_word,
    tell_apart,
    without_secrets,
)
from ._registration import SHARED_IDENTITY, SIGNING_CONTEXT, Join, Reach, Registration, Roster
from ._registrations import RegistrationLimits, Registrations
from ._request import (
    NO_HINTS,
    ChatMessage,
    Command,
    CommandRequest,
    ContentPart,
    Hints,
    Naming,
    Privacy,
    Sampling,
    Tool,
    ToolCall,
)
from ._response import (
    CommandResponse,
    Completion,
    Fault,
    Provenance,
    Segment,
    Status,
    Thought,
    Timings,
    TokenLogprob,
    Usage,
)
from ._schema import MINOR, fault_of_offer
from ._session import PROTOCOL, WINDOW, Session, State, diagram, greeting
from .checks import broken_rule, check_request

__all__ = [
    # what is asked and answered
    "CommandRequest",
    "CommandResponse",
    "Command",
    "ChatMessage",
    "ContentPart",
    "Tool",
    "ToolCall",
    "Sampling",
    "Hints",
    "NO_HINTS",
    "Privacy",
    "Naming",
    "Status",
    "Completion",
    "Thought",
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
    "Reasoning",
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
    "SHARED_IDENTITY",
    "Registration",
    "Join",
    "Roster",
    "Reach",
    "Registrations",
    "RegistrationLimits",
    "MAX_ADDRESSES",
    "MAX_REACH",
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
    "MAX_OFFERS",
    "MAX_REASON_CHARACTERS",
    "MAX_LOGPROBS",
    "MAX_TOKEN_CHARACTERS",
    "MIN_LOGPROB",
    # encoding
    "encode",
    "decode",
    "encode_registration",
    "decode_registration",
    "broken_rule",
    "check_request",
    "fingerprint",
    # what is known of it before it is answered, and what may be told of it afterwards
    "tokens_of",
    "usual_output",
    "DEFAULT_OUTPUT_TOKENS",
    "scrubbed",
    "quoted",
    "believed",
    "reasoning_within",
    "bounded",
    "short_word",
    "MAX_WORD_CHARACTERS",
    "Secrets",
    "HIDDEN",
    "without_secrets",
    # names, and what has one
    "fault_of_offer",
    "clean_name",
    "tell_apart",
]
