"""The bootstrap: where the peers of a namespace meet.

``python -m punch.bootstrap --listen /ip4/192.168.1.10/tcp/51820`` runs one alone. A listener
whose bootstrap address is its own machine's is one without being asked.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .._logs import get_logger
from ..cli import ExitCode, Shutdown, claim_identity, run_program
from ..discovery import parse_bootstraps
from ..exceptions import AddressUnavailable, ConfigurationError
from ..network import Address, own_hosts, places_here
from ..settings import BootstrapSettings
from ..wire import RegistrationLimits
from ._server import open_bootstrap

log = get_logger("punch.bootstrap")

ABOUT = "Let the listeners and dialers of any number of namespaces find each other."


async def places_to_serve(settings: BootstrapSettings) -> tuple[Address, ...]:
    """Those of the given places that are this machine's.

    All machines of a namespace may have one setting for where they meet: of several places a
    bootstrap serves its own.

    Raises:
      ConfigurationError: if a place cannot be read.
      AddressUnavailable: if none of them is this machine's.

    """
    # Refused here, where the setting has a name.
    said = settings.said("listen")
    given = parse_bootstraps(settings.listen, setting=said)
    ours = {place: await places_here(place) for place in given}
    serves = tuple(place for place in given if ours[place])
    for place in given:
        if serves and not ours[place]:
            log.info("not this machine's: left to another bootstrap", address=str(place))
    if serves:
        return serves
    if len(given) == 1 and not given[0].is_name:
        return given  # Listening there will fail, and say why.
    has = ", ".join(host for host in own_hosts() if host not in {"127.0.0.1", "::1"})
    raise AddressUnavailable(
        f"{said} is {settings.listen!r}: none of it is this machine's, which has "
        f"{has or 'loopback only'}; give an address or a name of this machine, or "
        "/ip4/0.0.0.0/tcp/51820 for all that it has"
    )


async def serve(settings: BootstrapSettings, shutdown: Shutdown) -> ExitCode:
    """Let peers meet until told to stop."""
    places = await places_to_serve(settings)
    with claim_identity("bootstrap", settings.identity) as identity:
        async with open_bootstrap(
            listen=[str(place) for place in places],
            identity=identity,
            transport=settings.transport,
            limits=RegistrationLimits(
                per_host=settings.per_host,
                per_namespace=settings.per_namespace,
                total=settings.max_peers,
            ),
            relays=settings.relay,
        ) as server:
            expected = {place.peer_id for place in places} - {None, server.peer_id}
            if expected:
                raise ConfigurationError(
                    f"{settings.said('listen')} is {settings.listen!r}, and this bootstrap is "
                    f"{server.peer_id}: leave /p2p/ out, or give the identity of the other with "
                    "--identity"
                )
            log.info("bootstrap", peer=server.peer_id, addresses=server.addresses)
            shutdown.drains = True
            await shutdown.requested.wait()
    return ExitCode.OK


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program, or the command of `punch` with these *arguments*; its exit code."""
    name = "python -m punch.bootstrap" if arguments is None else "punch bootstrap"
    return run_program(name, ABOUT, BootstrapSettings, serve, arguments, stays=True)


if __name__ == "__main__":
    sys.exit(main())
