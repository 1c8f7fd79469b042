"""The table of settings of models that are bigger than one machine: of lending and of splits."""

from __future__ import annotations

import ipaddress
import math
import re

from ..access import key_of
from ..capability import PeerId
from ..exceptions import LocalProtocolError
from ._rules import PATH, PATH_OR_NAME, SWITCH, WORD, Rule, count
from ._setting import Within, optional, setting, several
from ._sizes import SIZE


def _peer(text: str) -> PeerId:
    peer_id = PeerId(text.strip())
    try:
        # A name, which may stand for a key in tests, is its own key.
        is_key = key_of(peer_id) != peer_id.encode(errors="surrogatepass")
    except LocalProtocolError:
        is_key = False
    if not is_key:
        raise ValueError("it must be the identity of a peer, such as 12D3KooW...")
    return peer_id


PEER: Rule[PeerId] = Rule(_peer)
"""The identity of a peer, as its log and `punch peers` say it."""

# ---- what a machine lends ----

LEND = setting(
    "lend",
    SWITCH,
    False,
    section="worker",
    help="lend memory of this machine too, as `punch worker` does",
)
DEVICE = several(
    "device",
    WORD,
    section="worker",
    variable="PUNCH_WORKER_DEVICE",
    metavar="NAME",
    help="device to lend, such as CUDA0 or CPU, may be given several times",
    shown_default="all that are no CPU; without one, the CPU",
)
MEMORY = optional(
    "memory",
    SIZE,
    section="worker",
    variable="PUNCH_WORKER_MEMORY",
    metavar="SIZE",
    help="memory to lend at most, such as 4GiB",
    shown_default="of a CPU three quarters of what is free, of another device all",
)
LEND_TO = several(
    "lend_to",
    PEER,
    section="worker",
    metavar="PEER_ID",
    help="peer that alone may borrow, may be given several times; an open namespace needs it, and "
    "in a closed one it may be a machine too",
    shown_default="in a closed namespace every member with the scope borrow, in an open one nobody",
)
TUNNEL_PORT = optional(
    "tunnel_port",
    count(1, most=65535),
    section="worker",
    metavar="PORT",
    help="TCP port where the borrower's tunnel comes in",
    shown_default="21840 or the next",
)
RPC_SERVER = optional(
    "rpc_server",
    PATH_OR_NAME,
    section="llama_cpp",
    flag="",
    variable="PUNCH_RPC_SERVER",
    help="llama.cpp's ggml-rpc-server, or an older build's rpc-server",
    shown_default="the one beside LLAMA_CPP_EXE, or the fastest of `punch engine list`",
)

# ---- RPC servers that run already ----


# Names of machines, as people have them at home and in DNS.
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9_.])?")


def _rpc_place(text: str) -> str:
    host, _, port = text.strip().rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        number = count(1, most=65535).value(port)
        try:
            host = "127.0.0.1" if host == "localhost" else str(ipaddress.ip_address(host))
        except ValueError:
            # What looks like an address and is none is a slip, and no name.
            if not _HOST.fullmatch(host) or host.replace(".", "").isdigit():
                raise
    except ValueError:
        raise ValueError(
            "write the address and the port of an RPC server, such as 192.168.1.20:50052"
        ) from None
    return f"[{host}]:{number}" if ":" in host else f"{host}:{number}"


RPC_PLACE: Rule[str] = Rule(_rpc_place)
"""The address and the port of an RPC server, written in one way."""

RPC_BACKEND = several(
    "backend",
    RPC_PLACE,
    section="rpc",
    flag="--rpc-backend",
    variable="LLAMA_RPC_BACKENDS",
    metavar="HOST:PORT",
    help="an RPC server of llama.cpp that runs already, on this machine or in one of its own "
    "networks, to split over; may be given several times; `punch rpc add` keeps them in the file",
)
ALLOW_PLAIN_RPC = setting(
    "allow_plain",
    SWITCH,
    False,
    section="rpc",
    flag="--allow-plain-rpc",
    variable="PUNCH_ALLOW_PLAIN_RPC",
    help="use such servers, although plain RPC neither proves who is at its other end nor hides "
    "what is asked from whoever is in that network",
)

# ---- what a split is made of ----

# As many as a backend has unless said.
DEFAULT_SLOTS_OF_A_SPLIT = 4


def _shares(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError("shares are numbers, with commas between them") from None
    if not all(0.0 <= value < math.inf for value in values) or not any(values):
        raise ValueError("shares are 0 or more, and one is above 0")
    return values


def _names(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (part.strip() for part in text.split(","))))


_NAMES = Rule(_names)

WORKERS = optional(
    "workers",
    _NAMES,
    variable="PUNCH_WORKERS",
    metavar="NAMES",
    help="who may lend, with commas between them: a worker by its identity or the end of it, or "
    "127.0.0.1:PORT for an RPC server of this machine",
    shown_default="every worker of the namespace",
)
EXCLUDE = optional(
    "exclude",
    _NAMES,
    variable="",
    metavar="NAMES",
    help="workers and devices that hold nothing",
)
TENSOR_SPLIT = optional(
    "tensor_split",
    Rule(_shares),
    variable="",
    metavar="SHARES",
    help="shares of the layers for each device, in their order, such as 3,1; 0 for none",
    shown_default="as the plan has them",
)
MIN_WORKERS = setting(
    "min_workers",
    count(0, most=64),
    0,
    variable="",
    metavar="N",
    help="wait until so many workers are there, and give layers to that many at least",
)
MIN_PEERS = setting(
    "min_peers", count(0, most=64), 0, variable="", metavar="N", help="the same, by another name"
)
SPLIT_DEVICE = optional(
    "device",
    _NAMES,
    variable="",
    metavar="NAMES",
    help="use these devices alone, such as CUDA0 of this machine, or a worker by its identity",
    shown_default="all",
)
BIN_DIR = optional(
    "bin_dir",
    PATH,
    variable="",
    metavar="FOLDER",
    help="the folder of llama.cpp's programs",
    shown_default="that of LLAMA_CPP_EXE, or of what works here",
)
THREADS = optional(
    "threads",
    count(1),
    variable="LLAMA_THREADS",
    metavar="N",
    help="threads that the head computes with",
)
CONTEXT = optional(
    "context",
    count(1),
    variable="",
    metavar="TOKENS",
    help="longest prompt and answer of one request",
    shown_default="4096, or less if the model has less",
)
SLOTS = setting(
    "slots",
    count(1, most=256),
    DEFAULT_SLOTS_OF_A_SPLIT,
    variable="",
    metavar="N",
    help="requests to answer side by side; they share the way to the workers",
)
PROMPT = setting("prompt", count(0), 512, variable="", help="tokens of a usual prompt")
ANSWER = setting("answer", count(1), 128, variable="", help="tokens of a usual answer")
FORCE = setting(
    "force",
    SWITCH,
    False,
    variable="",
    help="split it even where that is slower, and with workers of other builds",
)

OF_GATEWAY = Within(section="gateway", word="split")
"""What these are called among a gateway's settings: ``--split-slots``, ``PUNCH_SPLIT_SLOTS``."""

SPLITTING = tuple(
    map(
        OF_GATEWAY.named,
        (
            WORKERS,
            EXCLUDE,
            TENSOR_SPLIT,
            MIN_WORKERS,
            MIN_PEERS,
            SPLIT_DEVICE,
            BIN_DIR,
            THREADS,
            CONTEXT,
            SLOTS,
            PROMPT,
            ANSWER,
            FORCE,
        ),
    )
)
"""All of these, as a gateway has them."""
