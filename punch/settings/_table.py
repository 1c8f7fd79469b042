"""The table of all settings of punch, by the section of the file that they are in.

A setting that only makes sense for one run (the question, the id of a request, ``--json``) is in
no section: it has a flag and a variable, and cannot stand in the file. Which program has which
settings is said by `_programs`.
"""

from __future__ import annotations

from typing import Literal

from ..discovery import DEFAULT_BOOTSTRAP, DEFAULT_NAMESPACE
from ..routing import POLICIES
from ..routing.names import Alias
from ..wire import RegistrationLimits
from ._adopting import ADOPTING
from ._answering import (
    ANNOUNCE,
    BACKEND,
    CALIBRATE,
    CONTEXT,
    FEATURES,
    LIMITS_OF_MEMBERS,
    LISTEN,
    LLAMA_BATCH,
    LLAMA_CPP_EXE,
    LLAMA_GPU_LAYERS,
    LLAMA_NO_MMAP,
    LLAMA_THREADS,
    LLAMA_UBATCH,
    MOCK_DECODE_RATE,
    MOCK_DELAY,
    MOCK_FAIL_AFTER,
    MOCK_MODEL,
    MOCK_PREFILL_RATE,
    MOCK_SEES,
    MOCK_THINKS,
    MODEL_FILE,
    NAME,
    OPENAI_KEY,
    OPENAI_MODEL,
    OPENAI_URL,
    QUEUE,
    SLOTS,
    STRANGER_PRIORITY,
    STRANGER_SECONDS,
    STRANGER_TOKENS,
    TUNNEL_PORTS,
)
from ._asking import (
    ALLOW_ORIGIN,
    ANY_NAME,
    AVOID,
    BODY_LIMIT,
    CONTINUATION,
    EXPLAIN,
    GATEWAY_TIMEOUT,
    HOST,
    KEYS,
    LISTEN_TOO,
    MAX_LOAD,
    MAX_TOKENS,
    MIN_P,
    MIN_RATE,
    MODEL_NAME,
    OLLAMA_PORT,
    ONLY,
    OPEN_TO_ALL,
    PORT,
    PREFER,
    PRIVACY,
    PROCESSES,
    REPEAT_PENALTY,
    SEED,
    SHOW_PROMPTS,
    SPLIT,
    STOP,
    STORE_RESPONSES,
    STREAM,
    SYSTEM,
    TEMPERATURE,
    TIMEOUT,
    TOP_K,
    TOP_P,
    TRACES,
)
from ._rules import PATH, SWITCH, TEXT, Rule, count, one_of
from ._setting import Setting, optional, setting, several
from ._splitting import (
    ALLOW_PLAIN_RPC,
    DEVICE,
    LEND,
    LEND_TO,
    MEMORY,
    RPC_BACKEND,
    RPC_SERVER,
    SPLITTING,
    TUNNEL_PORT,
)

LEVELS = ("debug", "info", "warning", "error")

Transport = Literal["tcp", "quic", "dual"]
TRANSPORTS: Rule[Transport] = one_of("tcp", "quic", "dual")


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

