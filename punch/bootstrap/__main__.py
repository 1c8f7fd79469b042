"""The bootstrap: where the peers of a namespace meet.

``python -m punch.bootstrap --listen /ip4/192.168.1.10/tcp/51820`` runs one alone. A listener
whose bootstrap address is its own machine's is one without being asked.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .._logs import get_logger
from ..cli import ExitCode, Shutdown, claim_identity, run_program
from ..libp2p import open_node
from ..network import parse_address
from ..settings import BootstrapSettings
from ._server import open_bootstrap

log = get_logger("punch.bootstrap")

ABOUT = "Let the listeners and dialers of any number of namespaces find each other."


async def serve(settings: BootstrapSettings, shutdown: Shutdown) -> ExitCode:
    """Let peers meet until told to stop."""
    address = parse_address(settings.listen, setting=settings.said("listen"))
    listen = [
        str(address.over(transport))
        for transport in ("tcp", "quic")
        if settings.transport in (transport, "dual")
    ]
    with claim_identity("bootstrap", settings.identity) as identity:
        async with (
            open_node(identity=identity, listen=listen, transport=settings.transport) as node,
            open_bootstrap(node),
        ):
            log.info("bootstrap", peer=node.peer_id, addresses=node.addresses)
            shutdown.drains = True
            await shutdown.requested.wait()
    return ExitCode.OK


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; its exit code."""
    return run_program("punch.bootstrap", ABOUT, BootstrapSettings, serve, arguments)


if __name__ == "__main__":
    sys.exit(main())
