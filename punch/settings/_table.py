"""All settings of punch, by the section of the file that they are in.

What only makes sense for one run (the question, the id of a request, ``--json``) is in no
section: it has a flag and a variable, and the file cannot say it.
"""

from __future__ import annotations

from typing import Literal

from ..discovery import DEFAULT_BOOTSTRAP, DEFAULT_NAMESPACE
from ..routing import POLICIES
from ..wire import LIMITS
from ._rules import PATH, PATH_OR_NAME, POSITIVE, SWITCH, TEXT, WORD, Rule, count, number, one_of
from ._setting import Setting, optional, setting, several

BACKENDS = ("mock", "llama_cpp", "embedded", "llama_cpp_python", "openai")
LEVELS = ("debug", "info", "warning", "error")

# Above Ollama's 11434, so that both can be there. The gateway's room has the same number: it is
# not asked, as it brings an HTTP server with it.
DEFAULT_GATEWAY_PORT = 11435

Transport = Literal["tcp", "quic", "dual"]
TRANSPORTS: Rule[Transport] = one_of("tcp", "quic", "dual")


def _whole(name: str) -> Rule[int]:
    """Whole numbers within the limits that the field *name* of a request has."""
    return count(int(LIMITS[name].least), most=int(LIMITS[name].most))


def _real(name: str) -> Rule[float]:
    """Numbers within the limits that the field *name* of a request has."""
    limit = LIMITS[name]
    return number(limit.least, limit.most, above=limit.above)


# ---- general ----

STRICT = setting(
    "strict",
    SWITCH,
    False,
    section="general",
    variable="PUNCH_STRICT_DISTRIBUTED",
    help="real inference only, never simulated; PUNCH_DISABLE_SIMULATION=1 does the same",
)
DISABLE_SIMULATION = setting(
    "disable_simulation",
    SWITCH,
    False,
    section="general",
    flag="",
    help="real inference only: the same as strict, which cannot turn it off",
)
LOG_LEVEL = setting(
    "log_level",
    one_of(*LEVELS),
    "info",
    section="general",
    metavar="|".join(LEVELS),
    help="what goes to standard error",
    shown_default="info; warning for programs that ask",
)

# ---- network ----

BOOTSTRAP = setting(
    "bootstrap",
    TEXT,
    DEFAULT_BOOTSTRAP,
    section="network",
    metavar="ADDRESS",
    help="where the peers of the namespace meet, with or without /p2p/PEER_ID",
)
NAMESPACE = setting(
    "namespace",
    TEXT,
    DEFAULT_NAMESPACE,
    section="network",
    metavar="NAME",
    help="only peers of the same namespace see each other",
)
TRANSPORT = setting(
    "transport",
    TRANSPORTS,
    "tcp",
    section="network",
    metavar="tcp|quic|dual",
    help="what to dial and listen with",
)
KNOWN_PEERS = optional(
    "known_peers",
    PATH,
    section="network",
    metavar="FILE",
    help="who was at which bootstrap address before",
    shown_default="known_peers in the data folder",
)

# ---- routing ----

POLICY = setting(
    "policy",
    one_of(*POLICIES),
    "completion-time",
    section="routing",
    metavar="NAME",
    help=f"how to choose: {', '.join(POLICIES)}",
)
HEDGE = setting(
    "hedge",
    SWITCH,
    False,
    section="routing",
    help="ask a second peer when the first is late; the quicker one answers",
)
DECISION_LOG = optional(
    "decision_log",
    Rule(str, kind="path"),
    section="routing",
    metavar="FILE",
    help="note every choice and what came of it, without any text, for `punch why`; none for not",
    shown_default="decisions.jsonl in the data folder",
)


def _identity(section: str) -> Setting[str | None]:
    # Of each program its own: two peers with one identity would be one.
    return optional(
        "identity",
        Rule(str, kind="path"),
        section=section,
        metavar="FILE",
        help="key of this peer, made if it is not there",
        shown_default="one of its own in the data folder",
    )


# ---- listener ----