BOOTSTRAP = several(
    "bootstrap",
    TEXT,
    (DEFAULT_BOOTSTRAP,),
    section="network",
    metavar="ADDRESS",
    help="where the peers of the namespace meet: HOST:PORT, a name, or a multiaddress with or "
    "without /p2p/PEER_ID; several stand in for each other",
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

LAN = optional(
    "lan",
    SWITCH,
    section="network",
    help="find the others of the same LAN by mDNS too; in an open namespace whoever says its name "
    "on that LAN is believed to be one",
    shown_default="on in a closed namespace, off in an open one",
)
LAN_INTERFACES = several(
    "lan_interfaces",
    TEXT,
    (),
    section="network",
    metavar="NAME",
    help="the network interfaces for that, such as eth0",
    shown_default="all that have a LAN behind them: no VPNs, no containers",
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

# A name of a model may have a space in it, and none has a comma.
ALIAS = several(
    "alias",
    Rule(Alias.of),
    section="routing",
    metavar="NAME=MODEL",
    separators=",\n",
    help="further name of a model, such as gpt-4o-mini=llama3.2 or gpt-*=llama3.2; may be given "
    "several times; `punch alias` keeps them in the file",
)


# ---- bootstrap ----

MEETING_ADDRESS = setting(
    "listen",
    TEXT,
    DEFAULT_BOOTSTRAP,
    section="bootstrap",
    variable="PUNCH_BOOTSTRAP",
    metavar="ADDRESS",
    help="where to be found, as --bootstrap has it: those of several that are this machine's; "
    "the transport option adds the other one",
)
BOOTSTRAP_TRANSPORT = setting(
    "transport",
    TRANSPORTS,
    "dual",
    section="bootstrap",
    metavar="tcp|quic|dual",
    help="what to listen with",
)

PER_HOST = setting(
    "per_host",
    count(1),
    RegistrationLimits().per_host,
    section="bootstrap",
    metavar="N",
    help="peers of one host (an IPv4 address, or 64 bits of IPv6) in one namespace",
)
PER_NAMESPACE = setting(
    "per_namespace",
    count(1),
    RegistrationLimits().per_namespace,
    section="bootstrap",
    metavar="N",
    help="peers of one namespace",
)
MAX_PEERS = setting(
    "max_peers",
    count(1),
    RegistrationLimits().total,
    section="bootstrap",
    metavar="N",
    help="peers of all namespaces",
)

RELAY = setting(
    "relay",
    SWITCH,
    True,
    section="bootstrap",
    help="carry what is sealed between those who meet here and cannot reach each other",
)

# ---- identities ----


def _identity(section: str) -> Setting[str | None]:
    # Each program has its own: two peers with one identity would be one peer.
    return optional(
        "identity",
        Rule(str, kind="path"),
        section=section,
        metavar="FILE",
        help="key of this peer, made if it is not there",
        shown_default="one of its own in the data folder",
    )


LISTENER_IDENTITY = _identity("listener")
DIALER_IDENTITY = _identity("dialer")
GATEWAY_IDENTITY = _identity("gateway")
BOOTSTRAP_IDENTITY = _identity("bootstrap")
WORKER_IDENTITY = _identity("worker")

# In the order in which `punch settings list` shows them.
SETTINGS: tuple[Setting[object], ...] = (
    STRICT,
    DISABLE_SIMULATION,
    LOG_LEVEL,
    BOOTSTRAP,
    NAMESPACE,
    TRANSPORT,
    KNOWN_PEERS,
    LAN,
    LAN_INTERFACES,
    POLICY,
    HEDGE,
    DECISION_LOG,
    ALIAS,
    LISTEN,
    ANNOUNCE,
    NAME,
    BACKEND,
    MODEL_FILE,
    SLOTS,
    CONTEXT,
    FEATURES,
    QUEUE,
    CALIBRATE,
    STRANGER_TOKENS,
    STRANGER_SECONDS,
    STRANGER_PRIORITY,
    LIMITS_OF_MEMBERS,
    TUNNEL_PORTS,
    LISTENER_IDENTITY,
    LLAMA_CPP_EXE,
    LLAMA_THREADS,
    LLAMA_NO_MMAP,
    LLAMA_GPU_LAYERS,
    LLAMA_BATCH,
    LLAMA_UBATCH,
    RPC_SERVER,
    OPENAI_URL,
    OPENAI_KEY,
    OPENAI_MODEL,
    *ADOPTING,
    MOCK_DECODE_RATE,
    MOCK_PREFILL_RATE,
    MOCK_DELAY,
    MOCK_FAIL_AFTER,
    MOCK_THINKS,
    MOCK_SEES,
    MOCK_MODEL,
    MODEL_NAME,
    STREAM,
    EXPLAIN,
    CONTINUATION,
    PREFER,
    AVOID,
    ONLY,
    PRIVACY,
    MIN_RATE,
    MAX_LOAD,
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
    PROCESSES,
    KEYS,
    OLLAMA_PORT,
    OPEN_TO_ALL,
    ANY_NAME,
    ALLOW_ORIGIN,
    BODY_LIMIT,
    GATEWAY_TIMEOUT,
    SHOW_PROMPTS,
    STORE_RESPONSES,
    LISTEN_TOO,
    SPLIT,
    *SPLITTING,
    TRACES,
    GATEWAY_IDENTITY,
    MEETING_ADDRESS,
    BOOTSTRAP_TRANSPORT,
    PER_HOST,
    PER_NAMESPACE,
    MAX_PEERS,
    RELAY,
    BOOTSTRAP_IDENTITY,
    LEND,
    DEVICE,
    MEMORY,
    LEND_TO,
    TUNNEL_PORT,
    WORKER_IDENTITY,
    RPC_BACKEND,
    ALLOW_PLAIN_RPC,
)

SECTIONS = tuple(dict.fromkeys(each.section for each in SETTINGS if each.section))
