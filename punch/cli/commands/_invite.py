"""``punch invite``: makes a right to join, prints its code, and serves it where no program does."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import attrs
import trio

from ...exceptions import ConfigurationError
from ...libp2p import open_node
from ...membership import (
    MEMBER_PORTS,
    OVER,
    CreatedInvite,
    Home,
    create_invite,
    draw_on,
    everywhere,
    open_door,
    open_membership,
    read_invites,
    serving,
    write_secret,
)
from ...network import parse_address
from ...settings import (
    LOG_LEVEL,
    PATH,
    SWITCH,
    TEXT,
    ProgramSettings,
    Rule,
    count,
    of,
    optional,
    setting,
    several,
)
from .._exits import ExitCode
from .._identity import claim_identity
from .._namespace import home_of
from .._output import day_of, plain
from .._run import Shutdown, run_one_of, run_program
from ._invites import INVITE_COMMANDS
from ._keys import expiry
from ._namespace import NAMESPACE

ABOUT = """\
Let a machine join a closed namespace: print a code for `punch join`.

The code is alone on standard output. Whoever has it may join until it is used up, so show it to
nobody else. Where no program of this machine serves the namespace, this one does, and waits.
`punch invite list` shows the invites of this machine, `punch invite withdraw WHICH` ends one."""

# How often it is looked whether the invite was used.
CHECK_SECONDS = 0.5


def _ends(text: str) -> float:
    return expiry(text, time.time()) - time.time()


SCOPE = several(
    "scope",
    TEXT,
    variable="",
    metavar="SCOPE",
    help="what it may do: dial, listen, lend, borrow, relay, admin; several with commas",
    shown_default="dial, listen; with --mine all but admin",
)
USES = setting("uses", count(1), 1, variable="", metavar="N", help="machines that may use it")
EXPIRES = optional(
    "expires",
    Rule(_ends),
    variable="",
    metavar="24h|DATE",
    help="when it ends",
    shown_default="24h; a short code 1h",
)
NAME = optional(
    "name",
    TEXT,
    variable="",
    metavar="NAME",
    help="what to call the machine",
    shown_default="as it says",
)
MINE = setting(
    "mine", SWITCH, False, variable="", help="the machine is of the same owner as this one"
)
SHORT = setting(
    "short", SWITCH, False, variable="", help="a number and two words to say, good for one try"
)
QR = setting("qr", SWITCH, False, variable="", help="show it on the terminal to be scanned, too")
FILE = optional(
    "file", PATH, variable="", metavar="FILE", help="write it to a file instead of standard output"
)
AT = several(
    "at",
    TEXT,
    variable="",
    metavar="HOST:PORT",
    help="where this machine is reached, if not at its own addresses, such as a router's",
)
WAIT = optional(
    "wait",
    SWITCH,
    variable="",
    help="wait until it is used up",
    shown_default="only if no program of this machine serves it",
)


@attrs.frozen(kw_only=True)
class InviteSettings(ProgramSettings):
    """Settings of ``punch invite``."""

    namespace: str | None = of(NAMESPACE)
    scope: tuple[str, ...] = of(SCOPE)
    uses: int = of(USES)

    expires: float | None = of(EXPIRES)
    """Seconds for which it counts; `None` for what is usual."""

    name: str | None = of(NAME)
    mine: bool = of(MINE)
    short: bool = of(SHORT)
    qr: bool = of(QR)
    file: Path | None = of(FILE)
    at: tuple[str, ...] = of(AT)
    wait: bool | None = of(WAIT)
    log_level: str = of(LOG_LEVEL, default="warning")


async def _invite(settings: InviteSettings, shutdown: Shutdown) -> ExitCode:
    home = home_of(settings.namespace)
    shutdown.drains = True
    async with AsyncExitStack() as stack:
        places = serving(home)
        waits = settings.wait if settings.wait is not None else not places
        if not places and waits:
            identity = stack.enter_context(claim_identity("listener"))
            membership = await stack.enter_async_context(open_membership(home, identity=identity))
            node = await stack.enter_async_context(
                open_node(identity=identity, wanted=everywhere, ports=MEMBER_PORTS)
            )
            await stack.enter_async_context(open_door(membership, node))
            places = tuple(map(parse_address, node.addresses))
        invite = create_invite(
            home,
            scopes=scopes_of(settings.scope),
            uses=settings.uses,
            seconds=settings.expires,
            name=settings.name or "",
            mine=settings.mine,
            short=settings.short,
            at=settings.at,
            serves=places,
        )
        _show(settings, invite, is_served=bool(places))
        if waits:
            await _wait(home, invite, shutdown)
    return ExitCode.OK


def scopes_of(given: Sequence[str]) -> frozenset[str]:
    """The scopes that were given, each alone or several with commas."""
    return frozenset(word.strip() for text in given for word in text.split(",") if word.strip())


def _show(settings: InviteSettings, invite: CreatedInvite, *, is_served: bool) -> None:
    text = invite.code
    if settings.file is not None:
        # Readable by its owner only, from the first moment on.
        write_secret(settings.file, f"{text}\n".encode())
        print(f"punch: the code is in {plain(str(settings.file))}", file=sys.stderr)
    else:
        print(text, flush=True)
    if settings.qr:
        draw_on(text, sys.stderr)
    until = day_of(invite.ends, "%Y-%m-%d %H:%M UTC")
    many = "one machine" if invite.uses == 1 else f"{invite.uses} machines"
    hint = "punch join"
    if settings.short and invite.addresses:
        hint += f" --at {invite.addresses[0]}"
    print(f"punch: for {many}, until {until}; there: {hint}", file=sys.stderr, flush=True)
    if not is_served:
        print(
            "punch: no program of this machine serves it yet: start `punch listener` or "
            "`punch serve --listen-too`, or say --wait",
            file=sys.stderr,
        )


async def _wait(home: Home, invite: CreatedInvite, shutdown: Shutdown) -> None:
    """Wait until the invite is over, or the program is told to stop."""
    print(
        "punch: waiting for it to be used; Ctrl-C ends this, and the code counts on for any "
        "program of this machine that serves",
        file=sys.stderr,
        flush=True,
    )
    used = 0
    while not shutdown.requested.is_set():
        found = (await trio.to_thread.run_sync(read_invites, home)).find(invite.identifier)
        if found is None:
            return
        if len(found.used_by) > used:
            used = len(found.used_by)
            print(f"punch: {used} of {invite.uses} joined", file=sys.stderr, flush=True)
        outcome = found.outcome(time.time())
        if outcome == "used_up":
            # The last one is still being told.
            await trio.sleep(CHECK_SECONDS)
            return
        if outcome != "open":
            raise ConfigurationError(f"the invite is over: it {OVER[outcome]}")
        with trio.move_on_after(CHECK_SECONDS):
            await shutdown.requested.wait()


def invite(arguments: Sequence[str]) -> int:
    """Run ``punch invite``, or a command of it; its exit code."""
    if arguments and arguments[0] in INVITE_COMMANDS:
        return run_one_of("punch invite", ABOUT, INVITE_COMMANDS, arguments)
    return run_program("punch invite", ABOUT, InviteSettings, _invite, arguments)
