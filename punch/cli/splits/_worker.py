"""Opens the worker that a program's settings describe, alone or beside its listener."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from ..._logs import get_logger
from ...cluster import RpcLender, Worker, open_rpc_lender, open_worker
from ...discovery import LocalListener
from ...events import Bus
from ...exceptions import ConfigurationError
from ...llama_cpp import choose_engine, find_rpc_server, read_named
from ...network import parse_address
from ...settings import LendingSettings, WorkerSettings, cache_folder
from .._identity import claim_identity
from .._namespace import open_membership_of, place_of
from .._shared import bootstraps, check_lend_to, known_peers, lan_of

log = get_logger("punch.worker")


async def rpc_program(settings: LendingSettings) -> Path:
    """The RPC server that *settings* mean, or the one beside the fastest llama.cpp that works.

    Raises:
      ConfigurationError: if there is none; the text says which command gets one.

    """
    if (named := _named_program(settings)) is not None:
        return named
    engine = await choose_engine(cache_folder=cache_folder(), lends=True)
    assert engine.rpc_server is not None
    return engine.rpc_server


def _named_program(settings: LendingSettings) -> Path | None:
    if settings.program is not None:
        path = Path(settings.program).expanduser()
        found = path if path.is_file() else find_rpc_server(path)
        if found is None or not os.access(found, os.X_OK):
            raise ConfigurationError(
                f"{settings.said('program')}={settings.program} is no program that can be run: "
                "name llama.cpp's ggml-rpc-server, or a folder with it"
            )
        return found
    if settings.engine is not None:
        named = read_named(settings.engine, setting=settings.said("engine"))
        found = find_rpc_server(named.path)
        if found is not None:
            return found
        said = settings.said("engine")
        raise ConfigurationError(
            f"no RPC server of llama.cpp is beside {said}={settings.engine}: get both with "
            "`punch engine install`, or name one with PUNCH_RPC_SERVER"
        )
    return None


@asynccontextmanager
async def open_worker_of(settings: WorkerSettings) -> AsyncIterator[Worker]:
    """Open the worker that *settings* describe; enter once it has joined its namespace.

    Raises:
      ConfigurationError: if a setting makes no sense, or there is no program to lend with.
      BackendError: if the program does not start.
      NetworkError: if the namespace does not let it in.

    """
    network = settings.network
    places = bootstraps(network)
    said = settings.said("listen")
    listen = [str(parse_address(text, setting=said)) for text in settings.listen]
    said = settings.said("announce")
    announce = [str(parse_address(text, setting=said)) for text in settings.announce]
    place = place_of(network)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        lending = settings.lending
        check_lend_to(lending, is_open=place.home is None)
        lender = await enter(open_lender_of(lending))
        identity = stack.enter_context(claim_identity("worker", settings.identity))
        membership = await enter(open_membership_of(place, identity, network))
        worker = await enter(
            open_worker(
                lender,
                tunnel_ports=_ports(lending),
                lend_to=lending.lend_to,
                bootstrap=places,
                namespace=place.name,
                listen=listen,
                announce=announce,
                transport=network.transport,
                identity=identity,
                known=known_peers(network),
                lan=lan_of(network, is_closed=membership is not None),
                membership=membership,
            )
        )
        # Without a limit: the bootstrap may come up later than its workers.
        await worker.wait_until_joined()
        await tell(worker)
        yield worker


@asynccontextmanager
async def open_worker_beside(
    listener: LocalListener, settings: LendingSettings, events: Bus | None = None
) -> AsyncIterator[Worker]:
    """Lend beside *listener*, whose identity and namespace the worker has; raises as above."""
    check_lend_to(settings, is_open=listener.directory.membership is None)
    async with (
        open_lender_of(settings) as lender,
        open_worker(
            lender,
            beside=listener,
            tunnel_ports=_ports(settings),
            lend_to=settings.lend_to,
            events=events,
        ) as worker,
    ):
        await tell(worker)
        yield worker


@asynccontextmanager
async def open_lender_of(settings: LendingSettings) -> AsyncIterator[RpcLender]:
    """What *settings* say is lent; its program was started once and works."""
    async with open_rpc_lender(
        await rpc_program(settings),
        devices=settings.device,
        memory=settings.memory,
        threads=settings.threads,
        measures=settings.calibrate,
        cache_folder=cache_folder(),
    ) as lender:
        yield lender


def _ports(settings: LendingSettings) -> tuple[int, ...] | None:
    return None if settings.tunnel_port is None else (settings.tunnel_port,)


async def tell(worker: Worker) -> None:
    """Say in the log what is lent, and where."""
    found = await worker.survey()
    if found.bound == "promise":
        log.warning(
            "nothing but the borrower's plan keeps what it uses below what is lent: no limit of "
            "this system holds for these devices",
            devices=[device.name for device in found.devices],
        )
    log.info(
        "lending",
        namespace=worker.namespace,
        peer=worker.peer_id,
        addresses=worker.addresses,
        devices=[device.name for device in found.devices],
        bytes=found.memory,
        bound=found.bound,
        rpc=".".join(map(str, found.rpc)),
        build=found.build,
    )
