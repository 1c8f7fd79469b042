"""The bootstrap: where the peers of a namespace meet.

``python -m punch.bootstrap --listen /ip4/192.168.1.10/tcp/51820`` runs one alone. A listener
whose bootstrap address is its own machine's is one without being asked.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .._logs import get_logger
from ..cli import ExitCode, Shutdown, claim_identity, run_program
from ..network import parse_address
from ..settings import BootstrapSettings
from ._server import open_bootstrap

log = get_logger("punch.bootstrap")

ABOUT = "Let the listeners and dialers of any number of namespaces find each other."


async def serve(settings: BootstrapSettings, shutdown: Shutdown) -> ExitCode:
    """Let peers meet until told to stop."""
    # Refused here, where the setting has a name.
    address = parse_address(settings.listen, setting=settings.said("listen"))
    with claim_identity("bootstrap", settings.identity) as identity:
        async with open_bootstrap(
            listen=[str(address)], identity=identity, transport=settings.transport
        ) as server:
            log.info("bootstrap", peer=server.peer_id, addresses=server.addresses)
            shutdown.drains = True
            await shutdown.requested.wait()
    return ExitCode.OK


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; its exit code."""
    return run_program("punch.bootstrap", ABOUT, BootstrapSettings, serve, arguments)


if __name__ == "__main__":
    sys.exit(main())
