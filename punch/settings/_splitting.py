"""The table of settings of models that are bigger than one machine: what is lent, and to whom."""

from __future__ import annotations

from ..access import key_of
from ..capability import PeerId
from ..exceptions import LocalProtocolError
from ._rules import PATH_OR_NAME, SWITCH, WORD, Rule, count
from ._setting import optional, setting, several
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