LISTEN = several(
    "listen",
    TEXT,
    section="listener",
    metavar="ADDRESS",
    help="address to be dialled at, may be given several times",
    shown_default="this machine's side of the way to the bootstrap, any port",
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
LISTENER_IDENTITY = _identity("listener")

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
OPENAI_URL = optional(
    "url",
    WORD,
    section="openai",
    flag="",
    variable="PUNCH_OPENAI_URL",
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
MOCK_MODEL = setting(
    "model",
    WORD,
    "mock",
    section="mock",
    flag="",
    variable="PUNCH_MOCK_MODEL",
    help="the model it pretends to be",
)

# ---- dialer ----

ASK = optional(
    "ask",
    TEXT,
    metavar="TEXT",
    help="the question; - reads it from standard input; without it, a conversation",
)
REQUEST_ID = optional(
    "request_id",
    TEXT,
    metavar="ID",
    help="your own id for the request",
    shown_default="a fresh UUIDv7",
)
RESPONSE_AS_JSON = setting(
    "json", SWITCH, False, help="print the whole response as one JSON object on one line"
)
MODEL_NAME = optional(
    "model",
    TEXT,
    section="dialer",
    metavar="NAME",
    help="name of the model",
    shown_default="any",
)
STREAM = setting("stream", SWITCH, True, section="dialer", help="print the answer as it is made")
EXPLAIN = setting(
    "explain",
    SWITCH,
    False,
    section="dialer",
    help="print on standard error who could have answered, and why it was this one",
)
CONTINUATION = setting(
    "continuation",
    SWITCH,
    True,
    section="dialer",
    help="if a peer fails in the middle of the answer, let another one continue it",
)
TIMEOUT = setting(
    "timeout",
    _real("timeout"),
    300.0,
    section="dialer",
    metavar="SECONDS",
    help="when to give up",
)
SYSTEM = optional("system", TEXT, section="dialer", metavar="TEXT", help="the system message")
MAX_TOKENS = optional(
    "max_tokens",
    _whole("max_tokens"),
    section="dialer",
    metavar="N",
    help="longest answer",
    shown_default="the backend's own",
)
TEMPERATURE = optional(
    "temperature",
    _real("temperature"),
    section="dialer",
    metavar="T",
    help="0 always takes the likeliest token",
    shown_default="the backend's own",
)
TOP_P = optional("top_p", _real("top_p"), section="dialer", metavar="P", help="nucleus sampling")
TOP_K = optional(
    "top_k", _whole("top_k"), section="dialer", metavar="K", help="keep the K likeliest tokens"
)
MIN_P = optional(
    "min_p", _real("min_p"), section="dialer", metavar="P", help="drop unlikely tokens"
)
REPEAT_PENALTY = optional(
    "repeat_penalty",
    _real("repeat_penalty"),
    section="dialer",
    metavar="X",
    help="above 1: repeat less",
)
STOP = several(
    "stop",
    TEXT,
    section="dialer",
    metavar="TEXT",
    # A comma may be where to stop.
    separators=" \t\n",
    help="end before this text, may be given several times",
)
SEED = optional(
    "seed", _whole("seed"), section="dialer", metavar="N", help="for the same answer again"
)
DIALER_IDENTITY = _identity("dialer")

# ---- gateway ----

HOST = setting(
    "host",
    TEXT,
    "127.0.0.1",
    section="gateway",
    metavar="ADDRESS",
    help="interface to serve on; any but loopback needs API keys, or --open-to-all",
)
PORT = setting(
    "port",
    count(0, most=65_535),
    DEFAULT_GATEWAY_PORT,
    section="gateway",
    variable="PUNCH_GATEWAY_PORT",
    metavar="PORT",
    help="port to serve on; 0 for any that is free",
)
KEYS = optional(
    "keys",
    PATH,
    section="gateway",
    metavar="FILE",
    help="the gateway's API keys, and what they used",
    shown_default="gateway.sqlite3 in the data folder",
)
OPEN_TO_ALL = setting(
    "open_to_all",
    SWITCH,
    False,
    section="gateway",
    help="let everybody ask who reaches the interface, with no API key",
)
ALLOW_ORIGIN = several(
    "allow_origin",
    TEXT,
    section="gateway",
    metavar="ORIGIN",
    help="web page whose scripts may ask, such as https://example.org; * for all; "
    "may be given several times",
)
BODY_LIMIT = setting(
    "body_limit",
    count(1, scale=1 << 20),
    32 << 20,
    section="gateway",
    metavar="MIB",
    help="longest request body",
    shown_default="32",
)
GATEWAY_TIMEOUT = setting(
    "timeout",
    _real("timeout"),
    300.0,
    section="gateway",
    metavar="SECONDS",
    help="when to give up on an answer, where the caller does not say",
)
SHOW_PROMPTS = setting(
    "show_prompts",
    SWITCH,
    False,
    section="gateway",
    help="show on the dashboard what was asked",
)
LISTEN_TOO = setting(
    "listen_too",
    SWITCH,
    False,
    section="gateway",
    help="answer as well: be a listener in the same process, with the options below",
)
TRACES = optional(
    "traces",
    WORD,
    section="gateway",
    flag="",
    variable="OTEL_EXPORTER_OTLP_ENDPOINT",
    metavar="URL",
    help="the OpenTelemetry collector that gets a trace of each request",
)
GATEWAY_IDENTITY = _identity("gateway")

# ---- bootstrap ----

MEETING_ADDRESS = setting(
    "listen",
    TEXT,
    DEFAULT_BOOTSTRAP,
    section="bootstrap",
    variable="PUNCH_BOOTSTRAP",
    metavar="ADDRESS",
    help="where to be found, as /ip4/HOST/tcp/PORT; the transport option adds the other one",
)
BOOTSTRAP_TRANSPORT = setting(
    "transport",
    TRANSPORTS,
    "dual",
    section="bootstrap",
    metavar="tcp|quic|dual",
    help="what to listen with",
)
BOOTSTRAP_IDENTITY = _identity("bootstrap")

# In the order in which `punch settings list` shows them.
SETTINGS: tuple[Setting[object], ...] = (
    STRICT,
    DISABLE_SIMULATION,
    LOG_LEVEL,
    BOOTSTRAP,
    NAMESPACE,
    TRANSPORT,
    KNOWN_PEERS,
    POLICY,
    HEDGE,
    DECISION_LOG,
    LISTEN,
    BACKEND,
    MODEL_FILE,
    SLOTS,
    CONTEXT,
    QUEUE,
    CALIBRATE,
    LISTENER_IDENTITY,
    LLAMA_CPP_EXE,
    LLAMA_THREADS,
    LLAMA_NO_MMAP,
    LLAMA_GPU_LAYERS,
    OPENAI_URL,
    OPENAI_KEY,
    OPENAI_MODEL,
    MOCK_DECODE_RATE,
    MOCK_PREFILL_RATE,
    MOCK_DELAY,
    MOCK_FAIL_AFTER,
    MOCK_MODEL,
    MODEL_NAME,
    STREAM,
    EXPLAIN,
    CONTINUATION,
    TIMEOUT,
    SYSTEM,
    MAX_TOKENS,
    TEMPERATURE,
    TOP_P,
    TOP_K,
    MIN_P,
    REPEAT_PENALTY,
    STOP,
    SEED,
    DIALER_IDENTITY,
    HOST,
    PORT,
    KEYS,
    OPEN_TO_ALL,
    ALLOW_ORIGIN,
    BODY_LIMIT,
    GATEWAY_TIMEOUT,
    SHOW_PROMPTS,
    LISTEN_TOO,
    TRACES,
    GATEWAY_IDENTITY,
    MEETING_ADDRESS,
    BOOTSTRAP_TRANSPORT,
    BOOTSTRAP_IDENTITY,
)

SECTIONS = tuple(dict.fromkeys(each.section for each in SETTINGS if each.section))
