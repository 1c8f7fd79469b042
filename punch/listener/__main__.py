"""The listener: runs a model and answers the dialers of a namespace.

``python -m punch.listener`` does it with the defaults; ``--help`` has the options.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .._logs import get_logger
from ..cli import ExitCode, Shutdown, open_listener_of, run_program
from ..settings import ListenerSettings

log = get_logger("punch.listener")

ABOUT = "Run a model and answer the dialers of a namespace."


async def listen(settings: ListenerSettings, shutdown: Shutdown) -> ExitCode:
    """Answer until told to stop."""
    async with open_listener_of(settings) as listener:
        shutdown.drains = True
        await shutdown.requested.wait()
        log.info("draining; interrupt again to stop at once")
        await listener.drain()
    log.info("stopped")
    return ExitCode.OK


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program, or the command of `punch` with these *arguments*; its exit code."""
    name = "python -m punch.listener" if arguments is None else "punch listener"
    return run_program(name, ABOUT, ListenerSettings, listen, arguments, stays=True)


if __name__ == "__main__":
    sys.exit(main())
