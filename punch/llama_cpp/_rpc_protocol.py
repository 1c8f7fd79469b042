"""What llama.cpp's RPC says on the wire, as far as punch needs it. No I/O.

A request is a command (1 byte), the size of what follows (8 bytes, little-endian) and that; a reply
is a size and that many bytes. Replies come in the order of the requests, and some commands have
none. Taken from ``ggml/src/ggml-rpc/ggml-rpc.cpp``, whose protocol has had these versions:

* 5.x and 6.x: `FREE_BUFFER`, `BUFFER_CLEAR`, `INIT_TENSOR` and, since 6.0, `MEMSET_TENSOR` have an
  empty reply (ggml-org/llama.cpp#25912).
* 7.x: those four have none, so that a graph is sent without waiting (ggml-org/llama.cpp#18626).

The patch number changes with llama.cpp's list of operations. Its own client compares the major
number, and that the server's minor is not above its own; a graph with an operation that the server
does not know is then computed wrongly. So punch compares all three.
"""

from __future__ import annotations

import struct
from typing import Final

import attrs

REQUEST_HEAD: Final = struct.Struct("<BQ")
REPLY_HEAD: Final = struct.Struct("<Q")

# What a client says of the transports that it has, RDMA among them; zeros are TCP.
HELLO_REQUEST: Final = bytes(24)

ALLOC_BUFFER: Final = 0
GET_ALIGNMENT: Final = 1
GET_MAX_SIZE: Final = 2
BUFFER_GET_BASE: Final = 3
FREE_BUFFER: Final = 4
BUFFER_CLEAR: Final = 5
SET_TENSOR: Final = 6
SET_TENSOR_HASH: Final = 7
GET_TENSOR: Final = 8
COPY_TENSOR: Final = 9
GRAPH_COMPUTE: Final = 10
GET_DEVICE_MEMORY: Final = 11
INIT_TENSOR: Final = 12
GET_ALLOC_SIZE: Final = 13
HELLO: Final = 14
DEVICE_COUNT: Final = 15
GRAPH_RECOMPUTE: Final = 16
MEMSET_TENSOR: Final = 17

# Of these the reply is as long as the request says.
ANY_SIZE: Final = -1

_REPLIES: Final = {
    ALLOC_BUFFER: 16,
    GET_ALIGNMENT: 8,
    GET_MAX_SIZE: 8,
    BUFFER_GET_BASE: 8,
    SET_TENSOR_HASH: 1,
    GET_TENSOR: ANY_SIZE,
    COPY_TENSOR: 1,
    GET_DEVICE_MEMORY: 16,
    GET_ALLOC_SIZE: 8,
    HELLO: ANY_SIZE,
    DEVICE_COUNT: 4,
}
_SILENT: Final = (SET_TENSOR, GRAPH_COMPUTE, GRAPH_RECOMPUTE)
_ANSWERED_UNTIL_6: Final = (FREE_BUFFER, BUFFER_CLEAR, INIT_TENSOR, MEMSET_TENSOR)

RPC_ENV: Final = {"GGML_RPC_NO_RDMA": "1"}
"""Variables for both ends of a connection. A build that found a library for RDMA agrees in hello on
a connection of another kind, from machine to machine, past the tunnel and whatever it guards."""

# The versions whose requests are known; 4.x and earlier say hello in another way.
KNOWN_MAJORS: Final = (5, 6, 7)


def reply_sizes(major: int) -> dict[int, int | None] | None:
    """For each command the size of its reply in bytes, `None` for none; `ANY_SIZE` if it varies.

    `None` altogether for a version that punch does not know.
    """
    if major not in KNOWN_MAJORS:
        return None
    sizes: dict[int, int | None] = {**_REPLIES, **dict.fromkeys(_SILENT)}
    sizes |= dict.fromkeys(_ANSWERED_UNTIL_6, 0 if major < 7 else None)
    return sizes


@attrs.frozen(order=True)
class RpcVersion:
    """The version of the RPC protocol that a program speaks."""

    major: int
    """Number of the protocol's incompatible changes."""

    minor: int
    """Number of its additions."""

    patch: int
    """Changes with llama.cpp's list of operations."""

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


@attrs.frozen(kw_only=True)
class RpcDevice:
    """A device of an RPC server, as the server itself describes it."""

    name: str = ""
    """Its name in the program's words, ``CPU`` or ``CUDA0``; empty where only hello was asked."""

    description: str = ""
    """What it is, in the program's words for people; empty where only hello was asked."""

    total_bytes: int
    """Memory of the device, in bytes."""

    free_bytes: int
    """What the server says is free of it, in bytes; for a CPU that is all of the machine's."""


@attrs.frozen(kw_only=True)
class RpcFacts:
    """What an RPC server says of itself when it is asked."""

    version: RpcVersion
    """The protocol that it speaks."""

    devices: tuple[RpcDevice, ...]
    """Its devices, in the order in which a head numbers them."""
