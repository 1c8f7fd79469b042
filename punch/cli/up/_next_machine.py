"""Tells what to type on the next machine: with a code, where a person reads it.

A service's output is a log, which others may read, and which is kept: it gets no code.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import TextIO

import trio

from ..._logs import get_logger
from ...exceptions import PunchError
from ...membership import CreatedInvite, Home, create_invite
from ...network import parse_address
from ...settings import NetworkSettings
from .._namespace import Place
from .._output import plain
from .._shared import join_lines
from ._status import Status
from ._words import CODE_SECONDS, CODE_USES, next_lines

log = get_logger("punch.up")


async def tell_next(
    status: Status, place: Place, network: NetworkSettings, tell: Callable[[str], None]
) -> bool:
    """Tell it, if it can be told by now; whether it was.

    Args:
      status: What runs.
      place: The namespace.
      network: Where its members meet.
      tell: Prints a line for people.

    """
    terminal = terminal_of(sys.stdout, sys.stderr)
    home, code = place.home, None
    if home is None:
        elsewhere = join_lines(network).elsewhere
    else:
        elsewhere = None
        if terminal is not None and status.is_admin:
            # A code says where this machine is: without a network there is nothing to say yet.
            if not any(not parse_address(each).is_loopback() for each in status.listens):
                return False
            code = await _code(home, status)
    lines = next_lines(status, code=None if code is None else code.code, elsewhere=elsewhere)
    for line in lines:
        if code is not None and line == code.code and terminal is not None:
            print(plain(line), file=terminal, flush=True)
        else:
            tell(line)
    return True


def terminal_of(*streams: TextIO) -> TextIO | None:
    """The first of *streams* that a person reads."""
    return next((stream for stream in streams if stream.isatty()), None)


async def _code(home: Home, status: Status) -> CreatedInvite | None:
    make = partial(
        create_invite,
        home,
        uses=CODE_USES,
        seconds=CODE_SECONDS,
        serves=tuple(map(parse_address, status.listens)),
    )
    try:
        return await trio.to_thread.run_sync(make)
    except PunchError as error:
        # It has made as many as there may be, or its file cannot be written.
        log.warning("no invite was made for the next machine", why=error.message)
        return None
