"""``punch join``: makes this machine a member of a closed namespace, by a code or by asking."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import attrs
import trio

from ...discovery.lan import Lan, real_lan
from ...exceptions import ConfigurationError
from ...membership import (
    MAX_CODE_CHARACTERS,
    Asked,
    Home,
    Joined,
    join_namespace,
    join_nearby,
    shown_digits,
)
from ...settings import (
    LAN,
    LAN_INTERFACES,
    LOG_LEVEL,
    PATH,
    SWITCH,
    TEXT,
    ProgramSettings,
    of,
    optional,
    optional_argument,
    setting,
    several,
)
from .._exits import ExitCode
from .._namespace import namespaces_folder
from .._output import day_of, plain
from .._run import Shutdown, run_program
from .._streams import read_line
from ..running._asking import move_running

ABOUT = """\
Join a closed namespace with the code of an invite, which `punch invite` prints on a member.

The code is asked for, or read from standard input or a file: what stands on a command line is seen
by every program of this machine. Without a code, `--nearby` asks a member on the LAN, or at --at,
and its people approve: both screens show the same six digits."""

CODE = optional_argument(
    "code", TEXT, metavar="CODE", about="the code; - or nothing for standard input"
)
FILE = optional("file", PATH, variable="", metavar="FILE", help="the file with the code")
AT = several(
    "at",
    TEXT,
    variable="",
    metavar="HOST[:PORT]",
    help="where a member is, where it is not found on the LAN, or a long code has wrong addresses",
)
CALLED = optional(
    "called",
    TEXT,
    variable="",
    metavar="NAME",
    help="what people call this machine, unless the invite says",
    shown_default="the host's name",
)
NEARBY = setting(
    "nearby",
    SWITCH,
    False,
    variable="",
    help="ask to be let in without a code: `punch members approve` there",
)
YES = setting(
    "yes",
    SWITCH,
    False,
    variable="",
    help="of --nearby: believe the member that lets this machine in, without asking whether its "
    "screen showed the same digits",
)


@attrs.frozen(kw_only=True)
class JoinSettings(ProgramSettings):
    """Settings of ``punch join``."""

    code: str | None = of(CODE)
    file: Path | None = of(FILE)
    at: tuple[str, ...] = of(AT)
    called: str | None = of(CALLED)
    nearby: bool = of(NEARBY)
    yes: bool = of(YES)
    lan: bool | None = of(LAN)
    lan_interfaces: tuple[str, ...] = of(LAN_INTERFACES)
    log_level: str = of(LOG_LEVEL, default="warning")


class HasCode(Protocol):
    """Settings that say how a namespace is joined."""

    @property
    def code(self) -> str | None:
        """The code; ``-`` or `None` for standard input."""
        ...

    @property
    def file(self) -> Path | None:
        """The file with the code."""
        ...


def _code(settings: HasCode) -> str:
    if settings.file is not None:
        if settings.code is not None:
            raise ConfigurationError("say --file or a code, not both")
        try:
            with settings.file.open(encoding="utf-8") as file:
                return file.read(MAX_CODE_CHARACTERS + 1)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text"
            raise ConfigurationError(f"{settings.file} cannot be read: {why}") from None
    if settings.code is not None and settings.code != "-":
        return warned_of(settings.code)
    if settings.code is None and sys.stdin.isatty():
        # Not shown: somebody may look over the shoulder, and a terminal remembers.
        return getpass.getpass("code: ")
    return read_line()


def warned_of(code: str) -> str:
    """*code*, which was typed on a command line: that others saw it is said."""
    print(
        "punch: a code on the command line is seen by every program of this machine, and stays "
        "in the shell's history; `punch join` asks for it",
        file=sys.stderr,
    )
    return code


async def _join(settings: JoinSettings, shutdown: Shutdown) -> ExitCode:
    del shutdown
    if settings.nearby:
        home = await _ask_nearby(settings)
    else:
        home = await redeem(
            await read_code(settings), called=settings.called, at=settings.at, lan=_lan(settings)
        )
    print(plain(str(home.namespace)), flush=True)
    moved = await move_running(home)
    rest = (
        f"Programs of punch are in {home.namespace} from now on; start one with: punch up"
        if moved is None
        else f"The `punch up` that runs here has moved into {home.namespace}"
    )
    print(plain(f"punch: this machine is a member, called {home.name}. {rest}"), file=sys.stderr)
    return ExitCode.OK


async def read_code(settings: HasCode) -> str:
    """The code that *settings* mean, which a person may be asked for."""
    return await trio.to_thread.run_sync(_code, settings, abandon_on_cancel=True)


async def redeem(
    code: str, *, called: str | None = None, at: Sequence[str] = (), lan: Lan | None = None
) -> Home:
    """Join with *code*, and say what was found before anything is written.

    Args:
      code: The code.
      called: What people call this machine, unless the invite says.
      at: Where a member is, if that is known.
      lan: Where to look for members.

    Raises:
      PunchError: as `join_namespace` does.

    """
    return await join_namespace(
        code, called=called, at=at, lan=lan, folder=namespaces_folder(), found=_tell
    )


async def _ask_nearby(settings: JoinSettings) -> Home:
    if settings.code is not None or settings.file is not None:
        raise ConfigurationError("say --nearby or a code, not both")
    if not settings.yes and not sys.stdin.isatty():
        raise ConfigurationError(
            "--nearby asks whether both screens show the same digits, and there is no terminal: "
            "say --yes to believe any member that lets this machine in"
        )

    async def confirm(joined: Joined, asked: Asked) -> bool:
        _tell(joined)
        if settings.yes:
            return True
        question = f"did that member's screen show {shown_digits(asked.digits)}? [y/N] "
        return await trio.to_thread.run_sync(confirmed, question, abandon_on_cancel=True)

    return await join_nearby(
        called=settings.called,
        asked=_show,
        confirm=confirm,
        at=settings.at,
        lan=_lan(settings),
        folder=namespaces_folder(),
    )


def _lan(settings: JoinSettings) -> Lan | None:
    return None if settings.lan is False else real_lan(settings.lan_interfaces)


def _show(asked: Asked) -> None:
    digits = shown_digits(asked.digits)
    print(
        plain(
            f"punch: {digits}  asked {asked.address}. See that its screen shows these digits, with "
            f"`punch members list`; then there: punch members approve {digits.replace(' ', '-')}"
        ),
        file=sys.stderr,
        flush=True,
    )


def confirmed(question: str) -> bool:
    """Ask a person at the terminal; False without a clear yes."""
    print(f"punch: {question}", end="", file=sys.stderr, flush=True)
    return read_line().strip().lower() in ("y", "yes")


def _tell(joined: Joined) -> None:
    """Say what was found, before anything is written."""
    lines = [
        f"found {joined.namespace} at {joined.address}",
        f"its member there is {joined.by}, whose grant is good",
        f"this machine may {', '.join(sorted(joined.member.scopes))}, until "
        f"{day_of(joined.member.ends)}",
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
