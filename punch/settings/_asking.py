"""The table of settings of a peer that asks: the dialer's, and those of a gateway before it."""

from __future__ import annotations

from ..wire import Privacy, without_secrets
from ._rules import (
    PATH,
    SWITCH,
    TEXT,
    WORD,
    Rule,
    count,
    count_within,
    number,
    number_within,
    one_of,
)
from ._setting import Setting, optional, setting, several

# Above Ollama's 11434, so that both can be there. The gateway's room has the same number: it is
# not asked, as it brings an HTTP server with it.
DEFAULT_GATEWAY_PORT = 11435

PRIVACIES: Rule[Privacy] = one_of("any", "whole", "own")


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
PREFER = several(
    "prefer",
    WORD,
    section="dialer",
    metavar="PEER",
    help="peer to ask before any other, by its identity, an end of it, or its machine's name; may "
    "be given several times",
)
AVOID = several(
    "avoid", WORD, section="dialer", metavar="PEER", help="peer to ask only where no other can be"
)
ONLY = several(
    "only", WORD, section="dialer", metavar="PEER", help="peer that may be asked, and no other"
)
PRIVACY: Setting[Privacy] = setting(
    "privacy",
    PRIVACIES,
    "any",
    section="dialer",
    metavar="any|whole|own",
    help="whole: no model that is split over machines; own: only peers of the same owner",
)
MIN_RATE = setting(
    "min_rate",
    number(0.0, 1e6),
    0.0,
    section="dialer",
    metavar="N",
    help="tokens a second that a peer must make to be asked, as far as is known",
)
MAX_LOAD = optional(
    "max_load",
    number(0.0, 1e6),
    section="dialer",
    metavar="X",
    help="requests that a peer may have for each of its slots to be asked one more, such as 0.8",
    shown_default="any",
)
TIMEOUT = setting(
    "timeout",
    number_within("timeout"),
    300.0,
    section="dialer",
    metavar="SECONDS",
    help="when to give up",
)
SYSTEM = optional("system", TEXT, section="dialer", metavar="TEXT", help="the system message")
MAX_TOKENS = optional(
    "max_tokens",
    count_within("max_tokens"),
    section="dialer",
    metavar="N",
    help="longest answer",
    shown_default="the backend's own",
)
TEMPERATURE = optional(
    "temperature",
    number_within("temperature"),
    section="dialer",
    metavar="T",
    help="0 always takes the likeliest token",
    shown_default="the backend's own",
)
TOP_P = optional(
    "top_p", number_within("top_p"), section="dialer", metavar="P", help="nucleus sampling"
)
TOP_K = optional(
    "top_k",
    count_within("top_k"),
    section="dialer",
    metavar="K",
    help="keep the K likeliest tokens",
)
MIN_P = optional(
    "min_p", number_within("min_p"), section="dialer", metavar="P", help="drop unlikely tokens"
)
REPEAT_PENALTY = optional(
    "repeat_penalty",
    number_within("repeat_penalty"),
    section="dialer",
    metavar="X",
    help="above 1: repeat less",
)
STOP = several(
    "stop",
    TEXT,
    section="dialer",
    metavar="TEXT",
    # A stop sequence may have a comma in it.
    separators=" \t\n",
    help="end before this text, may be given several times",
)
SEED = optional(
    "seed", count_within("seed"), section="dialer", metavar="N", help="for the same answer again"
)

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
OLLAMA_PORT = optional(
    "ollama_port",
    count(0, most=65_535),
    section="gateway",
    variable="PUNCH_OLLAMA_PORT",
    metavar="PORT",
    help="serve on this port, too: 11434 for programs that know Ollama's address and no other",
)
PROCESSES = setting(
    "processes",
    count(1, most=64),
    1,
    section="gateway",
    metavar="N",
    help="processes that serve HTTP side by side, on a machine with as many cores to spare; not on "
    "Windows",
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
ANY_NAME = optional(
    "any_name",
    SWITCH,
    section="gateway",
    help="where one model alone is on offer, let any name mean it",
    shown_default="on without API keys",
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
    number_within("timeout"),
    300.0,
    section="gateway",
    metavar="SECONDS",
    help="when to give up on an answer, where the caller does not say",
)
STORE_RESPONSES = setting(
    "store_responses",
    count(0, most=30 * 86_400),
    3600,
    section="gateway",
    metavar="SECONDS",
    help="how long after its last use a response can be referred to; 0 to store none",
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
SPLIT = several(
    "split",
    TEXT,
    section="gateway",
    metavar="MODEL",
    help="a model that may be run over the workers of the namespace when a request is worth its "
    "start, as a GGUF file or the name of one that was pulled; with --listen-too",
)
TRACES = optional(
    "traces",
    WORD,
    section="gateway",
    flag="",
    variable="OTEL_EXPORTER_OTLP_ENDPOINT",
    hides=without_secrets,
    metavar="URL",
    help="the OpenTelemetry collector that gets a trace of each request",
)
