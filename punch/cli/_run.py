"""Runs a program: signals, exit codes, and errors as one sentence."""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence

import trio

from ..exceptions import PunchError
from ._exits import ExitCode, exit_code
from ._logs import configure_logging
from ._options import Option, Settings, parse
from ._output import plain

# Ctrl-Break stands in for SIGTERM on Windows.
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)
)


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
        """Set by a program that watches `requested` and ends by itself."""


Program = Callable[[Settings, Shutdown], Awaitable[ExitCode]]


async def _supervise(program: Program, settings: Settings) -> ExitCode:
    shutdown = Shutdown()
    outcome = ExitCode.INTERRUPTED
    with trio.open_signal_receiver(*SIGNALS) as signals:
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                async for number in signals:
                    if shutdown.requested.is_set() or not shutdown.drains:
                        nursery.cancel_scope.cancel()
                    shutdown.signal = number
                    shutdown.requested.set()

            nursery.start_soon(watch)
            outcome = await program(settings, shutdown)
            nursery.cancel_scope.cancel()
    return outcome


def _calm_collector() -> None:
    """Have Python's collector of cycles run seldom, and leave alone what is here for good.

    As it comes, every 700 objects, it takes a tenth of a gateway's processor time, and finds
    next to nothing: what a request leaves behind goes by its count of references, and where that
    is not so, with large bodies, the gateway calls it.
    """
    gc.freeze()
    gc.set_threshold(*COLLECTOR_THRESHOLD)


def _only(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def run_program(
    name: str,
    about: str,
    options: Sequence[Option],
    program: Program,
    arguments: Sequence[str] | None = None,
) -> int:
    """Run a program: parse, log, run; its exit code. Errors become a text and a code.

    Args:
      name: Its module, or a command of ``punch`` as it is typed.
      about: What it does, in a sentence.
      options: What it takes.
      program: What to run.
      arguments: What was typed after its name; by default the arguments of this process.

    """
    try:
        settings = parse(
            name if name.startswith("punch ") else f"python -m {name}",
            about,
            options,
            sys.argv[1:] if arguments is None else arguments,
        )
        configure_logging(settings.log_level)
        _calm_collector()
        return trio.run(_supervise, program, settings)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except (PunchError, BaseExceptionGroup) as raised:
        error = _only(raised)
        if not isinstance(error, PunchError):
            raise
        print(f"punch: {plain(str(error))}", file=sys.stderr)
        return exit_code(error)
