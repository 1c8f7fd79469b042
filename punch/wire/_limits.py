"""The one table of limits: what each field of a request may be.

Every limit of a request stands here and nowhere else. From this table come what the codec reads,
what `check_request` lets through, what the gateway's bodies and /openapi.json say, what the
command line and the settings accept, and the table in docs/protocol.md.

Where an interface accepts less than peers do (OpenAI's four `stop`), that is a rule of the
interface and stands there. Accepting more than this is always wrong: the request would pass the
door and be refused by the peer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import attrs

# Room for a long conversation (8 MiB is some two million tokens of English), small enough that
# a thousand hostile peers with one frame each do not fill a machine.
MAX_FRAME_BYTES = 8 << 20

# The rest of the frame is for everything that is not the caller's text.
MAX_TEXT_BYTES = MAX_FRAME_BYTES - (256 << 10)

# A map or array with more entries than this is no message of ours.
MAX_ENTRIES = 1 << 16

# A peer has an address or two by each transport; a bootstrap keeps thousands of registrations.
MAX_ADDRESSES = 8
MAX_LISTENER_REGISTRATION_BYTES = 2048
# Of a peer that is no listener: only members of minor 1 and above hear of it.
MAX_REGISTRATION_BYTES = 4096
# Listeners that a dialer says at a time it could not dial: a few hundred bytes of a join.
MAX_REACH = 4
# As many roles as a peer may say it has, known or not.
MAX_ROLES = 16

# A machine runs a few engines; more lanes than this are no claim of ours.
MAX_LANES = 64

# Of all lanes together; an adopted server may list many.
MAX_OFFERS = 1024

# Why a lane is as it is, in a sentence.
MAX_REASON_CHARACTERS = 256

# A chain of four grants, which must fit the first frame of a session beside the longest namespace;
# and the root's public key, with what libp2p writes around it.
MAX_GRANT_BYTES = 2560
MAX_KEY_BYTES = 64

# A removal with the chain of who signed it and what is kept of the removed one's grants. So many of
# them at a time; who knows more sends several messages.
MAX_REVOCATION_BYTES = 8192
MAX_REVOCATIONS = 64

# More turns than people have; their keys alone take a tenth of the containers of a frame.
MAX_MESSAGES = 4096

# Pictures and sounds of one turn, each with a text between them; and what one of them may have, so
# that a few fit a frame.
MAX_PARTS = 128
MAX_REQUEST_PARTS = 4096
MAX_PART_BYTES = 6 << 20
# Pictures of one request, all together, as a gateway takes them.
MAX_PICTURE_BYTES = 5 << 20
MAX_URL_CHARACTERS = 8192
MAX_MEDIA_TYPE_CHARACTERS = 128

# As many texts as OpenAI embeds at once.
MAX_INPUTS = 2048

# OpenAI takes as many tools; with the schemas of more, little of any context is left.
MAX_TOOLS = 128
MAX_SCHEMA_CHARACTERS = 256 << 10

# Calls of one turn. No model that was seen makes more than a dozen.
MAX_TOOL_CALLS = 128
MAX_ARGUMENTS_CHARACTERS = 512 << 10

# Of all messages together: with this many maps more, a request still fits one frame.
MAX_REQUEST_TOOL_CALLS = 4096

# A server turns a schema into a grammar by recursion in native code: far below what would
# overflow its stack, far above what people write.
MAX_JSON_LEVELS = 64

# Tokens of one answer that come with log-probabilities, each with so many alternatives at most,
# as OpenAI has it. With a tokenizer's usual tokens they take a third of a frame.
MAX_LOGPROBS = 8192
MAX_ALTERNATIVES = 20

# No token of any tokenizer is longer; no probability that a 32-bit float holds is less likely.
MAX_TOKEN_CHARACTERS = 1024
MIN_LOGPROB = -1e4

# Peers that a request prefers, avoids, or is limited to, of each: people have a few dozen. As long
# as an identity.
MAX_HINTS = 32
MAX_PEER_CHARACTERS = 128

# Names of models, tools and calls are shown in tables and logs.
MAX_NAME_CHARACTERS = 256


@attrs.frozen
class Limit:
    """What the value of one field may be; both ends are allowed."""

    type: type[int | float | str | bytes | tuple[object, ...]]
    """Of a number, the limits are for itself; of a text, bytes or a list, for its length."""

    least: float
    """The smallest value, or the shortest length."""

    most: float
    """The largest value, or the longest length."""

    unit: str = ""
    """What is counted, and of a text also which characters it may have."""

    pattern: re.Pattern[str] | None = None
    """What a text must match as a whole; its lengths are in the pattern too."""

    printable: bool = False
    """A text is shown in tables and logs: one line, and nothing a terminal would obey."""

    above: bool = False
    """*least* itself asks for nothing that could be done, and is refused by `check_request`."""

    @property
    def span(self) -> str:
        """Both ends, in words: ``1 to 256``, or ``64`` where there is one only."""
        return f"{self.most}" if self.least == self.most else f"{self.least} to {self.most}"

    def allows(self, value: float) -> bool:
        """Whether a number, or a length, is within the limits; NaN is not."""
        return self.least <= value <= self.most and not (self.above and value == self.least)


_NAME = Limit(str, 1, MAX_NAME_CHARACTERS, "printable characters", printable=True)
_SCHEMA = Limit(str, 1, MAX_SCHEMA_CHARACTERS, "characters")
_PENALTY = Limit(float, -2, 2)

# What `Sampling` holds besides `stop`: one number each.
SAMPLING_NUMBERS = (
    *("max_tokens", "temperature", "top_p", "top_k", "min_p", "repeat_penalty"),
    *("presence_penalty", "frequency_penalty", "seed"),
)

LIMITS: Mapping[str, Limit] = {
    "request_id": Limit(
        str, 1, 128, "printable ASCII characters without spaces", re.compile(r"[!-~]{1,128}")
    ),
    "model": _NAME,
    "model_digest": Limit(
        str, 64, 64, "hexadecimal digits, in small letters", re.compile(r"[0-9a-f]{64}")
    ),
    # As its peer has named it in the advert.
    "offer": Limit(str, 1, 64, "printable characters", printable=True),
    "messages": Limit(tuple, 0, MAX_MESSAGES, "entries"),
    "messages[].name": _NAME,
    "messages[].parts": Limit(tuple, 0, MAX_PARTS, "entries"),
    "messages[].parts[].type": Limit(str, 1, 32, "printable characters", printable=True),
    "messages[].parts[].media_type": Limit(
        str, 1, MAX_MEDIA_TYPE_CHARACTERS, "printable characters", printable=True
    ),
    "messages[].parts[].data": Limit(bytes, 0, MAX_PART_BYTES, "bytes"),
    "messages[].parts[].url": Limit(
        str, 1, MAX_URL_CHARACTERS, "printable characters", printable=True
    ),
    "messages[].tool_call_id": _NAME,
    "messages[].tool_calls": Limit(tuple, 0, MAX_TOOL_CALLS, "entries"),
    "messages[].tool_calls[].id": _NAME,
    "messages[].tool_calls[].name": _NAME,
    "messages[].tool_calls[].arguments": Limit(str, 0, MAX_ARGUMENTS_CHARACTERS, "characters"),
    "inputs": Limit(tuple, 0, MAX_INPUTS, "entries"),
    # OpenAI's rule; a grammar or a template may choke on anything else.
    "tools": Limit(tuple, 0, MAX_TOOLS, "entries"),
    "tools[].name": Limit(
        str, 1, 64, "letters, digits, underscores and dashes", re.compile(r"[a-zA-Z0-9_-]{1,64}")
    ),
    "tools[].parameters": _SCHEMA,
    # ``function:`` and the longest name of a tool, with room to spare.
    "tool_choice": Limit(str, 1, 128, "printable characters", printable=True),
    "reasoning_effort": Limit(str, 1, 32, "printable characters", printable=True),
    "reasoning_budget": Limit(int, 0, 1 << 40, "tokens"),
    "response_schema": _SCHEMA,
    "logprobs": Limit(int, 0, MAX_ALTERNATIVES, "alternatives"),
    # No context is as long; a counter of 53 bits still holds the sum of many.
    "max_tokens": Limit(int, 1, 1 << 40, "tokens"),
    "temperature": Limit(float, 0, 100),
    "top_p": Limit(float, 0, 1),
    "top_k": Limit(int, 0, 1 << 31, "tokens"),
    "min_p": Limit(float, 0, 1),
    "repeat_penalty": Limit(float, 0, 100),
    # OpenAI's range.
    "presence_penalty": _PENALTY,
    "frequency_penalty": _PENALTY,
    "stop": Limit(tuple, 0, 16, "entries"),
    "stop[]": Limit(str, 1, 1024, "characters"),
    # As long as an integer of msgpack.
    "seed": Limit(int, 0, (1 << 64) - 1),
    # Between two chunks; for a longer wait the answer can be had in one piece.
    "stream_interval": Limit(float, 0, 1, "seconds"),
    # More than thirty years: as good as none.
    "timeout": Limit(float, 0, 1e9, "seconds", above=True),
    "priority": Limit(int, -100, 100),
}
"""Field of a request, as `InvalidRequest.param` names it without its indices, to its limit."""
