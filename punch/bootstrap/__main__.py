"""The bootstrap: where the peers of a namespace meet.

``python -m punch.bootstrap --listen /ip4/192.168.1.10/tcp/51820`` runs one alone. A listener
whose bootstrap address is its own machine's is one without being asked.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .._logs import get_logger
from ..cli import (
    BOOTSTRAP,
    IDENTITY,
    LOG_LEVEL,
    TRANSPORT,
    ExitCode,
    Option,
    Settings,
    Shutdown,
    claim_identity,
    run_program,
)
from ..libp2p import open_node
from ..network import parse_address
from ._server import open_bootstrap

log = get_logger("punch.bootstrap")

ABOUT = "Let the listeners and dialers of any number of namespaces find each other."

OPTIONS = (
    Option(
        name="--listen",
        default=BOOTSTRAP.default,
        variable=BOOTSTRAP.environment,
        metavar="ADDRESS",
        help="where to be found, as /ip4/HOST/tcp/PORT; the transport option adds the other one",
    ),
    Option(
        name=TRANSPORT.name,
        default="dual",
        convert=TRANSPORT.convert,
        metavar=TRANSPORT.metavar,
        help="what to listen with",
    ),
    IDENTITY,
    LOG_LEVEL,
)


async def serve(settings: Settings, shutdown: Shutdown) -> ExitCode:
    """Let peers meet until told to stop."""
    address = parse_address(settings.listen, setting="--listen")
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
    return run_program("punch.bootstrap", ABOUT, OPTIONS, serve, arguments)


if __name__ == "__main__":
    sys.exit(main())
