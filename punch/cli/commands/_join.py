"""``punch join``: redeems an invite, so that this machine is a member of a closed namespace."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import attrs
import trio

from ...exceptions import ConfigurationError
from ...membership import MAX_CODE_CHARACTERS, Joined, redeem_invite
from ...settings import (
    LOG_LEVEL,
    PATH,
    TEXT,
    ProgramSettings,
    of,
    optional,
    optional_argument,
    several,
)
from .._exits import ExitCode
from .._namespace import namespaces_folder
from .._output import plain
from .._run import Shutdown, run_program
from .._streams import read_line
from ._namespace import host_name

ABOUT = """\
Join a closed namespace with the code of an invite, which `punch invite` prints on a member.

The code is asked for, or read from standard input or a file: what stands on a command line is seen
by every program of this machine."""

CODE = optional_argument(
    "code", TEXT, metavar="CODE", about="the code; - or nothing for standard input"
)
FILE = optional("file", PATH, variable="", metavar="FILE", help="the file with the code")
AT = several(
    "at",
    TEXT,
    variable="",
    metavar="HOST[:PORT]",
    help="where a member is, for a short code, or where the addresses of a long one are wrong",
)
CALLED = optional(
    "called",
    TEXT,
    variable="",
    metavar="NAME",
    help="what people call this machine, unless the invite says",
    shown_default="the host's name",
)


@attrs.frozen(kw_only=True)
class JoinSettings(ProgramSettings):
    """Settings of ``punch join``."""

    code: str | None = of(CODE)
    file: Path | None = of(FILE)
    at: tuple[str, ...] = of(AT)
    called: str | None = of(CALLED)
    log_level: str = of(LOG_LEVEL, default="warning")


def _code(settings: JoinSettings) -> str:
    if settings.file is not None:
        if settings.code is not None:
            raise ConfigurationError("say --file or a code, not both")
        try:
            with settings.file.open(encoding="utf-8") as file:
                return file.read(MAX_CODE_CHARACTERS + 1)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text"
            raise ConfigurationError(f"{settings.file} cannot be read: {why}") from None
    if settings.code not in (None, "-"):
        print(
            "punch: a code on the command line is seen by every program of this machine, and stays "
            "in the shell's history; `punch join` asks for it",
            file=sys.stderr,
        )
        return settings.code or ""
    if settings.code is None and sys.stdin.isatty():
        # Not shown: somebody may look over the shoulder, and a terminal remembers.
        return getpass.getpass("code: ")
    return read_line()


async def _join(settings: JoinSettings, shutdown: Shutdown) -> ExitCode:
    del shutdown
    code = await trio.to_thread.run_sync(_code, settings, abandon_on_cancel=True)
    home = await redeem_invite(
        code,
        called=settings.called or host_name(),
        at=settings.at,
        folder=namespaces_folder(),
        found=_tell,
    )
    print(plain(str(home.namespace)), flush=True)
    print(
        plain(
            f"punch: this machine is a member, called {home.name}. Programs of punch are in "
            f"{home.namespace} from now on; start one with: punch serve --listen-too"
        ),
        file=sys.stderr,
    )
    return ExitCode.OK


def _tell(joined: Joined) -> None:
    """Say what was found, before anything is written."""
    ends = datetime.fromtimestamp(joined.member.ends, UTC).strftime("%Y-%m-%d")
    lines = [
        f"found {joined.namespace} at {joined.address}",
        f"its member there is {joined.by}, whose grant is good",
        f"this machine may {', '.join(sorted(joined.member.scopes))}, until {ends}",
        f"that member reaches this machine at {joined.reached}"
        if joined.reached
        else f"that member does not reach this machine ({joined.trouble}): it can ask, and to be "
        "asked it needs its port let in; see docs/network.md",
    ]
    for line in lines:
        print(f"punch: {plain(line)}", file=sys.stderr, flush=True)


def join(arguments: Sequence[str]) -> int:
    """Run ``punch join``; its exit code."""
    return run_program("punch join", ABOUT, JoinSettings, _join, arguments)
