"""The table of settings of a peer that answers: the listener's own, and those of its backends."""

from __future__ import annotations

from ..peers import checked_name
from ..wire import without_secrets
from ._member_limits import MemberLimits
from ._rules import (
    PATH_OR_NAME,
    POSITIVE,
    SWITCH,
    TEXT,
    WORD,
    Rule,
    count,
    count_within,
    number,
    one_of,
)
from ._setting import optional, setting, several
from ._tunnel_ports import TUNNEL_PORT_RULE

BACKENDS = ("mock", "llama_cpp", "embedded", "llama_cpp_python", "openai")

# ---- listener ----

LISTEN = several(
    "listen",
    TEXT,
    section="listener",
    metavar="ADDRESS",
    help="address to be dialled at, may be given several times",
    shown_default="this machine's side of the way to the bootstrap, port 21820 or the next",
)
ANNOUNCE = several(
    "announce",
    TEXT,
    section="listener",
    metavar="ADDRESS",
    help="address that others are told besides, such as a router's that forwards to this machine",
)
NAME = optional(
    "name",
    Rule(checked_name),
    section="listener",
    help="what people call this machine: told to the peers, and shown in the place of its identity",
)
BACKEND = setting(
    "backend",
    one_of(*BACKENDS),
    BACKENDS[0],
    section="listener",
    variable="PUNCH_INFERENCE_BACKEND",
    metavar="NAME",
    help=f"{', '.join(BACKENDS[:-1])} or {BACKENDS[-1]}; see INFERENCE.md",
)
MODEL_FILE = optional(
    "model",
    PATH_OR_NAME,
    section="listener",
    variable="LLAMA_GGUF_PATH",
    metavar="FILE",
    help="the model, as a GGUF file or the name of one that was pulled",
)
SLOTS = optional(
    "slots",
    count(1),
    section="listener",
    metavar="N",
    help="requests to answer side by side",
    shown_default="the backend's own",
)
CONTEXT = optional(
    "context",
    count(1),
    section="listener",
    metavar="TOKENS",
    help="longest prompt and answer of one request",
    shown_default="4096, or less if the model has less",
)
FEATURES = several(
    "features",
    one_of("chat", "complete", "embed", "tools", "json_schema", "logprobs", "reasoning", "image"),
    section="listener",
    metavar="WORD",
    help="what the models of a server behind openai can do, in place of what it tells: chat, "
    "complete, embed, tools, json_schema, logprobs, reasoning, image",
    shown_default="what the server tells",
)
QUEUE = setting(
    "queue",
    count(0),
    16,
    section="listener",
    metavar="N",
    help="requests that may wait for a slot; further ones are refused",
)
CALIBRATE = setting(
    "calibrate",
    SWITCH,
    True,
    section="listener",
    help="time the backend at the start, so that dialers know its speed",
)
STRANGER_TOKENS = optional(
    "stranger_tokens",
    count_within("max_tokens"),
    section="listener",
    metavar="TOKENS",
    help="longest answer for peers of other machines; a request for more is refused",
    shown_default="the model's context",
)
STRANGER_SECONDS = optional(
    "stranger_seconds",
    POSITIVE,
    section="listener",
    metavar="SECONDS",
    help="time that an answer for a peer of another machine may take; a longer one is refused",
    shown_default="3600, as for all",
)
STRANGER_PRIORITY = optional(
    "stranger_priority",
    count_within("priority"),
    section="listener",
    metavar="N",
    help="highest priority for peers of other machines; a request with a higher one is refused",
    shown_default="100, as for all",
)

# A name of a machine may have a space in it, and the words of one member have commas between them.
LIMITS_OF_MEMBERS = several(
    "limit",
    Rule(MemberLimits.of),
    section="listener",
    metavar="MEMBER,WORD=VALUE",
    separators=";\n",
    help="what a member of a closed namespace may ask for, by its machine's name or identity: "
    "model (several, * for any characters), tokens, seconds, priority, hours; such as "
    "laptop,model=llama*,tokens=500,hours=22-7; may be given several times",
)

