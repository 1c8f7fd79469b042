"""Makes, finds and joins closed namespaces of this machine; leaving one is in `leaving`."""

from __future__ import annotations

import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from ...discovery.lan import Lan
from ...exceptions import ConfigurationError
from .._home import Home, create_home, find_home, homes
from .._joining import Joined, redeem_invite
from ..nearby import Asked, ask_nearby


def host_name() -> str:
    """What this machine is called, unless somebody says."""
    return socket.gethostname().partition(".")[0]


def create_namespace(name: str, *, called: str | None = None, folder: Path | None = None) -> Home:
    """Make a closed namespace, with this machine as its first member and an admin.

    As ``punch namespace create``. Its root key is on this machine; see docs/network.md.

    Args:
      name: What to call the namespace.
      called: What people call this machine in it; by default as its host.
      folder: Where the namespaces of this machine are kept; by default in the data folder.

    Raises:
      ConfigurationError: if no namespace may have the name, this machine is a member of one with
        it, or the folder cannot be written.

    """
    return create_home(name, called=called or host_name(), now=time.time(), parent=folder)


def joined_namespaces(*, folder: Path | None = None) -> tuple[Home, ...]:
    """The closed namespaces that this machine is a member of, by name.

    Args:
      folder: Where the namespaces of this machine are kept; by default in the data folder.

    Raises:
      ConfigurationError: if the files of one are damaged.

    """
    return homes(folder)


def find_namespace(which: str | None = None, *, folder: Path | None = None) -> Home:
    """The closed namespace that *which* means on this machine.

    Args:
      which: ``NAME`` or ``NAME@FINGERPRINT``; by default the only one that this machine has joined.
      folder: Where the namespaces of this machine are kept; by default in the data folder.

    Raises:
      ConfigurationError: if there is none, or several could be meant.

    """
    home = find_home(which, folder)
    if home is None:
        said = f"no closed namespace {which!r}" if which else "no closed namespace"
        joined = ", ".join(str(each.namespace) for each in homes(folder)) if which else ""
        raise ConfigurationError(
            f"this machine is a member of {said}: "
            + (f"it has joined {joined}. Otherwise " if joined else "")
            + "make one with `punch namespace create NAME`, or redeem an invite with `punch join`"
        )
    return home


async def join_namespace(
    code: str,
    *,
    called: str | None = None,
    at: Sequence[str] = (),
    lan: Lan | None = None,
    folder: Path | None = None,
    found: Callable[[Joined], None] = lambda joined: None,
) -> Home:
    """Join a closed namespace with the code of an invite; as ``punch join``.

    Args:
      code: The code, long or short.
      called: What people call this machine, unless the invite says; by default as its host.
      at: Where a member is, ``HOST`` or ``HOST:PORT``, beside what a long code says.
      lan: Where to look for members if neither *at* nor the code says where one is, such as
        `real_lan()`; by default nowhere.
      folder: Where the namespaces of this machine are kept; by default in the data folder.
      found: Is called with what was found, before anything is written; it may raise to have
        nothing written.

    Raises:
      ConfigurationError: if the code is none, or this machine is a member already.
      PeerUnreachable: if no member can be reached.
      NotPermitted: if the code is wrong, or its invite is used up, expired or revoked.

    """
    return await redeem_invite(
        code, called=called or host_name(), at=at, lan=lan, folder=folder, found=found
    )


async def join_nearby(
    *,
    asked: Callable[[Asked], None],
    confirm: Callable[[Joined, Asked], Awaitable[bool]],
    called: str | None = None,
    at: Sequence[str] = (),
    lan: Lan | None = None,
    folder: Path | None = None,
) -> Home:
    """Join a closed namespace without a code; as ``punch join --nearby``.

    Args:
      asked: Is called with each member that was asked: people compare its digits on both screens.
      confirm: Says whether the member that let this machine in is the one that people meant, by
        its digits, before anything is written. A stranger can let anybody into its own namespace.
      called: What people call this machine; by default as its host.
      at: Where a member is, ``HOST`` or ``HOST:PORT``; by default those that are found on the LAN.
      lan: Where to look, such as `real_lan()`; by default nowhere.
      folder: Where the namespaces of this machine are kept; by default in the data folder.

    Raises:
      ConfigurationError: if nobody is found, or this machine is a member already.
      PeerUnreachable: if no member can be reached.
      NotPermitted: if it was refused, not approved in time, or not confirmed.

    """
    return await ask_nearby(
        called=called or host_name(), asked=asked, confirm=confirm, at=at, lan=lan, folder=folder
    )
