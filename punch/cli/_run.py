"""Runs a program or a command: loads its settings, handles signals, and makes errors exit codes.

What a program does is a function that it passes in; no program installs a signal handler itself.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import TypeVar

import attrs
import trio

from ..exceptions import PunchError
from ..settings import ProgramSettings, Settings, load, open_settings, parse_flags, settings_of
from ._exits import ExitCode, exit_code
from ._logs import configure_logging
from ._output import plain
from ._streams import only, with_streams
from .running import noted

# What each signal means to whoever asks for our exit code, where it ended the program before it
# was done. Ctrl-Break stands in for SIGTERM on Windows.
_ENDED_BY = {
    getattr(signal, name): code
    for name, code in (
        ("SIGHUP", ExitCode.HANGUP),
        ("SIGINT", ExitCode.INTERRUPTED),
        ("SIGTERM", ExitCode.TERMINATED),
        ("SIGBREAK", ExitCode.TERMINATED),
    )
    if hasattr(signal, name)
}


# New objects before the collector looks at them (a few megabytes), and how often it looks at
# those that it has seen once and twice.
COLLECTOR_THRESHOLD = (20_000, 20, 20)


class Shutdown:
    """Tells a program that it should end.

    The first signal sets `requested`; the second one, or the first if the program never waits
    for it, cancels everything.
    """

    def __init__(self) -> None:
        self.requested = trio.Event()
        self.signal: int | None = None
        self.drains = False
        """Set to True by a program that watches `requested` and ends by itself."""


S = TypeVar("S", bound=Settings)
P = TypeVar("P", bound=ProgramSettings)


async def _supervise(
    program: Callable[[P, Shutdown], Awaitable[ExitCode]], settings: P
) -> ExitCode:
    shutdown = Shutdown()
    # A program that is cancelled returns nothing, and this is what the signal made of it.
    outcome = ExitCode.INTERRUPTED
    # `nohup` has a program ignore the end of its terminal, and it still does. SIGINT is another
    # matter: shells have whatever they start in the background ignore it, unasked.
    heard = [number for number in _ENDED_BY if not _is_unheard(number)]
    with trio.open_signal_receiver(*heard) as signals:
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                nonlocal outcome
                async for number in signals:
                    outcome = _ENDED_BY[signal.Signals(number)]
                    if shutdown.requested.is_set() or not shutdown.drains:
                        nursery.cancel_scope.cancel()
                    shutdown.signal = number
                    shutdown.requested.set()

            nursery.start_soon(watch)
            outcome = await program(settings, shutdown)
            nursery.cancel_scope.cancel()
    return outcome


def run_supervised(
    program: Callable[[Shutdown], Awaitable[ExitCode]], *, clock: trio.abc.Clock | None = None
) -> int:
    """Run a program that has no settings of its own and return its exit code, as `run_program`.

    Args:
      program: What to run.
      clock: By default trio's.

    """

    def run() -> ExitCode:
        _calm_collector()
        return trio.run(_supervise, lambda _, shutdown: program(shutdown), None, clock=clock)

    return with_streams(lambda: with_words(run))


def _is_unheard(number: signal.Signals) -> bool:
    return number.name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN


def _calm_collector() -> None:
    """Have Python's collector of cycles run seldom, and skip what stays for good.

    With its default of 700 new objects, the collector takes a tenth of a gateway's processor time
    and finds next to nothing: what a request leaves behind is freed by its count of references.
    Where that is not so, with large bodies, the gateway calls the collector itself.
    """
    gc.freeze()
    gc.set_threshold(*COLLECTOR_THRESHOLD)


def load_settings(
    name: str,
    about: str,
    kind: type[S],
    arguments: Sequence[str],
    environment: Mapping[str, str] | None = None,
) -> S:
    """The settings of a program of this process.

    Prints and exits for ``--help`` and for options that do not exist, as argparse does.

    Args:
      name: What was typed to run it.
      about: What it does, in a sentence.
      kind: The class of its settings.
      arguments: What was typed after its name.
      environment: The variables; by default those of this process.

    Raises:
      ConfigurationError: for the first wrong value; the text says where it stands.

    """
    environment = os.environ if environment is None else environment
    flags = parse_flags(name, about, kind, arguments)
    # A command with no setting in the file does not read it: `punch settings` must run to mend one.
    is_kept = any(each.section for each in settings_of(kind))
    return load(kind, flags, environment, open_settings(environment) if is_kept else None)


def run_program(
    name: str,
    about: str,
    kind: type[P],
    program: Callable[[P, Shutdown], Awaitable[ExitCode]],
    arguments: Sequence[str] | None = None,
    *,
    stays: bool = False,
) -> int:
    """Run a program and return its exit code; an error becomes a sentence on standard error.

    Args:
      name: What was typed to run it.
      about: What it does, in a sentence.
      kind: Its settings.
      program: What to run.
      arguments: What was typed after its name; by default the arguments of this process.
      stays: Whether it runs until it is told to end, also by `punch down`.

    """

    def run(settings: P) -> ExitCode:
        configure_logging(settings.log_level)
        _calm_collector()
        with noted(name) if stays else nullcontext():
            return trio.run(_supervise, program, settings)

    return run_command(name, about, kind, run, arguments)


def run_command(
    name: str,
    about: str,
    kind: type[S],
    command: Callable[[S], ExitCode],
    arguments: Sequence[str] | None = None,
) -> int:
    """Run a command that needs no event loop and return its exit code, as `run_program` does."""

    def run() -> ExitCode:
        given = sys.argv[1:] if arguments is None else arguments
        return command(load_settings(name, about, kind, given))

    return with_streams(lambda: with_words(run))


def with_words(run: Callable[[], ExitCode]) -> int:
    """The exit code of *run*; an error becomes a sentence on standard error."""
    try:
        return run()
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except (PunchError, BaseExceptionGroup) as raised:
        error = only(raised)
        if not isinstance(error, PunchError):
            # A bug of ours: a traceback says more than a sentence could.
            raise
        print(f"punch: {plain(str(error))}", file=sys.stderr)
        return exit_code(error)


@attrs.frozen(kw_only=True)
class Command:
    """A command among several under one name, such as ``create`` of ``punch keys``."""

    about: str
    """What the command does, in a sentence."""

    main: Callable[[str, Sequence[str]], int]
    """Runs the command, given the whole name that was typed and what was typed after it."""


def command(about: str, kind: type[S], run: Callable[[S], ExitCode]) -> Command:
    """A command with settings of its own."""

    def main(name: str, arguments: Sequence[str]) -> int:
        return run_command(name, f"{about[0].upper()}{about[1:]}.", kind, run, arguments)

    return Command(about=about, main=main)


def run_one_of(
    name: str, about: str, commands: Mapping[str, Command], arguments: Sequence[str]
) -> int:
    """Run the one of *commands* that the first argument names; its exit code."""
    match arguments:
        case [first, *rest] if first in commands:
            return commands[first].main(f"{name} {first}", rest)
        case ["-h" | "--help", *_]:
            print(_usage(name, about, commands))
            return ExitCode.OK
        case [first, *_]:
            print(f"punch: there is no command {first!r} of `{name}`\n", file=sys.stderr)
    print(_usage(name, about, commands), file=sys.stderr)
    return ExitCode.USAGE


def _usage(name: str, about: str, commands: Mapping[str, Command]) -> str:
    width = max(map(len, commands))
    lines = [f"  {name} {first:{width}}   {each.about}" for first, each in commands.items()]
    return "\n".join(
        [
            f"usage: {name} COMMAND ...",
            "",
            about,
            "",
            *lines,
            "",
            f"`{name} COMMAND --help` has the options of each.",
        ]
    )
