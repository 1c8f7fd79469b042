"""The listener: runs a model and answers the dialers of a namespace.

``python -m punch.listener`` does it with the defaults; ``--help`` has the options.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from .._logs import get_logger
from ..bootstrap import open_bootstrap
from ..cli import (
    ExitCode,
    Shutdown,
    claim_identity,
    known_peers,
    open_backend,
    run_program,
)
from ..discovery import Directory, join_namespace, new_incarnation
from ..exceptions import AddressUnavailable, ConfigurationError
from ..libp2p import open_node
from ..machine import Machine
from ..network import Address, Node, parse_address
from ..settings import ListenerSettings, NetworkSettings, data_folder
from ._executor import Executor, open_executor

log = get_logger("punch.listener")

ABOUT = "Run a model and answer the dialers of a namespace."


def addresses_to_listen_on(settings: ListenerSettings, bootstrap: Address) -> tuple[str, ...]:
    """Where to listen: as asked for, else where the others can reach us and nobody else."""
    if settings.listen:
        return tuple(
            str(parse_address(text, setting=settings.said("listen"))) for text in settings.listen
        )
    host = bootstrap.local_host()
    place = Address(kind="ip6" if ":" in host else "ip4", host=host, transport="tcp", port=0)
    return tuple(
        str(place.over(transport))
        for transport in ("tcp", "quic")
        if settings.network.transport in (transport, "dual")
    )


@asynccontextmanager
async def open_own_bootstrap(settings: NetworkSettings, address: Address) -> AsyncIterator[bool]:
    """Be the bootstrap if *address* is this machine's and nobody is there; whether we are."""
    async with AsyncExitStack() as stack:
        if address.peer_id is not None or not address.is_ours():
            yield False
            return
        listen = [
            str(address.over(transport))
            for transport in ("tcp", "quic")
            if settings.transport in (transport, "dual")
        ]
        identity = stack.enter_context(claim_identity("bootstrap"))
        try:
            node = await stack.enter_async_context(
                open_node(identity=identity, listen=listen, transport=settings.transport)
            )
        except AddressUnavailable:
            # Somebody is there already. Whether it is a bootstrap, joining will tell.
            yield False
            return
        await stack.enter_async_context(open_bootstrap(node))
        log.info("nobody was at the bootstrap address: serving it", addresses=node.addresses)
        yield True


async def listen(settings: ListenerSettings, shutdown: Shutdown) -> ExitCode:
    """Answer until told to stop."""
    network = settings.network
    said = network.said("bootstrap")
    bootstrap = parse_address(network.bootstrap, setting=said).reached_by(
        network.transport, setting=said
    )
    strict = settings.strict.is_on
    incarnation = new_incarnation()
    async with AsyncExitStack() as stack:
        backend = await stack.enter_async_context(open_backend(settings.backend))
        if strict and backend.simulated:
            raise ConfigurationError(
                f"strict mode, and backend {backend.name} simulates: choose a real backend with "
                "PUNCH_INFERENCE_BACKEND (see INFERENCE.md), or leave --strict out"
            )
        await stack.enter_async_context(open_own_bootstrap(network, bootstrap))
        identity = stack.enter_context(claim_identity("listener", settings.identity))
        node = await stack.enter_async_context(
            open_node(
                identity=identity,
                listen=addresses_to_listen_on(settings, bootstrap),
                transport=network.transport,
            )
        )
        executor = await stack.enter_async_context(
            open_executor(
                node,
                backend,
                namespace=network.namespace,
                incarnation=incarnation,
                queue_limit=settings.queue,
                strict=strict,
                calibrate=settings.calibrate and not backend.simulated,
                machine=Machine(models_folder=data_folder()),
            )
        )
        membership = await stack.enter_async_context(
            join_namespace(
                node,
                bootstrap,
                known=known_peers(network),
                namespace=network.namespace,
                roles={"listener"},
                incarnation=incarnation,
            )
        )
        await _join(membership)
        _announce(node, executor, network.namespace)
        shutdown.drains = True
        await shutdown.requested.wait()
        log.info("draining; interrupt again to stop at once")
        await executor.drain()
    log.info("stopped")
    return ExitCode.OK


async def _join(membership: Directory) -> None:
    """Wait until we are in, however long the bootstrap takes to come up, or are turned away."""
    async with trio.open_nursery() as nursery:

        async def watch(event: trio.Event) -> None:
            await event.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(watch, membership.joined)
        nursery.start_soon(watch, membership.refused)
    if membership.trouble is not None:
        raise membership.trouble


def _announce(node: Node, executor: Executor, namespace: str) -> None:
    capability = executor.capability()
    log.info(
        "listening",
        namespace=namespace,
        peer=node.peer_id,
        addresses=node.addresses,
        backend=capability.backend,
        simulated=capability.simulated,
        models=[offer.name for offer in capability.models],
        slots=capability.load.slots,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; its exit code."""
    return run_program("punch.listener", ABOUT, ListenerSettings, listen, arguments)


if __name__ == "__main__":
    sys.exit(main())
