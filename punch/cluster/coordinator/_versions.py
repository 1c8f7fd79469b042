"""Compares the programs of a split before anything is loaded. No I/O.

llama.cpp itself compares the major number of the protocol, and that the server's minor number is
not above the head's. The patch number stands for its list of operations, and heads of version 5
continue without a worker of another major number, silently. So all three are compared here, and
the builds where both are known.
"""

from __future__ import annotations

import attrs

from ...llama_cpp import RpcVersion


@attrs.frozen(kw_only=True)
class HeadBuild:
    """The program that runs the head."""

    version: RpcVersion | None
    """The RPC protocol that it speaks; `None` where nobody knows."""

    build: str = ""
    """Its build, in its own words; empty where it says nothing."""


def fault_of(
    name: str, version: RpcVersion, build: str, *, head: HeadBuild, is_forced: bool = False
) -> str | None:
    """Why the worker *name* cannot work with the head; `None` if it can.

    Args:
      name: The worker.
      version: The protocol that its server speaks.
      build: Its server's build; empty where nobody knows.
      head: The head's program.
      is_forced: Take it although its build is another one, if only it speaks the same protocol.

    """
    if head.version is not None and version != head.version:
        return (
            f"{name} speaks RPC {version}{_of(build)}, and the head RPC {head.version}"
            f"{_of(head.build)}: both need llama.cpp of the same build"
        )
    if build and head.build and build != head.build and not is_forced:
        return (
            f"{name} has llama.cpp {build}, and the head {head.build}: install the same build on "
            "both, or use --force"
        )
    return None


def _of(build: str) -> str:
    return f" (llama.cpp {build})" if build else ""
