"""The worker: lends memory of this machine to peers that run a model over several machines.

``python -m punch.cluster.worker`` does it with the defaults; ``--help`` has the options.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..._logs import get_logger
from ...cli import ExitCode, Shutdown, run_program
from ...cli.splits._worker import open_worker_of
from ...settings import WorkerSettings

log = get_logger("punch.worker")

ABOUT = "Lend memory of this machine to peers that run a model over several machines."


async def lend(settings: WorkerSettings, shutdown: Shutdown) -> ExitCode:
    """Lend until told to stop."""
    async with open_worker_of(settings):
        shutdown.drains = True
        await shutdown.requested.wait()
    log.info("stopped")
    return ExitCode.OK


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program, or the command of `punch` with these *arguments*; its exit code."""
    name = "python -m punch.cluster.worker" if arguments is None else "punch worker"
    return run_program(name, ABOUT, WorkerSettings, lend, arguments, stays=True)


if __name__ == "__main__":
    sys.exit(main())
