"""The listener: runs a model and answers the dialers of a namespace.

``python -m punch.listener`` does it with the defaults; ``--help`` has the options.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import trio

from .._logs import get_logger
from ..bootstrap import open_bootstrap
from ..cli import (
    BOOTSTRAP,
    IDENTITY,
    KNOWN,
    LOG_LEVEL,
    NAMESPACE,
    STRICT,
    TRANSPORT,
    BackendSettings,
    ExitCode,
    Option,
    Settings,
    Shutdown,
    boolean,
    claim_identity,
    count,
    data_folder,
    is_strict,
    open_backend,
    run_program,
)
from ..discovery import Directory, KnownPeers, join_namespace, new_incarnation
from ..exceptions import AddressUnavailable, ConfigurationError
from ..libp2p import open_node
from ..machine import Machine
from ..network import Address, Node, parse_address
from ._executor import Executor, open_executor

log = get_logger("punch.listener")

ABOUT = "Run a model and answer the dialers of a namespace."

OPTIONS = (
    BOOTSTRAP,
    NAMESPACE,
    TRANSPORT,
    Option(
        name="--listen",
        many=True,
        default=(),
        metavar="ADDRESS",
        help="address to be dialled at, may be given several times",
        shown_default="this machine's side of the way to the bootstrap, any port",
    ),
    Option(
        name="--backend",
        default="mock",
        variable="PUNCH_INFERENCE_BACKEND",
        metavar="NAME",
        help="mock, llama_cpp, embedded, llama_cpp_python or openai; see INFERENCE.md",
    ),
    Option(
        name="--model",
        metavar="FILE",
        variable="LLAMA_GGUF_PATH",
        help="the model, as a GGUF file or the name of one that was pulled",
    ),
    Option(
        name="--slots",
        convert=count(1),
        metavar="N",
        help="requests to answer side by side",
        shown_default="the backend's own",
    ),
    Option(
        name="--context",
        convert=count(1),
        metavar="TOKENS",
        help="longest prompt and answer of one request",
        shown_default="4096, or less if the model has less",
    ),
    Option(
        name="--queue",
        default=16,
        convert=count(0),
        metavar="N",
        help="requests that may wait for a slot; further ones are refused",
    ),
    Option(
        name="--calibrate",
        default=True,
        convert=boolean,
        help="time the backend at the start, so that dialers know its speed",
    ),
    STRICT,
    IDENTITY,
    KNOWN,
    LOG_LEVEL,
)


def addresses_to_listen_on(settings: Settings, bootstrap: Address) -> tuple[str, ...]:
    """Where to listen: as asked for, else where the others can reach us and nobody else."""
    if settings.listen:
        return tuple(str(parse_address(text, setting="--listen")) for text in settings.listen)
    host = bootstrap.local_host()
    place = Address(kind="ip6" if ":" in host else "ip4", host=host, transport="tcp", port=0)
    return tuple(
        str(place.over(transport))
        for transport in ("tcp", "quic")
        if settings.transport in (transport, "dual")
    )


@asynccontextmanager
async def open_own_bootstrap(settings: Settings, address: Address) -> AsyncIterator[bool]:
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


async def listen(settings: Settings, shutdown: Shutdown) -> ExitCode:
    """Answer until told to stop."""
    bootstrap = parse_address(settings.bootstrap, setting="--bootstrap").reached_by(
        settings.transport, setting="--bootstrap"
    )
    known = KnownPeers(Path(settings.known_peers or data_folder() / "known_peers"))
    strict = is_strict(settings)
    incarnation = new_incarnation()
    async with AsyncExitStack() as stack:
        backend = await stack.enter_async_context(
            open_backend(
                settings.backend,
                BackendSettings(
                    model=settings.model,
                    slots=settings.slots,
                    context_tokens=settings.context,
                ),
            )
        )
        if strict and backend.simulated:
            raise ConfigurationError(
                f"strict mode, and backend {backend.name} simulates: choose a real backend with "
                "PUNCH_INFERENCE_BACKEND (see INFERENCE.md), or leave --strict out"
            )
        await stack.enter_async_context(open_own_bootstrap(settings, bootstrap))
        identity = stack.enter_context(claim_identity("listener", settings.identity))
        node = await stack.enter_async_context(
            open_node(
                identity=identity,
                listen=addresses_to_listen_on(settings, bootstrap),
                transport=settings.transport,
            )
        )
        executor = await stack.enter_async_context(
            open_executor(
                node,
                backend,
                namespace=settings.namespace,
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
                known=known,
                namespace=settings.namespace,
                roles={"listener"},
                incarnation=incarnation,
            )
        )
        await _join(membership)
        _announce(node, executor, settings.namespace)
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
    return run_program("punch.listener", ABOUT, OPTIONS, listen, arguments)


if __name__ == "__main__":
    sys.exit(main())