TUNNEL_PORTS = several(
    "tunnel_ports",
    TUNNEL_PORT_RULE,
    section="listener",
    flag="--open-port",
    variable="PUNCH_TUNNEL_PORTS",
    metavar="NAME=PORT[@PEER_ID]",
    help="port of this machine that peers reach by `punch tunnel`, for any program there; may be "
    "given several times. In a closed namespace for its members, or for the peer that is named; in "
    "an open one for the peers that are named alone",
)

# ---- the backends: variables, and no flags ----

LLAMA_CPP_EXE = optional(
    "program",
    PATH_OR_NAME,
    section="llama_cpp",
    flag="",
    variable="LLAMA_CPP_EXE",
    help="llama-server, llama-cli or llama-completion",
)
LLAMA_THREADS = optional(
    "threads",
    count(1),
    section="llama_cpp",
    flag="",
    variable="LLAMA_THREADS",
    help="threads to compute with",
    shown_default="CPU count",
)
LLAMA_NO_MMAP = setting(
    "no_mmap",
    SWITCH,
    True,
    section="llama_cpp",
    flag="",
    variable="LLAMA_NO_MMAP",
    empty_is_no=False,
    help="read the model into memory instead of mapping it",
)
LLAMA_GPU_LAYERS = optional(
    "gpu_layers",
    count(0),
    section="llama_cpp",
    flag="",
    variable="LLAMA_GPU_LAYERS",
    help="layers on GPUs",
    shown_default="the engine's choice",
)
LLAMA_BATCH = optional(
    "batch",
    count(1),
    section="llama_cpp",
    flag="",
    variable="LLAMA_BATCH",
    help="tokens of a prompt that are taken at once, of all requests together",
    shown_default="the engine's choice, 2048",
)
LLAMA_UBATCH = optional(
    "micro_batch",
    count(1),
    section="llama_cpp",
    flag="",
    variable="LLAMA_UBATCH",
    help="tokens of these that are computed at once; more is quicker on a GPU and takes memory",
    shown_default="the engine's choice, 512",
)
OPENAI_URL = optional(
    "url",
    WORD,
    section="openai",
    flag="",
    variable="PUNCH_OPENAI_URL",
    hides=without_secrets,
    help="address of the server, with or without /v1",
)
OPENAI_KEY = optional(
    "key",
    WORD,
    section="openai",
    flag="",
    variable="PUNCH_OPENAI_KEY",
    secret=True,
    help="its key",
)
OPENAI_MODEL = optional(
    "model",
    WORD,
    section="openai",
    flag="",
    variable="PUNCH_OPENAI_MODEL",
    help="offer this one of its models only",
    shown_default="all of them",
)
MOCK_DECODE_RATE = optional(
    "decode_rate",
    POSITIVE,
    section="mock",
    flag="",
    variable="PUNCH_MOCK_DECODE_RATE",
    help="tokens per second",
    shown_default="at once",
)
MOCK_PREFILL_RATE = optional(
    "prefill_rate",
    POSITIVE,
    section="mock",
    flag="",
    variable="PUNCH_MOCK_PREFILL_RATE",
    help="prompt tokens per second",
    shown_default="at once",
)
MOCK_DELAY = setting(
    "delay",
    number(0, 86_400),
    0.0,
    section="mock",
    flag="",
    variable="PUNCH_MOCK_DELAY",
    help="seconds before anything happens",
)
MOCK_FAIL_AFTER = optional(
    "fail_after",
    count(0),
    section="mock",
    flag="",
    variable="PUNCH_MOCK_FAIL_AFTER",
    help="tokens after which every answer fails",
    shown_default="never",
)
MOCK_THINKS = setting(
    "thinks",
    count(0),
    0,
    section="mock",
    flag="",
    variable="PUNCH_MOCK_THINKS",
    help="tokens that it thinks before an answer of usual effort; 0 for a model that cannot",
)
MOCK_SEES = setting(
    "sees",
    SWITCH,
    False,
    section="mock",
    flag="",
    variable="PUNCH_MOCK_SEES",
    help="take pictures, and see nothing of them",
)
MOCK_MODEL = setting(
    "model",
    WORD,
    "mock",
    section="mock",
    flag="",
    variable="PUNCH_MOCK_MODEL",
    help="the model it pretends to be",
)
